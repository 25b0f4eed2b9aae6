"""The build_tfrecords step: writes a dataset's images and boxes as TFRecords, and their statistics.

A record has the TF Object Detection API's keys, so that its tools can read it, plus `image/patient_id` and
`image/slice`. As in that API, `image/object/class/label` counts from 1 (0 is the background): it is the class
slot + 1. See
https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md
"""

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import joblib

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.records import (
    Records,
    RecordsManifest,
    SplitRecords,
    create_records,
    open_records,
)
from brain_tumor.config import SPLITS, RecordsConfig
from brain_tumor.records.cut import cut_into_shards, split_shard_names
from brain_tumor.records.shard import write_shard
from brain_tumor.records.statistics import Tally
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.progress import Progress

# Fewer images are written faster than other processes start.
IMAGES_WORTH_WORKERS = 5000
NAMED_SHARDS = 3


def build_tfrecords(
    config: RecordsConfig, dataset: Dataset, output: Path, workers: int | None = None
) -> Records:
    """Writes a dataset's images and boxes as TFRecords and publishes a records artifact.

    An image that TensorFlow cannot decode is left out with a warning.

    The same dataset and config give the same bytes, whatever the number of workers.

    Args:
        config: The step's config.
        dataset: The dataset artifact.
        output: Folder of the records artifact.
        workers: As for `write_shards`.

    Raises:
        InputError: A split has no images left, too many images cannot be decoded, or the dataset's images
            have changed since it was published.
        RuntimeError: A shard could not be written, or was read back with different content.
    """
    # Imported late: TensorFlow's import takes seconds, which a step that fails before should not spend.
    from brain_tumor.records.decode import leave_out_undecodable
    from brain_tumor.records.verify import read_back

    _check_splits(dataset)
    per_shard = config.images_per_shard
    with create_records(output) as draft:
        files = write_shards(dataset, per_shard, draft.path, workers)
        rest = leave_out_undecodable(dataset, files)
        if rest is not dataset:
            _check_splits(rest)
            for file in files:
                file.unlink()
            dataset = rest
            write_shards(dataset, per_shard, draft.path, workers)
        counts = dataset.manifest.counts
        tally = Tally(dataset.manifest.labels)
        for shard in read_back(dataset, per_shard, draft.path):
            tally.add(shard)
        splits = {
            split: SplitRecords(
                images=counts[split].images,
                boxes=counts[split].boxes,
                patients=counts[split].patients,
                shards=len(split_shard_names(dataset, split, per_shard)),
            )
            for split in SPLITS
        }
        tally.check(splits)
        draft.finish(
            dataset,
            tally.statistics(dataset.manifest, config.max_class_weight),
            RecordsManifest(
                source=dataset.manifest.source,
                notice=dataset.manifest.notice,
                labels=dataset.manifest.labels,
                channels=1 if dataset.manifest.grey else 3,
                config=config.model_dump(mode="json"),
                splits=splits,
                left_out=sorted(dataset.left_out),
            ),
        )
    return open_records(output)


def _check_splits(dataset: Dataset) -> None:
    for split in SPLITS:
        counts = dataset.manifest.counts[split]
        if not counts.images:
            why = (
                f"all its images are quarantined, and {dataset.findings_path.name} says why"
                if counts.quarantined
                else "add some to the export, or let dataset.split=patient make new splits"
            )
            raise InputError(f"{dataset.path} has no usable image in {split}: {why}.")


def write_shards(
    dataset: Dataset, images_per_shard: int, folder: Path, workers: int | None = None
) -> list[Path]:
    """Writes the TFRecord files of all splits in parallel, and returns their names.

    Args:
        dataset: The dataset artifact.
        images_per_shard: Maximum number of images per file.
        folder: Where to write the files.
        workers: The number of writing processes. None means one per available processor, or only this process
            if there are few images.

    Raises:
        InputError: An image has changed or disappeared since the dataset was published; or a process was
            killed, for example when out of memory.
        OSError: Reading or writing failed, see `FIXABLE_ERRORS`.
        RuntimeError: A shard could not be written for another reason; the error names it.
    """
    if workers is None:
        workers = joblib.cpu_count() if dataset.image_count >= IMAGES_WORTH_WORKERS else 1
    unfinished = set()

    def tasks() -> Iterator[Any]:
        # joblib prefetches a few tasks, so only a few shards are in memory.
        for shard in cut_into_shards(dataset, images_per_shard):
            unfinished.add(shard.name)
            yield joblib.delayed(write_shard)(shard, dataset.image_folder, folder)

    with Progress("Writing records", dataset.image_count, "images") as progress:
        try:
            # Always closed at once: no process must write to a folder that is being removed.
            with closing(joblib.Parallel(workers, return_as="generator_unordered")(tasks())) as written:
                for name, images in written:
                    unfinished.remove(name)
                    progress.update(images)
        except BrokenProcessPool as error:
            names = ", ".join(sorted(unfinished)[:NAMED_SHARDS])
            raise InputError(
                f"A process died (out of memory?) while it wrote one of {names}; give this step more memory, "
                "or lower records.images_per_shard."
            ) from error
    return [folder / name for split in SPLITS for name in split_shard_names(dataset, split, images_per_shard)]
