"""Names of runs, from their overrides and start times."""

import re
from datetime import datetime

MAX_LENGTH = 40
SHORT_KEYS = {"learning_rate": "lr", "batch_size": "batch", "image_size": "size", "profile": "", "phases": ""}


def run_name(overrides: list[str], time: datetime) -> str:
    """The name of a run, which is also a valid file name.

    The last override comes first: a new override is usually appended to the command, and Kubeflow's dashboard
    shows only the first 25 characters of a name.

    Args:
        overrides: Hydra's overrides of the configuration.
        time: When the run starts.

    Example:
        >>> run_name(["phases.phase3_finetune.learning_rate=3e-5"], datetime(2026, 5, 4, 13, 2, 1))
        'phase3-lr=3e-5-0504-130201'
        >>> run_name(["profile=full", "training.batch_size=32"], datetime(2026, 5, 4, 13, 2, 1))
        'batch=32-full-0504-130201'
        >>> run_name([], datetime(2026, 5, 4, 13, 2, 1))
        'quick-0504-130201'
    """
    words = ""
    for word in filter(None, map(_shorten, reversed(overrides))):
        if words and len(words) + len(word) >= MAX_LENGTH:
            break
        words = f"{words}-{word}".strip("-")[:MAX_LENGTH]
    return f"{words or 'quick'}-{time:%m%d-%H%M%S}"


def sweep_names(changes: list[list[str]], shared: list[str], time: datetime) -> list[str]:
    """The unique names of a sweep's runs; a run's own overrides come first.

    Args:
        changes: Each run's own overrides.
        shared: The overrides of all runs.
        time: When the sweep starts.

    Example:
        >>> sweep_names([["seed=1"], ["seed=2"]], ["phases=joint"], datetime(2026, 5, 4, 13, 2, 1))
        ['seed=1-joint-0504-130201', 'seed=2-joint-0504-130201']
    """
    names = [run_name([*shared, *own], time) for own in changes]
    return [
        name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)
    ]


def _shorten(override: str) -> str:
    """Shortens an override: the end of its key, and its value without folders and special characters."""
    key, _, value = override.partition("=")
    *above, last = key.lstrip("+").split(".")
    # The first word of a phase's name identifies it.
    phase = above[1].split("_")[0] if above[:1] == ["phases"] and len(above) > 1 else ""
    if key.startswith("~"):
        return f"no-{last}".replace("~", "")
    is_scalar = not value.startswith(("{", "["))
    text = re.sub(r"[^A-Za-z0-9._-]+", "", value.rstrip("/").rsplit("/", 1)[-1]) if is_scalar else ""
    short = SHORT_KEYS.get(last, last)
    if phase == last:  # an override of the whole phase
        return phase
    return "-".join(filter(None, (phase, "=".join(filter(None, (short, text))))))
