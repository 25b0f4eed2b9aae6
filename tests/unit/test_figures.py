"""The figures of one model, compared with numbers computed by hand and by scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.figures import LABEL_FIGURES, OVERALL_FIGURES, definition
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.evaluation.figures import label_figures, overall_figures, with_iou

LABELS = ["label0", "label1", "label2"]

Table = tuple[np.ndarray, np.ndarray]


def make_predictions(present: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """One row per image and label of (images, labels) arrays; predicted boxes are 10 px off, and ranked like
    the labels."""
    rows = []
    for image, label in np.ndindex(*present.shape):
        is_present = bool(present[image, label])
        true_box = [20.0, 20.0, 60.0, 60.0] if is_present else [np.nan] * 4
        rows.append(
            {
                "source_id": f"test/{image}.jpg",
                "filename": f"{image}.jpg",
                "patient_id": str(image // 2),
                "width": 200,
                "height": 100,
                "label": LABELS[label],
                "present": is_present,
                "probability": probability[image, label],
                "score": probability[image, label],
                **dict(zip(TRUE_BOX, true_box, strict=True)),
                **dict(zip(PREDICTED_BOX, [30.0, 20.0, 70.0, 60.0], strict=True)),
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture
def random_table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    present = rng.random((40, 3)) < [0.2, 0.8, 0.5]
    return present, np.clip(0.4 * present + rng.random((40, 3)) * 0.7, 0, 1)


def figures(predictions: pd.DataFrame, names: list[str] = LABELS) -> tuple[Figures, dict[str, Figures]]:
    """Over all labels and by label, at the threshold 0.5."""
    predictions = with_iou(predictions)
    labels = label_figures(predictions, names, 0.5)
    return overall_figures(predictions, labels, 0.5), labels


@pytest.mark.parametrize(
    ("average", "of_nothing"), [("macro", 0), ("micro", 0), ("weighted", 0), ("samples", 1)]
)
def test_averages_agree_with_scikit_learn(random_table: Table, average: str, of_nothing: int) -> None:
    present, probability = random_table
    found, _ = figures(make_predictions(present, probability))
    precision, recall, f1, _ = precision_recall_fscore_support(
        present, probability >= 0.5, average=average, zero_division=of_nothing
    )
    assert found[f"{average}_precision"] == pytest.approx(precision)
    assert found[f"{average}_recall"] == pytest.approx(recall)
    assert found[f"{average}_f1"] == pytest.approx(f1)


def test_labels_agree_with_scikit_learn(random_table: Table) -> None:
    present, probability = random_table
    found, labels = figures(make_predictions(present, probability))
    assert list(labels) == LABELS
    _, _, f1, _ = precision_recall_fscore_support(present, probability >= 0.5, average=None, zero_division=0)
    for slot, label in enumerate(LABELS):
        assert labels[label]["f1"] == pytest.approx(f1[slot])
        assert labels[label]["roc_auc"] == pytest.approx(
            roc_auc_score(present[:, slot], probability[:, slot])
        )
    assert found["macro_average_precision"] == pytest.approx(
        average_precision_score(present, probability, average="macro")
    )


def test_label_figures_by_hand() -> None:
    # label0: a hit, a miss, a false alarm. label1: always present, found in 2 of 4. label2: never present.
    present = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
    probability = np.array([[0.9, 0.9, 0.1], [0.2, 0.1, 0.1], [0.5, 0.6, 0.1], [0.1, 0.2, 0.1]])
    found, labels = figures(make_predictions(present, probability))
    assert [labels["label0"][name] for name in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]
    assert (labels["label1"]["precision"], labels["label1"]["recall"]) == (1.0, 0.5)
    # Its figures are undefined, and means leave it out.
    assert {labels["label2"][name] for name in ("precision", "recall", "f1", "roc_auc")} == {None}
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 3))
    # In the third image one of two predicted labels is correct; in the last one nothing is found.
    assert found["samples_precision"] == pytest.approx((1 + 1 + 1 / 2 + 1) / 4)
    assert found["samples_recall"] == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert found["samples_f1"] == pytest.approx((1 + 0 + 2 / 3 + 0) / 4)
    assert found["weighted_f1"] == pytest.approx((2 * 1 / 2 + 4 * 2 / 3) / 6)
    # Only label0 is present in some slices and absent in others.
    assert labels["label1"]["roc_auc"] is None and labels["label2"]["average_precision"] is None
    assert found["macro_roc_auc"] == labels["label0"]["roc_auc"] == 0.75


def test_a_single_label_is_evaluated_by_its_positives() -> None:
    present = np.array([[1], [0], [0], [0]], bool)
    probability = np.array([[0.9], [0.8], [0.1], [0.1]])
    found, labels = figures(make_predictions(present, probability), ["label0"])
    assert found["macro_f1"] == found["micro_f1"] == labels["label0"]["f1"] == pytest.approx(2 / 3)


def test_boxes_by_hand() -> None:
    table = make_predictions(np.array([[1, 1, 0], [1, 1, 0]], bool), np.zeros((2, 3)))
    table.loc[0, PREDICTED_BOX] = [20.0, 20.0, 60.0, 60.0]  # exact; the three others are 10 px off: 30 / 50
    found, labels = figures(table)
    absent = np.nan
    np.testing.assert_allclose(with_iou(table)["iou"], [1, 0.6, absent, 0.6, 0.6, absent])
    assert found["mean_iou"] == pytest.approx(0.7)
    assert found["median_iou"] == pytest.approx(0.6)
    # All true boxes count, although no label reaches the threshold.
    assert found["recall_at_50"] == 1.0
    assert found["recall_at_75"] == 0.25
    # Errors of 10 of 200 px in xmin and xmax, and 0 in ymin and ymax, in three of four boxes.
    assert found["coordinate_mae"] == pytest.approx(0.05 / 2 * 3 / 4)
    assert found["coordinate_mse"] == pytest.approx(0.05**2 / 2 * 3 / 4)
    # A label's own: label0 has the exact one.
    names = ("mean_iou", "recall_at_50", "box_ap50")
    assert [labels["label0"][name] for name in names] == pytest.approx([0.8, 1, 1])
    assert [labels["label1"][name] for name in names] == pytest.approx([0.6, 1, 1])
    assert {labels["label2"][name] for name in (*names, "box_ap")} == {None}


def test_a_false_box_affects_only_average_precision() -> None:
    present = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 0]], bool)
    # label0: found, a false box, found; label1: found in all three.
    probability = np.array([[0.9, 0.9, 0.0], [0.8, 0.2, 0.0], [0.7, 0.1, 0.0]])
    found, labels = figures(make_predictions(present, probability))
    assert labels["label0"]["recall_at_50"] == labels["label1"]["box_ap50"] == found["recall_at_50"] == 1
    assert labels["label0"]["box_ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    for name in ("box_ap50", "box_ap"):  # label2 has no box, so no figure
        assert found[name] == pytest.approx((labels["label0"][name] + labels["label1"][name]) / 2)


def test_a_missing_head_gives_none_and_the_other_head_keeps_its_figures(
    random_table: Table,
) -> None:
    table = make_predictions(*random_table)
    both, labels = figures(table)
    no_class_head, without = figures(table.assign(probability=np.nan))
    no_boxes = dict.fromkeys([*PREDICTED_BOX, "score"], np.nan)
    no_box_head, alone = figures(table.assign(**no_boxes))
    for own, found, of_labels in ((both, no_class_head, no_box_head), *zip_values(labels, without, alone)):
        assert own.keys() == found.keys() == of_labels.keys()
        # All true boxes have the same size and position.
        nowhere = {name for name, value in own.items() if value is None}
        assert {name.rsplit("_", 1)[-1] for name in nowhere} == {"small", "large", "spread"}
        shown = OF_BOXES & own.keys() - nowhere
        assert {name for name, value in found.items() if value is not None} == shown
        assert {name for name, value in of_labels.items() if value is None} == OF_BOXES & own.keys()
        for name, value in own.items():
            assert value is None or np.isfinite(value)
            assert (found if name in OF_BOXES else of_labels)[name] == value


CLASS_METRICS = {
    *("precision", "recall", "f1", "roc_auc", "average_precision", "sens_at_90_spec", "calibration_error"),
}
OF_BOXES = {name for name in LABEL_FIGURES if name not in CLASS_METRICS}


def zip_values(*tables: dict[str, Figures]) -> list[tuple[Figures, ...]]:
    """The figures of each label in all tables."""
    return list(zip(*(table.values() for table in tables), strict=True))


def test_without_a_true_box_there_is_no_figure_of_boxes() -> None:
    found, _ = figures(make_predictions(np.zeros((3, 3), bool), np.full((3, 3), 0.9)))
    assert set(found.values()) == {None}


def test_a_perfect_classifier_is_perfect_even_if_the_split_lacks_labels() -> None:
    present = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0]], bool)
    found, _ = figures(make_predictions(present, present.astype(float)))
    assert {found[f"{average}_f1"] for average in ("macro", "micro", "weighted")} == {1.0}
    # False alarms of an absent label still count in the micro average.
    alarms, _ = figures(make_predictions(present, np.where([False, False, True], 0.9, present)))
    assert alarms["macro_f1"] == 1.0 and alarms["micro_precision"] == pytest.approx(4 / 7)


def test_box_figures_are_given_per_label() -> None:
    """A mean over labels hides a label whose boxes are all wrong."""
    table = make_predictions(np.ones((4, 2), bool), np.ones((4, 2)))
    table.loc[table["label"] == "label1", PREDICTED_BOX] = [100.0, 60.0, 140.0, 100.0]
    found, labels = figures(table, LABELS[:2])
    assert found["mean_iou"] == pytest.approx(0.3) and found["recall_at_50"] == 0.5
    assert labels["label1"]["mean_iou"] == labels["label1"]["recall_at_50"] == 0
    assert labels["label0"].keys() >= OF_BOXES


def test_every_figure_has_its_definition_and_every_definition_its_figure(
    random_table: Table,
) -> None:
    found, labels = figures(make_predictions(*random_table))
    assert set(found) == set(OVERALL_FIGURES)
    assert all(set(own) == set(LABEL_FIGURES) for own in labels.values())
    assert all(len(name) <= 25 and definition(name) for name in {*OVERALL_FIGURES, *LABEL_FIGURES})


def test_micro_ranking_agrees_with_scikit_learn(random_table: Table) -> None:
    present, probability = random_table
    found, _ = figures(make_predictions(present, probability))
    assert found["micro_roc_auc"] == pytest.approx(roc_auc_score(present, probability, average="micro"))


def test_sensitivity_at_a_specificity_by_hand() -> None:
    # Ten images without the label: one false alarm is allowed. The second is at 0.7.
    present = np.array([[1]] * 4 + [[0]] * 10, bool)
    probability = np.array([[0.95], [0.85], [0.75], [0.6], [0.9], [0.7], *[[0.1]] * 8])
    _, labels = figures(make_predictions(present, probability), ["label0"])
    assert labels["label0"]["sens_at_90_spec"] == 0.75


def test_calibration_error_by_hand() -> None:
    # Half of those with 0.9 are positive, none of those with 0.1: 0.4 for four of six, 0.1 for two.
    present = np.array([[1], [1], [0], [0], [0], [0]], bool)
    probability = np.array([[0.9], [0.9], [0.9], [0.9], [0.1], [0.1]])
    found, labels = figures(make_predictions(present, probability), ["label0"])
    assert labels["label0"]["calibration_error"] == pytest.approx(0.4 * 4 / 6 + 0.1 * 2 / 6)
    assert found["macro_calibration_error"] == labels["label0"]["calibration_error"]


def test_errors_in_pixels_and_figures_by_size_by_hand() -> None:
    table = make_predictions(np.ones((2, 1), bool), np.ones((2, 1)))
    table.loc[1, TRUE_BOX] = [30.0, 20.0, 50.0, 40.0]  # 20 x 20: small; the predicted one is 40 x 40
    found, labels = figures(table, ["label0"])
    assert found["coordinate_mae_px"] == pytest.approx((10 + 10 + 20 + 20) / 8)
    assert found["coordinate_mse_px"] == pytest.approx((100 + 100 + 400 + 400) / 8)
    assert (found["true_boxes_small"], found["true_boxes_medium"], found["true_boxes_large"]) == (1, 1, 0)
    assert found["mean_iou_small"] == pytest.approx(0.25) and found["recall_at_50_small"] == 0
    assert found["mean_iou_medium"] == pytest.approx(0.6) and found["recall_at_50_medium"] == 1
    assert found["mean_iou_large"] is None and found["box_ap50_large"] is None
    assert labels["label0"]["box_ap50_medium"] == pytest.approx(1)
    assert labels["label0"]["box_ap50_small"] == 0


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_label_that_is_never_or_always_predicted_has_defined_figures(probability: Any) -> None:
    present = np.array([[1], [0], [0]], bool)
    found, labels = figures(make_predictions(present, np.full((3, 1), probability)), ["label0"])
    for value in (*found.values(), *labels["label0"].values()):
        assert value is None or np.isfinite(value)
    assert found["macro_f1"] == (0.5 if probability else 0)
    assert found["macro_roc_auc"] == 0.5


@pytest.mark.parametrize("name", ["macro", "weighted_f1", ".."])
def test_a_label_of_any_name_has_its_figures(name: Any) -> None:
    table = make_predictions(np.ones((3, 1), bool), np.ones((3, 1))).assign(label=name)
    found, labels = figures(table, [name])
    assert found["macro_f1"] == labels[name]["f1"] == 1
