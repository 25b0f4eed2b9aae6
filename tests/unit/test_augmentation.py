from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.config import AugmentationConfig
from brain_tumor.training.augmentation import augment

pytestmark = pytest.mark.slow

SIZE = 32
UNCHANGED = AugmentationConfig.model_validate(
    dict.fromkeys(AugmentationConfig.model_fields, 0.0) | {"flip": False, "flip_vertical": False}
)


def only(**changes: Any) -> AugmentationConfig:
    """An augmentation with only these changes."""
    return UNCHANGED.model_copy(update=changes)


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 0], tf.int64)


def make_batch(images: np.ndarray, boxes: np.ndarray | None = None) -> dict[str, tf.Tensor]:
    """A batch of these images (batch, size, size, channels), with boxes (batch, 4) in class slot 1."""
    slots = np.zeros((len(images), 3, 4), np.float32)
    if boxes is not None:
        slots[:, 1] = boxes
    return {
        "image": tf.constant(images, tf.uint8),
        "labels": tf.constant(slots.any(axis=-1), tf.float32),
        "boxes": tf.constant(slots),
    }


def batch_of_rectangles(count: int, size: int = 96) -> dict[str, tf.Tensor]:
    """Bright rectangles at different places on black, with boxes in slot 1; the other slots are absent."""
    rng = np.random.default_rng(0)
    images, boxes = np.zeros((count, size, size, 1), np.uint8), np.zeros((count, 4), np.float32)
    for image, box in zip(images, boxes, strict=True):
        left, top = rng.integers(0, size - 12, 2)
        width, height = rng.integers(12, [size - left + 1, size - top + 1])
        image[top : top + height, left : left + width] = 200
        box[:] = np.array([left, top, left + width, top + height]) / size
    return make_batch(images, boxes)


def find_rectangle(image: np.ndarray) -> np.ndarray:
    """The box around pixels brighter than half of a rectangle's grey level."""
    bright = image[..., 0] > 100
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / len(image)


@pytest.mark.parametrize(
    "config",
    [
        only(flip=True),
        only(flip_vertical=True),
        only(shift=0.1),
        only(scale=0.2),
        only(flip=True, flip_vertical=True, shift=0.1, scale=0.2),
    ],
    ids=["flip", "flip_vertical", "shift", "scale", "all"],
)
def test_boxes_move_exactly_with_the_pixels(config: AugmentationConfig) -> None:
    batch = batch_of_rectangles(64)
    result = augment(batch, config, seed(0))
    for image, boxes in zip(result["image"].numpy(), result["boxes"].numpy(), strict=True):
        np.testing.assert_allclose(boxes[1], find_rectangle(image), atol=0.51 / len(image))
        assert not boxes[[0, 2]].any(), "an absent class's row stays zero"
    np.testing.assert_array_equal(result["labels"], batch["labels"])


def moved(config: AugmentationConfig, count: int = 200) -> np.ndarray:
    """The augmented box of the middle half of an image, for `count` images: (count, 4)."""
    images = np.zeros((count, 8, 8, 1), np.uint8)
    batch = make_batch(images, np.tile([0.25, 0.25, 0.75, 0.75], (count, 1)))
    return augment(batch, config, seed(1))["boxes"].numpy()[:, 1]


def test_shifts_and_scales_have_the_configured_range() -> None:
    boxes = moved(only(shift=0.1))
    sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(sides, 0.5, atol=1e-6)
    assert 0.095 < np.abs(middles - 0.5).max() <= 0.1 + 1e-6
    assert abs(np.corrcoef(middles.T)[0, 1]) < 0.2, "horizontal and vertical shifts are independent"

    boxes = moved(only(scale=0.2))
    sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(middles, 0.5, atol=1e-6)
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-6)
    assert 0.4 <= sides.min() + 1e-6 < 0.41 and 0.59 < sides.max() - 1e-6 <= 0.6


def test_half_of_the_images_are_flipped_exactly() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 16, 16, 3), np.uint8)
    result = augment(make_batch(images), only(flip=True), seed(0))["image"].numpy()
    mirrored = [not np.array_equal(image, before) for image, before in zip(result, images, strict=True)]
    for image, before, flipped in zip(result, images, mirrored, strict=True):
        np.testing.assert_array_equal(image, before[:, ::-1] if flipped else before)
    assert 20 < sum(mirrored) < 44


def test_uncovered_areas_are_black() -> None:
    result = augment(make_batch(np.full((32, 20, 20, 1), 200, np.uint8)), only(shift=0.2), seed(0))
    images = result["image"].numpy()
    assert ((images[:, [0, -1]] == 0).all(axis=(2, 3)).any(axis=1)).mean() > 0.5
    assert (images[:, 10, 10] == 200).all()


@pytest.mark.parametrize("changes", [{}, {"flip": True, "flip_vertical": True}, {"rotation": 15.0}])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("scale", [0.0, 0.1, 0.5])
def test_a_present_label_always_has_a_visible_box(
    changes: dict[str, Any], shift: float, scale: float
) -> None:
    count = 2000
    rng = np.random.default_rng(0)
    # Corners anywhere, many of them at the edge; and boxes of one of 240 pixels.
    corners = np.clip(rng.uniform(-0.3, 1.3, (count, 2, 2)), 0, 1)
    corners[::4, 1] = np.clip(corners[::4, 0], 1 / 240, 1) - 1 / 240
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    boxes[areas < 1e-5] = 0  # ingest rejects empty boxes
    batch = make_batch(np.zeros((count, 4, 4, 1), np.uint8), boxes)
    present = batch["labels"].numpy() > 0
    assert count > present.sum() > 0.7 * count

    after = augment(batch, only(**changes, shift=shift, scale=scale), seed(0))["boxes"].numpy()

    assert (after >= 0).all() and (after <= 1).all()
    sides = after[..., 2:] - after[..., :2]
    np.testing.assert_array_equal((sides > 0).all(axis=-1), present)
    np.testing.assert_array_equal(after.any(axis=-1), present)
    kept = np.prod(sides[present], axis=-1) / areas[present[:, 1]]
    assert kept.min() > 0.499 * (1 - scale) ** 2
    if not changes.get("rotation"):  # the box around a rotated thin one is much larger
        assert kept.max() < 1.001 * (1 + scale) ** 2


def test_an_image_is_not_shifted_if_a_box_would_leave_it() -> None:
    """A thin box at the edge, and a large one that no shift could lose."""
    images = np.zeros((64, 8, 8, 1), np.uint8)
    batch = make_batch(images, np.tile([0.0, 0.0, 0.02, 0.5], (64, 1)))
    large = np.tile(np.array([0.2, 0.2, 0.8, 0.8], np.float32), (64, 1))
    batch["boxes"] = tf.tensor_scatter_nd_update(
        batch["boxes"], [[image, 2] for image in range(64)], tf.constant(large)
    )
    boxes = augment(batch, only(shift=0.1), seed(0))["boxes"].numpy()
    stays = np.isclose(boxes[:, 2], large, atol=1e-6).all(axis=1)
    np.testing.assert_allclose(boxes[stays, 1], batch["boxes"].numpy()[stays, 1], atol=1e-6)
    assert 16 < stays.sum() < 56, "about half of the shifts are to the left"
    visible = boxes[:, 1, 2] - boxes[:, 1, 0]
    assert (visible >= 0.01 - 1e-6).all()


def test_brightness_and_contrast_are_independent_per_image() -> None:
    image = np.full((SIZE, SIZE, 1), 60, np.uint8)
    image[8:16, 4:20] = 180
    config = only(brightness=0.1, contrast=0.2)
    result = augment(make_batch(np.stack([image] * 200)), config, seed(3))["image"].numpy()

    dark, bright = result[:, 0, 0, 0], result[:, 10, 10, 0]
    assert all(len(np.unique(changed)) == 2 for changed in result)
    contrast = (bright - dark) / 120 - 1
    brightness = (result.mean(axis=(1, 2, 3)) - image.mean()) / 255
    for values, limit in ((contrast, 0.2), (brightness, 0.1)):
        assert len(np.unique(values)) > 40, "distinct grey levels"
        assert 0.95 * limit < np.abs(values).max() <= limit + 0.01 and abs(values.mean()) < 0.2 * limit
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.2


def test_values_are_clipped_to_the_range() -> None:
    images = np.tile(np.array([0, 255], np.uint8), (16, 8, 4))[..., np.newaxis]
    result = augment(make_batch(images), only(brightness=1.0), seed(0))["image"].numpy()
    assert result.min() == 0 and result.max() == 255


def test_half_of_the_images_are_flipped_vertically() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 16, 16, 3), np.uint8)
    result = augment(make_batch(images), only(flip_vertical=True), seed(0))["image"].numpy()
    turned = [not np.array_equal(image, before) for image, before in zip(result, images, strict=True)]
    for image, before, flipped in zip(result, images, turned, strict=True):
        np.testing.assert_array_equal(image, before[::-1] if flipped else before)
    assert 20 < sum(turned) < 44


def test_a_rotated_box_is_the_smallest_around_its_corners() -> None:
    batch = batch_of_rectangles(64)
    result = augment(batch, only(rotation=20.0), seed(0))
    angles = []
    for image, boxes, before in zip(
        result["image"].numpy(), result["boxes"].numpy()[:, 1], batch["boxes"].numpy()[:, 1], strict=True
    ):
        found = find_rectangle(image)
        # A corner pixel loses at most half of its grey level.
        np.testing.assert_allclose(boxes, found, atol=2.1 / len(image))
        width, height = before[2:] - before[:2]
        if boxes.min() > 0.01 and boxes.max() < 0.99:
            # The sides of the box around a rotated rectangle.
            grown = boxes[2] - boxes[0]
            tried = np.radians(np.linspace(0, 20, 2001))
            sides = width * np.cos(tried) + height * np.sin(tried)
            angles.append(np.degrees(tried[np.abs(sides - grown).argmin()]))
    assert len(angles) > 10 and max(angles) > 12


def test_gamma_keeps_black_and_white_and_changes_values_between() -> None:
    images = np.tile(np.array([0, 64, 128, 255], np.uint8), (100, 8, 2))[..., np.newaxis]
    result = augment(make_batch(images), only(gamma=0.3), seed(0))["image"].numpy()[:, 0, :4, 0]
    assert (result[:, 0] == 0).all() and (result[:, 3] == 255).all()
    exponents = np.log(result[:, 2] / 255) / np.log(128 / 255)
    assert 0.95 * 0.3 < np.abs(np.log(exponents)).max() <= 0.3 + 0.02
    assert abs(np.log(exponents).mean()) < 0.06
    np.testing.assert_allclose(result[:, 1], 255 * (64 / 255) ** exponents, atol=2)


def test_without_changes_a_batch_is_unchanged() -> None:
    batch = batch_of_rectangles(4)
    result = augment(batch, UNCHANGED, seed(0))
    np.testing.assert_array_equal(result["boxes"], batch["boxes"])
    np.testing.assert_array_equal(result["image"], batch["image"])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (UNCHANGED, set()),
        (only(flip=True), {"ImageProjectiveTransformV3"}),
        (only(rotation=1.0), {"ImageProjectiveTransformV3"}),
        (only(brightness=0.1), {"Pow"}),
        (only(gamma=0.1), {"Pow"}),
    ],
)
def test_disabled_changes_cost_nothing(config: AugmentationConfig, expected: set[str]) -> None:
    spec = {
        "image": tf.TensorSpec((2, 8, 8, 3), tf.uint8),
        "boxes": tf.TensorSpec((2, 3, 4), tf.float32),
    }
    traced = tf.function(lambda batch, number: augment(batch, config, number))
    graph = traced.get_concrete_function(spec, tf.TensorSpec((2,), tf.int64)).graph.as_graph_def()
    functions = [graph.node, *(function.node_def for function in graph.library.function)]
    operations = {node.op for nodes in functions for node in nodes}
    assert operations & {"ImageProjectiveTransformV3", "Pow"} == expected
