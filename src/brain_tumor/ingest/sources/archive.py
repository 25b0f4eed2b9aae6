"""Zip archives of exports, unpacked so that nothing leaves the folder."""

import errno
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from brain_tumor.ingest.split_folders import SPLIT_FOLDERS, find_exports
from brain_tumor.runtime.errors import InputError, explain_refusal
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.text import display_name
from brain_tumor.stores.files import safe_path

DEEPEST = 9  # levels of folders in which an export is looked for
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
        The folder that holds the export: the shallowest one with splits.

    Raises:
        BrokenArchiveError: It is not a complete zip archive.
        InputError: A file in it leaves the folder, is a link, or cannot be written; or it holds no export, or
            several.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened, Progress("Unpacking", None, "files") as progress:
            # macOS adds a shadow of each file.
            members = [name for name in opened.infolist() if not name.filename.startswith("__MACOSX/")]
            for member in members:
                # As some programs write names on Windows.
                member.filename = member.filename.replace("\\", "/")
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
        raise BrokenArchiveError(f"{origin} is not a complete zip archive ({error}).") from error
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{origin} cannot be unpacked ({error}); pack it without password, by deflate."
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset that lies before the file's beginning
            raise BrokenArchiveError(f"{origin} is not a complete zip archive.") from error
        raise InputError(f"{origin}: {explain_refusal(error, 'a file')}") from error
    return _find_export(folder, origin)


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


def _find_export(folder: Path, origin: str) -> Path:
    found = find_exports(folder, DEEPEST)
    if len(found) > 1:
        names = " and ".join(display_name(path.relative_to(folder).as_posix()) for path in found[:2])
        raise InputError(f"{origin} holds several exports: {names}; pack one of them.")
    if not found:
        archives = sorted(path.name for path in folder.rglob("*") if path.name.lower().endswith(".zip"))
        inside = f" but another archive, {display_name(archives[0])}; unpack that first" if archives else ""
        names = ", ".join(f"{names[0]}/" for names in SPLIT_FOLDERS.values())
        raise InputError(f"{origin} holds none of {names}{inside or '; pack the folder of an export'}.")
    return found[0]
