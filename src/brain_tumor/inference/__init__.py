"""A trained model's answers for images from anywhere."""
