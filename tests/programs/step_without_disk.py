"""Runs a step that can write files of 500 bytes at most. Arguments: its name, its config, and paths."""

import resource
import sys
from pathlib import Path

from brain_tumor import steps

resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
name, config, *paths = sys.argv[1:]
getattr(steps, name)(config, *map(Path, paths))
