"""A headless Chromium that reports a page's requests and errors."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"),
)


@dataclass
class Seen:
    """The result of opening a page.

    Attributes:
        requests: The addresses that it requested, except for its own and data URIs.
        complaints: Console messages and exceptions.
        width: The page's width in pixels; a page wider than the window is cut off.
        image: A screenshot of the whole page, PNG.
        colors: The body's text and background colors.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    width: int = 0
    image: bytes = b""
    colors: tuple[str, str] = ("", "")


class Browser:
    """A tab of a running Chromium."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=60)
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, page: Path, width: int, dark: bool = False) -> Seen:
        """Opens a page in a window of this width, and waits until it has loaded."""
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=media)
        size = {"width": width, "height": 600, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._events.clear()
        self._call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        seen = Seen(width=self._value("document.documentElement.scrollWidth"))
        seen.colors = tuple(self._value(f"getComputedStyle(document.body).{name}") for name in COLORS)
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        seen.image = base64.b64decode(shot["data"])
        for event in self._events:
            match event["method"], event["params"]:
                case "Network.requestWillBeSent", {"request": {"url": url}}:
                    if url != page.as_uri() and not url.startswith("data:"):
                        seen.requests.append(url)
                case "Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown", complaint:
                    seen.complaints.append(json.dumps(complaint))
        return seen

    def _value(self, expression: str) -> Any:
        return self._call("Runtime.evaluate", expression=expression)["result"]["value"]

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := self._receive()).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> Any:
        return json.loads(self._socket.recv())


COLORS = ("color", "backgroundColor")


@contextmanager
def browse() -> Iterator[Browser]:
    """Starts Chromium with a new profile, and ends it."""
    assert CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, f"--user-data-dir={profile}", *SWITCHES],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"HOME": profile},
        )
        try:
            assert process.stderr
            lines = iter(process.stderr.readline, "")
            said = next(line for line in lines if line.startswith("DevTools listening on "))
            port = said.split(":")[2].split("/")[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
                [tab] = [each for each in json.load(answer) if each["type"] == "page"]
            yield Browser(tab["webSocketDebuggerUrl"])
        finally:
            process.terminate()
            process.wait(30)
