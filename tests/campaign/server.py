"""Starts steps in processes forked from one that has already imported everything.

It is a separate program, so that it can import the code of another version. It reads one request per line
(JSON) and answers each with a line. Otherwise a thousand steps would spend an hour on imports.
"""

import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

LONGEST = 60.0  # seconds; a step that takes longer counts as hanging
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # the Linux capabilities with which root can read and write everything


def prepare(tensorflow: bool) -> None:
    """Imports the steps' packages."""
    import matplotlib.pyplot  # noqa: F401
    import roboflow  # noqa: F401
    from tenacity import wait_exponential_jitter

    import brain_tumor.cli
    import brain_tumor.configure
    import brain_tumor.ingest.ingest
    import brain_tumor.reports.data_report
    import brain_tumor.reports.prediction_report
    from brain_tumor.ingest.sources import roboflow as source

    # A stand-in: no waiting of half a minute for a service that answers with nonsense.
    source.EXPORT_POLL, source.EXPORT_LIMIT = 0.0, 0.2
    source.BACK_OFF = wait_exponential_jitter(initial=0, max=0, jitter=0)
    if tensorflow:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        from brain_tumor.runtime.step import import_tensorflow

        import_tensorflow()
        import brain_tumor.evaluation.predict
        import brain_tumor.records.build
        import brain_tumor.records.verify

        with suppress(ModuleNotFoundError):  # earlier versions do not decode the records' images
            import brain_tumor.records.decode  # noqa: F401
    gc.freeze()


def call(request: dict[str, Any]) -> None:
    """Executes a request."""
    from brain_tumor import cli, steps
    from brain_tumor.reports import data_report
    from brain_tumor.stores.files import write_file

    if not request.get("drawn", True):  # a stand-in for a report, which takes seconds
        data_report.write_data_report = lambda path, ingested: write_file(path, "a report")
    if "argv" in request:
        cli.main(request["argv"])
    else:
        steps.ingest(request["config"], Path(request["output"]), Path(request["report"]))


def become(request: dict[str, Any], pipe: int) -> None:
    """Runs a request in this process, which then exits like a Python program."""
    code = 1
    try:
        os.dup2(pipe, 1)
        os.dup2(pipe, 2)
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        if request.get("largest_file") is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
        if request.get("restricted"):
            obey_permissions()
        call(request)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def obey_permissions() -> None:
    """Removes root's capabilities to read and write against permissions."""
    if os.geteuid():
        return
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(header, data) == 0:
        for word in (0, 1):  # effective and permitted
            data[word] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
        if libc.capset(header, data) == 0:
            return
    raise OSError(ctypes.get_errno(), "capset")


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a request in a forked process; returns its exit code (or minus the signal) and its output."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(request, writing)
    os.close(writing)
    # Moments at which a signal is sent; what hangs is killed.
    signals = [(LONGEST, signal.SIGKILL)]
    if "signal" in request:
        signals.insert(0, (request["after"], request["signal"]))
    started, said = time.monotonic(), b""
    while True:
        left = signals[0][0] - (time.monotonic() - started) if signals else None
        if left is not None and left <= 0:
            os.kill(pid, signals.pop(0)[1])
        elif select.select([reading], [], [], left)[0]:
            chunk = os.read(reading, 1 << 16)
            if not chunk:
                break
            said += chunk
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, "said": said.decode(errors="backslashreplace"), "hangs": not signals}


if __name__ == "__main__":
    # Imports may write to stdout, which is reserved for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepare(tensorflow="tensorflow" in sys.argv[1:])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), file=answers, flush=True)
