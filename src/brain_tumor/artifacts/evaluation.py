"""The evaluation artifact: what a judgement of predictions found. Tables, pages and trackers read it.

evaluation.json     `Evaluation`
"""

from pathlib import Path
from typing import Literal

from brain_tumor.artifacts.folder import Manifest, publish, read_json, read_manifest
from brain_tumor.artifacts.model import Epoch
from brain_tumor.config import Schema, Split
from brain_tumor.config.dataset import metric_name
from brain_tumor.config.fields import FINAL
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import write_json

FILE = "evaluation.json"
CATEGORIES = ["absent", "present"]
# Stands for a label's name where a figure is over all of them.
ALL = "all labels"

Figures = dict[str, float | None]
"""Figures by name; None for one that a model cannot have."""


class Interval(Schema):
    """A value and its 95 % interval, or the reason why there is none."""

    value: float | None
    """The figure on all patients; None if there is no such figure."""
    low: float | None = None
    high: float | None = None
    patients: int = 0
    """How many patients the value comes from; where some are unknown, how many pictures."""
    reason: str = ""
    """Why there is no interval; empty if there is one."""


class RocCurve(Schema):
    """Points of a ROC curve from (0, 0) to (1, 1), at most 100."""

    fpr: list[float]
    """False positive rates."""
    tpr: list[float]
    """True positive rates."""
    thresholds: list[float]
    """The probability behind each point, falling. The first one is infinite by definition and stands here as
    1.0, since dashboards and JSON take finite numbers alone."""


class LabelCurves(Schema):
    """How well a model tells one label's presence."""

    roc: RocCurve | None
    """None if the label is present in all slices or in none."""
    confusion_matrix: list[list[int]]
    """Slices counted by truth (rows) and prediction (columns), both in the order of `CATEGORIES`."""


class ModelEvaluation(Schema):
    """What was found of one model."""

    title: str
    """What a person calls it."""
    mlflow_run_id: str
    """The run that made it, or an empty text."""
    figures: Figures
    """Over all labels, and over the true boxes; see `overall_figures` in `brain_tumor.evaluation.figures`."""
    labels: dict[str, Figures]
    """Figures of each label, in slot order; see `label_figures` there."""
    intervals: dict[str, Interval]
    """Of some of the figures."""
    curves: dict[str, LabelCurves]
    """Of each label; none if the model has no class head."""


class Evaluation(Schema):
    """What a judgement of predictions found."""

    notice: str
    """What every report must say about the data, or an empty text."""
    split: Split
    threshold: float
    """Probability from which a label counts as predicted."""
    patients: int | None
    """None where an image's patient is unknown: intervals are then over images."""
    images: int
    boxes: int
    """True boxes."""
    absent_labels: list[str]
    """Labels that no image shows: they have no figures, and are left out of all means over labels."""
    models: dict[str, ModelEvaluation]
    """In the order of the reports, see `PredictionsManifest.models`."""
    differences: dict[str, dict[str, dict[str, Interval]]]
    """The final model's figures minus another's, on the same resamples: by the other model's name, then by
    label, with `ALL` for the figures over all labels, then by figure."""
    trainings: dict[str, list[Epoch]]
    """The epochs of each training behind the models, by its name."""

    @property
    def label_names(self) -> list[str]:
        """The labels in slot order."""
        return list(next(iter(self.models.values())).labels)

    def final_curves(self, label: str) -> LabelCurves:
        """The final model's curves of a label.

        Raises:
            InputError: There are none.
        """
        known = self.models[FINAL].curves if FINAL in self.models else {}
        if label not in known:
            raise InputError(
                f"The evaluation has no curves of {label} by the final model; "
                f"it has those of {', '.join(known) or 'no label'}."
            )
        return known[label]

    def metrics(self) -> dict[str, float]:
        """All figures that exist by `<model>_<figure>`, a label's own as `<model>_<label>_<figure>`, sorted.

        Dashboards, MLflow and comparisons know the figures by these names.
        """
        flat: Figures = {}
        for name, model in self.models.items():
            flat |= {f"{name}_{figure}": value for figure, value in model.figures.items()}
            for label, figures in model.labels.items():
                flat |= {f"{name}_{metric_name(label)}_{figure}": value for figure, value in figures.items()}
        return {name: value for name, value in sorted(flat.items()) if value is not None}


class EvaluationManifest(Manifest):
    """What the evaluation artifact says of its folder."""

    kind: Literal["evaluation"] = "evaluation"


def read_evaluation(path: str | Path) -> Evaluation:
    """Reads what `evaluate` found.

    Raises:
        InputError: There is no whole evaluation artifact at `path`, or another version wrote it.
    """
    read_manifest(path, EvaluationManifest)
    return read_json(Evaluation, Path(path) / FILE)


def write_evaluation(path: str | Path, evaluation: Evaluation) -> None:
    """Publishes an evaluation artifact, see `publish`."""
    with publish(path, EvaluationManifest) as draft:
        write_json(draft.path / FILE, evaluation.model_dump(mode="json"))
        draft.manifest = EvaluationManifest()
