"""What the sandbox provider makes of delivery reports: which deliveries it knows of. No HTTP, no faults.

Vendor facts: docs.sequra.com, Delivery Report, read 2026-10. Ours, for want of documentation: that a delivery whose
`sent_at` is known already is a repeat and adds nothing.
"""

from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from worker.sandbox.attempts import Answer
from worker.sandbox.sequra.orders import errors
from worker.sandbox.sequra.rules import report_refusals

Amounts = dict[tuple[str, str], tuple[int, int]]
"""By type and reference of an item: units and cents."""


def amounts_of(items: list[dict[str, Any]]) -> Amounts:
    """What these items come to."""
    sums: Amounts = {}
    for item in items:
        key = item.get("type", "product"), str(item.get("reference", ""))
        units, cents = sums.get(key, (0, 0))
        sums[key] = units + item.get("quantity", 0), cents + item["total_with_tax"]
    return {key: both for key, both in sums.items() if both != (0, 0)}


class Delivery(msgspec.Struct, frozen=True):
    """One that was reported."""

    state: str
    cart: Amounts
    total_minor: int
    trackings: list[str]
    page: bytes
    """A digest of all deliveries that were told with it."""


class Reported(msgspec.Struct):
    """What is known of one order."""

    deliveries: dict[int, Delivery] = {}
    """By the second (UTC) that it was sent at."""
    remaining: Amounts | None = None
    repeats: int = 0
    contradictions: int = 0
    """Repeats with something else in them, or in another page."""
    broken: int = 0
    """Times that it stood in `broken_orders`."""
    statistics: dict[str, Any] | None = None

    @property
    def shipped(self) -> Amounts:
        """What all its deliveries come to."""
        sums: Amounts = {}
        for delivery in self.deliveries.values():
            for key, (units, cents) in delivery.cart.items():
                before = sums.get(key, (0, 0))
                sums[key] = before[0] + units, before[1] + cents
        return {key: both for key, both in sums.items() if both != (0, 0)}

    @property
    def shipped_minor(self) -> int:
        """The same in cents."""
        return sum(delivery.total_minor for delivery in self.deliveries.values())


class Reports:
    """The reports of one merchant."""

    def __init__(self, merchant: str) -> None:
        self.orders: dict[str, Reported] = {}
        self.count = 0
        """Reports that were taken."""
        self._merchant = merchant

    def order(self, reference: str) -> Reported:
        """What is known of an order; nothing yet."""
        return self.orders.setdefault(reference, Reported())

    def take(self, body: bytes) -> Answer:
        """Judges a report, and takes all of it when nothing is wrong with it."""
        try:
            report = msgspec.json.decode(body)["delivery_report"]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, KeyError):
            return errors(400, "The body is not JSON with an object under the key delivery_report")
        if refused := report_refusals(report, self._merchant):
            return errors(409, *refused)
        self.count += 1
        page = blake2b(msgspec.json.encode(report["orders"]), digest_size=8).digest()
        for delivery in report["orders"]:
            self._deliver(delivery, page)
        for order in report.get("broken_orders", []):
            self.order(_name(order)).broken += 1
        for order in report.get("statistics", {}).get("orders", []):
            self.order(_name(order)).statistics = order
        return Answer(204)

    def _deliver(self, told: dict[str, Any], page: bytes) -> None:
        order = self.order(_name(told))
        second = int(datetime.fromisoformat(told["sent_at"]).timestamp())
        trackings = [tracking["reference"] for tracking in told.get("trackings", [])]
        cart = told["cart"]
        found = Delivery(told["state"], amounts_of(cart["items"]), cart["order_total_with_tax"], trackings, page)
        known = order.deliveries.get(second)
        if known is not None:
            order.repeats += 1
            order.contradictions += known != found
            return
        order.deliveries[second] = found
        order.remaining = amounts_of(told["remaining_cart"]["items"])


def _name(order: dict[str, Any]) -> str:
    return str(order["merchant_reference"]["order_ref_1"])
