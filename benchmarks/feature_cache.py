"""Times the saving from caching a frozen backbone's features, see `benchmarks.train_step`."""

import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from brain_tumor.config.compose import compose

PHASE = "phase2_classification"


def measure_cache() -> Iterator[tuple[str, str]]:
    """Times epochs of phase 2 in the profile `quick`, and the same without the feature cache."""
    from brain_tumor.artifacts.model import open_model
    from brain_tumor.ingest.ingest import ingest
    from brain_tumor.model.detector import split_frozen_part, training_model
    from brain_tumor.model.saving import load_model
    from brain_tumor.records.build import build_tfrecords
    from brain_tumor.training.train import train

    with tempfile.TemporaryDirectory() as scratch:
        folder, configs = Path(scratch), compose([]).steps()
        dataset = ingest(configs.dataset, folder / "dataset").dataset
        records = build_tfrecords(configs.records, dataset, folder / "records")
        seconds, first = {}, {}
        for augment, epochs in (("false", 6), ("true", 3)):
            changes = {"start": "null", "early_stopping_patience": 9, "augment": augment, "epochs": epochs}
            overrides = [f"phases.{PHASE}.{key}={value}" for key, value in changes.items()]
            config = compose(overrides).steps().trainings[PHASE]
            train(config, records, folder / "model")
            model = open_model(folder / "model")
            # The first epoch builds the graphs and computes the features.
            first[augment], *others = (epoch["seconds"] for epoch in model.description.phases[0].epochs)
            seconds[augment] = statistics.median(others)
        trained = training_model(load_model(model), config.phase.trained_heads)
        maps = split_frozen_part(trained)[0].output_shape
        size = 4 * sum(math.prod(shape[1:]) for shape in (maps if isinstance(maps, list) else [maps]))
        count = sum(records.manifest.splits[split].images for split in ("train", "valid"))
    yield "cached features", f"{count * size / 1e6:.0f} MB, {count} images, {size / 1e3:.0f} kB each"
    for augment, where in (("false", "features cached"), ("true", "through the backbone")):
        yield f"epoch of phase 2, {where}", f"{seconds[augment]:.3f} s, the first {first[augment]:.1f} s"
    yield "through the backbone / cached", f"{seconds['true'] / seconds['false']:.1f}"
