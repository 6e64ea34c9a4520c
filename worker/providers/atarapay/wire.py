"""AtaraPay's words and states, in AtaraPay's own terms.

Source: plugins.atarapay.com/docs, pages `complete`, `cancel`, `reject`, `order`, `status`, `escrow`, and the official
WooCommerce plugin 2.0.13 where the pages are silent (both read 2026-10). HTTP statuses are not documented: the body's
`status` says what became of a call.
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
"""Changes nothing there, and may be asked at any time."""

NO_COMMENT = "No comment"
"""Goes with both cancellations; the plugin sends just this."""


class State(StrEnum):
    """Where an escrow is."""

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
"""Unverified: that `delivered` is taken a second time after Pending II."""
BEYOND_DELIVERY = frozenset(State) - DELIVERABLE - {State.CANCELLED}
"""None of these is reached without a delivery."""


def _loosely(text: str) -> str:
    """Texts differ in case, in spaces, and in `canceled` or `cancelled`."""
    return " ".join(text.split()).casefold().replace("ll", "l")


_STATES = {_loosely(state): state for state in State} | {"complete": State.COMPLETED}
_STATES_BY_ID = {"3": State.REJECTED, "5": State.COMPLETED, "9": State.CANCELLED}
"""Those that the documentation's samples show."""


def has_any(message: str, parts: tuple[str, ...]) -> bool:
    """Whether a message has one of these in it."""
    found = _loosely(message)
    return any(_loosely(part) in found for part in parts)


class Seen(Struct, frozen=True, gc=False):
    """What Order Status says."""

    state: State | None
    """`None`: one that is not known here."""
    title: str
    """As AtaraPay writes it."""
    product_id: str
    """The shop's own number of the order, as it was given at checkout; empty: not told."""
    amount_minor: int | None = None
    """What the order cost at checkout; `None`: not told."""
    currency: str = ""
    """Of that; empty: not told."""


TITLE_MAX = 60
"""Characters of a state's name that are kept."""


class Said(Struct, frozen=True, gc=False):
    """A body that can be understood."""

    is_success: bool
    message: str
    data: Any


def said(body: bytes) -> Said | None:
    """What an answer says; `None` when it is no JSON object with a `status`."""
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
    """The order that Order Status answers with; `None` when it tells no state."""
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
    """Numbers come as numbers or as texts."""
    return str(value) if isinstance(value, str | int) else ""
