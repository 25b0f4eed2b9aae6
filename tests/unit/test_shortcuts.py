"""Differences between images with and without a box that are not tumors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brain_tumor.configure import configure
from brain_tumor.ingest.ingest import ingest
from brain_tumor.reports.data_report import write_data_report
from tests.unit.exports import directory_config, write_export, write_rows

IMAGES = 20


def save(path: Path, number: int, mode: str = "L", side: int = 64, **options: Any) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def tint(path: Path, number: int) -> None:
    save(path, number, "RGB", quality=75)
    image = Image.open(path)
    image.putpixel((0, 0), (255, 0, 0))
    image.save(path, quality=100)


SHORTCUTS: dict[str, Callable[[Path, int], None]] = {
    "width": lambda path, number: save(path, number, side=80, quality=75),
    "color": tint,
    "format": lambda path, number: save(path, number, format="PNG"),
    "file size": lambda path, number: save(path, number, quality=30),
    "": lambda path, number: save(path, number, quality=75),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_negatives_of_another_kind_are_reported_first(tmp_path: Path, name: str) -> None:
    folder = write_export(tmp_path / "export")
    rows = []
    for number in range(IMAGES):
        save(folder / "train" / f"a{number}.jpg", number, quality=75)
        rows.append(f"a{number}.jpg,64,64,label0,1,1,9,9")
        SHORTCUTS[name](folder / "train" / f"b{number}.jpg", IMAGES + number)
    write_rows(folder, "train", rows)
    for path in folder.rglob("volume_*.jpg"):
        save(path, 99, quality=75)

    ingested = ingest(directory_config(folder), tmp_path / "dataset")

    found = ingested.dataset.manifest.shortcuts
    assert (name in found) if name else not found
    write_data_report(tmp_path / "report.html", ingested)
    page = (tmp_path / "report.html").read_text()
    told = page.find("A shortcut in the data: images with and without a box differ in")
    assert (0 < told < page.find("<h2>")) if name else told < 0


def test_the_synthetic_patients_have_none(tmp_path: Path) -> None:
    sizes = [f"dataset.{split}_patients=10" for split in ("train", "valid", "test")]
    ingested = ingest(configure(sizes).dataset, tmp_path / "dataset")
    assert ingested.dataset.manifest.shortcuts == {}
