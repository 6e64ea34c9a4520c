"""Weeks of delivery reports over both changes of the clock, with workers that die: each delivery is told once."""

from asyncio import sleep
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.simulation.reporting import DAY_S, ZONE, World, play
from worker.core.order import assess
from worker.model.delivery import departures
from worker.providers.sequra import memory
from worker.providers.sequra.cents import amounts_of

SPRING = datetime(2026, 3, 22, 12, tzinfo=UTC)
"""A week before clocks are put forward in Madrid (29 March, 2:00 to 3:00)."""
AUTUMN = datetime(2026, 10, 18, 12, tzinfo=UTC)
"""A week before they are put back (25 October, 3:00 to 2:00)."""


async def quiet_weeks(world: World) -> None:
    """One worker, an order or two, and nothing goes wrong."""
    world.start(0)
    for number in range(3):
        world.soon(world.order(f"A{number}", days=10.0))
    await sleep(14 * DAY_S)


@pytest.mark.parametrize("begin", [SPRING, AUTUMN])
def test_report_of_each_day(begin: datetime) -> None:
    """At half past two: what clocks skip is due right after it, what comes twice is due once; each day has one, if only
    an empty one.
    """
    world = play(1, begin, quiet_weeks, report_at=(150,))
    assert world.failures == []
    runs = {
        datetime.fromtimestamp(at_ms / 1000, ZONE).replace(second=0, microsecond=0)
        for at_ms, *_ in world.provider.taken
    }
    first = begin.date() + timedelta(days=1)
    expected = []
    for day in range(14):
        at = datetime(first.year, first.month, first.day, 2, 30, tzinfo=ZONE) + timedelta(days=day)
        is_skipped = at.date() == datetime(2026, 3, 29).date()  # noqa: DTZ001
        expected.append(at.replace(hour=3, minute=0) if is_skipped else at)
    assert sorted(runs) == expected
    assert len(runs) == len({each.date() for each in runs})


async def wild_weeks(world: World) -> None:
    """Two workers, of which one dies or leaves with every few requests, and a network that loses what it likes; then
    some calm days.
    """
    world.start(0)
    world.start(1)
    world.provider.faults, world.deaths = 0.3, 0.25
    for number in range(40):
        world.soon(world.order(f"A{number}", days=8.0))
    await sleep(9 * DAY_S)
    world.provider.faults = world.deaths = 0.0
    await sleep(3 * DAY_S)


def amounts(cart: Any) -> dict[tuple[str, str], tuple[int, int]]:
    """A cart of ours as the model knows it."""
    return {each.key: (each.quantity, each.total_minor) for each in amounts_of(cart.items)}


@pytest.mark.parametrize(
    ("seed", "begin", "mode"),
    [
        (1, SPRING, "report"),
        (2, AUTUMN, "report"),
        (3, SPRING, "report_then_update"),
        (4, AUTUMN, "report_then_update"),
    ],
)
def test_each_delivery_is_told_once(seed: int, begin: datetime, mode: str) -> None:
    """Whatever dies, is lost or is late: seQura holds what was shipped, to the cent, and nobody waits for a report."""
    most = 5000 if seed % 2 else 9
    world = play(seed, begin, wild_weeks, delivery=mode, report_orders_max=most, statistics=True)
    assert world.failures == []
    assert world.provider.wrong == []
    assert world.kills > 3
    total_minor = reported_minor = 0
    for subject, record in world.records().items():
        name = subject.partition("/")[2]
        order = assess(record.facts, name).order
        told = memory.read(record.remote)
        assert order is not None
        assert told is not None
        there = world.provider.reports.order(name)
        assert there.contradictions == 0, name
        assert told.under_way is None, name
        assert record.revision == record.acked, (name, record.reason)
        if name in world.provider.updates:
            assert mode == "report_then_update"
            assert world.provider.updates[name] == [amounts(order.shipped), amounts(order.unshipped)]
            continue
        assert there.shipped == amounts(order.shipped), name
        assert len(there.deliveries) == len(set(departures(record.facts).values())), name
        total_minor += order.shipped.total_minor
        reported_minor += sum(delivery.total_minor for delivery in there.deliveries.values())
    assert total_minor == reported_minor > 0
