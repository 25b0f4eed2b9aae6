"""Predicting with a trained model on images from anywhere."""
