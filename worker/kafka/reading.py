"""Reads a partition of one of our topics from an offset to another: for tools, which belong to no group."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from worker.errors import LogError
from worker.kafka.client import Connection, TopicPartition, as_cartsync_error, kafka_errors, stop_consumer
from worker.kafka.settings import Isolation
from worker.kafka.state import state_reader

_READ_RECORDS_MAX = 500
"""Bodies that are in memory at once."""
_READ_WAIT_S = 0.5
_PATIENCE_S = 30.0
"""Of a person, with brokers that send nothing."""
_CLOSE_WITHIN_S = 3.0


async def bounds(
    connection: Connection, topic: str, partition: int, *, isolation: Isolation = "read_committed"
) -> tuple[int, int]:
    """The first offset of a partition, and the one after the last that readers of this isolation get. Raises
    `LogError`, `ConfigError`.
    """
    here = TopicPartition(topic, partition)
    async with Reading(connection, here, isolation) as consumer:
        begins, ends = await consumer.beginning_offsets([here]), await consumer.end_offsets([here])
        return begins[here], ends[here]


async def records(
    connection: Connection,
    topic: str,
    partition: int,
    begin: int,
    end: int,
    *,
    isolation: Isolation = "read_committed",
) -> AsyncGenerator[list[Any], None]:
    """The records from one offset to before another, in lists, `ports.InputRecord` each. Raises `LogError` when none
    comes for half a minute: behind a transaction that nobody ends, for example.
    """
    if begin >= end:
        return
    here = TopicPartition(topic, partition)
    loop = asyncio.get_running_loop()
    async with Reading(connection, here, isolation) as consumer:
        consumer.seek(here, begin)
        give_up_at, before, position = loop.time() + _PATIENCE_S, begin, begin
        while position < end:
            fetched = await consumer.getmany(here, timeout_ms=round(1000 * _READ_WAIT_S), max_records=_READ_RECORDS_MAX)
            if found := [record for record in fetched.get(here, ()) if record.offset < end]:
                yield found
                give_up_at = loop.time() + _PATIENCE_S  # its reader may have taken long
            position = await consumer.position(here)
            if position > before:
                give_up_at, before = loop.time() + _PATIENCE_S, position
            elif loop.time() > give_up_at:
                said = f"no record of partition {partition} came for {_PATIENCE_S:.0f} s at offset {position}"
                raise LogError(f"reading {topic}: {said}")


class Reading:
    """A consumer of one partition that belongs to no group, from start to stop; Kafka's errors become ours."""

    def __init__(self, connection: Connection, here: Any, isolation: Isolation = "read_committed") -> None:
        self._connection, self._here, self._isolation = connection, here, isolation
        self._consumer: Any = None

    async def __aenter__(self) -> Any:
        self._consumer = state_reader(self._connection, self._isolation)
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
