"""The meaning of the figures in sentences: the first thing to read after a run."""

import textwrap
from collections.abc import Iterator

from brain_tumor.artifacts.evaluation import ALL, Evaluation, Interval, ModelEvaluation
from brain_tumor.config.fields import CONSTANT, FINAL

COMPARED = ("macro_f1", "mean_iou", "box_ap50")
# Below either of these, boxes are reported to ignore the image: the gain in IoU over boxes of other images,
# and the spread of their centers relative to true ones.
LEAST_IOU_FROM_IMAGE = 0.02
LEAST_SPREAD = 0.3
# A label in a larger share of the images is reported as nearly always present.
EVERYWHERE = 0.95
SUSPICIOUS, TRY = "Suspicious: ", "Try: "
WIDTH = 110


def verdict(evaluation: Evaluation) -> list[str]:
    """Judges the final model in sentences, and suggests what to try.

    The sentences compare it with the other models, and say whether its boxes depend on the image and what is
    suspicious.

    Args:
        evaluation: The evaluation.

    Returns:
        Paragraphs of a sentence or two; empty if there is no final model.
    """
    final = evaluation.models.get(FINAL)
    if final is None:
        return []
    compared = [(name, _compare(evaluation, name)) for name in evaluation.differences]
    # The constant baseline first: a model that does not beat it has learned nothing.
    compared.sort(key=lambda each: each[0] != CONSTANT)
    models = evaluation.models
    lines = [_sentence(final, f"the {models[name].short_title}", found) for name, found in compared]
    lines.append(_about_image(final))
    lines += [SUSPICIOUS + text for text in _suspicions(evaluation, final)]
    lines += [TRY + text for text in dict.fromkeys(_advice(evaluation, final, dict(compared)))]
    return [line for line in lines if line]


def verdict_text(evaluation: Evaluation) -> str:
    """The verdict for a terminal."""
    lines = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in verdict(evaluation)]
    return "\n".join(lines)


def _compare(evaluation: Evaluation, other: str) -> dict[str, dict[str, Interval]]:
    """The differences by verdict (`better`, `worse` or `open`), then by figure."""
    found: dict[str, dict[str, Interval]] = {"better": {}, "worse": {}, "open": {}}
    for name in COMPARED:
        each = evaluation.differences[other][ALL][name]
        if each.value is None:
            continue
        if each.low is None or each.high is None or each.low <= 0 <= each.high:
            found["open"][name] = each
        else:
            found["better" if each.low > 0 else "worse"][name] = each
    return found


def _sentence(final: ModelEvaluation, whom: str, found: dict[str, dict[str, Interval]]) -> str:
    """A sentence that compares the final model with another."""
    parts = []
    if found["worse"]:
        parts.append(f"loses to {whom} in {_figures(final, found['worse'])}")
    if found["better"]:
        parts.append(f"beats {'it' if parts else whom} in {_figures(final, found['better'])}")
    if found["open"]:
        known = next(iter(found["open"].values()))
        why = f" ({known.reason})" if known.reason else ""
        which = _figures(final, found["open"])
        parts.append(f"does not differ clearly from {'it' if parts else whom} in {which}{why}")
    return f"The final model {'; it '.join(parts)}." if parts else ""


def _figures(final: ModelEvaluation, found: dict[str, Interval]) -> str:
    return ", ".join(
        f"{name} {final.figures[name]:.3f} ({each.value:+.3f}{_brackets(each)})"
        for name, each in found.items()
    )


def _brackets(each: Interval) -> str:
    return "" if each.low is None else f" [{each.low:+.3f}, {each.high:+.3f}]"


def _ignores_image(final: ModelEvaluation) -> bool:
    gain, spread = final.iou_from_image, final.figures["center_spread"]
    if gain.value is None:
        return False
    least = gain.value if gain.low is None else gain.low
    return least <= 0 or gain.value < LEAST_IOU_FROM_IMAGE or (spread is not None and spread < LEAST_SPREAD)


def _about_image(final: ModelEvaluation) -> str:
    """Whether the boxes depend on the image at all."""
    others, spread = final.figures["shuffled_iou"], final.figures["center_spread"]
    if final.iou_from_image.value is None or others is None:
        return ""
    hardly = "hardly " if _ignores_image(final) else ""
    text = (
        f"The boxes {hardly}depend on the image: mean_iou is {final.figures['mean_iou']:.3f}, "
        f"and {others:.3f} with boxes predicted for other images"
    )
    if spread is not None:
        text += f"; their centers spread {spread:.2f} times as far as the true ones"
    return f"{text}."


def _suspicions(evaluation: Evaluation, final: ModelEvaluation) -> Iterator[str]:
    """Reasons to distrust the figures. Shortcuts in the data are in the evaluation's notice."""
    if evaluation.patients is None:
        yield "patients are unknown, so a patient's slices may be in two splits; intervals are over images."
    leakage = evaluation.data.leakage.used if evaluation.data else {}
    for pair, shared in leakage.items():
        first, second = pair.split("/")
        if shared.shared_patients:
            yield f"{first} and {second} share {shared.shared_patients:,} patients."
        if shared.near_duplicates:
            of = f" of {evaluation.images:,}" if second == evaluation.split else ""
            verb = "has" if shared.near_duplicates == 1 else "have"
            yield f"{shared.near_duplicates:,}{of} images of {second} {verb} a near-duplicate in {first}."
    for label, curves in final.curves.items():
        absent, present = (sum(row) for row in curves.confusion_matrix)
        if present > EVERYWHERE * (absent + present):
            share = present / (absent + present)
            yield f"{label} is in {share:.1%} of the images, so always predicting it has a high f1."


def _advice(
    evaluation: Evaluation, final: ModelEvaluation, compared: dict[str, dict[str, dict[str, Interval]]]
) -> Iterator[str]:
    leakage = evaluation.data.leakage.used if evaluation.data else {}
    if evaluation.patients is None:
        yield "dataset.filename_pattern, so that patients are known from the file names."
    elif any(shared.shared_patients for shared in leakage.values()):
        yield "dataset.split=patient, with no patient in two splits."
    lost = {other: {*found["worse"]} for other, found in compared.items()}
    if _ignores_image(final) or lost.get(CONSTANT, set()) & {"mean_iou", "box_ap50"}:
        yield "more epochs for the phases that train boxes, a larger model.image_size, or more data."
    if "macro_f1" in lost.get(CONSTANT, set()):
        yield "more epochs for the phases that train labels, or a start from model.weights=imagenet."
    if any(figures for other, figures in lost.items() if other != CONSTANT):
        yield "phases=joint, or a lower learning rate in the last phase: one task hurts the other here."
