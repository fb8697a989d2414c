"""What drawn masks promise: calibrated confidence, guaranteed outlines, predicted Dice, presence, foreignness."""
