"""Writes events to the event topic, for the demo, replays and tests."""

from typing import Any

from worker.kafka.client import AIOKafkaProducer, Connection, stop_producer
from worker.kafka.settings import KafkaSettings

_LINGER_MS = 5
_STOP_S = 10.0


class EventWriter:
    """An idempotent producer for the event topic; `write` returns once the brokers have the record."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._connection = Connection(settings)
        self._producer: Any = None

    async def start(self) -> None:
        """Connects. Raises `LogError` if no broker can be reached."""
        self._producer = AIOKafkaProducer(
            **self._connection.options(self._settings.request_timeout_s),
            enable_idempotence=True,
            acks="all",
            compression_type="zstd",
            linger_ms=_LINGER_MS,
        )
        await self._connection.start(self._producer)

    async def write(self, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        """Writes one record; records with the same key go to the same partition."""
        await self._producer.send_and_wait(
            self._settings.event_topic, key=key, value=value, headers=list(headers) or None
        )

    async def post(self, key: bytes | None, value: bytes | None) -> Any:
        """Queues one record and returns a future for its acknowledgment. Bounded by the producer's buffer."""
        return await self._producer.send(self._settings.event_topic, key=key, value=value)

    async def stop(self) -> None:
        """Waits for records in flight, within a bound, and disconnects."""
        if self._producer is not None:
            await stop_producer(self._producer, _STOP_S)
