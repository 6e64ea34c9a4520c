"""Escrows, what is done to them there, and what AtaraPay answers and notifies.

Source: plugins.atarapay.com/docs, pages `complete`, `cancel`, `reject`, `order`, `status`, `escrow`, `validation`, and
the official WooCommerce plugin 2.0.13 (both read 2026-10). What these leave open is a `Habits`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from worker.model.exchange import HttpResponse
from worker.providers.atarapay.tokens import authtoken, notification_token
from worker.providers.atarapay.wire import BUYER_CANCEL, CANCELLED, CANCELS, DELIVERED, ORDER_STATUS, State

NO_ORDER = "No such order exists for the seller."
NO_TOKEN = "Invalid authtoken. Does not match any record."  # noqa: S105 - a message
NO_STATUS = "Invalid status sent."
NO_PHONE = "The phone number field is required."
DELIVERED_BEFORE = "Invalid request to Process, Order has been already Processed"
PROCESSED_BEFORE = "Invalid action. This request has already been processed"
IN_DISPUTE = "The order is in dispute and cannot be cancelled by the buyer."

CANCELLABLE = frozenset({State.PENDING, State.SECOND, State.AWAITING})
"""Before acceptance. Unverified: whether Pending II counts."""
_DELIVERABLE = frozenset({State.PENDING, State.SECOND})
_IN_DISPUTE = frozenset({State.DISPUTE, State.DISPUTED})


class Act(StrEnum):
    """What buyer and seller do at AtaraPay itself."""

    DELIVER = "deliver"
    ACCEPT = "accept"
    REJECT = "reject"
    AGREE_SECOND_ATTEMPT = "agree_second_attempt"
    CANCEL_AS_BUYER = "cancel_as_buyer"
    CANCEL_AS_SELLER = "cancel_as_seller"
    DISPUTE = "dispute"
    ESCALATE = "escalate"
    DROP_DISPUTE = "drop_dispute"
    REFUND = "refund"
    PAY_OUT = "pay_out"


class _Step(NamedTuple):
    """An act: from which states, to which one, and its notification; no status: there is none."""

    allowed: frozenset[State]
    to: State
    status: str
    message: str


_STEPS: Mapping[Act, _Step] = {
    Act.DELIVER: _Step(_DELIVERABLE, State.AWAITING, "Delivered", "Order is marked completed"),
    Act.ACCEPT: _Step(frozenset({State.AWAITING}), State.ACCEPTED, "Accepted", "Buyer Accepts Order"),
    Act.REJECT: _Step(frozenset({State.AWAITING}), State.REJECTED, "Rejected", "Buyer Rejects Order"),
    Act.AGREE_SECOND_ATTEMPT: _Step(frozenset({State.REJECTED}), State.SECOND, "Pending II", "Second delivery attempt"),
    Act.CANCEL_AS_BUYER: _Step(CANCELLABLE, State.CANCELLED, "Rejected", "Transaction is canceled"),
    Act.CANCEL_AS_SELLER: _Step(CANCELLABLE, State.CANCELLED, "Canceled", "Transaction is canceled"),
    Act.DISPUTE: _Step(frozenset({State.REJECTED}), State.DISPUTE, "Dispute", "Order is in dispute"),
    Act.ESCALATE: _Step(frozenset({State.DISPUTE}), State.DISPUTED, "Disputed", "Dispute is escalated"),
    Act.DROP_DISPUTE: _Step(_IN_DISPUTE, State.COMPLETED, "Complete", "Dispute is cancelled, Transaction Completed"),
    Act.REFUND: _Step(_IN_DISPUTE, State.RESOLVED, "Refunded", "Seller cancels disputed order"),
    Act.PAY_OUT: _Step(frozenset({State.ACCEPTED}), State.COMPLETED, "", ""),
}
_OF_WORDS = {DELIVERED: Act.DELIVER, CANCELLED: Act.CANCEL_AS_SELLER, BUYER_CANCEL: Act.CANCEL_AS_BUYER}

STATE_IDS: Mapping[State, int] = {
    State.PENDING: 1,
    State.AWAITING: 2,
    State.REJECTED: 3,
    State.ACCEPTED: 4,
    State.COMPLETED: 5,
    State.SECOND: 6,
    State.DISPUTE: 7,
    State.DISPUTED: 8,
    State.CANCELLED: 9,
    State.RESOLVED: 10,
    State.REFUNDED: 11,
}
"""Unverified, but for 3, 5 and 9."""


class Habits(Struct, frozen=True):
    """What AtaraPay's documentation does not tell."""

    refusal_status: int = 200
    """The HTTP status of errors."""
    cancelled: str = "Canceled"
    """Pages, API and notifications spell it in three ways."""
    numbers_as_texts: bool = False
    """Whether numbers in JSON stand in quotes."""
    takes_second_delivery: bool = True
    """Whether `delivered` is taken again after Pending II."""


class Escrow(Struct):
    """One order's money."""

    number: str
    product_id: str
    """The shop's number, given at checkout."""
    amount_minor: int
    currency: str = "NGN"
    state: State = State.PENDING
    words: list[str] = []
    """Those that were taken, the oldest first."""


class Notification(Struct, frozen=True):
    """What AtaraPay posts to the seller's callback address, of whatever content type."""

    status: str
    message: str
    data: dict[str, Any]
    token: str


class Sandbox:
    """One seller's orders at AtaraPay."""

    def __init__(self, public_key: str, private_key: str, habits: Habits | None = None) -> None:
        self._public_key, self._private_key = public_key, private_key
        self._habits = habits or Habits()
        self.escrows: dict[str, Escrow] = {}
        """By number."""
        self.untold: list[Notification] = []
        """Not posted yet; whoever posts them takes them out."""

    def open(self, number: str, product_id: str, amount_minor: int) -> Escrow:
        """The buyer has paid."""
        made = self.escrows[number] = Escrow(number, product_id, amount_minor)
        return made

    def call(self, form: bytes) -> HttpResponse:
        """`POST {base}/callback/order` with this body."""
        given = dict(parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True))
        word, escrow = given.get("status", ""), self.escrows.get(given.get("order", ""))
        if given.get("authtoken") != authtoken(self._public_key, self._private_key):
            return self._refused(NO_TOKEN)
        if word not in {DELIVERED, ORDER_STATUS} | CANCELS:
            return self._refused(NO_STATUS)
        if escrow is None:
            return self._refused(NO_ORDER)
        if word == ORDER_STATUS:
            return _answer(200, {"status": "success", "message": "Order Fetched", "data": self._shown(escrow)})
        if word == DELIVERED:
            return self._deliver(escrow, given)
        if word == BUYER_CANCEL and escrow.state in _IN_DISPUTE:
            return self._refused(IN_DISPUTE)
        if not self._take(escrow, word):
            return self._refused(PROCESSED_BEFORE)
        return _answer(
            200, {"status": "success", "message": "Transaction is canceled", "data": {"order": escrow.number}}
        )

    def act(self, number: str, act: Act) -> bool:
        """Something is done at AtaraPay itself; whether it can be done now."""
        escrow, step = self.escrows[number], _STEPS[act]
        if escrow.state not in step.allowed:
            return False
        escrow.state = step.to
        if step.status:
            amount = str(escrow.amount_minor)
            token = notification_token(self._public_key, self._private_key, escrow.number, amount)
            self.untold.append(Notification(step.status, step.message, self._shown(escrow), token))
        return True

    def _deliver(self, escrow: Escrow, given: Mapping[str, str]) -> HttpResponse:
        if not given.get("phone_number", "").strip():
            return self._refused(NO_PHONE)
        is_second = escrow.state is State.SECOND
        if (is_second and not self._habits.takes_second_delivery) or not self._take(escrow, DELIVERED):
            return self._refused(DELIVERED_BEFORE)
        data = {"phone": given["phone_number"], "email": given.get("email"), "order": escrow.number}
        return _answer(200, {"status": "success", "message": "pod_created", "data": data})

    def _take(self, escrow: Escrow, word: str) -> bool:
        if not self.act(escrow.number, _OF_WORDS[word]):
            return False
        escrow.words.append(word)
        return True

    def _refused(self, message: str) -> HttpResponse:
        return _answer(self._habits.refusal_status, {"status": "error", "message": message})

    def _shown(self, escrow: Escrow) -> dict[str, Any]:
        """The order object of Order Status and of notifications; the real one has the buyer's data in it, too."""
        title = self._habits.cancelled if escrow.state is State.CANCELLED else str(escrow.state)
        return {
            "id": self._number(escrow.number),
            "product_id": self._number(escrow.product_id),
            "amount_payed": self._number(str(escrow.amount_minor)),
            "product_cost": self._number(str(escrow.amount_minor)),
            "currency": escrow.currency,
            "status": {"id": STATE_IDS[escrow.state], "title": title, "description": ""},
            "customers": {"name": "Zainab Okonkwo", "phone": "+2348012345678"},
            "created_at": "2026-03-01 10:00:00",
            "accepted_at": "0000-00-00",
        }

    def _number(self, text: str) -> int | str:
        return text if self._habits.numbers_as_texts or not text.isdecimal() else int(text)


def _answer(status: int, body: dict[str, Any]) -> HttpResponse:
    return HttpResponse(status, {"content-type": "application/json"}, msgspec.json.encode(body))
