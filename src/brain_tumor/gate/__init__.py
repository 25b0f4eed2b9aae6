"""The gate: registers a model in MLflow, and decides whether it becomes the champion."""
