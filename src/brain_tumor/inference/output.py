"""Formats predictions as JSON or CSV."""

import csv
import io
import json
from dataclasses import asdict
from typing import Any, Literal

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.inference.images import BadImage
from brain_tumor.inference.models import Predictor
from brain_tumor.inference.predict import Prediction

Format = Literal["json", "csv"]
DIGITS = 6  # of probabilities, thresholds and scores
PIXEL_DIGITS = 2
COLUMNS = [
    *("image", "width", "height", "label", "probability", "threshold", "present", *COORDINATES, "score"),
    "error",
]


def format_predictions(predictor: Predictor, predictions: list[Prediction | BadImage], form: Format) -> str:
    """Formats predictions.

    Args:
        predictor: The model that made them.
        predictions: One per image.
        form: `json`: an object with `model` and `images`, one object per image: `image`, `width`, `height`
            and `labels`, or `image` and `error`. `csv`: a row per image and label, with the columns
            `COLUMNS`; values that the model does not predict are empty.
    """
    return _csv(predictions) if form == "csv" else _json(predictor, predictions)


def _json(predictor: Predictor, predictions: list[Prediction | BadImage]) -> str:
    model = {
        "name": predictor.name,
        "labels": predictor.labels,
        "thresholds": {label: round(value, DIGITS) for label, value in predictor.thresholds.items()},
        "thresholds_from": predictor.thresholds_from,
    }
    if predictor.notice:
        model["notice"] = predictor.notice
    images = [
        {"image": str(each.path), "error": each.problem}
        if isinstance(each, BadImage)
        else {
            "image": str(each.path),
            "width": each.width,
            "height": each.height,
            "labels": [_rounded(asdict(label)) for label in each.labels],
        }
        for each in predictions
    ]
    return json.dumps({"model": model, "images": images}, indent=2, allow_nan=False) + "\n"


def _csv(predictions: list[Prediction | BadImage]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for each in predictions:
        if isinstance(each, BadImage):
            writer.writerow({"image": each.path, "error": each.problem})
            continue
        for label in each.labels:
            row = _rounded(asdict(label))
            box = dict(zip(COORDINATES, row.pop("box") or (), strict=False))
            writer.writerow({"image": each.path, "width": each.width, "height": each.height, **row, **box})
    return text.getvalue()


def _rounded(prediction: dict[str, Any]) -> dict[str, Any]:
    """Rounds a prediction's numbers for output: boxes to a hundredth of a pixel."""
    for name in ("probability", "threshold", "score"):
        if prediction[name] is not None:
            prediction[name] = round(prediction[name], DIGITS)
    if prediction["box"] is not None:
        prediction["box"] = [round(value, PIXEL_DIGITS) for value in prediction["box"]]
    return prediction
