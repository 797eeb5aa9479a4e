"""A real Chromium without a window, spoken to over its debugging pipe: opens a page, moves the mouse, reads what is there, takes pictures.

No driver and no port: two pipes (file descriptors 3 and 4 of the browser), JSON messages that end with a zero byte.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
TIMEOUT = 60.0


def program() -> str | None:
    """Debian's name first."""
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


class Browser:
    """One tab. ``problems``: what the console said that was an error or a warning, exceptions, and requests that left the page."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._buffer, self._number, self._session, self._tab = b"", 0, "", ""
        self.problems: list[str] = []

    # ------------------------------------------------------------------------------------------------------------- what tests use

    def open(self, page: Path, *, width: int = 1200, height: int = 1000, dark: bool = False, scripts: bool = True) -> None:
        """The page from its file, when it has loaded."""
        self.close()
        self._tab = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=self._tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.ask("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def close(self) -> None:
        """The tab, when there is one."""
        if self._tab:
            self.ask("Target.closeTarget", targetId=self._tab)
        self._tab = self._session = ""

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Until the expression is true."""
        until = time.monotonic() + TIMEOUT
        while not (value := self.run(expression)):
            assert time.monotonic() < until, f"never: {expression}; {self.problems}"
            time.sleep(0.02)
        return value

    def mouse(self, kind: str, x: float, y: float, *, button: str = "none", modifiers: int = 0, **more: Any) -> None:
        """``kind``: mouseMoved, mousePressed, mouseReleased, mouseWheel; in pixels of the window. Shift is modifier 8, ctrl 2."""
        pressed = {"buttons": 1} if button == "left" else {}
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1, modifiers=modifiers, **pressed, **more)

    def drag(self, x: float, y: float, to: float, *, modifiers: int = 0) -> None:
        """With the left button, sideways."""
        self.mouse("mousePressed", x, y, button="left", modifiers=modifiers)
        self.mouse("mouseMoved", (x + to) / 2, y, button="left", modifiers=modifiers)
        self.mouse("mouseMoved", to, y, button="left", modifiers=modifiers)
        self.mouse("mouseReleased", to, y, button="left", modifiers=modifiers)

    def picture(self, place: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        place.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))

    # ------------------------------------------------------------------------------------------------------------------ the pipe

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + TIMEOUT
        while True:
            answer = self._next(until, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self, until: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._back, 1 << 20) if ready else b""
            assert data, f"the browser did not answer {method}; it ended with {self._process.poll()}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {parameters['args']}")
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {parameters['exceptionDetails']}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {parameters['entry']}")
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(("file:", "data:", "blob:", "about:")):
            self.problems.append(f"request: {parameters['request']['url']}")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Started with a fresh profile; ended, and the profile removed."""
    found = program()
    assert found is not None, "no chromium here: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, contextlib.ExitStack() as stack:
        (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()
        stack.callback(os.close, to)
        stack.callback(os.close, back)

        def pass_on() -> None:  # in the child: the pipe's fixed places
            os.dup2(theirs_in, 103)
            os.dup2(theirs_out, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        environment = {**os.environ, "HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile}
        process = subprocess.Popen(
            [found, *FLAGS, f"--user-data-dir={profile}/data", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, preexec_fn=pass_on,  # noqa: PLW1509 - one thread
            pass_fds=(3, 4),
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(process, to, back)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
