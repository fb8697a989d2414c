"""From an image or a folder of images to drawn masks and result files."""
