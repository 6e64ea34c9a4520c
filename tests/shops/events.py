"""Builders of the events of one order, which enter as the worker's own input does.

A builder such as `shipped("s1", A=2)` returns an `EventSpec`: the type and `data` of an event. `log` gives them ids,
times and positions, one second apart, in the given order; `facts`, `assessment` and `carts` say what follows.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from schemas.events import OrderEvent
from schemas.facts import Facts
from worker.core.intake import decode
from worker.core.order import Assessment, assess
from worker.core.reducer import reduce
from worker.core.trust import GUARDED, HEADER, Trust
from worker.model.order import Item, Order

ACCOUNT = "acme"
REFERENCE = "A14/12345"
SUBJECT = f"{ACCOUNT}/{REFERENCE}"
START = datetime(2026, 3, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
START_US = START_MS * 1000
TRUST = Trust(("what the receiver of the tests signs with",))


class EventSpec(NamedTuple):
    """Type and data of an event, and attributes that differ from the usual ones."""

    type: str
    data: dict[str, Any]
    attributes: Mapping[str, Any] = MappingProxyType({})

    def but(self, **attributes: Any) -> "EventSpec":
        """The same with these attributes of the envelope."""
        return self._replace(attributes={**self.attributes, **attributes})


def time_text(at_s: float) -> str:
    """The time so many seconds after the start, as events write it."""
    return (START + timedelta(seconds=at_s)).isoformat(timespec="microseconds")


def envelope(spec: EventSpec, number: int = 1) -> dict[str, Any]:
    """The CloudEvents object of an event; `number` makes its id and its time."""
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "/shops/acme",
        "type": spec.type,
        "time": time_text(number),
        "subject": SUBJECT,
        "data": spec.data,
    } | dict(spec.attributes)


def mac_of(body: Any, value: bytes, key: bytes = b"k") -> dict[str, bytes]:
    """The header that the record of an event needs, if it needs one."""
    guarded = isinstance(body, dict) and f"{body.get('type')}".startswith(GUARDED)
    return {HEADER: TRUST.sign(key, value)} if guarded else {}


def event_of(body: dict[str, Any]) -> OrderEvent:
    """The event of a CloudEvents object as the worker gets it, signed if need be."""
    value = msgspec.json.encode(body)
    decoded = decode(b"k", value, mac_of(body, value), START_MS + 10**9, trust=TRUST)
    assert decoded is not None
    return decoded


def event(spec: EventSpec, number: int = 1) -> OrderEvent:
    """The event as the worker gets it."""
    return event_of(envelope(spec, number))


def log(*specs: EventSpec) -> list[OrderEvent]:
    """The events of these specs, a second apart."""
    return [event(spec, number) for number, spec in enumerate(specs, start=1)]


def fold(events: list[OrderEvent], facts: Facts | None = None) -> Facts:
    """The facts after these events, at positions 0, 1, …"""
    facts = facts or Facts()
    for position, one in enumerate(events):
        facts = reduce(facts, one, position)
    return facts


def facts_of(*specs: EventSpec) -> Facts:
    """The facts after these specs."""
    return fold(log(*specs))


def assessment(*specs: EventSpec) -> Assessment:
    """What follows from these specs."""
    return assess(facts_of(*specs), REFERENCE)


def order(*specs: EventSpec) -> Order:
    """The order after these specs, which do not contradict each other."""
    found = assessment(*specs)
    assert found.state == "ready", found
    assert found.order is not None
    return found.order


Rows = list[tuple[str | None, int, int]]


def rows(items: list[Item]) -> Rows:
    """(reference, quantity, total) of each item."""
    return [(item.reference, item.quantity, item.total_minor) for item in items]


def carts(*specs: EventSpec) -> tuple[Rows, Rows]:
    """The rows of the shipped and of the unshipped cart after these specs, whose sums must be the totals."""
    found = order(*specs)
    for cart in (found.shipped, found.unshipped):
        assert cart.total_minor == sum(item.total_minor for item in cart.items)
    return rows(found.shipped.items), rows(found.unshipped.items)


def totals(*specs: EventSpec) -> tuple[int, int]:
    """What the two carts add up to after these specs."""
    shipped, unshipped = carts(*specs)
    return sum(row[2] for row in shipped), sum(row[2] for row in unshipped)


# --- lines -------------------------------------------------------------------------------------------------------

LineDict = dict[str, Any]


def goods(reference: str, quantity: int, total: int, **members: Any) -> LineDict:
    """A goods line."""
    unit_price = members.pop("unit_price_minor", total // quantity)
    return {
        "reference": reference,
        "name": reference.title(),
        "quantity": quantity,
        "unit_price_minor": unit_price,
        "total_minor": total,
    } | members


def other(kind: str, reference: str, total: int, **members: Any) -> LineDict:
    """A charge or an adjustment."""
    return {"type": kind, "reference": reference, "name": reference.title(), "total_minor": total} | members


def units(named: dict[str, int]) -> list[dict[str, Any]]:
    """A list of Units."""
    return [{"line_id": line_id, "quantity": quantity} for line_id, quantity in named.items()]


# --- specs ----------------------------------------------------------------------------------------------------


def confirmed(*lines: LineDict, currency: str = "EUR", **members: Any) -> EventSpec:
    """`order.confirmed`."""
    return EventSpec("order.confirmed", {"currency": currency, "lines": list(lines)} | members)


def cart_updated(*lines: LineDict, currency: str = "EUR", **members: Any) -> EventSpec:
    """`order.cart_updated`."""
    return EventSpec("order.cart_updated", {"currency": currency, "lines": list(lines)} | members)


def payment(state: str) -> EventSpec:
    """`order.payment_state_changed`."""
    return EventSpec("order.payment_state_changed", {"payment_state": state})


def shipped(shipment_id: str, tracking: list[dict[str, Any]] | None = None, **named: Any) -> EventSpec:
    """`order.items_shipped`; `named` are units by line id."""
    data: dict[str, Any] = {"shipment_id": shipment_id, "lines": units(named)}
    return EventSpec("order.items_shipped", data if tracking is None else data | {"tracking": tracking})


def delivered(shipment_id: str, at: str = "2026-03-05T10:00:00Z") -> EventSpec:
    """`order.items_delivered`."""
    return EventSpec("order.items_delivered", {"shipment_id": shipment_id, "delivered_at": at})


def returned(
    return_id: str,
    *,
    origin: str = "shipped",
    fee: int | None = None,
    handling: int | None = None,
    paid: int | None = None,
    reason: str | None = None,
    **named: Any,
) -> EventSpec:
    """`order.items_returned`; `paid` is its `refunded_minor`."""
    data: dict[str, Any] = {"return_id": return_id, "lines": units(named), "from": origin}
    if paid is not None:
        data["refunded_minor"] = paid
    if reason is not None:
        data["reason"] = reason
    if fee is not None:
        data["fee_minor"] = fee
    if handling is not None:
        data["refund_handling_minor"] = handling
    return EventSpec("order.items_returned", data)


def items_cancelled(cancellation_id: str, reason: str | None = None, **named: int) -> EventSpec:
    """`order.items_cancelled`."""
    data: dict[str, Any] = {"cancellation_id": cancellation_id, "lines": units(named)}
    return EventSpec("order.items_cancelled", data if reason is None else data | {"reason": reason})


def refunded(refund_id: str, amount: int, **members: Any) -> EventSpec:
    """`order.refunded`."""
    return EventSpec("order.refunded", {"refund_id": refund_id, "amount_minor": amount} | members)


def fee_charged(fee_id: str, amount: int, **members: Any) -> EventSpec:
    """`order.fee_charged`."""
    return EventSpec("order.fee_charged", {"fee_id": fee_id, "amount_minor": amount} | members)


def cancelled(**members: Any) -> EventSpec:
    """`order.cancelled`."""
    return EventSpec("order.cancelled", members)


def stated(shipped: list[LineDict], unshipped: list[LineDict], currency: str = "EUR", **members: Any) -> EventSpec:
    """`order.carts_stated`."""
    return EventSpec("order.carts_stated", {"currency": currency, "shipped": shipped, "unshipped": unshipped} | members)


def details(**members: Any) -> EventSpec:
    """`order.details_changed`."""
    return EventSpec("order.details_changed", members)


def retracted(**member: Any) -> EventSpec:
    """`order.retracted`."""
    return EventSpec("order.retracted", member)


def observed(**members: Any) -> EventSpec:
    """`order.observed`."""
    return EventSpec("order.observed", {"completed_at": "2026-03-01T00:00:00Z", "currency": "EUR"} | members)


def said(kind: str, /, by: str = "order-status", **data: Any) -> EventSpec:
    """`provider.<kind>`, as it comes from this kind of callback."""
    return EventSpec(f"provider.{kind}", data).but(source=f"/cartsync/{ACCOUNT}/{by}")
