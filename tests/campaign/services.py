"""A Roboflow server on loopback with arbitrary responses, which repeat the key where possible."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from tests.campaign.bench import Bench, Draw, Outcome, ending
from tests.campaign.invariants import Watch
from tests.campaign.workplace import workplace
from tests.unit.bad_values import damaged, trees
from tests.unit.roboflow_service import (
    KEY,
    SIGNATURE,
    Answer,
    Handler,
    Service,
    cut,
    cut_chunked,
    hang_up,
    hashed,
    link,
    malformed_headers,
    redirect,
    status,
    text,
    whole,
)

LABELS = ["label0", "опухоль, 2"]
ADDRESSES = [
    *("", "/", "http://", "https://", "file:///etc/passwd", "ftp://127.0.0.1/x"),
    *(f"http://127.0.0.1:1/?api_key={KEY}", f"http://[::1/{KEY}", f"http://{KEY}@127.0.0.1:1/"),
    *("http://\ud800", "http://a b", f"http://{'x' * 300}.invalid/{KEY}", f"http://127.0.0.1:99999/{KEY}"),
    *("javascript:alert(1)", f"HTTP://127.0.0.1:1/{KEY}", f"http://127.0.0.1:1/{KEY}\r\nX: y"),
]


def packed(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _answer(draw: Draw, archive: bytes) -> Answer:
    """The service's response to the request for the download link."""
    made: dict[str, Callable[[], Answer]] = {
        "link": lambda: link,
        "status": lambda: status(
            draw(st.sampled_from([100, 204, 301, 400, 401, 403, 404, 418, 429, 500, 503, 999]))
        ),
        "text": lambda: text(
            draw(st.sampled_from(["", "[" * 100_000, "9" * 5000, "{", "null", KEY, "\x00"]))
        ),
        "tree": lambda: whole(json.dumps(draw(trees)).encode()),
        "export": lambda: whole(json.dumps({"export": {"link": draw(trees)}}).encode()),
        "address": lambda: whole(json.dumps({"export": {"link": draw(st.sampled_from(ADDRESSES))}}).encode()),
        "redirect": lambda: redirect(draw(st.sampled_from(ADDRESSES))),
        "hang up": lambda: hang_up,
        "headers": lambda: malformed_headers(link),
        "cut": lambda: cut(json.dumps({"export": {"link": f"http://127.0.0.1/{SIGNATURE}"}}).encode()),
        "bytes": lambda: whole(draw(st.binary(max_size=40))),
        "archive": lambda: whole(archive),
    }
    return made[draw(st.sampled_from(["link"] * 12 + sorted(made)))]()


MEMBERS = [
    *("../evil.txt", "../../evil.txt", "../../../documents/evil.txt", "ROOT/documents/evil.txt"),
    *("..\\..\\evil.txt", "train/../../evil.txt", "C:\\evil.txt", "train\\volume_1_slice_9.jpg", "a\0b"),
    *("x" * 300, "train/_annotations.csv/x", "train/" * 200 + "x", "__MACOSX/x", "train/", "nested.zip"),
    *("train/" + "é" * 200 + ".jpg", "val/x", ".", ".."),
]


def _download(draw: Draw, files: dict[str, bytes], root: Path) -> Answer:
    """The response at the download link."""
    more = draw(st.lists(st.sampled_from(MEMBERS), max_size=2))
    archive = packed(files | {name.replace("ROOT", str(root)): b"evil" for name in more})
    made: dict[str, Callable[[], Answer]] = {
        "whole": lambda: whole(archive),
        "damaged": lambda: whole(draw(damaged(archive))),
        "cut": lambda: cut(archive),
        "chunked": lambda: cut_chunked(archive),
        "status": lambda: status(draw(st.sampled_from([204, 302, 400, 403, 404, 410, 500]))),
        "redirect": lambda: redirect(draw(st.sampled_from(ADDRESSES))),
        "hash": lambda: hashed(archive, draw(st.sampled_from(["md5=AAAA", "crc32c=x", "", "md5=" + KEY]))),
        "length": lambda: _with_length(archive, draw(st.sampled_from(["-1", "9" * 30, "x", "5", ""]))),
        "zip of zips": lambda: whole(packed({"a.zip": archive, "b/c.zip": archive})),
        "no export": lambda: whole(packed({"README.md": KEY.encode()})),
        "two exports": lambda: whole(
            packed({f"{top}/{name}": files[name] for top in "ab" for name in files})
        ),
        "deep": lambda: whole(packed({f"{'d/' * 12}{name}": files[name] for name in files})),
        "lacking": lambda: whole(packed(dict(list(files.items())[:-1]))),
        "hang up": lambda: hang_up,
    }
    return made[draw(st.sampled_from(sorted(made)))]()


def _with_length(content: bytes, length: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send(200, content, Content_Length=length)
        handler.close_connection = True

    return answer


def bad_service(bench: Bench, draw: Draw) -> Outcome:
    """Roboflow's responses are arbitrary."""
    export_format = draw(st.sampled_from(["tensorflow", "coco", "voc"]))
    files = bench.exports[export_format]
    archive = packed(files)
    with workplace(bench.folder, bench.server, {}) as place, Service(archive) as service:
        service.on_question = [_answer(draw, archive) for _ in range(draw(st.integers(1, 2)))]
        service.on_download = [_download(draw, files, place.root) for _ in range(draw(st.integers(1, 2)))]
        place.environment |= {"API_URL": service.address, "NO_PROXY": "127.0.0.1"}
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            place.environment[name] = ""
        watch = Watch(place)
        ended = place.ingest(
            {"source": "roboflow", "labels": LABELS, "format": export_format, "max_bad_fraction": 1.0}
        )
        return ending(ended), watch.check(ended)
