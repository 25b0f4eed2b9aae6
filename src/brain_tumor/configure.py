"""From overrides to each step's config, with fingerprints of external inputs.

Cache keys are made from configurations. So these include a fingerprint of the content of a folder, a bucket
or a weights file, and the label names that an export declares.
"""

from typing import Any, TypeVar

from pydantic import ValidationError

from brain_tumor.config import BucketDataset, DirectoryDataset, Schema, StepConfigs
from brain_tumor.config.base import explain
from brain_tumor.config.compose import compose
from brain_tumor.config.dataset import AUTO, AnyDataset
from brain_tumor.config.training import ModelConfig
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.locations import fingerprint

S = TypeVar("S", bound=Schema)


def configure(overrides: list[str]) -> StepConfigs:
    """Composes the configuration, and splits it into the steps' configs.

    Args:
        overrides: Hydra's overrides, such as `profile=full` or `phases.phase3_finetune.learning_rate=1e-4`.

    Raises:
        InputError: An override names an unknown key or has an invalid value, or a bucket cannot be read.
    """
    config = compose(overrides)
    changes = {"dataset": _pin_dataset(config.dataset), "model": _pin_model(config.model)}
    return config.model_copy(update=changes).steps()


def _pin_dataset(dataset: AnyDataset) -> AnyDataset:
    changes: dict[str, Any] = {}
    if dataset.labels == [AUTO]:
        # Imported late: it imports pandas, which is needed only here.
        from brain_tumor.ingest.labels import read_labels

        changes["labels"] = read_labels(dataset)
    if isinstance(dataset, DirectoryDataset):
        changes["fingerprint"] = fingerprint(dataset.path)
    elif isinstance(dataset, BucketDataset):
        changes["fingerprint"] = fingerprint(dataset.uri)
    return _changed(dataset, changes, "dataset")


def _pin_model(model: ModelConfig) -> ModelConfig:
    if model.weights in ("imagenet", "none"):
        return model
    return _changed(model, {"weights_fingerprint": fingerprint(model.weights)}, "model")


def _changed(schema: S, changes: dict[str, Any], name: str) -> S:
    """A copy with changed values, validated again."""
    try:
        return type(schema).model_validate({**schema.model_dump(), **changes})
    except ValidationError as error:
        raise InputError(explain(error, type(schema), name)) from None
