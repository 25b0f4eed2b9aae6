"""What the gate decided, as Markdown for a dashboard."""

from tabulate import tabulate

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.gate.decision import Decision
from brain_tumor.runtime.registry import Version

NOT_TRACKED = """# Gate

Nothing was registered: no MLflow keeps track of this run. Set `MLFLOW_TRACKING_URI`.
"""


def gate_markdown(version: Version, decision: Decision) -> str:
    """The decision, its reason, and the figures behind it.

    Args:
        version: The model's version in the registry.
        decision: What was decided of it.
    """
    parts = ["# Gate", f"**{version.name} version {version.number} is the {decision.alias}.** {decision.why}"]
    if decision.differences:
        needed = f"above {0 - decision.margin:g}"
        rows = [(figure, _difference(found), needed) for figure, found in decision.differences.items()]
        headers = ("Figure", f"Minus that of {decision.opponent}", "Its lower bound must be")
        parts.append(tabulate(rows, headers=headers, tablefmt="github"))
    parts.append(
        f"MLflow loads it as `{version.uri}`. `make champion MODEL={version.number}` makes it the champion "
        "by hand."
    )
    return "\n\n".join(parts) + "\n"


def _difference(found: Interval) -> str:
    if found.value is None:
        return found.reason
    if found.low is None:
        return f"{found.value:+.3f} ({found.reason})"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
