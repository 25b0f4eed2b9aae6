"""The COCO figures, against hand-computed values and each other."""

import numpy as np
import pandas as pd
import pytest

from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.boxes.measures import iou
from brain_tumor.evaluation.coco import COCO_FIGURES, coco_figures, resampled_ap50

Box = list[float]


def make_rows(rows: list[tuple[Box | None, Box, float]]) -> pd.DataFrame:
    """One image per row: the true box if there is one, the predicted box, and its score."""
    nothing = [np.nan] * 4
    table = pd.DataFrame({"present": [truth is not None for truth, _, _ in rows]})
    table[TRUE_BOX] = np.array([truth or nothing for truth, _, _ in rows], float)
    table[PREDICTED_BOX] = np.array([box for _, box, _ in rows], float)
    table["score"] = [score for _, _, score in rows]
    return table.assign(iou=iou(table[TRUE_BOX].to_numpy(), table[PREDICTED_BOX].to_numpy()))


def random_rows(count: int, seed: int = 0, ties: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows: list[tuple[Box | None, Box, float]] = []
    for _ in range(count):
        low = rng.uniform(0, 60, 2)
        box = np.concatenate([low, low + rng.uniform(20, 50, 2)])
        spread = rng.choice([1, 4, 12])
        present = rng.random() < 0.6
        score = rng.random() - 0.02 * spread + 0.3 * present
        guess = np.sort((box + rng.normal(0, spread, 4)).reshape(2, 2), axis=0).ravel().tolist()
        rows.append((box.tolist() if present else None, guess, round(score, 1) if ties else score))
    return make_rows(rows)


BOX = [10.0, 10.0, 50.0, 50.0]
WIDE = [10.0, 10.0, 50.0, 60.0]  # an IoU of 0.8 with it: 40 x 40 of 40 x 50
ASIDE = [60.0, 60.0, 90.0, 90.0]


def test_all_found_is_1_and_none_is_0() -> None:
    found = coco_figures(make_rows([(BOX, BOX, 0.9), (BOX, BOX, 0.2), (None, BOX, 0.1)]))
    # All true boxes are 40 x 40: only the medium size has a figure.
    others = {"box_ap50_small": None, "box_ap50_large": None}
    assert found == {"box_ap50": 1, "box_ap": 1, "box_ap50_medium": 1} | others
    found = coco_figures(make_rows([(BOX, ASIDE, 0.9), (None, BOX, 0.1)]))
    assert found == {"box_ap50": 0, "box_ap": 0, "box_ap50_medium": 0} | others


def test_figures_by_hand() -> None:
    """By descending score: found, a false box, found; so precision is 1 for half of the recall."""
    rows = [(BOX, BOX, 0.9), (None, ASIDE, 0.8), (BOX, WIDE, 0.7)]
    # Recalls 0..0.5 are 51 of the 101 with a precision of 1, the others have 2/3.
    at_low = (51 * 1 + 50 * 2 / 3) / 101
    # At an IoU of 0.85 and above the second is not found: 3 of 10 thresholds.
    at_high = 51 / 101
    found = coco_figures(make_rows(rows))
    assert found["box_ap50"] == pytest.approx(at_low)
    assert found["box_ap"] == pytest.approx((7 * at_low + 3 * at_high) / 10)


def test_only_the_order_of_scores_matters() -> None:
    """Neither their values nor the order of the rows does."""
    rows = [(BOX, BOX, 0.9), (BOX, BOX, 0.5), (None, BOX, 0.1)]
    best = coco_figures(make_rows(rows))
    worst = coco_figures(make_rows([(truth, box, 1 - score) for truth, box, score in rows]))
    assert best["box_ap50"] == pytest.approx(1)
    assert worst["box_ap50"] == pytest.approx(2 / 3)
    assert coco_figures(make_rows([(truth, box, score**3 / 7) for truth, box, score in rows[::-1]])) == best


def test_a_false_box_costs_more_with_a_higher_score() -> None:
    sure, unsure = ([(BOX, BOX, 0.5)] * 3 + [(None, ASIDE, score)] * 3 for score in (0.9, 0.1))
    assert coco_figures(make_rows(sure))["box_ap50"] == pytest.approx(0.5)
    assert coco_figures(make_rows(unsure))["box_ap50"] == pytest.approx(1)


def test_without_a_true_box_or_a_score_there_is_no_figure() -> None:
    nothing = dict.fromkeys(COCO_FIGURES)
    assert coco_figures(make_rows([(None, BOX, 0.9), (None, BOX, 0.1)])) == nothing
    rows = make_rows([(BOX, BOX, 0.9)])
    assert coco_figures(rows.assign(score=np.nan, **dict.fromkeys(PREDICTED_BOX, np.nan))) == nothing


def test_it_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    coco_figures(make_rows([(BOX, BOX, 0.9)]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_resample_with_each_row_once_equals_the_figure(seed: int, ties: bool) -> None:
    rows = random_rows(150, seed, ties)
    found = coco_figures(rows)["box_ap50"]
    assert found is not None and 0.2 < found < 0.95
    assert resampled_ap50(rows, np.ones((1, 150))) == pytest.approx([found], abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_a_row_with_a_higher_count_equals_repeated_rows(ties: bool) -> None:
    rows = random_rows(60, 5, ties)
    counts = np.random.default_rng(0).integers(0, 4, (8, 60))
    found = resampled_ap50(rows, counts.astype(float))
    repeated = [
        coco_figures(rows.loc[rows.index.repeat(own)].reset_index(drop=True))["box_ap50"] for own in counts
    ]
    np.testing.assert_allclose(found, np.array(repeated, float), atol=1e-9)
    assert np.ptp(found) > 0.02


def test_a_resample_without_a_true_box_has_no_figure() -> None:
    rows = make_rows([(BOX, BOX, 0.9), (None, BOX, 0.5)])
    found = resampled_ap50(rows, np.array([[0.0, 2.0], [1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])
    assert found[1] == pytest.approx(1)
