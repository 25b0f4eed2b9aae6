"""Differences between runs in configuration, data, code, package versions and artifacts."""

from dataclasses import dataclass
from pathlib import Path

from brain_tumor.artifacts.dataset import ANNOTATIONS_TABLE, IMAGES_TABLE
from brain_tumor.comparison.runs import NOT_MODELS, ComparedRun
from brain_tumor.stores.files import hash_file

UNKNOWN = "unknown"
DEFAULT = "default"


@dataclass(frozen=True)
class Change:
    """A difference between runs.

    Attributes:
        what: The name of what differs.
        values: Its value in each run, in the order of the runs.
    """

    what: str
    values: list[str]


def settings_changes(runs: list[ComparedRun]) -> list[Change]:
    """Finds the settings that differ; a change that several trainings share is one row.

    If a run's artifacts were deleted, its settings come from its record, which omits defaults.
    """
    steps = list(dict.fromkeys(step for run in runs for step in (*run.changed_settings, *run.all_settings)))
    changes: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for step in steps:
        for key, values in _step_changes(step, runs):
            changes.setdefault((key, tuple(values)), []).append(step)
    trainings = [step for step in steps if step not in (*NOT_MODELS, "evaluate", "visualize")]
    rows = []
    for (key, texts), where in changes.items():
        everywhere = len(where) > 1 and set(where) == set(trainings)
        steps_named = "all trainings" if everywhere else ", ".join(where)
        rows.append(Change(f"{steps_named}: {key}" if key else steps_named, list(texts)))
    return rows


def _step_changes(step: str, runs: list[ComparedRun]) -> list[tuple[str, list[str]]]:
    present = [step in run.changed_settings or step in run.all_settings for run in runs]
    if not all(present):
        # For a run without a record, MLflow has only the trainings that were not cached.
        states = [
            "present" if found else "absent" if run.changed_settings else UNKNOWN
            for found, run in zip(present, runs, strict=True)
        ]
        return [("", states)] if "absent" in states else []
    known = [run.all_settings[step] for run in runs if step in run.all_settings]
    if len(known) < len(runs):
        if not all(step in run.changed_settings for run in runs):
            return []
        known = [run.changed_settings[step] for run in runs]
    keys = sorted(set().union(*known))
    rows = [(key, [settings.get(key, DEFAULT) for settings in known]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def data_changes(runs: list[ComparedRun]) -> list[Change]:
    """Finds differences of the datasets: source, format, labels, checksums, and each split's counts."""
    return _changes([_data_facts(run) for run in runs])


def _data_facts(run: ComparedRun) -> dict[str, str]:
    if run.dataset is None:
        return {}
    manifest = run.dataset.manifest
    facts = {
        "source": manifest.source,
        "format": manifest.format,
        "labels": ", ".join(manifest.labels),
        "splits": manifest.split,
        "fingerprint of the source": str(manifest.config.get("fingerprint", "")),
        "table of images, sha256": manifest.files.get(IMAGES_TABLE, "")[:16],
        "table of boxes, sha256": manifest.files.get(ANNOTATIONS_TABLE, "")[:16],
    }
    for split, counts in manifest.counts.items():
        for name, value in counts.model_dump().items():
            if isinstance(value, dict):
                facts |= {f"{split}: boxes of {label}": f"{count:,}" for label, count in value.items()}
            else:
                facts[f"{split}: {name.replace('_', ' ')}"] = UNKNOWN if value is None else f"{value:,}"
    return facts


def code_changes(runs: list[ComparedRun]) -> list[Change]:
    """Finds differences of the image tags, and of the package versions.

    Package versions are those of the run's evaluation, otherwise of one of its models.
    """
    facts = []
    for run in runs:
        manifests = [run.manifests[name] for name in ("evaluation", "predictions") if name in run.manifests]
        manifests += [manifest for name, manifest in run.manifests.items() if name not in NOT_MODELS]
        facts.append({"image tag": run.image or UNKNOWN, **(manifests[0].versions if manifests else {})})
    return _changes(facts)


def _changes(facts: list[dict[str, str]]) -> list[Change]:
    names = dict.fromkeys(name for each in facts for name in each)
    rows = [Change(name, [each.get(name, UNKNOWN) for each in facts]) for name in names]
    return [row for row in rows if len({value for value in row.values if value != UNKNOWN}) > 1]


def artifact_changes(runs: list[ComparedRun]) -> list[Change]:
    """Compares each artifact of the other runs with the first run's, by checksum."""
    first, *others = runs
    names = list(dict.fromkeys(name for run in runs for name in run.artifacts))
    return [Change(name, [_same(name, first, other) for other in others]) for name in sorted(names)]


def _same(name: str, first: ComparedRun, other: ComparedRun) -> str:
    paths = [run.artifacts.get(name) for run in (first, other)]
    if paths[0] is None or paths[1] is None:
        return "only in one run" if any(paths) else "\u2013"
    if paths[0] == paths[1]:
        return "the same, cached"
    sums = [_checksums(run, name, path) for run, path in zip((first, other), paths, strict=True)]
    if not sums[0] or not sums[1]:
        return "deleted in one run"
    if sums[0] == sums[1]:
        return "the same, by checksum"
    different = [
        file for file in sorted(sums[0].keys() | sums[1].keys()) if sums[0].get(file) != sums[1].get(file)
    ]
    return f"differs: {', '.join(different[:3])}{', ...' if len(different) > 3 else ''}"


def _checksums(run: ComparedRun, name: str, path: Path | None) -> dict[str, str]:
    """The sha256 of an artifact's files, from its manifest; empty if the artifact is deleted."""
    if name in run.manifests:
        return run.manifests[name].files
    return {path.name: hash_file(path)} if path and path.is_file() else {}
