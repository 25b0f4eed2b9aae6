"""From models to predictions, and from predictions to figures, intervals and curves."""
