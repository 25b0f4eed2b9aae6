"""The gate: which model is the champion of MLflow's registry."""
