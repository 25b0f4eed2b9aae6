"""Export formats, one module each; see `registry` for their interface."""
