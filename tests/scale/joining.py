"""Workers of one group on a real Kafka, with all input visible at one moment: what the axes of workers and partitions
share.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.bench.brokers import PRODUCER
from tests.bench.processes import Line, Process, calm, until
from tests.bench.sending import account_at
from tests.scale.measuring import Bench, Point
from tests.scale.metering import Meter, Reading
from tests.scale.settling import WITHIN_S, point
from tests.shops.load import ACCOUNT, in_log_order, subject_of
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.kafka.client import AIOKafkaProducer
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.metrics import Metrics
from worker.publisher.sender import HttpSender

ORDERS = 9_600
"""As many in each partition, whether there are 1, 2, 4 or 16."""
EVENTS = 4
"""Of each order: confirmed, changed twice, shipped; so each is told at least once."""
_TRANSACTION_MS = 600_000


@asynccontextmanager
async def visible_at_once(
    settings: dict[str, Any], events: Iterable[tuple[int, bytes]], partitions: int
) -> AsyncIterator[int]:
    """Events of numbered orders that are in the topic inside the block, and can be read from its end on; how many."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings["bootstrap_servers"],
        transactional_id=f"{settings['transactional_id_prefix']}.shop",
        transaction_timeout_ms=_TRANSACTION_MS,
        linger_ms=20,
        **PRODUCER,
    )
    await producer.start()
    try:
        async with producer.transaction():
            count = 0
            for number, value in events:
                key, partition = subject_of(number).encode(), number % partitions
                await producer.send(settings["event_topic"], key=key, value=value, partition=partition)
                count += 1
            await producer.flush()
            yield count
    finally:
        await producer.stop()


async def measure_group(bench: Bench, x: float, workers: int, partitions: int) -> Point:
    """So many workers, each of which has as many partitions as the others."""
    settings = await bench.brokers.topics(partitions=partitions)
    ours = sorted(os.sched_getaffinity(0))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Process("sending:server", {}, measured=False))
        arguments = {
            "settings": settings,
            "base_url": await server.hear(),
            "served": partitions // workers,
            "taken": ORDERS * EVENTS // partitions,
        }
        group = [
            await stack.enter_async_context(
                Process(
                    "tests.scale.joining:worker", arguments | {"name": f"w{number}"}, on={ours[-1 - number % len(ours)]}
                )
            )
            for number in range(workers)
        ]
        for process in group:
            await process.hear(WITHIN_S)
        async with visible_at_once(settings, in_log_order(2, ORDERS, EVENTS), partitions) as events:
            for process in group:
                process.go()
        readings: list[Reading] = [await process.hear(WITHIN_S) for process in group]
    whole = {
        "clock_s": max(reading["clock_s"] for reading in readings),
        "cpu_s": sum(reading["cpu_s"] for reading in readings),
        "memory_mb": sum(reading["memory_mb"] for reading in readings),
        "lag_ms": max(reading["lag_ms"] for reading in readings),
    }
    return point(x, events, whole, own=1e-3 * workers * events / whole["cpu_s"])


def kafka_worker(settings: dict[str, Any], base_url: str, name: str, **worker: Any) -> Worker:
    """A whole worker, yet to start. `worker`: settings of `[worker]`."""
    kafka = KafkaSettings(**settings)
    return Worker(
        worker_settings_from(worker),
        {ACCOUNT: account_at(base_url)},
        Ports(
            SystemClock(), KafkaEventLog(kafka), KafkaStateLog(kafka), HttpSender(deadline_s=8.0, user_agent="bench")
        ),
        owner_id=name,
        metrics=Metrics(),
        event_topic=kafka.event_topic,
    )


async def worker(line: Line, settings: dict[str, Any], base_url: str, name: str, served: int, taken: int) -> None:
    """Says when it serves so many partitions; then what it took until so many events of each are taken, and told."""
    serving = kafka_worker(settings, base_url, name)
    await serving.start()
    calm()

    def offsets() -> list[int]:
        return [view.next_offset for view in serving.status().partitions if view.role == "serving"]

    await until(lambda: len(offsets()) == served, every_s=0.05)
    line.say("serving")
    await line.wait()
    meter = Meter()
    await until(lambda: min(offsets()) >= taken and serving.is_idle(), every_s=0.01)
    line.say(meter.read())
    await asyncio.Event().wait()  # others of the group may not be done
