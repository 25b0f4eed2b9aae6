"""The evaluation artifact: all figures, for reports, tables and MLflow.

evaluation.json     `Evaluation`
"""

from pathlib import Path
from typing import Any, Literal

from brain_tumor.artifacts.figures import DASHBOARD, VERSUS
from brain_tumor.artifacts.folder import Manifest, publish, read_json, read_manifest
from brain_tumor.artifacts.model import Epoch
from brain_tumor.artifacts.predictions import EvaluationData
from brain_tumor.config import Schema, Split, Threshold
from brain_tumor.config.dataset import ALL as ALL
from brain_tumor.config.dataset import metric_name
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import write_json

FILE = "evaluation.json"
CATEGORIES = ["absent", "present"]

Figures = dict[str, float | None]
"""Figures by name; None for a figure that the model cannot have."""


class Interval(Schema):
    """A value and its 95 % confidence interval, or why there is none."""

    value: float | None
    """The figure over all patients; None if the model has no such figure."""
    low: float | None = None
    high: float | None = None
    patients: int = 0
    """The number of resampled patients, or of images if the patient of any is unknown."""
    reason: str = ""
    """Why there is no interval; empty if there is one."""


class RocCurve(Schema):
    """Points of a ROC curve from (0, 0) to (1, 1), at most 100."""

    fpr: list[float]
    """False positive rates."""
    tpr: list[float]
    """True positive rates."""
    thresholds: list[float]
    """The probability threshold of each point, descending. The first one is infinite by definition and 1.0
    here, since dashboards and JSON need finite numbers."""


class LabelCurves(Schema):
    """A model's classification of one label."""

    roc: RocCurve | None
    """None if the label is present in all slices or in none."""
    confusion_matrix: list[list[int]]
    """Counts of slices by truth (rows) and prediction (columns), both in the order of `CATEGORIES`."""


class ModelEvaluation(Schema):
    """The evaluation of one model."""

    title: str
    """The model's title in reports."""
    mlflow_run_id: str
    """The MLflow run that trained it, or an empty string."""
    artifact: str = ""
    """The model artifact, see `artifact_id`; empty if there is none."""
    thresholds: dict[str, float]
    """Per label, the probability from which it counts as predicted; empty if the model has no class head."""
    figures: Figures
    """`OVERALL_FIGURES`, see `overall_figures` in `brain_tumor.evaluation.figures`."""
    labels: dict[str, Figures]
    """`LABEL_FIGURES` of each label, in slot order; see `label_figures` there."""
    intervals: dict[str, Interval]
    """Intervals of some of the figures."""
    label_intervals: dict[str, dict[str, Interval]]
    """Intervals of some of each label's figures."""
    iou_from_image: Interval
    """The boxes' mean IoU minus that of boxes predicted for other images. About 0 if the boxes do not depend
    on the image."""
    curves: dict[str, LabelCurves]
    """Per label; empty if the model has no class head."""
    micro: LabelCurves | None
    """Micro-averaged over all labels; None if the model has no class head."""

    @property
    def short_title(self) -> str:
        """The title without the part in brackets."""
        return self.title.partition(" (")[0]


class Evaluation(Schema):
    """The evaluation of all models."""

    notice: str
    """A notice about the data that every report must show, or an empty string."""
    split: Split
    threshold: Threshold
    """The origin of the thresholds, see `ModelEvaluation.thresholds`."""
    patients: int | None
    """None if the patient of any image is unknown: then images are resampled for intervals."""
    images: int
    boxes: int
    """The number of true boxes."""
    absent_labels: list[str]
    """Labels that are in no image: they have no figures, and are not part of means over labels."""
    models: dict[str, ModelEvaluation]
    """In the order of the reports, see `PredictionsManifest.models`."""
    differences: dict[str, dict[str, dict[str, Interval]]]
    """The final model's figures minus another model's, by paired bootstrap: by the other model's name, then
    label (`ALL` for the figures over all labels), then figure."""
    trainings: dict[str, list[Epoch]]
    """The epochs of each training behind the models, by its name."""
    configs: dict[str, dict[str, Any]]
    """The configs of the evaluate step (`evaluate`) and of each training, defaults included."""
    data: EvaluationData | None
    """None if it is unknown."""

    @property
    def label_names(self) -> list[str]:
        """The labels in slot order."""
        return list(next(iter(self.models.values())).labels)

    def final_curves(self, label: str) -> LabelCurves:
        """The final model's curves of a label, or of all labels micro-averaged (`ALL`).

        Raises:
            InputError: There are none.
        """
        known: dict[str, LabelCurves] = {}
        if final := self.models.get(FINAL):
            known = ({ALL: final.micro} if final.micro else {}) | final.curves
        if label not in known:
            raise InputError(
                f"The evaluation has no curves of {label} by the final model; "
                f"it has those of {', '.join(known) or 'no label'}."
            )
        return known[label]

    def metrics(self) -> dict[str, float]:
        """All figures that exist, sorted by name.

        A figure of the final model has its plain name, one of another model the prefix `<model>/`, and one
        of a label `<model>/<label>/`. MLflow logs the figures under these names.

        Example:
            macro_f1, constant/macro_f1, final/label0/f1.
        """
        flat: Figures = {}
        for name, model in self.models.items():
            prefix = "" if name == FINAL else f"{name}/"
            flat |= {f"{prefix}{figure}": value for figure, value in model.figures.items()}
            for label, figures in model.labels.items():
                flat |= {f"{name}/{metric_name(label)}/{figure}": value for figure, value in figures.items()}
        return {name: value for name, value in sorted(flat.items()) if value is not None}

    def summary(self) -> dict[str, float]:
        """The final model's figures for a dashboard; the names are the same in every run."""
        found = {name: self.models[FINAL].figures[name] for name in DASHBOARD}
        others = self.differences.get(CONSTANT, {}).get(ALL, {})
        found |= {name: others[figure].value for name, figure in VERSUS.items() if figure in others}
        return {name: value for name, value in sorted(found.items()) if value is not None}


class EvaluationManifest(Manifest):
    """The manifest of the evaluation artifact."""

    kind: Literal["evaluation"] = "evaluation"


def read_evaluation(path: str | Path) -> Evaluation:
    """Reads an evaluation artifact.

    Raises:
        InputError: There is no complete evaluation artifact at `path`, or another version wrote it.
    """
    read_manifest(path, EvaluationManifest)
    return read_json(Evaluation, Path(path) / FILE)


def write_evaluation(path: str | Path, evaluation: Evaluation) -> None:
    """Publishes an evaluation artifact, see `publish`."""
    with publish(path, EvaluationManifest) as draft:
        write_json(draft.path / FILE, evaluation.model_dump(mode="json"))
        draft.manifest = EvaluationManifest()
