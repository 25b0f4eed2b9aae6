"""A step that fails. Arguments: the pod's termination log, and `bad`, `bug` or `away`."""

import sys
from pathlib import Path

from brain_tumor.runtime import step
from brain_tumor.runtime.errors import InputError, UnavailableError

step.TERMINATION_LOG = Path(sys.argv[1])
with step.step():
    try:
        int("x")
    except ValueError as error:
        if sys.argv[2] == "bug":
            raise
        if sys.argv[2] == "away":
            raise UnavailableError("The store is away; try again.") from error
        raise InputError("data.csv row 3 is not a number; correct it.") from error
