"""The signals that end a step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What a shell says of a process that one of them has ended.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Lets what is inside be done whole: a signal that ends the process does so after it."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Python delivers signals to its main thread, and lets no other one ask for them.
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
