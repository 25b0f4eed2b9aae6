"""Writers of one set of images and boxes in each format, as exported by Roboflow."""

import csv
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

Box = tuple[str, float, float, float, float]  # label, xmin, ymin, xmax, ymax in pixels


@dataclass(frozen=True)
class Picture:
    """An image and its boxes."""

    name: str
    boxes: list[Box] = field(default_factory=list)
    width: int = 40
    height: int = 30

    def jpeg(self) -> bytes:
        """Its bytes, derived from its name."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (self.height, self.width), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        return buffer.getvalue()


Splits = dict[str, list[Picture]]


def _write_images(folder: Path, pictures: list[Picture]) -> None:
    folder.mkdir(parents=True)
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.jpeg())


def write_tensorflow(folder: Path, splits: Splits, labels: list[str]) -> None:
    for split, pictures in splits.items():
        _write_images(folder / split, pictures)
        with open(folder / split / "_annotations.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for picture in pictures:
                for box in picture.boxes:
                    writer.writerow([picture.name, picture.width, picture.height, *box])


def write_coco(folder: Path, splits: Splits, labels: list[str]) -> None:
    # Roboflow adds the project as the parent of all labels, with the id 0.
    categories = [{"id": 0, "name": "project", "supercategory": "none"}]
    categories += [
        {"id": index, "name": label, "supercategory": "project"} for index, label in enumerate(labels, 1)
    ]
    for split, pictures in splits.items():
        _write_images(folder / split, pictures)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, picture in enumerate(pictures):
            size = {"width": picture.width, "height": picture.height}
            images.append({"id": index, "license": 1, "file_name": picture.name, **size})
            for label, xmin, ymin, xmax, ymax in picture.boxes:
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": index,
                        "category_id": labels.index(label) + 1,
                        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                        "area": (xmax - xmin) * (ymax - ymin),
                        "segmentation": [],
                        "iscrowd": 0,
                    }
                )
        content = {"info": {}, "categories": categories, "images": images, "annotations": annotations}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))


def write_yolo(folder: Path, splits: Splits, labels: list[str]) -> None:
    for split, pictures in splits.items():
        _write_images(folder / split / "images", pictures)
        (folder / split / "labels").mkdir()
        for picture in pictures:
            lines = []
            for label, xmin, ymin, xmax, ymax in picture.boxes:
                x, y = (xmin + xmax) / 2 / picture.width, (ymin + ymax) / 2 / picture.height
                width, height = (xmax - xmin) / picture.width, (ymax - ymin) / picture.height
                lines.append(f"{labels.index(label)} {x} {y} {width} {height}")
            path = folder / split / "labels" / Path(picture.name).with_suffix(".txt")
            path.write_text("\n".join(lines))
    content = {"train": "../train/images", "nc": len(labels), "names": labels}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


def write_voc(folder: Path, splits: Splits, labels: list[str]) -> None:
    for split, pictures in splits.items():
        _write_images(folder / split, pictures)
        for picture in pictures:
            root = ElementTree.Element("annotation")
            ElementTree.SubElement(root, "filename").text = picture.name
            size = ElementTree.SubElement(root, "size")
            for name, value in (("width", picture.width), ("height", picture.height), ("depth", 3)):
                ElementTree.SubElement(size, name).text = str(value)
            for label, xmin, ymin, xmax, ymax in picture.boxes:
                element = ElementTree.SubElement(root, "object")
                ElementTree.SubElement(element, "name").text = label
                box = ElementTree.SubElement(element, "bndbox")
                for name, at in (("xmin", xmin), ("xmax", xmax), ("ymin", ymin), ("ymax", ymax)):
                    ElementTree.SubElement(box, name).text = str(at + 1)
            path = folder / split / Path(picture.name).with_suffix(".xml")
            path.write_bytes(ElementTree.tostring(root, encoding="utf-8"))


def example(picture: Picture, labels: list[str]) -> bytes:
    """A picture as a serialized `tf.train.Example`."""
    import tensorflow as tf

    def texts(values: list[str]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))

    def numbers(values: list[int]) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    names = [box[0] for box in picture.boxes]
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture.jpeg()])),
        "image/filename": texts([picture.name]),
        "image/format": texts(["jpeg"]),
        "image/width": numbers([picture.width]),
        "image/height": numbers([picture.height]),
        "image/object/class/text": texts(names),
        "image/object/class/label": numbers([labels.index(name) + 1 for name in names]),
    }
    sides = (picture.width, picture.height) * 2
    for column, (corner, side) in enumerate(zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True), 1):
        values = [float(box[column]) / side for box in picture.boxes]
        features[f"image/object/bbox/{corner}"] = tf.train.Feature(
            float_list=tf.train.FloatList(value=values)
        )
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def write_records(path: Path, records: list[bytes]) -> None:
    """A TFRecord file."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_tfrecord(folder: Path, splits: Splits, labels: list[str]) -> None:
    names = [json.dumps(label, ensure_ascii=False) for label in labels]
    items = [f"item {{\n  name: {name},\n  id: {index}\n}}\n" for index, name in enumerate(names, 1)]
    for split, pictures in splits.items():
        (folder / split).mkdir(parents=True)
        (folder / split / "project_label_map.pbtxt").write_text("".join(items), encoding="utf-8")
        write_records(folder / split / "project.tfrecord", [example(picture, labels) for picture in pictures])


WRITERS: dict[str, Callable[[Path, Splits, list[str]], None]] = {
    "tensorflow": write_tensorflow,
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "tfrecord": write_tfrecord,
}
