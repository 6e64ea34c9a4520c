"""What a migration to another number of partitions does in Kafka: topics like the old ones, and transactions over all
partitions of the new state topic.

Theory of operation. The old partitions are closed first: by a record under the transactional id of each one's owner, so
that no owner from before can commit any more, and none after it goes on (`worker.ownership.belonging`). So what is
copied afterwards changes no more, and may be copied again as often as it takes. New owners do not begin before one last
transaction over all new partitions.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace

from worker.errors import FencedError, TopicError
from worker.kafka.client import AIOKafkaProducer, Connection, NewTopic, as_log_error, kafka_errors, stop_producer
from worker.kafka.reading import bounds, records
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import Topic, create_like
from worker.ports import StateEntry

__all__ = ["Filling", "create_topics_like", "state_entries", "unread"]

_CLOSE_WITHIN_S = 3.0
_TRANSACTION_RECORDS_MAX = 5_000
_TRANSACTION_BYTES_MAX = 4 * 2**20
_REQUEST_MAX_BYTES = 2**26
"""The brokers know what a topic accepts."""
_BATCH_MAX_BYTES = 256 * 1024


Placed = tuple[int, bytes, bytes | None]
"""Partition, key, value."""


class Filling:
    """Writes to all partitions of a state topic, from `open` to the first failure or `close`."""

    def __init__(self, connection: Connection, source: KafkaSettings) -> None:
        """`source`: of the deployment that the orders come from, of which there is one migration at a time."""
        self._connection = connection
        self._id = source.migrating_id()
        self._producer: Any = None
        self._waiting: list[Placed] = []
        self._bytes = 0

    async def open(self) -> None:
        """Fences everybody else who migrates the same. Raises `LogError`, `ConfigError`."""
        settings = self._connection.settings
        self._producer = AIOKafkaProducer(
            **self._connection.options(settings.request_timeout_s),
            transactional_id=self._id,
            transaction_timeout_ms=round(1000 * settings.transaction_timeout_s),
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_request_size=_REQUEST_MAX_BYTES,
            max_batch_size=_BATCH_MAX_BYTES,
        )
        self._connection.follow(self._producer.client)
        try:
            async with asyncio.timeout(settings.fence_timeout_s):
                await self._connection.start(self._producer)
        except TimeoutError as error:
            raise as_log_error(error, "beginning to migrate") from error

    async def put(self, record: Placed) -> None:
        """Writes a record, with others, now or later."""
        self._waiting.append(record)
        self._bytes += len(record[1]) + len(record[2] or b"")
        if len(self._waiting) >= _TRANSACTION_RECORDS_MAX or self._bytes >= _TRANSACTION_BYTES_MAX:
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if waiting:
            await self.write(waiting)

    async def write(self, placed: Sequence[Placed]) -> None:
        """One transaction: all of these, or none. Raises `FencedError` if somebody else migrates the same now,
        `LogError` if it failed, or if it is not known: whoever begins again sees what became of it.
        """
        settings = self._connection.settings
        try:
            async with asyncio.timeout(settings.commit_timeout_s):
                producer, topic = self._producer, settings.state_topic
                await producer.begin_transaction()
                # Each send is awaited before the commit: a commit after a failed one would succeed.
                sent = [await producer.send(topic, value, key, partition) for partition, key, value in placed]
                for each in sent:
                    await each
                await producer.commit_transaction()
        except (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch, AssertionError) as error:
            raise FencedError("somebody else migrates the same state now; wait until they are done") from error
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_log_error(error, f"writing to {settings.state_topic}") from error

    async def close(self) -> None:
        """Ends it; what was not committed is aborted. Never raises."""
        if self._producer is not None:
            await stop_producer(self._producer, _CLOSE_WITHIN_S)


async def state_entries(connection: Connection, partition: int) -> AsyncGenerator[list[StateEntry], None]:
    """All committed records of a partition of the state topic, in lists. Raises `LogError`; `TopicError` for a record
    without a key.
    """
    topic = connection.settings.state_topic
    begin, end = await bounds(connection, topic, partition)
    async with aclosing(records(connection, topic, partition, begin, end)) as lists:
        async for found in lists:
            entries = [StateEntry(each.offset, each.key, each.value) for each in found if _has_key(each)]
            if len(entries) < len(found):
                raise TopicError(f"partition {partition} of {topic} has records that cartsync did not write")
            yield entries


def _has_key(record: Any) -> bool:
    return getattr(record, "key", None) is not None


async def unread(connection: Connection, partition: int, position: int) -> str:
    """Why the input of a partition is not taken to its end, `position` being the next offset; empty: it is."""
    topic, isolation = connection.settings.event_topic, connection.settings.input_isolation
    begin, end = await bounds(connection, topic, partition, isolation=isolation)
    _, written = await bounds(connection, topic, partition, isolation="read_uncommitted")
    if end < written:
        return f"partition {partition} of {topic}: a producer's transaction is open at offset {end}"
    if position < begin:
        return (
            f"partition {partition} of {topic}: events from offset {position} to {begin} are gone, and were never "
            "taken; see `cartsync input skip`"
        )
    if position > end:
        return (
            f"partition {partition} of {topic} ends at offset {end}, and {position} was to come next: it was replaced"
        )
    # Markers of transactions take offsets, too: only records count.
    async with aclosing(records(connection, topic, partition, position, end, isolation=isolation)) as lists:
        async for _ in lists:
            return f"partition {partition} of {topic}: up to {end - position} events wait, from offset {position} on"
    return ""


async def create_topics_like(connection: Connection, old: Collection[tuple[Topic, str]], partitions: int) -> list[str]:
    """Creates topics with the configuration of others, (the other one, name), unless they are there; what was created.
    Raises `TopicError` if Kafka refuses.
    """
    wanted = [NewTopic(name, partitions, topic.replicas, topic_configs=copied_settings(topic)) for topic, name in old]
    return await create_like(connection, wanted)


_COPIED = (
    *("cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas", "segment.ms"),
    *("min.cleanable.dirty.ratio", "delete.retention.ms", "message.timestamp.type", "message.timestamp.after.max.ms"),
    *("unclean.leader.election.enable", "compression.type", "max.decompressed.message.bytes"),
)


def copied_settings(topic: Topic) -> dict[str, str]:
    """What a topic like this one is created with."""
    return {name: topic.config[name] for name in _COPIED if topic.config and name in topic.config}


def moved(settings: KafkaSettings, event_topic: str, state_topic: str) -> KafkaSettings:
    """The settings of the deployment after the migration. Histories begin anew, beside the new state: an order's are in
    the partition of its state, and nothing follows from them.
    """
    history_topic = f"{state_topic}.history" if settings.history else ""
    return replace(settings, event_topic=event_topic, state_topic=state_topic, history_topic=history_topic)
