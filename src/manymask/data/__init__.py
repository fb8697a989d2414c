"""Data sets: each file reads one official layout into a `Source`; `store.prepare` turns a source into a `Store`."""
