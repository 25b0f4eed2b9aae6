"""Loading the Keras model of a model artifact, here and where this library is not.

A .keras file names the layers of our own by what they are registered as; importing their modules registers
them.
"""

from pathlib import Path

import keras

from brain_tumor.artifacts.folder import check_files
from brain_tumor.artifacts.model import Model
from brain_tumor.model import dense_head, heads, rgb

# The files that define layers of our own. They import nothing of this library.
LAYER_FILES = [Path(str(module.__file__)) for module in (rgb, heads, dense_head)]
# The one that loads a model by itself, from these and the .keras file. MLflow runs it; nobody imports it.
LOADER_FILE = Path(__file__).with_name("served.py")


def load_model(model: Model) -> keras.Model:
    """Loads the Keras model of a model artifact, ready for predictions.

    Args:
        model: The artifact.

    Returns:
        A detector, not compiled, see `brain_tumor.model.detector.build_detector`.

    Raises:
        DamagedError: A file of the artifact is not the one of its manifest.
    """
    check_files(model.path, model.manifest)
    return keras.saving.load_model(model.keras_file, compile=False)
