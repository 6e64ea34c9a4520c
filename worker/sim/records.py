"""`ports.Records` over the in-memory broker. Dead letters and results have one partition each, histories as many as the
state.
"""

import asyncio
from collections.abc import Mapping, Sequence

from worker.ports import Chunk, Clock, Place, StoredRecord, TopicFound, TopicName
from worker.sim.log import MemoryLog

READ_MAX = 2_000
_LOOK_S = 0.05


class MemoryRecords:
    """Reads a `MemoryLog` along."""

    def __init__(self, log: MemoryLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._positions: dict[Place, int] = {}
        self._written_ms: dict[TopicName, list[int]] = {"dead_letters": [], "results": []}
        """When each dead letter and each result was seen first: the broker keeps no times of them."""

    async def start(self) -> None:
        """Nothing to connect to."""

    async def topics(self) -> Mapping[TopicName, TopicFound]:
        """All of them."""
        log, partitions = self._log, range(self._log.state_partitions)
        return {
            "state": TopicFound("state", log.broker.state_topic_id, {p: (0, log.state_end(p)) for p in partitions}),
            "dead_letters": TopicFound("dead_letters", "", {0: (0, len(log.dead_letters))}),
            "results": TopicFound("results", "", {0: (0, len(log.results))}),
            "history": TopicFound("history", "", {p: (0, len(log.history(p))) for p in partitions}),
        }

    def seek(self, positions: Mapping[Place, int]) -> None:
        """What `read` reads from now on."""
        self._positions = dict(positions)

    async def read(self, within_s: float) -> list[Chunk]:
        """What follows; looks again and again while nothing does."""
        give_up_at = self._clock.now() + within_s
        while not (found := [chunk for place in self._positions if (chunk := self._chunk(place)) is not None]):
            if self._clock.now() >= give_up_at:
                break
            await asyncio.sleep(min(_LOOK_S, within_s))
        return found

    def _chunk(self, place: Place) -> Chunk | None:
        topic, partition = place
        position = self._positions[place]
        if topic == "state":
            entries, until = self._log.state_read(partition, position, READ_MAX)
            now_ms = self._clock.wall_ms()
            records = [StoredRecord(entry.offset, now_ms, entry.key, entry.value) for entry in entries]
        else:
            records = self._beside(place)[position : position + READ_MAX]
            until = position + len(records)
        if until == position:
            return None
        self._positions[place] = until
        return Chunk(topic, partition, records, until)

    def _beside(self, place: Place) -> list[StoredRecord]:
        log, (topic, partition) = self._log, place
        if topic == "history":
            now_ms = self._clock.wall_ms()
            return [StoredRecord(each.offset, now_ms, each.key, each.value) for each in log.history(partition)]
        times = self._written_ms[topic]
        count = len(log.dead_letters if topic == "dead_letters" else log.results)
        times += [self._clock.wall_ms()] * (count - len(times))
        if topic == "results":
            return [StoredRecord(n, times[n], each.key, each.value) for n, each in enumerate(log.results)]
        return [
            StoredRecord(n, times[n], each.key, each.value, list(each.headers))
            for n, each in enumerate(log.dead_letters)
        ]

    async def record(self, place: Place, offset: int) -> StoredRecord | None:
        """One record, as it is now."""
        topic, partition = place
        if topic == "state":
            entries, _ = self._log.state_read(partition, offset, 1)
            found = [StoredRecord(each.offset, 0, each.key, each.value) for each in entries if each.offset == offset]
        else:
            found = [each for each in self._beside(place) if each.offset == offset]
        return found[0] if found else None

    async def picked(self, place: Place, offsets: Sequence[int]) -> list[StoredRecord]:
        """Some records, as they are now."""
        found = [await self.record(place, offset) for offset in sorted(offsets)]
        return [each for each in found if each is not None]

    async def input_ends(self) -> Mapping[int, int]:
        """The ends of the event topic."""
        return {partition: self._log.end_offset(partition) for partition in range(self._log.partitions)}

    async def stop(self) -> None:
        """Nothing to disconnect from."""
