from collections.abc import Callable
from pathlib import Path

import pytest
from kfp.dsl import Artifact, Dataset

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import Split
from brain_tumor.stores.files import hash_files
from components.build_tfrecords import build_tfrecords

IMAGES: dict[Split, int] = {"train": 32, "valid": 16, "test": 16}


def test_the_function_makes_records(
    configs: dict[str, str], tiny_dataset: Path, tiny_records: Path, tmp_path: Path
) -> None:
    records = Dataset(uri=str(tmp_path / "records"))
    build_tfrecords.python_func(
        config=configs["records"], dataset=Dataset(uri=str(tiny_dataset)), records=records
    )

    assert hash_files(Path(records.path)) == hash_files(tiny_records)
    counts = open_dataset(tiny_dataset).manifest.counts
    opened = open_records(records.path)
    for split, images in IMAGES.items():
        assert records.metadata[f"{split}_images"] == images
        assert records.metadata[f"{split}_boxes"] == counts[split].boxes > 0
        assert len(opened.shard_paths(split)) == records.metadata[f"{split}_shards"] == -(-images // 10)
    weights = opened.statistics.class_weights
    assert {f"class_weight_{label}": weight for label, weight in weights.items()}.items() <= (
        records.metadata.items()
    )


def test_it_runs_locally(local_run: dict[str, Artifact], tiny_records: Path) -> None:
    records = local_run["records"]
    assert hash_files(Path(records.path)) == hash_files(tiny_records)
    assert records.metadata["train_images"] == 32
    assert records.metadata["train_test_shared_patients"] == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", ["records", "JSON"]),
        ('{"images_per_shard": 10, "shards": 2}', ["records has no 'shards'", "images_per_shard"]),
        ('{"images_per_shard": 0, "max_class_weight": 20}', ["images_per_shard is 0; give at least 1"]),
    ],
)
def test_a_bad_config_is_refused(
    config: str, words: list[str], refusal: Callable[..., str], tiny_dataset: Path, tmp_path: Path
) -> None:
    dataset, records = Dataset(uri=str(tiny_dataset)), Dataset(uri=str(tmp_path / "records"))
    sentence = refusal(build_tfrecords, config=config, dataset=dataset, records=records)
    for word in words:
        assert word in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_missing_dataset_is_refused(
    configs: dict[str, str], refusal: Callable[..., str], tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    sentence = refusal(
        build_tfrecords,
        config=configs["records"],
        dataset=Dataset(uri=str(absent)),
        records=Dataset(uri=str(tmp_path / "records")),
    )
    assert f"{absent} holds no dataset artifact" in sentence
    assert list(tmp_path.iterdir()) == []
