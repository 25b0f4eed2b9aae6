"""Deletes what old runs left: `python -m pipelines.clean_runs KEEP`."""

import json
import os
import shutil
import sys
from pathlib import Path

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from brain_tumor.stores.paths import AnyPath
from brain_tumor.training import checkpoints
from pipelines.image import ROOT


def clean_runs(runs: Path, keep: int) -> list[AnyPath]:
    """Deletes the folders of steps' artifacts that no kept run refers to.

    A run takes the steps that it did not have to run again from earlier runs' folders. These folders stay
    with it: without them the next run would train again what it already has. So do folders younger than the
    newest run on record, which belong to a run that goes on or that failed and can be taken up. Trainings'
    checkpoints go when they are older than the oldest kept run, in the runs' folder and below the root that
    BRAIN_TUMOR_CHECKPOINTS names. MLflow's store keeps its history.

    Args:
        runs: The folder of all runs.
        keep: How many runs to keep, the newest ones.

    Returns:
        The deleted folders.

    Raises:
        InputError: A bucket with checkpoints cannot be read, or nothing can be deleted there.
    """
    records = sorted((runs / "history").glob("*.json"), reverse=True)
    folders = sorted(path for path in (runs / "artifacts").glob("*") if path.is_dir())
    needed: set[str] = set()
    for record in records[:keep]:
        paths = json.loads(record.read_text())["artifacts"].values()
        needed |= {Path(path).relative_to(runs / "artifacts").parts[0] for path in paths}
    newest = max(needed, default="")
    deleted: list[AnyPath] = []
    if records:
        before = records[:keep][-1].stat().st_mtime
        roots = {str(runs / "checkpoints"), os.environ.get(checkpoints.ROOT, "")} - {""}
        for root in sorted(roots):
            deleted += checkpoints.delete_old_checkpoints(root, before)
    for folder in folders:
        if folder.name not in needed and folder.name < newest:
            shutil.rmtree(folder)
            (runs / "reports" / f"{folder.name}.html").unlink(missing_ok=True)
            deleted.append(folder)
    for record in records[keep:]:
        record.unlink()
    # Runs that failed, or that ran no step, have a log but no record.
    oldest = records[:keep][-1].stem if records else ""
    for file in (*(runs / "logs").glob("*.log"), *(runs / "pipelines").glob("*.yaml")):
        if file.stem < oldest:
            file.unlink()
    return deleted


def main() -> None:
    """The command line."""
    with step():
        if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
            raise InputError("Say how many runs to keep, at least 1: make clean-runs KEEP=3.")
        for folder in clean_runs(ROOT / "runs", int(sys.argv[1])):
            print(f"deleted {folder}")


if __name__ == "__main__":
    main()
