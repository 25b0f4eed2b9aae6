import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.config import BucketDataset
from brain_tumor.config.compose import compose
from brain_tumor.configure import configure
from brain_tumor.ingest.ingest import ingest
from brain_tumor.ingest.sources.fetch import fetch
from brain_tumor.runtime.errors import InputError
from tests.unit.buckets import Bucket, GoogleBucket
from tests.unit.exports import write_export

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ROWS = {"train": ["volume_1_slice_1.jpg,40,30,label1,2,3,20,20"], "test": []}

# Without given names, labels are read from the bucket.
NAMED = "dataset.labels=[label0,label1,label2]"


def config_at(uri: str) -> BucketDataset:
    config = compose(["dataset=bucket", f"dataset.uri={uri}", NAMED]).steps().dataset
    assert isinstance(config, BucketDataset)
    return config


def fingerprint_of(uri: str) -> str:
    """The fingerprint of an address's content in a run's config."""
    config = configure(["dataset=bucket", f"dataset.uri={uri}", NAMED]).dataset
    assert isinstance(config, BucketDataset)
    return config.fingerprint


def fetch_from(uri: str, scratch: Path) -> Path:
    scratch.mkdir(exist_ok=True)
    return fetch(config_at(uri), scratch)


def pack(folder: Path, archive: Path) -> bytes:
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, path.relative_to(folder))
    return archive.read_bytes()


def put_folder(bucket: Bucket, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export", **ROWS)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_and_an_archive_of_it_are_the_same_data_set(
    bucket: Bucket, export: Path, tmp_path: Path
) -> None:
    put_folder(bucket, export, "data/export/")
    bucket.put("data/export/empty/", b"")  # the web console's marker of a folder
    bucket.put("data/export-2/other.txt", b"another folder with the same prefix")
    bucket.put("data/export.zip", pack(export, tmp_path / "export.zip"))

    datasets: list[Dataset] = []
    for place in ("data/export", "data/export/", "data/export.zip"):
        uri = f"{bucket.address}/{place}"
        name = f"out{len(datasets)}"
        ingest(config_at(uri), tmp_path / name)
        datasets.append(open_dataset(tmp_path / name))

    assert contents(fetch_from(f"{bucket.address}/data/export", tmp_path / "scratch")) == contents(export)
    for dataset in datasets:
        assert len(dataset.images) == 12
        assert dataset.annotations[["label", "xmin", "ymax"]].values.tolist() == [["label1", 2.0, 20.0]]
        assert dataset.images.equals(datasets[0].images)
        assert dataset.annotations.equals(datasets[0].annotations)


def test_a_whole_bucket_can_be_the_folder(bucket: Bucket, export: Path, tmp_path: Path) -> None:
    put_folder(bucket, export, "")
    assert contents(fetch_from(bucket.address, tmp_path / "scratch")) == contents(export)


def test_the_config_depends_on_the_content_at_the_address(bucket: Bucket) -> None:
    bucket.put("a/train/x.jpg", b"x")
    bucket.put("a/train/y.jpg", b"y")
    seen = [fingerprint_of(f"{bucket.address}/a")]
    assert fingerprint_of(f"{bucket.address}/a") == seen[0]
    bucket.put("a/train/x.jpg", b"x")
    assert fingerprint_of(f"{bucket.address}/a") == seen[0], (
        "the same bytes, uploaded again, are the same input"
    )

    bucket.put("a/train/y.jpg", b"z")
    seen.append(fingerprint_of(f"{bucket.address}/a"))
    bucket.put("a/train/z.jpg", b"z")
    seen.append(fingerprint_of(f"{bucket.address}/a"))
    bucket.put("a.zip", b"1")
    seen.append(fingerprint_of(f"{bucket.address}/a.zip"))
    bucket.put("a.zip", b"2")
    seen.append(fingerprint_of(f"{bucket.address}/a.zip"))
    assert len(set(seen)) == 5
    assert all(seen)


def test_a_damaged_object_is_detected(google_bucket: GoogleBucket, export: Path, tmp_path: Path) -> None:
    put_folder(google_bucket, export, "export/")
    google_bucket.put("export.zip", pack(export, tmp_path / "export.zip"))
    google_bucket.damage("export/train/volume_1_slice_2.jpg")
    google_bucket.damage("export.zip")
    for uri in ("gs://bucket/export", "gs://bucket/export.zip"):
        with pytest.raises(
            InputError, match=rf"{uri}: the transferred bytes do not match the bucket's checksum"
        ):
            fetch_from(uri, tmp_path / uri[-3:])


@pytest.mark.parametrize("name", ["../evil.jpg", "train/../../evil.jpg", "/evil.jpg", "train/.."])
def test_an_object_with_a_path_outside_the_folder_is_refused(
    google_bucket: GoogleBucket, tmp_path: Path, name: str
) -> None:
    google_bucket.put("export/train/good.jpg", b"good")
    google_bucket.add_name(f"export/{name}", like="export/train/good.jpg")
    with pytest.raises(InputError, match=r"gs://bucket/export holds .*, a path outside of its folder"):
        fetch_from("gs://bucket/export", tmp_path / "inner")
    assert contents(tmp_path) == {}


def test_an_object_and_a_folder_of_the_same_name_are_one_sentence(
    google_bucket: GoogleBucket, tmp_path: Path
) -> None:
    google_bucket.put("export/train", b"a file")
    google_bucket.put("export/train/a.jpg", b"in a folder")
    with pytest.raises(InputError, match=r"gs://bucket/export: .*train.*: .*; give a folder"):
        fetch_from("gs://bucket/export", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("SCHEME://bucket/nothing", "/nothing holds nothing; dataset.uri must be a zip archive or"),
        ("SCHEME://bucket/broken.zip", "/broken.zip is not a complete zip archive"),
        ("SCHEME://nowhere/data", "://nowhere/data: there is no such bucket or object"),
        ("SCHEME://", ":// is not a bucket address; give it as .*://BUCKET/PATH"),
        ("SCHEME://bucket/a//b", "/a//b is not a bucket address"),
        ("SCHEME://bucket/../b", r"/\.\./b is not a bucket address"),
    ],
)
def test_an_address_without_an_export_is_one_sentence(
    bucket: Bucket, tmp_path: Path, uri: str, message: str
) -> None:
    bucket.put("broken.zip", b"no zip")
    with pytest.raises(InputError, match=message):
        fetch_from(uri.replace("SCHEME", bucket.address[:2]), tmp_path / "scratch")


def test_nothing_is_written_to_the_bucket(bucket: Bucket, export: Path, tmp_path: Path) -> None:
    put_folder(bucket, export, "export/")
    before = bucket.names()
    fetch_from(f"{bucket.address}/export", tmp_path / "scratch")
    assert bucket.names() == before


@pytest.mark.parametrize(
    "script",
    [
        "from brain_tumor.configure import configure; configure(['dataset=roboflow'])",
        "from brain_tumor.training.checkpoints import Checkpoints; Checkpoints('/nowhere').load()",
        "from brain_tumor.stores.locations import *; fingerprint('/nowhere'); import pipelines.clean_runs",
    ],
    ids=["configure", "checkpoints", "locations"],
)
def test_clients_of_remote_sources_are_imported_only_if_used(script: str) -> None:
    names = "{'google.cloud.storage', 'boto3', 'cloudpathlib', 'roboflow'}"
    script = f"{script}; import sys; print(*sorted({names} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_a_configuration_is_composed_without_pandas() -> None:
    script = "from brain_tumor.configure import *; import sys; configure([]); print('pandas' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "False"), result.stderr
