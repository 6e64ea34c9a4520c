"""One worker as a process: its end, its log, what its private port says."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from schemas.views import OrderView, StatusView

_TAIL_LINES = 25
_WRITTEN_S = 0.03
"""A line is written by a thread of its own: what is shown already may be a moment ahead of it."""


def utc_now() -> datetime:
    """The clock that the sandbox and the workers' logs go by."""
    return datetime.now(UTC)


async def until(condition: Callable[[], bool], within_s: float, said: Callable[[], str]) -> None:
    """Waits until something is so; when it is not in time, the test fails with what `said` says."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {within_s:g} s: {said()}")
        await asyncio.sleep(0.02)


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class WorkerProcess:
    """One `cartsync run`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log_file: Path, port: int) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._log_file = log_file

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Is there such a process still?"""
        return self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._process.kill()
        self._process.wait()

    async def ended(self, within_s: float = 15) -> int:
        """The exit code, once there is one."""
        await until(lambda: not self.is_running(), within_s, lambda: f"{self.name} to end\n{self.tail()}")
        return self._process.returncode

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it has logged: all of it, or the lines of one event."""
        time.sleep(_WRITTEN_S)
        lines = self._log_file.read_bytes().splitlines(keepends=True)
        whole = (line for line in lines if line.startswith(b"{") and line.endswith(b"\n"))
        parsed: list[dict[str, Any]] = [msgspec.json.decode(line) for line in whole]
        return [line for line in parsed if event in (None, line["event"])]

    def tail(self) -> str:
        """The end of its log, for a failure's message."""
        lines = self._log_file.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"--- {self.name} ({'runs' if self.is_running() else self._process.returncode})", *lines])

    async def answers(self, within_s: float = 10) -> None:
        """Waits until its port is open; it may not be a member of the group yet."""
        give_up_at = time.monotonic() + within_s
        while True:
            try:
                await self.get("/livez")
            except aiohttp.ClientError:
                if time.monotonic() > give_up_at or not self.is_running():
                    raise AssertionError(f"no answer from {self.name}\n{self.tail()}") from None
                await asyncio.sleep(0.05)
            else:
                return

    async def serving(self, partitions: int, within_s: float = 30, role: str = "serving") -> None:
        """Waits until just so many partitions of its have this role."""
        give_up_at = time.monotonic() + within_s
        while len(found := await self.served(role)) != partitions:
            if time.monotonic() > give_up_at or not self.is_running():
                raise AssertionError(f"{self.name} has {found}, not {partitions} partitions {role}\n{self.tail()}")
            await asyncio.sleep(0.05)

    async def served(self, role: str = "serving") -> list[int]:
        """The partitions that have this role now; none while its port is closed."""
        try:
            status = await self.status()
        except aiohttp.ClientError:
            return []
        return [view.partition for view in status.partitions if view.role == role]

    async def status(self) -> StatusView:
        """What `/status` says."""
        _, body = await self.get("/status")
        return msgspec.json.decode(body, type=StatusView)

    async def shown(self, subject: str, status: str, within_s: float = 10) -> OrderView:
        """What `/orders/…` says, once it says that the order has this status."""
        give_up_at = time.monotonic() + within_s
        while True:
            code, body = await self.get(f"/orders/{subject}")
            if code == 200 and (view := msgspec.json.decode(body, type=OrderView)).status == status:
                return view
            if time.monotonic() > give_up_at:
                raise AssertionError(f"{subject} is not {status} within {within_s:g} s: {code} {body!r}\n{self.tail()}")
            await asyncio.sleep(0.05)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Asks the private port."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return response.status, await response.read()

    def fenced_at(self, partition: int) -> datetime:
        """The earliest that its last fence of the partition may have been: its log says when it had restored."""
        line = [line for line in self.log("partition_serving") if line["partition"] == partition][-1]
        served_at = datetime.fromisoformat(line["time"]).timestamp()
        return datetime.fromtimestamp(served_at - line["seconds"] - 0.002, UTC)
