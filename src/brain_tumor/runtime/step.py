"""How a step logs and exits.

Logs go to stderr, events to a file (`brain_tumor.runtime.events`). Bad input is
reported in one sentence with exit code 2. Temporary files are removed.
"""

import gc
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from brain_tumor.runtime import events
from brain_tumor.runtime.drafts import draft_folder
from brain_tumor.runtime.errors import InputError, UnavailableError, os_errors_explained
from brain_tumor.runtime.signals import INTERRUPTED, TERMINATED
from brain_tumor.runtime.text import one_line

# In a pod, the container's termination log, which Kubernetes and Argo show. In Kubeflow a failed step's
# container always exits with code 1, so only this message tells the cluster that a retry is useless
# (kind-cluster/kubeflow/pipelines/retries.yaml).
TERMINATION_LOG = Path("/dev/termination-log")
BAD_INPUT = "Bad input: "


@contextmanager
def step() -> Iterator[None]:
    """The context in which a step runs, in a component or on the command line.

    Temporary files go to a folder of the process, which is deleted at the end, on SIGTERM too; folders left
    by killed processes are deleted at the start.

    In a pod, the error message is written to the container's termination log, with a prefix that keeps the
    cluster from retrying the step, unless the error is an UnavailableError.

    The body calls `events.begin` once the step's title is known; its end or failure is written here. Modules
    that import TensorFlow must be imported in the body, after the settings made here.

    Raises:
        SystemExit: With code 2, after logging the message, if the body raised InputError or an OSError that
            the user can fix (see `os_errors_explained`); with code 143 on SIGTERM, and code 130 on SIGINT.
    """
    # Importing TensorFlow and tracing a graph allocate millions of permanent objects; Python's default,
    # a garbage collection every 700 allocations, takes a third of the import's time.
    gc.set_threshold(100_000, 20, 20)
    # Hides TensorFlow's notes about the processor. It reads this variable when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    configure_logging(sys.stderr)
    event_handler = events.MessageHandler()
    logging.getLogger().addHandler(event_handler)
    try:
        with os_errors_explained(), _ended_by_sigterm(), _own_temporary_folder():
            yield
        events.end()
    except InputError as error:
        sentence = one_line(str(error))
        logging.getLogger().removeHandler(event_handler)
        logging.error("%s", sentence)
        with suppress(OSError):  # the cause of the failure may prevent this too
            events.end(failure=sentence)
        with suppress(OSError):
            if TERMINATION_LOG.is_file():
                prefix = "" if isinstance(error, UnavailableError) else BAD_INPUT
                TERMINATION_LOG.write_text(f"{prefix}{sentence}\n", encoding="utf-8")
        raise SystemExit(2) from None
    except SystemExit:
        # An inner step (the command line nests them) has already written its end.
        if events.running():
            events.end(failure="")
        raise
    except KeyboardInterrupt:
        logging.error("Interrupted.")
        events.end(failure="")
        raise SystemExit(INTERRUPTED) from None
    except BaseException:
        events.end(failure="")
        raise
    finally:
        logging.getLogger().removeHandler(event_handler)
        # At exit the interpreter would scan all these objects once more, for over a second.
        gc.freeze()


def configure_logging(stream: TextIO) -> None:
    """Logs to a stream, one message per line; verbose packages only from warnings on."""
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(message)s", force=True)
    for chatty in ("alembic", "h5py", "absl", "tensorflow", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, so that drafts are deleted."""
    # Only Python's main thread can set signal handlers.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Gives this process and its children their own folder for temporary files."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise InputError(f"{error.strerror}; set TMPDIR to a folder that can be written to.") from error
    with draft_folder(parent, "brain-tumor") as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR")
            if variable is not None:
                os.environ["TMPDIR"] = variable


def import_tensorflow() -> None:
    """Imports TensorFlow with oneDNN's faster convolutions, and without its log lines about them.

    oneDNN is off by default without AVX-512, but halves the time with AVX2 too: a ResNet101's training step
    at 96 px takes 95 instead of 182 ms per image on two Zen 3 cores. TensorFlow's note about it ignores
    TF_CPP_MIN_LOG_LEVEL.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)
