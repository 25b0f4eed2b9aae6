"""Which versions of what computes are installed."""

import platform
from importlib import metadata

import brain_tumor

# An image has those that its steps need; TensorFlow has a package of its own for CPUs.
PACKAGES = (
    *("numpy", "pandas", "pillow", "pyarrow", "scikit-learn", "pycocotools"),
    *("keras", "tensorflow", "tensorflow-cpu", "jax", "kfp", "mlflow"),
)


def installed_versions() -> dict[str, str]:
    """The versions of the library, of Python and of those `PACKAGES` that are there."""
    versions = {"brain-tumor": brain_tumor.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
