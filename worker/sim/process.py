"""A worker process from the in-memory log's point of view: it may be frozen, or have crashed."""

import asyncio
from collections.abc import Awaitable, Callable

from worker.errors import LogError

Gate = Callable[[str, str, int], Awaitable[None]]
"""Called with an operation, the process's name and a partition (-1: none). It may wait, and it may raise `LogError`."""


class Process:
    """Everything that a process does with the log is a sequence of steps; anything may happen between two of them."""

    def __init__(self, name: str, gate: Callable[[], Gate | None]) -> None:
        self.name = name
        self.crashed = False
        self._gate = gate
        self._running = asyncio.Event()
        self._running.set()

    def freeze(self) -> None:
        """Blocks all steps until `thaw`."""
        if not self.crashed:
            self._running.clear()

    def thaw(self) -> None:
        """Lets the steps continue."""
        self._running.set()

    def crash(self) -> None:
        """From now on every step raises `LogError` and has no effect."""
        self.crashed = True
        self._running.set()

    async def step(self, op: str, partition: int = -1) -> None:
        """Returns when the process is running and the gate permits it. Always yields to other tasks once."""
        await self._running.wait()
        if (gate := self._gate()) is None or self.crashed:
            await asyncio.sleep(0)
        else:
            await gate(op, self.name, partition)
        await self._running.wait()
        if self.crashed:
            raise LogError(f"{op}: process {self.name} has crashed")


class Broadcast:
    """Wakes all tasks that are waiting at the moment of `notify_all`."""

    def __init__(self) -> None:
        self._notified = asyncio.Event()

    def notify_all(self) -> None:
        """Wakes all waiting tasks."""
        notified, self._notified = self._notified, asyncio.Event()
        notified.set()

    async def wait(self, timeout_s: float) -> None:
        """Waits for `notify_all` or the timeout, which is at least a millisecond, so that virtual time advances."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                await self._notified.wait()
        except TimeoutError:
            pass
