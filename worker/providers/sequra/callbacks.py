"""seQura's webhooks and its IPN: forms, about one order.

Source: seQura, "Webhooks API" and "IPN" (docs.sequra.com, read 2026-11), and its PrestaShop and integration-core
clients for `cancel`, `cancelled` and `risk_assessment`. seQura does not authenticate its calls itself: the token is a
value that the shop's checkout sent it, in the address or as a parameter, which returns as `m_token`. Orders cannot be
read at seQura, so its word counts. The response to an unknown event is 501, which seQura treats as "do not repeat".
"""

from collections.abc import Callable, Mapping

import msgspec

from worker.errors import ConfigError
from worker.model.callbacks import (
    Answered,
    Ask,
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
from worker.providers.callbacks import UnreadableError, read_form, unmapped, with_order, word_of

EVENT_MAX = 100
"""Characters of an event's name that are repeated in the response."""
TOO_LATE_MAX_MINUTES = 10_000_000
_DONE = Reply(200)
_RISKS = frozenset({"low_risk", "high_risk", "under_evaluation"})
_STATES: Mapping[str, str] = {"approved": "approved", "needs_review": "on_hold"}

_encode = msgspec.json.Encoder().encode


class _Cancel(msgspec.Struct):
    cancelled: bool = False
    too_late_minutes: int | None = None


_cancel = msgspec.json.Decoder(_Cancel)


class SequraCallbacks:
    """`model.callbacks.Callbacks`."""

    purposes: Mapping[str, Purpose] = {"webhook": Purpose(takes_token_in_body=True), "ipn": Purpose()}
    questions: tuple[str, ...] = ("cancel",)
    account_keys: tuple[str, ...] = ()

    def read(self, called: Called) -> Reading:
        """Reads a call."""
        try:
            form = read_form(called.media_type, called.body)
        except UnreadableError:
            return Unreadable()
        if form.get("order_ref_1", "") not in ("", called.reference):
            return Unauthorized()
        order = form.get("order_ref", "")[:200]
        return _ipn(form, order) if called.purpose == "ipn" else _webhook(form, order)

    def token_in_body(self, called: Called) -> InBody | Unreadable | None:
        """`m_token`, for the order `order_ref_1`."""
        try:
            form = read_form(called.media_type, called.body)
        except UnreadableError:
            return Unreadable()
        token, reference = form.get("m_token", ""), form.get("order_ref_1", "")
        return InBody(token, reference) if token and reference else None

    def answer(self, name: str, answer: bytes) -> Answered:  # noqa: ARG002 - there is one question
        """The response to seQura for the shop's answer."""
        try:
            found = _cancel.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Answered(None)
        if found.cancelled == (found.too_late_minutes is not None):
            return Answered(None)
        if found.too_late_minutes is None:
            return Answered(Reply(200, b'{"result":"cancelled"}'))
        if not 0 <= found.too_late_minutes <= TOO_LATE_MAX_MINUTES:
            return Answered(None)
        return Answered(Reply(200, _encode({"result": "toolate", "since": found.too_late_minutes})))

    def default(self, name: str, choice: str, read_file: Callable[[str], bytes]) -> Answered:  # noqa: ARG002 - one
        """The response to seQura if the shop does not answer in time. Raises `ConfigError`."""
        if choice != "unsupported":
            raise ConfigError("should be unsupported: only the shop can cancel an order")
        return Answered(_unknown("cancel"), waits_for_kafka=True)


def _unknown(event: str) -> Reply:
    return Reply(501, _encode({"error": f"Unknown event '{event[:EVENT_MAX]}'"}))


def _webhook(form: Mapping[str, str], order: str) -> Reading:
    event = form.get("event", "")
    if state := _STATES.get(event):
        return _push(Said("payment_state", with_order(order, {"state": state}), (event, order)))
    if event == "cancelled":
        return _push(Said("cancelled", with_order(order, {"by": "provider"}), (event, order)))
    if event == "cancel":
        said = Said("cancel_asked", with_order(order, {}), (event, order))
        return Ask("cancel", with_order(order, {}), (said,))
    if event == "risk_assessment":
        level = word_of(form.get("risk_level"))
        if level not in _RISKS:
            return _push(unmapped("risk_assessment", level, (order, level), order))
        return _push(Said("risk", with_order(order, {"level": level}), (event, order, level)))
    if not event:
        return _push(unmapped("webhook", "", (order,), order))
    return Push((), _unknown(event))


def _ipn(form: Mapping[str, str], order: str) -> Reading:
    word = word_of(form.get("sq_state"))
    state = _STATES.get(word)
    if state is None:
        return _push(unmapped("ipn", word, (order, word), order))
    return _push(Said("payment_state", with_order(order, {"state": state}), (word, order)))


def _push(said: Said) -> Push:
    return Push((said,), _DONE)
