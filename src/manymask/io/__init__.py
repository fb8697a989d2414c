"""Reading images and masks, writing results; everything is written beside its place and then renamed."""
