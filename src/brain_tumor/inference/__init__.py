"""Prediction with a trained model on a user's images."""
