"""The bootstrap over patients, compared with known results and a slow loop."""

import numpy as np
import pandas as pd
import pytest

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.figures import label_figures, overall_figures, with_iou
from brain_tumor.evaluation.intervals import FIGURES, METRICS, difference, interval
from brain_tumor.runtime.errors import InputError

LABELS = ["label0", "label1"]
CONFIG = EvaluateConfig(bootstrap_samples=1000, seed=3)


def make_predictions(patients: int, seed: int = 0, spread: float = 6.0) -> pd.DataFrame:
    """Two models, "final" and "constant", on patients with 1 to 6 slices each."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        offset = rng.normal(0, spread, 4)  # slices of one patient are correlated
        for image in range(1 + patient % 6):
            for label in LABELS:
                present = image == 0 or rng.random() < 0.5
                true_box = rng.uniform(20, 40, 4) + np.array([0, 0, 50, 50])
                for model in ("final", "constant"):
                    error = offset + rng.normal(0, spread, 4) if model == "final" else 15.0
                    probability = (
                        np.clip(0.3 * present + 0.8 * rng.random(), 0, 1) if model == "final" else 1.0
                    )
                    rows.append(
                        {
                            "model": model,
                            "source_id": f"{patient}_{image}",
                            "filename": f"{patient}_{image}.jpg",
                            "patient_id": f"p{patient}",
                            "width": 120,
                            "height": 120,
                            "label": label,
                            "present": bool(present),
                            "probability": probability,
                            "score": 0.3 * present + rng.random() if model == "final" else 1.0,
                            **dict(zip(TRUE_BOX, true_box if present else [np.nan] * 4, strict=True)),
                            **dict(zip(PREDICTED_BOX, true_box + error, strict=True)),
                        }
                    )
    return with_iou(pd.DataFrame(rows))


def figures(rows: pd.DataFrame) -> Figures:
    """All figures of one model, over all labels."""
    return overall_figures(rows, label_figures(rows, LABELS, CONFIG.threshold), CONFIG.threshold)


Slow = tuple[pd.DataFrame, EvaluateConfig, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def slow_bootstrap() -> tuple[pd.DataFrame, EvaluateConfig, dict[str, np.ndarray]]:
    """A plain bootstrap: all figures of the drawn patients' rows. By metric, (samples, 2 models)."""
    table = make_predictions(12)
    config = EvaluateConfig(bootstrap_samples=40, seed=7)
    by_patient = [rows for _, rows in table.groupby("patient_id")]
    draws = np.random.default_rng(7).multinomial(12, [1 / 12] * 12, size=40)
    values: dict[str, list[list[float | None]]] = {metric: [] for metric in FIGURES}
    for draw in draws:
        drawn = pd.concat([rows for rows, times in zip(by_patient, draw, strict=True) for _ in range(times)])
        found = [figures(drawn[drawn["model"] == model]) for model in ("final", "constant")]
        for metric in FIGURES:
            values[metric].append([model[metric] for model in found])
    return table, config, {metric: np.array(pairs, float) for metric, pairs in values.items()}


@pytest.mark.parametrize("metric", FIGURES)
def test_agrees_with_a_slow_loop(slow_bootstrap: Slow, metric: str) -> None:
    table, config, values = slow_bootstrap
    final, constant = values[metric].T
    found = interval(table, "final", metric, config)
    assert (found.low, found.high) == pytest.approx(np.quantile(final, [0.025, 0.975]))
    assert found.low < found.value < found.high
    paired = difference(table, "final", "constant", metric, config)
    assert (paired.low, paired.high) == pytest.approx(np.quantile(final - constant, [0.025, 0.975]))
    assert paired.low < paired.value < paired.high


@pytest.mark.parametrize("metric", METRICS)
def test_the_value_is_the_figure(metric: str) -> None:
    table = make_predictions(12)
    values = {m: figures(table[table["model"] == m])[metric] for m in ("final", "constant")}
    assert interval(table, "final", metric, CONFIG).value == pytest.approx(values["final"])
    found = difference(table, "final", "constant", metric, CONFIG)
    assert found.value == pytest.approx(values["final"] - values["constant"])
    assert found.patients == 12


@pytest.mark.parametrize("metric", METRICS)
def test_identical_models_do_not_differ(metric: str) -> None:
    table = make_predictions(12)
    final = table[table["model"] == "final"]
    twins = pd.concat([final, final.assign(model="twin")])
    found = difference(twins, "final", "twin", metric, CONFIG)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    alone = interval(twins, "final", metric, CONFIG)
    assert alone.low < alone.high  # the zero comes from the pairing


def test_constant_data_has_an_interval_of_width_0() -> None:
    table = make_predictions(12)
    box = np.array([20.0, 20.0, 70.0, 70.0])
    table.loc[table["present"], TRUE_BOX] = box
    table[PREDICTED_BOX] = box + np.array([10, 0, 10, 0])
    table["probability"] = table["score"] = table["present"].astype(float)
    table = with_iou(table)
    for metric in METRICS:
        found = interval(table, "final", metric, CONFIG)
        assert found.low == pytest.approx(found.value) and found.high == pytest.approx(found.value)
        assert found.value > 0 or metric == "recall_at_75"  # IoUs are 2 / 3


def test_patients_are_drawn_and_not_images() -> None:
    # Ten patients with identical slices: intervals over the 10 x 50 images would be seven times narrower.
    table = make_predictions(10)
    rows = table[(table["model"] == "final") & (table["label"] == "label0")].drop_duplicates("patient_id")
    few = interval(rows, "final", "mean_iou", CONFIG)
    many = interval(pd.concat([rows] * 50), "final", "mean_iou", CONFIG)
    assert (many.low, many.high) == pytest.approx((few.low, few.high))
    assert few.high - few.low > 0.05


def test_fewer_than_ten_patients_get_a_reason() -> None:
    table = make_predictions(9)
    found = interval(table, "final", "macro_f1", CONFIG)
    assert found.value is not None and (found.low, found.high) == (None, None)
    assert found.reason == "only 9 patients, 10 are needed"
    assert difference(table, "final", "constant", "mean_iou", CONFIG).low is None
    assert interval(make_predictions(10), "final", "macro_f1", CONFIG).reason == ""


def test_patients_without_a_box_do_not_count_for_boxes() -> None:
    table = make_predictions(12)
    table.loc[table["patient_id"].isin(["p0", "p1", "p2"]), "present"] = False
    assert interval(table, "final", "mean_iou", CONFIG).reason == (
        "only 9 patients with a true box, 10 are needed"
    )
    assert interval(table, "final", "macro_f1", CONFIG).low is not None


def test_a_rare_label_counts_in_the_resamples_that_show_it() -> None:
    """In other resamples it is not counted as always wrong."""
    table = make_predictions(12)
    rare = (table["label"] == "label1") & (table["patient_id"] != "p0")
    table.loc[rare, "present"] = False
    table["probability"] = table["present"].astype(float)
    found = interval(table, "final", "macro_f1", CONFIG)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_if_no_resample_shows_a_label_there_is_a_reason() -> None:
    table = make_predictions(12)
    table.loc[table["patient_id"] != "p0", "present"] = False
    table["probability"] = table["present"].astype(float)
    few = EvaluateConfig(bootstrap_samples=1, seed=3)
    assert np.random.default_rng(3).multinomial(12, [1 / 12] * 12)[list_patients(table).index("p0")] == 0
    found = interval(table, "final", "macro_f1", few)
    assert (found.value, found.low, found.reason) == (1, None, "macro_f1 is undefined in all resamples")


def list_patients(table: pd.DataFrame) -> list[str]:
    return sorted(table["patient_id"].unique())


def test_a_model_without_the_head_has_no_figure() -> None:
    table = make_predictions(12)
    table.loc[table["model"] == "constant", PREDICTED_BOX] = np.nan
    found = difference(table, "final", "constant", "mean_iou", CONFIG)
    assert found.value is None and found.reason == "the model constant has no mean_iou"
    assert interval(table, "constant", "macro_f1", CONFIG).low is not None
    assert interval(table, "unknown", "macro_f1", CONFIG).value is None


def test_models_evaluated_on_different_patients_are_refused() -> None:
    table = make_predictions(12)
    table = table[(table["model"] == "final") | (table["patient_id"] != "p0")]
    with pytest.raises(InputError, match="different patients"):
        difference(table, "final", "constant", "mean_iou", CONFIG)


def test_the_seed_decides() -> None:
    table = make_predictions(12)
    other = EvaluateConfig(bootstrap_samples=1000, seed=4)
    first = interval(table, "final", "mean_iou", CONFIG)
    assert first == interval(table, "final", "mean_iou", CONFIG)
    assert first.low != interval(table, "final", "mean_iou", other).low


def test_if_patients_are_unknown_pictures_are_resampled() -> None:
    table = make_predictions(12)
    known = interval(table, "final", "mean_iou", EvaluateConfig())
    # The same pictures, those of each patient named like Roboflow's copies of one.
    copies = table["patient_id"] + "_jpg.rf." + table["filename"].str.replace("_", "")
    unknown = table.assign(filename=copies, patient_id=pd.array([None] * len(table), "str"))

    found = interval(unknown, "final", "mean_iou", EvaluateConfig())

    assert found.patients == 12
    assert found.value == known.value
    assert found.low == pytest.approx(known.low, abs=0.03)
    few = interval(unknown[unknown["filename"] < "p5"], "final", "mean_iou", EvaluateConfig())
    assert few.reason.startswith("only ") and "images with a true box, 10 are needed" in few.reason
