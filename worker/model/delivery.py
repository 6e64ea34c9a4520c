"""What left an order and when, for providers that are told of deliveries one by one."""

from msgspec import Struct

from schemas.base import parse_time_us
from schemas.facts import Facts, Tracking
from worker.model.order import Cart


class Delivery(Struct, frozen=True, gc=False):
    """What left an order in one second: a shipment, or several."""

    shipments: list[str]
    """Their keys, as `departures` has them."""
    sent_s: int
    """Seconds since 1970 UTC."""
    trackings: list[Tracking]
    is_delivered: bool
    """Whether the shopper is known to have all of it."""
    shipped: Cart | None
    """The shipped cart once this had left, and all before it; `None`: it cannot be told from what came later."""


class Deliveries(Struct, frozen=True, gc=False):
    """What left an order that was not told yet."""

    before: Cart | None
    """The shipped cart without it; `None`: it cannot be told."""
    new: list[Delivery]
    """Oldest first."""


STATED = "\0stated "
"""What the key of a delivery begins with that was told by stating both carts; no shipment's id holds such a sign."""


def departures(facts: Facts) -> dict[str, int]:
    """When each shipment that counts left, in seconds since 1970 UTC, by its id.

    That both carts were stated is a departure, too: a shop that tells nothing but its carts has no other.
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
