"""Dead letters of the in-memory broker, for the demo's console. As with Kafka, a transaction is whole, and fenced."""

from collections.abc import AsyncGenerator, Sequence

from worker.core.letters import REPLAYED_FROM, Marker, marker_headers
from worker.core.placing import Placing
from worker.core.trust import Trust
from worker.errors import FencedError
from worker.kafka.replaying import Replay
from worker.ports import DeadLetter, StoredRecord
from worker.sim.log import MemoryLog
from worker.tools.letters import Desk, Writes


class MemoryDesk:
    """The one partition of dead letters of a `MemoryLog`."""

    def __init__(self, log: MemoryLog, trust: Trust | None = None, placing: Placing | None = None) -> None:
        """`trust`, `placing`: as a `Desk` has them."""
        self.log = log
        self.trust = trust
        self.placing = placing
        self.epoch = 0
        """Of who has begun last."""

    async def open(self) -> Desk:
        """The desk."""
        partitions = self.log.partitions
        return Desk(self.letters, self.writes, self.placed, "orders.events", 1, partitions, self.trust, self.placing)

    async def letters(self, _partition: int, begin: int) -> AsyncGenerator[StoredRecord, None]:
        """All of them from there on, and markers."""
        for offset, each in list(enumerate(self.log.dead_letters))[begin:]:
            yield StoredRecord(offset, 0, each.key, each.value, list(each.headers))

    def writes(self, _partition: int, by: str, why: str) -> Writes:
        """To it."""
        return MemoryWrites(self, by, why)

    async def placed(self, _subject: str) -> list[int]:
        """It is not looked at: which partition is meant has to be told otherwise."""
        return []


class MemoryWrites:
    """As `kafka.replaying.Replayer`."""

    def __init__(self, desk: MemoryDesk, by: str, why: str) -> None:
        self._desk = desk
        self._by = by
        self._why = why
        self._epoch = 0

    async def open(self) -> None:
        """Fences those before."""
        self._desk.epoch += 1
        self._epoch = self._desk.epoch

    async def write(self, replays: Sequence[Replay]) -> list[int]:
        """All or nothing."""
        if self._epoch != self._desk.epoch:
            raise FencedError("somebody else replays dead letters of partition 0 now")
        log, offsets = self._desk.log, list[int]()
        for each in replays:
            to, offset = "", -1
            if each.record is not None:
                headers = [*each.record.headers, (REPLAYED_FROM, f"cartsync.dlq/0/{each.letter}".encode())]
                _, offset = log.append(each.record.key, each.record.value, headers, partition=each.partition)
                to = f"orders.events/{each.partition}/{offset}"
            marker = Marker(each.letter, each.handling, self._by, to, self._why)
            log.dead_letters.append(DeadLetter(each.key, b"", marker_headers(marker)))
            offsets.append(offset)
        return offsets

    async def close(self) -> None:
        """Nothing is open."""
