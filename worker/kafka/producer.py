"""Writes what providers say to the event topic, for `cartsync receive`.

Idempotent, acknowledged by all in-sync replicas, and indifferent to a Kafka that is away: it connects for as long as it
lives. A producer of which one send has failed is never used again: its sequence has a gap from then on, and all later
sends of the partition would fail, too (aiokafka 0.14.0; see `state`).
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
"""Many records a batch under load; nobody notices it otherwise."""
_AGAIN_S = 1.0
"""Between two tries to have a producer."""
_STOP_S = 4.0
_DISCARD_S = 1.0
_OF_THE_RECORD = (
    kafka_errors.KafkaTimeoutError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.UnknownTopicOrPartitionError,
)
"""Raised before the record has got a place in a sequence: the producer is as good as before."""


class KafkaEventProducer:
    """`ports.EventProducer`."""

    def __init__(self, settings: KafkaSettings, placing: Placing) -> None:
        """Raises `ConfigError` when the settings or the certificates cannot be used."""
        self._settings = settings
        self._placing = placing
        self._connection = Connection(settings)
        self._producer: Any = None
        self._is_up = asyncio.Event()
        self._is_broken = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._silent_since: float | None = None

    def start(self) -> None:
        """Begins to connect."""
        self._silent_since = time.monotonic()
        self._keeping = asyncio.create_task(self._keep(), name="kafka producer")

    async def post(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> "asyncio.Future[Any]":
        """Hands over a record."""
        try:
            return await self._handed_over(key, value, headers)
        except asyncio.CancelledError:
            # A deadline, mostly: without brokers or the topic the library waits for as long as it is let.
            topic = self._settings.event_topic
            self._not_written(f"writing callbacks: no broker has said by the deadline where {topic} lies", "deadline")
            raise

    async def _handed_over(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> "asyncio.Future[Any]":
        while (producer := self._producer) is None:
            await self._is_up.wait()
        topic = self._settings.event_topic
        try:
            partitions = len(await producer.partitions_for(topic))
            place = self._placing.partition(key, partitions)
            sent: asyncio.Future[Any] = await producer.send(topic, value, key, place, headers=list(headers))
        except (kafka_errors.KafkaError, AssertionError) as error:
            self._failed(producer, error, is_usable=isinstance(error, _OF_THE_RECORD))
            raise as_log_error(error, "writing a callback") from error
        sent.add_done_callback(partial(self._settled, producer))
        return sent

    def _settled(self, producer: Any, sent: "asyncio.Future[Any]") -> None:
        if sent.cancelled():
            return  # whoever waited has given up; what becomes of it is not known
        if (error := sent.exception()) is None:
            self._silent_since = None
        else:
            self._failed(producer, error, is_usable=False)

    def _failed(self, producer: Any, error: BaseException, *, is_usable: bool) -> None:
        self._not_written(str(as_log_error(error, "writing callbacks")), type(error).__name__)
        if not is_usable and producer is self._producer:
            self._producer = None
            self._is_up.clear()
            self._is_broken.set()

    def _not_written(self, why: str, kind: str) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        log.warning("callbacks_not_written", error=why, sampled_by=kind)

    def silent_s(self) -> float:
        """For how long Kafka has taken nothing."""
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    async def _keep(self) -> None:
        """Has a producer that works, until it is cancelled."""
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
                log.warning("callbacks_without_kafka", error=str(error), sampled_by=type(error).__name__)
                await asyncio.sleep(_AGAIN_S)
            finally:
                if self._producer is not producer:
                    await self._discard(producer)

    async def _discard(self, producer: Any) -> None:
        """Ends a producer that is of no use any more, and first of all the waits for what it was given: what is
        stopped late counts as done, and a provider would be told that it is.
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
        """Waits for what is on its way, within a bound."""
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
