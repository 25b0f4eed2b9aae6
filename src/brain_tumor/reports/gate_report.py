"""The gate's decision, as Markdown for a dashboard."""

from tabulate import tabulate

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.gate.decision import Decision
from brain_tumor.runtime.registry import Version

NOT_TRACKED = """# Gate

Nothing was registered, since this run is not tracked by MLflow. Set `MLFLOW_TRACKING_URI`.
"""


def gate_markdown(version: Version, decision: Decision) -> str:
    """Formats the decision, its reason, and the figures that it is based on.

    Args:
        version: The model's version in the registry.
        decision: The decision about it.
    """
    parts = ["# Gate", f"**{version.name} version {version.number} is the {decision.alias}.** {decision.why}"]
    if decision.differences:
        needed = f"above {0 - decision.margin:g}"
        rows = [(figure, _difference(found), needed) for figure, found in decision.differences.items()]
        headers = ("Figure", f"Minus that of {decision.opponent}", "Required lower bound")
        parts.append(tabulate(rows, headers=headers, tablefmt="github"))
    parts.append(
        f"Its MLflow address is `{version.uri}`. `make champion MODEL={version.number}` makes it the "
        "champion manually."
    )
    return "\n\n".join(parts) + "\n"


def _difference(found: Interval) -> str:
    if found.value is None:
        return found.reason
    if found.low is None:
        return f"{found.value:+.3f} ({found.reason})"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
