"""What the contract tests need of a world: the topics around the ports, and a member that reads."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from worker.core.placing import Placing
from worker.errors import GapError
from worker.ports import (
    DeadLetter,
    EventLog,
    EventProducer,
    InputRecord,
    PartitionWriter,
    Records,
    Result,
    StateEntry,
    StateLog,
    StateScan,
)

EVENTUALLY_S = 60.0
"""How long anything may take. A memory needs none of it; a broker may need a session timeout."""


class World(Protocol):
    """Fresh, empty topics of one application; worker processes are told apart by their names."""

    partitions: int
    """At least 3."""
    group: str
    """The name of the members' group."""
    quiet_s: float
    """How long nothing must come before a test believes that nothing will."""

    async def append(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Writes an event; its partition and offset. Those with one key are in one partition."""
        ...

    async def append_poison(self, partition: int) -> int:
        """Writes a record `k` = `v` with a header name that is not UTF-8; its offset."""
        ...

    async def append_bomb(self, partition: int, count: int) -> int:
        """Writes a batch of so many records that comes out larger than anybody may read; its first offset."""
        ...

    async def open_transaction(self, partition: int) -> Callable[[], Awaitable[None]]:
        """Somebody writes a record in a transaction; what ends it, without a commit."""
        ...

    async def truncate(self, partition: int, before_offset: int) -> None:
        """Forgets the events of a partition that are below an offset."""
        ...

    async def aborted(self, partition: int) -> None:
        """Uses up offsets of a partition without an event, as an aborted transaction of the shop does."""
        ...

    def events(self, member: str, name: str = "") -> EventLog:
        """The event topic for a process, not started. `name`: by which the group knows it again."""
        ...

    def states(self, member: str) -> StateLog:
        """The state topic for a process, not started."""
        ...

    def scan(self, wanted: Callable[[str], bool]) -> StateScan:
        """Reads the state topic as a tool does, not started."""
        ...

    def event_producer(self, placing: Placing) -> EventProducer:
        """Writes to the event topic, not started."""
        ...

    def records(self) -> Records:
        """Reads our topics along, not started."""
        ...

    async def dead_letters(self) -> list[DeadLetter]:
        """What is committed in the dead-letter topic now; those of one transaction in their order."""
        ...

    async def results(self) -> list[Result]:
        """The same of the results topic."""
        ...

    async def history(self, partition: int) -> list[tuple[bytes | None, bytes | None]]:
        """Keys and values that are committed in a partition of the history topic now."""
        ...


async def eventually(holds: Callable[[], object]) -> None:
    """Waits until something holds; fails when it never does."""
    step_s = 0.0
    try:
        async with asyncio.timeout(EVENTUALLY_S):
            while not holds():
                await asyncio.sleep(step_s)
                step_s = min(0.05, step_s + 0.001)
    except TimeoutError:
        raise AssertionError(f"did not come true within {EVENTUALLY_S:g} s") from None


class Member:
    """A process that reads the event topic: polls all the time, keeps what it gets, and does as the test says."""

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self.told: list[tuple[str, set[int]]] = []
        """What the listener heard, without empty sets."""
        self.assigned_partitions: set[int] = set()
        self.records: defaultdict[int, list[InputRecord]] = defaultdict(list)
        self.largest_poll = 0
        self.gaps: list[frozenset[int]] = []
        """Each paused when it was met."""
        self.max_records = 100
        self._polling: asyncio.Task[None] | None = None

    def assigned(self, partitions: set[int]) -> None:
        """Hears of a new assignment."""
        self.assigned_partitions = partitions
        self._hear("assigned", partitions)

    async def revoked(self, partitions: set[int]) -> None:
        """Hears of its end."""
        self.assigned_partitions = set()
        self._hear("revoked", partitions)

    async def start(self) -> None:
        """Joins and polls from now on."""
        await self.events.start(self)
        self._polling = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Leaves. May be called again."""
        if self._polling is not None:
            polling, self._polling = self._polling, None
            polling.cancel()
            await asyncio.wait([polling])
            await self.events.stop()
            if not polling.cancelled():
                polling.result()

    def read_from(self, partition: int, offset: int) -> None:
        """Begins to read an assigned partition."""
        self.events.seek(partition, offset)
        self.events.resume(partition)

    def values(self, partition: int) -> list[bytes | None]:
        """What was read of a partition."""
        return [record.value for record in self.records[partition]]

    def failed(self) -> bool:
        """Whether polling has ended by itself."""
        return self._polling is not None and self._polling.done()

    def _hear(self, what: str, partitions: set[int]) -> None:
        if partitions:
            self.told.append((what, partitions))

    async def _poll(self) -> None:
        while True:
            try:
                polled = await self.events.poll(0.2, self.max_records)
            except GapError as gap:
                self.gaps.append(gap.partitions)
                for partition in gap.partitions:
                    self.events.pause(partition)
                continue
            self.largest_poll = max(self.largest_poll, sum(map(len, polled.values())))
            for partition, records in polled.items():
                self.records[partition] += records


Join = Callable[..., Awaitable[Member]]
"""The fixture `join`: a member that has started, of a process, and with the name by which the group knows it again."""
Hold = Callable[..., Awaitable[PartitionWriter]]
"""The fixture `hold`: takes a partition (default 0), and `fence=False` for a hold that is not fenced yet."""


async def read_all(hold: PartitionWriter, position: int, until: int) -> list[StateEntry]:
    """All entries of a read."""
    found: list[StateEntry] = []
    async for entries in hold.read(position, until):
        assert entries
        found += entries
    return found
