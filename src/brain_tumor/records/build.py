"""The build_tfrecords step: a dataset's images and boxes as TFRecords, and what training must know of them.

A record carries the TF Object Detection API's keys, so that its tools read it too, plus `image/patient_id`
and `image/slice`. As in that API, `image/object/class/label` counts from 1 (0 is the background): it is the
class slot + 1.
See https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md
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

# Fewer images are written sooner than other processes start.
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
        InputError: A split has no image left, too many images cannot be decoded, or the dataset's images have
            changed since it was published.
        RuntimeError: A shard could not be written, or what was read back is not what should be in it.
    """
    # Its TensorFlow takes seconds to import, which a step that fails before need not wait for.
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
                f"all that came are quarantined, and its {dataset.findings_path.name} says why"
                if counts.quarantined
                else "give the export some, or let dataset.split=patient make the splits anew"
            )
            raise InputError(f"{dataset.path} has no usable image in {split}: {why}.")


def write_shards(
    dataset: Dataset, images_per_shard: int, folder: Path, workers: int | None = None
) -> list[Path]:
    """Writes the TFRecord files of all splits, several at a time, and says which they are.

    Args:
        dataset: The dataset artifact.
        images_per_shard: How many images a file holds at most.
        folder: Where to write the files.
        workers: How many processes write. None stands for as many as there are processors for this process,
            and for this process alone where there are too few images for others to pay.

    Raises:
        InputError: An image has changed since the dataset was published, or is gone; or a process was killed,
            as by a machine that has no memory left.
        OSError: The machine refuses to read or write, see `REFUSALS`.
        RuntimeError: A shard could not be written for another reason; the error names it.
    """
    if workers is None:
        workers = joblib.cpu_count() if dataset.image_count >= IMAGES_WORTH_WORKERS else 1
    unfinished = set()

    def tasks() -> Iterator[Any]:
        # joblib takes a few tasks ahead of the workers, so that only a few shards are in memory.
        for shard in cut_into_shards(dataset, images_per_shard):
            unfinished.add(shard.name)
            yield joblib.delayed(write_shard)(shard, dataset.image_folder, folder)

    with Progress("Writing records", dataset.image_count, "images") as progress:
        try:
            # Closed at once, whatever happens: no process must write to a folder that is being removed.
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
