"""A shop to try things with: seeded, realistic order histories, and what the shop itself knows of each order.

What the shop knows is kept in plain counts beside the events, apart from the reducer: it is what a provider must hold
in the end. Everything comes from the seed; times are seconds after the beginning.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from msgspec import Struct, field

_ARTICLES = (
    ("shirt-red", "Shirt, red", 1990),
    ("jacket", "Rain jacket", 7100),
    ("mug-blue", "Blue mug", 1250),
    ("tea-green", "Green tea, 250 g", 890),
    ("lamp", "Desk lamp", 4575),
    ("book-atlas", "Atlas", 3333),
    ("socks", "Wool socks", 799),
    ("chair-oak", "Oak chair", 14900),
)
_CITIES = (("Madrid", "28013"), ("Barcelona", "08013"), ("Valencia", "46002"), ("Bilbao", "48001"))


class ShopEvent(Struct, frozen=True):
    """An event on its way into the log."""

    at_s: float
    """When it is written, after the beginning."""
    subject: str
    value: bytes
    """The CloudEvents JSON; of a poisoned one, something else."""
    poisoned: bool = False


class ShopLine(Struct):
    """One line, in counts."""

    reference: str
    name: str
    unit_minor: int
    ordered: int
    shipped: int = 0
    returned: int = 0
    cancelled: int = 0

    @property
    def kept(self) -> int:
        """What the shopper has."""
        return self.shipped - self.returned


class ShopOrder(Struct):
    """An order as the shop knows it."""

    subject: str
    lines: list[ShopLine]
    handling_minor: int
    refunded_minor: int = 0
    cancelled: bool = False
    told: bool = False
    """Whether anything happened that the provider has to be told."""
    steps: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    """(seconds, type, data) of each event, as it happened."""

    def carts_minor(self) -> tuple[int, int] | None:
        """What the provider must hold: (shipped, unshipped); `None` when it need not have been told anything."""
        if not self.told:
            return None
        kept = sum(line.kept * line.unit_minor for line in self.lines)
        pending = (
            0
            if self.cancelled
            else sum((line.ordered - line.cancelled - line.shipped) * line.unit_minor for line in self.lines)
        )
        ever = sum(line.shipped * line.unit_minor for line in self.lines)
        handling = 0
        if ever + pending:  # the shipping cost follows what was ever shipped, to the nearest cent
            handling = (2 * self.handling_minor * ever + ever + pending) // (2 * (ever + pending))
        shipped = kept + handling
        unshipped = pending + (self.handling_minor - handling if ever + pending else 0)
        return max(0, shipped - self.refunded_minor), unshipped


class History(Struct, frozen=True):
    """What a shop does in a while."""

    events: list[ShopEvent]
    """In the order of their writing."""
    orders: dict[str, ShopOrder]
    poisoned: int


def make_history(
    seed: int, orders: int, duration_s: float, *, account: str = "acme", began_at: datetime, odd: bool = True
) -> History:
    """So many orders within so many seconds. `odd`: with disorder, duplicates and poisoned events, a few percent."""
    random = Random(seed)
    made = [_order(random, f"{account}/{1000 + number}", duration_s) for number in range(orders)]
    events: list[ShopEvent] = []
    for order in made:
        for number, (at_s, kind, data) in enumerate(order.steps):
            value = _cloud_event(order.subject, number, kind, data, began_at + timedelta(seconds=at_s))
            late_s = random.uniform(0.2, 1.5) if odd and random.random() < 0.05 else 0.0
            events.append(ShopEvent(at_s + late_s, order.subject, value))
            if odd and random.random() < 0.03:
                events.append(ShopEvent(at_s + late_s + random.uniform(0, 2), order.subject, value))
        if odd and random.random() < 0.02:
            events.append(ShopEvent(order.steps[-1][0] + 0.1, order.subject, _poison(random, order.subject), True))
    events.sort(key=lambda event: event.at_s)
    return History(events, {order.subject: order for order in made}, sum(event.poisoned for event in events))


def _cloud_event(subject: str, number: int, kind: str, data: dict[str, Any], at: datetime) -> bytes:
    event = {
        "specversion": "1.0",
        "id": f"{subject}#{number}",
        "source": "/shops/demo",
        "type": kind,
        "time": at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "subject": subject,
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False).encode()


def _poison(random: Random, subject: str) -> bytes:
    data = {"shipment_id": "x", "lines": [{"line_id": "socks", "quantity": random.choice([0, -3, 1.5, "2"])}]}
    whole = _cloud_event(subject, 99, "order.items_shipped", data, datetime.now(UTC).replace(microsecond=0))
    return random.choice([whole, whole[:-7], b"not json", whole.replace(b"items_shipped", b"items_packed")])


def _order(random: Random, subject: str, duration_s: float) -> ShopOrder:
    articles = random.sample(_ARTICLES, random.randint(1, 3))
    lines = [ShopLine(ref, name, minor, random.randint(1, 4)) for ref, name, minor in articles]
    order = ShopOrder(subject, lines, random.choice([0, 395, 500]))
    at_s = random.uniform(0, duration_s * 0.6)
    order.steps.append((at_s, "order.confirmed", _confirmation(random, order)))
    gap_s = duration_s * 0.35 / 4

    def step(kind: str, data: dict[str, Any]) -> None:
        nonlocal at_s
        at_s += random.uniform(0.1, gap_s)
        order.steps.append((at_s, kind, data))
        order.told = True

    random.choices(_STORIES, _WEIGHTS)[0](random, order, step)
    return order


def _confirmation(random: Random, order: ShopOrder) -> dict[str, Any]:
    city, postal_code = random.choice(_CITIES)
    address = {
        "given_names": "Nora",
        "surnames": "Vidal",
        "company": "",
        "line_1": f"C/ Example {random.randint(1, 400)}",
        "line_2": "",
        "postal_code": postal_code,
        "city": city,
        "country_code": "ES",
    }
    lines: list[dict[str, Any]] = [
        {
            "reference": line.reference,
            "name": line.name,
            "quantity": line.ordered,
            "unit_price_minor": line.unit_minor,
            "total_minor": line.ordered * line.unit_minor,
        }
        for line in order.lines
    ]
    if order.handling_minor:
        lines.append(
            {"type": "handling", "reference": "ship-std", "name": "Shipping", "total_minor": order.handling_minor}
        )
    customer = {"given_names": "Nora", "surnames": "Vidal", "email": "nora.vidal@shop.example"}
    return {"currency": "EUR", "lines": lines, "delivery_address": address, "customer": customer}


Step = Callable[[str, dict[str, Any]], None]


def _ship(order: ShopOrder, step: Step, counts: list[int]) -> None:
    units = [{"line_id": line.reference, "quantity": n} for line, n in zip(order.lines, counts, strict=True) if n]
    if not units:
        return
    number = sum(kind == "order.items_shipped" for _, kind, _ in order.steps) + 1
    tracking = {"reference": f"trk-{number}", "type": "postal", "carrier": "Correos", "tracking_number": f"PQ{number}"}
    step("order.items_shipped", {"shipment_id": f"s{number}", "lines": units, "tracking": [tracking]})
    for line, n in zip(order.lines, counts, strict=True):
        line.shipped += n


def _nothing_yet(_random: Random, _order: ShopOrder, _step: Step) -> None:
    """Confirmed, and no more so far."""


def _shipped_whole(_random: Random, order: ShopOrder, step: Step) -> None:
    _ship(order, step, [line.ordered for line in order.lines])


def _shipped_in_parts(random: Random, order: ShopOrder, step: Step) -> None:
    _ship(order, step, [random.randint(0, line.ordered) for line in order.lines])
    _ship(order, step, [line.ordered - line.shipped for line in order.lines])


def _part_returned(random: Random, order: ShopOrder, step: Step) -> None:
    _shipped_in_parts(random, order, step)
    line = random.choice([line for line in order.lines if line.shipped])
    count = random.randint(1, line.shipped)
    step("order.items_returned", {"return_id": "r1", "lines": [{"line_id": line.reference, "quantity": count}]})
    line.returned = count


def _cancelled(random: Random, order: ShopOrder, step: Step) -> None:
    step("order.cancelled", {"reason": random.choice(["out_of_stock", "Kunde hat angerufen"]), "by": "merchant"})
    order.cancelled = True


def _part_cancelled(random: Random, order: ShopOrder, step: Step) -> None:
    line = random.choice(order.lines)
    count = random.randint(1, line.ordered)
    units = [{"line_id": line.reference, "quantity": count}]
    step("order.items_cancelled", {"cancellation_id": "c1", "lines": units, "reason": "out_of_stock"})
    line.cancelled = count
    _ship(order, step, [line.ordered - line.cancelled for line in order.lines])


def _goodwill(random: Random, order: ShopOrder, step: Step) -> None:
    _shipped_whole(random, order, step)
    order.refunded_minor = random.randint(1, 700)
    step("order.refunded", {"refund_id": "f1", "amount_minor": order.refunded_minor, "name": "Goodwill"})


def _moved(random: Random, order: ShopOrder, step: Step) -> None:
    city, postal_code = random.choice(_CITIES)
    address = {"line_1": "Gran Via 12", "postal_code": postal_code, "city": city}
    step("order.details_changed", {"delivery_address": address})
    _shipped_whole(random, order, step)


_STORIES = (
    _nothing_yet,
    _shipped_whole,
    _shipped_in_parts,
    _part_returned,
    _cancelled,
    _part_cancelled,
    _goodwill,
    _moved,
)
_WEIGHTS = (10, 33, 20, 12, 7, 8, 5, 5)
