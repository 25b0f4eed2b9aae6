import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from brain_tumor.ingest.image_measures import IMAGES_PER_TASK
from brain_tumor.stores.files import hash_files
from tests.unit.exports import write_export, write_image
from tests.unit.validated import BAD, boxes_of, check, quarantined


def test_measures_of_an_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    gradient = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (90, 1))
    for name, pixels in {
        "grey.jpg": gradient,
        "grey_in_three_channels.jpg": np.stack([gradient] * 3, axis=-1),
        "color.jpg": np.stack([gradient, gradient, gradient[::-1, ::-1]], axis=-1),
    }.items():
        Image.fromarray(pixels).save(folder / "test" / name, "JPEG", quality=95)

    result = check(folder)

    images = result.images.set_index("filename")
    assert images.loc[["grey.jpg", "grey_in_three_channels.jpg", "color.jpg"], "grey"].tolist() == [
        True,
        True,
        False,
    ]
    histogram = np.zeros(256, int)
    for path in sorted(folder.glob("*/*.jpg")):
        row: Any = images.loc[path.name]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with Image.open(path) as image:
            assert image.size == (row["width"], row["height"])
            grey = image.convert("L")
            whole = int(str(imagehash.phash(image)), 16)
        assert row["intensity"] == pytest.approx(np.asarray(grey).mean(), abs=1e-3)
        # The image is shrunk in two steps before hashing, so one bit can differ.
        assert (whole ^ int(row["perceptual_hash"])).bit_count() <= 4, path.name
        histogram += np.bincount(np.asarray(grey).ravel(), minlength=256)
    np.testing.assert_array_equal(result.histogram, histogram)


def test_more_images_than_a_task_has(tmp_path: Path) -> None:
    """Tasks write to one table: each image must have its own row, including bad ones."""
    folder = write_export(tmp_path / "export")
    for index in range(2 * IMAGES_PER_TASK + 3):
        write_image(folder / "train" / f"{index:04}.jpg", 20 + index, 20)
    bad = ["0005.jpg", f"{IMAGES_PER_TASK:04}.jpg", f"{2 * IMAGES_PER_TASK + 1:04}.jpg"]
    for name in bad:
        (folder / "train" / name).write_bytes(b"no image")

    result = check(folder)

    assert quarantined(result) == [("train", name) for name in bad]
    train = result.images[result.images["split"] == "train"]
    assert len(train) == 2 * IMAGES_PER_TASK + 3 - 3 + 6
    for image in train.itertuples():
        content = (folder / "train" / str(image.filename)).read_bytes()
        assert image.sha256 == hashlib.sha256(content).hexdigest()
        name = str(image.filename)
        if name[:4].isdecimal():
            assert image.width == 20 + int(name[:4])


def test_images_are_copied_byte_for_byte(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,tumor,1,1,2,2"])
    (folder / "valid" / "volume_3_slice_1.jpg").write_bytes(b"no image")

    check(folder)

    before = {name: digest for name, digest in hash_files(folder).items() if name.endswith(".jpg")}
    moved = hash_files(tmp_path / "copied" / "quarantine")
    assert sorted(moved) == [f"train/{BAD}", "valid/volume_3_slice_1.jpg"]
    assert hash_files(tmp_path / "copied" / "images") | moved == before


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _gif(path: Path) -> None:
    Image.new("L", (40, 30)).save(path, "GIF")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (_truncated, "truncated"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "it is not a JPEG"),
        (_gif, "it is not a JPEG or PNG"),
    ],
    ids=["truncated", "empty", "text", "GIF"],
)
def test_an_image_that_cannot_be_decoded_is_bad(
    tmp_path: Path, break_it: Callable[[Path], object], reason: str
) -> None:
    folder = write_export(tmp_path / "export", valid=["volume_3_slice_1.jpg,40,30,label1,5,5,10,20"])
    break_it(folder / "valid" / "volume_3_slice_1.jpg")

    result = check(folder)

    (finding,) = result.findings
    assert (finding.split, finding.file, finding.row) == ("valid", "volume_3_slice_1.jpg", None)
    assert finding.kind == "unreadable_image"
    assert finding.message.startswith("valid/volume_3_slice_1.jpg cannot be decoded (")
    assert reason in finding.message
    assert quarantined(result) == [("valid", "volume_3_slice_1.jpg")]
    assert boxes_of(result) == []


def test_images_of_different_sizes_in_one_export(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},64,20,label1,41,1,60,20"])
    write_image(folder / "train" / BAD, 64, 20)

    result = check(folder)

    assert result.findings == []
    image = result.images.set_index("filename").loc[BAD]
    assert (image["width"], image["height"]) == (64, 20)


@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, True), (6, True), (8, True)])
def test_an_image_rotated_by_its_metadata_is_bad(tmp_path: Path, orientation: int, turned: bool) -> None:
    folder = write_export(tmp_path / "export")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (40, 30)).save(folder / "train" / BAD, "JPEG", exif=exif)

    result = check(folder)

    assert quarantined(result) == ([("train", BAD)] if turned else [])
    assert [finding.kind for finding in result.findings] == (["turned_image"] if turned else [])


LEVELS = np.arange(1200, dtype=np.uint16).reshape(30, 40)
PNGS = {
    "8 bits": (Image.fromarray((LEVELS % 256).astype(np.uint8)), True),
    "16 bits": (Image.fromarray(LEVELS * 50), True),
    "alpha": (Image.new("LA", (40, 30), (7, 9)), True),
    "color": (Image.new("RGB", (40, 30), (1, 2, 3)), False),
    "palette": (Image.new("RGB", (40, 30), (1, 2, 3)).quantize(2), False),
    "grey palette": (Image.new("RGB", (40, 30), (2, 2, 2)).quantize(2), True),
}


@pytest.mark.parametrize("name", PNGS)
def test_a_png_is_an_image(tmp_path: Path, name: str) -> None:
    image, grey = PNGS[name]
    folder = write_export(tmp_path / "export", train=["a.png,40,30,label1,5,5,10,20"])
    image.save(folder / "train" / "a.png")

    result = check(folder)

    assert result.findings == []
    found = result.images.set_index("filename").loc["a.png"]
    assert (found["format"], found["grey"], found["width"]) == ("png", grey, 40)
    # As training sees it.
    tf = pytest.importorskip("tensorflow")
    decoded = tf.image.decode_jpeg((folder / "train" / "a.png").read_bytes(), channels=1).numpy()
    assert found["intensity"] == pytest.approx(decoded.mean(), abs=1)
