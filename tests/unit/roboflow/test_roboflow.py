import base64
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from brain_tumor.ingest.ingest import ingest
from brain_tumor.ingest.sources import roboflow
from brain_tumor.runtime.errors import InputError, UnavailableError
from tests.unit import roboflow_service as service
from tests.unit.roboflow_service import KEY, SIGNATURE, Service
from tests.unit.roboflow_watch import PATH, Watch, make_config, pack, without


def test_a_version_is_downloaded_and_ingested(server: Service, watch: Watch) -> None:
    dataset = watch.ingest()

    assert dataset.manifest.counts["train"].images == 6
    assert sorted(dataset.annotations["label"]) == ["label0", "label1", "label2"]
    assert dataset.manifest.source == "roboflow"
    assert server.questions == [(PATH, {"api_key": [KEY], "nocache": ["true"]})]
    assert server.downloads == [{"X-Goog-Signature": [SIGNATURE]}]


def test_the_config_names_the_version(server: Service, watch: Watch) -> None:
    watch.fetch(
        "dataset.workspace=some one", "dataset.project=a/b", "dataset.version=7", "dataset.format=coco"
    )
    assert server.questions[0][0] == "/some%20one/a%2Fb/7/coco"


def test_the_key_may_stand_in_a_file_of_the_working_folder_or_above(
    server: Service, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(roboflow.KEY)
    env = watch.folder / "work" / ".env"
    env.write_text(f"# mine\n{roboflow.KEY}={KEY[::-1]}\n")
    below = watch.folder / "work" / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    watch.fetch()
    assert server.questions[-1][1]["api_key"] == [KEY[::-1]]
    assert roboflow.KEY not in os.environ

    monkeypatch.setenv(roboflow.KEY, KEY)
    watch.fetch()
    assert server.questions[-1][1]["api_key"] == [KEY], "the environment goes first"


@pytest.mark.parametrize("env", [None, "", f"{roboflow.KEY}=\n", f"{roboflow.KEY}='  '\n", "no assignment\n"])
def test_without_a_key_a_sentence_says_where_to_get_it_and_where_to_put_it(
    server: Service, watch: Watch, monkeypatch: pytest.MonkeyPatch, env: str | None
) -> None:
    monkeypatch.setenv(roboflow.KEY, "")
    if env is not None:
        (watch.folder / "work" / ".env").write_text(env)
    message = watch.fail("needs an API key: copy yours from https://app.roboflow.com/settings/api")
    assert "environment variable ROBOFLOW_API_KEY" in message and "file .env" in message
    assert server.questions == []


def test_a_key_file_that_is_not_text_is_one_sentence(
    server: Service, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(roboflow.KEY)
    (watch.folder / "work" / ".env").write_bytes(b"ROBOFLOW_API_KEY=\xff\xfe\n")
    watch.fail(r"\.env cannot be read")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (401, r"refuses the key for yousef.* \(status 401\): check ROBOFLOW_API_KEY against https://app"),
        (403, r"refuses the key .* \(status 403\)"),
        (404, r"version 2 \(tensorflow\) does not exist, or not for this key \(status 404\): check dataset"),
        (400, r"refuses to export .* \(status 400\): check dataset\.format"),
    ],
)
def test_a_refusal_is_one_sentence_and_not_retried(
    server: Service, watch: Watch, code: int, message: str
) -> None:
    server.on_question = [service.status(code)]
    watch.fail(message)
    assert (len(server.questions), len(server.downloads)) == (1, 0)


# Temporary failures: where they occur, how, and the message if they persist.
PASSING: dict[str, tuple[str, Callable[[bytes], service.Answer], str]] = {
    "500": ("on_question", lambda _: service.status(500), "status 500"),
    "503": ("on_question", lambda _: service.status(503), "status 503"),
    "429": ("on_question", lambda _: service.status(429), "status 429"),
    "no answer": ("on_question", lambda _: service.hang_up, r"could not be reached \(ConnectionError\)"),
    "no JSON": ("on_question", lambda _: service.text("<html>"), "without the link"),
    "a list": ("on_question", lambda _: service.text("[1]"), "without the link"),
    "no export": ("on_question", lambda _: service.text('{"export": null}'), "without the link"),
    "no link": ("on_question", lambda _: service.text('{"export": {"link": 3}}'), "without the link"),
    "a file's link": (
        "on_question",
        lambda _: service.text('{"export": {"link": "file:///etc/passwd"}}'),
        "without the link",
    ),
    "a broken link": (
        "on_question",
        lambda _: service.text(f'{{"export": {{"link": "http://[{SIGNATURE}"}}}}'),
        r"could not be reached \(InvalidURL\)",
    ),
    "link refused": ("on_download", lambda _: service.status(403), "status 403"),
    "link's server fails": ("on_download", lambda _: service.status(502), "status 502"),
    "connection cut": ("on_download", service.cut, "was cut off after .* bytes"),
    "connection cut, no length": ("on_download", service.cut_chunked, "was cut off after .* bytes"),
    "connection closed": ("on_download", lambda _: service.hang_up, "could not be reached"),
    "empty": ("on_download", lambda _: service.whole(b""), "was empty"),
    "no zip": (
        "on_download",
        lambda _: service.text("<html>Sign in</html>"),
        "is not a complete zip archive",
    ),
    "zip truncated": (
        "on_download",
        lambda zip_: service.whole(zip_[:-500]),
        "is not a complete zip archive",
    ),
    "zip damaged": (
        "on_download",
        lambda zip_: service.whole(zip_.replace(b"40,30,label1", b"40,30,label2")),
        "is not a complete zip archive",
    ),
    "wrong checksum": (
        "on_download",
        lambda zip_: service.hashed(zip_, "crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg=="),
        "does not match the server's checksum",
    ),
}


@pytest.mark.parametrize(("where", "how", "message"), PASSING.values(), ids=PASSING)
def test_temporary_failures_are_retried_and_then_one_sentence(
    server: Service,
    watch: Watch,
    archive: bytes,
    where: str,
    how: Callable[[bytes], service.Answer],
    message: str,
) -> None:
    good = getattr(server, where)[0]
    setattr(server, where, [how(archive)])
    watch.fail(f"could not be downloaded in 5 attempts .*{message}.*; try again later")
    assert len(server.questions) == 5, "each attempt requests a new link"

    server.questions.clear()
    server.downloads.clear()
    setattr(server, where, [how(archive), good])
    watch.caplog.clear()
    assert "train/volume_1_slice_1.jpg" in watch.fetch()
    assert len(server.questions) == 2
    [warning] = [record.getMessage() for record in watch.caplog.records if record.levelname == "WARNING"]
    assert "Next attempt in 0 s (1 of 5 failed)" in warning


HOSTILE = {
    "deep JSON": service.text('{"export": ' + "[" * 100_000),
    "a number without end": service.text('{"export": ' + "9" * 5000 + "}"),
    "no text": lambda handler: handler.send(200, b'{"export": {"link": "http://\xff"}}'),
    "a link to nowhere": service.text('{"export": {"link": "http://[::1"}}'),
    "a link with a broken port": service.text('{"export": {"link": "http://a:99999999/x"}}'),
    "a link of half a letter": service.text('{"export": {"link": "http://\\ud800/x"}}'),
    "a long host": service.text('{"export": {"link": "http://' + "a" * 300 + '/x"}}'),
    **{
        f"a redirect to {address}": service.redirect(f"{address}{KEY}")
        for address in (
            "http://[",
            "http://a:b/",
            "ftp://host/",
            "file:///etc/",
            "http://.a/",
            "//",
            "http://*/",
        )
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_one_sentence(server: Service, watch: Watch, name: str) -> None:
    server.on_question = [HOSTILE[name]]
    watch.fail("could not be downloaded in 5 attempts .*; try again later")


def test_a_length_without_end_announces_none(server: Service, watch: Watch, archive: bytes) -> None:
    server.on_download = [lambda handler: handler.send(200, archive, Content_Length="9" * 5000)]
    assert "train/volume_1_slice_1.jpg" in watch.fetch()


def test_missing_certificates_are_one_sentence(
    server: Service, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    server.on_question = [service.text('{"export": {"link": "https://127.0.0.1:9/x"}}')]
    watch.fail("certificates for verifying Roboflow's cannot be read; fix or unset REQUESTS_CA_BUNDLE")


def test_the_back_off_grows() -> None:
    class State:
        attempt_number = 1

    waits = []
    for State.attempt_number in range(1, 5):
        waits.append(roboflow.BACK_OFF(State()))  # type: ignore[arg-type]
    assert waits == sorted(waits) and 1 <= waits[0] <= 2 and 8 <= waits[-1] <= 9


def test_an_export_in_progress_is_waited_for(
    server: Service, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on_question = [service.status(202), service.status(202), service.link]
    assert "train/volume_1_slice_1.jpg" in watch.fetch()
    assert len(server.questions) == 3

    server.on_question = [service.status(202)]
    monkeypatch.setattr(roboflow, "EXPORT_LIMIT", 0.0)
    monkeypatch.setattr(roboflow, "EXPORT_POLL", 0.01)
    with pytest.raises(InputError, match="is still being exported after 0 minutes; run again later"):
        watch.fetch()


def test_the_servers_checksum_is_verified(server: Service, watch: Watch, archive: bytes) -> None:
    md5 = base64.b64encode(hashlib.md5(archive).digest()).decode()
    server.on_download = [service.hashed(archive, f"crc32c=AAAAAA==, md5={md5}")]
    assert "train/volume_1_slice_1.jpg" in watch.fetch()
    assert len(server.downloads) == 1


def test_a_broken_header_does_not_leak_an_address_into_the_log(server: Service, watch: Watch) -> None:
    server.on_question = [service.malformed_headers(service.link)]
    server.on_download = [service.malformed_headers(server.on_download[0])]
    assert "train/volume_1_slice_1.jpg" in watch.fetch()


@pytest.mark.parametrize("name", ["../evil.txt", "train/../../../evil.txt", "/tmp/evil-from-a-zip.txt"])
def test_an_archive_whose_paths_leave_the_folder_is_refused_at_once(
    server: Service, watch: Watch, export: Path, name: str
) -> None:
    server.on_download = [service.whole(pack(export, **{name: b"evil"}))]
    watch.fail("a path outside of its folder, so it is rejected")
    assert len(server.downloads) == 1
    assert not Path("/tmp/evil-from-a-zip.txt").exists()


def test_an_archive_with_a_link_is_refused(server: Service, watch: Watch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        entry = zipfile.ZipInfo("train/a.jpg")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(entry, "/etc/passwd")
    server.on_download = [service.whole(buffer.getvalue())]
    watch.fail(r"'train/a\.jpg', a link, so it is rejected")


def test_an_export_that_lacks_an_annotated_image_is_incomplete(
    server: Service, watch: Watch, export: Path
) -> None:
    lacking = without(export, "train/volume_1_slice_1.jpg", "train/volume_2_slice_1.jpg")
    server.on_download = [service.whole(lacking)]
    watch.fail(
        r"version 2 \(tensorflow\) is incomplete: train lacks 2 of the images that its annotations name, the "
        r"first is volume_1_slice_1\.jpg"
    )
    assert len(server.downloads) == 1


def test_an_export_without_its_files_is_one_sentence(server: Service, watch: Watch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("README.roboflow.txt", "nothing")
    server.on_download = [service.whole(buffer.getvalue())]
    watch.fail("train/")


def test_an_unreachable_service_is_one_sentence(
    server: Service, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.shutdown()
    server.server_close()
    watch.fail(r"could not be downloaded in 5 attempts .*could not be reached \(ConnectionError\)")
    with pytest.raises(UnavailableError):  # not bad input: a cluster repeats the step
        ingest(make_config(), watch.folder / "dataset")


def test_the_key_file_stays_out_of_git_and_of_the_image() -> None:
    root = Path(__file__).resolve().parents[3]
    assert ".env" in (root / ".gitignore").read_text().splitlines()
    assert (root / ".dockerignore").read_text().splitlines()[-1] == "**/.env", (
        "no later line includes it again"
    )
    assert (root / ".env.example").read_text().splitlines()[-1] == f"{roboflow.KEY}="
