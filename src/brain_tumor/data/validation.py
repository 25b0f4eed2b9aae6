"""Judging an export's samples: what is bad is set aside with a finding, too much of it stops the step.

Each image is read and decoded once. That pass measures all that later steps ask of an image, and writes its
bytes into the artifact, so that nothing of an image stays in memory but a row of numbers.
"""

import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from brain_tumor.config import SPLITS, DatasetConfig
from brain_tumor.data.annotations import Export, ExportSplit
from brain_tumor.data.findings import QUARANTINED, ROW_IGNORED, Finding
from brain_tumor.errors import InputError

COORDINATES = ["xmin", "ymin", "xmax", "ymax"]
# What `duplicate_boxes` can be, and what it then does.
POLICIES = {"largest": "largest box kept", "union": "boxes united", "error": QUARANTINED}
CLIPPED = "box clipped"
KEPT = "image kept"
LEFT_EMPTY = "split left empty"
QUOTED_FINDINGS = 3
# A box that is further over the edge of its image than this, in pixels, is wrong rather than imprecise.
LARGEST_OVERSHOOT = 1.0
# Normalised coordinates come back from a text file with an error of this many pixels; that is no remark.
ROUNDING = 0.01
IMAGES_A_TASK = 64
HASH_SIDE = 32  # to what an image is shrunk before it is hashed
MEASURES = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),
        ("grey", "?"),
        ("intensity", "f4"),
        ("perceptual_hash", "u8"),
        ("sha256", "S64"),
    ]
)


@dataclass(frozen=True)
class Validation:
    """What came out.

    Attributes:
        images: The good images, by split and file name: split (as provided), filename, width, height
            (pixels), grey (whether all pixels have equal red, green and blue), intensity (mean grey level,
            0..255), perceptual_hash (uint64), sha256 (hexadecimal).
        boxes: Their boxes, at most one a label and image, by image and label: image (its position in
            `images`), label, xmin, ymin, xmax, ymax in pixels, within the image, xmax and ymax exclusive.
        quarantined: The bad images: split, filename.
        findings: All findings, sorted.
        histogram: How many of all decoded pixels have each grey level, (256,).
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    quarantined: pd.DataFrame
    findings: list[Finding]
    histogram: NDArray[np.int64]


def validate(export: Export, config: DatasetConfig, output: Path) -> Validation:
    """Decodes each image, judges each box, and copies the images.

    A bad box makes its image bad. A row that names an absent image counts as one bad sample an absent image.
    A box up to a pixel over the edge is clipped. Duplicate files and images without a box are good.

    Args:
        export: What was read.
        config: Labels, `duplicate_boxes` and `max_bad_fraction`.
        output: The bytes of `<split>/<filename>` go to its folder images/, of bad ones to quarantine/.

    Raises:
        InputError: More than `config.max_bad_fraction` of the samples are bad, `duplicate_boxes` is no known
            policy, or a file cannot be read.
    """
    if config.duplicate_boxes not in POLICIES:
        raise InputError(
            f"dataset.duplicate_boxes is {config.duplicate_boxes!r}; give one of {', '.join(POLICIES)}."
        )
    for folder in ("images", "quarantine"):
        for name in SPLITS:
            (output / folder / name).mkdir(parents=True)

    histogram = np.zeros(256, np.int64)
    images, boxes, quarantined = [], [], []
    findings: list[Finding] = []
    good_images = 0
    total = sum(len(split.images) for split in export.splits)
    with tqdm(total=total, desc="Validating", unit=" images", mininterval=1) as progress:
        for split in export.splits:
            measures, unreadable = _measure(split, output / "images" / split.name, histogram, progress)
            kept, found = _judge(split, measures, unreadable, config)
            findings += found
            bad = _bad_images(split, found)
            for position in np.flatnonzero(bad):
                file = f"{split.name}/{split.images[position]}"
                os.rename(output / "images" / file, output / "quarantine" / file)
            images.append(_table(split, measures, ~bad))
            quarantined.append(_table(split, measures, bad)[["split", "filename"]])
            kept = kept[~bad[kept["image"]]]
            places = np.cumsum(~bad) - 1 + good_images
            boxes.append(kept.assign(image=places[kept["image"]]))
            good_images += len(images[-1])

    good = pd.concat(images, ignore_index=True)
    findings += _find_duplicates(good)
    findings += _find_empty_splits(export, good)
    findings.sort(
        key=lambda finding: (SPLITS.index(finding.split), finding.file, finding.row or 0, finding.kind)
    )
    validation = Validation(
        good,
        pd.concat(boxes, ignore_index=True),
        pd.concat(quarantined, ignore_index=True),
        findings,
        histogram,
    )
    _stop_if_too_many(validation, config.max_bad_fraction)
    return validation


def _measure(
    split: ExportSplit, target: Path, histogram: NDArray[np.int64], progress: Any
) -> tuple[NDArray[np.void], dict[int, str]]:
    """Decodes and copies a split's images; adds their grey levels to the histogram.

    Returns:
        One row of `MEASURES` an image, and by position why an image is not usable.
    """
    measures = np.zeros(len(split.images), MEASURES)
    unreadable: dict[int, str] = {}

    def measure_some(start: int) -> tuple[int, NDArray[np.int64]]:
        """Images from `start` on: how many, and their histogram."""
        good, levels = [], []
        names = split.images[start : start + IMAGES_A_TASK]
        for position, name in enumerate(names, start):
            content = _read(split.folder / name)
            (target / name).write_bytes(content)
            result = _measure_image(content)
            if isinstance(result, str):
                unreadable[position] = result
            else:
                numbers, hashed, counts = result
                measures[position] = (*numbers, 0.0, hashed, hashlib.sha256(content).hexdigest())
                good.append(position)
                levels.append(counts)
        histograms = np.array(levels, np.int64).reshape(-1, 256)
        if good:
            measures["intensity"][good] = histograms @ np.arange(256) / histograms.sum(axis=1)
        return len(names), histograms.sum(axis=0)

    # Pillow decodes outside the interpreter's lock; more threads than cores would only wait for it.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for count, levels in pool.map(measure_some, range(0, len(split.images), IMAGES_A_TASK)):
            histogram += levels
            progress.update(count)
    return measures, unreadable


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable.") from error


def _measure_image(content: bytes) -> tuple[tuple[int, int, bool], int, list[int]] | str:
    """Width, height and whether it is grey; its perceptual hash; its grey levels. Or what is wrong."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            image.load()
    except UnidentifiedImageError:
        return "it is no JPEG" if content else "it is empty"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return str(error)
    grey = image if image.mode == "L" else image.convert("L")
    # In two steps, of which the first is a plain mean: almost the hash of the whole image, in half the time.
    small = grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    hashed = int(str(imagehash.phash(small)), 16)
    return (image.width, image.height, _is_grey(image)), hashed, grey.histogram()


def _is_grey(image: Image.Image) -> bool:
    if image.mode != "RGB":
        return image.mode == "L"
    red, green, blue = (band.tobytes() for band in image.split())
    return red == green and red == blue


def _table(split: ExportSplit, measures: NDArray[np.void], chosen: NDArray[np.bool_]) -> pd.DataFrame:
    names = pa.array(itertools.compress(split.images, chosen), pa.large_string())
    own = measures[chosen]
    columns = {name: own[name] for name in MEASURES.names or () if name != "sha256"}
    digests = pa.array(own["sha256"], pa.large_binary()).cast(pa.large_string())
    frame: pd.DataFrame = pa.table({"filename": names, **columns, "sha256": digests}).to_pandas()
    frame["split"] = pd.Categorical([split.name], SPLITS).repeat(len(frame))
    return frame


def _bad_images(split: ExportSplit, findings: list[Finding]) -> NDArray[np.bool_]:
    """Which of the split's images a finding quarantines, (images,)."""
    bad = {finding.file for finding in findings if finding.action == QUARANTINED}
    return np.fromiter((name in bad for name in split.images), bool, len(split.images))


def _positions(texts: Iterable[str], known: ArrayLike) -> NDArray[np.int32]:
    """The position of each text among the known ones, -1 where it is none; Arrow makes no object a text."""
    found = pc.index_in(pa.array(texts, pa.large_string()), pa.array(known, pa.large_string()))
    positions: NDArray[np.int32] = found.fill_null(-1).to_numpy()
    return positions


def _judge(
    split: ExportSplit, measures: NDArray[np.void], unreadable: dict[int, str], config: DatasetConfig
) -> tuple[pd.DataFrame, list[Finding]]:
    """A split's boxes by image (its position) and label, and what is wrong with it.

    A box counts only if nothing is wrong with its image.
    """
    findings = list(split.findings)
    for position, reason in sorted(unreadable.items()):
        name = split.images[position]
        message = f"{split.name}/{name} cannot be decoded ({reason}); export or copy it again."
        findings.append(Finding(split.name, name, None, "unreadable_image", message, QUARANTINED))

    image = _positions(split.boxes["filename"], split.images)
    findings += [_stray_row(split.name, row) for row in split.boxes[image < 0].itertuples()]
    boxes = split.boxes.drop(columns="filename").assign(image=image)
    boxes = boxes[(image >= 0) & ~np.isin(image, list(unreadable))]
    findings += _check_boxes(split, boxes, measures, config.labels)
    boxes = boxes[~_bad_images(split, findings)[boxes["image"]]]
    boxes, clipped = _clip(split, boxes, measures)
    findings += clipped
    known = pd.CategoricalDtype(config.labels)
    labels = pd.Categorical.from_codes(_positions(boxes["label"], config.labels), dtype=known)
    boxes, repeated = _merge(split, boxes.assign(label=labels), config.duplicate_boxes)
    return boxes[["image", "label", *COORDINATES]], findings + repeated


def _check_boxes(
    split: ExportSplit, boxes: pd.DataFrame, measures: NDArray[np.void], labels: list[str]
) -> list[Finding]:
    """What makes a box bad."""
    width, height, xmin, ymin, xmax, ymax = _geometry(boxes, measures)
    known = boxes[["width", "height"]].notna().all(axis=1).to_numpy()
    other_size = known & ((boxes["width"].to_numpy() != width) | (boxes["height"].to_numpy() != height))
    empty = (xmin >= xmax) | (ymin >= ymax)
    overshoot = np.max(
        [-xmin, -ymin, -xmax, -ymax, xmin - width, ymin - height, xmax - width, ymax - height], 0
    )
    # A box of which nothing is left when it is clipped lies outside, however near to the edge.
    beside = (xmax <= 0) | (ymax <= 0) | (xmin >= width) | (ymin >= height)
    outside = (overshoot > LARGEST_OVERSHOOT) | (beside & ~empty)
    masks = {
        "unknown_label": ~boxes["label"].isin(labels).to_numpy(),
        "size_mismatch": other_size,
        "box_without_area": empty,
        "box_outside_image": outside,
    }
    findings = []
    for kind, mask in masks.items():
        for index in np.flatnonzero(mask):
            row: Any = boxes.iloc[index]
            size = f"{width[index]} x {height[index]}"
            problem = {
                "unknown_label": f"has the label {row.label!r}, which is none of {', '.join(labels)}",
                "size_mismatch": f"is {size} pixels, not {row.width:.10g} x {row.height:.10g} as annotated",
                "box_without_area": f"has a box without area {_corners(row)}",
                "box_outside_image": f"has a box {_corners(row)} outside its {size} pixels",
            }[kind]
            findings.append(_row_finding(split, row, kind, problem, QUARANTINED))
    return findings


def _clip(
    split: ExportSplit, boxes: pd.DataFrame, measures: NDArray[np.void]
) -> tuple[pd.DataFrame, list[Finding]]:
    """Boxes within their images, and a finding for each that was not."""
    width, height, *corners = _geometry(boxes, measures)
    limits = (width, height, width, height)
    clipped = [np.clip(corner, 0, limit) for corner, limit in zip(corners, limits, strict=True)]
    moved = np.max([np.abs(a - b) for a, b in zip(corners, clipped, strict=True)], axis=0)
    findings = []
    for index in np.flatnonzero(moved > ROUNDING):
        row = boxes.iloc[index]
        problem = f"has a box {_corners(row)} over the edge of its {width[index]} x {height[index]} pixels"
        findings.append(_row_finding(split, row, "box_over_edge", problem, CLIPPED))
    return boxes.assign(**dict(zip(COORDINATES, clipped, strict=True))), findings


def _merge(split: ExportSplit, boxes: pd.DataFrame, policy: str) -> tuple[pd.DataFrame, list[Finding]]:
    """At most one box a label and image, sorted by these, and a finding for each that was merged."""
    keys = ["image", "label"]
    repeated = boxes[boxes.duplicated(keys, keep=False)]
    findings = []
    for _, own in repeated.groupby(keys, observed=True):
        last: Any = own.iloc[-1]
        where = str(last.source)
        if own["row"].notna().all():
            where += f" rows {' and '.join(str(row) for row in own['row'])}"
        name = split.images[last.image]
        message = f"{where}: {name} has {len(own)} boxes of {last.label}."
        row = None if pd.isna(last.row) else int(last.row)
        findings.append(Finding(split.name, name, row, "duplicate_boxes", message, POLICIES[policy]))
    if policy == "union":
        groups = boxes.groupby(keys, observed=True)
        boxes = boxes.assign(
            xmin=groups["xmin"].transform("min"),
            ymin=groups["ymin"].transform("min"),
            xmax=groups["xmax"].transform("max"),
            ymax=groups["ymax"].transform("max"),
        )
    area = (boxes["xmax"] - boxes["xmin"]) * (boxes["ymax"] - boxes["ymin"])
    largest_first = boxes.assign(area=-area).sort_values([*keys, "area"], kind="stable")
    return largest_first.drop_duplicates(keys).drop(columns="area"), findings


def _geometry(boxes: pd.DataFrame, measures: NDArray[np.void]) -> Iterator[NDArray[Any]]:
    """Width and height of each box's image, then the box's four coordinates."""
    positions = boxes["image"].to_numpy()
    yield measures["width"][positions]
    yield measures["height"][positions]
    for name in COORDINATES:
        yield boxes[name].to_numpy(float)


def _corners(row: Any) -> str:
    return f"({row.xmin:.10g}, {row.ymin:.10g}, {row.xmax:.10g}, {row.ymax:.10g})"


def _where(row: Any) -> str:
    return row.source if pd.isna(row.row) else f"{row.source} row {row.row}"


def _row_finding(split: ExportSplit, row: Any, kind: str, problem: str, action: str) -> Finding:
    number = None if pd.isna(row.row) else int(row.row)
    name = split.images[row.image]
    return Finding(split.name, name, number, kind, f"{_where(row)}: {name} {problem}.", action)


def _stray_row(split: str, row: Any) -> Finding:
    """A row whose file name is that of no image. The name is compared, never opened: it can be a path."""
    name = row.filename
    if "/" in name or "\\" in name:
        kind, problem = "path_in_filename", f"names {name!r}, a path; give the name of a file in {split}/"
    elif name:
        kind, problem = "missing_image", f"names {name}, which {split}/ lacks; add the JPEG or delete the row"
    else:
        kind, problem = "missing_image", "names no image; fill in the file name or delete the row"
    number = None if pd.isna(row.row) else int(row.row)
    return Finding(split, name, number, kind, f"{_where(row)} {problem}.", ROW_IGNORED)


def _stop_if_too_many(validation: Validation, limit: float) -> None:
    findings = validation.findings
    absent = len({(item.split, item.file) for item in findings if item.action == ROW_IGNORED})
    bad = len(validation.quarantined) + absent
    total = len(validation.images) + bad
    if bad / total > limit:
        quoted = " ".join([finding.message for finding in findings if finding.bad][:QUOTED_FINDINGS])
        raise InputError(
            f"{bad} of {total} samples ({bad / total:.1%}) are bad, more than dataset.max_bad_fraction "
            f"allows ({limit:.1%}): {quoted} Mend the export or raise the limit."
        )


def _find_duplicates(images: pd.DataFrame) -> list[Finding]:
    """Good images of the same bytes, and of the same name in two splits: each but the first of its kind."""
    findings = []
    same = images[_repeated(images["sha256"])]
    for _, group in same.groupby("sha256", sort=False):
        first_in: dict[str, str] = {}  # by split
        for split, name in zip(group["split"], group["filename"], strict=True):
            if split in first_in:
                kind, other = "duplicate_image", f"{split}/{first_in[split]}"
            elif first_in:
                kind, other = "image_in_two_splits", "/".join(next(iter(first_in.items())))
            else:
                first_in[split] = name
                continue
            first_in.setdefault(split, name)
            message = f"{split}/{name} has the same bytes as {other}."
            findings.append(Finding(split, name, None, kind, message, KEPT))
    same_name = images[_repeated(images["filename"])]
    for filename, group in same_name.groupby("filename", sort=False):
        first = group.iloc[0]
        for split, digest in zip(group["split"].iloc[1:], group["sha256"].iloc[1:], strict=True):
            if digest != first["sha256"]:  # else it is already said
                message = f"{split}/{filename} has the same name as another image in {first['split']}."
                findings.append(Finding(split, str(filename), None, "name_in_two_splits", message, KEPT))
    return findings


def _repeated(values: pd.Series) -> NDArray[np.bool_]:
    """Which values are there twice or more, (values,)."""
    codes, known = pd.factorize(values)
    repeated: NDArray[np.bool_] = (np.bincount(codes, minlength=len(known)) > 1)[codes]
    return repeated


def _find_empty_splits(export: Export, images: pd.DataFrame) -> list[Finding]:
    left = set(images["split"])
    return [
        Finding(split.name, "", None, "empty_split", f"{split.name} has no good image.", LEFT_EMPTY)
        for split in export.splits
        if split.name not in left
    ]
