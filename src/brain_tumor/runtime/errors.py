"""What the user can mend: one sentence and exit code 2."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from brain_tumor.runtime.drafts import is_draft
from brain_tumor.runtime.text import display_name


class InputError(Exception):
    """Bad input. The message is one sentence that names the file, the row and what to do."""


class DamagedError(InputError):
    """What a step once wrote is not there whole: cut, changed, of another kind, or another version wrote it.

    That it cannot be read or copied, for want of a permission, a connection or space, is no damage.
    """


# What the machine may refuse whatever the program does, and what its user can do about it. Other errors of
# the system may be mistakes of the program, whose traceback is wanted.
REFUSALS = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space there, or name a folder on another disk"
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give this user the right to read and write there"),
    errno.EROFS: "name a folder on a disk that can be written to",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "mend the links that lead in a circle",
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "give a folder where a folder is needed, or a file"
    ),
    errno.EIO: "check the disk",
    errno.EBUSY: "name a path that is not in use",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}


def explain_refusal(error: OSError, place: object = "") -> str:
    """One sentence: which file, what the machine says of it, and what to do.

    Args:
        error: What it raised.
        place: What the sentence is about where the error names no file, as that of a write does, or one of a
            draft, which is gone by then.
    """
    name = _name_file(error, str(place)) or str(place) or f"The disk of the output or of {gettempdir()}"
    code = error.errno or 0
    said = os.strerror(code) if code in errno.errorcode else error.strerror  # a network's have other numbers
    advice = REFUSALS.get(code, "check what is there")
    return f"{display_name(name)}: {said or type(error).__name__}; {advice}."


def _name_file(error: OSError, place: str) -> str:
    # Of a copy the second one is what is written, and the disk of that is full.
    file = error.filename if error.filename2 is None else error.filename2
    if isinstance(file, str | bytes | os.PathLike):
        path = Path(os.fsdecode(file))
        if not any(map(is_draft, path.parts)) or (place and path.is_relative_to(place)):
            return str(path)
    return ""


@contextmanager
def refusals_explained(place: object = "") -> Iterator[None]:
    """Makes one sentence of what the machine refuses: a full disk, a missing right, a name that is too long.

    Args:
        place: See `explain_refusal`.

    Raises:
        InputError: It refused something. Other errors pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise InputError(explain_refusal(error, place)) from error
