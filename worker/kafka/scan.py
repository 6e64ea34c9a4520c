"""Reads all orders of the state topic, once each, without holding them all: for tools that look at every order.

A partition is read twice. The first pass notes the offset of the newest record of each key, which is small; the second
hands out the records at these offsets, one list at a time, however long its reader takes for them. Compaction may take
such a record away in between, but only for a newer one, which is then found at the end of the partition.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Any

from schemas.state import ORDER_PREFIX
from worker.errors import LogError
from worker.kafka.client import Connection, TopicPartition, as_cartsync_error, kafka_errors, stop_consumer
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import state_reader
from worker.kafka.topics import require_topics

_PREFIX = ORDER_PREFIX.encode()
_READ_RECORDS_MAX = 500
"""Bodies that are in memory at once."""
_READ_WAIT_S = 0.5
_PATIENCE_S = 30.0
"""Of a person, with brokers that send nothing."""
_CLOSE_WITHIN_S = 3.0


class KafkaStateScan:
    """`ports.StateScan`."""

    def __init__(self, settings: KafkaSettings, wanted: Callable[[str], bool]) -> None:
        """`wanted`: of subjects."""
        self._settings = settings
        self._wanted = wanted
        self._connection: Connection | None = None
        self._partitions = 0
        self._ends: dict[int, int] = {}

    async def start(self) -> None:
        """Looks at the topics."""
        self._connection = Connection(self._settings)
        topics = await require_topics(self._connection)
        self._partitions = topics[self._settings.state_topic].partitions

    @property
    def partitions(self) -> int:
        """Of the state topic."""
        return self._partitions

    async def orders(self, partition: int) -> AsyncGenerator[tuple[str, bytes], None]:
        """Each order once."""
        begin, end = await self._bounds(partition)
        self._ends[partition] = end
        newest: dict[bytes, int] = {}
        async for records in self._records(partition, begin, end):
            for record in records:
                if self._is_wanted(record):
                    if record.value is None:
                        newest.pop(record.key, None)
                    else:
                        newest[record.key] = record.offset
        async for records in self._records(partition, begin, end):
            for record in records:
                if record.key in newest and newest[record.key] == record.offset:
                    del newest[record.key]
                    yield _subject(record.key), record.value
        moved = await self.changed(partition, [_subject(key) for key in newest])
        for subject, value in moved.items():
            if value is not None:
                yield subject, value

    async def changed(self, partition: int, subjects: Collection[str]) -> dict[str, bytes | None]:
        """What was written since."""
        if not subjects:
            return {}
        asked = frozenset(subjects)
        begin, end = await self._bounds(partition)
        found: dict[str, bytes | None] = {}
        async for records in self._records(partition, max(begin, self._ends[partition]), end):
            for record in records:
                if self._is_wanted(record) and (subject := _subject(record.key)) in asked:
                    found[subject] = record.value
        return found

    def _is_wanted(self, record: Any) -> bool:
        key: bytes | None = record.key
        return key is not None and key.startswith(_PREFIX) and self._wanted(_subject(key))

    async def _bounds(self, partition: int) -> tuple[int, int]:
        """The first offset, and the one after the last that is committed."""
        here = TopicPartition(self._settings.state_topic, partition)
        async with _Reading(self._connection, here) as consumer:
            begins, ends = await consumer.beginning_offsets([here]), await consumer.end_offsets([here])
            return begins[here], ends[here]

    async def _records(self, partition: int, begin: int, end: int) -> AsyncIterator[list[Any]]:
        """Committed records from one offset to before another, in lists."""
        if begin >= end:
            return
        here = TopicPartition(self._settings.state_topic, partition)
        loop = asyncio.get_running_loop()
        async with _Reading(self._connection, here) as consumer:
            consumer.seek(here, begin)
            give_up_at, before, position = loop.time() + _PATIENCE_S, begin, begin
            while position < end:
                fetched = await consumer.getmany(
                    here, timeout_ms=round(1000 * _READ_WAIT_S), max_records=_READ_RECORDS_MAX
                )
                if records := [record for record in fetched.get(here, ()) if record.offset < end]:
                    yield records
                    give_up_at = loop.time() + _PATIENCE_S  # its reader may have taken long
                position = await consumer.position(here)
                if position > before:
                    give_up_at, before = loop.time() + _PATIENCE_S, position
                elif loop.time() > give_up_at:
                    said = f"no record of partition {partition} came for {_PATIENCE_S:.0f} s at offset {position}"
                    raise LogError(f"reading {here.topic}: {said}")


class _Reading:
    """A consumer of one partition that belongs to no group, from start to stop; Kafka's errors become ours."""

    def __init__(self, connection: Connection | None, here: Any) -> None:
        assert connection is not None, "start() comes first"
        self._connection, self._here = connection, here
        self._consumer: Any = None

    async def __aenter__(self) -> Any:
        self._consumer = state_reader(self._connection)
        self._consumer.assign([self._here])
        try:
            await self._connection.start(self._consumer)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self._consumer

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        await stop_consumer(self._consumer, _CLOSE_WITHIN_S)
        if isinstance(error, kafka_errors.KafkaError):
            raise as_cartsync_error(error, f"reading {self._here.topic}") from error


def _subject(key: bytes) -> str:
    return key[len(_PREFIX) :].decode(errors="backslashreplace")
