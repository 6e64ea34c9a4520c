"""AtaraPay's words and states, in AtaraPay's own terms.

Source: plugins.atarapay.com/docs, pages `complete`, `cancel`, `reject`, `order`, `status`, `escrow`, and the official
WooCommerce plugin 2.0.13 where the pages are silent (both read 2026-10). HTTP statuses are not documented: the body's
`status` is the outcome of a call.
"""

import re
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

DELIVERED = "delivered"
CANCELLED = "cancelled"
BUYER_CANCEL = "buyer_cancel"
CANCELS = frozenset({CANCELLED, BUYER_CANCEL})
ORDER_STATUS = "order"
"""Changes nothing at AtaraPay, and may be called at any time."""

NO_COMMENT = "No comment"
"""Sent with both cancellations, exactly as the plugin does."""


class State(StrEnum):
    """The state of an escrow."""

    PENDING = "Pending"
    AWAITING = "Awaiting Buyer Response"
    ACCEPTED = "Accepted"
    COMPLETED = "Completed"
    REJECTED = "Rejected"
    SECOND = "Pending II"
    DISPUTE = "Dispute"
    DISPUTED = "Disputed"
    RESOLVED = "Dispute Resolved"
    REFUNDED = "Refunded"
    CANCELLED = "Cancelled"


DELIVERABLE = frozenset({State.PENDING, State.SECOND})
"""Unverified: that `delivered` is accepted a second time after Pending II."""
BEYOND_DELIVERY = frozenset(State) - DELIVERABLE - {State.CANCELLED}
"""States that no escrow reaches without a delivery."""


def _loosely(text: str) -> str:
    """Texts differ in case, in spaces, and in `canceled` or `cancelled`."""
    return " ".join(text.split()).casefold().replace("ll", "l")


_STATES = {_loosely(state): state for state in State} | {"complete": State.COMPLETED}
_STATES_BY_ID = {"3": State.REJECTED, "5": State.COMPLETED, "9": State.CANCELLED}
"""The ids in the documentation's samples."""


def has_any(message: str, parts: tuple[str, ...]) -> bool:
    """Whether a message contains one of these."""
    found = _loosely(message)
    return any(_loosely(part) in found for part in parts)


class Seen(Struct, frozen=True, gc=False):
    """A response to Order Status."""

    state: State | None
    """`None`: a state that we do not know."""
    title: str
    """The state as AtaraPay writes it."""
    product_id: str
    """The shop's own number of the order, as given at checkout; empty: not in the response."""
    amount_minor: int | None = None
    """The order's total at checkout; `None`: not in the response."""
    currency: str = ""
    """Of `amount_minor`; empty: not in the response."""


TITLE_MAX = 60
"""Characters of a state's name that are kept."""


class Said(Struct, frozen=True, gc=False):
    """A readable body."""

    is_success: bool
    message: str
    data: Any


def said(body: bytes) -> Said | None:
    """The body of a response; `None` if it is not a JSON object with a `status`."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("status"), str):
        return None
    message = found.get("message")
    is_success = _loosely(found["status"]) == "success"
    return Said(is_success, message if isinstance(message, str) else "", found.get("data"))


def seen(data: Any) -> Seen | None:
    """The order in a response to Order Status; `None` if it has no state."""
    if not isinstance(data, dict) or not isinstance(data.get("status"), dict):
        return None
    title, number = data["status"].get("title"), _text(data["status"].get("id"))
    title = title if isinstance(title, str) else ""
    state = _STATES.get(_loosely(title)) if title else _STATES_BY_ID.get(number)
    if state is None and not title:
        return None
    cost, currency = _text(data.get("product_cost", data.get("amount_payed"))), data.get("currency")
    return Seen(
        state,
        str(state or title),
        _text(data.get("product_id")),
        int(cost) if cost.isascii() and cost.isdigit() and len(cost) < 16 else None,
        currency.strip().upper() if isinstance(currency, str) and _CURRENCY.fullmatch(currency.strip()) else "",
    )


_CURRENCY = re.compile(r"[A-Za-z]{3}", re.ASCII)


def _text(value: Any) -> str:
    """Numbers arrive as numbers or as texts."""
    return str(value) if isinstance(value, str | int) else ""
