"""Generates the configuration reference: all settings of the schemas, as a Markdown page."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic_core import PydanticUndefined

from brain_tumor.config import (
    AugmentationConfig,
    BucketDataset,
    DatasetConfig,
    DirectoryDataset,
    EvaluateConfig,
    GateConfig,
    ModelConfig,
    PhaseConfig,
    RecordsConfig,
    RoboflowDataset,
    Schema,
    SyntheticDataset,
    Threshold,
    VisualizeConfig,
)
from brain_tumor.config.compose import compose
from brain_tumor.config.dataset import Labels, SplitFractions
from brain_tumor.config.fields import BucketAddress, Folder, Location
from brain_tumor.config.pipeline import Config
from brain_tumor.config.training import Heads, LossWeights, TrainingConfig
from pipelines.targets.target import Bytes, Cores, Placement, Target, Toleration

# The sections of the configuration by key.
SECTIONS: dict[str, type[Schema]] = {
    "": Config,
    "dataset": DatasetConfig,
    "dataset.split_fractions": SplitFractions,
    "dataset=synthetic": SyntheticDataset,
    "dataset=directory": DirectoryDataset,
    "dataset=roboflow": RoboflowDataset,
    "dataset=bucket": BucketDataset,
    "records": RecordsConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "training.augmentation": AugmentationConfig,
    "phases.NAME": PhaseConfig,
    "phases.NAME.loss_weights": LossWeights,
    "evaluate": EvaluateConfig,
    "visualize": VisualizeConfig,
    "gate": GateConfig,
}
# The sections of a target's file by key.
TARGET_SECTIONS: dict[str, type[Schema]] = {
    "Target": Target,
    "placement.STEP": Placement,
    "placement.STEP.tolerations": Toleration,
}
# Types with their own validation, see `brain_tumor.config.fields`.
KINDS: list[tuple[Any, str, str]] = [
    (Threshold, "number or string", "0 to 1, or `tuned`"),
    (Labels, "list of strings", "`auto`, or unique names"),
    (Heads, "list of strings", "`labels`, `boxes` or both"),
    (Location, "string", "a path, or an address that starts with `gs://` or `s3://`"),
    (Folder, "string", "a local folder"),
    (BucketAddress, "string", "an address that starts with `gs://` or `s3://`"),
    (Cores, "string", "a number of cores, such as `4` or `500m`"),
    (Bytes, "string", "a number of bytes, such as `16Gi`"),
]
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
COLUMNS = ("Key", "Type", "Default", "Allowed", "Meaning")
PROFILES = ("quick", "full")

INTRODUCTION = """\
# Configuration reference

This page is generated from the schemas in `src/brain_tumor/config/` and `pipelines/targets/target.py` by
`make docs-reference`; edit those. [Configuration](configuration.md) describes how to set values.

Defaults are those of the schemas. The profiles and phases in `src/brain_tumor/config/yaml/` change some of
them: see [what the profiles set](#what-the-profiles-set). "Required" means that there is no default.
"""
PROFILES_INTRODUCTION = """\
## What the profiles set

Settings whose value in a profile differs from the schema's default, with the default data set and
`phases=mission`.
"""
TARGET_INTRODUCTION = """\
## Files of targets

`TARGET=NAME` selects the file `pipelines/targets/NAME.yaml`; see [targets](targets.md). `STEP` is one of
`ingest`, `build_tfrecords`, `train`, `evaluate`, `label_curves`, `visualize`, `gate`.
"""


def reference_page() -> str:
    """Generates the whole page.

    Raises:
        ValueError: A key has no description in its schema.
    """
    parts = [INTRODUCTION, *(_section(key, schema) for key, schema in SECTIONS.items())]
    parts += [PROFILES_INTRODUCTION, _profiles_table(), TARGET_INTRODUCTION]
    parts += [_section(key, schema, "###") for key, schema in TARGET_SECTIONS.items()]
    return "\n".join(parts)


def _section(key: str, schema: type[Schema], level: str = "##") -> str:
    """A heading, the schema's description, and a table of its keys, without those that all sources share."""
    about = (schema.__doc__ or "").split("\n")[0]
    heading = f"`{key}`" if key else "Top level"
    base = DatasetConfig if issubclass(schema, DatasetConfig) and schema is not DatasetConfig else None
    shared = set(base.model_fields) if base else set()
    own = [name for name in schema.model_fields if name not in shared or _differs(schema, name)]
    rows = [_row(schema, name) for name in own]
    return "\n".join([f"{level} {heading}", "", about, "", _table(COLUMNS, rows), ""])


def _differs(schema: type[Schema], name: str) -> bool:
    return bool(schema.model_fields[name].default != DatasetConfig.model_fields[name].default)


def _row(schema: type[Schema], name: str) -> tuple[str, ...]:
    field = schema.model_fields[name]
    description = field.description or (
        DatasetConfig.model_fields[name].description if _shared(name) else None
    )
    if not description:
        raise ValueError(f"{schema.__name__}.{name} has no docstring below it; add one.")
    hint = get_type_hints(schema, include_extras=True)[name]
    kind, allowed = _kind(hint)
    default = "required" if field.default is PydanticUndefined else _shown(field.default)
    return f"`{name}`", kind, default, allowed, " ".join(description.split())


def _shared(name: str) -> bool:
    return name in DatasetConfig.model_fields


def _kind(hint: Any) -> tuple[str, str]:
    """The type of a value, and the allowed values.

    Args:
        hint: The field's type, including pydantic's constraints.
    """
    for known, kind, allowed in KINDS:
        if hint == known:
            return kind, allowed
    parts = [part for part in get_args(hint) if part is not type(None)]
    metadata = getattr(hint, "__metadata__", ())
    if metadata:
        kind, allowed = _kind(get_args(hint)[0])
        return kind, _limits(metadata) or allowed
    if get_origin(hint) is Literal:
        return "choice", ", ".join(_shown(value) for value in parts)
    if len(parts) < len(get_args(hint)):  # X | None
        kind, allowed = _kind(parts[0])
        return f"{kind}, or null", allowed
    if get_origin(hint) is dict:
        return "mapping", ""
    if get_origin(hint) is list:
        return "list", ""
    if isinstance(hint, type) and issubclass(hint, Schema):
        return "mapping", "see below"
    if hint in TYPES:
        return TYPES[hint], "`true`, `false`" if hint is bool else ""
    return "mapping", "see below"  # a union of schemas


def _limits(metadata: tuple[Any, ...]) -> str:
    """Describes the range given by annotations such as `Field(ge=0, le=1)`."""
    found = [part for each in metadata for part in getattr(each, "metadata", [each])]
    low = next((part for part in found if isinstance(part, Ge | Gt)), None)
    high = next((part for part in found if isinstance(part, Le | Lt)), None)
    words = []
    if low is not None:
        words.append(f"at least {low.ge:.10g}" if isinstance(low, Ge) else f"above {low.gt:.10g}")
    if high is not None:
        words.append(f"at most {high.le:.10g}" if isinstance(high, Le) else f"below {high.lt:.10g}")
    pattern = next((part.pattern for part in found if getattr(part, "pattern", None)), None)
    return ", ".join(words) or (f"what `{pattern}` matches" if pattern else "")


def _shown(value: Any) -> str:
    if isinstance(value, Schema):
        return "see below"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower()}`".replace("none", "null")
    if value in ("", {}):
        return "empty"
    return f"`{value}`"


def _profiles_table() -> str:
    """One row per key that a profile sets, see `PROFILES_INTRODUCTION`."""
    composed = [compose([f"profile={profile}"]) for profile in PROFILES]
    rows = []
    for key, default in _defaults(composed[0]):
        values = [_follow(config, key) for config in composed]
        if any(value != default for value in values):
            rows.append((f"`{key}`", _shown(default), *map(_shown, values)))
    return _table(("Key", "Schema", *(f"`profile={profile}`" for profile in PROFILES)), rows) + "\n"


def _defaults(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields every key and its default in the schema."""

    def walk(prefix: str, values: Schema) -> Iterator[tuple[str, Any]]:
        for name, field in type(values).model_fields.items():
            value = getattr(values, name)
            if isinstance(value, Schema):
                yield from walk(f"{prefix}{name}.", value)
            elif field.default is not PydanticUndefined:
                yield f"{prefix}{name}", field.default

    for name in ("dataset", "records", "model", "training", "evaluate", "visualize", "gate"):
        yield from walk(f"{name}.", getattr(config, name))
    for name, phase in config.phases.items():
        yield from walk(f"phases.{name}.", phase)


def _follow(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
