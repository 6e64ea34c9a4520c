"""Drills of what comes in: records that are refused, cannot be read, or come too fast."""

import asyncio
import os
import random
import signal
import time
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.drills.drill import drill
from tests.drills.kafka_tools import transactions
from tests.drills.scene import Scene
from tests.integration.process import WorkerProcess
from tests.shops.by_hand import ACCOUNT, line


@drill("CartsyncDeadLetters", "an event with a quantity of -3")
async def dead_letters(scene: Scene) -> None:
    """It is found, shown, mended and written again."""
    worker = await scene.started()
    order = scene.order(f"{ACCOUNT}/1")
    await order.confirm(line("mug", 1000))
    scene.broken()
    await order.ship("s1", mug=-3)
    await scene.fires()
    await scene.says("event_refused", worker)
    await scene.ran("dlq list --filter newer=1h", says="0/0")
    await scene.ran("dlq show", "0/0", says="quantity")
    await scene.ran("dlq mend", "0/0", "--set", "data.lines[0].quantity=1")
    await scene.agrees(order.subject)
    await scene.resolves()


@drill("CartsyncPartitionHalted", "retention takes events before they are read")
async def partition_halted(scene: Scene) -> None:
    """The position is moved to the first event that is still there."""
    worker = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    await scene.stopped(worker)
    await scene.shipped("2")
    here = TopicPartition(scene.settings.event_topic, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.settings.bootstrap_servers)
    await admin.start()
    await admin.delete_records({here: RecordsToDelete(before_offset=3)})
    await admin.close()
    scene.broken()
    worker = scene.start()
    await scene.fires()
    await scene.says("partition_halted", worker, partition=0)
    await scene.ran("status", "--url", worker.url, says="halted")
    at = ("--url", worker.url)
    looked = ("0", "0", "--why", "look", *at)
    await scene.ran(
        "input skip", *looked, named="input skip PARTITION 0 --why look", code=2, says="holds offsets 3 to 4"
    )
    moved = ("0", "3", "--why", "retention was too short", *at)
    await scene.ran("input skip", *moved, named="input skip PARTITION FIRST --why", says="moved")
    await scene.resolves()


@drill(
    "CartsyncNotReady",
    "somebody writes a record into the state topic, and the worker starts again",
    mended="where the key is said: by `partition_halted`, not by `/readyz`",
)
async def not_ready(scene: Scene) -> None:
    """The record is named, and one without a value is written under its key; the worker tries again by itself."""
    worker = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    await scene.stopped(worker)
    key = f"o:{ACCOUNT}/damaged".encode()
    await _write(scene, scene.settings.state_topic, key, b"not of cartsync")
    scene.broken()
    worker = scene.start()
    await scene.fires()
    scene.named("/readyz")
    code, body = await worker.get("/readyz")
    assert (code, b"is not one that cartsync wrote" in body) == (503, True), body
    await scene.says("partition_halted", worker, order=key.decode().removeprefix("o:"))
    scene.named("one without a value")
    await _write(scene, scene.settings.state_topic, key, None)
    await scene.resolves(120)
    await scene.agrees(await scene.shipped("2"))


async def _write(scene: Scene, topic: str, key: bytes, value: bytes | None) -> None:
    async with AIOKafkaProducer(bootstrap_servers=scene.settings.bootstrap_servers) as producer:
        await producer.send_and_wait(topic, value, key=key, partition=0)


async def _open_transaction(scene: Scene, topic: str) -> Any:
    """Of a producer that hangs."""
    producer = AIOKafkaProducer(
        bootstrap_servers=scene.settings.bootstrap_servers,
        transactional_id=f"{scene.name}-hangs",
        transaction_timeout_ms=900_000,
    )
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"{}", b"k", 0)
    return producer


async def _end_transaction(scene: Scene, topic: str) -> None:
    """As the section says: the producer is named, and its transaction aborted."""
    where = ("--topic", topic, "--partition", "0")
    scene.named("describe-producers")
    told = await transactions(scene.settings.bootstrap_servers, "describe-producers", *where)
    heads, *rows = [row.split() for row in told.splitlines() if row.strip()]
    at = heads.index("CurrentTransactionStartOffset")
    (offset,) = [row[at] for row in rows if row[at] != "None"]
    scene.named("abort")
    await transactions(scene.settings.bootstrap_servers, "abort", *where, "--start-offset", offset)


@drill(
    "CartsyncInputBlocked",
    "a producer leaves a transaction open in the event topic",
    mended="`find-hanging` lists no transaction that is merely open: `describe-producers` here and in the log line",
)
async def input_blocked(scene: Scene) -> None:
    """The command of the log line ends it."""
    worker = await scene.started()
    producer = await _open_transaction(scene, scene.settings.event_topic)
    scene.broken()
    subject = await scene.shipped("1")
    await scene.fires()
    said = await scene.says("input_blocked", worker, within_s=80, partition=0)
    assert "describe-producers" in said["do"], said
    await _end_transaction(scene, scene.settings.event_topic)
    await scene.resolves()
    await scene.agrees(subject)
    await producer.stop()


@drill(
    "CartsyncRestoreSlow",
    "somebody's transaction stays open in the state topic, and the worker starts again",
    mended="the same in the message of the log",
)
async def restore_slow(scene: Scene) -> None:
    """The command of the message ends it."""
    worker = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    await scene.stopped(worker)
    producer = await _open_transaction(scene, scene.settings.state_topic)
    scene.broken()
    worker = scene.start()
    await scene.fires()
    scene.named("cartsync_restore_records_total")
    await _end_transaction(scene, scene.settings.state_topic)
    await producer.stop()
    await scene.resolves(120)


class Throttle:
    """Gives a process only a part of the time, as a container's limit does: it runs for `run_s`, and then is stopped for
    once to twice `stop_s`.
    """

    def __init__(self, worker: WorkerProcess, run_s: float, stop_s: float) -> None:
        self._worker = worker
        self._run_s, self._stop_s = run_s, stop_s
        self._task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        try:
            while self._worker.is_running():
                self._signal(signal.SIGSTOP)
                await asyncio.sleep(random.uniform(1, 2) * self._stop_s)
                self._signal(signal.SIGCONT)
                await asyncio.sleep(self._run_s)
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._worker.is_running():
            os.kill(self._worker.pid, number)

    async def end(self) -> None:
        """The process has all the time again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@drill(
    "CartsyncLoopLag",
    "the process is stopped for a second at a time, as a CPU limit does",
    factor=20,
    scrape_s=2.0,
)
async def loop_lag(scene: Scene) -> None:
    """The limit is taken away."""
    worker = await scene.started()
    throttle = Throttle(worker, 0.5, 0.7)
    scene.broken()
    await scene.fires()
    scene.named("CPU request = limit")
    await throttle.end()
    await scene.resolves()


_BACKLOG = 60_000
"""Events that the worker finds at first: by these it is measured how many it takes."""
_MEASURED_S = 8


@drill(
    "CartsyncLagGrowing",
    "events come half as fast again as a worker takes them whose CPU is limited",
    partitions=2,
    scrape_s=1.0,
)
async def lag_growing(scene: Scene) -> None:
    """A second worker takes one of the two partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=scene.settings.bootstrap_servers, linger_ms=5)
    await producer.start()
    worker = await scene.started()
    throttle = Throttle(worker, 0.05, 0.3)
    flood = None
    try:
        await _write_many(scene, producer, _BACKLOG)
        await asyncio.sleep(_MEASURED_S)
        taken = await scene.value(f"sum(rate(cartsync_events_total[{_MEASURED_S}s]))")
        assert taken > 0, scene.tails()
        flood = asyncio.create_task(_flood(scene, producer, 1.6 * taken))
        scene.broken()
        await scene.fires()
        scene.named("add workers")
        scene.start()
        await scene.resolves(120)
    finally:
        if flood is not None:
            flood.cancel()
        await throttle.end()
        await producer.stop()


async def _write_many(scene: Scene, producer: Any, count: int) -> None:
    """The same event again and again, half of them into each partition."""
    order = scene.order(f"{ACCOUNT}/flood")
    value = order.event("confirmed", {"currency": "EUR", "lines": [line("mug", 1000)]})
    for number in range(count):
        await producer.send(scene.settings.event_topic, value, order.subject.encode(), number % 2)
    await producer.flush()


async def _flood(scene: Scene, producer: Any, rate: float) -> None:
    """So many events a second."""
    while True:
        began = time.monotonic()
        await _write_many(scene, producer, round(rate))
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))
