"""Runs the campaign on this version or another one, and counts violations without stopping at the first.

python -m tests.campaign --cases 10000
python -m tests.campaign --source /path/of/another/version/src
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from brain_tumor.runtime.text import one_line
from tests.campaign.kinds import KINDS, open_bench, run_cases
from tests.campaign.tally import Tally
from tests.campaign.workplace import ROOT


def main() -> None:
    """Runs the campaign, and prints the counts. The exit code is 1 if there was any violation."""
    parser = argparse.ArgumentParser("python -m tests.campaign", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="approximate number of cases")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="source folder to test")
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help="kinds of cases; all by default")
    arguments = parser.parse_args()
    tally = Tally()
    share = arguments.cases / sum(KINDS[kind][0] for kind in arguments.kinds)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_bench(Path(folder), arguments.source.resolve()) as bench,
    ):
        for kind in arguments.kinds:
            started, before = time.monotonic(), sum(tally.cases.values())
            run_cases(kind, max(1, round(KINDS[kind][0] * share)), bench, tally, strict=False)
            seconds, cases = time.monotonic() - started, sum(tally.cases.values()) - before
            print(f"{kind}: {cases} cases in {seconds:.0f} s", flush=True)
            for example in sorted(name for name, of in tally.examples.items() if of == kind):
                print(f"    {one_line(example)}", flush=True)
    print(tally)
    sys.exit(1 if tally.violations else 0)


if __name__ == "__main__":
    main()
