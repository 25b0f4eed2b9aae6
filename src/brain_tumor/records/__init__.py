"""TFRecords: written from the dataset artifact, verified, summarized and read."""
