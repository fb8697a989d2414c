"""A trained segmenter for other engines than torch: one graph in a folder, or its networks compiled one by one."""
