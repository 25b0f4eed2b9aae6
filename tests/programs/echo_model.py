"""A model that returns its input, for MLflow."""

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    # MLflow reads the type hints, and warns about uninformative ones.
    def predict(self, context, model_input: list[str], params=None) -> list[str]:  # type: ignore[no-untyped-def]
        return model_input


mlflow.models.set_model(Echo())
