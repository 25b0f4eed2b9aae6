"""Plots of what was found of the models, and of their trainings."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brain_tumor.artifacts.evaluation import Evaluation, ModelEvaluation
from brain_tumor.artifacts.model import Epoch
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.reports.drawing import GREY, figure_text, panels

FINAL_COLOR, OTHER_COLOR = "#0b62a4", "#d95f02"
# What is drawn of a training, left and right: a curve has one color in all trainings.
CURVES = (
    {"loss": GREY, "val_loss": "#222222"},
    {"val_boxes_iou": "#1b8a5a", "val_labels_auc": "#a03d9c"},
)


def roc_figure(evaluation: Evaluation) -> Figure:
    """ROC curves, a panel a label: the final model, and the first one beside it that learned to tell labels.

    The points that the evaluation's threshold gives are marked.
    """
    figure, axes = panels(len(evaluation.label_names), columns=3, height=3.5)
    learned = [name for name, model in evaluation.models.items() if model.curves and name != CONSTANT]
    colors = {name: FINAL_COLOR for name in learned if name == FINAL}
    colors |= dict.fromkeys([name for name in learned if name != FINAL][:1], OTHER_COLOR)
    for axis, label in zip(axes, evaluation.label_names, strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for name, color in colors.items():
            _draw_roc_curve(axis, evaluation.models[name], label, color)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="lower right", frameon=False)
        elif colors:
            axis.text(0.5, 0.6, "present in all slices or in none:\nno curve", ha="center", color=GREY)
        axis.set(
            title=figure_text(label),
            xlabel="false positive rate",
            ylabel="true positive rate",
            aspect="equal",
        )
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _add_model_legend(figure, colors, evaluation)
    return figure


def _draw_roc_curve(axis: Axes, model: ModelEvaluation, label: str, color: str) -> None:
    curves = model.curves[label]
    if curves.roc is None:
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
    """Histograms of the true boxes' IoU, a panel a label: the final model, the constant one as an outline.

    Args:
        predictions: The predictions table.
        evaluation: What was found of it.
    """
    figure, axes = panels(len(evaluation.label_names), columns=3, height=2.9)
    styles: dict[str, dict[str, Any]] = {
        FINAL: {"color": FINAL_COLOR, "alpha": 0.75},
        CONSTANT: {"color": OTHER_COLOR, "histtype": "step", "linewidth": 1.8},
    }
    boxes = predictions[predictions["present"]]
    with_boxes = [name for name, model in evaluation.models.items() if model.figures["mean_iou"] is not None]
    models = [name for name in styles if name in with_boxes]
    for axis, label in zip(axes, evaluation.label_names, strict=True):
        means = []
        for model in models:
            iou = boxes.loc[(boxes["model"] == model) & (boxes["label"] == label), "iou"]
            if not iou.empty:
                axis.hist(iou, bins=np.linspace(0, 1, 21).tolist(), **styles[model])
                means.append((f"mean {iou.mean():.3f}", styles[model]["color"]))
        if not means:
            axis.text(0.5, 0.5, "no true box", ha="center", color=GREY, transform=axis.transAxes)
        axis.set(title=figure_text(label), xlabel="IoU", ylabel="true boxes", xlim=(0, 1))
        # Room above the bars for the means: bars can stand at any IoU.
        axis.set_ylim(0, axis.get_ylim()[1] * 1.2)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for index, (text, color) in enumerate(means):
            axis.text(0.02 + 0.5 * index, 0.98, text, color=color, va="top", transform=axis.transAxes)
    _add_model_legend(figure, {model: styles[model]["color"] for model in models}, evaluation)
    return figure


def training_figure(trainings: dict[str, list[Epoch]]) -> Figure:
    """Training curves, a row a training: its loss at the left, its validation metrics at the right.

    Args:
        trainings: The epochs of each, by its name.
    """
    figure, axes = panels(2 * len(trainings), columns=2, height=2.3)
    for row, (name, epochs) in enumerate(trainings.items()):
        table = pd.DataFrame(epochs).set_index("epoch")
        for axis, colors in zip(axes[2 * row : 2 * row + 2], CURVES, strict=True):
            for key, color in colors.items():
                if key in table:
                    axis.plot(table.index, table[key], "o-", color=color, markersize=3, label=key)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            # Half an epoch of room at both ends: a training of a single epoch has an axis too.
            axis.set(title=name, xlabel="epoch", xlim=(table.index.min() - 0.5, table.index.max() + 0.5))
            axis.legend(frameon=False)
        axes[2 * row + 1].set_ylim(0, 1.02)
    return figure


def _add_model_legend(figure: Figure, colors: dict[str, str], evaluation: Evaluation) -> None:
    """Names the models above the panels, by their titles."""
    handles = [Line2D([], [], color=color, linewidth=2) for color in colors.values()]
    titles = [evaluation.models[name].title for name in colors]
    figure.legend(handles, titles, loc="outside upper left", ncols=2, frameon=False)
