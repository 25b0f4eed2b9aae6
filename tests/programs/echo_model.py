"""A model that answers with its input, for MLflow."""

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context: object, model_input: list[str], params: object = None) -> list[str]:
        return model_input


mlflow.models.set_model(Echo())
