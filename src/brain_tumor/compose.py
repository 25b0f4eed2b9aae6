"""Composes the configuration with Hydra, and cuts it into the steps' sections."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from brain_tumor.config import EvaluateConfig, RecordsConfig, TrainConfig, VisualizeConfig, from_json, to_json
from brain_tumor.data.sources import parse_dataset_config
from brain_tumor.errors import InputError
from brain_tumor.storage import fingerprint, in_bucket

CONF = Path(str(files("brain_tumor"))) / "conf"
GROUPS = tuple(sorted(folder.name for folder in CONF.iterdir() if folder.is_dir()))


def compose(overrides: list[str]) -> DictConfig:
    """Composes the whole configuration.

    Paths become absolute, and what they hold enters as a fingerprint: other files behind the same path are
    other input.

    Args:
        overrides: Hydra's overrides, such as `profile=full` or `phases.phase3_finetune.learning_rate=1e-4`.

    Raises:
        InputError: An override names nothing that exists (the message says what does), or has an unusable
            value.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        groups = [override for override in parsed if override.key_or_group in GROUPS]
        known = _compose([override.input_line or "" for override in groups])
        for override in parsed:
            if override not in groups:
                _check_key(known, override)
        config = _compose(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        # Hydra's message goes over several lines; the list of what exists is in it, and then where it looked.
        message = str(error).split("Config search path:")[0]
        raise InputError(" ".join(message.split())) from error
    _fill_in(config.dataset, "path", "fingerprint")
    _fill_in(config.dataset, "uri", "fingerprint")
    if config.model.weights not in ("imagenet", "none"):
        _fill_in(config.model, "weights", "weights_fingerprint")
    for phase in config.phases.values():
        # What is of another type is for the phase's schema to refuse.
        if isinstance(phase, DictConfig) and phase.get("publish_to") and isinstance(phase.publish_to, str):
            phase.publish_to = _absolute(phase.publish_to)
    return config


def step_configs(config: DictConfig) -> dict[str, str]:
    """The steps' own sections, checked against their schema, as canonical JSON.

    Returns:
        By the pipeline's parameter: `dataset`, `records`, one for each phase under its name, `evaluate`,
        `visualize`.

    Raises:
        InputError: A value is missing, of a wrong type or out of range, or a section has a key that its step
            does not know.
    """
    sections = {"dataset": to_json(parse_dataset_config(_section(config, "dataset")))}
    sections["records"] = to_json(from_json(RecordsConfig, _section(config, "records"), "records"))
    shared = json.loads(_section(config, "training"))
    model = json.loads(_section(config, "model"))
    for name, phase in json.loads(_section(config, "phases")).items():
        text = json.dumps({"name": name, "phase": phase, "model": model, **shared})
        sections[name] = to_json(from_json(TrainConfig, text, name))
    sections["evaluate"] = to_json(from_json(EvaluateConfig, _section(config, "evaluate"), "evaluate"))
    sections["visualize"] = to_json(from_json(VisualizeConfig, _section(config, "visualize"), "visualize"))
    return sections


def _compose(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides)


def _check_key(known: DictConfig, override: Override) -> None:
    """Refuses a key that is nowhere, and says what is there."""
    node: Any = known
    at = "The configuration"
    parts = override.key_or_group.replace("/", ".").split(".")
    # What `+` adds inside of a section is checked by the section's schema; no schema knows another section.
    for part in parts[:1] if override.is_add() else parts:
        # A key whose value is still missing is "in" no DictConfig, but among its keys.
        if not isinstance(node, DictConfig) or part not in node.keys():  # noqa: SIM118
            # A profile is chosen like a section, but what it says is in the other sections.
            found = {*node, *(GROUPS if node is known else ())} if isinstance(node, DictConfig) else set()
            names = f"it has {', '.join(sorted(found))}" if found else "it is a single value"
            raise InputError(
                f"The override {override.input_line} names nothing: {at} has no {part!r}; {names}."
            )
        at = part if at == "The configuration" else f"{at}.{part}"
        node = None if OmegaConf.is_missing(node, part) else node[part]


def _fill_in(section: DictConfig, path_key: str, fingerprint_key: str) -> None:
    if not OmegaConf.is_missing(section, path_key) and isinstance(section.get(path_key), str):
        section[path_key] = _absolute(section[path_key])
        section[fingerprint_key] = fingerprint(section[path_key])


def _absolute(path: str) -> str:
    return path if in_bucket(path) else str(Path(path).expanduser().resolve())


def _section(config: DictConfig, name: str) -> str:
    missing = OmegaConf.missing_keys(config[name])
    if missing:
        key = sorted(missing)[0]
        raise InputError(f"{key} is not set; give it as {key}=VALUE.")
    return to_json(config[name])
