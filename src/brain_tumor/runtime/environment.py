"""Environment variables that a step reads. All are optional, and none changes what a step computes.

So none of them is part of a cache key: neither as a parameter, nor as a variable with a run's value in the
compiled pipeline.
"""

RUN = "BRAIN_TUMOR_RUN"
"""The pipeline run's name."""
OVERRIDES = "BRAIN_TUMOR_OVERRIDES"
"""The run's overrides, for people to read."""
IMAGE = "BRAIN_TUMOR_IMAGE"
"""The tag of the step's image."""
EVENTS = "BRAIN_TUMOR_EVENTS"
"""The file that a step appends its events to."""
CHECKPOINTS = "BRAIN_TUMOR_CHECKPOINTS"
"""The folder, or address in a bucket, for the trainings' checkpoints."""
PUBLISH = "BRAIN_TUMOR_PUBLISH"
"""The address in a bucket to which a phase without its own `publish_to` publishes its model."""
MLFLOW = "BRAIN_TUMOR_MLFLOW"
"""The folder of the local MLflow store, used if `MLFLOW_TRACKING_URI` is not set."""
