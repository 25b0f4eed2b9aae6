"""Judging an export's samples: what is bad is set aside with a finding, too much of it stops the step."""

import io
import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from brain_tumor.config import SPLITS, DatasetConfig
from brain_tumor.data.annotations import ANNOTATIONS, ExportSplit, Row
from brain_tumor.errors import InputError

Box = tuple[float, float, float, float]

COORDINATES = ("xmin", "ymin", "xmax", "ymax")
NUMBERS = ("width", "height", *COORDINATES)
QUARANTINED = "image quarantined"
ROW_IGNORED = "row ignored"
# What `duplicate_boxes` can be, and what it then does.
POLICIES = {"largest": "largest box kept", "union": "boxes united", "error": QUARANTINED}
QUOTED_FINDINGS = 3


@dataclass(frozen=True)
class Finding:
    """Something about a sample that the user should know.

    Attributes:
        split: The split.
        file: The image's file name, as the row or the folder has it.
        row: Line in `_annotations.csv` (the header is 1), or None where it is about the image alone.
        kind: What it is, one word for all findings alike.
        message: One sentence that names the file and the row.
        action: What was done about it.
    """

    split: str
    file: str
    row: int | None
    kind: str
    message: str
    action: str

    @property
    def bad(self) -> bool:
        """Whether the sample is bad, rather than worth a remark."""
        return self.action in (QUARANTINED, ROW_IGNORED)


@dataclass(frozen=True)
class Sample:
    """A good image.

    Attributes:
        split: The split.
        filename: Its file name.
        width: Width in pixels.
        height: Height in pixels.
        boxes: At most one box a label, `(xmin, ymin, xmax, ymax)` in pixels, xmax and ymax exclusive.
    """

    split: str
    filename: str
    width: int
    height: int
    boxes: dict[str, Box]


@dataclass(frozen=True)
class Validation:
    """What came out: the good images, the `(split, filename)` of the bad ones, and all findings; sorted."""

    samples: list[Sample]
    quarantined: list[tuple[str, str]]
    findings: list[Finding]


def validate(export: list[ExportSplit], config: DatasetConfig) -> Validation:
    """Decodes each image and checks each row.

    A bad row makes its image bad. A row that names an absent image counts as one bad sample an absent image.

    Raises:
        InputError: More than `config.max_bad_fraction` of the samples are bad, or the config is not usable.
    """
    if config.duplicate_boxes not in POLICIES:
        raise InputError(
            f"dataset.duplicate_boxes is {config.duplicate_boxes!r}; give one of {', '.join(POLICIES)}."
        )
    if not 0 <= config.max_bad_fraction <= 1:
        raise InputError(f"dataset.max_bad_fraction is {config.max_bad_fraction}; give a share, 0 to 1.")
    samples: list[Sample] = []
    quarantined: list[tuple[str, str]] = []
    findings: list[Finding] = []
    absent: set[tuple[str, str]] = set()
    paths = [split.folder / name for split in export for name in split.images]
    # Threads pay: Pillow decodes outside the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        decoded = tqdm(pool.map(_decode, paths), "Validating", len(paths), unit=" images", mininterval=1)
        sizes = dict(zip(paths, decoded, strict=True))

    for split in export:
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in split.rows:
            rows[row.cells.get("filename", "")].append(row)
        for filename in split.images:
            size = sizes[split.folder / filename]
            boxes, found = _check_image(split.name, filename, size, rows.pop(filename, []), config)
            findings += found
            if any(finding.bad for finding in found):
                quarantined.append((split.name, filename))
            else:
                assert not isinstance(size, str)
                samples.append(Sample(split.name, filename, *size, boxes))
        for filename, strays in rows.items():
            absent.add((split.name, filename))
            findings += [_stray_row(split.name, filename, row) for row in strays]
        for name in split.others:
            message = f"{split.name}/{name} is no JPEG file and no {ANNOTATIONS}."
            findings.append(Finding(split.name, name, None, "other_file", message, "file ignored"))

    findings.sort(
        key=lambda finding: (SPLITS.index(finding.split), finding.file, finding.row or 0, finding.kind)
    )
    _stop_if_too_many(
        findings, len(quarantined) + len(absent), len(paths) + len(absent), config.max_bad_fraction
    )
    return Validation(samples, quarantined, findings)


def _decode(path: Path) -> tuple[int, int] | str:
    """An image's (width, height) in pixels, or why it is not usable."""
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            image.load()
            return image.size
    except UnidentifiedImageError:
        return "it is no JPEG" if content else "it is empty"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return str(error)


def _check_image(
    split: str, filename: str, size: tuple[int, int] | str, rows: list[Row], config: DatasetConfig
) -> tuple[dict[str, Box], list[Finding]]:
    """An image's boxes by label, and what is wrong with it. The boxes count only if nothing is."""
    if isinstance(size, str):
        message = f"{split}/{filename} cannot be decoded ({size}); export or copy it again."
        return {}, [Finding(split, filename, None, "unreadable_image", message, QUARANTINED)]

    findings = []
    for row in rows:
        for kind, problem in _check_row(row, size, config.labels):
            message = f"{split}/{ANNOTATIONS} row {row.number}: {filename} {problem}."
            findings.append(Finding(split, filename, row.number, kind, message, QUARANTINED))
    if findings:
        return {}, findings

    boxes = {}
    for label in config.labels:
        own = [row for row in rows if row.cells["class"] == label]
        if len(own) > 1:
            numbers = " and ".join(str(row.number) for row in own)
            message = f"{split}/{ANNOTATIONS} rows {numbers}: {filename} has {len(own)} boxes of {label}."
            action = POLICIES[config.duplicate_boxes]
            findings.append(Finding(split, filename, own[-1].number, "duplicate_boxes", message, action))
        if own:
            merge = _union if config.duplicate_boxes == "union" else _largest
            boxes[label] = merge([_box(row) for row in own])
    return boxes, findings


def _check_row(row: Row, size: tuple[int, int], labels: list[str]) -> list[tuple[str, str]]:
    """The (kind, description) of each thing wrong with a row; size is its image's (width, height)."""
    if row.length != row.columns:
        return [("malformed_row", f"has {row.length} values where the header has {row.columns}")]
    problems = []
    label = row.cells["class"]
    if label not in labels:
        problems.append(("unknown_label", f"has the label {label!r}, which is none of {', '.join(labels)}"))
    texts = [f"{name} {row.cells[name]!r}" for name in NUMBERS if not _is_number(row.cells[name])]
    if texts:
        return [*problems, ("not_a_number", f"has {', '.join(texts)}, which is not a number")]

    width, height = size
    if (float(row.cells["width"]), float(row.cells["height"])) != size:
        claim = f"{row.cells['width']} x {row.cells['height']}"
        problems.append(("size_mismatch", f"is {width} x {height} pixels, not {claim} as the row says"))
    xmin, ymin, xmax, ymax = _box(row)
    corners = ", ".join(row.cells[name] for name in COORDINATES)
    if xmin >= xmax or ymin >= ymax:
        problems.append(("box_without_area", f"has a box without area ({corners})"))
    if min(xmin, xmax, ymin, ymax) < 0 or max(xmin, xmax) > width or max(ymin, ymax) > height:
        problems.append(("box_outside_image", f"has a box ({corners}) outside its {width} x {height} pixels"))
    return problems


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _box(row: Row) -> Box:
    xmin, ymin, xmax, ymax = (float(row.cells[name]) for name in COORDINATES)
    return xmin, ymin, xmax, ymax


def _largest(boxes: list[Box]) -> Box:
    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))


def _union(boxes: list[Box]) -> Box:
    xmins, ymins, xmaxs, ymaxs = zip(*boxes, strict=True)
    return min(xmins), min(ymins), max(xmaxs), max(ymaxs)


def _stray_row(split: str, filename: str, row: Row) -> Finding:
    """A row whose file name is that of no image. The name is compared, never opened: it can be a path."""
    if "/" in filename or "\\" in filename:
        kind, problem = "path_in_filename", f"names {filename!r}, a path; give the name of a file in {split}/"
    elif filename:
        kind, problem = (
            "missing_image",
            f"names {filename}, which {split}/ lacks; add the JPEG or delete the row",
        )
    else:
        kind, problem = "missing_image", "names no image; fill in the file name or delete the row"
    message = f"{split}/{ANNOTATIONS} row {row.number} {problem}."
    return Finding(split, filename, row.number, kind, message, ROW_IGNORED)


def _stop_if_too_many(findings: list[Finding], bad: int, total: int, limit: float) -> None:
    if bad / total > limit:
        quoted = " ".join([finding.message for finding in findings if finding.bad][:QUOTED_FINDINGS])
        raise InputError(
            f"{bad} of {total} samples ({bad / total:.1%}) are bad, more than dataset.max_bad_fraction "
            f"allows ({limit:.1%}): {quoted} Mend the export or raise the limit."
        )
