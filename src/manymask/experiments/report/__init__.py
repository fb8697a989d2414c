"""Results → tables and figures: `collect` reads them, `paper` has the paper's own figures, `tables`, `plots` and `write`."""
