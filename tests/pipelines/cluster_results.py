"""Results of steps on a cluster, for tests in which no step runs: real artifacts except for the pages."""

import shutil
from pathlib import Path

from brain_tumor.artifacts.evaluation import write_evaluation
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.stores.files import walk_files
from tests.unit.buckets import S3Bucket
from tests.unit.small_predictions import NOTICE, make_predictions

BUCKET = "mlpipeline"


def make_results(folder: Path, dataset: Path) -> Path:
    """Makes a folder with the steps' outputs by name.

    Args:
        folder: A new folder.
        dataset: A dataset artifact.
    """
    found = make_predictions(folder / "predictions", 12, NOTICE)
    write_evaluation(
        folder / "evaluation", evaluate_predictions(EvaluateConfig(bootstrap_samples=200, seed=1), found)
    )
    # No images, since each upload takes time.
    shutil.copytree(dataset, folder / "dataset", ignore=shutil.ignore_patterns("images"))
    (folder / "gallery").write_text("<!doctype html><p>The pictures</p>")
    (folder / "data_report").write_text("<!doctype html><p>The data</p>")
    return folder


def files_below(path: Path) -> dict[str, bytes]:
    """The bytes of a file under an empty name, or of a folder's files by their names with a leading slash."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {f"/{file.relative_to(path).as_posix()}": file.read_bytes() for file in walk_files(path)}


class Uploads:
    """Uploads a step's output as Kubeflow's launcher does, if there is one.

    Args:
        results: See `make_results`.
        bucket: An S3 server.
    """

    def __init__(self, results: Path, bucket: S3Bucket) -> None:
        self._results, self._bucket = results, bucket
        self.addresses: dict[str, str] = {}
        self.objects: dict[str, bytes] = {}

    def __call__(self, task: str, output: str, address: str) -> None:
        self.addresses[output] = address
        if (self._results / output).exists():
            for name, content in files_below(self._results / output).items():
                key = address.removeprefix(f"minio://{BUCKET}/") + name
                self._bucket.client.put_object(Bucket=BUCKET, Key=key, Body=content)
                self.objects[key] = content
