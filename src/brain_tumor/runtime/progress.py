"""Progress of long tasks."""

import io
import logging
import sys

from tqdm import tqdm

from brain_tumor.runtime import events

# Seconds between updates: on a terminal or as events, and in a log.
UPDATE_INTERVAL = 1.0
LOG_INTERVAL = 30.0


class Progress(tqdm):  # type: ignore[type-arg]
    """A progress bar on a terminal, otherwise events if they are enabled, otherwise periodic log lines.

    Args:
        what: The task.
        total: The total, if it is known.
        unit: The unit of the total, in the plural.

    Example:
        >>> with Progress("Reading", 3, "images") as progress:
        ...     progress.update(2)
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self._on_terminal = sys.stderr.isatty()
        interval = UPDATE_INTERVAL if self._on_terminal or events.enabled() else LOG_INTERVAL
        super().__init__(
            desc=what,
            total=total,
            unit=f" {unit}",
            leave=False,
            file=sys.stderr if self._on_terminal else io.StringIO(),
            mininterval=interval,
            delay=interval,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows the progress. tqdm calls this at most once per interval."""
        if self._on_terminal:
            super().display(msg, pos)
            return
        if msg is not None:
            return  # tqdm clears the bar
        progress = self.desc, int(self.n), int(self.total or 0), self.unit.strip()
        if events.enabled():
            events.write("progress", *progress)
        else:
            logging.info("%s", events.Event("progress", "", *progress))
