"""The targets that the pipeline can run on: one YAML file per target, with the schema in `target.py`."""
