"""Single records while Kafka is away: the pages ask at any time."""

import asyncio
from typing import Any

import pytest

from worker.errors import LogError
from worker.kafka import following
from worker.kafka.client import Connection
from worker.kafka.following import KafkaRecords
from worker.kafka.settings import KafkaSettings


async def test_no_consumer_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the start, during it and after the end a record cannot be read, and the error says what to do."""
    records = KafkaRecords(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    starting, never = asyncio.Event(), asyncio.Event()

    async def start(_connection: Connection, _consumer: Any) -> None:
        starting.set()
        await never.wait()

    async def stop(_consumer: Any, _within_s: float) -> None:
        stopped.append(_consumer)

    stopped: list[Any] = []
    monkeypatch.setattr(KafkaRecords, "_consumer", lambda _records: object())
    monkeypatch.setattr(Connection, "start", start)
    monkeypatch.setattr(following, "stop_consumer", stop)
    with pytest.raises(LogError, match="Kafka cannot be read now"):
        await records.record(("state", 0), 5)
    task = asyncio.create_task(records.start())
    await starting.wait()
    with pytest.raises(LogError, match="Kafka cannot be read now"):
        await records.record(("state", 0), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(stopped) == 3
    with pytest.raises(LogError, match="Kafka cannot be read now"):
        await records.record(("dead_letters", 0), 5)
