"""What the figures of docs/measurements.md come from."""
