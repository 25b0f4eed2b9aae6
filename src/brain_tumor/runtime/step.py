"""How a step speaks and ends: logs to stderr, events for who follows them (`brain_tumor.runtime.events`), and
bad input as one sentence with exit code 2."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from brain_tumor.runtime import events
from brain_tumor.runtime.errors import InputError, explain_os_error
from brain_tumor.runtime.text import printable


@contextmanager
def step() -> Iterator[None]:
    """Surrounds a step's work, in a component as on the command line.

    The work calls `events.begin` once it knows what it is called; its end, or that it failed, is told here.
    What imports TensorFlow is imported inside of it: its settings make that import faster and quieter.

    Raises:
        SystemExit: With code 2, after the sentence, when the work raised InputError, or met a disk or a file
            that the system refuses.
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
        yield
        events.end()
    except (InputError, OSError) as error:
        sentence = printable(str(error) if isinstance(error, InputError) else explain_os_error(error))
        if not sentence:
            events.end(failure="")
            raise
        events.end(failure=sentence)
        logging.getLogger().removeHandler(teller)  # it has told
        logging.error("%s", sentence)
        raise SystemExit(2) from None
    except SystemExit:
        # After an inner step, such as the one that a command line runs, nothing is begun any more.
        if events.begun():
            events.end(failure="")
        raise
    except BaseException:
        events.end(failure="")
        raise
    finally:
        logging.getLogger().removeHandler(teller)
        # At its end the interpreter would look through all these objects once more, for over a second.
        gc.freeze()


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
