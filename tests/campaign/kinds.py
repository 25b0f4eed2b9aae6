"""All kinds of cases, and how many of each there are per thousand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.campaign import annotations, artifacts, images, places, services
from tests.campaign.bench import Bench
from tests.campaign.places import Case
from tests.campaign.tally import Tally
from tests.campaign.workplace import ROOT, Server
from tests.unit.bad_exports import write_good_exports

# Inputs: exports in every format.
EXPORTS: dict[str, tuple[int, Case]] = {
    **{
        f"{name} annotations": (50, annotations.bad_annotations(name))
        for name in ("tensorflow", "coco", "yolo", "voc")
    },
    "tfrecord annotations": (30, annotations.bad_annotations("tfrecord")),
    "damaged files": (90, annotations.damaged_files),
    "images": (100, images.bad_images),
    "names": (80, images.bad_names),
    "folders": (60, images.bad_folders),
}
# Other conditions.
STEPS: dict[str, tuple[int, Case]] = {
    "paths": (80, places.bad_paths),
    "overrides": (60, places.bad_configurations),
    "configs": (90, places.bad_parameters),
    "datasets": (40, artifacts.bad_datasets),
    "judgements": (30, artifacts.bad_judgements),
    "models": (20, artifacts.bad_models),
    "Roboflow": (100, services.bad_service),
    "full disks": (30, places.full_disks),
    "signals": (40, places.signals),
    "killed processes": (14, places.killed_processes),
    "processes": (20, places.processes),
}
KINDS = EXPORTS | STEPS


@contextmanager
def open_bench(folder: Path, source: Path = ROOT / "src") -> Iterator[Bench]:
    """Opens the resources for cases; `source` is the folder of the `brain_tumor` under test."""
    for name in ("caches", "places"):
        (folder / name).mkdir()
    server = Server(source, folder / "caches")
    try:
        exports = write_good_exports(folder / "exports")
        yield Bench(server, folder / "places", exports)
    finally:
        server.close()


def run_cases(kind: str, count: int, bench: Bench, tally: Tally, strict: bool = True) -> None:
    """Runs cases of a kind, always the same ones.

    Args:
        kind: One of `KINDS`.
        count: The number of cases.
        bench: Resources for cases.
        tally: Counts them.
        strict: Stop at the first violation, and show the smallest such case.
    """
    _, case = KINDS[kind]

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink] if strict else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        ending, found = case(bench, data.draw)
        tally.add(kind, ending, found)
        assert not (strict and found), found

    run()
