"""A comparison of runs as text: tables for the page, Markdown and the terminal, and a one-line summary."""

import textwrap

from tabulate import tabulate

from brain_tumor.artifacts.evaluation import ALL
from brain_tumor.comparison.changes import Change
from brain_tumor.comparison.compare import Comparison
from brain_tumor.comparison.pairs import RESAMPLES, Pair, Row
from brain_tumor.comparison.runs import ComparedRun
from brain_tumor.reports.evaluation_tables import (
    DASH,
    SUMMARY_COLUMNS,
    brackets,
    number,
)
from brain_tumor.reports.page import Section

MAIN = SUMMARY_COLUMNS
WIDTH = 100  # of a paragraph in the terminal, in characters
MOST_LINES = 12  # of differences in the terminal; the page has all
# Non-breaking spaces keep the symbol with its word in a narrow column.
SYMBOLS = {
    "better": "\u25b2\u00a0better",
    "worse": "\u25bc\u00a0worse",
    "inconclusive": "=\u00a0inconclusive",
    "": DASH,
}
ABOUT_VERDICTS = (
    f"In brackets: 95 % intervals of the difference, paired bootstrap ({RESAMPLES:,} resamples) over "
    "{units}. Better or worse: the interval does not contain 0. By chance alone, about 1 in 20 figures would "
    "be called better or worse."
)


def letter(place: int) -> str:
    """The letter that stands for a run where its name is too long."""
    return "ABCDEF"[place]


def runs_section(comparison: Comparison) -> Section:
    """The section that names the runs, and says what is missing of them."""
    rows = [
        [
            letter(place),
            run.name,
            " ".join(own) or DASH,
            run.started.strftime("%Y-%m-%d\u00a0%H:%M") if run.started else DASH,
            DASH if run.seconds is None else f"{run.seconds:,.0f}\u00a0s",
            run.mlflow_run_id or DASH,
        ]
        for place, (run, own) in enumerate(zip(comparison.runs, _own_overrides(comparison.runs), strict=True))
    ]
    shared = [
        each for each in comparison.runs[0].overrides if all(each in run.overrides for run in comparison.runs)
    ]
    sentences = [f"All runs have {' '.join(shared)}."] if shared else []
    sentences += [
        f"{letter(place)}: {note}" for place, run in enumerate(comparison.runs) for note in run.notes
    ]
    header = ["", "run", "own overrides", "started", "took", "MLflow run"]
    return Section("Runs", " ".join(sentences), header, rows)


def _own_overrides(runs: list[ComparedRun]) -> list[list[str]]:
    """For each run, the overrides that not all runs have."""
    return [
        [each for each in run.overrides if not all(each in other.overrides for other in runs)] for run in runs
    ]


def change_sections(comparison: Comparison) -> list[Section]:
    """The sections on differences in configuration, data and code, and on identical artifacts."""
    letters = [letter(place) for place in range(len(comparison.runs))]
    return [
        _changes_section("Configuration", comparison.settings, letters, _about_settings(comparison)),
        _changes_section("Data", comparison.data, letters, _about_data(comparison)),
        _changes_section("Code and packages", comparison.code, letters, _about_code(comparison)),
        _changes_section(
            "Artifacts, compared with A's", comparison.artifacts, letters[1:], "No artifacts are known."
        ),
    ]


def _changes_section(heading: str, changes: list[Change], letters: list[str], nothing: str) -> Section:
    if not changes:
        return Section(heading, nothing)
    return Section(heading, "", ["", *letters], [[change.what, *change.values] for change in changes])


def _about_settings(comparison: Comparison) -> str:
    known = all(run.changed_settings for run in comparison.runs)
    return "The settings are the same." if known else "Settings known for all runs are the same."


def _about_data(comparison: Comparison) -> str:
    missing = [run.name for run in comparison.runs if run.dataset is None]
    if missing:
        return f"No difference is known; the dataset of {', '.join(missing)} does not exist any more."
    return "The same images and boxes, by checksum, in the same splits."


def _about_code(comparison: Comparison) -> str:
    unknown = [run.name for run in comparison.runs if not run.image]
    about = f"unknown for {', '.join(unknown)}" if unknown else f"{comparison.runs[0].image} in all runs"
    versions = [manifest.versions for run in comparison.runs for manifest in run.manifests.values()]
    packages = (
        "The packages have the same versions."
        if versions and all("python" in each for each in versions)
        else "Package versions are not known for all artifacts."
    )
    return f"The image tag, a hash of the code and its packages, is {about}. {packages}"


def figures_section(comparison: Comparison, pair: Pair, parts: list[str]) -> Section:
    """A table of a pair's figures over all labels, or per label."""
    other = letter(comparison.runs.index(pair.other))
    heading = f"Figures: {other} and A" if ALL in parts else f"Figures of each label: {other} and A"
    with_label = ALL not in parts
    # The main figures first, the others in their own order.
    ordered = sorted(
        (row for row in pair.rows if row.part in parts),
        key=lambda row: (
            parts.index(row.part),
            MAIN.index(row.figure) if row.part == ALL and row.figure in MAIN else len(MAIN),
        ),
    )
    rows = [[*([row.part] if with_label else []), row.figure, *_cells(row)] for row in ordered]
    header = [*(["label"] if with_label else []), "figure", f"{other} is", f"{other} minus A", "A", other]
    return Section(heading, "" if with_label else about_pair(pair), header, rows)


def about_pair(pair: Pair) -> str:
    """The images that a pair is compared on, and what the intervals and verdicts mean."""
    found = [row.difference for row in pair.rows if row.difference.value is not None]
    sentences = [pair.about]
    if any(each.low is not None for each in found):
        units = "patients"
        if pair.table is not None and pair.table["patient_id"].isna().any():
            units = "images, since patients are unknown"
        sentences.append(ABOUT_VERDICTS.format(units=units))
    reasons = dict.fromkeys(each.reason for each in found if each.reason)
    if reasons:
        sentences.append(f"No interval: {'; '.join(reasons)}.")
    return " ".join(sentences)


def _cells(row: Row) -> list[str]:
    change = number(row.difference.value, "+") + brackets(row.difference, "+")
    # The verdict comes first: a narrow window cuts off the rest.
    return [SYMBOLS[row.verdict], change, number(row.first), number(row.other)]


def terminal_text(comparison: Comparison) -> str:
    """The runs, their differences and the main figures, for the terminal."""
    lines = [
        f"{letter(place)}  {run.name} ({' '.join(own) or 'no own overrides'})"
        for place, (run, own) in enumerate(zip(comparison.runs, _own_overrides(comparison.runs), strict=True))
    ]
    notes = [
        _wrapped(f"{letter(place)}: {note}")
        for place, run in enumerate(comparison.runs)
        for note in run.notes
    ]
    lines += ["", *notes] if notes else []
    lines.append("")
    given = all(run.changed_settings for run in comparison.runs)
    data = all(run.dataset for run in comparison.runs)
    code = all(run.image for run in comparison.runs)
    for heading, changes, nothing in (
        ("Configuration", comparison.settings, "the same" if given else "the same, as far as known"),
        ("Data", comparison.data, "the same" if data else "not known for all runs"),
        ("Code", comparison.code, "the same" if code else "not known for all runs"),
    ):
        lines += [f"{heading}: {nothing}"] if not changes else [f"{heading}:"]
        lines += map(_change_line, changes[:MOST_LINES])
        lines += [f"    and {len(changes) - MOST_LINES} more"] if len(changes) > MOST_LINES else []
    for pair in comparison.pairs:
        other = letter(comparison.runs.index(pair.other))
        main = {row.figure: row for row in pair.rows if row.part == ALL}
        rows = [[name, *_cells(main[name])] for name in MAIN if name in main]
        header = ["figure", f"{other} is", f"{other} minus A", "A", other]
        columns = ("left", "left", "right", "right", "right")
        table = tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=columns)
        lines += ["", table if rows else "No figures are known.", "", _wrapped(about_pair(pair))]
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _change_line(change: Change) -> str:
    between = " -> " if len(change.values) == 2 else " | "
    return f"    {change.what}: {between.join(change.values)}"


def before_line(pair: Pair) -> str:
    """One line with the previous run and the differences of the main figures."""
    found = {row.figure: row for row in pair.rows if row.part == ALL}
    words = [_difference_words(found[name]) for name in MAIN if name in found]
    told = ", ".join(filter(None, words)) or "they have no figure in common"
    reasons = [row.difference.reason for row in found.values() if row.verdict and row.difference.reason]
    told += f" (no interval: {reasons[0]})" if reasons else ""
    own, others = _own_overrides([pair.first, pair.other])
    shown = " ".join(own) or (f"without {' '.join(others)}" if others else "the same overrides")
    return f"Before: {pair.first.name} ({shown}): {told}"


def _difference_words(row: Row) -> str:
    if row.first is None or row.other is None:
        return ""
    change, name = row.difference, row.figure
    if change.value is None:
        return f"{name} {number(row.first)}, now {number(row.other)}"
    if change.low is None:
        return f"{name} {change.value:+.3f} {row.verdict}"
    return f"{name} {change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f}) {row.verdict}"
