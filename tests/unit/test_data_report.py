"""The data report on real exports after ingest."""

import base64
import io
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brain_tumor.config import to_json
from brain_tumor.config.compose import compose
from brain_tumor.ingest.ingest import SYNTHETIC_NOTICE, ingest
from brain_tumor.reports.data_figures import GRID, coverage
from brain_tumor.reports.data_report import write_data_report
from brain_tumor.steps import ingest as ingest_step
from tests.unit.exports import directory_config, write_export, write_rows

LARGEST_PAGE = 2_000_000  # bytes; the dashboard does not show larger pages
ROWS = {
    "train": [
        "volume_1_slice_1.jpg,40,30,label0,5,6,25,26",
        "volume_1_slice_1.jpg,40,30,label1,5,6,25,26",
        "volume_1_slice_2.jpg,40,30,label1,1,1,9,9",
        "volume_1_slice_3.jpg,40,30,label1,1,1,9,9",
    ],
    "valid": ["volume_3_slice_3.jpg,40,30,label2,0,0,40,30"],
}


def report_of(folder: Path, **config: Any) -> str:
    """The report on an export. Warnings (a letter missing in the font, an empty panel) are errors."""
    path = folder.with_name("report.html")
    write_data_report(path, ingest(directory_config(folder, **config), folder.with_name("dataset")))
    assert path.stat().st_size < LARGEST_PAGE
    page = path.read_text()
    # Nothing to download: no addresses, no other files.
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', page))
    return page


def sections_of(page: str) -> dict[str, str]:
    parts = re.split(r"<h2>(.*?)</h2>", page)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_of(section: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in rows[1:]]


def images_of(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


def test_the_page_has_all_sections(tmp_path: Path) -> None:
    sections = sections_of(report_of(write_export(tmp_path / "export", **ROWS)))

    assert list(sections) == [
        "Findings",
        "Leakage between splits",
        "Images",
        "Labels",
        "Combinations of labels",
        "Co-occurrence of labels",
        "Slices and their boxes",
        "Positions of the boxes",
        "Sizes of the boxes",
        "Image sizes and intensity",
        "Slices per patient",
    ]
    assert table_of(sections["Images"]) == [
        ["train", "6", "50.0%", "3", "3", "4", "2", "0"],
        ["valid", "3", "25.0%", "1", "2", "1", "1", "0"],
        ["test", "3", "25.0%", "0", "3", "0", "1", "0"],
    ]
    assert table_of(sections["Labels"]) == [
        ["1", "label0", "1 (16.7%)", "0 (0.0%)", "0 (0.0%)"],
        ["2", "label1", "3 (50.0%)", "0 (0.0%)", "0 (0.0%)"],
        ["3", "label2", "0 (0.0%)", "1 (33.3%)", "0 (0.0%)"],
    ]
    assert table_of(sections["Combinations of labels"])[:2] == [
        ["none", "3 (50.0%)", "2 (66.7%)", "3 (100.0%)"],
        ["label1", "2 (33.3%)", "0 (0.0%)", "0 (0.0%)"],
    ]
    assert table_of(sections["Co-occurrence of labels"]) == [
        ["label0", "100.0%", "100.0%", "0.0%"],
        ["label1", "33.3%", "100.0%", "0.0%"],
        ["label2", "0.0%", "0.0%", "100.0%"],
    ]
    assert "All images have 40 x 30 pixels." in sections["Image sizes and intensity"]
    assert "3 slices per patient" in sections["Slices per patient"]
    assert len(table_of(sections["Leakage between splits"])) == 3
    pictures = {heading: images_of(part) for heading, part in sections.items()}
    assert {heading: len(own) for heading, own in pictures.items() if own} == {
        "Slices and their boxes": 12,
        "Positions of the boxes": 3,
        "Sizes of the boxes": 3,
        "Image sizes and intensity": 3,
        "Slices per patient": 2,
    }
    for picture in itertools.chain(*pictures.values()):
        assert picture.width > 200 and np.asarray(picture.convert("RGB").convert("L")).std() > 5
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", sections["Slices and their boxes"])
    assert len(captions) == 12 and sum(caption.endswith("<br>no box") for caption in captions) == 8
    assert all(re.match(r"patient \d, slice \d<br>", caption) for caption in captions)


def test_splits_by_patient_are_shown_with_the_provided_ones(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", **ROWS)
    name = "volume_1_slice_9.jpg"  # a patient of train, with the bytes of another slice
    (folder / "test" / name).write_bytes((folder / "train" / "volume_1_slice_1.jpg").read_bytes())

    sections = sections_of(report_of(folder, split="patient"))

    assert "split again, by patient" in sections["Images"]
    rows = table_of(sections["Leakage between splits"])
    assert [row[2] for row in rows if row[0] == "used"] == ["0", "0", "0"]
    assert ["provided", "train / test", "1", "1", "1", "1"] in rows
    assert table_of(sections["Findings"]) == [["image_in_two_splits", "image kept", "1"]]


def test_one_label_has_no_co_occurrence(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=["volume_1_slice_1.jpg,40,30,tumor,5,6,25,26"])
    sections = sections_of(report_of(folder, labels=["tumor"]))
    assert not [name for name in sections if "of labels" in name]
    assert len(images_of(sections["Positions of the boxes"])) == 1


def test_any_label_names_and_many_labels(tmp_path: Path) -> None:
    odd = ["_hidden", "$x^{", "<b>", "опухоль", "腫瘍 部位", "x" * 100, "\\frac", "%s {0}"]
    labels = odd + [f"label {number}" for number in range(131)]
    rows = [f"volume_1_slice_{n % 3 + 1}.jpg,40,30,{label},5,6,25,26" for n, label in enumerate(labels)]
    folder = write_export(tmp_path / "export", train=rows)

    sections = sections_of(report_of(folder, labels=labels))

    assert "&lt;b&gt;" in sections["Labels"] and "<b>" not in "".join(sections.values())
    assert "the first 100 of 139 labels" in sections["Labels"]
    assert "the 9 most frequent labels" in sections["Co-occurrence of labels"]


def test_large_noisy_color_images_stay_under_the_limit(tmp_path: Path) -> None:
    """Noise is the worst case for compression."""
    folder = write_export(tmp_path / "export")
    rng = np.random.default_rng(0)
    for path in folder.glob("*/*.jpg"):
        Image.fromarray(rng.integers(0, 256, (500, 600, 3), dtype=np.uint8)).save(path, "JPEG", quality=90)
    report_of(folder)


def test_without_a_box(tmp_path: Path) -> None:
    sections = sections_of(report_of(write_export(tmp_path / "export")))
    assert not [name for name in sections if "boxes" in name and "Slices" not in name]


def test_without_a_good_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    for path in folder.glob("*/*.jpg"):
        path.write_bytes(b"")
    sections = sections_of(report_of(folder))
    assert images_of("".join(sections.values())) == []
    assert ["unreadable_image", "image quarantined", "12"] in table_of(sections["Findings"])


def test_names_that_the_pattern_does_not_match(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", **ROWS)
    sections = sections_of(report_of(folder, filename_pattern="(?P<patient>a)(?P<slice>b)"))
    assert "the names of 12 of 12 images: their patients are unknown" in sections["Slices per patient"]
    assert "it is unknown whether splits share them" in sections["Leakage between splits"]
    assert "patients</th>" in sections["Images"] and "<td>unknown</td>" in sections["Images"]


def test_the_first_findings_are_listed_with_a_reference_to_the_others(tmp_path: Path) -> None:
    names = [f"<b>{index:03}.jpg" for index in range(203)]
    folder = write_export(tmp_path / "export")
    write_rows(folder, "train", [f"{name},40,30,label0,1,1,2,2" for name in names])

    report = report_of(folder)

    assert "<td>&lt;b&gt;199.<wbr>jpg</td>" in report
    assert "&lt;b&gt;200" not in report
    assert "the first 200 of 203; the artifact&#39;s findings.csv has all" in report
    assert table_of(sections_of(report)["Findings"]) == [["missing_image", "row ignored", "203"]]
    assert len(pd.read_csv(tmp_path / "dataset" / "findings.csv")) == 203


def test_coverage_is_the_share_of_boxes_over_a_cell() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, GRID + 1, (50, 2, 2))
    cells.sort(axis=1)
    cells[:, 1] = np.maximum(cells[:, 1], cells[:, 0] + 1)
    cells = np.minimum(cells - (cells[:, 1:] > GRID), GRID)
    boxes = cells.reshape(50, 4)
    expected = np.zeros((GRID, GRID))
    for xmin, ymin, xmax, ymax in boxes:
        expected[ymin:ymax, xmin:xmax] += 1 / len(boxes)
    np.testing.assert_allclose(coverage(boxes / GRID), expected, atol=1e-12)


def test_a_box_smaller_than_a_cell_covers_one() -> None:
    for corner in (0.0, 0.5, 1 - 1e-9):
        boxes = np.array([[corner, corner, min(corner + 1e-9, 1), min(corner + 1e-9, 1)]])
        assert coverage(boxes).sum() == 1


def test_synthetic_data_carry_a_notice(tmp_path: Path) -> None:
    sizes = [f"dataset.{split}_patients=1" for split in ("train", "valid", "test")]
    config = compose([*sizes, "dataset.slices_per_patient=4"]).steps().dataset
    write_data_report(tmp_path / "report.html", ingest(config, tmp_path / "dataset"))
    assert SYNTHETIC_NOTICE in (tmp_path / "report.html").read_text()


def test_no_report_without_a_dataset(tmp_path: Path) -> None:
    config = to_json(directory_config(write_export(tmp_path / "export")))
    (tmp_path / "dataset").write_text("a file, which the artifact's folder cannot replace")

    with pytest.raises(SystemExit):
        ingest_step(config, tmp_path / "dataset", tmp_path / "report.html")

    assert not (tmp_path / "report.html").exists()
