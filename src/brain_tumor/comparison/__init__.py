"""Differences between runs: configuration, data, code, figures and predictions."""
