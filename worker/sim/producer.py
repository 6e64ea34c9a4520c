"""An in-memory `ports.EventProducer`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from worker.core.placing import Placing
from worker.errors import LogError
from worker.ports import Clock, Where
from worker.sim.log import MemoryLog

Put = Callable[[bytes, bytes, Sequence[tuple[str, bytes]], int | None], object]
"""Writes a record: key, value, headers, partition (`None`: its key's)."""


def put_into(log: MemoryLog, placing: Placing) -> Put:
    """Writes each record to the partition of its key, unless another one is named."""

    def put(key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None) -> Where:
        where = placing.partition(key, log.partitions) if partition is None else partition
        return Where(*log.append(key, value, headers, partition=where))

    return put


class MemoryEventProducer:
    """`ports.EventProducer` with faults that can be switched on."""

    def __init__(self, put: Put, clock: Clock) -> None:
        self._put = put
        self._clock = clock
        self._is_started = False
        self._hung: list[tuple[asyncio.Future[Any], bytes, bytes, Sequence[tuple[str, bytes]], int | None]] = []
        self._silent_since: float | None = None
        self.is_away = False
        """No broker responds: `post` blocks."""
        self.is_hanging = False
        """Records are accepted but not acknowledged until `recover`."""
        self.is_failing = False
        """Records are accepted, then rejected."""
        self._is_back = asyncio.Event()

    def start(self) -> None:
        self._is_started = True

    async def post(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None = None
    ) -> "asyncio.Future[Any]":
        while self.is_away or not self._is_started:
            self._note_silence()
            self._is_back.clear()
            await self._is_back.wait()
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_failing:
            self._note_silence()
            sent.set_exception(LogError("writing an event: the brokers rejected it"))
        elif self.is_hanging:
            self._note_silence()
            self._hung.append((sent, key, value, headers, partition))
        else:
            self._take(sent, key, value, headers, partition)
        return sent

    def _take(
        self,
        sent: "asyncio.Future[Any]",
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
        partition: int | None,
    ) -> None:
        where = self._put(key, value, headers, partition)
        self._silent_since = None
        if not sent.done():
            sent.set_result(where)

    def _note_silence(self) -> None:
        if self._silent_since is None:
            self._silent_since = self._clock.now()

    @property
    def hanging(self) -> int:
        """The number of accepted records without an acknowledgment."""
        return len(self._hung)

    def recover(self) -> None:
        """Ends all faults; hanging records are written."""
        self.is_away = self.is_hanging = self.is_failing = False
        self._is_back.set()
        hung, self._hung = self._hung, []
        for each in hung:
            self._take(*each)

    def silent_s(self) -> float:
        return 0.0 if self._silent_since is None else self._clock.now() - self._silent_since

    async def stop(self) -> None:
        self._is_started = False
