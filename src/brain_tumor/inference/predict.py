"""Predicts images: labels, probabilities, boxes in pixels of the original image, and box scores."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brain_tumor.boxes.letterbox import boxes_in_pixels
from brain_tumor.inference.images import BadImage, LoadedImage, load_image
from brain_tumor.inference.models import Predictor
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.progress import Progress

BATCH = 64  # images


@dataclass(frozen=True)
class LabelPrediction:
    """A prediction for one label in an image.

    Attributes:
        label: The label's name.
        probability: The probability that it is present; None if the model has no class head.
        threshold: The probability from which it counts as present; None if the model has no class head.
        present: Whether it counts as present; None if the model has no class head.
        box: `[xmin, ymin, xmax, ymax]` in pixels of the original image, xmax and ymax exclusive; None if the
            model has no box head. It is given for labels that are not present, too.
        score: The box's score, 0..1 (see `predict_images`); None if the model has no box head.
    """

    label: str
    probability: float | None
    threshold: float | None
    present: bool | None
    box: list[float] | None
    score: float | None


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: The image file.
        width: Width in pixels.
        height: Height in pixels.
        labels: The predictions for each label, in slot order.
    """

    path: Path
    width: int
    height: int
    labels: list[LabelPrediction]


def predict_images(predictor: Predictor, named: list[Path | BadImage]) -> Iterator[Prediction | BadImage]:
    """Predicts images in batches.

    The score of a box without one is the label's probability, or 1 without a class head.

    Args:
        predictor: The model.
        named: The images, see `find_images`. Bad images are skipped.

    Yields:
        In the images' order, the prediction for each, or why it could not be read.

    Raises:
        InputError: The predictions are not finite.
    """
    # Decoding releases the GIL.
    with Progress("Predicting", len(named), "images") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(named), BATCH):
            batch = named[start : start + BATCH]
            loaded = list(
                pool.map(
                    lambda each: each if isinstance(each, BadImage) else load_image(each, predictor.size),
                    batch,
                )
            )
            good = [each for each in loaded if isinstance(each, LoadedImage)]
            predictions = iter(_predict_batch(predictor, good) if good else [])
            for each in loaded:
                yield each if isinstance(each, BadImage) else next(predictions)
            progress.update(len(batch))


def _predict_batch(predictor: Predictor, images: list[LoadedImage]) -> list[Prediction]:
    outputs = predictor.forward(np.stack([image.pixels for image in images]))
    for head, values in outputs.items():
        if not np.isfinite(values).all():
            raise InputError(f"The {head} that {predictor.name} predicts are not finite; use another model.")
    count = len(predictor.labels)
    height, width = (
        np.repeat([getattr(image, side) for image in images], count) for side in ("height", "width")
    )
    probability, boxes = outputs.get("labels"), outputs.get("boxes")
    score = outputs.get("scores", probability)
    pixels = None
    if boxes is not None:
        pixels = boxes_in_pixels(boxes.reshape(-1, 4), height, width, predictor.size).reshape(boxes.shape)
    return [
        Prediction(
            image.path,
            image.width,
            image.height,
            [
                LabelPrediction(
                    label,
                    None if probability is None else float(probability[index, slot]),
                    None if probability is None else predictor.thresholds[label],
                    None
                    if probability is None
                    else bool(probability[index, slot] >= predictor.thresholds[label]),
                    None if pixels is None else pixels[index, slot].tolist(),
                    None if pixels is None else 1.0 if score is None else float(score[index, slot]),
                )
                for slot, label in enumerate(predictor.labels)
            ],
        )
        for index, image in enumerate(images)
    ]
