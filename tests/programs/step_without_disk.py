"""Runs a step with a file size limit of 500 bytes. Arguments: its name, its config, and paths."""

import resource
import sys
from pathlib import Path

from brain_tumor import steps

resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
name, config, *paths = sys.argv[1:]
getattr(steps, name)(config, *map(Path, paths))
