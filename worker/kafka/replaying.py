"""Writes events of dead letters again, each at most once, whoever else does so at the same time.

Theory of operation. Each partition of the dead-letter topic has a transactional id for this. Who replays takes that id
first, so that anybody who had it before can commit nothing any more; then reads the partition to its end, where the
markers of all letters are that others have dealt with; and then writes, in one transaction, events to the event topic
and their markers behind the letters. If another one comes meanwhile, the transaction is aborted: what was read of the
partition stays true until the commit, or nothing is written. The same protocol as that of a partition's owner.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from worker.core.letters import REPLAYED_FROM, Handling, Marker, marker_headers
from worker.core.mending import Mended
from worker.errors import FencedError
from worker.kafka.client import AIOKafkaProducer, Connection, as_log_error, kafka_errors, stop_producer
from worker.kafka.reading import bounds, records
from worker.ports import StoredRecord, UndecodableRecord

_CLOSE_WITHIN_S = 3.0
_REQUEST_MAX_BYTES = 2**23
"""The brokers know what a topic accepts."""


class Replay(Struct, frozen=True):
    """An event to be written again, or a letter to be put aside."""

    letter: int
    """Offset of its letter."""
    key: bytes | None
    """Of the letter."""
    record: Mended | None
    """`None`: nothing is written but the marker."""
    partition: int
    """Of the event topic."""
    handling: Handling


async def letters(connection: Connection, partition: int, begin: int = 0) -> AsyncGenerator[StoredRecord, None]:
    """The records of a partition of the dead-letter topic, markers among them, up to what was in it when this began,
    whatever transactions are open. Raises `LogError`.
    """
    topic = connection.settings.dead_letter_topic
    first, end = await bounds(connection, topic, partition, isolation="read_uncommitted")
    async with aclosing(records(connection, topic, partition, max(first, begin), end)) as lists:
        async for found in lists:
            for each in found:
                if type(each) is not UndecodableRecord:
                    yield StoredRecord(each.offset, each.timestamp, each.key, each.value, each.headers)


class Replayer:
    """One partition of the dead-letter topic, from `open` to the first failure or `close`."""

    def __init__(self, connection: Connection, partition: int, by: str, why: str = "") -> None:
        """`by`, `why`: who replays, and why, for the markers."""
        self._connection = connection
        self._settings = connection.settings
        self._partition = partition
        self._by = by
        self._why = why
        self._producer: Any = None

    async def open(self) -> None:
        """Fences everybody who replays letters of this partition. Raises `LogError`, `ConfigError`."""
        settings = self._settings
        self._producer = AIOKafkaProducer(
            **self._connection.options(settings.request_timeout_s),
            transactional_id=settings.replaying_id(self._partition),
            transaction_timeout_ms=round(1000 * settings.transaction_timeout_s),
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_request_size=_REQUEST_MAX_BYTES,
        )
        self._connection.follow(self._producer.client)
        try:
            async with asyncio.timeout(settings.fence_timeout_s):
                await self._connection.start(self._producer)
        except TimeoutError as error:
            raise as_log_error(error, "beginning to replay") from error

    async def write(self, replays: Sequence[Replay]) -> list[int]:
        """Writes all of these events with their markers, or nothing; the offsets of the events, -1 where there is none.

        Raises `FencedError` if somebody else replays letters of this partition now; `LogError` if that failed, or if it
        is not known: whoever begins again sees what became of it.
        """
        try:
            async with asyncio.timeout(self._settings.commit_timeout_s):
                return await self._transact(replays)
        except (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch, AssertionError) as error:
            raise FencedError(
                f"somebody else replays dead letters of partition {self._partition} now, so none of these "
                f"{len(replays)} was written; wait until they are done, then try again"
            ) from error
        except (kafka_errors.KafkaError, TimeoutError) as error:
            doing = "replaying dead letters (run it again: it sees what was written)"
            raise as_log_error(error, doing) from error

    async def _transact(self, replays: Sequence[Replay]) -> list[int]:
        producer, settings = self._producer, self._settings
        await producer.begin_transaction()
        # Each send is awaited before the commit: a commit after a failed one would succeed.
        sent = [
            None
            if each.record is None
            else await producer.send(
                settings.event_topic,
                key=each.record.key,
                value=each.record.value,
                partition=each.partition,
                headers=[*each.record.headers, (REPLAYED_FROM, self._place(each).encode())],
            )
            for each in replays
        ]
        offsets: list[int] = [-1 if each is None else (await each).offset for each in sent]
        marks = []
        for each, offset in zip(replays, offsets, strict=True):
            to = "" if offset < 0 else f"{settings.event_topic}/{each.partition}/{offset}"
            marker = Marker(each.letter, each.handling, self._by, to, self._why)
            marks.append(
                await producer.send(
                    settings.dead_letter_topic,
                    value=b"",  # the library wants a key or a value
                    key=each.key,
                    partition=self._partition,
                    headers=marker_headers(marker),
                )
            )
        for mark in marks:
            await mark
        await producer.commit_transaction()
        return offsets

    def _place(self, replay: Replay) -> str:
        return f"{self._settings.dead_letter_topic}/{self._partition}/{replay.letter}"

    async def close(self) -> None:
        """Ends it; what was not committed is aborted. Never raises."""
        if self._producer is not None:
            await stop_producer(self._producer, _CLOSE_WITHIN_S)
