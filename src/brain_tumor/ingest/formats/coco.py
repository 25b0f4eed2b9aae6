"""Roboflow's "coco" format: `<split>/_annotations.coco.json` beside the split's images.

COCO's own layout is read too: `annotations/instances_<split>.json` with the images in `<split>/` or
`images/<split>/`. A `bbox` is x, y, width and height in pixels, with (0, 0) at the top left corner; see
https://cocodataset.org/#format-data. A crowd (`iscrowd`) counts as one box; segmentations are ignored.
"""

import json
from pathlib import Path
from typing import Any

from brain_tumor.config import Split
from brain_tumor.ingest.export import ExportSplit
from brain_tumor.ingest.numbers import parse_number
from brain_tumor.ingest.split_folders import split_folders
from brain_tumor.ingest.split_reader import UNKNOWN_SIZE, Size, SplitReader
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import is_text, quote

LAYOUT = "<split>/_annotations.coco.json beside the images"
ANNOTATIONS = "_annotations.coco.json"


def find(folder: Path) -> dict[Split, Path]:
    """The annotation file of each split that has one."""
    return {split: path for split, (_, path) in _places(folder).items() if path.is_file()}


def _places(folder: Path) -> dict[Split, tuple[Path, Path]]:
    """By split, the folder of its images and the expected path of its annotation file."""
    places = {}
    for split, images in (split_folders(folder) or split_folders(folder / "images")).items():
        apart = folder / "annotations" / f"instances_{images.name}.json"
        places[split] = images, apart if apart.is_file() else images / ANNOTATIONS
    return places


def read(folder: Path, _scratch: Path) -> list[ExportSplit]:
    """Reads the splits of an export in which `find` found something.

    An image or annotation that cannot be read is a finding; its row is the position in `images` or
    `annotations`, from 1.

    Raises:
        InputError: A split has no annotation file or no image, or a file is not COCO's JSON.
    """
    return [_read_split(folder, split, *place) for split, place in _places(folder).items()]


def read_labels(folder: Path) -> list[tuple[int, str]]:
    """Reads the id and name of each category of each split's file.

    A category that is only the supercategory of others (Roboflow adds one with the id 0) is not a label.

    Raises:
        InputError: A file cannot be read, or an id is not a whole number.
    """
    return [label for path in find(folder).values() for label in _declared(path)]


def _declared(path: Path) -> list[tuple[int, str]]:
    content = _load(path)
    names = _read_categories(content["categories"], path)
    parents = {_key(each["id"]): each.get("supercategory") for each in content["categories"]}
    used = {_key(each.get("category_id")) for each in content["annotations"] if isinstance(each, dict)}
    declared = []
    for key, name in names.items():
        has_children = any(parent == name for child, parent in parents.items() if child != key)
        if has_children and key not in used:
            continue
        try:
            declared.append((int(key), name))
        except ValueError:
            raise InputError(
                f"{path}: the category {quote(name)} has the id {quote(key)}, which is not a number; give "
                "the labels' names instead of dataset.labels=auto."
            ) from None
    return declared


def _read_split(folder: Path, split: Split, images: Path, path: Path) -> ExportSplit:
    if not path.is_file():
        raise InputError(
            f"{images} has no {ANNOTATIONS}; add it (with images but no annotations if need be)."
        )
    reader = SplitReader(split, images)
    reader.list_images([path.name])
    _read_file(path, reader, path.relative_to(folder).as_posix())
    return reader.finish()


def _read_file(path: Path, reader: SplitReader, source: str) -> None:
    content = _load(path)
    labels = _read_categories(content["categories"], path)
    images = _read_images(content["images"], reader, source)
    annotated = set()
    for row, annotation in enumerate(content["annotations"], 1):
        values = annotation if isinstance(annotation, dict) else {}
        key = _key(values.get("image_id"))
        annotated.add(key)
        if key not in images:
            problem = f"has the image_id {quote(values.get('image_id'))}, which no image of the file has"
            reader.report("", source, row, problem)
            continue
        filename, size = images[key]
        category = _key(values.get("category_id"))
        label = None if category is None else labels.get(category)
        box = values.get("bbox")
        numbers = [parse_number(value) for value in box] if isinstance(box, list) else []
        known = [number for number in numbers if number is not None]
        if label is None:
            problem = (
                f"has the category_id {quote(values.get('category_id'))}, which no category of the file has"
            )
            reader.report(filename, source, row, problem)
        elif len(numbers) != 4 or len(known) != 4:
            reader.report(filename, source, row, "has a bbox that is not four numbers", "not_a_number")
        else:
            x, y, width, height = known
            # Rounded, since 132.3 + 6.7 is slightly more than an image's 139 pixels.
            xmax, ymax = round(x + width, 6), round(y + height, 6)
            reader.add_box(filename, label, (x, y, xmax, ymax), size, source, row)

    listed = {filename for filename, _ in images.values()}
    for key, (filename, _) in images.items():
        # Validation reports a missing image that has boxes.
        if filename not in reader.images and key not in annotated:
            problem = "does not exist; add the image or delete its entry"
            reader.report(filename, source, None, problem, "missing_image", lost=0)
    for filename in sorted(reader.images):
        if filename not in listed:
            reader.report_unlisted(filename, source)


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(f"{path} row {error.lineno} is not JSON ({error.msg}); export it again.") from error
    except (ValueError, RecursionError) as error:
        # Neither UTF-8 nor UTF-16, a number of thousands of digits, or too deeply nested.
        raise InputError(f"{path} is not readable JSON; export it again.") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path} is not a COCO file: it has no list {key!r}; export it again.")
    assert isinstance(content, dict)
    return content


def _read_categories(categories: list[Any], path: Path) -> dict[str, str]:
    """Label names by category id."""
    labels: dict[str, str] = {}
    for position, category in enumerate(categories, 1):
        values = category if isinstance(category, dict) else {}
        key, name = _key(values.get("id")), values.get("name")
        if key is None or not is_text(name):
            raise InputError(f"{path}: category {position} has no id or no name; give it both.")
        if labels.setdefault(key, name) != name:
            raise InputError(
                f"{path}: category {position} has the id {quote(key)} of another one; change it."
            )
    return labels


def _read_images(images: list[Any], reader: SplitReader, source: str) -> dict[str | None, tuple[str, Size]]:
    """Reads file names and sizes by image id."""
    found: dict[str | None, tuple[str, Size]] = {}
    for row, image in enumerate(images, 1):
        values = image if isinstance(image, dict) else {}
        key, filename = _key(values.get("id")), values.get("file_name")
        width, height = parse_number(values.get("width")), parse_number(values.get("height"))
        if not is_text(filename) or key is None:
            name = filename if is_text(filename) else ""
            reader.report(name, f"{source} images", row, "has no id or no file_name", lost=0)
            continue
        if (width is None or height is None) and ("width" in values or "height" in values):
            sides = f"{quote(values.get('width'))} x {quote(values.get('height'))}"
            problem = f"has the size {sides}, which is not two numbers"
            reader.report(filename, f"{source} images", row, problem, "not_a_number", lost=0)
        if key in found:
            problem = f"has the id {quote(key)}, which two images have"
            for name in {filename: None, found[key][0]: None}:
                reader.report(name, f"{source} images", row, problem, "ambiguous_id", lost=0)
        found[key] = (
            reader.find_image(filename),
            UNKNOWN_SIZE if width is None or height is None else (width, height),
        )
    return found


def _key(value: object) -> str | None:
    """Normalizes an id, which some tools write as a number and others as a string."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value)
