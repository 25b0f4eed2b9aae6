"""Reads a run's images from its artifacts, as far as they still exist."""

import io

from google.protobuf.message import DecodeError

from brain_tumor.comparison.runs import ComparedRun
from brain_tumor.config import SPLITS
from brain_tumor.stores.tfrecord_file import Example, RecordError, read_records


def read_images(run: ComparedRun, source_ids: set[str]) -> dict[str, io.BytesIO]:
    """Reads images by source_id, from the dataset artifact or else from the records.

    Images that are missing from both, or are in a damaged file, are skipped.
    """
    found = {}
    if run.dataset:
        for source_id in source_ids:
            path = run.dataset.image_folder / source_id
            if path.is_file():
                found[source_id] = io.BytesIO(path.read_bytes())
    if run.records and len(found) < len(source_ids):
        found |= _read_from_records(run, source_ids - found.keys())
    return found


def _read_from_records(run: ComparedRun, source_ids: set[str]) -> dict[str, io.BytesIO]:
    assert run.records, "checked by the caller"
    found = {}
    for split in SPLITS:
        for shard in run.records.shard_paths(split):
            try:
                with open(shard, "rb") as file:
                    for record in read_records(file):
                        features = Example.FromString(record).features.feature
                        [name] = features["image/source_id"].bytes_list.value
                        if name.decode() in source_ids:
                            [content] = features["image/encoded"].bytes_list.value
                            found[name.decode()] = io.BytesIO(content)
            except (RecordError, DecodeError, FileNotFoundError, ValueError):
                # The page has fewer pictures; the run's own steps report damaged input.
                continue
    return found
