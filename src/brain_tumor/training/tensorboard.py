"""TensorBoard logs of a training: metrics per epoch, and boxes on validation images."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw
from typing_extensions import override

from brain_tumor.artifacts.model import Epoch
from brain_tumor.boxes.measures import area, present
from brain_tumor.training.callbacks import current_learning_rate

IMAGES = 4
# Small images are enlarged to about this side, in pixels; otherwise lines would be as thick as boxes.
DRAWN_SIZE = 240
TRUE, PREDICTED = (0, 200, 0), (255, 120, 0)


@dataclass(frozen=True)
class _Examples:
    """The validation images to draw boxes on.

    Attributes:
        images: uint8 (images, size, size, 1 or 3).
        boxes: The true boxes, (images, num_classes, 4), normalized to 0..1.
        inputs: The trained model's inputs for these images.
    """

    images: np.ndarray
    boxes: np.ndarray
    inputs: Any


class TensorBoardLog(keras.callbacks.Callback):
    """Writes TensorBoard's files during training.

    They are not essential: if writing fails, for example on a full disk, it logs a warning and the training
    continues.

    Args:
        folder: The parent of the folders `<name>/train` and `<name>/valid`, which TensorBoard shows as two
            curves in one plot.
        name: The training's name.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        super().__init__()
        self._examples: _Examples | None = None
        self._folder = folder
        self._failed = False
        self._writers = {
            split: tf.summary.create_file_writer(str(Path(folder) / name / split))
            for split in ("train", "valid")
        }

    def choose_images(self, examples: tf.data.Dataset, read: Callable[[Any], Any]) -> None:
        """Chooses the images to draw boxes on: the one with the largest boxes in each quarter of a split.

        Args:
            examples: From `load_split`.
            read: Maps images to the trained model's inputs.
        """
        chosen: dict[int, tuple[float, dict[str, Any]]] = {}
        count = int(examples.cardinality())
        for index, example in enumerate(examples.as_numpy_iterator()):
            part, box_area = index * IMAGES // count, area(example["boxes"]).sum()
            if box_area > chosen.get(part, (0.0,))[0]:
                chosen[part] = box_area, example
        if chosen:
            images, boxes = (np.stack([e[key] for _, e in chosen.values()]) for key in ("image", "boxes"))
            self._examples = _Examples(images, boxes, read(images))

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rate = current_learning_rate(self.model.optimizer)
        self.write_epochs([{**(logs or {}), "epoch": epoch + 1, "learning_rate": rate}])
        if self._examples:
            predicted = self.model(self._examples.inputs, training=False)["boxes"]
            pictures = draw_boxes(self._examples.images, self._examples.boxes, np.asarray(predicted)[..., :4])
            title = "boxes: true green, predicted orange"
            with self._warn_on_failure(), self._writers["valid"].as_default(epoch + 1):
                tf.summary.image(title, pictures, max_outputs=len(pictures))

    @override
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._flush()

    def write_epochs(self, epochs: list[Epoch]) -> None:
        """Writes the metrics of epochs; names of validation metrics start with `val_`."""
        for metrics in epochs:
            for name, value in metrics.items():
                if name not in ("epoch", "seconds"):
                    split = "valid" if name.startswith("val_") else "train"
                    with self._warn_on_failure(), self._writers[split].as_default(int(metrics["epoch"])):
                        tf.summary.scalar(name.removeprefix("val_"), value)
        self._flush()

    def _flush(self) -> None:
        for writer in self._writers.values():
            with self._warn_on_failure():
                writer.flush()

    @contextmanager
    def _warn_on_failure(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            if not self._failed:
                logging.warning(
                    "TensorBoard's files in %s cannot be written any more (%s); the training continues.",
                    self._folder,
                    (error.message or type(error).__name__).splitlines()[0].rsplit("; ", 1)[-1],
                )
            self._failed = True


def draw_boxes(images: np.ndarray, boxes: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Draws the true boxes and the predicted ones of the same classes.

    Args:
        images: uint8 (images, size, size, 1 or 3).
        boxes: True boxes (images, num_classes, 4), normalized to 0..1; absent classes, zeros, are not drawn.
        predicted: Predicted boxes of the same shape.

    Returns:
        uint8 (images, side, side, 3), small images enlarged.
    """
    size = images.shape[1] * max(1, round(DRAWN_SIZE / images.shape[1]))
    pictures = []
    for image, truth, prediction in zip(images, boxes, predicted, strict=True):
        pixels = np.broadcast_to(image, (*image.shape[:2], 3))
        picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(picture)
        for color, rows in ((TRUE, truth), (PREDICTED, prediction)):
            for box in rows[present(truth)]:
                draw.rectangle(tuple(np.clip(box * size, 0, size - 1)), outline=color, width=2)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)
