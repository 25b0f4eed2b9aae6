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
    """Defers SIGINT and SIGTERM until the body is done; the first one is then raised again."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Only Python's main thread can set handlers, and it cannot restore one (None) that Python did not set.
    can_defer = threading.current_thread() is threading.main_thread() and None not in before.values()
    for number in before if can_defer else ():
        signal.signal(number, remember)
    try:
        yield
    finally:
        if can_defer:
            for number, handler in before.items():
                signal.signal(number, handler)
        for first in received[:1]:
            signal.raise_signal(first)
