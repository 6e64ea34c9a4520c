"""Qliro's callbacks: events (pushes), and questions that need an immediate answer.

Source: Qliro, "Callbacks" (developers.qliro.com, read 2026-11), and public integrations: `OrderID` for `OrderId`,
`TimeStamp` for `Timestamp`, numbers as texts, enumerations as numbers, negative amounts. Unverified: whether ints are
ever sent for enumerations. Only its address authenticates a push: it says that something changed, and the adapter
reads the order before it believes that. The merchant's reference in the body is ignored: the address has it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from worker.model.callbacks import Answered, Called, InBody, Purpose, Push, Reading, Reply, Said, Unreadable
from worker.providers.callbacks import (
    NotUnderstoodError,
    UnreadableError,
    flag_of,
    id_of,
    minor_of,
    plain,
    raw_text,
    read_json,
    text_of,
    unmapped,
    with_order,
    word_of,
)
from worker.providers.qliro import questions

PAYLOAD_MAX_BYTES = 64 * 1024
ERROR_MAX = 500
"""Characters of an error text."""
RECEIVED = Reply(200, b'{"CallbackResponse":"received"}')
"""Qliro repeats the call after any other response."""

_STATES: Mapping[str, str] = {
    "completed": "approved",
    "success": "approved",
    "onhold": "on_hold",
    "refused": "refused",
    "inprocess": "under_evaluation",
}
_STATUSES = ("Created", "InProcess", "UserInteractionRequired", "OnHold", "Success", "Error", "Cancelled")
_KINDS = ("Preauthorization", "Debit", "Credit", "Capture", "Reversal", "Refund", "UpdateInvoice", "Registration")
_FAILED = frozenset({"error", "cancelled"})


class _Body(Struct):
    """The union of all pushes' members, in both spellings."""

    order_id: Any = field(default=None, name="OrderId")
    order_id_too: Any = field(default=None, name="OrderID")
    status: Any = field(default=None, name="Status")
    timestamp: Any = field(default=None, name="Timestamp")
    timestamp_too: Any = field(default=None, name="TimeStamp")
    kind: Any = field(default=None, name="NotificationType")
    transaction: Any = field(default=None, name="PaymentTransactionId")
    original: Any = field(default=None, name="OriginalPaymentTransactionId")
    replaces: Any = field(default=None, name="ReplacesOriginalPaymentTransaction")
    upsell: Any = field(default=None, name="UpsellId")
    amount: Raw = field(default=Raw(b"null"), name="Amount")
    currency: Any = field(default=None, name="Currency")
    payment_type: Any = field(default=None, name="PaymentType")
    result: Any = field(default=None, name="ProviderResultDescription")
    error_code: Any = field(default=None, name="ErrorCode")
    error_text: Any = field(default=None, name="ErrorCodeDescription")
    is_success: Any = field(default=None, name="IsSuccess")
    error_message: Any = field(default=None, name="ErrorMessage")
    event_type: Any = field(default=None, name="EventType")
    provider: Any = field(default=None, name="Provider")
    payload: Raw = field(default=Raw(b"null"), name="Payload")
    card_id: Any = field(default=None, name="Id")
    last4: Any = field(default=None, name="CardLast4Digits")
    brand: Any = field(default=None, name="CardBrandName")

    @property
    def order(self) -> str:
        return text_of(self.order_id) or text_of(self.order_id_too)

    @property
    def time(self) -> str:
        return text_of(self.timestamp) or text_of(self.timestamp_too)


_decoder = msgspec.json.Decoder(_Body)


class QliroCallbacks:
    """`model.callbacks.Callbacks`."""

    purposes: Mapping[str, Purpose] = {
        "checkout-status": Purpose(),
        "order-status": Purpose(),
        "notification": Purpose(),
        "saved-card": Purpose(),
        "validation": Purpose("validation"),
        "shipping-methods": Purpose("shipping_methods"),
        "shipping-addresses": Purpose("shipping_addresses"),
    }
    questions: tuple[str, ...] = ("validation", "shipping_methods", "shipping_addresses")
    account_keys: tuple[str, ...] = ()

    def read(self, called: Called) -> Reading:
        """Reads a call."""
        question = self.purposes[called.purpose].question
        try:
            if question:
                return questions.ask(question, called.body)
            body = read_json(_decoder, called.body)
        except UnreadableError:
            return Unreadable()
        except NotUnderstoodError:
            body = _Body()
        try:
            said = _READ[called.purpose](body)
        except NotUnderstoodError:
            word = word_of(body.status) or word_of(body.event_type)
            said = unmapped(
                called.purpose, word, (body.order[:200], word, body.time[:40]), body.order[:200], time=body.time
            )
        return Push((said,), RECEIVED)

    def token_in_body(self, called: Called) -> InBody | Unreadable | None:  # noqa: ARG002 - never
        """`None`: the token is always in the address."""
        return None

    def answer(self, name: str, answer: bytes) -> Answered:
        """The response to Qliro for the shop's answer."""
        return questions.answer(name, answer)

    def default(self, name: str, choice: str, read_file: Callable[[str], bytes]) -> Answered:
        """The response to Qliro if the shop does not answer in time. Raises `ConfigError`."""
        return questions.default(name, choice, read_file)


def _checkout(body: _Body) -> Said:
    if text_of(body.kind).lower() == "upsellstatus":
        return _upsell(body)
    status = word_of(body.status)
    state = _STATES.get(status.lower())
    if state is None:
        raise NotUnderstoodError
    data = with_order(id_of(body.order), {"state": state, "transaction_id": _known_id(body.transaction)})
    return Said("payment_state", data, (body.order, status, body.time), body.time)


def _upsell(body: _Body) -> Said:
    status, transaction = word_of(body.status), id_of(body.transaction)
    if not status:
        raise NotUnderstoodError
    replaced = _known_id(body.original) if flag_of(body.replaces) else ""
    data = with_order(id_of(body.order), {"status": status, "transaction_id": transaction, "replaces": replaced})
    # A failed one has no transaction: then only the time distinguishes two of them.
    by = text_of(body.upsell)[:200] or (transaction if transaction != "0" else f"{body.order} {body.time}")
    return Said("upsell", data, ("upsell", by, status), body.time)


def _transaction(body: _Body) -> Said:
    transaction, status = id_of(body.transaction), _named(body.status, _STATUSES)
    currency = text_of(body.currency)
    if not (len(currency) == 3 and currency.isascii() and currency.isupper() and currency.isalpha()):
        raise NotUnderstoodError
    error = ""
    if status.lower() in _FAILED or text_of(body.error_code):
        texts = [text_of(each) for each in (body.error_code, body.error_text, body.result)]
        error = ": ".join(dict.fromkeys(each for each in texts if each))[:ERROR_MAX]
    data = with_order(
        id_of(body.order),
        {
            "transaction_id": transaction,
            "original_transaction_id": _known_id(body.original),
            "kind": _named(body.payment_type, _KINDS),
            "status": status,
            "amount_minor": minor_of(raw_text(body.amount)),
            "currency": currency,
            "error": error,
        },
    )
    return Said("transaction", data, (transaction, status), body.time)


def _notification(body: _Body) -> Said:
    kind = word_of(body.event_type)
    known_by = (id_of(body.order), kind, body.time)
    if kind.upper() != "SHIPPING_PROVIDER_UPDATE":
        return unmapped("notification", kind, known_by, body.order, time=body.time)
    success = flag_of(body.is_success)
    provider = text_of(body.provider)[:200]
    if success is None or not provider:
        raise NotUnderstoodError
    data = with_order(
        body.order, {"provider": provider, "success": success, "error": text_of(body.error_message)[:ERROR_MAX]}
    )
    payload = bytes(body.payload)
    if payload != b"null" and len(payload) <= PAYLOAD_MAX_BYTES:
        data["payload"] = plain(payload)
    return Said("shipping", data, known_by, body.time)


def _card(body: _Body) -> Said:
    card, last4 = id_of(body.card_id), text_of(body.last4)
    if not (len(last4) == 4 and last4.isascii() and last4.isdigit()):
        raise NotUnderstoodError
    data = with_order(id_of(body.order), {"id": card, "last4": last4})
    return Said("card_saved", data | {"brand": word_of(body.brand)}, (card,), body.time)


_READ: Mapping[str, Callable[[_Body], Said]] = {
    "checkout-status": _checkout,
    "order-status": _transaction,
    "notification": _notification,
    "saved-card": _card,
}


def _known_id(value: Any) -> str:
    """An id, or an empty text: 0 stands for none."""
    text = text_of(value)
    return text if text != "0" and len(text) <= 200 else ""


def _named(value: Any, names: tuple[str, ...]) -> str:
    """A word, or the name that a number stands for. Raises `NotUnderstoodError`."""
    word = word_of(value)
    if word.isascii() and word.isdigit() and len(word) < 3 and int(word) < len(names):
        return names[int(word)]
    if not word:
        raise NotUnderstoodError
    return word
