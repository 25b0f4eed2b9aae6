"""The commands that use the pipeline's results: compare, predict, champion."""

import argparse
import logging
from pathlib import Path

from brain_tumor.comparison.history import RUNS
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import import_tensorflow
from brain_tumor.runtime.text import printable

FORMATS = ("json", "csv")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds each command's parser, which sets its function as `run`."""
    about = "Compares runs: what differed, every figure with a verdict, curves, and slices."
    compare_parser = commands.add_parser("compare", help=about, description=about)
    compare_parser.add_argument(
        "run_names", nargs="+", metavar="RUN", help="a run's name or id, two or more; or `last 2`"
    )
    compare_parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="PATH", help="the folder of the runs (runs)"
    )
    compare_parser.set_defaults(run=compare_runs)

    about = "Predicts for images: labels, probabilities, boxes in pixels, scores."
    predict_parser = commands.add_parser(
        "predict", help=about, description=about, epilog="Exit code 1 if an image could not be read."
    )
    predict_parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEGs and PNGs, folders of them, or patterns"
    )
    predict_parser.add_argument(
        "--model",
        required=True,
        metavar="URI",
        help="a model artifact's folder, models:/NAME@ALIAS, runs:/ID/model, or NAME@ALIAS",
    )
    predict_parser.add_argument("--output", type=Path, metavar="FILE", help="the predictions (stdout)")
    predict_parser.add_argument(
        "--format",
        dest="output_format",
        choices=FORMATS,
        help="the format (default: the file's suffix, or json)",
    )
    predict_parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="a folder for one picture per image"
    )
    predict_parser.set_defaults(run=predict)

    about = "Makes a version of the registered model the champion, regardless of the gate's decision."
    champion_parser = commands.add_parser("champion", help=about, description=about)
    champion_parser.add_argument("version", metavar="MODEL", help="its number, or NAME/NUMBER")
    champion_parser.set_defaults(run=set_champion)


def compare_runs(run_names: list[str], runs: Path) -> None:
    """Compares runs: prints what differed, and writes a page and a Markdown file to `runs/reports/`.

    Args:
        run_names: Names or ids of two or more runs, or `last` and a number.
        runs: The folder of the runs.

    Raises:
        InputError: There are fewer than two runs, one is unknown, or its record is damaged.
    """
    from brain_tumor.comparison.compare import compare
    from brain_tumor.reports.comparison_tables import terminal_text

    comparison = compare(runs, run_names)
    # Imported late: it imports Matplotlib, which is not needed before an error.
    from brain_tumor.reports.comparison_report import write_comparison

    page, markdown = write_comparison(runs / "reports", comparison)
    print(f"{terminal_text(comparison)}\n\nPage: {page}\nText: {markdown}")


def predict(
    images: list[str], model: str, output: Path | None, output_format: str | None, draw: Path | None
) -> None:
    """Predicts for images, and writes the predictions to a file or stdout.

    Args:
        images: Files, folders and patterns.
        model: See `load_predictor` of `brain_tumor.inference.models`.
        output: The file to write; without it predictions go to stdout.
        output_format: One of `FORMATS`; by default the output's suffix, or JSON.
        draw: A folder for one picture per image.

    Raises:
        InputError: The model does not exist, or the output cannot be written.
        SystemExit: With code 1, if an image could not be read; the output has the reason.
    """
    suffix = output.suffix.lower().removeprefix(".") if output else ""
    if output and not output_format and suffix not in FORMATS:
        raise InputError(f"{output} does not end with .json or .csv; rename it, or give --format.")
    _check_paths(images, model, output, draw)
    import_tensorflow()
    from brain_tumor.inference.images import BadImage, find_images
    from brain_tumor.inference.models import load_predictor
    from brain_tumor.inference.output import format_predictions
    from brain_tumor.inference.predict import predict_images
    from brain_tumor.stores.files import write_file

    predictor, named = load_predictor(model, RUNS), find_images(images)
    if predictor.thresholds:
        limits = ", ".join(f"{label} {limit:.3f}" for label, limit in predictor.thresholds.items())
        logging.info("Probability thresholds: %s (%s).", limits, predictor.thresholds_from)
    predictions = []
    for prediction in predict_images(predictor, named):
        if isinstance(prediction, BadImage):
            logging.error("%s", printable(prediction.problem))
        predictions.append(prediction)
    text = format_predictions(predictor, predictions, "csv" if (output_format or suffix) == "csv" else "json")
    if output:
        write_file(output, text)
    else:
        print(text, end="")
    good = [prediction for prediction in predictions if not isinstance(prediction, BadImage)]
    if draw:
        from brain_tumor.reports.prediction_pictures import draw_predictions

        draw_predictions(good, len(good), draw)
    if len(good) < len(predictions):
        logging.error("%d of %d images could not be read.", len(predictions) - len(good), len(predictions))
        raise SystemExit(1)


def set_champion(version: str) -> None:
    """Makes a version of the registered model the champion.

    Args:
        version: Its number, or `NAME/NUMBER` if the model does not have the gate's default name.

    Raises:
        InputError: The version does not exist, or there is no MLflow store.
    """
    from brain_tumor.config import GateConfig
    from brain_tumor.runtime.registry import CHAMPION, Registry
    from brain_tumor.runtime.tracking import existing_store

    name, _, number = version.rpartition("/")
    if not number.isdecimal():
        raise InputError(f"MODEL={version} has no version's number; give it as 3 or {GateConfig().model}/3.")
    with existing_store(RUNS) as client:
        if client is None:
            raise InputError(
                f"{RUNS / 'mlflow.db'} does not exist; run a pipeline, or set MLFLOW_TRACKING_URI."
            )
        registry = Registry(client, name or GateConfig().model)
        chosen, before = registry.version(int(number)), registry.champion()
        registry.decide(chosen, CHAMPION, "It was set manually.", before)
    instead = f", in place of version {before.number}" if before and before != chosen else ""
    print(f"{chosen.name} version {chosen.number} is the champion{instead}.")


def _check_paths(images: list[str], model: str, output: Path | None, draw: Path | None) -> None:
    """Checks, before the model is loaded, that the outputs overwrite nothing else.

    Raises:
        InputError: They would overwrite something else.
    """
    from brain_tumor.artifacts.outputs import check_outputs

    local = [name for name in (*images, model) if Path(name).exists()]
    if output:
        # The output may be a new file in the images' folder.
        check_outputs([name for name in local if name == model or Path(name).is_file()], {}, [output])
    if draw:
        check_outputs(local, {}, folders=[draw])
        if draw.is_dir() and any(draw.iterdir()):
            raise InputError(f"{draw} is not empty, so nothing is drawn there; give a new folder.")
