"""Counts of cases and violations."""

from collections import Counter
from collections.abc import Iterable

from tests.campaign.invariants import INVARIANTS, Violation


class Tally:
    """Counts cases by kind and by how they ended, and violations by invariant."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, ending: str, found: Iterable[Violation]) -> None:
        """Adds a case. Each invariant counts at most once per case."""
        self.cases[kind] += 1
        self.endings[ending] += 1
        for violation in {each.kind: each for each in found}.values():
            self.violations[violation.kind] += 1
            self.examples.setdefault(f"{violation.kind}: {violation.what}", kind)

    def counts(self) -> dict[str, dict[str, int]]:
        """All counts, for a report."""
        return {name: dict(getattr(self, name)) for name in ("cases", "endings", "violations")}

    def merge(self, counts: dict[str, dict[str, int]]) -> None:
        """Adds another tally's counts."""
        for name, own in counts.items():
            getattr(self, name).update(own)

    def __str__(self) -> str:
        """One line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.cases.items()))
        ends = ", ".join(f"{count} {ending}" for ending, count in sorted(self.endings.items()))
        bad = ", ".join(f"{self.violations[name]} {name}" for name in INVARIANTS)
        return f"Campaign: {sum(self.cases.values()):,} cases ({kinds}); {ends}; violations: {bad}."
