"""What a shop may do with an order next, and what it tells of it."""

from collections.abc import Callable
from random import Random
from typing import Any

from tests.shops.counts import ShopOrder

CITIES = ("Madrid", "Bilbao", "Sevilla", "Vigo")


def content_of(order: ShopOrder) -> dict[str, Any]:
    """The whole cart."""
    rate = {} if order.vat_rate_bp is None else {"vat_rate_bp": order.vat_rate_bp}
    lines: list[dict[str, Any]] = [
        {
            "reference": name,
            "name": name.title(),
            "quantity": line.ordered,
            "unit_price_minor": line.unit_minor,
            "total_minor": line.ordered * line.unit_minor,
            **rate,
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
    return {"currency": order.currency, "lines": lines}


def address_of(order: ShopOrder) -> dict[str, Any]:
    """Where it goes."""
    address = {"line_1": "Gran Via 12", "postal_code": "28013", "city": order.city, "country_code": "ES"}
    return address | ({"mobile_phone": order.phone} if order.phone else {})


def units_of(counts: dict[str, int]) -> list[dict[str, Any]]:
    """As events have them."""
    return [{"line_id": name, "quantity": count} for name, count in counts.items()]


def _some(random: Random, available: dict[str, int]) -> dict[str, int]:
    there = {name: count for name, count in available.items() if count > 0}
    chosen = random.sample(sorted(there), random.randint(1, len(there))) if there else []
    return {name: random.randint(1, there[name]) for name in chosen}


Step = tuple[str, dict[str, Any]] | None


def ship(random: Random, order: ShopOrder) -> Step:
    """Some of what is left."""
    pending = {name: line.pending for name, line in order.lines.items()}
    return ship_units(order, {} if order.is_cancelled else _some(random, pending))


def ship_units(order: ShopOrder, units: dict[str, int]) -> Step:
    """These, if there are any."""
    if not units:
        return None
    name = f"s{len(order.shipments) + 1}"
    order.shipments[name] = units
    for line, count in units.items():
        order.lines[line].shipped += count
        order.ever_shipped[line] += count
    tracking = {"reference": f"t-{name}", "type": "postal", "carrier": "Correos", "tracking_number": name}
    return "order.items_shipped", {"shipment_id": name, "lines": units_of(units), "tracking": [tracking]}


def oversell(random: Random, order: ShopOrder) -> Step:
    """More than was ordered: nothing may be told until it is put right."""
    if order.is_cancelled:
        return None
    name = random.choice(sorted(order.lines))
    shipment = f"s{len(order.shipments) + 1}"
    order.shipments[shipment] = {}
    units = {name: order.lines[name].ordered + 1}
    order.ever_shipped.update(units)  # it may seem right for a while, to whom the newest cart comes late
    return "order.items_shipped", {"shipment_id": shipment, "lines": units_of(units)}


def put_right(order: ShopOrder) -> Step:
    """Takes back a shipment that could not be."""
    wrong = next((name for name, units in order.shipments.items() if not units), None)
    if wrong is None:
        return None
    del order.shipments[wrong]
    order.shipments[f"{wrong} was void"] = {"": 0}
    return "order.retracted", {"shipment_id": wrong}


def oversell_or_put_right(random: Random, order: ShopOrder) -> Step:
    """The one after the other."""
    return put_right(order) or oversell(random, order)


def void(_random: Random, order: ShopOrder) -> Step:
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


def bring_back(random: Random, order: ShopOrder) -> Step:
    """Some of what left."""
    units = _some(random, {name: line.kept for name, line in order.lines.items()})
    if not units:
        return None
    for line, count in units.items():
        order.lines[line].returned += count
    return "order.items_returned", {"return_id": f"r{len(order.events)}", "lines": units_of(units)}


def cancel_some(random: Random, order: ShopOrder) -> Step:
    """Of what has not left."""
    units = {} if order.is_cancelled else _some(random, {name: line.pending for name, line in order.lines.items()})
    if not units:
        return None
    for line, count in units.items():
        order.lines[line].cancelled += count
    return "order.items_cancelled", {
        "cancellation_id": f"c{len(order.events)}",
        "lines": units_of(units),
        "reason": "out_of_stock",
    }


def cancel(random: Random, order: ShopOrder) -> Step:
    """The whole order; or it goes on after all."""
    if order.is_cancelled:
        order.is_cancelled = False
        return "order.retracted", {"cancelled": True}
    if not any(line.pending for line in order.lines.values()) or any(not units for units in order.shipments.values()):
        return None
    order.is_cancelled = True
    order.cancelled_by = "merchant" if not order.may_shopper_cancel else random.choice(("merchant", "shopper"))
    return "order.cancelled", {"reason": "out_of_stock", "by": order.cancelled_by}


def refund(random: Random, order: ShopOrder) -> Step:
    """An amount off."""
    if len(order.refunds) == 2:
        return None
    amount = random.randint(1, 150)
    order.refunds.append((f"f{len(order.events)}", amount))
    return "order.refunded", {"refund_id": order.refunds[-1][0], "amount_minor": amount}


def move(random: Random, order: ShopOrder) -> Step:
    """To another address."""
    order.city = random.choice(CITIES)
    return "order.details_changed", {"delivery_address": address_of(order)}


def reduce(random: Random, order: ShopOrder) -> Step:
    """The whole cart anew, with less in it."""
    open_lines = [name for name, line in order.lines.items() if line.pending > 1]
    if not open_lines or order.is_cancelled:
        return None
    order.lines[random.choice(open_lines)].ordered -= 1
    return "order.cart_updated", content_of(order)


def hold(_random: Random, order: ShopOrder) -> Step:
    """The payment is looked into, or approved."""
    if order.is_on_hold:
        return approve(order)
    order.is_on_hold = True
    return "order.payment_state_changed", {"payment_state": "on_hold"}


def approve(order: ShopOrder) -> Step:
    """Its payment, if it is on hold."""
    if not order.is_on_hold:
        return None
    order.is_on_hold = False
    return "order.payment_state_changed", {"payment_state": "approved"}


STEPS: tuple[Callable[[Random, ShopOrder], Step], ...] = (
    ship,
    bring_back,
    void,
    cancel_some,
    cancel,
    refund,
    move,
    reduce,
    hold,
    oversell_or_put_right,
)
WEIGHTS = (30, 12, 8, 6, 6, 6, 12, 8, 6, 6)
