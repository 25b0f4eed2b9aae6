"""Errors that the user can fix: one sentence and exit code 2."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from brain_tumor.runtime.drafts import is_draft
from brain_tumor.runtime.text import display_name, shorten


class InputError(Exception):
    """Bad input. The message is one sentence that names the file, the row and what to do.

    A long message is shortened in the middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shorten(message))


class UnavailableError(InputError):
    """A service is not reachable or fails. A later attempt may succeed, so a cluster retries the step."""


class DamagedError(InputError):
    """An artifact or checkpoint is truncated, changed, of another kind, or from another version.

    A failure to read or copy it (permission, connection, disk space) is another InputError.
    """


# Errors of the operating system that the user can fix, and how. Other OSErrors may be bugs, and keep their
# traceback.
FIXABLE_ERRORS = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space there, or name a folder on another disk"
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give this user permission to read and write there"),
    errno.EROFS: "name a folder on a disk that can be written to",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "fix the circular symbolic links",
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "give a folder where a folder is needed, or a file"
    ),
    errno.EIO: "check the disk",
    errno.EBUSY: "name a path that is not in use",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}


def explain_os_error(error: OSError, place: object = "") -> str:
    """One sentence: which file, the system's error message, and what to do.

    Args:
        error: The error.
        place: The path to name if the error has no path (such as that of a failed write), or one in a draft,
            which is deleted by then.
    """
    name = _name_file(error, str(place)) or str(place) or f"The disk of the output or of {gettempdir()}"
    code = error.errno or 0
    # Network errors have other numbers.
    reason = os.strerror(code) if code in errno.errorcode else error.strerror
    advice = FIXABLE_ERRORS.get(code, "check the path")
    return f"{display_name(name)}: {reason or type(error).__name__}; {advice}."


def _name_file(error: OSError, place: str) -> str:
    # For a copy, the second file is the one written to.
    file = error.filename if error.filename2 is None else error.filename2
    if isinstance(file, str | bytes | os.PathLike):
        path = Path(os.fsdecode(file))
        if not any(map(is_draft, path.parts)) or (place and path.is_relative_to(place)):
            return str(path)
    return ""


@contextmanager
def os_errors_explained(place: object = "") -> Iterator[None]:
    """Turns OSErrors that the user can fix, such as a full disk, into InputErrors.

    Args:
        place: See `explain_os_error`.

    Raises:
        InputError: For an error in `FIXABLE_ERRORS`. Other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FIXABLE_ERRORS:
            raise
        raise InputError(explain_os_error(error, place)) from error
