"""Runners of a compiled pipeline: one module per runner, with the interface in `runner.py`."""
