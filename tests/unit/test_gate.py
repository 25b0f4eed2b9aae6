from typing import Any

import pandas as pd
import pytest

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.config import EvaluateConfig
from brain_tumor.gate.decision import FIGURES, Decision, decide
from brain_tumor.reports.gate_report import gate_markdown
from brain_tumor.runtime.registry import CHALLENGER, CHAMPION, Version
from tests.unit.recorded_runs import make_answers

CONFIG = EvaluateConfig(bootstrap_samples=200)
GOOD: dict[str, Any] = {"noise": 3.0, "skill": 0.6}
BAD: dict[str, Any] = {"noise": 25.0, "skill": 0.1}


def compare(ours: dict[str, Any], theirs: dict[str, Any], margin: float, patients: int = 30) -> Decision:
    table = pd.concat(
        [
            make_answers(patients, **ours),
            make_answers(patients, **theirs).assign(model="other"),
        ],
        ignore_index=True,
    )
    return decide(table, "other", "the other", margin, CONFIG)


def test_a_better_model_is_the_champion() -> None:
    decision = compare(GOOD, BAD, 0.0)
    assert decision.alias == CHAMPION
    assert decision.why == "It is better than the other in all of macro_f1, mean_iou, box_ap50."
    assert list(decision.differences) == list(FIGURES)
    assert all(found.low is not None and found.low > 0 for found in decision.differences.values())


def test_a_worse_model_is_a_challenger() -> None:
    decision = compare(BAD, GOOD, 0.02)
    assert decision.alias == CHALLENGER
    assert decision.why == "It may be worse than the other in macro_f1, mean_iou, box_ap50."


@pytest.mark.parametrize(("margin", "alias"), [(0.02, CHAMPION), (0.0, CHALLENGER)])
def test_an_equal_model_is_neither_worse_nor_better(margin: float, alias: str) -> None:
    decision = compare(GOOD, GOOD, margin)
    assert decision.alias == alias
    if alias == CHAMPION:
        assert "not worse than the other by more than 0.02" in decision.why


def test_too_few_patients_give_no_decision() -> None:
    decision = compare(GOOD, BAD, 0.0, patients=4)
    assert decision.alias == CHALLENGER
    assert "is unknown (only 4 patients" in decision.why


def test_the_report_has_the_decision_and_its_reason() -> None:
    differences = {"mean_iou": Interval(value=0.05, low=0.01, high=0.09, patients=40)}
    decision = Decision(CHAMPION, "It is not worse.", "the champion, version 2", 0.02, differences)
    text = gate_markdown(Version("brain-tumor", 3, "run", "", 0.0), decision)
    assert "**brain-tumor version 3 is the champion.** It is not worse." in text
    assert "| mean_iou | +0.050 (+0.010 to +0.090) | above -0.02" in " ".join(text.split())
    assert "make champion MODEL=3" in text
    few = {"macro_f1": Interval(value=0.05, reason="only 2 patients, 10 are needed")}
    decision = Decision("challenger", "It is unknown.", "the constant baseline", 0.0, few)
    text = " ".join(gate_markdown(Version("brain-tumor", 3, "run", "", 0.0), decision).split())
    assert "| macro_f1 | +0.050 (only 2 patients, 10 are needed) | above 0 |" in text
