"""Loading the Keras model of a model artifact, here and where this library is not.

A .keras file names the layers of our own by what they are registered as; importing their modules registers
them.
"""

from pathlib import Path
from zipfile import BadZipFile

import keras

from brain_tumor.artifacts.folder import check_files
from brain_tumor.artifacts.model import Model
from brain_tumor.model import dense_head, heads, rgb
from brain_tumor.runtime.errors import DamagedError

# The files that define layers of our own. They import nothing of this library.
LAYER_FILES = [Path(str(module.__file__)) for module in (rgb, heads, dense_head)]
# The one that loads a model by itself, from these and the .keras file. MLflow runs it; nobody imports it.
LOADER_FILE = Path(__file__).with_name("served.py")
LONGEST_REASON = 200  # characters


def load_model(model: Model) -> keras.Model:
    """Loads the Keras model of a model artifact, ready for predictions.

    Args:
        model: The artifact.

    Returns:
        A detector, not compiled, see `brain_tumor.model.detector.build_detector`.

    Raises:
        DamagedError: A file of the artifact is not the one of its manifest, or this Keras cannot load it.
    """
    check_files(model.path, model.manifest)
    try:
        return keras.saving.load_model(model.keras_file, compile=False)
    except (ValueError, TypeError, KeyError, BadZipFile) as error:  # as of what another version wrote
        reason = (str(error).splitlines() or [""])[0][:LONGEST_REASON]
        raise DamagedError(
            f"{model.keras_file} cannot be loaded by Keras {keras.__version__} ({reason}); run the step that "
            "makes it again."
        ) from error
