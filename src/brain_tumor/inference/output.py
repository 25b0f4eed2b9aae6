"""Predictions as JSON or CSV."""

import csv
import io
import json
from dataclasses import asdict
from typing import Any, Literal

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.inference.images import BadImage
from brain_tumor.inference.models import Predictor
from brain_tumor.inference.predict import Answer

Format = Literal["json", "csv"]
DIGITS = 6  # of probabilities, thresholds and scores
PIXEL_DIGITS = 2
COLUMNS = [
    *("image", "width", "height", "label", "probability", "threshold", "present", *COORDINATES, "score"),
    "error",
]


def write_answers(predictor: Predictor, answers: list[Answer | BadImage], form: Format) -> str:
    """Formats predictions.

    Args:
        predictor: The model that made them.
        answers: The predictions, one per image.
        form: `json`: an object with `model` and `images`, one object per image: `image`, `width`, `height`
            and `labels`, or `image` and `error`. `csv`: a row per image and label, with the columns
            `COLUMNS`; values that the model does not predict are empty.
    """
    return _csv(answers) if form == "csv" else _json(predictor, answers)


def _json(predictor: Predictor, answers: list[Answer | BadImage]) -> str:
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
        for each in answers
    ]
    return json.dumps({"model": model, "images": images}, indent=2, allow_nan=False) + "\n"


def _csv(answers: list[Answer | BadImage]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for each in answers:
        if isinstance(each, BadImage):
            writer.writerow({"image": each.path, "error": each.problem})
            continue
        for label in each.labels:
            row = _rounded(asdict(label))
            box = dict(zip(COORDINATES, row.pop("box") or (), strict=False))
            writer.writerow({"image": each.path, "width": each.width, "height": each.height, **row, **box})
    return text.getvalue()


def _rounded(answer: dict[str, Any]) -> dict[str, Any]:
    """Rounds a prediction's numbers for output: boxes to a hundredth of a pixel."""
    for name in ("probability", "threshold", "score"):
        if answer[name] is not None:
            answer[name] = round(answer[name], DIGITS)
    if answer["box"] is not None:
        answer["box"] = [round(value, PIXEL_DIGITS) for value in answer["box"]]
    return answer
