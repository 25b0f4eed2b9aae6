"""Predictions of models, and the figures, intervals and curves computed from them."""
