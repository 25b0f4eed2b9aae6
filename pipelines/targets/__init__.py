"""Where the pipeline can run: a YAML file a target, by the schema of `target.py`."""
