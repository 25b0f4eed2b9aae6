"""What brings a compiled pipeline to its target: a module a runner, behind the interface of `runner.py`."""
