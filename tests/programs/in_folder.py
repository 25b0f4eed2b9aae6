"""Runs a command of `pipelines` in a folder. Arguments: its module, the folder, and its arguments."""

import importlib
import sys
from pathlib import Path

from pipelines.runners import kubeflow

kubeflow.POLL = 0.05  # seconds
module = importlib.import_module(sys.argv.pop(1))
vars(module)["ROOT"] = Path(sys.argv.pop(1))
module.main()
