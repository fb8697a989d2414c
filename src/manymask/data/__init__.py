"""Cases, prepared stores, augmentation, and the data sets they come from."""
