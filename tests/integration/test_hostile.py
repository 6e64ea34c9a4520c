"""One producer that writes whatever it likes, beside shops that need their orders told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.partitioner import DefaultPartitioner

from tests.contract.batches import Written, batch, write_batch
from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.process import WorkerProcess
from tests.integration.test_poison import split
from tests.integration.test_refusals import admin_of
from tests.shops.by_hand import ACCOUNT, ShopOrder, line

MIB = 2**20
USUAL_S = 5.0
"""A good order is told within milliseconds; this leaves room for a machine that does other things."""


def order_in(stage: Stage, partition: int, name: str) -> ShopOrder:
    """An order that lies in a partition."""
    place, partitions = DefaultPartitioner(), list(range(stage.partitions))
    subjects = (f"{ACCOUNT}/{name}-{number}" for number in range(1_000))
    return stage.order(next(s for s in subjects if place(s.encode(), partitions, partitions) == partition))


async def told(stage: Stage, order: ShopOrder, within_s: float = USUAL_S) -> None:
    """The order is confirmed and shipped, and the provider hears of it in time."""
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 0)}, within_s)


def peak_mib(worker: WorkerProcess) -> int:
    """The most memory that the process has had."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


@asynccontextmanager
async def producer_of(stage: Stage, **options: Any) -> AsyncIterator[Any]:
    """A producer of the test's own."""
    producer = AIOKafkaProducer(bootstrap_servers=stage.settings.bootstrap_servers, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def hostile_batches() -> list[bytes]:
    """What a producer can do that is not ours; takes seconds to make."""
    good_name: list[Written] = [(b"k", b"{}", [("abcd", b"x")])]
    headers: list[Written] = [(b"k", b"{}", [("", None)] * 300_000)]
    large: list[Written] = [(b"k", b"x" * (15 * MIB), [("h", b"v")])]
    bombs: list[list[Written]] = [[(b"k", b"{}", []), (b"k", bytes(200 * MIB), [])]] * 3
    return [
        batch(*good_name, change=lambda body: body.replace(b"abcd", b"\xff\xfe\xfd\xfc")),
        *(batch(*bomb, name=name) for bomb, name in zip(bombs, ("zstd", "gzip", "lz4"), strict=True)),
        batch(*headers, name="zstd"),
        batch(*large, name="zstd"),
    ]


REASONS = ["undecodable"] * 4 + ["not_cloudevents"] * 4 + ["too_large", "not_json"]


async def write_hostile(stage: Stage, producer: Any, batches: list[bytes]) -> None:
    """All of it, into partition 0."""
    for raw in batches:
        await write_batch(producer, stage.settings.event_topic, 0, raw)
    await producer.send_and_wait(stage.settings.event_topic, b"[" * 500_000, b"k", 0)


async def test_good_orders_are_told_beside_a_hostile_producer(open_stage: OpenStage) -> None:
    """Bombs, poison and an open transaction in one partition: the other one does not notice, memory stays bounded, and
    the orders behind them are told as soon as they can be read.
    """
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    await told(stage, order_in(stage, 1, "before"))
    before_mib = peak_mib(worker)
    batches = await asyncio.to_thread(hostile_batches)
    async with producer_of(stage) as hostile:
        writing = asyncio.create_task(write_hostile(stage, hostile, batches))
        number = 0
        while not writing.done() or number < 5:
            number += 1
            await told(stage, order_in(stage, 1, f"beside{number}"))
        await writing
        await told(stage, order_in(stage, 0, "behind"), within_s=30)
    letters = [split(letter)[1] for letter in await stage.dead_letters(len(REASONS))]
    assert sorted(letter["reason"] for letter in letters) == sorted(REASONS)
    assert peak_mib(worker) < before_mib + 400
    assert worker.log("partition_lost") == worker.log("partition_halted") == []

    async with producer_of(stage, transactional_id=f"{stage.name}-somebody") as somebody:
        await somebody.begin_transaction()
        await somebody.send_and_wait(stage.settings.event_topic, b"{}", b"k", 0)
        blocked = order_in(stage, 0, "blocked")
        await blocked.confirm(line("mug", 1000))
        await blocked.ship("s1", mug=1)
        await told(stage, order_in(stage, 1, "beside-open"))
        view = next(view for view in (await worker.status()).partitions if view.partition == 0)
        assert (view.lag, view.blocked) == (3, 3)
        assert stage.holds(blocked.subject) is None
        await somebody.abort_transaction()
    await stage.agreed({blocked.subject: (1000, 0)}, 30)


async def test_skip_over_a_gap_of_a_running_worker(open_stage: OpenStage) -> None:
    """Events were removed before anybody read them: the partition is halted and not ready, others serve; one command
    goes on behind the gap without a restart. For a partition that is not served there it names who has it.
    """
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    await told(stage, order_in(stage, 0, "before"))
    worker.terminate()
    assert await worker.ended() == 0
    for _ in range(3):
        await stage.write(order_in(stage, 0, "lost").subject.encode(), b"lost")
    async with admin_of(stage) as admin:
        await admin.delete_records({TopicPartition(stage.settings.event_topic, 0): RecordsToDelete(before_offset=4)})
    worker = stage.start()
    await worker.serving(1, role="halted")
    await told(stage, order_in(stage, 1, "other"))
    status, body = await worker.get("/readyz")
    assert (status, b"cartsync input skip 0 OFFSET" in body) == (503, True)
    refused = await stage.command("input", "skip", "0", "3", "--why", "a test", "--url", worker.url)
    assert (refused.code, "holds offsets 4 to 5, not 3" in refused.err) == (2, True), refused
    began = time.monotonic()
    moved = await stage.command("input", "skip", "0", "4", "--why", "a test", "--url", worker.url)
    assert (moved.code, moved.out) == (0, "partition 0: moved from offset 2 to 4\n"), moved
    assert time.monotonic() - began < 15
    await told(stage, order_in(stage, 0, "behind"))
    assert (await worker.get("/readyz"))[0] == 200
    [line_] = worker.log("operator_command")
    assert (line_["action"], line_["before"], line_["offset"], line_["why"]) == ("skip", 2, 4, "a test")
    worker.terminate()
    assert await worker.ended() == 0
    idle = await stage.command("input", "skip", "7", "4", "--why", "a test", "--url", worker.url)
    assert idle.code == 75, idle
