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

# With fewer images, starting worker processes takes longer than writing.
MIN_IMAGES_FOR_WORKERS = 5000
MAX_NAMED_SHARDS = 3


def build_tfrecords(
    config: RecordsConfig, dataset: Dataset, output: Path, workers: int | None = None
) -> Records:
    """Writes a dataset's images and boxes as TFRecords and publishes a records artifact.

    Images that TensorFlow cannot decode are left out with a warning. The same dataset and config give the
    same bytes for any number of workers.

    Args:
        config: The step's config.
        dataset: The dataset artifact.
        output: Folder of the records artifact.
        workers: As for `write_shards`.

    Raises:
        InputError: A split has no images left, too many images cannot be decoded, or the dataset's images
            have changed since it was published.
        RuntimeError: A shard could not be written, or its content differs when read back.
    """
    # Imported here: TensorFlow's import takes seconds, which an earlier failure should not cost.
    from brain_tumor.records.decode import leave_out_undecodable
    from brain_tumor.records.verify import read_back

    _check_splits(dataset)
    per_shard = config.images_per_shard
    with create_records(output) as draft:
        files = write_shards(dataset, per_shard, draft.path, workers)
        decodable = leave_out_undecodable(dataset, files)
        if decodable is not dataset:
            _check_splits(decodable)
            for file in files:
                file.unlink()
            dataset = decodable
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
    """Writes the TFRecord files of all splits in parallel, and returns their paths.

    Args:
        dataset: The dataset artifact.
        images_per_shard: Maximum number of images per file.
        folder: Where to write the files.
        workers: The number of worker processes. None means one per processor, or this process alone for few
            images.

    Raises:
        InputError: An image has changed or was deleted since the dataset was published; or a worker process
            was killed, for example when out of memory.
        OSError: Reading or writing failed, see `FIXABLE_ERRORS`.
        RuntimeError: A shard could not be written for another reason; the message names the shard.
    """
    if workers is None:
        workers = joblib.cpu_count() if dataset.image_count >= MIN_IMAGES_FOR_WORKERS else 1
    unfinished = set()

    def tasks() -> Iterator[Any]:
        # joblib takes only a few tasks ahead, so only a few shards are in memory.
        for shard in cut_into_shards(dataset, images_per_shard):
            unfinished.add(shard.name)
            yield joblib.delayed(write_shard)(shard, dataset.image_folder, folder)

    with Progress("Writing records", dataset.image_count, "images") as progress:
        try:
            # Closed even after an error: no worker may write to a folder that is being removed.
            with closing(joblib.Parallel(workers, return_as="generator_unordered")(tasks())) as written:
                for name, images in written:
                    unfinished.remove(name)
                    progress.update(images)
        except BrokenProcessPool as error:
            names = ", ".join(sorted(unfinished)[:MAX_NAMED_SHARDS])
            raise InputError(
                f"A process died (out of memory?) while writing one of {names}; give this step more memory, "
                "or lower records.images_per_shard."
            ) from error
    return [folder / name for split in SPLITS for name in split_shard_names(dataset, split, images_per_shard)]
