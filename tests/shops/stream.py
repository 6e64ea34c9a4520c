"""A shop of any size: seeded order histories as a stream, and what a provider must hold of each order in the end.

What must be held follows from plain counts that are kept beside the events (`DOMAIN.md` section 5), with arithmetic
of its own, apart from the worker's. Every event leaves a trace in it, so that none can be missing unseen. Only orders
that are under way are in memory.
"""

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import Any

import msgspec
from msgspec import Struct, field

ACCOUNTS = ("acme", "bolt", "cora", "dune")
"""What stands before the first slash in a subject. Several, for one that is held must not hold up the others."""
HOSTILE_ACCOUNT, UNKNOWN_ACCOUNT = "mallory", "nobody"
"""What a hostile producer calls its own orders; the second one is not configured."""
PRODUCERS = 4
"""The producers among which the orders are split."""
EVENTS_PER_ORDER = 10
DIGEST_BYTES = 8

_ARTICLES = (
    ("shirt-red", 1990),
    ("jacket", 7100),
    ("mug-blue", 1250),
    ("tea-green", 890),
    ("lamp", 4575),
    ("book-atlas", 3333),
    ("socks", 799),
    ("chair-oak", 14900),
)
_CITIES = ("Madrid", "Barcelona", "Valencia", "Bilbao", "Sevilla", "Vigo", "Cádiz")
_OPEN_FOR = 0.9
"""The part of the time in which orders begin."""
_LIFE_MAX_S = 90.0
_LATE_CHANCE, _AGAIN_CHANCE, _POISON_CHANCE = 0.05, 0.02, 0.01
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode

Item = tuple[str, str, int, int]
"""(type, reference, quantity, total in minor units)."""


def subject_of(number: int) -> str:
    """The subject of the order with this number; its reference holds a slash."""
    return f"{ACCOUNTS[number % len(ACCOUNTS)]}/A{number % 97}/{number:07d}"


def number_of(subject: str) -> int:
    """The number of the order with this subject, or reference."""
    return int(subject.rpartition("/")[2])


def begins_at(number: int, orders: int, seconds: float) -> float:
    """When the order with this number is confirmed, of so many in so many seconds."""
    return number * seconds * _OPEN_FOR / orders


class Expected(Struct, frozen=True):
    """What must be held of an order: the totals of its carts in minor units, and a digest of all that is compared."""

    shipped_minor: int
    unshipped_minor: int
    digest: bytes


def expected_of(shipped: list[Item], unshipped: list[Item], city: str, trackings: list[tuple[str, bool]]) -> Expected:
    """Of the items of both carts, the city of the delivery address, and (reference, delivered?) of the trackings."""
    told = sorted(shipped), sorted(unshipped), city, sorted(trackings)
    digest = blake2b(_encode_sorted(told), digest_size=DIGEST_BYTES).digest()
    return Expected(_total(shipped), _total(unshipped), digest)


class WorkloadEvent(Struct, frozen=True):
    """A record on its way into the event topic."""

    at_s: float
    """When it is written, after the beginning."""
    key: bytes | None
    value: bytes
    is_poisoned: bool = False
    number: int = 0
    """Of the order."""

    @property
    def producer(self) -> int:
        """Whose it is: all events of an order are written by the same one."""
        return self.number // len(ACCOUNTS) % PRODUCERS


class _Line(Struct):
    """One goods line, in counts."""

    reference: str
    unit_minor: int
    total_minor: int
    ordered: int
    shipped: int = 0
    returned: int = 0
    cancelled: int = 0

    @property
    def kept(self) -> int:
        return self.shipped - self.returned

    @property
    def pending(self) -> int:
        return self.ordered - self.cancelled - self.shipped

    def share(self, units: int) -> int:
        return _nearest(self.total_minor, units, self.ordered)


class _Order(Struct):
    """An order as the shop knows it."""

    lines: list[_Line]
    handling_minor: int
    discount_minor: int
    city: str
    refunds: list[tuple[str, int]] = field(default_factory=list)
    shipments: dict[str, bool] = field(default_factory=dict)
    """By id: delivered?"""
    is_cancelled: bool = False
    count: int = 0
    """Of ids given."""

    def expected(self) -> Expected:
        """What the provider must hold."""
        shipped: list[Item] = []
        unshipped: list[Item] = []
        for line in self.lines:
            kept, pending = line.kept, 0 if self.is_cancelled else line.pending
            first, both = line.share(kept), line.share(kept + pending)
            if kept:
                shipped.append(("product", line.reference, kept, first))
            if pending:
                unshipped.append(("product", line.reference, pending, both - first))
        kept_minor, pending_minor = _total(shipped), _total(unshipped)
        ever_minor = sum(line.share(line.shipped) for line in self.lines)
        ordered_minor = sum(line.total_minor for line in self.lines)
        if ever_minor + pending_minor:
            here = _nearest(self.handling_minor, ever_minor, ever_minor + pending_minor)
            _divide(shipped, unshipped, "handling", "ship-std", here, self.handling_minor - here)
        here = _nearest(-self.discount_minor, kept_minor, ordered_minor)
        both = _nearest(-self.discount_minor, kept_minor + pending_minor, ordered_minor)
        _divide(shipped, unshipped, "discount", "coupon", here, both - here)
        for name, amount in self.refunds:
            off = min(amount, _total(shipped))
            rest = min(amount - off, _total(unshipped))
            _divide(shipped, unshipped, "other_payment", name, -off, 0)
            _divide(shipped, unshipped, "discount", name, 0, -rest)
        for cart in (shipped, unshipped):
            if self.refunds and _total(cart) == 0:
                cart.clear()
        trackings = [(f"parcel-{name}", delivered) for name, delivered in self.shipments.items()]
        return expected_of(shipped, unshipped, self.city, trackings)


def _total(items: list[Item]) -> int:
    return sum(item[3] for item in items)


def _nearest(total: int, part: int, whole: int) -> int:
    """`total * part / whole`, halves away from zero."""
    sign = -1 if total < 0 else 1
    return sign * ((2 * abs(total) * part + whole) // (2 * whole))


def _divide(shipped: list[Item], unshipped: list[Item], kind: str, name: str, here: int, there: int) -> None:
    if here:
        shipped.append((kind, name, 0, here))
    if there:
        unshipped.append((kind, name, 0, there))


def make_order(seed: int, number: int) -> tuple[list[tuple[str, dict[str, Any]]], Expected]:
    """(type, data) of the events of one order as they happened, and what follows from all of them."""
    random = Random(f"{seed} {number}")
    articles = random.sample(_ARTICLES, random.randint(1, 3))
    lines = [_Line(name, minor, minor * (n := random.randint(2, 6)), n) for name, minor in articles]
    total_minor = sum(line.total_minor for line in lines)
    discount_minor = random.choice((0, 0, 100, 333, total_minor // 7))
    order = _Order(lines, random.choice((0, 395, 500)), min(discount_minor, total_minor // 5), random.choice(_CITIES))
    steps = [("confirmed", {"currency": "EUR", "lines": _content(order), "delivery_address": _address(order.city)})]
    for _ in range(EVENTS_PER_ORDER - 1):
        doable = [step for step in _STEPS if step[1](order)]
        do = random.choices([step[2] for step in doable], [step[0] for step in doable])[0]
        steps.append(do(random, order))
    return steps, order.expected()


def _content(order: _Order) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [
        {
            "reference": line.reference,
            "name": line.reference,
            "quantity": line.ordered,
            "unit_price_minor": line.unit_minor,
            "total_minor": line.total_minor,
        }
        for line in order.lines
    ]
    for kind, name, minor in (
        ("handling", "ship-std", order.handling_minor),
        ("discount", "coupon", -order.discount_minor),
    ):
        if minor:
            content.append({"type": kind, "reference": name, "name": name, "total_minor": minor})
    return content


def _address(city: str) -> dict[str, Any]:
    return {"given_names": "Nora", "surnames": "Vidal", "line_1": "C/ Example 1", "city": city, "country_code": "ES"}


def _name(order: _Order, letter: str) -> str:
    order.count += 1
    return f"{letter}{order.count}"


def _some(random: Random, counts: dict[str, int]) -> list[dict[str, Any]]:
    """At least one unit, at most those counts."""
    names = [name for name, count in counts.items() if count]
    picked = random.sample(names, random.randint(1, len(names)))
    return [{"line_id": name, "quantity": random.randint(1, counts[name])} for name in picked]


def _pending(order: _Order) -> dict[str, int]:
    return {line.reference: 0 if order.is_cancelled else line.pending for line in order.lines}


def _kept(order: _Order) -> dict[str, int]:
    return {line.reference: line.kept for line in order.lines}


def _count(order: _Order, units: list[dict[str, Any]], member: str) -> None:
    lines = {line.reference: line for line in order.lines}
    for unit in units:
        line = lines[unit["line_id"]]
        setattr(line, member, getattr(line, member) + unit["quantity"])


def _ship(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    name, units = _name(order, "s"), _some(random, _pending(order))
    _count(order, units, "shipped")
    order.shipments[name] = False
    tracking = {"reference": f"parcel-{name}", "type": "postal", "carrier": "Correos", "tracking_number": f"PQ{name}"}
    return "items_shipped", {"shipment_id": name, "lines": units, "tracking": [tracking]}


def _deliver(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    name = random.choice([name for name, delivered in order.shipments.items() if not delivered])
    order.shipments[name] = True
    return "items_delivered", {"shipment_id": name, "delivered_at": "2026-03-04T10:12:00+01:00"}


def _take_back(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    units = _some(random, _kept(order))
    _count(order, units, "returned")
    return "items_returned", {"return_id": _name(order, "r"), "lines": units}


def _cancel_units(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    units = _some(random, _pending(order))
    _count(order, units, "cancelled")
    return "items_cancelled", {"cancellation_id": _name(order, "c"), "lines": units, "reason": "out_of_stock"}


def _cancel(_random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    order.is_cancelled = True
    return "cancelled", {"reason": "shop_cancel"}


def _refund(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    name, amount = _name(order, "f"), random.randint(1, 60)
    order.refunds.append((name, amount))
    return "refunded", {"refund_id": name, "amount_minor": amount, "name": "Goodwill"}


def _move(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    order.city = random.choice([city for city in _CITIES if city != order.city])
    return "details_changed", {"delivery_address": _address(order.city)}


def _cheapen(random: Random, order: _Order) -> tuple[str, dict[str, Any]]:
    """A coupon that came late: a line's total need not be quantity times price."""
    line = random.choice(order.lines)
    line.total_minor -= random.randint(1, 29)
    return "cart_updated", {"currency": "EUR", "lines": _content(order)}


_STEPS = (
    (5.0, lambda order: any(_pending(order).values()), _ship),
    (2.0, lambda order: not all(order.shipments.values()), _deliver),
    (2.0, lambda order: any(_kept(order).values()), _take_back),
    (1.0, lambda order: any(_pending(order).values()), _cancel_units),
    (0.2, lambda order: any(_pending(order).values()), _cancel),
    (0.7, lambda _: True, _refund),
    (1.5, lambda _: True, _move),
    (1.0, lambda _: True, _cheapen),
)
"""(weight, when it can be, what it does)."""


class Workload:
    """One run of a shop: `events` once, from its beginning to its end."""

    def __init__(self, seed: int, orders: int, seconds: float, began_at: datetime) -> None:
        """`began_at`: aware; the times of the events count from it."""
        self.expected: list[Expected] = []
        """By the number of the order; grows with `events`."""
        self._seed = seed
        self._orders = orders
        self._seconds = seconds
        self._began_at = began_at

    def events(self) -> Iterator[WorkloadEvent]:
        """What is written, in the order of writing: some of it late, some of it twice, some of it to be refused."""
        random = Random(f"shop {self._seed}")
        due: list[tuple[float, int, WorkloadEvent]] = []
        count = 0
        for number in range(self._orders):
            at_s = begins_at(number, self._orders, self._seconds)
            while due and due[0][0] <= at_s:
                yield heapq.heappop(due)[2]
            for event in self._story(random, number, at_s):
                count += 1
                heapq.heappush(due, (event.at_s, count, event))
        while due:
            yield heapq.heappop(due)[2]

    def _story(self, random: Random, number: int, at_s: float) -> Iterator[WorkloadEvent]:
        steps, expected = make_order(self._seed, number)
        self.expected.append(expected)
        subject = subject_of(number)
        key = subject.encode()
        life_s = min(random.choice((3.0, 15.0, _LIFE_MAX_S)), self._seconds - at_s) * random.uniform(0.3, 1.0)
        moments = sorted(random.uniform(0, life_s) for _ in steps[1:])
        for step, ((kind, data), after_s) in enumerate(zip(steps, (0.0, *moments), strict=True)):
            happened_s = at_s + after_s
            value = self._event(subject, step, kind, data, happened_s)
            late_s = random.uniform(0, 0.1 * life_s + 1) if random.random() < _LATE_CHANCE else 0.0
            yield WorkloadEvent(happened_s + late_s, key, value, number=number)
            if random.random() < _AGAIN_CHANCE:
                again_s = happened_s + late_s + random.uniform(0, 0.1 * life_s)
                yield WorkloadEvent(again_s, key, value, number=number)
            if random.random() < _POISON_CHANCE:
                yield _poison(random, happened_s, key, value, number)

    def _event(self, subject: str, step: int, kind: str, data: dict[str, Any], happened_s: float) -> bytes:
        at = self._began_at + timedelta(seconds=happened_s, microseconds=step)
        event = {
            "specversion": "1.0",
            "id": f"{subject}#{step}",
            "source": "/shops/chaos",
            "type": f"order.{kind}",
            "time": at.astimezone(UTC),
            "subject": subject,
            "data": data,
        }
        if number_of(subject) % 2:
            event["sequence"] = str(step + 1)
        return _encode(event)


def _poison(random: Random, at_s: float, key: bytes, value: bytes, number: int) -> WorkloadEvent:
    """An event of the order that is damaged: each in a way that has to be refused."""
    damaged = random.choice(
        (
            (key, value[:-7]),
            (key, value.replace(b'"type":"order.', b'"type":"order.un')),
            (key, value.replace(b'"data":{', b'"data":{"quantiy":1,')),
            (key, value.replace(b'"specversion":"1.0"', b'"specversion":"0.3"')),
            (key, b"\xff" + value),
            (None, value),
        )
    )
    return WorkloadEvent(at_s, damaged[0], damaged[1], is_poisoned=True, number=number)
