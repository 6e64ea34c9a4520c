"""What left an order since it was told: shipment by shipment where the carts in between can be told (`DOMAIN.md`
section 5). Pure.

The shipped cart after a shipment is that of the facts without the later ones: so it comes from the same rules as every
other cart, and what all of them add up to is never a cent off.
"""

from collections.abc import Collection
from itertools import groupby

from msgspec.structs import replace

from schemas.facts import Facts, Tracking, is_nil
from worker.core.order import assess, trackings_of
from worker.model.delivery import Deliveries, Delivery, departures
from worker.model.order import Cart, Order

STEPS_MAX = 50
"""Deliveries of one order that are told apart; the carts after each of them are computed anew."""


def deliveries_of(order: Order, told: Collection[str]) -> Deliveries:
    """What left that is not among these keys of `departures`."""
    facts = order.facts
    left = departures(facts)
    new = sorted((sent_s, key) for key, sent_s in left.items() if key not in told)
    at_once = [(sent_s, [key for _, key in keys]) for sent_s, keys in groupby(new, key=lambda each: each[0])]
    names = {key for _, key in new}
    carts = _carts(order, at_once, names) if _has_steps(facts, told, at_once) else [None] * len(at_once)
    found = []
    for (sent_s, keys), cart in zip(at_once, carts, strict=True):
        trackings = [each for key in keys for each in _trackings(facts, key)]
        found.append(Delivery(keys, sent_s, trackings, all(_is_delivered(facts, key) for key in keys), cart))
    return Deliveries(_before(order, names) if told else Cart([], 0), found)


def _has_steps(facts: Facts, told: Collection[str], at_once: list[tuple[int, list[str]]]) -> bool:
    """Whether it can be said what each delivery alone brought. Before anything was told, what came back or was paid
    back meanwhile cannot be taken off one of them (units that were never sent are in none); stated carts have no
    history.
    """
    if facts.statements or len(at_once) > STEPS_MAX:
        return False
    is_less = any(back.units and back.origin != "unshipped" for back in facts.returns.values()) or any(
        refund.amount_minor for refund in facts.refunds.values()
    )
    return bool(told) or not is_less


def _carts(order: Order, at_once: list[tuple[int, list[str]]], names: set[str]) -> list[Cart | None]:
    later = set(names)
    found: list[Cart | None] = []
    for _, keys in at_once[:-1]:
        later -= set(keys)
        found.append(_before(order, later))
    return [*found, order.shipped] if at_once else []


def _before(order: Order, later: set[str]) -> Cart | None:
    """The shipped cart without these shipments."""
    if not later:
        return order.shipped
    facts = order.facts
    shipments = {key: fact for key, fact in facts.shipments.items() if key not in later}
    then = assess(replace(facts, shipments=shipments), order.reference).order
    return None if then is None else then.shipped


def _trackings(facts: Facts, key: str) -> list[Tracking]:
    shipment = facts.shipments.get(key)
    return [] if shipment is None or is_nil(shipment.tracking) else trackings_of(facts, key, shipment.tracking)


def _is_delivered(facts: Facts, key: str) -> bool:
    """It was said so of the shipment, or of each of its parcels."""
    if key in facts.deliveries:
        return True
    parcels = _trackings(facts, key)
    return bool(parcels) and all(parcel.delivered_at for parcel in parcels)
