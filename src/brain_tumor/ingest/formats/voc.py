"""Roboflow's "voc" format (Pascal VOC): `<split>/<name>.xml` beside `<split>/<name>.jpg`.

Roboflow counts a VOC file's pixels from 1 and keeps xmax and ymax exclusive: each of the four coordinates is
one more than in its CSV. The example of https://roboflow.com/formats/pascal-voc-xml has the box 179, 85, 231,
144 where that of https://roboflow.com/formats/tensorflow-object-detection-csv, of the same image, has 178,
84, 230, 143; see also https://github.com/roboflow/supervision/issues/144. Boxes in the original convention
(pixels from 1, xmax and ymax inclusive) are read one pixel too small.
"""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.export import ExportSplit
from brain_tumor.ingest.numbers import parse_number
from brain_tumor.ingest.split_folders import split_folders
from brain_tumor.ingest.split_reader import UNKNOWN_SIZE, Size, SplitReader, is_companion, list_folder
from brain_tumor.ingest.stems import match_stems
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import quote
from brain_tumor.stores.files import is_special

LAYOUT = "<split>/<name>.xml beside <split>/<name>.jpg"
SUFFIX = ".xml"


def find(folder: Path) -> dict[Split, Path]:
    """An annotation file of each split that has one."""
    splits = split_folders(folder)
    return {split: path / names[0] for split, path in splits.items() if (names := _files(path))}


def _files(folder: Path) -> list[str]:
    return [name for name in list_folder(folder) if name.lower().endswith(SUFFIX) and not is_companion(name)]


def read(folder: Path, _scratch: Path) -> list[ExportSplit]:
    """Reads the splits of an export in which `find` found something.

    A file that cannot be read is a finding about its image; the row is the object's position in the file.

    Raises:
        InputError: A split has no annotation file or no image.
    """
    return [_read_split(folder, split, path) for split, path in split_folders(folder).items()]


def _read_split(folder: Path, split: Split, images: Path) -> ExportSplit:
    files = _files(images)
    if not files:
        raise InputError(
            f"{images} has no XML file; add one for each image (without objects if it has none)."
        )
    reader = SplitReader(split, images)
    reader.list_images(set(files))
    source = images.relative_to(folder).as_posix()
    unlisted = set(reader.images)
    for filename, file in match_stems(reader, files, source):
        unlisted.discard(filename)
        _read_file(images / file, filename, reader, f"{source}/{file}")
    for filename in sorted(unlisted):
        reader.report_unlisted(filename, source)
    return reader.finish()


def _read_file(path: Path, filename: str, reader: SplitReader, source: str) -> None:
    try:
        if is_special(path):
            raise OSError("it is a pipe or a device")
        root = parse(path).getroot()
        assert root is not None
    except (OSError, ParseError, ValueError, LookupError) as error:
        # ValueError: forbidden entities and multi-byte encodings; LookupError: unknown encodings
        problem = f"has an XML file that cannot be read ({error}); export it again"
        reader.report(filename, source, None, problem, "malformed_file")
        return
    if root.tag != "annotation":
        reader.report(
            filename, source, None, f"has an XML file of another kind: {quote(root.tag)}", "malformed_file"
        )
        return
    size = _read_size(root)
    if size is None:
        reader.report(filename, source, None, "has a size that is not two numbers", "not_a_number")
        return
    for row, element in enumerate(root.findall("object"), 1):
        label = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{name}") for name in COORDINATES]
        numbers = [number for number in map(parse_number, texts) if number is not None]
        if len(numbers) != len(COORDINATES):
            values = ", ".join(f"{name} {quote(text)}" for name, text in zip(COORDINATES, texts, strict=True))
            reader.report(filename, source, row, f"has {values}, which are not four numbers", "not_a_number")
        else:
            xmin, ymin, xmax, ymax = (number - 1 for number in numbers)
            reader.add_box(filename, label, (xmin, ymin, xmax, ymax), size, source, row)


def _read_size(root: Element) -> Size | None:
    """Width and height: NaN if the file has none, None if they are not numbers."""
    if root.find("size") is None:
        return UNKNOWN_SIZE
    width, height = parse_number(root.findtext("size/width")), parse_number(root.findtext("size/height"))
    return None if width is None or height is None else (width, height)
