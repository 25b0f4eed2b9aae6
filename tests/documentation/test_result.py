from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.runtime.errors import InputError
from documentation.result import draw_result
from tests.unit.recorded_runs import make_answers, write_run


def test_the_picture_shows_slices_with_boxes_in_color(tiny_dataset: Path, tmp_path: Path) -> None:
    images = open_dataset(tiny_dataset).images
    images = images[images["split"] == "test"]
    answers = make_answers(patients=2, slices=len(images) // 2)
    for name in ("source_id", "filename", "width", "height"):
        answers[name] = images[name].repeat(2).tolist()
    write_run(tmp_path / "runs", "one", answers, artifacts={"dataset": tiny_dataset})
    draw_result(tmp_path / "runs", "one", tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as picture:
        assert picture.width == 900
        saturations = np.asarray(picture.convert("HSV"))[..., 1]
        assert saturations.max() > 200, "slices are grey, boxes are not"


def test_an_unknown_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no run none in "):
        draw_result(tmp_path, "none", tmp_path / "result.png")
