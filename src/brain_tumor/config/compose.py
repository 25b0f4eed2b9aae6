"""Composes the configuration with Hydra: first the groups, then the schemas' defaults, then single overrides.

Thus every key of a schema can be overridden, whether or not a YAML file names it.
"""

import re
from pathlib import Path
from typing import Any, get_args

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from brain_tumor.config.base import Schema, explain
from brain_tumor.config.dataset import AnyDataset
from brain_tumor.config.pipeline import Config
from brain_tumor.config.training import PhaseConfig
from brain_tumor.runtime.errors import InputError

FILES = Path(__file__).parent / "yaml"
GROUPS = tuple(sorted(folder.name for folder in FILES.iterdir() if folder.is_dir()))
# A profile's settings of phases, by phase name; those of phases that are not configured are ignored.
BUDGETS = "budgets"
MISSING = "???"
QUOTING = (
    "Quote a value with spaces, commas, brackets or quotes, and the whole override again for the shell: "
    "OVERRIDES=\"'dataset.path=/data/my export'\"."
)


def compose(overrides: list[str]) -> Config:
    """Composes and validates the whole configuration.

    Args:
        overrides: Hydra's overrides, such as `profile=full` or `phases.phase3_finetune.learning_rate=1e-4`. A
            string value, such as a path, is taken literally.

    Raises:
        InputError: An override names an unknown key (the message lists the known ones), or has an invalid
            value.
    """
    groups = [override for override in overrides if override.partition("=")[0].lstrip("+~") in GROUPS]
    values = [override for override in overrides if override not in groups]
    for group in groups:
        _check_choice(group)
    base = _add_defaults(_run_hydra("config", groups))
    for value in values:
        _check_key(base, value)
    # Hydra only overrides keys that its initial configuration has.
    ConfigStore.instance().store("with_defaults", base)
    composed = _run_hydra("with_defaults", [_quote_string(base, value) for value in values])
    try:
        return Config.model_validate(_without_missing(OmegaConf.to_container(composed, resolve=True)))
    except ValidationError as error:
        raise InputError(explain(error, Config)) from None
    except OmegaConfBaseException as error:  # an interpolation of an unknown key
        raise InputError(" ".join(str(error).split())) from error


def _run_hydra(name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(FILES), version_base="1.3"):
            return hydra.compose(name, overrides)
    except OverrideParseException as error:
        raise InputError(f"The override {error.override} cannot be read. {QUOTING}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: too many digits
        # Hydra's message has several lines: the list of known choices, then its search path.
        message = " ".join(str(error).split("Config search path:")[0].split())
        # Hydra reads a comma as a sweep over several values.
        raise InputError(f"{message} {QUOTING}" if "multirun" in message else message) from error


def _add_defaults(config: DictConfig) -> DictConfig:
    """Adds the schemas' defaults where the files have no value."""
    kinds = {kind.model_fields["source"].annotation: kind for kind in get_args(get_args(AnyDataset)[0])}
    dataset = next(kind for source, kind in kinds.items() if config.dataset.source in get_args(source))
    defaults = {**_defaults(Config), "dataset": _defaults(dataset)}
    defaults["phases"] = {name: _defaults(PhaseConfig) for name in config.phases}
    OmegaConf.set_struct(config, False)
    budgets = config.pop(BUDGETS, {})
    known = {name: budget for name, budget in budgets.items() if name in config.phases}
    merged = OmegaConf.merge(defaults, config, {"phases": known})
    assert isinstance(merged, DictConfig)
    return merged


def _defaults(schema: type[Schema]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        default = field.default
        if isinstance(default, Schema):
            values[name] = default.model_dump()
        else:
            values[name] = MISSING if default is PydanticUndefined else default
    return values


def _check_choice(override: str) -> None:
    """Rejects an override of a group that is not GROUP=CHOICE: Hydra raises a traceback for some of them."""
    key, _, value = override.partition("=")
    group = key.lstrip("+~")
    choices = sorted(file.stem for file in (FILES / group).glob("*.yaml"))
    if key != group or value.strip("'\"") not in choices:
        raise InputError(
            f"The override {override!r} is not a choice of {group}; give {group}=NAME, with one of the names "
            f"{', '.join(choices)}."
        )


def _check_key(base: DictConfig, override: str) -> None:
    """Rejects an unknown key, and lists the known ones."""
    key, equals, _ = override.partition("=")
    if not equals and not key.startswith("~"):
        raise InputError(f"The override {override!r} has no value; give it as KEY=VALUE. {QUOTING}")
    node: Any = base
    at = "The configuration"
    parts = key.lstrip("+~").replace("/", ".").split(".")
    # The section's schema checks keys added to it by `+`; an added section has no schema.
    for part in parts[:1] if key.startswith("+") else parts:
        # For a key whose value is missing, `in` is false, but `keys()` has it.
        if not isinstance(node, DictConfig) or part not in node.keys():  # noqa: SIM118
            # A profile is selected like a section, but its values belong to the other sections.
            found = {*node, *(GROUPS if node is base else ())} if isinstance(node, DictConfig) else set()
            names = f"it has {', '.join(sorted(found))}" if found else "it is a single value"
            raise InputError(f"The override {override} names an unknown key: {at} has no {part!r}; {names}.")
        at = part if at == "The configuration" else f"{at}.{part}"
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)


def _quote_string(base: DictConfig, override: str) -> str:
    """Quotes a string value, which Hydra would otherwise parse by its own grammar, for example as a list."""
    key, _, value = override.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if quoted or value in ("null", MISSING) or not _is_string(base, key):
        return override
    return f"{key}={quote(value)}"


def quote(text: str) -> str:
    """A string in quotation marks, in Hydra's syntax."""
    # A backslash is an escape only before a quotation mark.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def _is_string(base: DictConfig, key: str) -> bool:
    *parents, last = key.lstrip("+").split(".")
    section = OmegaConf.select(base, ".".join(parents)) if parents else base
    if not isinstance(section, DictConfig) or last not in section.keys():  # noqa: SIM118
        return False
    # All required values are strings.
    return OmegaConf.is_missing(section, last) or (
        not OmegaConf.is_interpolation(section, last) and isinstance(section[last], str)
    )


def _without_missing(value: Any) -> Any:
    """The mapping without the keys whose value is missing."""
    if not isinstance(value, dict):
        return value
    return {key: _without_missing(each) for key, each in value.items() if each != MISSING}
