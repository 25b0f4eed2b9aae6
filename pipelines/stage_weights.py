"""Copies a backbone's ImageNet weights to a bucket, for pods without internet access.

Usage: `python -m pipelines.stage_weights s3://BUCKET/FOLDER [OVERRIDE ...]`. Keras downloads the weights to
this machine; the printed address is the value for `model.weights`.
"""

import argparse
import tempfile
from pathlib import Path

from brain_tumor.config import ModelConfig
from brain_tumor.config.compose import compose
from brain_tumor.runtime.step import import_tensorflow, step
from brain_tumor.stores.folders import upload_file
from brain_tumor.stores.locations import check_writable
from brain_tumor.stores.paths import open_path


def stage_weights(config: ModelConfig, folder: str) -> str:
    """Saves a backbone's ImageNet weights as a file in a folder or a bucket.

    Args:
        config: The model's config, for its backbone.
        folder: The folder, or its address in a bucket.

    Returns:
        The file's address.

    Raises:
        InputError: The weights cannot be downloaded, or the folder cannot be written.
    """
    check_writable(folder)
    from brain_tumor.model.backbone import build_backbone

    backbone = build_backbone(config.model_copy(update={"weights": "imagenet"}))
    name = f"{config.backbone}-imagenet.weights.h5"
    with tempfile.TemporaryDirectory() as scratch:
        backbone.save_weights(Path(scratch) / name)
        upload_file(Path(scratch) / name, open_path(folder) / name)
    return f"{folder.rstrip('/')}/{name}"


def main() -> None:
    """The command line: prints the override that uses these weights."""
    parser = argparse.ArgumentParser(description="Copy a backbone's ImageNet weights to a bucket.")
    parser.add_argument("folder", help="the destination, such as s3://mlpipeline/brain-tumor/weights")
    parser.add_argument("overrides", nargs="*", help="overrides of the configuration, such as profile=full")
    arguments = parser.parse_args()
    with step():
        import_tensorflow()
        print(f"model.weights={stage_weights(compose(arguments.overrides).model, arguments.folder)}")


if __name__ == "__main__":
    main()
