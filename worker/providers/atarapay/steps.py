"""The adapter for AtaraPay: an order's state becomes at most one *word*, the response an outcome. Pure.

AtaraPay has one amount in escrow for an order, and four calls, by their `status` (the word): `delivered`, `cancelled`,
`buyer_cancel`, and Order Status. None has an idempotency key, and AtaraPay messages the shopper for each `delivered`
that it accepts. So a word is sent without reading only if nothing speaks against it. Before a word that was sent
before, after any uncertainty, and for claims of notifications, Order Status is read first, and decides.
"""

from typing import Any
from urllib.parse import urlencode

from msgspec import Raw
from msgspec.structs import replace

from schemas.events import CancelledData
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    HttpRequest,
    HttpResponse,
    Outcome,
    OutcomeKind,
    Settled,
    Step,
    Unsendable,
)
from worker.model.order import Order
from worker.model.provider import Answered, GuaranteeLevel, Question, Update
from worker.providers.atarapay import known as memory
from worker.providers.atarapay import meaning, wire
from worker.providers.atarapay.checks import why
from worker.providers.atarapay.known import Known, is_due, known_of
from worker.providers.atarapay.meaning import Wanted
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.responses import judge
from worker.providers.atarapay.tokens import authtoken, redacted
from worker.providers.atarapay.wire import CANCELS, DELIVERABLE, DELIVERED, Seen, State

_NO_PHONE = (
    "no phone number, which AtaraPay requires for delivered: set mobile_phone or phone of the delivery_address or of "
    "the invoice_address"
)
NO_NUMBER = "waits for references.provider, the order's number at AtaraPay, from an event or a notification"
_CANNOT_TAKE_BACK = "the order was sent to AtaraPay as cancelled, which cannot be undone there"
_CANCELLED_THERE = CancelledData(by="provider")


class AtaraPay:
    """The adapter. Level B: Order Status says what AtaraPay has."""

    name = "atarapay"
    guarantee: GuaranteeLevel = "B"
    can_read = True

    def render(self, order: Order, account: AtaraPayAccount) -> Update:  # noqa: ARG002 - one word for all accounts
        """Never has a problem: notifications also make claims about orders that cannot be sent."""
        encoded = meaning.encode(meaning.wanted(order))
        return Update(meaning.digest_of(encoded), None, Raw(encoded))

    def digest(self, order: Order) -> bytes:
        return meaning.digest_of(meaning.encode(meaning.wanted(order)))

    def next_step(self, asked: Question) -> Step:
        wanted = meaning.decode(bytes(asked.update.body))
        known = known_of(asked.remote, wanted, may_land_late=asked.may_land_late)
        if isinstance(asked.seen, Seen):
            return _after_reading(asked, wanted, known, asked.seen)
        blocked = _before_any_call(wanted, known)
        if blocked is not None:
            return blocked
        if _must_read(wanted, known, is_uncertain=asked.remote_unknown):
            return order_status(asked, wanted)
        if is_due(wanted, known):
            is_believed = not wanted.is_unverified or known.is_confirmed
            return _send(asked, wanted, known, None) if is_believed else _waits_for_number(known)
        return _nothing_to_send(wanted, known)

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:
        """The body's `status` decides, whatever the HTTP status (AtaraPay's pages, section 2, name no HTTP codes)."""
        account: AtaraPayAccount = asked.account
        outcome, found = judge(account, response, asked.now_ms)
        if not sent.is_read:
            return Answered(replace(outcome, remote=memory.encode(_after_sending(sent.remote, outcome.kind))))
        if outcome.kind is not OutcomeKind.APPLIED:
            return Answered(outcome)
        seen = None if found is None else wire.seen(found.data)
        if seen is None:
            return Answered(Outcome(OutcomeKind.UNKNOWN, "the response to Order Status has no state", response.status))
        return Answered(outcome, replace(seen, title=redacted(seen.title, account)[: wire.TITLE_MAX]))

    def describe(self, remote: bytes) -> dict[str, Any]:
        return memory.describe(remote)


def _after_sending(remote: bytes, kind: OutcomeKind) -> Known:
    known = memory.decode(remote)
    if kind is OutcomeKind.APPLIED:
        return memory.accepted(known)
    # "Already processed" may mean by this very word, if it was sent before.
    return known if kind in (OutcomeKind.UNKNOWN, OutcomeKind.CONFLICT) else replace(known, is_open=False)


# --- before Order Status -----------------------------------------------------------------------------------------


def _before_any_call(wanted: Wanted, known: Known) -> Step | None:
    """What makes every call pointless."""
    if wanted.word == DELIVERED and known.accepted != DELIVERED and not wanted.phone:
        return Unsendable(_NO_PHONE, memory.encode(known))
    if wanted.number:
        return None
    return _waits_for_number(known) if is_due(wanted, known) else _nothing_to_send(wanted, known)


def _must_read(wanted: Wanted, known: Known, *, is_uncertain: bool) -> bool:
    if wanted.claims != known.checked:
        return True
    is_touched = bool(known.word or known.accepted or known.state)
    in_doubt = is_uncertain or known.is_open
    if in_doubt and is_touched:
        return True  # a resend, or another account: a word accepted before may be unknown there
    if known.is_open and (wanted.lack is not None or wanted.is_revised):
        return True  # it may have had a word before, which we do not know of
    # All that is owed at a takeover is in doubt, and most of it has no word yet: it is read before its first one.
    return is_due(wanted, known) and (in_doubt or is_touched)


def _waits_for_number(known: Known) -> AwaitResult:
    return AwaitResult(None, NO_NUMBER, memory.encode(known))


def _nothing_to_send(wanted: Wanted, known: Known, found: CancelledData | None = None) -> Settled | Unsendable:
    kept = memory.encode(known)
    if wanted.lack is not None:
        return Unsendable(why(wanted.lack), kept, found=found)
    if not wanted.word and not wanted.is_ended and known.accepted in CANCELS:
        return Unsendable(_CANNOT_TAKE_BACK, kept)
    return Settled(kept, found)


# --- after Order Status ------------------------------------------------------------------------------------------


def _after_reading(asked: Question, wanted: Wanted, before: Known, seen: Seen) -> Step:
    if wanted.is_unverified and not before.is_confirmed and seen.product_id != asked.reference:
        known = replace(before, checked=wanted.claims)
        return _waits_for_number(known) if is_due(wanted, known) else _nothing_to_send(wanted, known)
    known = memory.read(before, wanted, seen, asked.reference)
    if seen.state is State.CANCELLED:
        return _cancelled_there(wanted, known)
    if not is_due(wanted, known):
        return _nothing_to_send(wanted, known)
    if seen.state in DELIVERABLE:
        if wanted.word == DELIVERED and not wanted.phone:
            return Unsendable(_NO_PHONE, memory.encode(known))
        return _send(asked, wanted, known, seen)
    if wanted.word == DELIVERED and known.accepted == DELIVERED:
        return Settled(memory.encode(known))  # a newer delivery, but no second attempt was agreed on
    return Unsendable(f"{wanted.word} cannot be sent: at AtaraPay the order is {seen.title}", memory.encode(known))


def _cancelled_there(wanted: Wanted, known: Known) -> Step:
    if wanted.word in CANCELS:
        return Settled(memory.encode(replace(known, accepted=wanted.word)))
    is_news = not wanted.is_ended and known.accepted not in CANCELS
    found = _CANCELLED_THERE if is_news else None
    if wanted.word == DELIVERED:
        return Unsendable("at AtaraPay the order is Cancelled", memory.encode(known), found=found)
    return _nothing_to_send(wanted, known, found)


# --- calls -------------------------------------------------------------------------------------------------------


def _send(asked: Question, wanted: Wanted, known: Known, seen: Seen | None) -> Exchange:
    members = {"comment": wire.NO_COMMENT}
    if wanted.word == DELIVERED:
        members = {"phone_number": wanted.phone} | ({"email": wanted.email} if wanted.email else {})
    step = _call(asked, wanted, wanted.word, members)
    return replace(step, is_read=False, remote=memory.encode(memory.tried(known, wanted, seen)))


def order_status(asked: Question, wanted: Wanted) -> Exchange:
    """A read of an order whose number is known."""
    return _call(asked, wanted, wire.ORDER_STATUS, {})


def _call(asked: Question, wanted: Wanted, word: str, members: dict[str, str]) -> Exchange:
    """`POST {base}/callback/order` with a form: none of its values may be in an address."""
    account: AtaraPayAccount = asked.account
    form = {"authtoken": authtoken(account.public_key, account.private_key), "order": wanted.number, "status": word}
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"} | asked.trace_headers
    url = account.base_url.rstrip("/") + "/callback/order"
    body = urlencode(form | members).encode()
    return Exchange(HttpRequest("POST", url, headers, body, account.name), is_read=True)
