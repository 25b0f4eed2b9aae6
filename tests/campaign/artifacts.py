"""Artifacts that are truncated, of another kind, or arbitrary, as inputs of steps."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.campaign.annotations import CONTENTS, SPECIALS, _special
from tests.campaign.bench import Bench, Draw, Outcome, ending
from tests.campaign.invariants import Watch
from tests.campaign.workplace import Server, workplace
from tests.unit.bad_exports import LABELS
from tests.unit.bad_values import damaged, trees

PROGRAM = Path(__file__).with_name("made.py")


@functools.cache
def make_artifacts(server: Server, folder: Path, files: tuple[tuple[str, bytes], ...]) -> dict[str, Path]:
    """Makes good artifacts from an export of these files, once; returns them by name."""
    made = {name: folder / name for name in ("dataset", "records", "predictions", "evaluation", "final")}
    with workplace(folder, server, dict(files)) as place:
        config = {"source": "directory", "path": str(place.export), "labels": LABELS}
        ingested = place.ingest(config)
        assert ingested.code == 0, ingested.said
        place.output.rename(made["dataset"])
        argv = ["records", "--dataset", str(made["dataset"]), "--output", str(made["records"])]
        written = place.step(*argv, tensorflow=True)
        assert written.code == 0, written.said
    command = [sys.executable, str(PROGRAM), str(made["dataset"]), str(folder)]
    subprocess.run(command, check=True, env=server.environment)
    return made


def _spoil(draw: Draw, folder: Path) -> None:
    """Damages one file of an artifact."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # The manifest as often as all other files together.
    manifest = folder / "manifest.json"
    documents = [path for path in files if path.suffix == ".json"]
    path = draw(st.sampled_from([*files, *[manifest] * len(files)]))
    how = draw(st.sampled_from(["damaged", "content", "special", "gone", "values", "values", "values"]))
    if how == "values":
        path = draw(st.sampled_from(documents))
        path.write_text(json.dumps(_changed(draw, json.loads(path.read_bytes()))))
    elif how == "damaged":
        path.write_bytes(draw(damaged(path.read_bytes())))
    elif how == "content":
        path.write_bytes(draw(st.sampled_from(CONTENTS) | st.binary(max_size=60)))
    elif how == "special":
        _special(path, draw(st.sampled_from(SPECIALS)))
    else:
        path.unlink()


def _changed(draw: Draw, content: Any) -> Any:
    """A JSON value in which one nested value is replaced or removed."""
    if not isinstance(content, dict) or not content or draw(st.integers(0, 3)) == 0:
        return draw(trees)
    key = draw(st.sampled_from(sorted(content)))
    rest = {name: value for name, value in content.items() if name != key}
    if draw(st.integers(0, 4)) == 0:
        return rest
    return content | {key: _changed(draw, content[key])}


def bad_datasets(bench: Bench, draw: Draw) -> Outcome:
    """Builds TFRecords from a damaged dataset."""
    return _run(bench, draw, ["dataset"], ["records", "--output", "OUTPUT"], tensorflow=True)


def bad_judgements(bench: Bench, draw: Draw) -> Outcome:
    """Draws reports from damaged predictions, evaluations or datasets."""
    return _run(bench, draw, ["dataset", "predictions", "evaluation"], ["visualize", "--output", "REPORT"])


def bad_models(bench: Bench, draw: Draw) -> Outcome:
    """Evaluates damaged models or records. None of the models here is a real one."""
    argv = ["evaluate", "--predictions", "OUTPUT", "--evaluation", "OUTPUT-2", "--report", "REPORT"]
    return _run(bench, draw, ["records", "final"], argv, tensorflow=True)


def _run(bench: Bench, draw: Draw, names: list[str], argv: list[str], tensorflow: bool = False) -> Outcome:
    good = make_artifacts(bench.server, bench.folder.parent, tuple(bench.exports["tensorflow"].items()))
    with workplace(bench.folder, bench.server, {}) as place:
        for name in names:
            shutil.copytree(good[name], place.root / "data" / name)
        _spoil(draw, place.root / "data" / draw(st.sampled_from(names)))
        watch = Watch(place, [place.output, place.output.with_name("artifact-2"), place.report])
        outputs = {
            "OUTPUT": place.output,
            "OUTPUT-2": place.root / "out" / "artifact-2",
            "REPORT": place.report,
        }
        inputs = [part for name in names for part in (f"--{name}", str(place.root / "data" / name))]
        ended = place.step(*(str(outputs.get(part, part)) for part in argv), *inputs, tensorflow=tensorflow)
        return ending(ended), watch.check(ended)
