"""Generates the parts of docs/ that are made from the code: `python -m documentation [--check]`.

With `--check` it writes nothing, and lists the files that are not up to date.
"""

import argparse
import sys
from pathlib import Path

from documentation.flow import compiled_steps, draw_flow
from documentation.reference import reference_page

DOCS = Path(__file__).resolve().parent.parent / "docs"


def generated() -> dict[Path, str]:
    """The generated content by file."""
    return {
        DOCS / "reference.md": reference_page(),
        DOCS / "images" / "pipeline.svg": draw_flow(compiled_steps()),
    }


def stale(made: dict[Path, str]) -> list[Path]:
    """The files that are missing or not up to date.

    Args:
        made: The generated content by file.
    """
    return [path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]


def main() -> None:
    """The command line. Exit code 1 if `--check` finds a stale file."""
    parser = argparse.ArgumentParser(description="Generate the parts of docs/ that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing, list stale files")
    check = parser.parse_args().check
    made = generated()
    changed = stale(made)
    for path in changed:
        if check:
            print(f"{path.relative_to(DOCS.parent)} is stale; run make docs-reference.", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
            print(path.relative_to(DOCS.parent))
    if check and changed:
        sys.exit(1)


if __name__ == "__main__":
    main()
