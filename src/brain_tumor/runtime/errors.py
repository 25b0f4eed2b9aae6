"""What the user can mend: one sentence and exit code 2."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import gettempdir


class InputError(Exception):
    """Bad input. The message is one sentence that names the file, the row and what to do."""


class DamagedError(InputError):
    """What a step once wrote is not there whole: cut, changed, of another kind, or another version wrote it.

    That it cannot be read or copied, for want of a permission, a connection or space, is no damage.
    """


# What the machine may refuse whatever the program does, and what its user can do about it. Other errors of
# the system may be mistakes of the program, whose traceback is wanted.
REFUSALS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space there, or name a folder on another disk"),
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


@contextmanager
def refusals_explained(place: object = "") -> Iterator[None]:
    """Makes one sentence of what the machine refuses: a full disk, a missing right, a name that is too long.

    Args:
        place: What the sentence names, if not the file that the error does.

    Raises:
        InputError: It refused something. Other errors pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        # The error of a write names no file.
        name = place or os.fsdecode(error.filename or "") or f"The disk of the output or of {gettempdir()}"
        raise InputError(f"{name}: {os.strerror(error.errno)}; {REFUSALS[error.errno]}.") from error
