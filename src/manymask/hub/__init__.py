"""Model folders: weights, configuration, provenance, licence and card."""
