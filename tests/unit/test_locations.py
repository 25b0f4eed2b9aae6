import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.httpsession import URLLib3Session

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.locations import check_writable, fingerprint
from tests.unit.buckets import Bucket, GoogleBucket, S3Bucket

pytestmark = pytest.mark.slow


def test_a_fingerprint_depends_on_names_and_content_not_on_the_location(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "one.jpg").write_bytes(b"1")
    (folder / "train" / "two.jpg").write_bytes(b"2")
    seen = [fingerprint(folder)]

    shutil.copytree(folder, tmp_path / "b")
    os.utime(tmp_path / "b" / "train" / "one.jpg", (0, 0))
    assert fingerprint(tmp_path / "b") == seen[0]

    (folder / "train" / "two.jpg").write_bytes(b"3")
    seen.append(fingerprint(folder))
    (folder / "train" / "two.jpg").rename(folder / "train" / "three.jpg")
    seen.append(fingerprint(folder))
    (folder / "train" / "three.jpg").unlink()
    seen.append(fingerprint(folder))
    assert len(set(seen)) == 4
    assert "" not in seen


def test_the_fingerprint_of_a_file_and_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    assert fingerprint(file) == ""
    file.write_bytes(b"1")
    first = fingerprint(file)
    file.write_bytes(b"2")
    assert first and fingerprint(file) not in ("", first)


def test_an_address_that_is_not_writable_is_reported_beforehand(bucket: Bucket, tmp_path: Path) -> None:
    check_writable(f"{bucket.address}/models")
    check_writable(str(tmp_path / "new"))
    assert bucket.names() == [path.name for path in (tmp_path / "new").iterdir()] == [], "no trace"
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/models.*: Not a directory; give a folder"):
        check_writable(str(tmp_path / "file" / "models"))
    nowhere = f"{bucket.address[:5]}nowhere/models"
    with pytest.raises(InputError, match=f"{nowhere}: there is no such bucket"):
        check_writable(nowhere)


def test_a_missing_permission_to_write_is_reported_beforehand(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_bucket.put("data.zip", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_bucket.reader_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_bucket.reader_secret)
    assert fingerprint("s3://bucket/data.zip")
    with pytest.raises(
        InputError, match="s3://bucket/models: these credentials lack the permission; allow them"
    ):
        check_writable("s3://bucket/models")


def test_the_fingerprint_of_a_bucket_depends_on_names_and_content(bucket: Bucket) -> None:
    for name in ("data/train/one.jpg", "data.zip", "data/train/one.jpg.txt", "copy/train/one.jpg"):
        bucket.put(name, b"1")
    bucket.put("copy/train/one.jpg.txt", b"1")
    seen = [
        fingerprint(f"{bucket.address}/{name}") for name in ("data", "copy/", "data.zip", "dat", "nothing")
    ]
    assert seen[0] == seen[1] != seen[2]
    assert seen[3:] == ["", ""], "a prefix of a name is not a name"
    nowhere = f"{bucket.address[:5]}nowhere"
    with pytest.raises(InputError, match=f"{nowhere}: there is no such bucket"):
        fingerprint(nowhere)


def test_the_fingerprint_of_a_bucket_downloads_nothing(google_bucket: GoogleBucket) -> None:
    google_bucket.put("data/train/one.jpg", b"1")
    before = fingerprint("gs://bucket/data")
    google_bucket.forget_contents()
    assert fingerprint("gs://bucket/data") == before


def test_the_fingerprint_of_many_objects_takes_one_request_per_thousand(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []
    send = URLLib3Session.send

    def count(self: URLLib3Session, request: AWSPreparedRequest) -> AWSResponse:
        requests.append(request.url)
        return send(self, request)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: s3_bucket.put(f"many/{number}.jpg", b"1"), range(1001)))
    monkeypatch.setattr(URLLib3Session, "send", count)
    assert fingerprint("s3://bucket/many")
    assert len(requests) == 3, "one request for an object of that name, and two pages"


def test_a_fingerprint_follows_links(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "a.jpg").write_bytes(name.encode())
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "train").symlink_to(tmp_path / "one" / "train")
    seen = [fingerprint(folder)]
    (folder / "train").unlink()
    (folder / "train").symlink_to(tmp_path / "two" / "train")
    seen.append(fingerprint(folder))
    (tmp_path / "two" / "train" / "a.jpg").write_bytes(b"three")
    seen.append(fingerprint(folder))
    (folder / "valid").symlink_to(tmp_path / "one" / "train")
    seen.append(fingerprint(folder))
    assert len(set(seen)) == 4

    # Recursive and broken links are ignored.
    (tmp_path / "two" / "train" / "loop").symlink_to(tmp_path / "two")
    (folder / "self").symlink_to(folder)
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    (folder / "gone").symlink_to(tmp_path / "gone")
    assert fingerprint(folder)


def test_a_fingerprint_of_names_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "\udcff.jpg").write_bytes(b"")
    first = fingerprint(tmp_path)
    (tmp_path / "\udcff.jpg").rename(tmp_path / "\udcfe.jpg")
    assert first and fingerprint(tmp_path) not in ("", first)


@pytest.mark.parametrize("name", ["x" * 300, "a"])
def test_a_fingerprint_of_unreadable_paths_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    try:
        assert fingerprint(tmp_path / name) == ""
    except InputError as error:
        assert "File name too long; give a shorter name." in str(error)
