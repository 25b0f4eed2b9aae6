"""Steps' configs as JSON, their form in the pipeline's parameters."""

import json

import pytest

from brain_tumor.config import EvaluateConfig, TrainConfig, from_json, to_json
from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError


def configs(*overrides: str) -> dict[str, str]:
    """Each step's config as JSON."""
    return configure(list(overrides)).parameters()


def test_equal_configs_have_equal_json() -> None:
    default = configs()
    text = default["phase1_box"]
    assert text == json.dumps(json.loads(text), sort_keys=True, allow_nan=False)
    assert to_json(from_json(TrainConfig, text, "phase1_box")) == text

    rate, size = "phases.phase1_box.learning_rate", "model.image_size=96"
    assert configs(f"{rate}=1e-4", size) == configs(size, f"{rate}=0.0001")
    assert configs(f"{rate}=1") == configs(f"{rate}=1.0")
    assert configs("profile=quick", "dataset=synthetic") == default


def test_json_omits_defaults() -> None:
    assert json.loads(configs("evaluate.threshold=0.4")["evaluate"]) == {"threshold": 0.4}
    full = configs("profile=full", "phases.phase1_box.learning_rate=1e-3")
    assert (full["records"], full["visualize"]) == ("{}", "{}")
    assert full["evaluate"] == '{"threshold": "tuned"}'
    assert json.loads(full["phase1_box"]) == {
        "name": "phase1_box",
        "phase": {
            "epochs": 50,
            "learning_rate": 0.001,
            "train_heads": ["boxes"],
        },
    }
    assert all("," not in text.replace(", ", "") for text in full.values()), "a dashboard can wrap them"


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '{"split":"test","unknown":1}', '{"threshold":NaN}']
)
def test_json_that_is_not_a_config_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^evaluate"):
        from_json(EvaluateConfig, text, "evaluate")
