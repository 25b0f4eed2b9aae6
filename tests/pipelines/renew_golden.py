"""Writes the golden file anew, after a wanted change: `python -m tests.pipelines.renew_golden`."""

from pathlib import Path

from brain_tumor.configure import configure
from pipelines.compile import compile_pipeline
from pipelines.targets.target import load_target

GOLDEN = Path(__file__).parent / "golden" / "local.yaml"


def compile_golden(path: Path) -> None:
    """Compiles for one machine, under a tag that does not follow the library's content."""
    compile_pipeline(load_target("local"), "golden", configure([]), path)


if __name__ == "__main__":
    compile_golden(GOLDEN)
    print(GOLDEN)
