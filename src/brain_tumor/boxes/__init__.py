"""Box geometry in NumPy: coordinates, area, IoU, presence, letterboxing."""
