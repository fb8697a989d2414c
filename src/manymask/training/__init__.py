"""One training loop for every stage: initial weights, optimiser, checkpoints."""
