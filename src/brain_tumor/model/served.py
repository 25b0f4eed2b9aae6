"""The detector as a model that MLflow loads and serves without this library.

MLflow stores this file with the logged model and runs it when the model is loaded. It imports nothing of this
library; the custom layers of the .keras file are logged as files too.
"""

import importlib.util
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np

# Batch size.
BATCH = 32


class ServedDetector(mlflow.pyfunc.PythonModel):
    """Predicts for images (batch, size, size, 1 or 3), letterboxed, grey or RGB, 0..255, uint8 or float.

    Its files are one `.keras` file, and the `.py` files of its custom layers.
    """

    def load_context(self, context: Any) -> None:
        """Loads the Keras model from the logged files."""
        files = [Path(path) for path in context.artifacts.values()]
        # The logged model's layers are registered under the same names as the library's, which this process
        # may be using in another version: the registration must apply to this model only.
        registered = keras.saving.get_custom_objects()
        others = dict(registered)
        try:
            for file in files:
                if file.suffix == ".py":
                    _run(file)
            [model] = [file for file in files if file.suffix == ".keras"]
            self._model = keras.saving.load_model(model, compile=False)
        finally:
            registered.clear()
            registered.update(others)

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """The model's predictions.

        Args:
            context: Unused.
            model_input: The images. Other types than uint8, such as JSON's integers, are converted to
                float32.
            params: Unused.

        Returns:
            float32: `labels`, probabilities (batch, classes); `boxes`, (batch, classes, 4), each
            `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the letterboxed image; from the dense box head
            `scores`, 0..1, (batch, classes). A model without a class or box head lacks its outputs.

        Raises:
            ValueError: The input has another shape.
        """
        images = np.asarray(model_input)
        size = self._model.input_shape[1]
        if images.ndim != 4 or images.shape[1:3] != (size, size) or images.shape[3] not in (1, 3):
            raise ValueError(
                f"The images are of shape {images.shape}; the model takes (batch, {size}, {size}, 1 or 3)."
            )
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
        answers: dict[str, np.ndarray] = self._model.predict(images, batch_size=BATCH, verbose=0)
        return answers


def _run(file: Path) -> None:
    """Runs a Python file as a module that is not in `sys.modules`."""
    spec = importlib.util.spec_from_file_location(f"served_{file.stem}", file)
    assert spec and spec.loader, "it is a .py file"
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


mlflow.models.set_model(ServedDetector())
