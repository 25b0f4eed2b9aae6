"""The folder of the programs that tests run as new processes."""

from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
