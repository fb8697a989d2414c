"""The paper's tables and figures: the matrix of variants, its runs, and the report."""
