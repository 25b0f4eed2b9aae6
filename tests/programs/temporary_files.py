"""A step with a temporary file. Argument: how it ends."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from brain_tumor.runtime.step import step

SIGNALS = {"terminated": signal.SIGTERM, "interrupted": signal.SIGINT, "killed": signal.SIGKILL}

with step():
    Path(tempfile.mkdtemp(), "cache").write_text("half")
    assert os.environ["TMPDIR"] == tempfile.gettempdir()
    [end] = sys.argv[1:]
    if end == "fails":
        raise KeyError
    if end == "waits":
        input()
    elif end in SIGNALS:
        # A shell's background processes, and so their children, ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), SIGNALS[end])
        time.sleep(60)
