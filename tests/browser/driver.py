"""Chromium, driven over the WebDriver protocol (W3C, 2018) by its own driver; nothing but the standard library."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

_open = build_opener(ProxyHandler({})).open
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_START_S, _WAIT_S, _ASK_S = 30.0, 15.0, 30.0
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004"}


def find_programs() -> tuple[str, str] | None:
    """Chromium and its driver; `None`: they are not both here."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    return (found[0], found[1]) if found[0] and found[1] else None


def programs_or_skip() -> tuple[str, str]:
    """Both; the test is skipped where they are not."""
    programs = find_programs()
    if programs is None:
        pytest.skip("no chromium and chromedriver on the PATH (Debian: apt-get install chromium chromium-driver)")
    return programs


class Browser:
    """One window."""

    def __init__(self, chromium: str, driver: str) -> None:
        self._chromium = chromium
        self._driver = driver
        self._process: subprocess.Popen[bytes] | None = None
        self._profile = tempfile.TemporaryDirectory(prefix="cartsync-browser-", ignore_cleanup_errors=True)
        self._url = ""
        self._session = ""

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [self._driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}"
        self._until_it_answers()
        options = {
            "binary": self._chromium,
            "args": [
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
                *("--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={self._profile.name}"),
            ],
        }
        capabilities = {
            "alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}},
        }
        found = self._ask("POST", "/session", {"capabilities": capabilities})
        self._session = f"/session/{found['sessionId']}"
        self.resize(1300, 900)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._session:
                self._ask("DELETE", self._session)
        finally:
            assert self._process is not None
            self._process.terminate()
            self._process.wait(10)
            self._profile.cleanup()

    def _until_it_answers(self) -> None:
        give_up_at = time.monotonic() + _START_S
        while True:
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except (URLError, ConnectionError):
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(0.05)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = Request(self._url + path, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with _open(request, timeout=_ASK_S) as response:
                return json.load(response)["value"]
        except HTTPError as error:
            with error:
                raise AssertionError(json.load(error)["value"]["message"]) from None

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._ask(method, self._session + path, body)

    # --- what a person does ---

    def open(self, url: str) -> None:
        """Goes there, and waits until it is loaded."""
        self._do("POST", "/url", {"url": url})

    def new_tab(self) -> str:
        """Opens a tab and goes to it; the name of the tab."""
        handle: str = self._do("POST", "/window/new", {"type": "tab"})["handle"]
        self.tab(handle)
        return handle

    def tab(self, handle: str) -> None:
        """Goes to a tab."""
        self._do("POST", "/window", {"handle": handle})

    def close_tab(self, back_to: str) -> None:
        """Closes this one."""
        self._do("DELETE", "/window")
        self.tab(back_to)

    @property
    def this_tab(self) -> str:
        """Its name."""
        return str(self._do("GET", "/window"))

    def resize(self, width: int, height: int) -> None:
        """The window, in pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def scheme(self, name: str) -> None:
        """`dark` or `light`: what the reader's system prefers."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def zone(self, name: str) -> None:
        """The reader's time zone; empty: the machine's."""
        self.command("Emulation.setTimezoneOverride", timezoneId=name)

    def scripts(self, allowed: bool) -> None:
        """Whether pages run scripts."""
        self.command("Emulation.setScriptExecutionDisabled", value=not allowed)

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the browser's own protocol."""
        return self._do("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def find(self, css: str) -> str:
        """The first element; waits for it. Raises `AssertionError` when none comes."""
        return self.until(lambda: self._all(css), f"an element {css}")[0]  # type: ignore[no-any-return]

    def count(self, css: str) -> int:
        """How many elements there are now."""
        return len(self._all(css))

    def _all(self, css: str) -> list[str]:
        found = self._do("POST", "/elements", {"using": "css selector", "value": css})
        return [each[_ELEMENT] for each in found]

    def click(self, css: str) -> None:
        """On the first element."""
        self._do("POST", f"/element/{self.find(css)}/click")

    def type(self, css: str, text: str) -> None:
        """Into the first element."""
        self._do("POST", f"/element/{self.find(css)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Keys, wherever the focus is."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._do("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    # --- what a person sees ---

    def text(self, css: str = "main") -> str:
        """What is to be read in the first element."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css))

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._do("GET", "/url"))

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """The first that is not empty. Raises `AssertionError` that names `what`."""
        give_up_at = time.monotonic() + _WAIT_S
        while not (value := found()):
            if time.monotonic() > give_up_at:
                raise AssertionError(f"{what} did not come; the page says:\n{self.text('body')[:2000]}")
            time.sleep(0.05)
        return value

    def complaints(self) -> list[str]:
        """What the browser had to complain of since it was asked last: scripts, policies, files that are missing."""
        return [entry["message"] for entry in self._do("POST", "/se/log", {"type": "browser"})]

    def shoot(self, path: Path, *, whole: bool = True) -> None:
        """A picture, of the whole page unless only of what is seen."""
        found = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
