"""Orders that live long, and the records that a shop writes about them: late, out of order, doubled, some no events."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from tests.simulation.shop import Line, ShopOrder, Told

ARTICLES = (("shirt", 1990), ("jacket", 7100), ("mug", 1250), ("tea", 890), ("lamp", 4575), ("atlas", 3333))
CITIES = ("Madrid", "Bilbao", "Sevilla", "Vigo")


@dataclass(frozen=True)
class Record:
    """A record on its way into the log."""

    at_s: float
    key: bytes | None
    value: bytes | None
    is_poison: bool = False


@dataclass(frozen=True)
class History:
    """What a shop does in a while."""

    records: list[Record]
    """In the order of their writing."""
    told: dict[str, Told]
    """By subject: what the provider must hold in the end."""
    confirmed: dict[str, Told]
    """By subject: what the provider knows from the checkout."""
    poison: list[bytes]
    """The values of the records that are to be refused."""


def make_history(
    random: Random, *, records: int, duration_s: float, accounts: tuple[str, ...], began_at: datetime
) -> History:
    """About so many records of orders within so many seconds."""
    written: list[Record] = []
    told: dict[str, Told] = {}
    confirmed: dict[str, Told] = {}
    poison: list[bytes] = []
    number = 1000
    while len(written) < records:
        number += 1
        order = _order(random, f"{random.choice(accounts)}/{number}")
        confirmed[order.subject] = order.told()
        _live(random, order, duration_s)
        told[order.subject] = order.told()
        written += _written(random, order, began_at)
        written += _beside(random, order, poison)
    written.sort(key=lambda record: record.at_s)
    return History(written, told, confirmed, poison)


# --- the life of an order ---


def _order(random: Random, subject: str) -> ShopOrder:
    lines = {name: Line(minor, random.randint(1, 5)) for name, minor in random.sample(ARTICLES, random.randint(1, 3))}
    return ShopOrder(
        subject, lines, random.choice((0, 395, 500)), random.choice((0, 0, 99, 100)), random.choice(CITIES)
    )


def _live(random: Random, order: ShopOrder, duration_s: float) -> None:
    at_s = random.uniform(0.0, duration_s * 0.7)
    order.events.append((at_s, "order.confirmed", _content(order) | {"delivery_address": _address(order.city)}))
    pace_s = random.choice((0.5, 5.0, duration_s / 10))
    for _ in range(random.choice((0, 3, 6, 10, 16))):
        at_s = min(at_s + random.uniform(0.001, pace_s), duration_s - 1.0)
        step = random.choices(_STEPS, _WEIGHTS)[0](random, order)
        if step is not None:
            order.events.append((at_s, *step))
    for step in (_put_right(order), _approve(order)):
        if step is not None:
            at_s += 0.001
            order.events.append((at_s, *step))


def _content(order: ShopOrder) -> dict[str, Any]:
    lines: list[dict[str, Any]] = [
        {
            "reference": name,
            "name": name.title(),
            "quantity": line.ordered,
            "unit_price_minor": line.unit_minor,
            "total_minor": line.ordered * line.unit_minor,
        }
        for name, line in order.lines.items()
    ]
    if order.handling_minor:
        lines.append(
            {"type": "handling", "reference": "ship-std", "name": "Shipping", "total_minor": order.handling_minor}
        )
    if order.discount_minor:
        lines.append(
            {"type": "discount", "reference": "coupon", "name": "Coupon", "total_minor": -order.discount_minor}
        )
    return {"currency": "EUR", "lines": lines}


def _address(city: str) -> dict[str, Any]:
    return {"line_1": "Gran Via 12", "postal_code": "28013", "city": city, "country_code": "ES"}


def _units(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"line_id": name, "quantity": count} for name, count in counts.items()]


def _some(random: Random, available: dict[str, int]) -> dict[str, int]:
    there = {name: count for name, count in available.items() if count > 0}
    chosen = random.sample(sorted(there), random.randint(1, len(there))) if there else []
    return {name: random.randint(1, there[name]) for name in chosen}


Step = tuple[str, dict[str, Any]] | None


def _ship(random: Random, order: ShopOrder) -> Step:
    units = {} if order.is_cancelled else _some(random, {name: line.pending for name, line in order.lines.items()})
    if not units:
        return None
    name = f"s{len(order.shipments) + 1}"
    order.shipments[name] = units
    for line, count in units.items():
        order.lines[line].shipped += count
    tracking = {"reference": f"t-{name}", "type": "postal", "carrier": "Correos", "tracking_number": name}
    return "order.items_shipped", {"shipment_id": name, "lines": _units(units), "tracking": [tracking]}


def _oversell(random: Random, order: ShopOrder) -> Step:
    """More than was ordered: nothing may be told until it is put right."""
    if order.is_cancelled:
        return None
    name = random.choice(sorted(order.lines))
    shipment = f"s{len(order.shipments) + 1}"
    order.shipments[shipment] = {}
    return "order.items_shipped", {"shipment_id": shipment, "lines": _units({name: order.lines[name].ordered + 1})}


def _put_right(order: ShopOrder) -> Step:
    """Takes back a shipment that could not be."""
    wrong = next((name for name, units in order.shipments.items() if not units), None)
    if wrong is None:
        return None
    del order.shipments[wrong]
    order.shipments[f"{wrong} was void"] = {"": 0}
    return "order.retracted", {"shipment_id": wrong}


def _oversell_or_put_right(random: Random, order: ShopOrder) -> Step:
    return _put_right(order) or _oversell(random, order)


def _void(_random: Random, order: ShopOrder) -> Step:
    """A label that was never used."""
    if order.is_cancelled:
        return None
    for name, units in order.shipments.items():
        if units and "" not in units and all(order.lines[line].kept >= count for line, count in units.items()):
            for line, count in units.items():
                order.lines[line].shipped -= count
            del order.shipments[name]
            order.shipments[f"{name} was void"] = {"": 0}
            return "order.retracted", {"shipment_id": name}
    return None


def _return(random: Random, order: ShopOrder) -> Step:
    units = _some(random, {name: line.kept for name, line in order.lines.items()})
    if not units:
        return None
    for line, count in units.items():
        order.lines[line].returned += count
    return "order.items_returned", {"return_id": f"r{len(order.events)}", "lines": _units(units)}


def _cancel_some(random: Random, order: ShopOrder) -> Step:
    units = {} if order.is_cancelled else _some(random, {name: line.pending for name, line in order.lines.items()})
    if not units:
        return None
    for line, count in units.items():
        order.lines[line].cancelled += count
    return "order.items_cancelled", {
        "cancellation_id": f"c{len(order.events)}",
        "lines": _units(units),
        "reason": "out_of_stock",
    }


def _cancel(_random: Random, order: ShopOrder) -> Step:
    if order.is_cancelled:
        order.is_cancelled = False
        return "order.retracted", {"cancelled": True}
    if not any(line.pending for line in order.lines.values()) or any(not units for units in order.shipments.values()):
        return None
    order.is_cancelled = True
    return "order.cancelled", {"reason": "out_of_stock", "by": "merchant"}


def _refund(random: Random, order: ShopOrder) -> Step:
    if len(order.refunds) == 2:
        return None
    amount = random.randint(1, 150)
    order.refunds.append((f"f{len(order.events)}", amount))
    return "order.refunded", {"refund_id": order.refunds[-1][0], "amount_minor": amount}


def _move(random: Random, order: ShopOrder) -> Step:
    order.city = random.choice(CITIES)
    return "order.details_changed", {"delivery_address": _address(order.city)}


def _reduce(random: Random, order: ShopOrder) -> Step:
    """The whole cart anew, with less in it."""
    open_lines = [name for name, line in order.lines.items() if line.pending > 1]
    if not open_lines or order.is_cancelled:
        return None
    order.lines[random.choice(open_lines)].ordered -= 1
    return "order.cart_updated", _content(order)


def _hold(_random: Random, order: ShopOrder) -> Step:
    if order.is_on_hold:
        return _approve(order)
    order.is_on_hold = True
    return "order.payment_state_changed", {"payment_state": "on_hold"}


def _approve(order: ShopOrder) -> Step:
    if not order.is_on_hold:
        return None
    order.is_on_hold = False
    return "order.payment_state_changed", {"payment_state": "approved"}


_STEPS: tuple[Callable[[Random, ShopOrder], Step], ...] = (
    _ship,
    _return,
    _void,
    _cancel_some,
    _cancel,
    _refund,
    _move,
    _reduce,
    _hold,
    _oversell_or_put_right,
)
_WEIGHTS = (30, 12, 8, 6, 6, 6, 12, 8, 6, 6)


# --- how it gets into the log ---


def _written(random: Random, order: ShopOrder, began_at: datetime) -> list[Record]:
    has_sequence = random.random() < 0.5
    key = order.subject.encode()
    records: list[Record] = []
    for number, (at_s, kind, data) in enumerate(order.events):
        happened = began_at + timedelta(seconds=at_s, microseconds=number)
        event = {
            "specversion": "1.0",
            "id": f"{order.subject}#{number}",
            "source": "/shops/simulated",
            "type": kind,
            "time": happened.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "subject": order.subject,
            "data": data,
        } | ({"sequence": str(number)} if has_sequence else {})
        value = json.dumps(event).encode()
        late_s = random.choice((0.5, 5.0, 20.0)) * random.random() if random.random() < 0.1 else 0.0
        records.append(Record(at_s + late_s, key, value))
        if random.random() < 0.05:
            records.append(Record(at_s + late_s + random.uniform(0.0, 10.0), key, value))
    return records


def _beside(random: Random, order: ShopOrder, poison: list[bytes]) -> list[Record]:
    """Records that are no events of ours: refused, or passed over."""
    if random.random() > 0.2:
        return []
    key, at_s = order.subject.encode(), order.events[-1][0]
    wrong = random.choice((b"not json", b'{"specversion": "1.0"}', b"\xff\xfe", b"[1, 2]")) + b" " * len(poison)
    passed = json.dumps(
        {
            "specversion": "1.0",
            "id": "1",
            "source": "/s",
            "type": "stock.changed",
            "time": "2026-01-01T00:00:00Z",
            "subject": "x/y",
        }
    )
    poison.append(wrong)
    return [Record(at_s, key, wrong, is_poison=True), Record(at_s, key, None), Record(at_s, key, passed.encode())]
