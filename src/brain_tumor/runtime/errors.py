"""What the user can mend: one sentence and exit code 2."""

import errno

from brain_tumor.runtime.text import display_name

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(Exception):
    """Bad input. The message is one sentence that names the file, the row and what to do."""


def explain_os_error(error: OSError, file: object = "A file") -> str:
    """One sentence about what the system refuses; empty if it is another kind of error.

    Args:
        error: What it raised.
        file: What it is about, where the error names no file.
    """
    if error.errno is None or not error.strerror:
        return ""
    named = error.filename if error.filename2 is None else error.filename2
    name = display_name(str(named or file))
    if error.errno in FULL:
        return f"{name} cannot be written ({error.strerror}); free some of the disk, or use another one."
    return f"{name} cannot be used ({error.strerror}); check that it is there and whose it is."
