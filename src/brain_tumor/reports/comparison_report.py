"""The comparison of runs as one HTML page and one Markdown file."""

import hashlib
import re
from pathlib import Path

from brain_tumor.artifacts.evaluation import ALL
from brain_tumor.comparison.compare import Comparison
from brain_tumor.comparison.images import read_images
from brain_tumor.comparison.pairs import FIRST, OTHER, Pair, disagreements
from brain_tumor.reports.comparison_plots import (
    precision_recall_picture,
    roc_picture,
    slice_picture,
    training_pictures,
)
from brain_tumor.reports.comparison_tables import change_sections, figures_section, letter, runs_section
from brain_tumor.reports.evaluation_tables import markdown_table
from brain_tumor.reports.page import Picture, Section, figure_uri, page
from brain_tumor.reports.prediction_report import LARGEST_PAGE
from brain_tumor.stores.files import write_file

DPI = 110
SLICES = 12
# The number of labels with curves is limited to keep the page small.
MOST_LABELS = 8
LONGEST_NAME = 180
ALIKE = 1e-6  # differences of probability or IoU up to this are rounding
LEFT_OUT = " Some are left out to keep the page small."


def write_comparison(folder: Path, comparison: Comparison) -> tuple[Path, Path]:
    """Writes a self-contained HTML page, and the same tables as Markdown.

    Args:
        folder: The folder to write to.
        comparison: The comparison.

    Returns:
        The page and the Markdown file, both named `compare-A-B`.
    """
    sections = [runs_section(comparison)]
    for pair in comparison.pairs:
        sections.append(figures_section(comparison, pair, [ALL]))
    changes = change_sections(comparison)
    sections += changes[:3]
    galleries = _gallery_sections(comparison)
    sections += galleries
    sections += [_curves_section(comparison), *_training_sections(comparison)]
    sections += [figures_section(comparison, pair, pair_labels(pair)) for pair in comparison.pairs]
    sections.append(changes[3])
    title, notice = "Comparison of runs", _notice(comparison)
    name = folder / file_name([run.name for run in comparison.runs])
    html, markdown = Path(f"{name}.html"), Path(f"{name}.md")
    content = page(title, sections, notice)
    while len(content.encode()) > LARGEST_PAGE and any(gallery.pictures for gallery in galleries):
        longest = max(galleries, key=lambda gallery: len(gallery.pictures))
        longest.pictures.pop()
        longest.text = longest.text.removesuffix(LEFT_OUT) + LEFT_OUT
        content = page(title, sections, notice)
    write_file(html, content)
    write_file(markdown, _markdown(title, sections, notice))
    return html, markdown


def pair_labels(pair: Pair) -> list[str]:
    """The labels for which a pair has figures."""
    return list(dict.fromkeys(row.part for row in pair.rows if row.part != ALL))


def file_name(names: list[str]) -> str:
    """The name of a comparison's files without suffix; comparing the same runs again overwrites them.

    Example:
        >>> file_name(["quick-0504-130201", "lr=1e-5-0504-140201"])
        'compare-quick-0504-130201-lr=1e-5-0504-140201'
    """
    name = re.sub(r"[^\w.=-]+", "_", "-".join(["compare", *names]))
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _notice(comparison: Comparison) -> str:
    """The notices about the runs' data."""
    notices = [run.evaluation.notice for run in comparison.runs if run.evaluation]
    return " ".join(dict.fromkeys(filter(None, notices)))


def _gallery_sections(comparison: Comparison) -> list[Section]:
    count = max(4, SLICES // len(comparison.pairs))
    return [_gallery_section(comparison, pair, count) for pair in comparison.pairs if pair.table is not None]


def _gallery_section(comparison: Comparison, pair: Pair, count: int) -> Section:
    other = letter(comparison.runs.index(pair.other))
    heading = f"Where {other} differs most from A"
    rows = disagreements(pair, count)
    rows = rows[rows["difference"] > ALIKE]
    if rows.empty:
        return Section(heading, f"A and {other} have the same predictions for all images.")
    images = read_images(pair.first, set(rows["source_id"]))
    others = read_images(pair.other, set(rows.loc[~rows["source_id"].isin(images), "source_id_other"]))
    pictures, missing = [], 0
    for _, row in rows.iterrows():
        content = images.get(row["source_id"]) or others.get(row["source_id_other"])
        if content is None:
            missing += 1
            continue
        figure = slice_picture(row, content, ["A", other])
        about = f"{row['filename']}, {row['label']}: the boxes of A and {other} and the true box"
        pictures.append(Picture(about, figure_uri(figure, DPI, "webp")))
    text = (
        f"The {len(rows)} images on which A and {other} differ most, each with the label on which they do, "
        "by its probability or, if it is present, by the IoU of its box, whichever is larger. White: the "
        f"true box; dashed: A; dotted: {other}. After each letter: the label's probability, and whether "
        "it reaches the run's threshold."
    )
    if missing:
        text += (
            f" {missing} of them are not shown, since they are in neither run's dataset or records any more."
        )
    return Section(heading, text, pictures=pictures)


def _curves_section(comparison: Comparison) -> Section:
    tables = {"A": next((pair.table for pair in comparison.pairs if pair.table is not None), None)}
    for pair in comparison.pairs:
        tables[letter(comparison.runs.index(pair.other))] = pair.table
    known = {
        name: table[table["model"] == (FIRST if name == "A" else OTHER)]
        for name, table in tables.items()
        if table is not None
    }
    if not known:
        return Section("ROC and precision-recall curves", "There is no predictions table to draw them from.")
    labels = list(dict.fromkeys(label for pair in comparison.pairs for label in pair.labels))
    pictures = []
    for label in labels[:MOST_LABELS]:
        answers = {name: rows[rows["label"] == label] for name, rows in known.items()}
        for words, draw in (("ROC", roc_picture), ("precision-recall", precision_recall_picture)):
            if figure := draw(label, answers):
                pictures.append(Picture(f"{words} curves of {label}", figure_uri(figure, DPI)))
    text = "Classification of a label's presence by its probability, with all points of the curves."
    if len(labels) > MOST_LABELS:
        text += f" These are the first {MOST_LABELS} of {len(labels)} labels."
    if not pictures:
        text = "Every label is in all of these slices or in none: there are no curves."
    return Section("ROC and precision-recall curves", text, pictures=pictures)


def _training_sections(comparison: Comparison) -> list[Section]:
    names = list(dict.fromkeys(name for run in comparison.runs for name in run.trainings))
    pictures, same = [], []
    for name in names:
        epochs = {letter(place): run.trainings.get(name, []) for place, run in enumerate(comparison.runs)}
        if all(each == epochs["A"] for each in epochs.values()):
            same.append(name)
            continue
        for about, figure in training_pictures(name, epochs).items():
            pictures.append(Picture(about, figure_uri(figure, DPI)))
    if not names:
        return []
    text = "Thick: validation; thin: training." if pictures else ""
    if same:
        text += f" The same in all runs: {', '.join(same)}."
    return [Section("Training curves", text.strip(), pictures=pictures)]


def _markdown(title: str, sections: list[Section], notice: str) -> str:
    parts = [f"# {title}", f"> {notice}" if notice else ""]
    for section in sections:
        if section.pictures and not section.rows:
            continue  # shown on the page only
        parts += [f"## {section.heading}", section.text]
        if section.header:
            rows = [[str(cell) for cell in row] for row in section.rows or []]
            parts.append(markdown_table(section.header, rows))
    return "\n\n".join(part for part in parts if part) + "\n"
