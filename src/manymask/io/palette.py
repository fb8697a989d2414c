"""Colours of outlines, distinguishable with colour-vision deficiency (Okabe and Ito 2008)."""

# Okabe and Ito's palette, told apart by colour-blind eyes too
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
