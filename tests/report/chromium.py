"""A headless Chromium driven over its DevTools protocol: real mouse, real keys, what the page says, and every error it logs."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from websockets.sync.client import ClientConnection, connect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0")
_WAIT_S = 60.0


def find_chromium() -> str | None:
    """Returns the path of a browser, None where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Tab:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.errors: list[str] = []

    def call(self, method: str, **params: Any) -> Any:
        """Sends one command and returns its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=_WAIT_S))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif message["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif message["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif message["method"] == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {params['message']}")
            self.call("Page.handleJavaScriptDialog", accept=True)

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False, mobile: bool = False) -> None:
        """Opens a file and waits until its scripts are done."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=page.absolute().as_uri())
        self.wait("document.documentElement?.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """Returns the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until an expression is true."""
        until = time.monotonic() + _WAIT_S
        while not self.run(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"{condition}; the page logged {self.errors}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """Returns the text of an element as it is shown."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def box(self, selector: str) -> dict[str, float]:
        """Returns where an element stands in the window, after scrolling to it."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box: dict[str, float] = self.run(f"{found}.getBoundingClientRect().toJSON()")
        return box

    def mouse(self, kind: str, x: float, y: float, *, held: bool = False) -> None:
        """Moves, presses or releases the mouse: mouseMoved, mousePressed, mouseReleased."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" or held else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=int(held), **button)

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, steps: int = 8) -> None:
        """Presses at one point, moves in steps, and releases at the other."""
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, held=True)
        for step in range(1, steps + 1):
            at = [a + (b - a) * step / steps for a, b in zip(start, end, strict=True)]
            self.mouse("mouseMoved", at[0], at[1], held=True)
        self.mouse("mouseReleased", *end)

    def press(self, key: str, code: int) -> None:
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes what is shown, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def start_chromium(browser: str, profile: Path) -> Iterator[Tab]:
    """Starts a browser with a profile of its own and yields its first page."""
    command = [browser, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = _port(profile, process)
            with connect(_page_address(port), max_size=None, proxy=None) as connection:
                yield Tab(connection)
        finally:
            process.terminate()
            process.wait(timeout=_WAIT_S)


def _port(profile: Path, process: "subprocess.Popen[bytes]") -> int:
    file, until = profile / "DevToolsActivePort", time.monotonic() + _WAIT_S
    while not file.exists() or not file.read_text().strip():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the browser did not start (exit code {process.poll()})")
        time.sleep(0.02)
    return int(file.read_text().split()[0])


def _page_address(port: int) -> str:
    with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/json/list", timeout=_WAIT_S) as answer:
        pages = json.load(answer)
    return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
