"""Zip archives of exports, unpacked so that nothing leaves the folder."""

import errno
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from brain_tumor.ingest.split_folders import SPLIT_FOLDERS
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.progress import Progress
from brain_tumor.stores.files import safe_path

COPIED_BYTES = 1 << 20  # at a time
FILE_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made where files have no type


class BrokenArchiveError(InputError):
    """An archive whose bytes are not those that were packed: another download may be whole."""


def unpack(archive: Path, folder: Path, origin: str) -> Path:
    """Unpacks a zip archive; each file is checked against its checksum, and none is ever whole in memory.

    Args:
        archive: The file.
        folder: Where its files go; made new.
        origin: What a message calls the archive.

    Returns:
        The folder that holds the export: the deepest one that holds all the rest.

    Raises:
        BrokenArchiveError: It is no whole zip archive.
        InputError: A file in it leaves the folder, is a link, or cannot be written.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened, Progress("Unpacking", None, "files") as progress:
            # macOS adds a shadow of each file.
            members = [name for name in opened.infolist() if not name.filename.startswith("__MACOSX/")]
            _check_members(members, folder, origin)
            progress.total = len(members)
            for member in members:
                progress.update()
                if not member.is_dir():
                    target = safe_path(folder, member.filename, origin)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, open(target, "xb") as file:
                        shutil.copyfileobj(source, file, COPIED_BYTES)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, UnicodeDecodeError) as error:
        raise BrokenArchiveError(f"{origin} is no whole zip archive ({error}).") from error
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{origin} cannot be unpacked ({error}); pack it without password, by deflate."
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset that lies before the file's beginning
            raise BrokenArchiveError(f"{origin} is no whole zip archive.") from error
        name = error.filename or "a file"
        raise InputError(f"{origin}: {name} cannot be written ({error.strerror}).") from error
    return _find_export(folder)


def _check_members(members: list[zipfile.ZipInfo], folder: Path, origin: str) -> None:
    for member in members:
        safe_path(folder, member.filename, origin)
        if stat.S_IFMT(member.external_attr >> 16) not in FILE_TYPES:
            raise InputError(f"{origin} holds {member.filename!r}, a link; nothing of it is used.")
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{origin} needs {needed / 1e9:.1f} GB unpacked, {folder} has {free / 1e9:.1f} GB left; "
            "set TMPDIR to a folder with more."
        )


def _find_export(folder: Path) -> Path:
    splits = {name for names in SPLIT_FOLDERS.values() for name in names}
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and entries[0].name not in splits:
        return _find_export(entries[0])
    return folder
