"""From a folder of images to a trained model: look, plan, train, say what it is worth."""
