from collections.abc import Callable
from pathlib import Path

import pytest
from kfp.dsl import HTML, Artifact, Dataset

from brain_tumor.ingest.ingest import SYNTHETIC_NOTICE
from components.visualize import visualize


def inputs(local_run: dict[str, Artifact]) -> dict[str, Artifact]:
    return {name: local_run[name] for name in ("dataset", "predictions", "evaluation")}


def check_page(path: str) -> None:
    page = Path(path).read_text()
    assert page.startswith("<!doctype html>")
    assert SYNTHETIC_NOTICE in page
    for title in ("Models", "True and predicted boxes", "ROC curves", "IoU of the boxes", "Training"):
        assert f">{title}</h2>" in page
    assert page.count("data:image/") > 20
    assert len(page.encode()) < 2_000_000


def test_the_function_draws_a_page(
    configs: dict[str, str], local_run: dict[str, Artifact], tmp_path: Path
) -> None:
    gallery = HTML(uri=str(tmp_path / "gallery"))
    visualize.python_func(config=configs["visualize"], **inputs(local_run), gallery=gallery)
    check_page(gallery.path)


def test_it_runs_locally(local_run: dict[str, Artifact]) -> None:
    check_page(local_run["gallery"].path)


@pytest.mark.parametrize("config", ["{", '{"gallery_images": 4, "unknown": 1}', '{"gallery_images": "x"}'])
def test_a_bad_config_is_refused(
    config: str, refusal: Callable[..., str], local_run: dict[str, Artifact], tmp_path: Path
) -> None:
    gallery = HTML(uri=str(tmp_path / "gallery"))
    sentence = refusal(visualize, config=config, **inputs(local_run), gallery=gallery)
    assert "visualize" in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["dataset", "predictions", "evaluation"])
def test_a_missing_artifact_is_refused(
    name: str,
    configs: dict[str, str],
    refusal: Callable[..., str],
    local_run: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    absent = tmp_path / "absent"
    sentence = refusal(
        visualize,
        config=configs["visualize"],
        **inputs(local_run) | {name: Dataset(uri=str(absent))},
        gallery=HTML(uri=str(tmp_path / "gallery")),
    )
    assert str(absent) in sentence
    assert list(tmp_path.iterdir()) == []
