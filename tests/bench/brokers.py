"""A Kafka for the benchmarks: started when the first row needs it, on the cores that are not measured."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.processes import cores
from tests.shops.load import PARTITIONS, partition_of, subject_of
from worker.kafka.client import AIOKafkaProducer
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.tools.local_kafka import JARS, LocalKafka

PRODUCER = {
    "acks": "all",
    "enable_idempotence": True,
    "compression_type": "zstd",
    "max_batch_size": 2**20,
}
"""As the state log's own producers: what is measured is the work around the library."""


class Brokers:
    """One node."""

    def __init__(self) -> None:
        self._kafka: LocalKafka | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kafka is not None:
            self._kafka.stop()

    def settings(self, event_topic: str = "") -> dict[str, Any]:
        """New names on the running node, for `KafkaSettings`; `event_topic`: one that is there already."""
        if self._kafka is None:
            all_cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, cores()[1])  # inherited by the broker
            try:
                self._kafka = LocalKafka(jars=Path(os.environ.get("KAFKA_JARS", JARS)), heap="1g")
                self._kafka.start()
            finally:
                os.sched_setaffinity(0, all_cores)
        self._count += 1
        name = f"bench{self._count}"
        return {
            "bootstrap_servers": self._kafka.bootstrap,
            "group_id": name,
            "transactional_id_prefix": name,
            "event_topic": event_topic or f"{name}.events",
            "state_topic": f"{name}.state",
            "dead_letter_topic": f"{name}.dlq",
            "results_topic": f"{name}.results",
        }

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Meanwhile the node answers nothing, and keeps its connections."""
        assert self._kafka is not None
        self._kafka.freeze(1)
        try:
            yield
        finally:
            self._kafka.thaw(1)

    async def topics(self, event_topic: str = "", partitions: int = PARTITIONS) -> dict[str, Any]:
        """As `settings`, and the topics are there."""
        settings = self.settings(event_topic)
        await create_topics(KafkaSettings(**settings), partitions)
        return settings


async def write_events(
    settings: dict[str, Any], events: Iterable[tuple[int, bytes]], partitions: int = PARTITIONS
) -> int:
    """Writes events of numbered orders into the event topic, which has so many partitions; returns how many."""
    producer = AIOKafkaProducer(bootstrap_servers=settings["bootstrap_servers"], linger_ms=20, **PRODUCER)
    await producer.start()
    count = 0
    try:
        for number, value in events:
            key, partition = subject_of(number).encode(), partition_of(number) % partitions
            await producer.send(settings["event_topic"], key=key, value=value, partition=partition)
            count += 1
        await producer.flush()
    finally:
        await producer.stop()
    return count
