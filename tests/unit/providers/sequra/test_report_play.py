"""A year of reports: random orders, lost answers, refusals and deaths, against the model of seQura."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.events import GOODS, NEGATIVE, OrderEvent
from schemas.state import OrderRecord
from tests.shops.events import EventSpec, confirmed, envelope, event_of, goods, other, shipped
from tests.shops.histories import story
from tests.unit.core.samples import DETAILS
from tests.unit.providers.sequra.play import ACCOUNT, World
from worker.core.order import assess
from worker.core.status import is_parked
from worker.model.delivery import departures
from worker.model.order import Cart, Order
from worker.providers.sequra import memory
from worker.providers.sequra.cents import amounts_of

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
BEGIN_MS = int(BEGIN.timestamp() * 1000)
DAY_MS = 86_400_000
PEOPLE = {name: DETAILS[name] for name in ("customer", "delivery_method")}


def moments(chance: Random, count: int, days: float) -> list[float]:
    """So many days after the beginning, in their order."""
    first = chance.random() * days
    return sorted(first + chance.random() * min(20.0, days) for _ in range(count))


def wild(chance: Random, name: str, days: float) -> list[OrderEvent]:
    """Anything a shop may tell of an order."""
    told: list[dict[str, Any]] = story(chance)
    found = []
    for one, at in zip(told, moments(chance, len(told), days), strict=True):
        people = PEOPLE if one["type"] == "order.confirmed" and chance.random() < 0.9 else {}
        time = (BEGIN + timedelta(days=at)).isoformat()
        found.append(event_of(one | {"subject": f"acme/{name}", "time": time, "data": one["data"] | people}))
    return found


def plain(chance: Random, name: str, days: float) -> list[OrderEvent]:
    """Confirmed, then shipped line by line, sometimes two at once."""
    articles = {chr(65 + number): chance.randint(1, 3) for number in range(chance.randint(1, 4))}
    lines = [goods(one, count, count * chance.randint(50, 5_000)) for one, count in articles.items()]
    specs = [
        confirmed(
            *lines, other("handling", "freight", chance.randint(1, 900)), other("discount", "coupon", -40), **PEOPLE
        )
    ]
    parcels = [one for one, count in articles.items() for _ in range(count)]
    chance.shuffle(parcels)
    for number, one in enumerate(parcels):
        named: dict[str, Any] = {one: 1}
        specs.append(shipped(f"s{number}", **named))
    found, last = [], ""
    for number, (told, at) in enumerate(zip(specs, moments(chance, len(specs), days), strict=True)):
        time = (BEGIN + timedelta(days=at)).isoformat()
        if number > 1 and chance.random() < 0.2:
            sent = with_departure(told, last)
        else:
            sent, last = told, time
        found.append(event_of(envelope(sent, number) | {"subject": f"acme/{name}", "time": time}))
    return found


def with_departure(told: EventSpec, at: str) -> EventSpec:
    """A shipment that left when another one did."""
    return told._replace(data=told.data | {"shipped_at": at})


def world_of(seed: int, **members: Any) -> World:
    """A world at the beginning of the year."""
    chance = Random(seed)
    account = replace(
        ACCOUNT,
        report_at=tuple(sorted(chance.sample(range(1440), chance.randint(1, 3)))),
        timezone=chance.choice(("Europe/Madrid", "America/Bogota", "Australia/Lord_Howe")),
        report_orders_max=chance.choice((1, 3, 5000)),
        **members,
    )
    return World(
        account, chance, faults=chance.choice((0.0, 0.2, 0.5)), deaths=chance.choice((0.0, 0.03)), now_ms=BEGIN_MS
    )


def play(world: World, events: list[OrderEvent]) -> None:
    """All of it, then some quiet days in which nothing is lost any more, and an operator who looks."""
    for event in sorted(events, key=lambda each: each.time_us):
        world.pass_time(event.time_us // 1000)
        world.receive(event)
    for _ in range(3):
        world.pass_time(world.now_ms + DAY_MS)
    world.faults = world.deaths = 0.0
    for _ in range(12):
        world.pass_time(world.now_ms + DAY_MS)


def orders_of(world: World) -> Iterator[tuple[str, OrderRecord, Order | None]]:
    """Each order with its record, and what should be so when that can be said."""
    for subject, record in world.records.items():
        reference = subject.partition("/")[2]
        assessment = assess(record.facts, reference)
        yield reference, record, assessment.order if assessment.state == "ready" else None


def held(cart: Cart, remaining: bool = False) -> dict[tuple[str, str], tuple[int, int]]:
    """A cart of ours as the model knows it."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for each in amounts_of(cart.items):
        kind = "discount" if remaining and each.type == "other_payment" else each.type
        before = found.get((kind, each.reference), (0, 0))
        found[kind, each.reference] = before[0] + each.quantity, before[1] + each.total_minor
    return found


def can_carry(world: World, reference: str, record: OrderRecord, order: Order) -> bool:
    """Whether a shipment that was not told could bring all that seQura does not know of."""
    told = memory.read(record.remote)
    assert told is not None
    if departures(record.facts).keys() <= told.shipments.keys():
        return False
    now, there = held(order.shipped), world.provider.order(reference).shipped
    more = {
        key: (now.get(key, (0, 0))[0] - there.get(key, (0, 0))[0], now.get(key, (0, 0))[1] - there.get(key, (0, 0))[1])
        for key in {*now, *there}
    }
    fits = [
        cents < 0 if kind in NEGATIVE else cents >= 0 and (units > 0 if kind in GOODS else not units)
        for (kind, _), (units, cents) in more.items()
        if (units, cents) != (0, 0)
    ]
    return bool(fits) and all(fits) and sum(cents for _, cents in more.values()) >= 0


def check(world: World) -> None:
    """What has to be so in the end, whatever happened."""
    mode = world.account.delivery
    assert world.kept.pages == []
    for reference, record, order in orders_of(world):
        there = world.provider.order(reference)
        told = memory.read(record.remote)
        assert told is not None
        assert there.contradictions == 0, reference
        assert told.under_way is None, reference
        assert set(there.deliveries) == set(told.shipments.values()), reference
        if not told.by_update:
            assert {(each.type, each.reference): (each.quantity, each.total_minor) for each in told.shipped} == (
                there.shipped
            ), reference
        updates = world.updates.get(f"acme/{reference}", [])
        assert not updates or mode == "report_then_update"
        if order is None or record.revision != record.acked:
            continue
        if updates:
            assert updates[-1] == (held(order.shipped), held(order.unshipped)), reference
        elif there.deliveries:
            assert there.shipped == held(order.shipped), reference
            assert there.remaining == held(order.unshipped, remaining=True), reference
            assert sum(each.total_minor for each in there.deliveries.values()) == order.shipped.total_minor
    for reference, record, order in orders_of(world):
        if order is None or record.revision == record.acked:
            continue
        if is_parked(record):
            assert record.park is not None
            assert record.park.reason.startswith(("changed after its report: ", "unsupported: ", "not sent: ")), (
                reference
            )
            assert mode == "report" or record.park.reason.startswith("not sent: ")
            if record.park.reason.startswith("changed"):
                assert not can_carry(world, reference, record, order), reference
        else:
            assert record.reason.startswith(("cannot be reported: ", "its report was rejected")), record.reason
            assert world.provider.order(reference).broken or reference in world.bad


@pytest.mark.parametrize("seed", range(18))
@pytest.mark.parametrize("mode", ["report", "report_then_update"])
def test_anything_a_shop_may_tell(mode: str, seed: int) -> None:
    """Reported carts are the shipped carts to the cent, nothing is told twice, and what cannot be told is said."""
    world = world_of(seed, delivery=mode)
    chance = Random(-seed)
    events = [each for number in range(12) for each in wild(chance, f"o{number}", 40.0 if seed % 3 else 2.0)]
    play(world, events)
    check(world)


@pytest.mark.parametrize("seed", range(9))
def test_a_year_of_shipments(seed: int) -> None:
    """Each delivery is reported exactly once, in an entry of its own, and in the end all of it was."""
    world = world_of(seed, delivery="report")
    chance = Random(seed)
    names = [f"o{number}" for number in range(30)]
    events = [each for name in names for each in plain(chance, name, 345.0 if seed % 4 else 3.0)]
    play(world, events)
    check(world)
    for reference, record, order in orders_of(world):
        there = world.provider.order(reference)
        assert order is not None
        assert record.revision == record.acked, record.reason
        told = memory.read(record.remote)
        assert told is not None
        left = departures(record.facts)
        assert told.shipments.keys() == left.keys()
        if world.account.report_orders_max >= len(left):
            for second in there.deliveries:
                together = {left[key] for key, as_told in told.shipments.items() if as_told == second}
                assert len(together) == 1, "two deliveries in one entry"
                assert min(together) <= second <= min(together) + len(left)
        assert sum(each.total_minor for each in there.deliveries.values()) == order.shipped.total_minor
        assert order.unshipped.items == []


@pytest.mark.parametrize("seed", range(9))
def test_full_pages(seed: int) -> None:
    """Many orders in few pages: one that may have been taken is never said in other words."""
    world = world_of(seed, delivery="report")
    world.account = replace(world.account, report_at=(60,), report_orders_max=Random(seed).choice((7, 5000)))
    world.faults, world.deaths = 0.6, 0.1
    chance = Random(seed)
    play(world, [each for number in range(25) for each in plain(chance, f"o{number}", 2.0)])
    check(world)
    assert all(record.revision == record.acked for record in world.records.values())


@pytest.mark.parametrize("seed", range(5))
def test_orders_that_are_refused(seed: int) -> None:
    """A bad order is found and set aside; all others of its page are told."""
    world = world_of(seed, delivery="report")
    world.faults = world.deaths = 0.0
    chance = Random(seed)
    names = [f"o{number}" for number in range(25)]
    world.bad = set(chance.sample(names, 3))
    events = [each for name in names for each in plain(chance, name, 4.0)]
    play(world, events)
    check(world)
    for reference, record, _ in orders_of(world):
        assert (record.revision == record.acked) == (reference not in world.bad)
    world.bad.clear()
    world.pass_time(world.now_ms + 2 * DAY_MS)
    assert all(record.revision == record.acked for record in world.records.values())
    check(world)
