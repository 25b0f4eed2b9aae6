"""Plots of an evaluation and of trainings."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve

from brain_tumor.artifacts.evaluation import ALL, Evaluation, ModelEvaluation
from brain_tumor.artifacts.figures import FROC_RATES
from brain_tumor.artifacts.model import Epoch
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.evaluation.curves import calibration_bins
from brain_tumor.evaluation.froc import froc_curve
from brain_tumor.reports.drawing import GREY, WIDTH, figure_text, panels

FINAL_COLOR, OTHER_COLOR = "#0b62a4", "#d95f02"
# The curves of a training, left and right; each has the same color in all trainings.
CURVES = (
    {"loss": GREY, "val_loss": "#222222"},
    {"val_boxes_iou": "#1b8a5a", "val_labels_auc": "#a03d9c"},
)


# Labels beyond these have figures in the tables, but no plots.
DRAWN_LABELS = 9


def drawn_labels(evaluation: Evaluation) -> list[str]:
    """The labels that have plots."""
    return evaluation.label_names[:DRAWN_LABELS]


def roc_figure(evaluation: Evaluation) -> Figure:
    """Draws ROC curves, one panel per label: of the final model and the first other one with a class head.

    The points at the evaluation's thresholds are marked.
    """

    def draw(axis: Axes, model: str, label: str, color: str) -> None:
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        _draw_roc_curve(axis, evaluation.models[model], label, color)

    x, y = "false positive rate", "true positive rate"
    return _label_panels(evaluation, draw, "lower right", xlabel=x, ylabel=y)


def _label_panels(
    evaluation: Evaluation,
    draw: Callable[[Axes, str, str, str], None],
    legend: Literal["lower right", "best"],
    room: float = 0.02,
    **shown: str,
) -> Figure:
    """Draws square panels from 0 to 1, one per label, with the curves of `_label_models`.

    Args:
        evaluation: The evaluation.
        draw: Draws a model's curve, given the panel, the model's name, the label and the color.
        legend: The legend's location in a panel, if it has one.
        room: The margin beyond 0 and 1.
        shown: Further properties of each panel.
    """
    figure, axes = panels(len(drawn_labels(evaluation)), columns=3, height=3.5)
    colors = _label_models(evaluation)
    for axis, label in zip(axes, drawn_labels(evaluation), strict=True):
        for name, color in colors.items():
            draw(axis, name, label, color)
        if any(axis.get_legend_handles_labels()[1]):
            axis.legend(loc=legend, frameon=False)
        axis.set(title=figure_text(label), aspect="equal", **shown)
        axis.set(xlim=(-room, 1 + room), ylim=(-room, 1 + room))
    _add_model_legend(figure, colors, evaluation)
    return figure


def _label_models(evaluation: Evaluation) -> dict[str, str]:
    """The colors of the final model and of the first other one with a class head."""
    learned = [name for name, model in evaluation.models.items() if model.curves and name != CONSTANT]
    colors = {name: FINAL_COLOR for name in learned if name == FINAL}
    return colors | dict.fromkeys([name for name in learned if name != FINAL][:1], OTHER_COLOR)


def precision_recall_figure(predictions: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """Draws precision-recall curves of the models in `roc_figure`, one panel per label.

    Args:
        predictions: The predictions table.
        evaluation: Its evaluation.
    """

    def draw(axis: Axes, model: str, label: str, color: str) -> None:
        rows = _rows(predictions, model, label)
        if not rows["present"].any():
            _say_no_curve(axis, "present in no slice")
            return
        precision, recall, _ = precision_recall_curve(rows["present"], rows["probability"])
        shown = evaluation.models[model].labels[label]["average_precision"]
        known = "" if shown is None else f"AP {shown:.3f}"
        axis.step(recall, precision, where="post", color=color, linewidth=2, label=known)
        axis.axhline(rows["present"].mean(), color=GREY, linewidth=1, linestyle=":")

    return _label_panels(evaluation, draw, "best", xlabel="recall", ylabel="precision")


def calibration_figure(predictions: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """Draws calibration curves, one panel per label; larger dots stand for more slices.

    Args:
        predictions: The predictions table.
        evaluation: Its evaluation.
    """

    def draw(axis: Axes, model: str, label: str, color: str) -> None:
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        weight, mean, share = calibration_bins(_rows(predictions, model, label))
        error = evaluation.models[model].labels[label]["calibration_error"]
        known = "" if error is None else f"error {error:.3f}"
        axis.plot(mean, share, color=color, linewidth=1, label=known)
        axis.scatter(mean, share, s=12 + 200 * weight, color=color, alpha=0.7, linewidths=0)

    x, y = "probability", "share present"
    return _label_panels(evaluation, draw, "best", room=0.04, xlabel=x, ylabel=y)


def _say_no_curve(axis: Axes, why: str) -> None:
    """Writes into a panel, once, that it has no curve."""
    if not axis.texts:
        axis.text(0.5, 0.6, f"{why}:\nno curve", ha="center", color=GREY)


def froc_figure(predictions: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """Draws FROC curves of the final model and the constant baseline, one panel per label and one for all.

    Args:
        predictions: The predictions table.
        evaluation: Its evaluation.
    """
    labels = [*drawn_labels(evaluation), ALL]
    figure, axes = panels(len(labels), columns=3, height=3.3)
    colors = _box_models(evaluation)
    for axis, label in zip(axes, labels, strict=True):
        for name, color in colors.items():
            rows = _rows(predictions, name, label)
            if not rows["present"].any():
                axis.text(0.5, 0.5, "no true box", ha="center", color=GREY, transform=axis.transAxes)
                break
            model = evaluation.models[name]
            score = (model.figures if label == ALL else model.labels[label])["froc_score"]
            count = len(evaluation.label_names) if label == ALL else 1
            false_boxes, sensitivity = froc_curve(rows, count)
            # The curve continues horizontally to the right.
            x, y = np.append(false_boxes, max(FROC_RATES.values())), np.append(sensitivity, sensitivity[-1])
            axis.step(x, y, where="post", color=color, linewidth=2, label=f"score {score:.3f}")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper left", frameon=False)
        axis.set(title=figure_text(label), xlabel="false boxes per image", ylabel="sensitivity")
        axis.set_xscale("log", base=2)
        axis.set(xlim=(min(FROC_RATES.values()), max(FROC_RATES.values())), ylim=(-0.02, 1.02))
        axis.set_xticks(list(FROC_RATES.values()), ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    _add_model_legend(figure, colors, evaluation)
    return figure


def _box_models(evaluation: Evaluation) -> dict[str, str]:
    """The colors of the final model and of the constant baseline, if they have boxes."""
    colors = {FINAL: FINAL_COLOR, CONSTANT: OTHER_COLOR}
    known = [name for name, model in evaluation.models.items() if model.figures["mean_iou"] is not None]
    return {name: color for name, color in colors.items() if name in known}


def _rows(predictions: pd.DataFrame, model: str, label: str) -> pd.DataFrame:
    rows = predictions[predictions["model"] == model]
    return rows if label == ALL else rows[rows["label"] == label]


def _draw_roc_curve(axis: Axes, model: ModelEvaluation, label: str, color: str) -> None:
    curves = model.curves[label]
    if curves.roc is None:
        _say_no_curve(axis, "present in all slices or in none")
        return
    name = f"AUC {model.labels[label]['roc_auc']:.3f}"
    axis.plot(curves.roc.fpr, curves.roc.tpr, color=color, linewidth=2, label=name)
    (true_absent, false_present), (false_absent, true_present) = curves.confusion_matrix
    at_threshold = (
        false_present / (true_absent + false_present),
        true_present / (false_absent + true_present),
    )
    axis.plot(*at_threshold, "o", color=color, markersize=6)


def iou_figure(predictions: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """Draws histograms of the true boxes' IoU, one panel per label; the constant baseline is an outline.

    Args:
        predictions: The predictions table.
        evaluation: Its evaluation.
    """
    figure, axes = panels(len(drawn_labels(evaluation)), columns=3, height=2.9)
    styles: dict[str, dict[str, Any]] = {
        FINAL: {"color": FINAL_COLOR, "alpha": 0.75},
        CONSTANT: {"color": OTHER_COLOR, "histtype": "step", "linewidth": 1.8},
    }
    boxes = predictions[predictions["present"]]
    models = list(_box_models(evaluation))
    for axis, label in zip(axes, drawn_labels(evaluation), strict=True):
        means = []
        for model in models:
            iou = boxes.loc[(boxes["model"] == model) & (boxes["label"] == label), "iou"]
            if not iou.empty:
                axis.hist(iou, bins=np.linspace(0, 1, 21).tolist(), **styles[model])
                means.append((f"mean {iou.mean():.3f}", styles[model]["color"]))
        if not means:
            axis.text(0.5, 0.5, "no true box", ha="center", color=GREY, transform=axis.transAxes)
        axis.set(title=figure_text(label), xlabel="IoU", ylabel="true boxes", xlim=(0, 1))
        # Room above the bars for the means, since bars can be at any IoU.
        axis.set_ylim(0, axis.get_ylim()[1] * 1.2)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for index, (text, color) in enumerate(means):
            axis.text(0.02 + 0.5 * index, 0.98, text, color=color, va="top", transform=axis.transAxes)
    _add_model_legend(figure, {model: styles[model]["color"] for model in models}, evaluation)
    return figure


def training_figure(trainings: dict[str, list[Epoch]]) -> Figure:
    """Draws training curves, one row per training: loss on the left, validation metrics on the right.

    Args:
        trainings: The epochs of each training, by its name.
    """
    figure, axes = panels(2 * len(trainings), columns=2, height=2.6, width=2 / 3 * WIDTH)
    for row, (name, epochs) in enumerate(trainings.items()):
        table = pd.DataFrame(epochs).set_index("epoch")
        for axis, colors in zip(axes[2 * row : 2 * row + 2], CURVES, strict=True):
            for key, color in colors.items():
                if key in table:
                    single = len(table) == 1
                    size = 7 if single else 3
                    axis.plot(table.index, table[key], "o-", color=color, markersize=size, label=key)
                    if single:
                        _write_value(axis, table.index[0], table[key].iloc[0], color)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            # Half an epoch of room at both ends, so that a single epoch also has an axis.
            axis.set(title=name, xlabel="epoch", xlim=(table.index.min() - 0.5, table.index.max() + 0.5))
            axis.legend(frameon=False, fontsize=8)
        axes[2 * row + 1].set_ylim(0, 1.02)
    return figure


def _write_value(axis: Axes, x: float, y: float, color: str) -> None:
    """Writes the value next to a single point."""
    axis.annotate(f"{y:.3f}", (x, y), (7, 0), textcoords="offset points", color=color, va="center")


def _add_model_legend(figure: Figure, colors: dict[str, str], evaluation: Evaluation) -> None:
    """Names the models above the panels, by their titles."""
    handles = [Line2D([], [], color=color, linewidth=2) for color in colors.values()]
    titles = [evaluation.models[name].title for name in colors]
    figure.legend(handles, titles, loc="outside upper left", ncols=2, frameon=False)
