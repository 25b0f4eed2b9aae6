"""The gate: decides whether a model becomes the champion in MLflow's registry."""
