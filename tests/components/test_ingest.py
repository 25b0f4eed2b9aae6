import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp.dsl import HTML, Artifact, Dataset

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.config import Split
from brain_tumor.configure import configure
from brain_tumor.ingest.ingest import SYNTHETIC_NOTICE
from brain_tumor.stores.files import hash_files
from components.ingest import ingest

PATIENTS: dict[Split, int] = {"train": 4, "valid": 2, "test": 2}


def test_the_function_makes_a_dataset_and_a_report(
    configs: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    dataset = Dataset(uri=str(tmp_path / "dataset"))
    report = HTML(uri=str(tmp_path / "report"))
    ingest.python_func(config=configs["dataset"], dataset=dataset, data_report=report)

    assert hash_files(Path(dataset.path)) == hash_files(tiny_dataset), "the seed decides all"
    counts = open_dataset(dataset.path).manifest.counts
    for split, patients in PATIENTS.items():
        assert counts[split].images == dataset.metadata[f"{split}_images"] == 8 * patients
        assert counts[split].patients == dataset.metadata[f"{split}_patients"] == patients
        assert dataset.metadata[f"{split}_boxes_label1"] == counts[split].boxes_by_label["label1"] > 0
    assert SYNTHETIC_NOTICE in Path(report.path).read_text()


def test_it_runs_locally(local_run: dict[str, Artifact], tiny_dataset: Path) -> None:
    dataset = local_run["dataset"]
    assert hash_files(Path(dataset.path)) == hash_files(tiny_dataset)
    assert dataset.metadata["train_images"] == 32
    assert dataset.metadata["unmatched_names"] == 0
    assert dataset.metadata["train_test_shared_patients"] == 0
    assert SYNTHETIC_NOTICE in Path(local_run["data_report"].path).read_text()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", ["dataset", "JSON"]),
        ("[]", ["dataset is []"]),
        ("{}", ["dataset.source is not set"]),
        ('{"source": "zip"}', ["dataset.source is 'zip'", "synthetic, directory"]),
        ('{"source": "synthetic", "patients": 3}', ["dataset has no 'patients'", "train_patients"]),
        ('{"source": "directory"}', ["dataset.path is not set"]),
    ],
)
def test_a_bad_config_is_refused(
    config: str, words: list[str], refusal: Callable[..., str], tmp_path: Path
) -> None:
    outputs = {
        "dataset": Dataset(uri=str(tmp_path / "dataset")),
        "data_report": HTML(uri=str(tmp_path / "report")),
    }
    sentence = refusal(ingest, config=config, **outputs)
    for word in words:
        assert word in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    overrides = ["dataset=directory", f"dataset.path={absent}", "dataset.labels=[label0,label1,label2]"]
    config = configure(overrides).parameters()["dataset"]
    outputs = {
        "dataset": Dataset(uri=str(tmp_path / "dataset")),
        "data_report": HTML(uri=str(tmp_path / "report")),
    }
    assert f"{absent} does not exist" in refusal(ingest, config=config, **outputs)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_fails_the_local_task(
    local_runner: None, configs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(configs["dataset"]) | {"train_patients": 0}
    with pytest.raises(RuntimeError, match="FAILURE"):
        ingest(config=json.dumps(config))
    said = capsys.readouterr().out
    assert "dataset.train_patients is 0; give at least 1.\n" in said
    assert "Traceback" not in said
