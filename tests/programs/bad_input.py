"""A step that fails on bad input or a bug. Arguments: the pod's termination log, and `bad` or `bug`."""

import sys
from pathlib import Path

from brain_tumor.runtime import step
from brain_tumor.runtime.errors import InputError

step.TERMINATION_LOG = Path(sys.argv[1])
with step.step():
    try:
        int("x")
    except ValueError as error:
        if sys.argv[2] == "bug":
            raise
        raise InputError("data.csv row 3 is not a number; correct it.") from error
