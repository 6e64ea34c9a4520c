"""A provider that is away, slow, or silent about one order: input goes on, and what is told is the newest."""

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import OpenStage
from tests.integration.harness import ATTEMPT_DEADLINE_S, SETTLE_S
from tests.integration.process import until
from tests.shops.by_hand import ACCOUNT, line
from worker.sandbox.faults import FaultPlan


@pytest.mark.parametrize("how", ["refuses connections", "answers 503"])
async def test_after_an_outage_each_order_is_told_once(open_stage: OpenStage, how: str) -> None:
    """Events are taken up meanwhile; afterwards one PUT per order is accepted, with the newest state."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    if how == "refuses connections":
        await stage.sandbox.stop()
    else:
        stage.sandbox.faults.plan = FaultPlan.parse("503=1")
    orders = [stage.order(f"{ACCOUNT}/{number}") for number in range(25)]
    for order in orders:
        await order.confirm(line("mug", 1000, quantity=4))
    for shipped in range(1, 4):
        await asyncio.gather(*(order.ship(f"s{shipped}", mug=1) for order in orders))
        await asyncio.sleep(0.8)
    await asyncio.gather(*(order.take_back("r1", mug=1) for order in orders))
    await asyncio.sleep(1.0)

    during = await worker.status()
    assert [view.lag for view in during.partitions] == [0, 0]
    assert sum(view.orders for view in during.partitions) == sum(view.owed for view in during.partitions) == 25
    assert (await worker.get("/livez"))[0] == (await worker.get("/readyz"))[0] == 200
    assert not stage.sandbox.held
    if how == "refuses connections":
        await stage.sandbox.start(port=urlsplit(stage.base_url).port or 0)
    else:
        assert stage.sandbox.attempt_count > 1  # the account slows down: not every order has to hear it
        stage.sandbox.faults.stop()
    await stage.agreed({order.subject: (2000, 1000) for order in orders}, within_s=10)
    await asyncio.gather(*(worker.shown(order.subject, "settled") for order in orders))
    applied = [sum(attempt.applied for attempt in stage.attempts(order.subject)) for order in orders]
    assert applied == [1] * len(orders)


async def test_a_blocked_order_does_not_stop_its_partition(open_stage: OpenStage) -> None:
    """Orders that the provider never answers for wait by themselves: the others of the partition are told at once."""
    stage = await open_stage(partitions=1)
    worker = await stage.started()
    blocked = [stage.order(f"{ACCOUNT}/blocked/{number}") for number in range(5)]
    stage.script((order.subject for order in blocked), "timeout_lost:30s")
    for order in blocked:
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
    await until(lambda: all(stage.attempts(order.subject) for order in blocked), 10, stage.tails)
    others = [stage.order(f"{ACCOUNT}/{number}") for number in range(40)]
    for order in others:
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 0) for order in others}, within_s=2)
    await asyncio.gather(*(worker.shown(order.subject, "settled") for order in others))
    (view,) = (await worker.status()).partitions
    assert (view.lag, view.owed) == (0, len(blocked))
    await until(lambda: all(len(stage.attempts(order.subject)) > 1 for order in blocked), 10, stage.tails)
    for order in blocked:
        former, latter = stage.attempts(order.subject)[:2]
        gap_s = (latter.received_at - former.received_at).total_seconds()
        assert gap_s > ATTEMPT_DEADLINE_S + SETTLE_S - 0.5  # it comes a little after the attempt has begun


async def test_a_graceful_stop_lets_attempts_end(open_stage: OpenStage) -> None:
    """A slow provider's answers are waited for and kept: the next worker tells none of these orders again."""
    stage = await open_stage(partitions=2)
    first = await stage.started()
    stage.sandbox.faults.plan = FaultPlan.parse("slow=1:700ms")
    orders = [stage.order(f"{ACCOUNT}/{number}") for number in range(20)]
    for order in orders:
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
    await until(lambda: stage.sandbox.attempt_count == len(orders), 10, stage.tails)
    under_way = [attempt for attempt in stage.sandbox.log if attempt.ended_at is None]

    first.terminate()
    assert await first.ended() == 0
    assert under_way
    assert {attempt.status for attempt in under_way} == {204}
    second = await stage.started()
    assert all(said["clean"] for said in second.log("partition_serving"))
    assert [said["owed"] for said in second.log("partition_serving")] == [0, 0]
    for order in orders:
        await second.shown(order.subject, "settled")
    assert stage.sandbox.attempt_count == len(orders)
