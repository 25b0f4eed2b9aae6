"""The campaign on exports: for any content nothing is lost, nothing is silent, and there is no traceback."""

from collections.abc import Callable, Iterator

import pytest

from tests.campaign.bench import Bench
from tests.campaign.kinds import EXPORTS, open_bench, run_cases
from tests.campaign.tally import Tally

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("campaign")) as opened:
        yield opened


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("kind", EXPORTS)
def test_bad_exports(
    kind: str, times: int, bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    count, tally = EXPORTS[kind][0] * times, Tally()
    try:
        run_cases(kind, count, bench, tally)
    finally:
        record_property("campaign", tally.counts())
    assert sum(tally.cases.values()) > 0.8 * count, "Hypothesis found fewer different cases than wanted"
