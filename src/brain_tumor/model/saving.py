"""Loading the Keras model of a model artifact, with and without this library.

A .keras file refers to custom layers by their registered names; importing their modules registers them.
"""

from pathlib import Path
from zipfile import BadZipFile

import keras

from brain_tumor.artifacts.folder import check_files
from brain_tumor.artifacts.model import Model
from brain_tumor.model import dense_head, heads, rgb
from brain_tumor.runtime.errors import DamagedError

# The files that define custom layers. They import nothing from this library.
LAYER_FILES = [Path(str(module.__file__)) for module in (rgb, heads, dense_head)]
# The file that loads a model from these and the .keras file. Run by MLflow, imported by nothing.
LOADER_FILE = Path(__file__).with_name("served.py")
MAX_REASON_LENGTH = 200  # characters


def load_model(model: Model) -> keras.Model:
    """Loads the Keras model of a model artifact, ready for predictions.

    Args:
        model: The artifact.

    Returns:
        A detector, not compiled; see `brain_tumor.model.detector.build_detector`.

    Raises:
        DamagedError: A file of the artifact does not match the manifest, or this version of Keras cannot load
            it.
    """
    check_files(model.path, model.manifest)
    try:
        return keras.saving.load_model(model.keras_file, compile=False)
    except (ValueError, TypeError, KeyError, BadZipFile) as error:  # for example, written by another version
        reason = (str(error).splitlines() or [""])[0][:MAX_REASON_LENGTH]
        raise DamagedError(
            f"{model.keras_file} cannot be loaded by Keras {keras.__version__} ({reason}); run the step that "
            "makes it again."
        ) from error
