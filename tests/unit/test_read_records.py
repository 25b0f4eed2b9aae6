from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.records import Records, open_records
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.boxes.letterbox import box_to_letterbox, letterbox
from brain_tumor.config import SPLITS, RecordsConfig
from brain_tumor.ingest.ingest import ingest
from brain_tumor.records.build import build_tfrecords
from brain_tumor.records.read import load_split
from tests.unit.exports import directory_config, write_export

pytestmark = pytest.mark.slow

SIZE = 32


def build_records(folder: Path, export: Path) -> Records:
    dataset = ingest(directory_config(export), folder / "dataset").dataset
    return build_tfrecords(RecordsConfig(), dataset, folder / "records")


def test_boxes_move_with_their_image(tmp_path: Path) -> None:
    export = write_export(
        tmp_path / "export", train=["volume_1_slice_1.jpg,128,64,label1,32,16,96,48"], valid=[], test=[]
    )
    pixels = np.zeros((64, 128), np.uint8)
    pixels[16:48, 32:96] = 255
    Image.fromarray(pixels).save(export / "train" / "volume_1_slice_1.jpg", quality=95)

    example = next(
        example
        for example in load_split(build_records(tmp_path, export), "train", 64).as_numpy_iterator()
        if example["filename"] == b"volume_1_slice_1.jpg"
    )

    image = example["image"]
    assert image.shape == (64, 64, 1) and image.dtype == np.uint8
    assert not image[:16].any() and not image[48:].any(), "the padding is black"
    assert (image[25:39, 17:47] > 230).all(), "the rectangle is inside its box"
    assert (image[16:23] < 25).all() and (image[41:48] < 25).all() and (image[:, :15] < 25).all()
    np.testing.assert_array_equal(example["labels"], [0, 1, 0])
    # Half the size, 16 pixels of padding above: (16, 24, 48, 40) of 64. Absent classes remain rows of zeros.
    np.testing.assert_allclose(example["boxes"], [[0.0] * 4, [0.25, 0.375, 0.75, 0.625], [0.0] * 4])


def test_boxes_equal_those_of_the_letterbox_function(tiny_dataset: Path, tiny_records: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    present = 0
    for split in SPLITS:
        truth = dataset.annotations[dataset.annotations["split"] == split].set_index(["filename", "label"])
        for example in load_split(open_records(tiny_records), split, SIZE).as_numpy_iterator():
            height, width = int(example["height"]), int(example["width"])
            for slot, label in enumerate(dataset.manifest.labels):
                key = (example["filename"].decode(), label)
                assert example["labels"][slot] == (key in truth.index)
                expected: Any = [0.0] * 4
                if key in truth.index:
                    present += 1
                    box = truth.loc[key, list(COORDINATES)].to_numpy(float)
                    box = box / [width, height, width, height]
                    expected = box_to_letterbox(box, letterbox(height, width, SIZE), SIZE)
                np.testing.assert_allclose(example["boxes"][slot], expected, rtol=0, atol=1e-6)
    assert present == len(dataset.annotations) > 20


def test_color_images_keep_their_channels(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    color = np.zeros((30, 40, 3), np.uint8) + np.array([200, 100, 30], np.uint8)
    Image.fromarray(color).save(export / "train" / "volume_1_slice_1.jpg", quality=95)

    examples = load_split(build_records(tmp_path, export), "train", 40)

    assert examples.element_spec["image"].shape == (40, 40, 3)
    image = next(e["image"] for e in examples.as_numpy_iterator() if e["filename"] == b"volume_1_slice_1.jpg")
    np.testing.assert_allclose(image[5:35], color, atol=3)
