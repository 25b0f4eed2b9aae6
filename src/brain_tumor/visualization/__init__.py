"""Pictures of the predictions. Needs no TensorFlow."""
