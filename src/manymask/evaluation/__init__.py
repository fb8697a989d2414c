"""Scores of a model on held-out cases, and what they are compared with."""
