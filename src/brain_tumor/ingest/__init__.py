"""Ingest: reads a source, validates and splits it, and writes the dataset artifact."""
