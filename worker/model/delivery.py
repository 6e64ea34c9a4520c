"""When which parts of an order were shipped, for providers that get each delivery separately."""

from msgspec import Struct

from schemas.base import parse_time_us
from schemas.facts import Facts, Tracking
from worker.model.order import Cart


class Delivery(Struct, frozen=True, gc=False):
    """The parts of an order that were shipped in one second: one shipment, or several."""

    shipments: list[str]
    """Their keys, as `departures` has them."""
    sent_s: int
    """Seconds since 1970 UTC."""
    trackings: list[Tracking]
    is_delivered: bool
    """Whether the shopper is known to have all of it."""
    shipped: Cart | None
    """The shipped cart after this delivery and all earlier ones; `None`: later events make it unknown."""


class Deliveries(Struct, frozen=True, gc=False):
    """The deliveries of an order that were not reported yet."""

    before: Cart | None
    """The shipped cart without them; `None`: unknown."""
    new: list[Delivery]
    """Oldest first."""


STATED = "\0stated "
"""The prefix of the key of a delivery reported by stating both carts; no shipment's id contains such a character."""


def departures(facts: Facts) -> dict[str, int]:
    """When each shipment that counts was shipped, in seconds since 1970 UTC, by its id.

    A statement of both carts is a departure, too: a shop that reports only its carts has no others.
    """
    left = {
        key: (fact.stamp[1] if fact.shipped_at is None else parse_time_us(fact.shipped_at)) // 1_000_000
        for key, fact in facts.shipments.items()
        if fact.units is not None
    }
    if facts.statements:
        at_us = facts.statements[0].stamp[1]
        left[f"{STATED}{at_us}"] = at_us // 1_000_000
    return left
