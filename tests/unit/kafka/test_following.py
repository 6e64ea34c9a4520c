"""Which consumer does what, and single records while Kafka is away: the pages ask at any time."""

import asyncio
from typing import Any

import pytest

from worker.errors import LogError
from worker.kafka import following
from worker.kafka.client import Connection
from worker.kafka.following import KafkaRecords
from worker.kafka.metadata import ClusterSeen, TopicSeen
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


class _Consumer:
    """One that has been assigned nothing, and notes what it is asked."""

    def __init__(self) -> None:
        self._client = self
        self.asked = 0

    def add_topic(self, _topic: str) -> None:
        """It is known from now on."""

    async def beginning_offsets(self, places: list[Any]) -> dict[Any, int]:
        """All are empty."""
        self.asked += 1
        return dict.fromkeys(places, 0)

    end_offsets = beginning_offsets


async def test_ends_are_not_asked_of_the_one_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have the answer only after the fetch that is under way, half a second later when nothing new comes."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    records = KafkaRecords(settings)
    made: list[_Consumer] = []

    def make(_records: KafkaRecords) -> _Consumer:
        made.append(_Consumer())
        return made[-1]

    async def describe(client: _Consumer, topics: list[str], _within_s: float) -> ClusterSeen:
        client.asked += 1
        return ClusterSeen("c", {topic: TopicSeen("id", 1, {}) for topic in topics})

    async def nothing(*_: Any) -> None:
        """It starts and stops at once."""

    monkeypatch.setattr(KafkaRecords, "_consumer", make)
    monkeypatch.setattr(Connection, "start", nothing)
    monkeypatch.setattr(following, "stop_consumer", nothing)
    monkeypatch.setattr(following, "describe_topics", describe)
    await records.start()
    assert (await records.topics())["state"].ends == {0: (0, 0)}
    assert await records.input_ends() == {0: 0}
    reader = records._reader
    assert reader in made
    assert (reader.asked, sum(consumer.asked for consumer in made)) == (0, 6)
    await records.stop()
