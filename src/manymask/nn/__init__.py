"""Building blocks of networks: residual blocks, U-Net, pyramids, encoders, quantisers, losses."""
