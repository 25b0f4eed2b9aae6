"""The installed versions of the packages that affect results."""

import platform
from importlib import metadata

import brain_tumor

# Each image has a subset of these; TensorFlow has a separate package for CPUs.
PACKAGES = (
    *("numpy", "pandas", "pillow", "pyarrow", "scikit-learn", "pycocotools"),
    *("keras", "tensorflow", "tensorflow-cpu", "jax", "kfp", "mlflow"),
)


def installed_versions() -> dict[str, str]:
    """The versions of the library, of Python and of the installed `PACKAGES`."""
    versions = {"brain-tumor": brain_tumor.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
