"""Programs that make the figures of docs/measurements.md."""
