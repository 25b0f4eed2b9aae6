"""The data steps on real MRI: an export in the folder BRAIN_TUMOR_TEST_EXPORT."""

import csv
import os
import re
from pathlib import Path

import pytest
import tensorflow as tf
from kfp.dsl import HTML, Dataset

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import SPLITS
from brain_tumor.configure import configure
from brain_tumor.records.read import parse_example
from components.build_tfrecords import build_tfrecords
from components.ingest import ingest


@pytest.fixture(scope="module")
def export() -> Path:
    path = os.environ.get("BRAIN_TUMOR_TEST_EXPORT")
    if not path:
        pytest.skip("BRAIN_TUMOR_TEST_EXPORT is not set to an export of real MRI")
    return Path(path)


@pytest.fixture(scope="module")
def configs(export: Path) -> dict[str, str]:
    return configure(["dataset=directory", f"dataset.path={export}"]).parameters()


@pytest.fixture(scope="module")
def dataset(configs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("real")
    made = Dataset(uri=str(folder / "dataset"))
    ingest.python_func(config=configs["dataset"], dataset=made, data_report=HTML(uri=str(folder / "report")))
    return made


@pytest.fixture(scope="module")
def records(configs: dict[str, str], dataset: Dataset) -> Dataset:
    made = Dataset(uri=str(Path(dataset.path).with_name("records")))
    build_tfrecords.python_func(config=configs["records"], dataset=dataset, records=made)
    return made


def test_the_counts_are_the_csvs(export: Path, dataset: Dataset) -> None:
    found = open_dataset(dataset.path)
    for split in SPLITS:
        images = {path.name for path in (export / split).iterdir() if path.suffix == ".jpg"}
        bad = {path.name for path in (Path(dataset.path) / "quarantine" / split).iterdir()}
        with open(export / split / "_annotations.csv", newline="") as file:
            boxes = {
                (row["filename"], row["class"])
                for row in csv.DictReader(file)
                if row["filename"] in images - bad
            }
        counts = found.manifest.counts[split]
        assert counts.images == len(images - bad) > 0
        assert counts.quarantined == len(bad)
        assert counts.boxes == len(boxes) > 0
        assert counts.images_with_boxes == len({filename for filename, _ in boxes})
        for label, number in counts.boxes_by_label.items():
            assert number == sum(own == label for _, own in boxes)
        patients = {name.split("_slice_")[0] for name in images - bad if re.match(r"volume_\d+_slice_", name)}
        assert counts.patients == len(patients)


def test_the_records_are_the_exports_images(export: Path, dataset: Dataset, records: Dataset) -> None:
    for split in SPLITS:
        examples = tf.data.TFRecordDataset(open_records(records.path).shard_paths(split))
        filenames = set()
        boxes = 0
        for example in examples.map(lambda record: parse_example(record, 3)).as_numpy_iterator():
            filename = example["filename"].decode()
            assert example["encoded"] == (export / split / filename).read_bytes()
            filenames.add(filename)
            boxes += int(example["labels"].sum())
        assert len(filenames) == records.metadata[f"{split}_images"] == dataset.metadata[f"{split}_images"]
        assert boxes == records.metadata[f"{split}_boxes"] == dataset.metadata[f"{split}_boxes"]
