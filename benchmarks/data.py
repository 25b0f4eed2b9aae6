"""Times ingest, build_tfrecords and the input pipeline, and measures the memory of the first two.

Run it with `python -m benchmarks.data [records|memory|input|all]`.

The images are synthetic slices of about 140 px, and the same enlarged to 640. A few hundred are generated;
each file is one of them with a unique comment, so that no two have the same bytes. References for the speed
of the machine, measured alternately in the same run: two processes that only copy the same files into as many
larger ones, and a bare loop of TensorFlow's writer on records in memory.
"""

import csv
import hashlib
import importlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from PIL import Image

from brain_tumor.config import SPLITS, AnyDataset, parse_dataset, to_json
from brain_tumor.config.compose import compose
from brain_tumor.ingest.formats.tensorflow_csv import ANNOTATIONS, COLUMNS
from brain_tumor.ingest.sources.synthetic import draw_slice, make_patient

Row = tuple[str, str]

SMALL, LARGE = 140, 640  # sides in pixels
IMAGES = {SMALL: 50_000, LARGE: 5_000}
FEW_IMAGES = 1_000
QUALITY = 80  # files of 3 to 6 KB at 140 px, like those of real slices
PATIENTS, SLICES = 12, 40
WORKERS = 2
ROUNDS = 3
INPUT_IMAGES = 4_000
WRITE = f"write the shards, {WORKERS} processes"
COPY = f"bare copy of the same bytes, {WORKERS} processes"


def main() -> None:
    """Prints the table, each row as soon as it is measured."""
    parts: dict[str, Callable[[Path], Iterable[Row]]] = {
        "records": measure_records,
        "memory": measure_memory,
        "input": measure_input,
    }
    chosen = sys.argv[1] if len(sys.argv) > 1 else "all"
    if chosen not in (*parts, "all"):
        raise SystemExit(f"{chosen} is not one of {', '.join(parts)}, all.")
    _print("machine", f"{_cpu_model()}, {joblib.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in parts.items():
            if chosen in (name, "all"):
                for row in measure(Path(folder)):
                    _print(*row)


def _print(name: str, figure: str) -> None:
    print(f"{name:62} {figure}", flush=True)


def measure_records(folder: Path) -> Iterator[Row]:
    """Images per second of the work between the export and the records artifact."""
    started = time.perf_counter()
    joblib.Parallel(WORKERS)(
        joblib.delayed(importlib.import_module)("brain_tumor.records.shard") for _ in range(4 * WORKERS)
    )
    yield f"start of {WORKERS} workers", f"{time.perf_counter() - started:.1f} s"
    for side, images in IMAGES.items():
        kilobytes = np.mean([path.stat().st_size for path in export(folder, side, images).glob("*/*.jpg")])
        yield f"--- {images:,} JPEGs of about {side} px, mean", f"{kilobytes / 1000:.1f} KB"
        rate = images / _time_validation(folder, side)
        yield "decode, validate, hash and copy (a part of ingest)", _speed(rate)
        yield "the whole ingest, once", _speed(images / ingest(folder, side, images)[0])
        rates = _time_records(folder, side)
        for name, rate in rates.items():
            yield name, _speed(rate)
        yield "write the shards / bare copy", f"{rates[WRITE] / rates[COPY]:.2f}"
        yield "the whole build_tfrecords, once", _speed(images / build(folder, side, images)[0])


def _speed(rate: float) -> str:
    return f"{rate:,.0f} images/s"


def measure_memory(folder: Path) -> Iterator[Row]:
    """Peak memory of both steps, by the number of images."""
    for name, step in (("ingest", ingest), ("build_tfrecords", build)):
        for images in (FEW_IMAGES, IMAGES[SMALL]):
            _, peak, of_workers = step(folder, SMALL, images)
            yield f"peak memory of {name}, {images:,} images", f"{peak:.0f} MB"
            if of_workers:
                yield f"... of each of its {WORKERS} workers", f"{of_workers:.0f} MB"


def measure_input(_: Path) -> list[Row]:
    """The input pipeline's figures, compared with a bare loop."""
    from benchmarks.input_pipeline import measure

    return measure(INPUT_IMAGES)


@cache
def export(folder: Path, side: int, images: int) -> Path:
    """Writes an export in Roboflow's layout; 7 of 10 images are in train, 2 in valid, 1 in test."""
    target = folder / f"export-{side}-{images}"
    sections = _draw_sections(side)
    bounds = [0, images * 7 // 10, images * 9 // 10, images]
    for split, first, last in zip(SPLITS, bounds, bounds[1:], strict=False):
        (target / split).mkdir(parents=True)
        with open(target / split / ANNOTATIONS, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for index in range(first, last):
                encoded, size, boxes = sections[index % len(sections)]
                patient, section = divmod(index, SLICES)
                name = f"volume_{split}{patient}_slice_{section}_jpg.rf.{index:032x}.jpg"
                # A JPEG's first two bytes mark its start; a comment may follow.
                comment = f"{index:08}".encode()
                segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
                (target / split / name).write_bytes(encoded[:2] + segment + encoded[2:])
                rows.writerows([name, *size, label, *box] for label, box in boxes.items())
    return target


@cache
def _draw_sections(side: int) -> list[tuple[bytes, tuple[int, int], dict[str, list[int]]]]:
    """Draws slices as JPEGs, with their sizes and their boxes by label."""
    rng = np.random.default_rng(0)
    sections = []
    for _ in range(PATIENTS):
        patient = make_patient(rng)
        for z in np.linspace(-0.8, 0.8, SLICES):
            pixels, masks = draw_slice(patient, float(z), rng)
            image = Image.fromarray(pixels)
            if side == LARGE:
                image = image.resize((LARGE, LARGE), Image.Resampling.BICUBIC)
            scales = (image.width / patient.width, image.height / patient.height) * 2
            boxes = {}
            for index, mask in enumerate(masks):
                if mask.any():
                    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                    corners = [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]
                    boxes[f"label{index}"] = [int(a * b) for a, b in zip(corners, scales, strict=True)]
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=QUALITY)
            sections.append((buffer.getvalue(), image.size, boxes))
    return sections


@cache
def ingest(folder: Path, side: int, images: int) -> tuple[float, float, float]:
    """Ingests an export: seconds, peak MB of the process, peak MB of a worker (none)."""
    config = to_json(_dataset_config(export(folder, side, images)))
    return _run_step("ingest_step", config, folder / f"dataset-{side}-{images}")


@cache
def build(folder: Path, side: int, images: int) -> tuple[float, float, float]:
    """Builds the records of a dataset: seconds, peak MB of the process, peak MB of a worker."""
    ingest(folder, side, images)
    output = folder / f"records-{side}-{images}"
    return _run_step("build_step", folder / f"dataset-{side}-{images}", output)


def _run_step(step: str, *arguments: str | Path) -> tuple[float, float, float]:
    """Runs one of the functions below in its own process."""
    code = f"import sys; from benchmarks.data import {step}; {step}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, text=True, stdout=subprocess.PIPE
    )
    seconds, peak, of_workers = json.loads(done.stdout)
    return seconds, peak, of_workers


def ingest_step(config: str, output: str) -> None:
    """Runs the ingest step with its report; prints its time and memory."""
    from brain_tumor.ingest.ingest import ingest

    started = time.perf_counter()
    ingested = ingest(parse_dataset(config), Path(output))
    # Imported here, as in the step.
    from brain_tumor.reports.data_report import write_data_report

    write_data_report(Path(f"{output}.html"), ingested)
    print(json.dumps([time.perf_counter() - started, peak_memory(), 0]))


def build_step(dataset: str, output: str) -> None:
    """Runs the build_tfrecords step; prints its time and memory."""
    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.records.build import build_tfrecords

    started = time.perf_counter()
    build_tfrecords(compose([]).records, open_dataset(dataset), Path(output), WORKERS)
    seconds = time.perf_counter() - started
    # The same workers are still running and can report their memory.
    of_workers = joblib.Parallel(WORKERS)(joblib.delayed(peak_memory)() for _ in range(4 * WORKERS))
    print(json.dumps([seconds, peak_memory(), max(of_workers)]))


def peak_memory() -> float:
    """The peak resident memory of this process, in MB.

    Not getrusage's ru_maxrss, which starts with the parent process's value.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _dataset_config(path: Path) -> AnyDataset:
    return compose(["dataset=directory", f"dataset.path={path}"]).dataset


def _time_validation(folder: Path, side: int) -> float:
    """Seconds of ingest's single pass over the images."""
    from brain_tumor.artifacts.dataset import DatasetDraft
    from brain_tumor.artifacts.folder import Draft
    from brain_tumor.ingest.formats.registry import read_export
    from brain_tumor.ingest.validation import validate

    path = export(folder, side, IMAGES[side])
    read = read_export(path, folder / "unused")
    with tempfile.TemporaryDirectory(dir=folder) as output:
        draft = DatasetDraft(Draft(Path(output)))
        started = time.perf_counter()
        validate(read, _dataset_config(path), draft)
        return time.perf_counter() - started


def _time_records(folder: Path, side: int) -> dict[str, float]:
    """Images per second of build_tfrecords' parts, and of bare loops: the best of some rounds each."""
    import tensorflow as tf

    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.records.build import write_shards
    from brain_tumor.records.verify import read_back
    from brain_tumor.stores.files import hash_files

    images = IMAGES[side]
    ingest(folder, side, images)
    source = open_dataset(folder / f"dataset-{side}-{images}")
    per_shard = compose([]).records.images_per_shard
    output, bare = folder / "shards", folder / "bare"
    paths = [f"{source.image_folder}/{name}" for name in source.images["source_id"]]
    shares = [paths[start : start + per_shard] for start in range(0, images, per_shard)]
    some = [Path(path).read_bytes() for path in paths[: 2 * per_shard]]

    def tf_writer() -> None:
        with tf.io.TFRecordWriter(str(bare / "tensorflow")) as writer:
            for record in some:
                writer.write(record)

    timed: dict[str, tuple[int, Callable[[], Any]]] = {
        WRITE: (images, lambda: write_shards(source, per_shard, output, WORKERS)),
        "read back and compare": (images, lambda: sum(map(len, read_back(source, per_shard, output)))),
        "sha256 of the shards": (images, lambda: hash_files(output)),
        "sha256 of the JPEGs (a part of the writing), 1 process": (
            len(some),
            lambda: [hashlib.sha256(encoded).hexdigest() for encoded in some],
        ),
        COPY: (
            images,
            lambda: joblib.Parallel(WORKERS)(
                joblib.delayed(_copy)(share, bare / str(index)) for index, share in enumerate(shares)
            ),
        ),
        "bare TFRecordWriter on bytes in memory, 1 process": (len(some), tf_writer),
    }
    best: dict[str, float] = {}
    for path in (output, bare):
        path.mkdir()
    for _ in range(ROUNDS):
        for name, (count, run) in timed.items():
            started = time.perf_counter()
            run()
            best[name] = max(best.get(name, 0.0), count / (time.perf_counter() - started))
    for path in (output, bare):
        shutil.rmtree(path)
    return best


def _copy(paths: list[str], target: Path) -> None:
    """Writes the bytes of all these files into one."""
    with open(target, "wb") as file:
        for path in paths:
            with open(path, "rb", buffering=0) as source:
                file.write(source.read())


def _cpu_model() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0].split(":")[1].strip() if names else platform.machine()


if __name__ == "__main__":
    main()
