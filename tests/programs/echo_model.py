"""A model that answers with its input, for MLflow."""

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    # MLflow reads the hints, and warns of those that say nothing.
    def predict(self, context, model_input: list[str], params=None) -> list[str]:  # type: ignore[no-untyped-def]
        return model_input


mlflow.models.set_model(Echo())
