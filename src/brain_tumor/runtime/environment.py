"""Environment variables that a step reads. All are optional, and none changes what a step computes.

They are kept out of cache keys: they are not parameters, and the compiled pipeline has none of their values.
"""

RUN = "BRAIN_TUMOR_RUN"
"""The pipeline run's name."""
RUN_PAGE = "BRAIN_TUMOR_RUN_PAGE"
"""The address of the pipeline run's page, with {run} instead of its name, for people who look at MLflow."""
OVERRIDES = "BRAIN_TUMOR_OVERRIDES"
"""The run's overrides, for display."""
IMAGE = "BRAIN_TUMOR_IMAGE"
"""The tag of the step's image."""
EVENTS = "BRAIN_TUMOR_EVENTS"
"""The file that a step appends its events to."""
CHECKPOINTS = "BRAIN_TUMOR_CHECKPOINTS"
"""The folder or bucket address for checkpoints."""
PUBLISH = "BRAIN_TUMOR_PUBLISH"
"""The bucket address to which a phase without its own `publish_to` publishes its model."""
MLFLOW = "BRAIN_TUMOR_MLFLOW"
"""The folder of the local MLflow store, used if `MLFLOW_TRACKING_URI` is not set."""
