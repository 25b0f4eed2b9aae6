"""Comparing runs of a cluster on a machine without records of them."""

import re
from pathlib import Path

import pytest

from brain_tumor.runtime.errors import InputError
from pipelines.compare import fetch_runs
from pipelines.targets.target import load_target
from tests.pipelines.argo_standin import Fault
from tests.pipelines.cluster_results import Uploads
from tests.pipelines.cluster_runs import FINETUNE, command, start
from tests.pipelines.kubeflow_standin import Kubeflow

pytestmark = pytest.mark.usefixtures("compiled")


def test_runs_of_a_cluster_are_compared_by_name_and_by_id(
    server: Kubeflow, uploads: Uploads, tmp_path: Path
) -> None:
    start(tmp_path / "elsewhere")
    start(tmp_path / "elsewhere", FINETUNE)
    first, second = server.plays.values()
    names = [play.body["display_name"] for play in (first, second)]

    process = command("pipelines.compare", tmp_path, names[0], second.id)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert stdout.startswith(f"A  {names[0]} (no own overrides)\nB  {names[1]} ({FINETUNE})\n")
    assert "Both runs were evaluated on the same 36 images (by name)." in " ".join(stdout.split())
    assert re.search(r"^mean_iou +=\s+inconclusive +\+0\.000 ", stdout, re.MULTILINE)
    assert "[ 1/" not in stderr, "progress is only shown when following a run"
    asked = len(server.requests)
    fetch_runs([names[0], second.id], load_target("kind"), tmp_path / "runs")
    assert len(server.requests) == asked, "records exist now"


def test_runs_that_cannot_be_compared_say_why(
    server: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults["ingest"] = Fault("main: Error (exit code 2)", fails=True, log="no image\n")
    with pytest.raises(Exception, match="failed"):
        start(tmp_path / "elsewhere")
    [failed] = server.plays
    with pytest.raises(InputError, match=r"has no figures \(Kubeflow says: .*\); name another one"):
        fetch_runs([failed], load_target("kind"), tmp_path)

    play = server.plays[failed]
    play.state = "RUNNING"
    monkeypatch.setattr(play, "advance", lambda: None)
    with pytest.raises(
        InputError, match=r"has not ended; compare it later, or follow it: make pipeline-follow"
    ):
        fetch_runs([failed], load_target("kind"), tmp_path)

    # MLflow may have the run.
    fetch_runs(["another"], load_target("kind"), tmp_path)
    fetch_runs(["last", "2"], load_target("kind"), tmp_path)
    assert not (tmp_path / "history").exists()
