"""The pipeline, compiled and run."""
