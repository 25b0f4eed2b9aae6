"""How a step logs and exits.

Logs go to stderr, and events to the process that follows them (`brain_tumor.runtime.events`). Bad input is
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

from brain_tumor.runtime import events
from brain_tumor.runtime.drafts import draft_folder
from brain_tumor.runtime.errors import InputError, refusals_explained
from brain_tumor.runtime.signals import INTERRUPTED, TERMINATED
from brain_tumor.runtime.text import one_line

# In a pod, the file of a container's last words, which Kubernetes and Argo show with its end. Kubeflow ends a
# step's container with code 1 whatever the step ended with, so by these words alone its cluster can tell bad
# input, which is not to be tried again (kind-cluster/kubeflow/pipelines/retries.yaml).
TERMINATION_LOG = Path("/dev/termination-log")
BAD_INPUT = "Bad input: "


@contextmanager
def step() -> Iterator[None]:
    """Surrounds a step's work, in a component as on the command line.

    The work's temporary files are in a folder of its own, which is deleted at the end; what earlier processes
    left that were killed is deleted at the start. SIGTERM is an end as any other.

    In a pod, the sentence of bad input is the container's last word.

    The work calls `events.begin` once it knows what it is called; its end, or that it failed, is told here.
    What imports TensorFlow is imported inside of it: its settings make that import faster and quieter.

    Raises:
        SystemExit: With code 2, after the sentence, when the work raised InputError or the machine refused
            something (see `refusals_explained`); with code 143, at SIGTERM, and with code 130, at SIGINT.
    """
    # Importing TensorFlow and tracing a graph make millions of objects that stay; looking through them for
    # garbage every 700 allocations is a third of an import's time.
    gc.set_threshold(100_000, 20, 20)
    # TensorFlow's notes about the processor it found are no news. It reads this when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
    for chatty in ("alembic", "h5py", "absl", "tensorflow", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    teller = events.MessageHandler()
    logging.getLogger().addHandler(teller)
    try:
        with refusals_explained(), _ended_by_sigterm(), _own_temporary_folder():
            yield
        events.end()
    except InputError as error:
        sentence = one_line(str(error))
        logging.getLogger().removeHandler(teller)
        logging.error("%s", sentence)
        with suppress(OSError):  # what refused the work may refuse this too
            events.end(failure=sentence)
        with suppress(OSError):
            if TERMINATION_LOG.is_file():
                TERMINATION_LOG.write_text(f"{BAD_INPUT}{sentence}\n", encoding="utf-8")
        raise SystemExit(2) from None
    except SystemExit:
        # After an inner step, such as the one that a command line runs, nothing is begun any more.
        if events.begun():
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
        logging.getLogger().removeHandler(teller)
        # At its end the interpreter would look through all these objects once more, for over a second.
        gc.freeze()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise SystemExit, so that drafts go; by itself it would end the process where it is."""
    # Python delivers signals to its main thread, and lets no other one ask for them.
    asked = threading.current_thread() is threading.main_thread()
    if not asked or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
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
    """Lets this process, and those that it starts, have their temporary files in a folder of its own."""
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
    """Imports TensorFlow with its faster convolutions, and without the lines that it writes about them.

    These (oneDNN) are off where it finds no AVX-512, but with AVX2 they take half of the time as well: 95 ms
    an image of a ResNet101's training step at 96 px in place of 182, on two cores of a Zen 3. TensorFlow's
    note about them goes past TF_CPP_MIN_LOG_LEVEL.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
