"""Writes the golden files anew, after a wanted change: `python -m tests.pipelines.renew_golden`."""

from pathlib import Path

from brain_tumor.configure import configure
from pipelines.compile import compile_pipeline
from pipelines.targets.target import TARGETS, load_target

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(file.stem for file in TARGETS.glob("*.yaml"))


def golden(target: str) -> Path:
    """A target's golden file."""
    return FOLDER / f"{target}.yaml"


def compile_golden(target: str, path: Path) -> None:
    """Compiles for a target, under a tag that does not follow the library's content."""
    compile_pipeline(load_target(target), "golden", configure([]), path)


if __name__ == "__main__":
    for name in NAMES:
        compile_golden(name, golden(name))
        print(golden(name))
