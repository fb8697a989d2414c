"""One module per data set: each reads one official layout into a `Source`."""
