"""From predictions to figures, intervals and a report."""
