"""Taking over partitions of a real Kafka: how fast, and what their orders take in memory."""

import asyncio
import gc
import os
from pathlib import Path
from typing import Any, cast

from schemas import state
from schemas.state import NextRecord
from tests.bench.brokers import Brokers
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.processes import Line, Watch, calm, run
from tests.bench.sending import account_at, records_of
from tests.shops.load import PARTITIONS, partition_of, subject_of
from worker.app import SystemClock
from worker.core.policy import DeliveryPolicy
from worker.core.record import acknowledge
from worker.kafka.client import AIOKafkaConsumer, TopicPartition
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.metrics import Metrics
from worker.orders.context import OrderContext
from worker.orders.workload import OrderWorkload
from worker.ownership.context import BatchLimits
from worker.ownership.owner import Owner
from worker.ports import Dispatcher, EventLog
from worker.store.memory import MemoryOrders

ROUNDS = 5
ORDERS = 200_000
EVENTS = 4
KINDS = 4_000
"""Orders that differ; each stands in the topic so often that there are `ORDERS`."""
OWED_EACH = 100
"""One order of so many is owed, and so inherited."""
BATCH = 5_000
_OTHER_KEYS = (state.NEXT_KEY, state.OWNER_KEY)

RESTORE = Row(
    "restore",
    f"orders restored and inherited, Kafka, {ORDERS:,} orders, {PARTITIONS} partitions",
    "orders/s",
    "getmany, read_committed, into a dict",
    0.60,
)
MEMORY = Row(
    "memory",
    f"memory of an order of 3 lines after a restore, growth of the process by {ORDERS:,} orders",
    "bytes",
    "its encoded bytes",
    1.5,
    is_cost=True,
)


async def measure(brokers: Brokers, tell: Tell) -> list[Figure]:
    """One state topic for all rounds; each owner is killed, so the next one has to inherit."""
    tell(f"writing {ORDERS:,} orders")
    settings = await brokers.topics()
    encoded_bytes = await run("restoring:fill", {"settings": settings})
    figures = [Figure(RESTORE), Figure(MEMORY)]

    async def half(target: str) -> Any:
        return await run(f"restoring:{target}", {"settings": settings})

    for ours, bare in await take_turns(ROUNDS, lambda _: half("ours"), lambda _: half("bare"), tell):
        (ours_s, ours_cpu_s, grown_bytes), (bare_s, bare_cpu_s) = ours, bare
        figures[0].add(ORDERS / ours_s, ORDERS / bare_s, bare_cpu_s / ours_cpu_s)
        figures[1].add(grown_bytes / ORDERS, encoded_bytes / ORDERS)
    return figures


async def fill(
    line: Line,
    settings: dict[str, Any],
    orders: int = ORDERS,
    owed_each: int = OWED_EACH,
    base_url: str = "http://127.0.0.1",
) -> None:
    """The state topic as an owner leaves it that was killed."""
    account = account_at(base_url)
    values = []
    for number, record in records_of(KINDS, EVENTS, account):
        owed = number % owed_each == 0
        values.append(state.encode(record if owed else acknowledge(record, b"0123456789abcdef")))
    entries: list[list[tuple[bytes, bytes | None]]] = [[] for _ in range(PARTITIONS)]
    for number in range(orders):
        key = (state.ORDER_PREFIX + subject_of(number)).encode()
        entries[partition_of(number)].append((key, values[number // PARTITIONS % KINDS]))
    log = KafkaStateLog(KafkaSettings(**settings))
    await log.start()
    for partition, all_of_it in enumerate(entries):
        hold = log.partition(partition)
        await hold.fence()
        for start in range(0, len(all_of_it), BATCH):
            left = NextRecord(state.SCHEMA, 0, 0, clean=False, version="bench")
            await hold.write([*all_of_it[start : start + BATCH], (state.NEXT_KEY, state.encode(left))])
        await hold.close()
    line.say(sum(len(value or b"") for all_of_it in entries for _, value in all_of_it))


class _Input:
    """What a restore asks of `ports.EventLog`."""

    def seek(self, partition: int, offset: int) -> None:
        """There is nothing to read."""

    def resume(self, partition: int) -> None:
        """Nothing comes."""


class _Nobody:
    """What a restore asks of `ports.Dispatcher`: nothing is offered before an owner serves."""

    def waits(self, account: str) -> str:
        """Nothing is sent."""
        return account

    def pause_accounts(self, *_: Any) -> None:
        """No operator did anything."""


async def ours(line: Line, settings: dict[str, Any]) -> None:
    """The actors of all partitions, from before their fence until they are ready to serve."""
    states = KafkaStateLog(KafkaSettings(**settings))
    await states.start()
    context = OrderContext(
        owner_id="bench",
        version="bench",
        rules=DeliveryPolicy(),
        limits=BatchLimits(),
        clock=SystemClock(),
        events=cast(EventLog, _Input()),
        metrics=Metrics(),
        dispatcher=cast(Dispatcher, _Nobody()),
        destinations={},
        make_table=lambda _partition: MemoryOrders(),
    )
    calm()
    before_bytes = resident_bytes()
    watch = Watch()
    owners = [
        Owner(p, states.partition(p), context, lambda host, kept: OrderWorkload(host, context, kept))
        for p in range(PARTITIONS)
    ]
    await asyncio.gather(*(owner._acquire() for owner in owners))
    found = watch.read()
    assert sum(len(owner.workload.orders) for owner in owners) == ORDERS
    gc.collect()
    line.say([*found, resident_bytes() - before_bytes])


async def bare(line: Line, settings: dict[str, Any]) -> None:
    """Reads until it has them all."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings["bootstrap_servers"],
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 2**20,
    )
    here = [TopicPartition(settings["state_topic"], partition) for partition in range(PARTITIONS)]
    calm()
    watch = Watch()
    consumer.assign(here)
    await consumer.start()
    await consumer.seek_to_beginning(*here)
    orders: dict[bytes, bytes] = {}
    while len(orders) < ORDERS + len(_OTHER_KEYS):
        for records in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
            for record in records:
                orders[record.key] = record.value
    line.say(watch.read())


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
