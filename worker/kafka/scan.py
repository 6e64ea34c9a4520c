"""Reads all orders of the state topic, once each, without holding them all: for tools that look at every order.

A partition is read twice. The first pass notes the offset of the newest record of each key, which is small; the second
hands out the records at these offsets, one list at a time, however long its reader takes for them. Compaction may take
such a record away in between, but only for a newer one, which is then found at the end of the partition.
"""

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any

from schemas.state import ORDER_PREFIX
from worker.kafka.client import Connection
from worker.kafka.reading import bounds, records
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import require_topics

_PREFIX = ORDER_PREFIX.encode()


class KafkaStateScan:
    """`ports.StateScan`."""

    def __init__(
        self,
        settings: KafkaSettings,
        wanted: Callable[[str], bool],
        on_other: Callable[[int, bytes, bytes | None], None] | None = None,
    ) -> None:
        """`wanted`: of subjects. `on_other`: gets partition, key and value of each record that is of no order, in the
        order of the topic.
        """
        self._settings = settings
        self._wanted = wanted
        self._on_other = on_other
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
        async for found in self._records(partition, begin, end):
            for record in found:
                if self._is_wanted(record):
                    if record.value is None:
                        newest.pop(record.key, None)
                    else:
                        newest[record.key] = record.offset
                elif self._on_other is not None and not (record.key or b"").startswith(_PREFIX):
                    self._on_other(partition, record.key or b"", record.value)
        async for found in self._records(partition, begin, end):
            for record in found:
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
        async for some in self._records(partition, max(begin, self._ends[partition]), end):
            for record in some:
                if self._is_wanted(record) and (subject := _subject(record.key)) in asked:
                    found[subject] = record.value
        return found

    def _is_wanted(self, record: Any) -> bool:
        key: bytes | None = record.key
        return key is not None and key.startswith(_PREFIX) and self._wanted(_subject(key))

    async def _bounds(self, partition: int) -> tuple[int, int]:
        """The first offset, and the one after the last that is committed."""
        assert self._connection is not None, "start() comes first"
        return await bounds(self._connection, self._settings.state_topic, partition)

    def _records(self, partition: int, begin: int, end: int) -> AsyncGenerator[list[Any], None]:
        """Committed records from one offset to before another, in lists."""
        assert self._connection is not None, "start() comes first"
        return records(self._connection, self._settings.state_topic, partition, begin, end)


def _subject(key: bytes) -> str:
    return key[len(_PREFIX) :].decode(errors="backslashreplace")
