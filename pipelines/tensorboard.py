"""Opens TensorBoard on trainings: `python -m pipelines.tensorboard [ADDRESS]`.

TensorBoard reads only local folders. If the address is in a bucket, the event files are copied to this
machine, and copied again when they change while TensorBoard runs.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from brain_tumor.stores.files import FileInfo, safe_path
from brain_tumor.stores.folders import download_file, list_files
from brain_tumor.stores.paths import AnyPath, open_path
from pipelines.image import ROOT

EVENTS = "events.out.tfevents."
POLL_INTERVAL = 30.0  # seconds between two polls of a bucket


class Mirror:
    """A copy of a bucket's event files.

    Args:
        source: A folder of the bucket.
        target: A local folder.
    """

    def __init__(self, source: AnyPath, target: Path) -> None:
        self._source, self._target = source, target
        self._copied: dict[str, FileInfo] = {}

    def update(self) -> int:
        """Copies new and changed files.

        Returns:
            The number of event files in the bucket.

        Raises:
            InputError: The bucket cannot be read.
        """
        found = {info.name: info for info in list_files(self._source) if EVENTS in Path(info.name).name}
        for name, info in found.items():
            if self._copied.get(name) != info:
                path = safe_path(self._target, name, str(self._source))
                path.parent.mkdir(parents=True, exist_ok=True)
                download_file(self._source / name, path)
        self._copied = found
        return len(found)


def open_tensorboard(address: str, arguments: list[str]) -> int:
    """Runs TensorBoard until it is ended.

    Args:
        address: A local folder or one in a bucket; Kubeflow's minio:// addresses work too.
        arguments: Further arguments for TensorBoard.

    Returns:
        Its exit code.

    Raises:
        InputError: There are no event files in the bucket, or it cannot be read.
    """
    source = open_path(address.replace("minio://", "s3://"))
    command = [sys.executable, "-m", "tensorboard.main", *arguments, "--logdir"]
    if isinstance(source, Path):
        return subprocess.call([*command, str(source)])
    with tempfile.TemporaryDirectory() as scratch:
        mirror = Mirror(source, Path(scratch))
        if not mirror.update():
            raise InputError(
                f"{address} has no TensorBoard event files; give the folder of a run's artifacts."
            )
        with subprocess.Popen([*command, scratch]) as process:
            try:
                while True:
                    try:
                        return process.wait(POLL_INTERVAL)
                    except subprocess.TimeoutExpired:
                        mirror.update()
            finally:
                process.terminate()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Open TensorBoard on trainings.")
    parser.add_argument(
        "address", nargs="?", default=str(ROOT / "runs" / "artifacts"), help="a folder or s3://..."
    )
    known, arguments = parser.parse_known_args()
    with step():
        try:
            raise SystemExit(open_tensorboard(known.address, arguments))
        except KeyboardInterrupt:  # the usual way to end it
            raise SystemExit(0) from None


if __name__ == "__main__":
    main()
