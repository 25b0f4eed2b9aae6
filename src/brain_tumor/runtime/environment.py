"""What a step finds in its environment. Each may be absent, and none changes what a step computes.

So none of them enters the key of a cache: not as a parameter, nor as a variable that a compiled pipeline
declares with a value of one run.
"""

RUN = "BRAIN_TUMOR_RUN"
"""The pipeline run's name."""
OVERRIDES = "BRAIN_TUMOR_OVERRIDES"
"""What it changes of the configuration, for people to read."""
IMAGE = "BRAIN_TUMOR_IMAGE"
"""The tag of the image that the step's code is of."""
EVENTS = "BRAIN_TUMOR_EVENTS"
"""The file that a step tells its events to."""
CHECKPOINTS = "BRAIN_TUMOR_CHECKPOINTS"
"""The folder, or address in a bucket, below which trainings keep their checkpoints."""
PUBLISH = "BRAIN_TUMOR_PUBLISH"
"""The address in a bucket below which a phase without `publish_to` of its own publishes its model."""
MLFLOW = "BRAIN_TUMOR_MLFLOW"
"""The folder of the runs' own MLflow store, where `MLFLOW_TRACKING_URI` names no other."""
