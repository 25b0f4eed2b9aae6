"""Where the programs are that tests run as processes of their own."""

from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
