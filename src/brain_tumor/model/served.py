"""The detector as a model that MLflow loads and serves without this library.

MLflow stores this file with the logged model and runs it when the model is loaded. It imports nothing from
this library; the custom layers of the .keras file are logged as files too.
"""

import importlib.util
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np

BATCH_SIZE = 32


class ServedDetector(mlflow.pyfunc.PythonModel):
    """Predicts for images (batch, size, size, 1 or 3), letterboxed, grey or RGB, 0..255, uint8 or float.

    Its artifacts are one `.keras` file and the `.py` files of the custom layers.
    """

    def load_context(self, context: Any) -> None:
        """Loads the Keras model from the logged files."""
        files = [Path(path) for path in context.artifacts.values()]
        # The logged layers are registered under the same names as the library's, of which this process may
        # use another version: restore the previous registrations afterwards.
        registered = keras.saving.get_custom_objects()
        previous = dict(registered)
        try:
            for file in files:
                if file.suffix == ".py":
                    _run(file)
            [model] = [file for file in files if file.suffix == ".keras"]
            self._model = keras.saving.load_model(model, compile=False)
        finally:
            registered.clear()
            registered.update(previous)

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """The model's predictions.

        Args:
            context: Unused.
            model_input: The images. Types other than uint8, such as JSON's integers, are converted to
                float32.
            params: Unused.

        Returns:
            float32: `labels`, probabilities (batch, classes); `boxes`, (batch, classes, 4), each
            `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the letterboxed image; from the dense box head
            `scores`, 0..1, (batch, classes). A model without a class or box head lacks that head's outputs.

        Raises:
            ValueError: The input has the wrong shape.
        """
        images = np.asarray(model_input)
        size = self._model.input_shape[1]
        if images.ndim != 4 or images.shape[1:3] != (size, size) or images.shape[3] not in (1, 3):
            raise ValueError(
                f"The images are of shape {images.shape}; the model takes (batch, {size}, {size}, 1 or 3)."
            )
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
        predictions: dict[str, np.ndarray] = self._model.predict(images, batch_size=BATCH_SIZE, verbose=0)
        return predictions


def _run(file: Path) -> None:
    """Runs a Python file as a module that is not in `sys.modules`."""
    spec = importlib.util.spec_from_file_location(f"served_{file.stem}", file)
    assert spec and spec.loader, "it is a .py file"
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


mlflow.models.set_model(ServedDetector())
