"""One worker process as the in-memory log sees it: it may be frozen, and it may have crashed."""

import asyncio
from collections.abc import Awaitable, Callable

from worker.errors import LogError

Gate = Callable[[str, str, int], Awaitable[None]]
"""Called with an operation, the process's name and a partition (-1: none). It may wait, and it may raise `LogError`."""


class Process:
    """Whatever a process does with the log is a row of steps; between two of them anything may happen."""

    def __init__(self, name: str, gate: Callable[[], Gate | None]) -> None:
        self.name = name
        self.crashed = False
        self._gate = gate
        self._running = asyncio.Event()
        self._running.set()

    def freeze(self) -> None:
        """Lets nothing pass any more."""
        if not self.crashed:
            self._running.clear()

    def thaw(self) -> None:
        """Lets everything pass again."""
        self._running.set()

    def crash(self) -> None:
        """Whatever it still tries raises `LogError` and has no effect."""
        self.crashed = True
        self._running.set()

    async def step(self, op: str, partition: int = -1) -> None:
        """Passes when the process is running and the gate lets it. Always gives way to others once."""
        await self._running.wait()
        if (gate := self._gate()) is None or self.crashed:
            await asyncio.sleep(0)
        else:
            await gate(op, self.name, partition)
        await self._running.wait()
        if self.crashed:
            raise LogError(f"{op}: process {self.name} has crashed")


class Broadcast:
    """Wakes all who wait at the moment when it rings."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes them."""
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def wait(self, timeout_s: float) -> None:
        """Returns when it rings, and when the time is over: at least a millisecond, so that time passes."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                await self._rung.wait()
        except TimeoutError:
            pass
