"""Images that are damaged or of another kind, unexpected names, folders that are not an export."""

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.campaign.annotations import SPECIALS, _special
from tests.campaign.bench import Bench, Draw, Outcome, image_folders, ingest_bad
from tests.campaign.invariants import Expected
from tests.campaign.workplace import Workplace
from tests.unit.bad_exports import LABELS, SPLITS, VICTIM
from tests.unit.bad_values import damaged
from tests.unit.format_writers import WRITERS, Picture

FORMATS = ["tensorflow", "coco", "yolo", "voc"]


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(mode: str, side: tuple[int, int] = (40, 30)) -> Image.Image:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, side[::-1], dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (*side[::-1], 3), dtype=np.uint8)).convert(mode)


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _save(_noise("L"), "JPEG", exif=exif)


def _png_of(width: int, height: int) -> bytes:
    """A PNG whose header has a different size than its pixels."""
    import struct
    import zlib

    content = bytearray(_save(_noise("L"), "PNG"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def _frames(kind: str) -> bytes:
    others = [_noise("RGB", (40, 30)).rotate(90), _noise("RGB").rotate(180)]
    return _save(_noise("RGB"), kind, save_all=True, append_images=others)


def contents() -> dict[str, bytes]:
    """Contents that may replace a JPEG, by description."""
    jpeg = VICTIM.jpeg()
    return {
        "empty": b"",
        "text": b"no image",
        "html": b"<html><script>alert(1)</script></html>",
        "cmyk": _save(_noise("CMYK"), "JPEG"),
        "png named jpg": _save(_noise("L"), "PNG"),
        "16 bit": _save(_noise("I;16"), "PNG"),
        "palette": _save(_noise("P"), "PNG", transparency=3),
        "alpha": _save(_noise("RGBA"), "PNG"),
        "1 bit": _save(_noise("1"), "PNG"),
        "progressive": _save(_noise("RGB"), "JPEG", progressive=True),
        "animated png": _frames("PNG"),
        "gif": _frames("GIF"),
        "webp": _save(_noise("RGB"), "WEBP"),
        "bmp": _save(_noise("RGB"), "BMP"),
        "tiff": _save(_noise("I;16"), "TIFF"),
        "several": _frames("MPO"),
        "turned": _turned(6),
        "upright": _turned(1),
        "no orientation": _turned(99),
        "one pixel": _save(_noise("L", (1, 1)), "PNG"),
        "long": _save(_noise("L", (2000, 1)), "PNG"),
        "huge header": _png_of(50_000, 50_000),
        "larger header": _png_of(60, 60),
        "no width": _png_of(0, 30),
        "trailing bytes": jpeg + b"\0" * 3000,
        "twice": jpeg + jpeg,
        "only a beginning": jpeg[:20],
        "without its end": jpeg[:-2],
        "zip": b"PK\5\6" + bytes(18),
    }


CONTENTS = contents()


def bad_images(bench: Bench, draw: Draw) -> Outcome:
    """The second image's file is damaged, another image, not an image, or not a file."""
    export_format = draw(st.sampled_from(FORMATS))
    files = bench.exports[export_format]
    path = next(name for name in files if name.endswith(f"/{VICTIM.name}"))
    how = draw(st.sampled_from(["content", "content", "content", "damaged", "special"]))
    content = VICTIM.jpeg()
    if how == "content":
        content = CONTENTS[draw(st.sampled_from(sorted(CONTENTS)))]
    elif how == "damaged":
        content = draw(damaged(content))
    kind = draw(st.sampled_from(SPECIALS)) if how == "special" else ""

    def change(place: Workplace) -> None:
        if kind:
            _special(place.export / path, kind)

    def expected(place: Workplace) -> Expected:
        return Expected(entries=1, folders=image_folders(place, export_format))

    return ingest_bad(bench, draw, export_format, files | {path: content}, expected, change)


STEMS = [
    *("e\u0301tude", "étude", "x" * 251, "é" * 125, "100%", "%s%n", "${HOME}", "{x}", "a b", "-rf"),
    *("--output", "a,b", "a;b", "'quoted'", '"quoted"', "macro", "<b>", "&amp;", "a\\b", "C:\\x"),
    *("..\\..\\x", "a\nb", "a\tb", "\u202egpj", "\ufeffx", "名前", "😀", "CON", "nan", "1e5"),
    *("volume_9_slice_" + "9" * 30, "volume_²_slice_³", "x.jpg", "x.rf.0a1b", "x.txt", "train"),
    *("_annotations", "a#b", "a?b", "a*b", " a", "a ", "~", "$(id)", "`id`"),
]
SUFFIXES = [".jpg", ".JPG", ".jpeg", ".png", ".Jpg", ".jpg.jpg"]


def bad_names(bench: Bench, draw: Draw) -> Outcome:
    """The second image has another name, with or without its annotations."""
    export_format = draw(st.sampled_from([*FORMATS, "tfrecord"]))
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
    stem = draw(st.sampled_from(STEMS) | st.text(letters, min_size=1, max_size=20))
    name = stem + draw(st.sampled_from(SUFFIXES))
    follows = draw(st.booleans()) and len(os.fsencode(name)) <= 255 and not name.startswith(".")
    folder = bench.folder / "written"
    picture = Picture(name if follows else VICTIM.name, VICTIM.boxes)
    try:
        WRITERS[export_format](folder, {**SPLITS, "train": [SPLITS["train"][0], picture]}, LABELS)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    finally:
        shutil.rmtree(folder)
    raw = os.fsencode(name) if draw(st.booleans()) else os.fsencode(name)[:-4] + b"\xff\xe9" + b".jpg"

    def change(place: Workplace) -> None:
        folders = image_folders(place, export_format)
        if not follows and folders and len(raw) <= 255:
            os.rename(folders["train"] / VICTIM.name, os.path.join(os.fsencode(folders["train"]), raw))

    def expected(place: Workplace) -> Expected:
        folders = image_folders(place, export_format)
        return Expected(entries=1, victim=picture.name, folders=folders)

    return ingest_bad(bench, draw, export_format, files, expected, change)


def _nested(folder: Path) -> None:
    for _ in range(60):
        folder = folder / ("d" * 30)
        folder.mkdir()


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("../../evil.txt", "evil")


def _copied(name: str) -> Callable[[Path], object]:
    return lambda export: shutil.copytree(export / "train", export / name)


def _link(path: str, target: str) -> Callable[[Path], object]:
    return lambda export: (export / path).symlink_to(target)


CHANGES: dict[str, Callable[[Path], object]] = {
    "no valid": lambda export: shutil.rmtree(export / "valid"),
    "no train": lambda export: shutil.rmtree(export / "train"),
    "only train": lambda export: [shutil.rmtree(export / split) for split in ("valid", "test")],
    "nothing": lambda export: [shutil.rmtree(export), export.mkdir()],
    "a file": lambda export: [shutil.rmtree(export), export.write_text("no folder")],
    "gone": shutil.rmtree,
    "train a file": lambda export: [shutil.rmtree(export / "train"), (export / "train").write_text("")],
    "train empty": lambda export: [shutil.rmtree(export / "train"), (export / "train").mkdir()],
    "val beside valid": _copied("val"),
    "Train beside train": _copied("Train"),
    "train in train": lambda export: _copied("train/train")(export),
    "a loop": _link("train/again", ".."),
    "a link to itself": _link("train/self.jpg", "self.jpg"),
    "a link to documents": _link("train/notes", "../../../documents"),
    "an image by a link": _link("train/linked.jpg", f"../train/{VICTIM.name}"),
    "nested folders": lambda export: _nested(export / "train"),
    "a zip": lambda export: _zip(export / "train"),
    "split by a link": lambda export: [
        (export / "valid").rename(export.parent / "elsewhere"),
        (export / "valid").symlink_to(export.parent / "elsewhere"),
    ],
    "a pipe": lambda export: os.mkfifo(export / "train" / "pipe.jpg"),
    "companions": lambda export: [
        (export / "train" / name).write_bytes(b"x") for name in (".DS_Store", "Thumbs.db")
    ],
    "hidden image": lambda export: (export / "train" / "._shadow.jpg").write_bytes(b"x"),
    "another format": lambda export: (export / "train" / "_annotations.coco.json").write_text("{}"),
    "other images": lambda export: [
        (export / "train" / f"a.{kind}").write_bytes(b"x") for kind in ("bmp", "dcm")
    ],
    "same stem": lambda export: (export / "train" / f"{Path(VICTIM.name).stem}.png").write_bytes(
        CONTENTS["alpha"]
    ),
    "unreadable folder": lambda export: (export / "train").chmod(0),
    "unreadable file": lambda export: [path.chmod(0) for path in sorted((export / "train").iterdir())[:1]],
    "unreadable export": lambda export: export.chmod(0),
    "unsearchable folder": lambda export: (export / "valid").chmod(0o600),
}


def bad_folders(bench: Bench, draw: Draw) -> Outcome:
    """The export's folders are wrong, or must not be read."""
    export_format = draw(st.sampled_from([*FORMATS, "tfrecord"]))
    chosen = draw(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=2, unique=True))

    def change(place: Workplace) -> None:
        place.limits["restricted"] = True
        for name in chosen:
            try:
                CHANGES[name](place.export)
            except OSError:  # another change has removed the target of this one
                continue

    def expected(place: Workplace) -> Expected:
        return Expected(good=False, folders=image_folders(place, export_format))

    return ingest_bad(bench, draw, export_format, bench.exports[export_format], expected, change)
