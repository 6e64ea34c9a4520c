"""What the sandbox provider holds of each order, and how it judges an update. No HTTP, no faults.

An update is judged in this order: credentials (401), merchant (403), order known (404), JSON (400), rules of
`rules` and what the order held before (409). Vendor facts: docs.sequra.com, Order Update API, read
2026; the answers 401 and 403: tests of `sequra/integration-core`, read 2026. Ours, for want of documentation:
400, the page behind 404, and what growth and currency are compared with (see `Orders.register`).
"""

from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from worker.sandbox.attempts import Answer, Attempt
from worker.sandbox.sequra.rules import CARTS, MalformedBodyError, growth_refusal, read_order, refusals


class Held(msgspec.Struct, frozen=True, gc=False):
    """What the provider believes of one order. Amounts in minor units, with tax."""

    currency: str
    shipped_minor: int
    unshipped_minor: int
    body: bytes
    idempotency_key: str | None
    applied_at: datetime
    count: int
    """Updates applied to the order so far, this one included."""


def errors(status: int, *texts: str) -> Answer:
    """An answer in the shape of seQura's errors."""
    return Answer(status, msgspec.json.encode({"errors": texts}))


APPLIED = Answer(204)
DENIED = Answer(401, b"HTTP Basic: Access denied.\n", "text/plain")
NO_ACCESS = errors(403, "You do not have access to this URL")
NOT_FOUND = Answer(404, b"<!doctype html><title>Not Found</title><h1>Not Found</h1>\n", "text/html")


class _CartTotal(msgspec.Struct):
    currency: str
    order_total_with_tax: int


class _OrderTotals(msgspec.Struct):
    unshipped_cart: _CartTotal
    shipped_cart: _CartTotal


class _Totals(msgspec.Struct):
    order: _OrderTotals


_read_totals = msgspec.json.Decoder(_Totals).decode


class Orders:
    """The orders of all accounts.

    `accounts` maps a merchant id to (username, password). `known`, when given, are the (merchant, order
    reference) pairs that exist, and may be changed at any time; None: every one does. With `validate=False`
    only JSON, currencies and totals are read and no rule is checked.
    """

    def __init__(
        self, accounts: Mapping[str, tuple[str, str]], known: set[tuple[str, str]] | None, *, validate: bool
    ) -> None:
        self.held: dict[tuple[str, str], Held] = {}
        """By (merchant, order reference); grows with the number of orders."""
        self._known = known
        self._validate = validate
        self._initial_minor: dict[tuple[str, str], int] = {}
        self._merchants: dict[str, set[str]] = {}
        for merchant, (username, password) in accounts.items():
            token = b64encode(f"{username}:{password}".encode()).decode()
            self._merchants.setdefault(token, set()).add(merchant)

    def register(self, key: tuple[str, str], total_minor: int) -> None:
        """Makes an order known, with the total that was approved at checkout (minor units, above 0).

        Growth of both carts is measured against it; without it, against the first total above 0 that was
        applied: the docs speak of the initial price, which the updates alone do not tell.
        """
        if self._known is not None:
            self._known.add(key)
        self._initial_minor[key] = total_minor

    def refused(self, merchant: str, authorization: str) -> Answer | None:
        """What credentials are answered that are nobody's, or not the merchant's; None: they are."""
        scheme, _, token = authorization.partition(" ")
        merchants = self._merchants.get(token.strip()) if scheme.lower() == "basic" else None
        if merchants is None:
            return DENIED
        return None if merchant in merchants else NO_ACCESS

    def take(self, attempt: Attempt, key: tuple[str, str], authorization: str, body: bytes, now: datetime) -> Answer:
        """Judges the update of an attempt, and applies it when nothing is wrong with it."""
        refused = self.refused(key[0], authorization)
        if refused is not None:
            return refused
        if self._known is not None and key not in self._known:
            return NOT_FOUND
        read = self._read_checked(key, body) if self._validate else _read_unchecked(body)
        if isinstance(read, Answer):
            return read
        currency, unshipped_minor, shipped_minor = read
        total_minor = unshipped_minor + shipped_minor
        if total_minor > 0:
            self._initial_minor.setdefault(key, total_minor)
        held = self.held.get(key)
        count = 1 if held is None else held.count + 1
        idempotency_key = attempt.idempotency_key
        self.held[key] = Held(currency, shipped_minor, unshipped_minor, body, idempotency_key, now, count)
        attempt.applied_at = now
        return APPLIED

    def _read_checked(self, key: tuple[str, str], body: bytes) -> tuple[str, int, int] | Answer:
        try:
            order = read_order(body)
        except MalformedBodyError as error:
            return errors(400, str(error))
        refused = refusals(order, *key)
        if refused:
            return errors(409, *refused)
        unshipped_minor, shipped_minor = (order[name]["order_total_with_tax"] for name in CARTS)
        currency = order["shipped_cart"]["currency"]
        held = self.held.get(key)
        if held is not None and held.currency != currency:
            refused.append(f"Invalid data: the carts are in {currency}, the order began in {held.currency}.")
        initial_minor = self._initial_minor.get(key)
        if initial_minor is not None:
            growth = growth_refusal(initial_minor, unshipped_minor + shipped_minor)
            if growth is not None:
                refused.append(growth)
        return errors(409, *refused) if refused else (currency, unshipped_minor, shipped_minor)


def _read_unchecked(body: bytes) -> tuple[str, int, int] | Answer:
    try:
        order = _read_totals(body).order
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errors(400, "The body has no order with two carts and their totals")
    unshipped, shipped = order.unshipped_cart, order.shipped_cart
    return shipped.currency, unshipped.order_total_with_tax, shipped.order_total_with_tax


def shown(key: tuple[str, str], held: Held) -> dict[str, Any]:
    """An order as it is shown to people: what is held, with the items of both carts as they were sent."""
    order = msgspec.json.decode(held.body)["order"]
    return {
        "merchant": key[0],
        "order_ref": key[1],
        "currency": held.currency,
        "unshipped_minor": held.unshipped_minor,
        "shipped_minor": held.shipped_minor,
        "unshipped_items": order["unshipped_cart"].get("items", []),
        "shipped_items": order["shipped_cart"].get("items", []),
        "count": held.count,
        "applied_at": held.applied_at,
        "idempotency_key": held.idempotency_key,
    }
