"""Thresholds: the probability from which a label counts as predicted."""

from typing import Literal

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from brain_tumor.config import EvaluateConfig, from_json, to_json
from brain_tumor.evaluation.thresholds import decisions, find_thresholds, with_decisions
from brain_tumor.runtime.errors import InputError

TUNED = EvaluateConfig(threshold="tuned")


def make_rows(
    present: list[bool], probability: list[float], label: str = "a", copies: int = 12
) -> pd.DataFrame:
    """Rows with these images for each patient."""
    return pd.DataFrame(
        {
            "model": "final",
            "split": "valid",
            "label": label,
            "patient_id": [str(number) for number in range(copies) for _ in present],
            "present": present * copies,
            "probability": probability * copies,
        }
    )


def test_by_hand() -> None:
    # At a threshold of 0.4 both and nothing else are found; the next lower probability is 0.3.
    rows = make_rows([True, True, False, False], [0.9, 0.4, 0.3, 0.1])
    assert find_thresholds(rows, ["a"], TUNED) == {"a": pytest.approx(0.35)}
    given = EvaluateConfig(threshold=0.3)
    assert find_thresholds(rows, ["a", "b"], given) == {"a": 0.3, "b": 0.3}


@pytest.mark.parametrize("seed", range(3))
def test_with_many_patients_it_is_close_to_the_highest_f1(seed: int) -> None:
    """It is far from 0.5, at which few are found."""
    rng = np.random.default_rng(seed)
    present = rng.random(1500) < 0.2
    rows = make_rows(present.tolist(), (0.1 * present + 0.3 * rng.random(1500)).tolist(), copies=1)
    rows["patient_id"] = [str(number // 5) for number in range(1500)]
    found = find_thresholds(rows, ["a"], TUNED)["a"]
    scores = [f1_score(present, rows["probability"] >= limit) for limit in np.linspace(0, 0.4, 201)]
    assert f1_score(present, rows["probability"] >= found) > max(scores) - 0.01


def test_noise_seldom_moves_a_threshold() -> None:
    """With so few images, a threshold other than the correct 0.5 is the best by chance half of the time."""
    moved, better = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        present = rng.random(60) < 0.3
        probability = np.where(present == (rng.random(60) < 0.8), 0.5, 0.0) + 0.5 * rng.random(60)
        rows = make_rows(present.tolist(), probability.tolist(), copies=1)
        rows["patient_id"] = [str(number // 2) for number in range(60)]
        moved.append(find_thresholds(rows, ["a"], TUNED)["a"] != 0.5)
        scores = [f1_score(present, probability >= limit) for limit in np.linspace(0, 1, 101)]
        better.append(max(scores) > scores[50])
    assert sum(better) >= 10 and sum(moved) <= 3


def test_if_valid_is_not_sufficient_the_threshold_is_a_half() -> None:
    assert find_thresholds(make_rows([False, False], [0.9, 0.1]), ["a"], TUNED) == {"a": 0.5}
    one = make_rows([True, True, False], [0.4, 0.3, 0.1], copies=1)
    assert find_thresholds(one, ["a"], TUNED) == {"a": 0.5}, "no patient can be left out"
    single = pd.concat([one, make_rows([False], [0.2]).assign(patient_id="another")])
    assert find_thresholds(single, ["a"], TUNED) == {"a": 0.5}, (
        "the only patient with the label cannot be left out"
    )
    # The constant baseline always predicts the label.
    assert find_thresholds(make_rows([True, False], [1.0, 1.0]), ["a"], TUNED) == {"a": 0.5}
    everywhere = find_thresholds(make_rows([True, True], [0.4, 0.2]), ["a"], TUNED)
    assert everywhere == {"a": pytest.approx(0.1)}
    assert find_thresholds(make_rows([True, False], [np.nan, np.nan]), ["a"], TUNED) == {}
    with pytest.raises(InputError, match=r"no rows of the split valid.*evaluate\.threshold"):
        find_thresholds(make_rows([True], [0.5]).assign(split="test"), ["a"], TUNED)


def test_the_test_split_is_not_used() -> None:
    valid = make_rows([True, False], [0.3, 0.1])
    test = make_rows([False, True], [0.7, 0.1]).assign(split="test")
    assert find_thresholds(pd.concat([valid, test]), ["a"], TUNED) == {"a": pytest.approx(0.2)}


def test_if_patients_are_unknown_pictures_are_resampled() -> None:
    rows = make_rows([True, True, False, False], [0.9, 0.4, 0.3, 0.1]).assign(patient_id=None)
    rows["filename"] = [f"{number}.jpg" for number in range(len(rows))]
    assert find_thresholds(rows, ["a"], TUNED) == {"a": pytest.approx(0.35)}


def test_each_model_and_label_has_its_own_threshold() -> None:
    rows = pd.concat([make_rows([True, True], [0.3, 0.6], label, copies=1) for label in ("a", "b")])
    rows = pd.concat([rows, rows.assign(model="boxes", probability=np.nan)])
    decided = with_decisions(rows, {"final": {"a": 0.5, "b": 0.1}, "boxes": {}})
    assert decided["predicted"].tolist() == [False, True, True, True, False, False, False, False]
    assert decisions(decided, 0.9).tolist() == decided["predicted"].tolist()
    assert decisions(rows.head(2), 0.5).tolist() == [False, True]
    with pytest.raises(ValueError, match="find_thresholds"):
        decisions(rows, "tuned")


@pytest.mark.parametrize("threshold", [0.25, 0.0, 1.0, "tuned"])
def test_the_configuration_keeps_it(threshold: float | Literal["tuned"]) -> None:
    config = EvaluateConfig(threshold=threshold)
    assert from_json(EvaluateConfig, to_json(config), "evaluate") == config


@pytest.mark.parametrize("value", ["true", "null", '"often"', "1.5", "-0.1", "[0.5]"])
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="give a number from 0 to 1, or tuned"):
        from_json(EvaluateConfig, f'{{"threshold": {value}}}', "evaluate")
