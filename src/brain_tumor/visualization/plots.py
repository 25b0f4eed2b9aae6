"""Plots of the predictions and of the training."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brain_tumor.drawing import GREY, figure_text, panels
from brain_tumor.evaluation.curves import label_curves
from brain_tumor.evaluation.figures import true_box_iou

FINAL, OTHER = "#0b62a4", "#d95f02"
# What is drawn of a training, left and right: a curve has one color in all trainings.
CURVES = (
    {"loss": GREY, "val_loss": "#222222"},
    {"val_boxes_iou": "#1b8a5a", "val_labels_auc": "#a03d9c"},
)


def roc_figure(predictions: pd.DataFrame, labels: list[str], metrics: dict[str, Any]) -> Figure:
    """ROC curves, a panel a label: the models that learned to tell labels.

    Args:
        predictions: The predictions table.
        labels: The label names, in slot order.
        metrics: From `compute_metrics`; the point that its threshold gives is marked.
    """
    figure, axes = panels(len(labels), columns=3, height=3.5)
    colors = {"final": FINAL, "baseline_classification": OTHER}
    models = [model for model in colors if metrics["figures"].get(model, {}).get("macro_f1") is not None]
    for axis, label in zip(axes, labels, strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for model in models:
            curves = label_curves(predictions, label, metrics["threshold"], model)
            if curves.roc is None:
                axis.text(0.5, 0.6, "present in all slices or in none:\nno curve", ha="center", color=GREY)
                break
            name = f"AUC {metrics['figures'][model][f'{label}_roc_auc']:.3f}"
            axis.plot(curves.roc.fpr, curves.roc.tpr, color=colors[model], linewidth=2, label=name)
            (true_absent, false_present), (false_absent, true_present) = curves.confusion_matrix
            axis.plot(
                false_present / (true_absent + false_present),
                true_present / (false_absent + true_present),
                "o",
                color=colors[model],
                markersize=6,
            )
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="lower right", frameon=False)
        axis.set(
            title=figure_text(label),
            xlabel="false positive rate",
            ylabel="true positive rate",
            aspect="equal",
        )
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _add_model_legend(figure, {model: colors[model] for model in models}, metrics)
    return figure


def iou_figure(predictions: pd.DataFrame, labels: list[str], metrics: dict[str, Any]) -> Figure:
    """Histograms of the true boxes' IoU, a panel a label: the final model, the constant one as an outline.

    Args:
        predictions: The predictions table.
        labels: The label names, in slot order.
        metrics: From `compute_metrics`.
    """
    figure, axes = panels(len(labels), columns=3, height=2.9)
    styles: dict[str, dict[str, Any]] = {
        "final": {"color": FINAL, "alpha": 0.75},
        "constant": {"color": OTHER, "histtype": "step", "linewidth": 1.8},
    }
    boxes = predictions[predictions["present"]]
    models = [model for model in styles if metrics["figures"].get(model, {}).get("mean_iou") is not None]
    for axis, label in zip(axes, labels, strict=True):
        means = []
        for model in models:
            iou = true_box_iou(boxes[(boxes["model"] == model) & (boxes["label"] == label)])
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
    _add_model_legend(figure, {model: styles[model]["color"] for model in models}, metrics)
    return figure


def training_figure(histories: dict[str, list[dict[str, Any]]]) -> Figure:
    """Training curves, a row a training: its loss at the left, its validation metrics at the right.

    Args:
        histories: By the training's name, one dict an epoch: `epoch`, `loss`, `val_loss` and others.
    """
    figure, axes = panels(2 * len(histories), columns=2, height=2.3)
    for row, (name, epochs) in enumerate(histories.items()):
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


def _add_model_legend(figure: Figure, colors: dict[str, str], metrics: dict[str, Any]) -> None:
    """Names the models above the panels, by their titles."""
    titles = {model["name"]: model["title"] for model in metrics["models"]}
    handles = [Line2D([], [], color=color, linewidth=2) for color in colors.values()]
    names = [titles[model] for model in colors]
    figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False)
