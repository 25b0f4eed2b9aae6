"""Loading the Keras model of a model artifact.

A .keras file names the layers of our own by what they are registered as, and importing their module registers
them.
"""

import keras

import brain_tumor.model.heads  # noqa: F401, it registers its layers
from brain_tumor.artifacts.model import Model


def load_model(model: Model) -> keras.Model:
    """Loads the Keras model of a model artifact, ready for predictions.

    Args:
        model: The artifact.

    Returns:
        A detector, not compiled, see `brain_tumor.model.detector.build_detector`.
    """
    return keras.saving.load_model(model.keras_file, compile=False)
