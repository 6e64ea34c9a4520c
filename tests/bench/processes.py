"""Processes of a benchmark: what is measured has one to itself, pinned to one core, and tells what it found by lines.

`async with Process("consuming:ours", {...}) as process` runs `tests.bench.consuming.ours(Line(), **{...})` under
uvloop; a module outside this folder has its whole name. Python's collector is set as `cartsync run` sets it; logs are at `warning`, as in production under load.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from worker import logs
from worker.app.process import tune_gc

ROOT = Path(__file__).parents[2]
WITHIN_S = 120.0
"""For one answer: whatever takes longer has failed."""


def cores() -> tuple[set[int], set[int]]:
    """The core for what is measured, and those for the rest; the same where there is but one."""
    ours = sorted(os.sched_getaffinity(0))
    return {ours[-1]}, set(ours[:-1]) or {ours[-1]}


class ProcessError(Exception):
    """A process failed, or took too long."""


class Process:
    """One child process."""

    def __init__(
        self, target: str, arguments: dict[str, Any], *, measured: bool = True, on: set[int] | None = None
    ) -> None:
        """`measured`: alone on its core; otherwise beside the brokers. `on`: on these cores instead."""
        self._target = target
        self._arguments = arguments
        self._cores = on or cores()[0 if measured else 1]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __aexit__

    async def __aenter__(self) -> Self:
        words = [self._target, json.dumps(self._arguments), ",".join(map(str, self._cores))]
        self._child = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "tests.bench.processes", *words],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.returncode is None:
            self._child.kill()
        await self._child.wait()
        self._errors.close()

    async def hear(self, within_s: float = WITHIN_S) -> Any:
        """The next thing it says."""
        assert self._child.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                line = await self._child.stdout.readline()
        except TimeoutError:
            raise ProcessError(f"{self._target}: nothing for {within_s:g} s\n{self._said()}") from None
        if not line:
            raise ProcessError(f"{self._target} has failed\n{self._said()}")
        return json.loads(line)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def go(self) -> None:
        """Lets `Line.wait` return."""
        assert self._child.stdin is not None
        self._child.stdin.write(b"\n")

    def kill(self) -> None:
        """Ends it at once, as `kill -9` does."""
        self._child.kill()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-4000:].decode(errors="replace")


async def run(target: str, arguments: dict[str, Any], within_s: float = WITHIN_S) -> Any:
    """The one thing that a measured process has to say."""
    async with Process(target, arguments) as process:
        return await process.hear(within_s)


class Line:
    """The child's side."""

    def say(self, value: Any) -> None:
        """To the one who started us."""
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    async def wait(self) -> None:
        """Until we are told to go on."""
        await asyncio.to_thread(sys.stdin.readline)


class Watch:
    """How long something took, by the clock and in CPU time of this process. Seconds."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Since it was made."""
        return time.perf_counter() - self._clock, time.process_time() - self._cpu


def core_wait_s() -> float:
    """For how long the main thread of this process could have run, and others had its core (`schedstat`)."""
    with Path(f"/proc/self/task/{os.getpid()}/schedstat").open() as file:
        return int(file.read().split()[1]) / 1e9


async def until(holds: Callable[[], bool], every_s: float) -> None:
    """Looks again and again: what is measured tells nobody when it is done."""
    while not holds():  # noqa: ASYNC110 - see above
        await asyncio.sleep(every_s)


def calm() -> None:
    """What `cartsync run` does once it has started."""
    tune_gc()


def main() -> None:
    """The child."""
    target, arguments, on = sys.argv[1:]
    os.sched_setaffinity(0, set(map(int, on.split(","))))
    logs.configure("json", "warning", stream=sys.stderr)
    module, _, name = target.partition(":")
    function = getattr(import_module(module if "." in module else f"tests.bench.{module}"), name)
    gc.collect()
    uvloop.run(function(Line(), **json.loads(arguments)))


if __name__ == "__main__":
    main()
