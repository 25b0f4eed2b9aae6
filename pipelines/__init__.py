"""Compiles and runs the pipeline."""
