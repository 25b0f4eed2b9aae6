import keras
import numpy as np
import pytest

from brain_tumor.model.heads import BoxFromPlaceAndSize, label_head, pooled_box_head
from tests.unit.models import check_boxes

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_boxes_are_valid_for_any_output_of_the_dense_layers(scale: int) -> None:
    numbers = np.random.default_rng(scale).normal(0, scale, (200, 3 * 4)).astype(np.float32)
    boxes = np.array(BoxFromPlaceAndSize(3)(numbers))
    assert boxes.shape == (200, 3, 4)
    check_boxes(boxes)


def test_every_valid_box_has_its_four_numbers() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0.01, 0.99, (50, 2, 2)), axis=1).reshape(50, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    shares = np.hstack([boxes[:, :2] / (1 - size), size])
    numbers = np.log(shares / (1 - shares)).astype(np.float32)  # the sigmoid's inverse
    np.testing.assert_allclose(BoxFromPlaceAndSize(1)(numbers)[:, 0], boxes, atol=1e-5)


def test_a_pooled_head_ignores_positions_of_features() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.random((1, size, size, 8), dtype=np.float32) for size in (8, 4, 2)]
    inputs = [keras.Input(values.shape[1:]) for values in maps]
    keras.utils.set_random_seed(0)
    head = keras.Model(inputs, pooled_box_head(inputs, 3, 16))
    before, after, other = (
        np.array(head([change(values) for values in maps]))
        for change in (lambda x: x, lambda x: x[:, :, ::-1], lambda x: x**2)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert not np.allclose(before, other, atol=1e-3), "but it depends on their values"


def small_label_head(sizes: tuple[int, ...], dropout: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((size,)) for size in sizes]
    return keras.Model(inputs, label_head(inputs, 3, dropout))


def test_labels_depend_on_all_vectors() -> None:
    head = small_label_head((5, 4, 3))
    vectors = [np.random.default_rng(size).normal(size=(6, size)).astype(np.float32) for size in (5, 4, 3)]
    answers = np.array(head(vectors))
    assert answers.shape == (6, 3) and ((answers > 0) & (answers < 1)).all()
    for index in range(3):
        changed = [values + (index == other) for other, values in enumerate(vectors)]
        assert (np.abs(np.array(head(changed)) - answers) > 1e-6).all()
    logits = keras.Model(head.input, head.get_layer("labels_logits").output)(vectors)
    np.testing.assert_allclose(answers, 1 / (1 + np.exp(-np.array(logits))), atol=1e-6)


def test_the_scale_of_a_vector_does_not_affect_its_gradient() -> None:
    """Otherwise only weights of a large vector would be trained."""
    head = small_label_head((5, 4))
    vectors = [np.random.default_rng(size).normal(0, 10, (64, size)).astype(np.float32) for size in (5, 4)]
    expected = np.array(head(vectors, training=True))
    scaled = np.array(head([1000 * vectors[0] + 7, vectors[1]], training=True))
    np.testing.assert_allclose(scaled, expected, atol=1e-3)


def test_dropout_has_the_configured_rate() -> None:
    vector = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    for dropout in (0.0, 0.5):
        head = small_label_head((50,), dropout)
        once, again = (np.array(head([vector], training=True)) for _ in range(2))
        assert np.array_equal(once, again) == (dropout == 0)
