"""Both reports in a real browser, in the dashboard's frame and in a window, light and dark."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.evaluation import make_predictions
from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.config import EvaluateConfig, VisualizeConfig
from brain_tumor.configure import configure
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.ingest.ingest import ingest
from brain_tumor.reports.data_report import write_data_report
from brain_tumor.reports.prediction_report import write_prediction_report
from tests.unit.browser import CHROMIUM, Browser, browse

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

NARROW, WIDE = 302, 1280  # the frame of Kubeflow's dashboard, and a window


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browse() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tiny_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    ingested = ingest(configure(tiny_overrides).dataset, folder / "dataset")
    write_data_report(folder / "data.html", ingested)
    predictions = make_predictions(open_dataset(folder / "dataset"), folder / "predictions")
    evaluation = evaluate_predictions(EvaluateConfig(bootstrap_samples=20), predictions)
    page = folder / "predictions.html"
    write_prediction_report(page, VisualizeConfig(), predictions, evaluation, ingested.dataset)
    return {"data": folder / "data.html", "predictions": page}


@pytest.mark.parametrize("name", ["data", "predictions"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_page_requests_nothing_has_no_errors_and_fits(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    seen = browser.open(pages[name], width)
    assert seen.requests == [] and seen.complaints == []
    assert seen.width == width, "tables scroll, the page does not"
    image = Image.open(io.BytesIO(seen.image)).convert("RGB")
    assert image.width == width and image.height > 2000
    assert np.asarray(image).std() > 20


@pytest.mark.parametrize("name", ["data", "predictions"])
def test_text_is_readable_in_dark_mode(browser: Browser, pages: dict[str, Path], name: str) -> None:
    light, dark = (browser.open(pages[name], NARROW, dark=each) for each in (False, True))
    assert contrast(*light.colors) > 7 and contrast(*dark.colors) > 7
    assert light.colors != dark.colors and dark.complaints == []


def test_requests_and_errors_of_a_page_are_detected(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    picture, code = f"<img src='{tmp_path.as_uri()}/none.png'>", "<script>missing()</script>"
    page.write_text(f"<!doctype html>{picture}{code}<p style='width: 900px'>wide</p>")
    seen = browser.open(page, NARROW)
    assert [Path(url).name for url in seen.requests] == ["none.png"]
    assert any("missing is not defined" in complaint for complaint in seen.complaints)
    assert seen.width >= 900


def contrast(first: str, second: str) -> float:
    """The contrast of two CSS colors by WCAG, from 1 to 21."""
    lights = []
    for color in (first, second):
        values = (
            np.array([int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]) / 255
        )
        linear = np.where(values <= 0.03928, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)
