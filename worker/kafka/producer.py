"""Writes events to the event topic: what providers call `cartsync receive` with, and what jobs of a worker find out.

Idempotent, acknowledged by all in-sync replicas, and able to survive a Kafka outage: it reconnects until it is stopped.
After a failed send a producer is never used again: its sequence then has a gap, so that all later sends to the
partition would fail, too (aiokafka 0.14.0; see `state`).
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from worker.core.placing import Placing
from worker.errors import CartsyncError
from worker.kafka.client import AIOKafkaProducer, Connection, as_log_error, kafka_errors, stop_producer
from worker.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

_LINGER_MS = 2
"""Fills batches under load; unnoticeable otherwise."""
_AGAIN_S = 1.0
"""The delay before the next attempt to connect."""
_STOP_S = 4.0
_DISCARD_S = 1.0
_BEFORE_SEQUENCE = (
    kafka_errors.KafkaTimeoutError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.UnknownTopicOrPartitionError,
)
"""Raised before the record is assigned a sequence number: the producer stays usable."""


class KafkaEventProducer:
    """`ports.EventProducer` on a producer that is replaced when it breaks."""

    def __init__(self, settings: KafkaSettings, placing: Placing | None) -> None:
        """`placing`: where records go that name no partition. Raises `ConfigError` if the settings or the certificates
        are unusable.
        """
        self._settings = settings
        self._placing = placing
        self._connection = Connection(settings)
        self._producer: Any = None
        self._is_up = asyncio.Event()
        self._is_broken = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._silent_since: float | None = None

    def start(self) -> None:
        self._silent_since = time.monotonic()
        self._keeping = asyncio.create_task(self._keep(), name="kafka producer")

    async def post(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None = None
    ) -> "asyncio.Future[Any]":
        try:
            return await self._queue(key, value, headers, partition)
        except asyncio.CancelledError:
            # Usually the caller's deadline: without brokers, or without the topic, the library waits indefinitely.
            topic = self._settings.event_topic
            self._not_written(f"writing events: no metadata of topic {topic} before the deadline", "deadline")
            raise

    async def _queue(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None
    ) -> "asyncio.Future[Any]":
        while (producer := self._producer) is None:
            await self._is_up.wait()
        topic = self._settings.event_topic
        try:
            place = partition
            if place is None:
                assert self._placing is not None  # whoever writes by keys has one
                place = self._placing.partition(key, len(await producer.partitions_for(topic)))
            sent: asyncio.Future[Any] = await producer.send(topic, value, key, place, headers=list(headers))
        except (kafka_errors.KafkaError, AssertionError) as error:
            self._failed(producer, error, is_usable=isinstance(error, _BEFORE_SEQUENCE))
            raise as_log_error(error, "writing an event") from error
        sent.add_done_callback(partial(self._sent, producer))
        return sent

    def _sent(self, producer: Any, sent: "asyncio.Future[Any]") -> None:
        if sent.cancelled():
            return  # the waiter has given up: the outcome is unknown
        if (error := sent.exception()) is None:
            self._silent_since = None
        else:
            self._failed(producer, error, is_usable=False)

    def _failed(self, producer: Any, error: BaseException, *, is_usable: bool) -> None:
        self._not_written(str(as_log_error(error, "writing events")), type(error).__name__)
        # A producer that was replaced already may still report failures of its last records.
        if not is_usable and producer is self._producer:
            self._producer = None
            self._is_up.clear()
            self._is_broken.set()

    def _not_written(self, why: str, kind: str) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        log.warning("events_not_written", error=why, sampled_by=kind)

    def silent_s(self) -> float:
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    async def _keep(self) -> None:
        """Keeps a working producer, and replaces it when it breaks, until cancelled."""
        while True:
            producer = self._made()
            try:
                await self._connection.start(producer)
                self._is_broken.clear()
                self._silent_since = None
                self._producer = producer
                self._is_up.set()
                await self._is_broken.wait()
            except CartsyncError as error:
                log.warning("events_without_kafka", error=str(error), sampled_by=type(error).__name__)
                await asyncio.sleep(_AGAIN_S)
            finally:
                if self._producer is not producer:
                    await self._discard(producer)

    async def _discard(self, producer: Any) -> None:
        """Ends a broken producer. Fails its queued records first: a late `stop_producer` marks them as done, and
        callbacks would be acknowledged to the provider without having been written.
        """
        producer._message_accumulator.fail_all(kafka_errors.KafkaError("the producer was given up"))  # noqa: SLF001
        await stop_producer(producer, _DISCARD_S)

    def _made(self) -> Any:
        producer = AIOKafkaProducer(
            **self._connection.options(self._settings.request_timeout_s),
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            linger_ms=_LINGER_MS,
        )
        self._connection.follow(producer.client)
        return producer

    async def stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._keeping})
        self._is_up.clear()
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await producer.flush()
        await self._discard(producer)
