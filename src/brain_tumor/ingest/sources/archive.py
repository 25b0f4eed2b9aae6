"""Safe unpacking of zip archives of exports."""

import errno
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from brain_tumor.ingest.split_folders import SPLIT_FOLDERS, find_exports
from brain_tumor.runtime.errors import InputError, explain_os_error
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.text import display_name
from brain_tumor.stores.files import safe_path

DEEPEST = 9  # levels of folders that are searched for an export
COPIED_BYTES = 1 << 20  # at a time
FILE_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: written on a system without file types


class BrokenArchiveError(InputError):
    """An archive is damaged; downloading it again may help."""


def unpack(archive: Path, folder: Path, origin: str) -> Path:
    """Unpacks a zip archive, checking each file's checksum, without loading whole files into memory.

    Args:
        archive: The file.
        folder: The target folder, which must not exist.
        origin: The archive's name in messages.

    Returns:
        The folder that holds the export: the topmost one with splits.

    Raises:
        BrokenArchiveError: It is not a complete zip archive.
        InputError: A file in it has a path outside of the folder, is a link, or cannot be written; or it
            holds no export, or several.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened, Progress("Unpacking", None, "files") as progress:
            # macOS adds a metadata file for each file.
            members = [name for name in opened.infolist() if not name.filename.startswith("__MACOSX/")]
            for member in members:
                # Some Windows programs use backslashes as separators.
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
            f"{origin} cannot be unpacked ({error}); pack it without a password, with deflate compression."
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset before the start of the file
            raise BrokenArchiveError(f"{origin} is not a complete zip archive.") from error
        raise InputError(f"{origin}: {explain_os_error(error, 'a file')}") from error
    return _find_export(folder, origin)


def _check_members(members: list[zipfile.ZipInfo], folder: Path, origin: str) -> None:
    for member in members:
        safe_path(folder, member.filename, origin)
        if stat.S_IFMT(member.external_attr >> 16) not in FILE_TYPES:
            raise InputError(f"{origin} holds {member.filename!r}, a link, so it is rejected.")
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
