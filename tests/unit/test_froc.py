"""FROC by hand, and whether boxes depend on the image."""

import numpy as np
import pandas as pd
import pytest

from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.evaluation.figures import with_iou
from brain_tumor.evaluation.froc import froc_curve, froc_figures
from brain_tumor.evaluation.image_dependence import dependence_figures, shuffled_iou


def make_scores(hits: list[bool], scores: list[float]) -> pd.DataFrame:
    """One row per image: its true box is found, or it has none."""
    return pd.DataFrame({"iou": np.where(hits, 0.5, np.nan), "score": scores, "present": hits})


def test_froc_by_hand() -> None:
    # Four images, three true boxes. By score: found, false, found, false (a true box with a low IoU).
    rows = make_scores([True, False, True, False], [0.9, 0.8, 0.7, 0.6])
    rows.loc[3, ["iou", "present"]] = [0.49, True]
    false_boxes, sensitivity = froc_curve(rows, labels=1)
    assert false_boxes.tolist() == [0, 0, 0.25, 0.25, 0.5]
    assert sensitivity.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    found = froc_figures(rows, labels=1)
    assert found["froc_1_8"] == pytest.approx(1 / 3)
    assert found["froc_1_4"] == found["froc_8"] == pytest.approx(2 / 3)
    assert found["froc_score"] == pytest.approx((1 / 3 + 6 * 2 / 3) / 7)


def test_boxes_with_equal_scores_are_one_point() -> None:
    false_boxes, sensitivity = froc_curve(make_scores([True, False], [0.5, 0.5]), labels=1)
    assert (false_boxes.tolist(), sensitivity.tolist()) == ([0, 0.5], [0, 1])


def test_rates_are_per_image_and_not_per_row() -> None:
    # Two labels: four rows are two images.
    false_boxes, _ = froc_curve(make_scores([True, False, False, False], [0.9, 0.8, 0.7, 0.6]), labels=2)
    assert false_boxes[-1] == 1.5


def test_without_a_true_box_or_a_predicted_one_there_is_no_froc() -> None:
    assert set(froc_figures(make_scores([False, False], [0.5, 0.4]), 1).values()) == {None}
    assert set(froc_figures(make_scores([True], [np.nan]), 1).values()) == {None}


def make_boxes(follow: float, count: int = 60) -> pd.DataFrame:
    """Boxes of one size at random positions; predicted offsets from the center are scaled by `follow`."""
    rng = np.random.default_rng(0)
    true = rng.uniform(20, 160, (count, 1, 2))
    predicted = 90 + follow * (true - 90)
    table = pd.DataFrame({"label": "a", "present": True, "width": 200, "height": 200}, index=range(count))
    for names, corner in ((TRUE_BOX, true), (PREDICTED_BOX, predicted)):
        table[names] = np.concatenate([corner, corner + 30], axis=1).reshape(count, 4)
    return with_iou(table)


@pytest.mark.parametrize(("follow", "spread"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_the_spread_of_the_centers_measures_how_far_boxes_follow(follow: float, spread: float) -> None:
    assert dependence_figures(make_boxes(follow))["center_spread"] == pytest.approx(spread)


def test_identical_boxes_are_not_worse_for_another_image() -> None:
    alike, following = make_boxes(0), make_boxes(1)
    np.testing.assert_allclose(shuffled_iou(alike), alike["iou"])
    assert dependence_figures(following)["shuffled_iou"] < 0.1 < following["iou"].mean()


def test_other_images_have_the_same_label() -> None:
    boxes = make_boxes(1, 4)
    boxes.loc[0, "label"] = "b"
    others = shuffled_iou(boxes)
    assert np.isnan(others[0]) and not np.isnan(others[1:]).any()
    alone = dependence_figures(boxes.head(1))
    assert alone == {"shuffled_iou": None, "center_spread": None}
