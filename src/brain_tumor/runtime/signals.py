"""The signals that end a step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The exit codes that a shell reports for a process ended by one of them.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Defers signals that end the process until the body is done."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Only Python's main thread can set signal handlers.
    asked = threading.current_thread() is threading.main_thread() and None not in before.values()
    for number in before if asked else ():
        signal.signal(number, remember)
    try:
        yield
    finally:
        if asked:
            for number, handler in before.items():
                signal.signal(number, handler)
        for first in received[:1]:
            signal.raise_signal(first)
