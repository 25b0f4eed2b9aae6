"""A shard: one TFRecord file of a records artifact.

Imports neither TensorFlow nor pandas, since every worker process imports this module.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.runtime.errors import FIXABLE_ERRORS, InputError, os_errors_explained
from brain_tumor.stores.tfrecord_file import Example, write_record

# Values in a record if the patient or slice is unknown.
UNKNOWN = {"patient_id": "", "slice": -1}
IMAGE_COLUMNS = ("filename", "source_id", "width", "height", "format", "patient_id", "slice", "sha256")
BOX_COLUMNS = ("slot", "label", *COORDINATES)


@dataclass(frozen=True)
class Shard:
    """The content of one TFRecord file: consecutive rows of the dataset's tables, by column.

    Attributes:
        name: The file's name.
        split: The split of its images.
        images: The values of each column of the images table; an unknown `patient_id` is empty, an unknown
            `slice` -1.
        boxes: The images' boxes by column: xmin, ymin, xmax, ymax, normalized to 0..1 of the original image,
            `slot` (class slot) and `label`. Sorted by image, then by slot.
        box_ends: For each image, the index in `boxes` after its last box.
    """

    name: str
    split: str
    images: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in IMAGE_COLUMNS})
    boxes: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in BOX_COLUMNS})
    box_ends: list[int] = field(default_factory=list)

    def add(self, image: dict[str, Any], boxes: Iterable[dict[str, Any]], slots: dict[str, int]) -> None:
        """Adds an image.

        Args:
            image: Its row in the images table.
            boxes: Its rows in the annotations table.
            slots: The class slot of each label.
        """
        for name in IMAGE_COLUMNS:
            self.images[name].append(UNKNOWN.get(name) if image[name] is None else image[name])
        sides = (image["width"], image["height"]) * 2
        for box in boxes:
            self.boxes["slot"].append(slots[box["label"]])
            self.boxes["label"].append(box["label"])
            for name, side in zip(COORDINATES, sides, strict=True):
                self.boxes[name].append(box[name] / side)
        self.box_ends.append(len(self.boxes["slot"]))

    def __len__(self) -> int:
        return len(self.images["source_id"])


def write_shard(shard: Shard, images: Path, folder: Path) -> tuple[str, int]:
    """Writes a shard's file. The same rows and images give the same bytes.

    Args:
        shard: The content of the file.
        images: Folder of the dataset's images.
        folder: Where to write the file.

    Returns:
        The file's name and number of images.

    Raises:
        InputError: An image has changed or was deleted since the dataset was published.
        OSError: Reading or writing failed, see `FIXABLE_ERRORS`.
        RuntimeError: Writing failed for another reason; the message names the shard.
    """
    try:
        start = 0
        with open(folder / shard.name, "wb", buffering=1 << 20) as file:
            for index, end in enumerate(shard.box_ends):
                row = {name: values[index] for name, values in shard.images.items()}
                boxes = {name: values[start:end] for name, values in shard.boxes.items()}
                write_record(file, _serialize(row, boxes, _read(row, images)))
                start = end
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FIXABLE_ERRORS:
            raise
        raise RuntimeError(f"{shard.name} could not be written: {type(error).__name__}: {error}") from error
    return shard.name, len(shard)


def _read(image: dict[str, Any], images: Path) -> bytes:
    path = f"{images}/{image['source_id']}"
    try:
        # The file is read at once: a buffer would only cost time.
        with os_errors_explained(path), open(path, "rb", buffering=0) as file:
            encoded = file.read()
    except FileNotFoundError:
        raise InputError(f"{path} was deleted after the dataset was published; run ingest again.") from None
    if hashlib.sha256(encoded).hexdigest() != image["sha256"]:
        raise InputError(f"{path} has changed since the dataset was published; run ingest again.")
    return encoded


def _serialize(image: dict[str, Any], boxes: dict[str, list[Any]], encoded: bytes) -> bytes:
    example = Example()
    features = example.features.feature

    def add_bytes(key: str, *values: bytes) -> None:
        features[key].bytes_list.value.extend(values)

    def add_integers(key: str, *values: int) -> None:
        features[key].int64_list.value.extend(values)

    add_bytes("image/encoded", encoded)
    add_bytes("image/format", image["format"].encode())
    add_bytes("image/filename", image["filename"].encode())
    add_bytes("image/source_id", image["source_id"].encode())
    add_bytes("image/key/sha256", image["sha256"].encode())
    add_integers("image/height", image["height"])
    add_integers("image/width", image["width"])
    add_bytes("image/patient_id", image["patient_id"].encode())
    add_integers("image/slice", image["slice"])
    for name in COORDINATES:
        features[f"image/object/bbox/{name}"].float_list.value.extend(boxes[name])
    add_integers("image/object/class/label", *(slot + 1 for slot in boxes["slot"]))
    add_bytes("image/object/class/text", *(label.encode() for label in boxes["label"]))
    # Deterministic: otherwise the order of a map's keys differs between processes.
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized
