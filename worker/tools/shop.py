"""A fake shop: seeded, realistic order histories, and the shop's own knowledge of each order.

That knowledge is plain counts, independent of the events and the reducer: the provider must have the same at the end.
Everything comes from the seed; times are seconds after the beginning. Shops sell through one provider
each, in its country.
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
REDELIVER = "redeliver"
"""Among the acts of an order: the shop delivers it a second time, which is an event of its own."""


class ShopEvent(Struct, frozen=True):
    """An event to be written to the log."""

    at_s: float
    """When it is written, from the beginning."""
    subject: str
    value: bytes
    """The CloudEvents JSON; for a poisoned event, something else."""
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
        """Units that the shopper has."""
        return self.shipped - self.returned


class ShopOrder(Struct):
    """An order as the shop knows it."""

    subject: str
    lines: list[ShopLine]
    handling_minor: int
    number: str = ""
    """The order's number at the provider, if it has one."""
    refunded_minor: int = 0
    cancelled: bool = False
    told: bool = False
    """Whether anything happened that has to be sent to the provider."""
    steps: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    """(seconds, type, data) of each event, as it happened."""
    acts: list[str] = field(default_factory=list)
    """Events at the provider, in order, each as soon as possible."""
    words: tuple[str, ...] = ()
    """The statuses that AtaraPay has to get."""
    is_unsupported: bool = False
    """The provider's API cannot express its state."""

    @property
    def account(self) -> str:
        """The order's account."""
        return self.subject.partition("/")[0]

    @property
    def reference(self) -> str:
        """The shop's reference."""
        return self.subject.partition("/")[2]

    @property
    def total_minor(self) -> int:
        """The ordered amount."""
        return sum(line.ordered * line.unit_minor for line in self.lines) + self.handling_minor

    def carts_minor(self) -> tuple[int, int] | None:
        """What the provider must have: (shipped, unshipped); `None`: nothing had to be sent."""
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
    """A shop's history."""

    events: list[ShopEvent]
    """In the order of writing."""
    orders: dict[str, ShopOrder]
    poisoned: int


Step = Callable[[str, dict[str, Any]], None]
Story = Callable[[Random, ShopOrder, Step], None]


class Market(Struct, frozen=True):
    """Where a shop sells, and what happens to its orders."""

    currency: str
    country: str
    cities: tuple[tuple[str, str], ...]
    stories: tuple[tuple[Story, int], ...]
    """Each with its weight."""
    prefix: str = ""
    """Prefix of order references; without one, they are numbers."""
    first_number: int = 0
    """The first order number at the provider; 0: it has none."""
    nameless: float = 0.0
    """Share of the orders whose number the shop does not report."""
    vat_rate_bp: int | None = None
    phone: str = ""


def make_history(
    seed: int,
    orders: int,
    duration_s: float,
    *,
    account: str = "acme",
    began_at: datetime,
    odd: bool = True,
    market: "Market | None" = None,
) -> History:
    """So many orders within so many seconds. `odd`: with disorder, duplicates and poisoned events, a few percent.
    `market`: Spain's unless given.
    """
    random, market = Random(seed), market or SPAIN
    made = [_order(random, market, account, number, duration_s) for number in range(orders)]
    events: list[ShopEvent] = []
    for order in made:
        for number, (at_s, kind, data) in enumerate(order.steps):
            value = _cloud_event(order.subject, number, kind, data, began_at + timedelta(seconds=at_s))
            late_s = random.uniform(0.2, 1.5) if odd and random.random() < 0.05 else 0.0
            events.append(ShopEvent(at_s + late_s, order.subject, value))
            if odd and random.random() < 0.03:
                events.append(ShopEvent(at_s + late_s + random.uniform(0, 2), order.subject, value))
        if odd and random.random() < 0.02:
            at_s = order.steps[-1][0] + 0.1
            poison = _poison(random, order.subject, began_at + timedelta(seconds=at_s))
            events.append(ShopEvent(at_s, order.subject, poison, True))
    events.sort(key=lambda event: event.at_s)
    return History(events, {order.subject: order for order in made}, sum(event.poisoned for event in events))


def redelivered(order: ShopOrder, at_s: float, began_at: datetime) -> ShopEvent:
    """The shop has delivered an order a second time."""
    shipments = [data["shipment_id"] for _, kind, data in order.steps if kind == "order.items_shipped"]
    order.steps.append((at_s, "order.items_delivered", {"shipment_id": shipments[-1]}))
    at = began_at + timedelta(seconds=at_s)
    return ShopEvent(at_s, order.subject, _cloud_event(order.subject, len(order.steps) - 1, *order.steps[-1][1:], at))


def _cloud_event(subject: str, number: int, kind: str, data: dict[str, Any], at: datetime) -> bytes:
    if kind == "order.items_delivered":
        data = data | {"delivered_at": at.isoformat(timespec="seconds")}
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


def _poison(random: Random, subject: str, at: datetime) -> bytes:
    data = {"shipment_id": "x", "lines": [{"line_id": "socks", "quantity": random.choice([0, -3, 1.5, "2"])}]}
    whole = _cloud_event(subject, 99, "order.items_shipped", data, at)
    return random.choice([whole, whole[:-7], b"not json", whole.replace(b"items_shipped", b"items_packed")])


def _order(random: Random, market: Market, account: str, number: int, duration_s: float) -> ShopOrder:
    articles = random.sample(_ARTICLES, random.randint(1, 3))
    lines = [ShopLine(ref, name, minor, random.randint(1, 4)) for ref, name, minor in articles]
    order = ShopOrder(f"{account}/{market.prefix}{1000 + number}", lines, random.choice([0, 395, 500]))
    if market.first_number:
        order.number = str(market.first_number + number)
    at_s = random.uniform(0, duration_s * 0.6)
    order.steps.append((at_s, "order.confirmed", _confirmation(random, market, order)))
    gap_s = duration_s * 0.35 / 4

    def step(kind: str, data: dict[str, Any]) -> None:
        nonlocal at_s
        at_s += random.uniform(0.1, gap_s)
        order.steps.append((at_s, kind, data))
        order.told = True

    stories, weights = zip(*market.stories, strict=True)
    random.choices(stories, weights)[0](random, order, step)
    return order


def _confirmation(random: Random, market: Market, order: ShopOrder) -> dict[str, Any]:
    city, postal_code = random.choice(market.cities)
    address = {
        "given_names": "Nora",
        "surnames": "Vidal",
        "company": "",
        "line_1": f"C/ Example {random.randint(1, 400)}",
        "line_2": "",
        "postal_code": postal_code,
        "city": city,
        "country_code": market.country,
    }
    if market.phone:
        address["mobile_phone"] = market.phone
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
    if market.vat_rate_bp is not None:
        lines = [line | {"vat_rate_bp": market.vat_rate_bp} for line in lines]
    customer = {"given_names": "Nora", "surnames": "Vidal", "email": "nora.vidal@shop.example"}
    told = {"currency": market.currency, "lines": lines, "delivery_address": address, "customer": customer}
    if order.number and not (market.nameless and random.random() < market.nameless):
        told["references"] = {"provider": order.number}
    return told


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
    """An order that is only confirmed so far."""


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
    city, postal_code = random.choice(SPAIN.cities)
    address = {"line_1": "Gran Via 12", "postal_code": postal_code, "city": city}
    step("order.details_changed", {"delivery_address": address})
    _shipped_whole(random, order, step)


# --- where one word must do ---


def _deliver(order: ShopOrder, step: Step) -> None:
    """All shipped units that are not delivered yet."""
    delivered = {data["shipment_id"] for _, kind, data in order.steps if kind == "order.items_delivered"}
    for _, kind, data in list(order.steps):
        if kind == "order.items_shipped" and data["shipment_id"] not in delivered:
            step("order.items_delivered", {"shipment_id": data["shipment_id"]})


def _delivered(random: Random, order: ShopOrder, step: Step) -> None:
    random.choice([_shipped_whole, _shipped_in_parts])(random, order, step)
    _deliver(order, step)
    order.words, order.acts = ("delivered",), random.choice([[], ["accept"], ["accept", "pay_out"]])


def _rejected(random: Random, order: ShopOrder, step: Step) -> None:
    _delivered(random, order, step)
    order.words *= 2
    order.acts = ["reject", "agree_second_attempt", REDELIVER, "accept"]


def _disputed(random: Random, order: ShopOrder, step: Step) -> None:
    _delivered(random, order, step)
    order.acts = ["reject", "dispute", "escalate", "drop_dispute"]


def _called_off(random: Random, order: ShopOrder, step: Step) -> None:
    _cancelled(random, order, step)
    order.words = ("cancelled",)


def _called_off_there(_random: Random, order: ShopOrder, _step: Step) -> None:
    order.acts, order.cancelled, order.told = ["cancel_as_buyer"], True, True


def _delivered_and_part_returned(random: Random, order: ShopOrder, step: Step) -> None:
    _shipped_whole(random, order, step)
    _deliver(order, step)
    line = random.choice([line for line in order.lines if line.shipped])
    step("order.items_returned", {"return_id": "r1", "lines": [{"line_id": line.reference, "quantity": 1}]})
    line.returned, order.is_unsupported = 1, True


_PARTS = (
    (_nothing_yet, 10),
    (_shipped_whole, 33),
    (_shipped_in_parts, 20),
    (_part_returned, 12),
    (_cancelled, 7),
    (_part_cancelled, 8),
    (_goodwill, 5),
    (_moved, 5),
)
SPAIN = Market(
    "EUR",
    "ES",
    (("Madrid", "28013"), ("Barcelona", "08013"), ("Valencia", "46002"), ("Bilbao", "48001")),
    _PARTS,
)
"""Whole carts."""
SWEDEN = Market(
    "SEK",
    "SE",
    (("Stockholm", "111 20"), ("Uppsala", "753 10"), ("Malmö", "211 20")),
    _PARTS,
    prefix="H",
    first_number=70_000,
    nameless=0.1,
    vat_rate_bp=2500,
)
"""Captures and returns of units."""
NIGERIA = Market(
    "NGN",
    "NG",
    (("Lagos", "100001"), ("Abuja", "900001"), ("Kano", "700001")),
    (
        (_nothing_yet, 8),
        (_delivered, 50),
        (_rejected, 10),
        (_disputed, 4),
        (_called_off, 10),
        (_called_off_there, 8),
        (_delivered_and_part_returned, 10),
    ),
    first_number=3_000,
    phone="+2348012345678",
)
"""One status per order, or none."""
