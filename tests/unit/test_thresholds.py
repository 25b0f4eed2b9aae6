"""From which probability a label counts as predicted."""

from typing import Literal

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from brain_tumor.config import EvaluateConfig, from_json, to_json
from brain_tumor.evaluation.thresholds import decisions, find_thresholds, with_decisions
from brain_tumor.runtime.errors import InputError


def make_rows(present: list[bool], probability: list[float], label: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {"model": "final", "split": "valid", "label": label, "present": present, "probability": probability}
    )


def test_by_hand() -> None:
    # From 0.6 on both are found and nothing else is; the next lower probability is 0.5.
    rows = make_rows([True, True, False, False], [0.9, 0.6, 0.5, 0.1])
    assert find_thresholds(rows, ["a"], "tuned") == {"a": pytest.approx(0.55)}
    assert find_thresholds(rows, ["a", "b"], 0.3) == {"a": 0.3, "b": 0.3}


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random(60) < 0.3
    rows = make_rows(present.tolist(), np.round(0.3 * present + 0.7 * rng.random(60), 2).tolist())
    found = find_thresholds(rows, ["a"], "tuned")["a"]
    scores = [f1_score(present, rows["probability"] >= limit) for limit in np.linspace(0, 1, 201)]
    assert f1_score(present, rows["probability"] >= found) == pytest.approx(max(scores))


def test_what_valid_cannot_tell() -> None:
    assert find_thresholds(make_rows([False, False], [0.9, 0.1]), ["a"], "tuned") == {"a": 0.5}
    # The constant answer still predicts what it predicts.
    constant = find_thresholds(make_rows([True, False], [1.0, 1.0]), ["a"], "tuned")
    assert 0 < constant["a"] < 1
    everywhere = find_thresholds(make_rows([True, True], [0.4, 0.2]), ["a"], "tuned")
    assert 0 < everywhere["a"] < 0.2
    assert find_thresholds(make_rows([True, False], [np.nan, np.nan]), ["a"], "tuned") == {}
    with pytest.raises(InputError, match=r"no rows of the split valid.*evaluate\.threshold"):
        find_thresholds(make_rows([True], [0.5]).assign(split="test"), ["a"], "tuned")


def test_the_test_split_is_not_looked_at() -> None:
    valid = make_rows([True, False], [0.8, 0.2])
    test = make_rows([False, True], [0.7, 0.1]).assign(split="test")
    assert find_thresholds(pd.concat([valid, test]), ["a"], "tuned") == {"a": pytest.approx(0.5)}


def test_each_model_and_label_has_its_own() -> None:
    rows = pd.concat([make_rows([True, True], [0.3, 0.6]), make_rows([True, True], [0.3, 0.6], "b")])
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
