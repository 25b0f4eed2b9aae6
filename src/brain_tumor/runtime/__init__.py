"""What every step needs: errors, events, progress, tracking in MLflow."""
