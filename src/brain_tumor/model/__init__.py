"""The detector: backbone, heads, and how it is saved and loaded."""
