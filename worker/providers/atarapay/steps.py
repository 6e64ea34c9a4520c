"""Words to AtaraPay: an order's state becomes at most one, its answer an outcome. Pure.

AtaraPay holds one amount in escrow for an order, and knows four calls: `delivered`, `cancelled`, `buyer_cancel`, and
Order Status. None has a key that makes it safe to repeat, and AtaraPay writes to the shopper for each `delivered` that
it takes. So a word goes out unasked only when nothing is known that speaks against it; before a word that was ever
tried, after any doubt, and for what notifications claim, Order Status is asked first, and what it says decides.
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
from worker.providers.atarapay.replies import judge
from worker.providers.atarapay.tokens import authtoken, redacted
from worker.providers.atarapay.wire import CANCELS, DELIVERABLE, DELIVERED, Seen, State

_NO_PHONE = (
    "no phone number, without which AtaraPay takes no delivered: give delivery_address.mobile_phone or .phone, or "
    "those of the invoice_address"
)
NO_NUMBER = "waits for references.provider, the order's number at AtaraPay: an event or a notification brings it"
_CANNOT_TAKE_BACK = "AtaraPay was told that the order is cancelled, which cannot be taken back there"
_CANCELLED_THERE = CancelledData(by="provider")


class AtaraPay:
    """The adapter. Level B: Order Status says what AtaraPay holds."""

    name = "atarapay"
    guarantee: GuaranteeLevel = "B"
    can_read = True

    def render(self, order: Order, account: AtaraPayAccount) -> Update:  # noqa: ARG002 - one word for all accounts
        """Never with a problem: also of an order that cannot be told, notifications claim things."""
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
        if _must_read(wanted, known, is_in_doubt=asked.remote_unknown):
            return order_status(asked, wanted)
        if is_due(wanted, known):
            is_believed = not wanted.is_hearsay or known.is_confirmed
            return _tell(asked, wanted, known, None) if is_believed else _waits_for_number(known)
        return _nothing_to_tell(wanted, known)

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:
        """The body's `status` decides, whatever HTTP says (section 2 of AtaraPay's own pages names no HTTP codes)."""
        account: AtaraPayAccount = asked.account
        outcome, found = judge(account, response, asked.now_ms)
        if not sent.is_read:
            return Answered(replace(outcome, remote=memory.encode(_after_telling(sent.remote, outcome.kind))))
        if outcome.kind is not OutcomeKind.APPLIED:
            return Answered(outcome)
        seen = None if found is None else wire.seen(found.data)
        if seen is None:
            return Answered(Outcome(OutcomeKind.UNKNOWN, "Order Status tells no state", response.status))
        return Answered(outcome, replace(seen, title=redacted(seen.title, account)[: wire.TITLE_MAX]))

    def describe(self, remote: bytes) -> dict[str, Any]:
        return memory.describe(remote)


def _after_telling(remote: bytes, kind: OutcomeKind) -> Known:
    known = memory.decode(remote)
    if kind is OutcomeKind.APPLIED:
        return memory.taken(known)
    # Already processed may mean: by this very word, when it was tried before.
    return known if kind in (OutcomeKind.UNKNOWN, OutcomeKind.CONFLICT) else replace(known, is_open=False)


# --- before Order Status -----------------------------------------------------------------------------------------


def _before_any_call(wanted: Wanted, known: Known) -> Step | None:
    """What makes every call vain."""
    if wanted.word == DELIVERED and known.taken != DELIVERED and not wanted.phone:
        return Unsendable(_NO_PHONE, memory.encode(known))
    if wanted.number:
        return None
    return _waits_for_number(known) if is_due(wanted, known) else _nothing_to_tell(wanted, known)


def _must_read(wanted: Wanted, known: Known, *, is_in_doubt: bool) -> bool:
    if known.is_open or wanted.claims != known.checked:
        return True
    is_touched = bool(known.word or known.taken or known.state)
    if is_in_doubt and is_touched:
        return True  # a resend, or another account: what was taken before may not be so there
    return is_due(wanted, known) and (is_in_doubt or is_touched)


def _waits_for_number(known: Known) -> AwaitResult:
    return AwaitResult(None, NO_NUMBER, memory.encode(known))


def _nothing_to_tell(wanted: Wanted, known: Known, found: CancelledData | None = None) -> Settled | Unsendable:
    kept = memory.encode(known)
    if wanted.lack is not None:
        return Unsendable(why(wanted.lack), kept, found=found)
    if not wanted.word and not wanted.is_ended and known.taken in CANCELS:
        return Unsendable(_CANNOT_TAKE_BACK, kept)
    return Settled(kept, found)


# --- after Order Status ------------------------------------------------------------------------------------------


def _after_reading(asked: Question, wanted: Wanted, before: Known, seen: Seen) -> Step:
    if wanted.is_hearsay and not before.is_confirmed and seen.product_id != asked.reference:
        known = replace(before, checked=wanted.claims)
        return _waits_for_number(known) if is_due(wanted, known) else _nothing_to_tell(wanted, known)
    known = memory.read(before, wanted, seen, asked.reference)
    if seen.state is State.CANCELLED:
        return _cancelled_there(wanted, known)
    if not is_due(wanted, known):
        return _nothing_to_tell(wanted, known)
    if seen.state in DELIVERABLE:
        if wanted.word == DELIVERED and not wanted.phone:
            return Unsendable(_NO_PHONE, memory.encode(known))
        return _tell(asked, wanted, known, seen)
    if wanted.word == DELIVERED and known.taken == DELIVERED:
        return Settled(memory.encode(known))  # a newer delivery, but no second attempt was agreed on
    return Unsendable(f"{wanted.word} cannot be told: AtaraPay holds the order as {seen.title}", memory.encode(known))


def _cancelled_there(wanted: Wanted, known: Known) -> Step:
    if wanted.word in CANCELS:
        return Settled(memory.encode(replace(known, taken=wanted.word)))
    is_news = not wanted.is_ended and known.taken not in CANCELS
    found = _CANCELLED_THERE if is_news else None
    if wanted.word == DELIVERED:
        return Unsendable("AtaraPay holds the order as Cancelled", memory.encode(known), found=found)
    return _nothing_to_tell(wanted, known, found)


# --- calls -------------------------------------------------------------------------------------------------------


def _tell(asked: Question, wanted: Wanted, known: Known, seen: Seen | None) -> Exchange:
    members = {"comment": wire.NO_COMMENT}
    if wanted.word == DELIVERED:
        members = {"phone_number": wanted.phone} | ({"email": wanted.email} if wanted.email else {})
    step = _call(asked, wanted, wanted.word, members)
    return replace(step, is_read=False, remote=memory.encode(memory.tried(known, wanted, seen)))


def order_status(asked: Question, wanted: Wanted) -> Exchange:
    """Asks what AtaraPay holds of an order whose number is known."""
    return _call(asked, wanted, wire.ORDER_STATUS, {})


def _call(asked: Question, wanted: Wanted, word: str, members: dict[str, str]) -> Exchange:
    """`POST {base}/callback/order` with a form: nothing of it may stand in an address."""
    account: AtaraPayAccount = asked.account
    form = {"authtoken": authtoken(account.public_key, account.private_key), "order": wanted.number, "status": word}
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"} | asked.trace_headers
    url = account.base_url.rstrip("/") + "/callback/order"
    body = urlencode(form | members).encode()
    return Exchange(HttpRequest("POST", url, headers, body, account.name), is_read=True)
