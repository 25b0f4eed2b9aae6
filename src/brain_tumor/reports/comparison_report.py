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
# Pictures of a label's curves: a data set can have any number of labels, a page not.
MOST_LABELS = 8
LONGEST_NAME = 180
ALIKE = 1e-6  # differences of probability or IoU up to this are rounding
LEFT_OUT = " Some are left out, so that the page stays small."


def write_comparison(folder: Path, comparison: Comparison) -> tuple[Path, Path]:
    """Writes an HTML page that needs no other file, and the same tables as Markdown.

    Args:
        folder: The folder to write to.
        comparison: The runs, compared.

    Returns:
        The page and the Markdown file, both called `compare-A-B`.
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
    """The labels that a pair has figures of."""
    return list(dict.fromkeys(row.part for row in pair.rows if row.part != ALL))


def file_name(names: list[str]) -> str:
    """The name of a comparison's files, without its suffix: one of the same runs takes the earlier one's.

    Example:
        >>> file_name(["quick-0504-130201", "lr=1e-5-0504-140201"])
        'compare-quick-0504-130201-lr=1e-5-0504-140201'
    """
    name = re.sub(r"[^\w.=-]+", "_", "-".join(["compare", *names]))
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _notice(comparison: Comparison) -> str:
    """What the runs' data ask to be said."""
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
        return Section(heading, f"A and {other} give the same answers for all images.")
    images = read_images(pair.first, set(rows["source_id"]))
    others = read_images(pair.other, set(rows.loc[~rows["source_id"].isin(images), "source_id_other"]))
    pictures, missing = [], 0
    for _, row in rows.iterrows():
        content = images.get(row["source_id"]) or others.get(row["source_id_other"])
        if content is None:
            missing += 1
            continue
        figure = slice_picture(row, content, ["A", other])
        about = f"{row['filename']}, {row['label']}: the boxes of A and {other} and the true one"
        pictures.append(Picture(about, figure_uri(figure, DPI, "webp")))
    text = (
        f"The {len(rows)} images on which A and {other} differ most, each with the label on which they do: "
        "by its probability or, where it is present, by the IoU of its box, whichever is more. White: the "
        f"true box; dashed: A; dotted: {other}. Behind each letter: the label's probability, and whether "
        "that is enough for yes in its run."
    )
    if missing:
        text += (
            f" {missing} of them are not shown, since neither run's dataset or records hold them any more."
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
        return Section(
            "ROC and precision-recall curves", "There is no table of predictions to draw them from."
        )
    labels = list(dict.fromkeys(label for pair in comparison.pairs for label in pair.labels))
    pictures = []
    for label in labels[:MOST_LABELS]:
        answers = {name: rows[rows["label"] == label] for name, rows in known.items()}
        for words, draw in (("ROC", roc_picture), ("precision-recall", precision_recall_picture)):
            if figure := draw(label, answers):
                pictures.append(Picture(f"{words} curves of {label}", figure_uri(figure, DPI)))
    text = "A label's presence, told by its probability, with every point of the curves."
    if len(labels) > MOST_LABELS:
        text += f" Of the first {MOST_LABELS} of {len(labels)} labels."
    if not pictures:
        text = "Every label is in all of these slices or in none: there is no curve."
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
            continue  # the page has them
        parts += [f"## {section.heading}", section.text]
        if section.header:
            rows = [[str(cell) for cell in row] for row in section.rows or []]
            parts.append(markdown_table(section.header, rows))
    return "\n\n".join(part for part in parts if part) + "\n"
