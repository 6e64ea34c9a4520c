"""AtaraPay's order notifications: one address for each seller, JSON or a form, and a token in the body.

Source: AtaraPay, "Order Notification" and "Generation of Security Token" (plugins.atarapay.com/docs, read 2026-11) and
its WooCommerce plugin 2.0.13, the only source of `Refunded`, `Pending II`, `Dispute` and `Disputed`. The token is the
seller's keys and two numbers in Base64: anyone who sees one knows the keys, and it covers neither status nor time. So
body and token are not stored, and a notification is a reason to read Order Status, not a fact. The token printed in the
documentation lacks the two numbers, and is refused.
"""

import hmac
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from worker.errors import ConfigError
from worker.model.callbacks import (
    Answered,
    Called,
    InBody,
    Purpose,
    Push,
    Reading,
    Reply,
    Said,
    Unauthorized,
    Unreadable,
)
from worker.providers.atarapay.tokens import notification_token
from worker.providers.callbacks import (
    NotUnderstoodError,
    UnreadableError,
    minute_of,
    raw_text,
    read_form,
    read_json,
    text_of,
    unmapped,
    with_order,
    word_of,
)

DONE = Reply(200, b'{"status":"success"}')
REJECTED_ID, CANCELLED_ID = "3", "9"
WORD_MAX = 30
"""Characters of a status that are passed on: fewer than a key has."""
_NULL = Raw(b"null")
_DELIVERY: Mapping[str, str] = {
    "delivered": "delivered",
    "accepted": "accepted",
    "complete": "resolved",
    "completed": "resolved",
    "refunded": "refunded",
    "pending ii": "second_attempt",
    "dispute": "disputed",
    "disputed": "escalated",
}
_CANCELLED = frozenset({"canceled", "cancelled"})


class _Body(Struct):
    status: Any = None
    message: Any = None
    token: Any = None
    data: Raw = _NULL


class _Data(Struct):
    id: Raw = _NULL
    product_id: Raw = _NULL
    amount_payed: Raw = _NULL
    status: Any = None


_body = msgspec.json.Decoder(_Body)
_data = msgspec.json.Decoder(_Data)
_text = msgspec.json.Decoder(str)


class AtaraPayCallbacks:
    """`model.callbacks.Callbacks`."""

    purposes: Mapping[str, Purpose] = {"notification": Purpose(has_reference=False)}
    questions: tuple[str, ...] = ()
    account_keys: tuple[str, ...] = ("public_key", "private_key")

    def read(self, called: Called) -> Reading:
        """Reads a call."""
        try:
            body = _read(called)
            data = _inner(body)
        except UnreadableError:
            return Unreadable()
        except NotUnderstoodError:
            return Unauthorized()  # a caller who knows the token can put it in the right place
        order, amount = raw_text(data.id), raw_text(data.amount_payed)
        proof = notification_token(called.public_key, called.private_key, order, amount)
        if not hmac.compare_digest(text_of(body.token).encode(), proof.encode()):
            return Unauthorized()
        reference = raw_text(data.product_id)
        if not (reference.isascii() and reference.isdigit() and len(reference) <= 200 and 0 < len(order) <= 200):
            return Push((), DONE)  # not an order that this account can have sold
        return Push((_said(called, body, data, order, reference),), DONE)

    def token_in_body(self, called: Called) -> InBody | Unreadable | None:  # noqa: ARG002 - never
        """`None`: the token that authorizes a call is in the address."""
        return None

    def answer(self, name: str, answer: bytes) -> Answered:  # noqa: ARG002 - it asks nothing
        """AtaraPay asks no questions."""
        return Answered(None)

    def default(self, name: str, choice: str, read_file: Callable[[str], bytes]) -> Answered:  # noqa: ARG002 - nothing
        """Raises `ConfigError`: AtaraPay asks no questions."""
        raise ConfigError("AtaraPay asks no questions")


def _read(called: Called) -> _Body:
    """A body that looks like JSON is JSON, whatever its type. Raises `UnreadableError`, `NotUnderstoodError`."""
    if called.body.lstrip()[:1] in (b"{", b"["):
        return read_json(_body, called.body)
    form = read_form(called.media_type, called.body)
    if "data" not in form and "token" not in form:
        raise UnreadableError
    return _Body(form.get("status"), form.get("message"), form.get("token"), Raw(form.get("data", "null").encode()))


def _inner(body: _Body) -> _Data:
    """`data`, an object or a text that contains one. Raises `UnreadableError`, `NotUnderstoodError`."""
    inner = bytes(body.data)
    if inner[:1] == b'"':
        inner = read_json(_text, inner).encode()
    return read_json(_data, inner)


def _said(called: Called, body: _Body, data: _Data, order: str, reference: str) -> Said:
    status = word_of(body.status)
    inner: Mapping[str, Any] = data.status if isinstance(data.status, dict) else {}
    inner_id, title = text_of(inner.get("id")), text_of(inner.get("title")).lower()
    message = text_of(body.message)
    # There is no id and no time: the minute distinguishes a second rejection from a repetition.
    known_by = (order, status, inner_id, message[:200], minute_of(called.arrived_ms))
    word = status.lower()
    if word == "rejected":
        if _is_cancelled(inner_id, title, message.lower()):
            return Said("cancelled", with_order(order, {"by": "shopper"}), known_by, reference=reference)
        state: str | None = "rejected"
    elif word in _CANCELLED:
        return Said("cancelled", with_order(order, {"by": "merchant"}), known_by, reference=reference)
    else:
        state = _DELIVERY.get(word)
    if state is None:
        word = status if len(status) <= WORD_MAX else ""
        return unmapped(called.purpose, word, known_by, order, reference=reference)
    return Said("delivery", with_order(order, {"state": state}), known_by, reference=reference)


def _is_cancelled(inner_id: str, title: str, message: str) -> bool:
    """Whether `Rejected` means that the buyer cancels: the inner status decides, or else the message."""
    if inner_id == CANCELLED_ID or title in _CANCELLED:
        return True
    if inner_id == REJECTED_ID or title == "rejected":
        return False
    return "cancel" in message
