"""Reports: pages, plots and galleries, without TensorFlow."""
