"""Deletes old runs' artifacts and checkpoints: `python -m pipelines.clean_runs KEEP`."""

import json
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path

from brain_tumor.runtime import environment
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from brain_tumor.stores.paths import AnyPath
from brain_tumor.training.checkpoints import delete_old_checkpoints
from pipelines.image import ROOT
from pipelines.runners.local import RUNNING


def clean_runs(runs: Path, keep: int) -> list[AnyPath]:
    """Deletes the artifact folders, reports, logs, records and checkpoints of old runs.

    Artifact folders that a kept run uses are kept: its cached artifacts are in the folders of earlier runs.
    Folders newer than the newest recorded run are also kept: they belong to a run that is in progress, or
    that failed and can be resumed. Checkpoints older than the oldest kept run are deleted, in the runs'
    folder and below the root in BRAIN_TUMOR_CHECKPOINTS. MLflow's store is not changed.

    Args:
        runs: The folder of the runs.
        keep: The number of newest runs to keep.

    Returns:
        The deleted folders of artifacts and checkpoints.

    Raises:
        InputError: A bucket with checkpoints cannot be read or written.
    """
    records = sorted((runs / "history").glob("*.json"), key=_started, reverse=True)
    if not records:
        return []
    kept = records[:keep]
    newest, oldest = _started(kept[0]), _started(kept[-1])
    needed = {path.name for path in (runs / RUNNING).glob("*")}
    for record in kept:
        paths = json.loads(record.read_text())["artifacts"].values()
        needed |= {Path(path).relative_to(runs / "artifacts").parts[0] for path in paths}
    deleted: list[AnyPath] = []
    for root in sorted({str(runs / "checkpoints"), os.environ.get(environment.CHECKPOINTS, "")} - {""}):
        deleted += delete_old_checkpoints(root, oldest)
    for folder in sorted((runs / "artifacts").glob("*")):
        if folder.name not in needed and folder.stat().st_mtime < newest:
            shutil.rmtree(folder)
            for kind in ("", "-data"):
                (runs / "reports" / f"{folder.name}{kind}.html").unlink(missing_ok=True)
            deleted.append(folder)
    for record in records[keep:]:
        record.unlink()
    # Runs that failed, or whose steps were all cached, have a log but not a record.
    for file in (*(runs / "logs").glob("*"), *(runs / "pipelines").glob("*")):
        if file.stem not in needed and file.stat().st_mtime < oldest:
            file.unlink()
    return deleted


def _started(record: Path) -> float:
    """When a recorded run started, in seconds since 1970; for an earlier version's record, when it ended."""
    started = json.loads(record.read_text()).get("started")
    return datetime.fromisoformat(started).timestamp() if started else record.stat().st_mtime


def main() -> None:
    """The command line."""
    with step():
        if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
            raise InputError("Give the number of runs to keep, at least 1: make clean-runs KEEP=3.")
        for folder in clean_runs(ROOT / "runs", int(sys.argv[1])):
            print(f"deleted {folder}")


if __name__ == "__main__":
    main()
