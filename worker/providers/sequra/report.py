"""An order's entries in seQura's delivery report, and whether it is sent by report or by update. Pure.

A report lists each delivery once, with its content: an entry is the shipped cart minus what was reported before. A
report adds and never withdraws; other changes need an Order Update, or the shop has to make them in seQura's back
office (docs.sequra.com, Delivery Report and Order Update, 2026-10: the two are alternatives).

| the carts, and what was reported | `report` | `report_then_update` |
|---|---|---|
| a page with its entries is in flight | waits | waits |
| reported, and the carts are the same | settled | settled, unless the last update is in doubt |
| an Order Update was accepted, or may have been | by update | by update |
| reported, a delivery can express the difference | due | by update |
| reported, no delivery can | parked: `changed after its report` | by update |
| nothing reported, a delivery can express all | due | due |
| nothing reported, nothing to report, something is left to ship | settled: the first delivery reports it | settled |
| nothing reported, nothing to report, nothing left | parked: `unsupported`; settled if seQura did it | by update |
| a report cannot express it | owed, in `broken_orders` | owed, in `broken_orders` |
"""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from schemas import events
from schemas.facts import Tracking
from worker.model.delivery import Deliveries, Delivery, departures
from worker.model.order import Cart, Order
from worker.providers.sequra import wire
from worker.providers.sequra.cents import Amounts, amounts_of, difference, less, why_not
from worker.providers.sequra.checks import entry_problem
from worker.providers.sequra.memory import Reported, UnderWay, digest_of
from worker.providers.sequra.options import DeliveryMode
from worker.providers.sequra.rendering import (
    or_unset,
    wire_address,
    wire_customer,
    wire_item,
    wire_method,
    wire_reference,
    wire_tracking,
)

_encoder = msgspec.json.Encoder()
_ONLY_SHIPPED = events.NEGATIVE - wire.IN_REMAINING_CART
"""Reductions that a remaining cart must not have."""


# --- by report or by update ------------------------------------------------------------------------------------------


class Situation(Struct, array_like=True, frozen=True):
    """The part of the order's facts that the verdict depends on."""

    departures: list[str]
    shipped: list[Amounts]
    unshipped: bytes
    """`memory.digest_of`."""
    broken: str
    """Why seQura would not accept it in a report; empty: it would."""
    was_emptied: bool
    """Its carts may have been empty at some time."""
    was_cancelled_there: bool = False
    """By seQura itself."""


class Verdict(Struct, frozen=True):
    """How the order is to be sent now."""

    kind: Literal["update", "under_way", "same", "due", "broken", "later", "changed", "unsupported"]
    why: str = ""


def situation_of(order: Order) -> Situation:
    """The situation of an order."""
    facts = order.facts
    lacks = lacking(order)
    return Situation(
        list(departures(facts)),
        amounts_of(order.shipped.items),
        digest_of(order.unshipped),
        lacks or _problem(order, _whole(order, order.shipped, _NO_DELIVERY, 0)),
        bool(facts.cancellation_now or facts.returns or facts.item_cancellations),
        facts.is_cancelled_there,
    )


def judge(
    now: Situation,
    reported: Reported | None,
    mode: DeliveryMode,
    *,
    may_land_late: bool = False,
    remote_unknown: bool = False,
) -> Verdict:
    """`may_land_late`: an Order Update may have been sent that the memory does not show. `remote_unknown`: seQura may
    have something else than the memory shows.
    """
    if reported is None:
        return Verdict("broken", "the memory of its reports was written by a newer version of cartsync")
    if reported.under_way is not None:
        return Verdict("under_way")
    if mode == "update":
        return Verdict("update")
    is_same = (now.shipped, now.unshipped) == (reported.shipped, reported.unshipped)
    is_late = may_land_late and now.was_emptied and mode == "report_then_update"
    if reported.by_update or is_late or (reported.is_reported and mode == "report_then_update"):
        return Verdict("same" if is_same and not (may_land_late or remote_unknown) else "update")
    if reported.is_reported and is_same:
        return Verdict("same")
    new = difference(now.shipped, reported.shipped)
    why = why_not(new)
    if new and any(key not in reported.shipments for key in now.departures) and not (why and reported.is_reported):
        why = now.broken or why
        return Verdict("broken", why) if why else Verdict("due")
    if reported.is_reported:
        return Verdict("changed", why or ("not caused by a shipment" if new else "the rest to be shipped differs"))
    if now.unshipped:
        return Verdict("later")
    if mode == "report_then_update":
        return Verdict("update")
    # seQura knows what it has cancelled itself, also where the memory of the order is in doubt.
    return Verdict("same") if now.was_cancelled_there else Verdict("unsupported", _NOTHING_LEFT)


_NOTHING_LEFT = "nothing was reported and nothing is left to ship, which a delivery report cannot express"


# --- entries -------------------------------------------------------------------------------------------------------


class Entries(Struct, frozen=True):
    """An order's entries for the next report."""

    entries: list[wire.ReportedOrder]
    shipments: dict[str, int]
    shipped: list[Amounts]
    unshipped: bytes
    store_ref: str | None


def entries_of(order: Order, deliveries: Deliveries, reported: Reported, *, most: int) -> Entries:
    """The entries that are due, after the verdict `due`: one per delivery if only shipments happened since, and at most
    `most` of them; otherwise one entry.
    """
    new = deliveries.new
    seconds = _free_seconds(new, set(reported.shipments.values()))
    entries = _one_each(order, deliveries, reported, seconds) if len(new) <= most else []
    if not entries:
        seconds = [max(_free_seconds([new[-1]], set(reported.shipments.values())))] * len(new)
        all_of_it = replace(
            new[-1],
            trackings=[tracking for each in new for tracking in each.trackings],
            is_delivered=all(each.is_delivered for each in new),
        )
        entries = [_whole(order, less(order.shipped.items, reported.shipped), all_of_it, seconds[-1])]
    return Entries(
        entries,
        {key: second for each, second in zip(new, seconds, strict=True) for key in each.shipments},
        amounts_of(order.shipped.items),
        digest_of(order.unshipped),
        order.details.store_ref,
    )


def under_way(found: Entries, revision: int, digest: bytes) -> UnderWay:
    """The order's memory while its page is in flight. `digest`: of the order's update."""
    return UnderWay(
        b",".join([_encoder.encode(entry) for entry in found.entries]),
        len(found.entries),
        revision,
        digest,
        found.shipments,
        found.shipped,
        found.unshipped,
        found.store_ref,
    )


def broken_entry(reference: str, order: Order | None, reported: Reported | None) -> Raw:
    """The known parts of an order that cannot be reported; only the reference of an inconsistent order."""
    if order is None or reported is None:
        return Raw(_encoder.encode(wire.BrokenOrder(wire.MerchantReference(reference))))
    details = order.details
    method, customer = details.delivery_method, details.customer
    found = wire.BrokenOrder(
        wire_reference(order),
        _reported_cart(order, less(order.shipped.items, reported.shipped)),
        UNSET if method is None else wire_method(method),
        UNSET if customer is None else wire_customer(customer),
    )
    return Raw(_encoder.encode(found))


def lacking(order: Order) -> str:
    """What seQura's report requires and the order lacks entirely; empty: nothing."""
    for name in ("customer", "delivery_method"):
        if getattr(order.details, name) is None:
            return f"it has no {name}, which seQura's report requires"
    return ""


def _one_each(order: Order, deliveries: Deliveries, reported: Reported, seconds: list[int]) -> list[wire.ReportedOrder]:
    """One entry per delivery; empty if not only shipments happened since, or the carts in between are unknown."""
    before = reported.shipped
    if deliveries.before is None or (reported.is_reported and amounts_of(deliveries.before.items) != before):
        return []
    both = [*order.unshipped.items, *order.shipped.items]
    entries = []
    for number, (each, second) in enumerate(zip(deliveries.new, seconds, strict=True), start=1):
        if each.shipped is None:
            return []
        after = amounts_of(each.shipped.items)
        brought = difference(after, before)
        is_last = number == len(seconds)
        left = order.unshipped if is_last else less(both, after)
        if not brought or why_not(brought) or why_not(amounts_of(left.items)):
            return []
        entry = _entry(order, less(each.shipped.items, before), left, each, second)
        if entry_problem(entry):
            return []
        entries.append(entry)
        before = after
    return entries


def _free_seconds(deliveries: list[Delivery], taken: set[int]) -> list[int]:
    """The second that each delivery is reported as: seQura treats a known second as a repetition."""
    found = []
    for each in deliveries:
        second = each.sent_s
        while second in taken:
            second += 1
        taken.add(second)
        found.append(second)
    return found


_NO_DELIVERY = Delivery([], 0, [], is_delivered=False, shipped=None)


def _whole(order: Order, cart: Cart, delivery: Delivery, second: int) -> wire.ReportedOrder:
    return _entry(order, cart, order.unshipped, delivery, second)


def _problem(order: Order, entry: wire.ReportedOrder) -> str:
    """Why seQura would reject the order, whatever was reported before; checks all its parcels."""
    trackings = [wire_tracking(tracking) for tracking in order.trackings]
    return entry_problem(replace(entry, trackings=trackings)) or ""


def _entry(order: Order, cart: Cart, left: Cart, delivery: Delivery, second: int) -> wire.ReportedOrder:
    details = order.details
    method = details.delivery_method or events.DeliveryMethod()
    customer = details.customer or events.Customer()
    delivered_to, invoiced_to = details.delivery_address, details.invoice_address
    return wire.ReportedOrder(
        wire_reference(order),
        "delivered" if delivery.is_delivered else "shipped",
        datetime.fromtimestamp(second, UTC).isoformat(),
        _reported_cart(order, cart),
        wire.RemainingCart(left.total_minor, [_remaining_item(item) for item in map(wire_item, left.items)]),
        wire_method(method),
        wire_customer(customer),
        UNSET if delivered_to is None else wire_address(delivered_to),
        UNSET if invoiced_to is None else wire_address(invoiced_to),
        _trackings(delivery.trackings),
    )


def _reported_cart(order: Order, cart: Cart) -> wire.ReportedCart:
    details = order.details
    items = [wire_item(item) for item in cart.items]
    return wire.ReportedCart(order.currency, bool(details.gift), cart.total_minor, items, or_unset(details.cart_ref))


def _remaining_item(item: wire.Item) -> wire.Item:
    """A remaining cart has no reduction but a discount, which deducts the same amount (no `other_payment`)."""
    return replace(item, type="discount") if item.type in _ONLY_SHIPPED else item


def _trackings(trackings: list[Tracking]) -> Any:
    return [wire_tracking(tracking) for tracking in trackings] or UNSET
