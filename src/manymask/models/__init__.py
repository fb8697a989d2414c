"""Models that training and evaluation use: codecs, the latent diffusion segmenter, and the baselines."""
