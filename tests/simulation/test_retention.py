"""Orders that are closed: their records go, and what comes late is told apart from what was never confirmed."""

from asyncio import sleep
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.state import CLOSED_PREFIX, ORDER_PREFIX
from tests.shops.events import confirmed, goods, observed, returned, shipped
from tests.simulation.reporting import DAY_S, PEOPLE, World, play
from worker.core.retention import ClosedOrders

BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEEP_DAYS = 40
ENOUGH_DAYS = KEEP_DAYS * 1.05 + 3
"""The latest of them, the rest of a day, and a round of the hand."""


def kept(story: Callable[[World], Any], partitions: int = 1) -> World:
    """The story, with one worker, an order that was told whole, one that is parked, one that was only observed."""

    async def whole(world: World) -> None:
        world.settings = {"keep_settled": f"{KEEP_DAYS}d"}
        world.start(0)
        await sleep(5.0)
        world.tell("A1", 0, confirmed(goods("A", 2, 200), **PEOPLE))
        world.tell("A1", 1, shipped("s1", A=2))
        world.tell("A2", 0, confirmed(goods("A", 2, 200), **PEOPLE))
        world.tell("A2", 1, shipped("s1", A=3))
        world.tell("O1", 0, observed(completed_at="2026-06-01T11:00:00Z"))
        await sleep(5.0)
        await story(world)

    world = play(1, BEGIN, whole, delivery="update", partitions=partitions)
    assert world.failures == []
    return world


def reread(world: World, slot: int = 0) -> Any:
    """What the worker of a slot shows of the order that was told whole."""
    return world.lives[slot].worker.show("acme/A1")


def test_orders_are_closed() -> None:
    """The one that was only observed after 8 days, the settled one when its time is over, the parked one never."""

    async def story(world: World) -> None:
        await sleep(7 * DAY_S)
        assert sorted(world.records()) == ["acme/A1", "acme/A2", "acme/O1"]
        await sleep(2 * DAY_S)
        assert sorted(world.records()) == ["acme/A1", "acme/A2"]
        await sleep((KEEP_DAYS - 10) * DAY_S)
        assert sorted(world.records()) == ["acme/A1", "acme/A2"]
        await sleep(ENOUGH_DAYS * DAY_S - KEEP_DAYS * DAY_S + 2 * DAY_S)
        assert sorted(world.records()) == ["acme/A2"]
        assert reread(world) is None
        (value,) = [entry.value for entry in world.log.entries(0) if entry.key.startswith(CLOSED_PREFIX.encode())]
        assert value is not None
        closed = ClosedOrders({"c:1.0": value})
        assert [closed.closed_on(f"acme/{name}") for name in ("A1", "A2", "O1")] == [1, 0, 0]

    kept(story)


def test_event_keeps_an_order() -> None:
    """It counts from the newest one, whatever that says."""

    async def story(world: World) -> None:
        await sleep((KEEP_DAYS - 1) * DAY_S)
        world.tell("A1", 2, returned("r1", A=1))
        await sleep((KEEP_DAYS - 1) * DAY_S)
        assert "acme/A1" in world.records()
        assert len(world.provider.updates) == 1

    kept(story)


@pytest.mark.parametrize("restart", ["none", "clean", "kill", "compacted"])
def test_late_event_of_a_closed_order(restart: str) -> None:
    """It makes the order unconfirmed, and says that it was closed: also to the next owner, with the tombstone read or
    compacted away. Nothing is sent; when it is confirmed once more it is told again.
    """

    async def story(world: World) -> None:
        await sleep(ENOUGH_DAYS * DAY_S)
        if restart == "compacted":
            world.log.compact(0)
            await sleep(3 * DAY_S)
            world.log.compact(0)
            entries = {entry.key for entry in world.log.entries(0)}
            assert f"{ORDER_PREFIX}acme/A1".encode() not in entries
        if restart == "clean":
            await world.leave(0)
        elif restart != "none":
            await world.kill(0)
        if restart != "none":
            world.start(0)
            await sleep(120.0)
        sent = len(world.provider.requests)
        world.tell("A1", 2, returned("r1", A=1))
        await sleep(60.0)
        order = reread(world)
        assert order.status == "unconfirmed"
        assert order.notes[0].startswith("it was closed on 2026-07-1")
        assert len(world.provider.requests) == sent
        world.tell("A1", 3, confirmed(goods("A", 2, 200), **PEOPLE))
        world.tell("A1", 4, shipped("s1", A=2))
        await sleep(60.0)
        assert reread(world).status == "settled"
        assert world.provider.updates["A1"][0] == {("product", "A"): (1, 100)}

    kept(story)


def test_order_that_was_never_known() -> None:
    """What comes before its confirmation says nothing of a closing."""

    async def story(world: World) -> None:
        await sleep(ENOUGH_DAYS * DAY_S)
        world.tell("B1", 0, shipped("s1", A=1))
        await sleep(60.0)
        order = world.lives[0].worker.show("acme/B1")
        assert order is not None
        assert (order.status, order.notes) == ("unconfirmed", [])

    kept(story)


def test_competing_owner_of_a_closed_order() -> None:
    """A worker that was frozen while its successor closed an order, and told of it anew, changes nothing any more."""

    async def story(world: World) -> None:
        await sleep(KEEP_DAYS * DAY_S)
        life = world.lives.pop(0)
        world.loop.freeze(life.name)
        world.log.freeze(life.name)
        await sleep(31.0)
        world.log.expel(life.name)
        world.start(1)
        await sleep((ENOUGH_DAYS - KEEP_DAYS) * DAY_S)
        assert reread(world, 1) is None
        world.log.thaw(life.name)
        world.loop.thaw(life.name)
        world.log.notice(life.name)
        await sleep(600.0)
        assert "acme/A1" not in world.records()
        world.tell("A1", 2, returned("r1", A=1))
        await sleep(60.0)
        assert world.records()["acme/A1"].closed_day > 0
        world.lives[2] = life

    kept(story)
