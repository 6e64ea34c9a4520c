"""How an order's record changes: by an event, an outcome, a decision, an operator's command.

Each function returns the record after it and leaves the given one as it is; the very same one when nothing changes.
"""

from typing import assert_never

from msgspec.structs import replace

from schemas import state
from schemas.base import shallow_copy
from schemas.envelope import Data
from schemas.events import (
    DETAILS,
    CancelledData,
    ConfirmedData,
    DetailsChangedData,
    ObservedData,
    OrderEvent,
    PaymentStateChangedData,
)
from schemas.facts import MEMBERS, PAYMENT, PROVIDER, Facts, Payment, SealedFacts
from schemas.state import Attempts, Delay, MadeAt, OrderHeader, OrderRecord, Parking
from worker.core.intake import shown_id
from worker.core.order import assess, baseline
from worker.core.policy import DeliveryPolicy
from worker.core.provider_facts import KINDS, agrees_anew, found_cancelled, names_order_anew, without_words
from worker.core.reducer import reduce_sealed
from worker.core.retry import awaits_change, backoff_s, hold_s
from worker.core.status import is_only_shown, is_parked
from worker.model.exchange import REASON_MAX, Outcome, OutcomeKind
from worker.model.order import Order, reference_of
from worker.model.provider import Destination

# --- what the provider has, as far as we know --------------------------------------------------------------------


def known_digest(record: OrderRecord, order: Order, reference: str, destination: Destination) -> bytes | None:
    """The digest of what the provider holds, as far as we know."""
    if record.acked_digest:
        return record.acked_digest
    if destination.account.send_on_confirm:
        return None
    if any(item.quantity for item in order.shipped.items):
        return None  # a confirmation alone ships nothing: it differs, without being rendered
    noted, confirmation = record.confirmed_as, order.facts.confirmation
    if noted is not None and confirmation is not None and noted.stamp == confirmation.stamp:
        return noted.digest or None if noted.provider == destination.provider.name else None
    confirmed = baseline(order.facts, reference)
    return None if confirmed is None else destination.provider.digest(confirmed)


def newest_event(record: OrderRecord) -> str:
    """The id of the event that made the record's revision, as logs may have it; empty: it has none."""
    uid = record.sealed.seen[-_UID_BYTES:]
    return shown_id(record.event_id, uid) if uid else ""


_UID_BYTES = 8

# --- an event ---


def record_for(event: OrderEvent, value: bytes | None) -> tuple[OrderRecord, bool]:
    """The record that takes this event, a new one when there is no value; and whether that needs the destination."""
    record = OrderRecord() if value is None else state.decode_order(value)
    # The change may have been made at the provider, or all since `acked` were.
    return record, record.echo or event.origin is not None or type(event.data) in _MEANINGS


def apply_event(
    record: OrderRecord,
    event: OrderEvent,
    *,
    position: int,
    revision: int,
    now_ms: int,
    destination: Destination | None,
    in_flight: bool = False,
    key_digest: int = 0,
) -> OrderRecord:
    """The record after an event; the very same one when it was seen before. `key_digest`: of its record's key; 0: that
    is not known.
    """
    data = event.data
    kind = type(data)
    if kind in _MEANINGS:
        event = _as_meant(event, destination)
    before = record.sealed
    facts = reduce_sealed(before, event, position)
    if facts is before:
        return record
    after = shallow_copy(record)
    after.schema = state.SCHEMA
    after.sealed = facts
    after.revision = revision
    after.event_id = event.id[: state.EVENT_ID_MAX]
    after.touched_day = now_ms // _DAY_MS
    if key_digest not in (0, record.key_digest):
        after.has_several_keys = record.has_several_keys or record.key_digest != 0
        after.key_digest = key_digest
    if kind in _APART and _takes_apart(record, after, event):
        return after
    is_only_heard = after.heard == revision and not agrees_anew(data)
    after.to_tell = record.to_tell or record.revision if is_only_heard else 0
    after.event_ms = max(record.event_ms, event.time_us // 1000)
    if event.traceparent is not None:
        after.trace = event.traceparent
    if record.delay is _UNTIL_CHANGED:
        _end_wait(after)
    if record.revision == record.acked:
        after.owed_since_ms = now_ms
    if facts.confirmation:
        after.unconfirmed_since_ms = 0
    else:
        after.unconfirmed_since_ms = record.unconfirmed_since_ms or now_ms
    if (kind in _PAYMENTS or kind is ConfirmedData) and _is_newly_approved(before, facts):
        _release(after)
        _end_not_found_delay(after)
    if type(data) is DetailsChangedData:
        _forget_what_was_said(after, data)
    if destination is not None:
        _follow_origin(record, after, event, destination, in_flight)
    return after


_DAY_MS = 86_400_000
_UNTIL_CHANGED = Delay.CHANGE
_MEANINGS = frozenset[type[Data]]({CancelledData, *KINDS})
"""Events that mean something else from provider to provider."""
_PAYMENTS = frozenset[type[Data]]({PaymentStateChangedData, *(data for data, kind in KINDS.items() if kind.is_payment)})
_APART = frozenset[type[Data]]({*KINDS, ObservedData})


def may_change(event: OrderEvent) -> bool:
    """Whether what is owed to a provider may change by an event of this kind, wherever it was made."""
    kind = KINDS.get(type(event.data))
    return kind.is_change if kind is not None else type(event.data) not in _APART


def _as_meant(event: OrderEvent, destination: Destination | None) -> OrderEvent:
    """An event as the order's provider has to be taken, whoever wrote it."""
    data = event.data
    if destination is None:
        return event
    if type(data) in KINDS:
        return replace(event, is_final=not destination.provider.can_read)
    believed = destination.account.trust_origin and event.origin == destination.provider.name
    if believed and isinstance(data, CancelledData) and data.by != "provider":
        return replace(event, data=replace(data, by="provider"))
    return event


def payment_now(facts: SealedFacts) -> Payment | None:
    """As `Facts.payment_now`."""
    if not (facts.payment or facts.provider):
        return None  # of most orders nothing is said: every one that is owed is asked for it when it is taken over
    return Facts(payment=PAYMENT.open(facts.payment), provider=PROVIDER.open(facts.provider)).payment_now


def _is_newly_approved(before: SealedFacts, after: SealedFacts) -> bool:
    """Whether a newer `approved` counts, also one over another."""
    if after.payment == before.payment and after.provider == before.provider:
        return False
    payment = payment_now(after)
    return payment is not None and payment.state == "approved" and payment != payment_now(before)


def _takes_apart(before: OrderRecord, after: OrderRecord, event: OrderEvent) -> bool:
    """Takes an event of which the provider is never told into `after`, unless it is to be taken like one of the shop's.

    A hint makes the order owed: what became of it at the provider is asked. All else changes nothing about what is
    owed, nor about what stands in its way.
    """
    kind = KINDS.get(type(event.data))
    if kind is not None and kind.is_change and event.is_final:
        return False  # made there
    if _is_hint(before, event):
        _hear(after)
        return False
    if kind is not None and kind.is_payment and payment_now(after.sealed) != payment_now(before.sealed):
        return False
    if before.revision == before.acked:
        after.acked = after.revision
    if is_parked(before):
        assert before.park is not None  # says `is_parked`
        after.park = replace(before.park, revision=after.revision)
    made_at = before.made_at
    if made_at is not None and made_at.revision == before.revision:
        after.made_at = replace(made_at, revision=after.revision)
    return True


def _is_hint(before: OrderRecord, event: OrderEvent) -> bool:
    """Whether something may have moved at a provider that can be asked."""
    kind = KINDS.get(type(event.data))
    return kind is not None and not event.is_final and (kind.is_hint or names_order_anew(before.facts, event))


def _hear(record: OrderRecord) -> None:
    """Has the order asked about anew: its wait is over, and nothing is left out as known. Changes `record` itself."""
    record.heard = record.revision
    record.remote_unknown = True
    if record.delay is not Delay.ASKED:
        record.not_before_ms, record.not_found_delay, record.delay_ms = 0, False, 0
    if record.park is not None and record.park.unsupported:
        _release(record)


def _end_not_found_delay(record: OrderRecord) -> None:
    """Its provider may well know it now. Changes `record` itself."""
    if record.not_found_delay:
        record.not_before_ms, record.not_found_delay = 0, False


def _end_wait(record: OrderRecord) -> None:
    """It has changed, which it may have waited for. Changes `record` itself."""
    if record.delay is _UNTIL_CHANGED:
        record.not_before_ms, record.delay, record.delay_ms = 0, Delay.OWN, 0


def _forget_what_was_said(record: OrderRecord, data: DetailsChangedData) -> None:
    """A provider's words may repeat what is being removed. Changes `record` itself."""
    if None in [getattr(data, name) for name in DETAILS]:
        erase_words(record)


def erase_words(record: OrderRecord) -> None:
    """Erases what a provider said, which may be personal. Changes `record` itself."""
    record.reason = ""
    if record.park is not None and not (record.park.by_check or record.park.unsupported):
        record.park = replace(record.park, reason=_FORGOTTEN)
    provider = PROVIDER.open(record.sealed.provider)
    if provider is not None:
        record.sealed.provider = PROVIDER.seal(without_words(provider))


_FORGOTTEN = "refused by the provider; what it said went with the details that were removed"


def _follow_origin(
    before: OrderRecord, after: OrderRecord, event: OrderEvent, destination: Destination, in_flight: bool
) -> None:
    """A change made at the provider itself counts as acknowledged when nothing else is owed: no echo.

    Where the account does not trust `origin`, it only means that the provider may hold something else.
    """
    if _made_at(event, destination.provider.name) and not destination.account.trust_origin:
        after.echo = False
        after.remote_unknown = before.remote_unknown or not isinstance(
            event.data, ConfirmedData | PaymentStateChangedData
        )
    elif _made_at(event, destination.provider.name):
        after.echo = before.echo or (not in_flight and _nothing_owed(before, event.subject, destination))
        if not after.echo and not isinstance(event.data, ConfirmedData | PaymentStateChangedData):
            after.remote_unknown = True  # it holds a change that we shall not acknowledge, even if all is undone again
    elif before.echo:
        confirms = isinstance(event.data, ConfirmedData) and not before.sealed.confirmation
        pays = type(event.data) in _PAYMENTS
        after.echo = pays or (confirms and not destination.account.send_on_confirm)
    if after.echo:
        order = assess(after.facts, reference_of(event.subject)).order
        if order is not None:
            _acknowledge(after, destination.provider.digest(order))
            after.made_at = MadeAt(destination.provider.name, after.revision)


def _made_at(event: OrderEvent, provider: str) -> bool:
    """Whether a change was made there."""
    data = event.data
    if (kind := KINDS.get(type(data))) is not None:
        return kind.is_change and event.is_final
    return event.origin == provider or (isinstance(data, CancelledData) and data.by == "provider")


def _nothing_owed(record: OrderRecord, subject: str, destination: Destination) -> bool:
    if record.revision == record.acked:
        return True
    if record.remote_unknown or record.may_land_late:
        return False
    reference = reference_of(subject)
    facts = record.facts
    assessment = assess(facts, reference)
    if assessment.state == "unconfirmed":
        return not _tells(facts)
    order = assessment.order
    if order is None:
        return False
    return destination.provider.digest(order) == known_digest(record, order, reference, destination)


def _tells(facts: Facts) -> bool:
    """Whether there is anything but payment states, of which a provider is never told."""
    return any(member.is_told and facts.stamped(name) for name, member in MEMBERS.items())


def _acknowledge(record: OrderRecord, digest: bytes) -> None:
    record.acked = record.revision
    record.acked_digest = digest
    record.echo = False
    record.park = None
    record.attempts = Attempts()
    record.reason = ""
    record.owed_since_ms = record.inconsistent_since_ms = 0


def acknowledge(record: OrderRecord, digest: bytes) -> OrderRecord:
    """The record once it is known that the provider holds just this payload."""
    after = shallow_copy(record)
    _acknowledge(after, digest)
    return after


def apply_found(record: OrderRecord, now_ms: int) -> OrderRecord:
    """The record once its provider was found to have the order cancelled: a fact like one of an event, though no event
    told it, so the revision stays.
    """
    after = shallow_copy(record)
    after.schema = state.SCHEMA
    after.sealed = shallow_copy(record.sealed)
    after.sealed.provider = PROVIDER.seal(found_cancelled(PROVIDER.open(record.sealed.provider), now_ms * 1000))
    return after


def park(record: OrderRecord, reason: str, digest: bytes, now_ms: int, *, by_check: bool) -> OrderRecord:
    """The record, not to be sent until its payload changes or an operator releases it."""
    after = shallow_copy(record)
    reason = reason[:REASON_MAX]
    was = record.park
    is_unsupported = was is not None and was.unsupported and was.digest == digest and not by_check
    after.park = Parking(reason, digest, record.revision, now_ms, by_check, is_unsupported)
    after.reason = reason
    after.inconsistent_since_ms = 0
    return after


def mark_waiting(record: OrderRecord, inconsistent: bool, now_ms: int) -> OrderRecord:
    """The record with the beginning of its inconsistency noted, or forgotten; the very same one if it is already."""
    if inconsistent == bool(record.inconsistent_since_ms):
        return record
    after = shallow_copy(record)
    after.inconsistent_since_ms = now_ms if inconsistent else 0
    return after


def _release(record: OrderRecord) -> None:
    record.park = None
    record.attempts = Attempts()


def release(record: OrderRecord) -> OrderRecord:
    """The record with its parking and its counts begun anew; delays and holds that are running stay."""
    after = shallow_copy(record)
    _release(after)
    return after


def release_by_operator(record: OrderRecord, _now_ms: int) -> OrderRecord:
    """The record released, under a new key: who has refused a request need not look at the same one again. The very
    same one: there was nothing to release.
    """
    if record.park is None and not awaits_change(record) and replace(record.attempts, digest=b"") == Attempts():
        return record
    after = release(record)
    _end_wait(after)
    after.generation += 1
    return after


def resend(record: OrderRecord, now_ms: int) -> OrderRecord:
    """The record with its newest revision owed again, whatever was acknowledged, under a new key: a provider that
    honours keys would answer the old one from memory. The very same one: it has nothing that could be told.
    """
    if is_only_shown(record):
        return record
    after = release(record)
    _end_wait(after)
    after.generation += 1
    after.to_tell = 0
    after.made_at = None
    after.acked = 0
    after.echo = False
    after.remote_unknown = True
    after.owed_since_ms = record.owed_since_ms or now_ms
    return after


def inherit(record: OrderRecord) -> OrderRecord:
    """The record as taken over from an owner that did not leave in order: its last attempt may still land."""
    after = shallow_copy(record)
    after.may_land_late = after.remote_unknown = True
    return after


def must_inherit(header: OrderHeader, *, was_clean: bool) -> bool:
    """Whether an owner that takes over has to hold this order, since an attempt of the one before may still land. A
    clean predecessor has marked what it does not know; any other may have had whatever was owed in flight.
    """
    return header.may_land_late or (not was_clean and header.revision > header.acked)


# --- an outcome (`DOMAIN.md` section 6) ---

_FOR_GOOD_S = 10 * 365 * 86_400.0
"""Until something else happens."""


def settle(
    record: OrderRecord,
    revision: int,
    digest: bytes,
    outcome: Outcome,
    *,
    now_ms: int,
    chance: float,
    rules: DeliveryPolicy,
) -> tuple[OrderRecord, float]:
    """The record after an attempt with this revision and digest had this outcome, and for how long (seconds) the
    order must be held because the request may still land.
    """
    if record.erased is not None and digest == record.erased.before:
        digest = record.erased.after  # it was rendered before personal details were erased
    after, held_s = _settled(record, revision, digest, outcome, now_ms, chance, rules)
    after.delay_ms = after.not_before_ms - now_ms if after.not_before_ms else 0
    return after, held_s


def _settled(
    record: OrderRecord,
    revision: int,
    digest: bytes,
    outcome: Outcome,
    now_ms: int,
    chance: float,
    rules: DeliveryPolicy,
) -> tuple[OrderRecord, float]:
    after = shallow_copy(record)
    if outcome.remote is not None:
        after.remote = outcome.remote
    tried = record.attempts if record.attempts.digest == digest else Attempts(digest)
    after.reason = outcome.reason
    if after.park is not None and after.park.digest != digest:
        after.park = None  # another payload was tried meanwhile: this one would count anew
    after.not_found_delay = False
    after.not_before_ms = 0
    after.delay = Delay.OWN
    held_s = hold_s(outcome, rules)
    match outcome.kind:
        case OutcomeKind.APPLIED:
            return _applied(after, revision, digest, now_ms), held_s
        case OutcomeKind.CONFLICT:
            tried = replace(tried, conflict=tried.conflict + 1)
            if tried.conflict >= rules.conflict_attempts:
                after.park = Parking(outcome.reason, digest, revision, now_ms)
            else:
                after.not_before_ms = _after(now_ms, backoff_s(tried.conflict, chance, rules), None)
        case OutcomeKind.NOT_FOUND:
            tried = replace(tried, not_found=tried.not_found + 1)
            _not_found(after, tried.not_found, Parking(outcome.reason, digest, revision, now_ms), rules)
        case OutcomeKind.REJECTED | OutcomeKind.NOT_SENT | OutcomeKind.FORBIDDEN:
            tried = replace(tried, transient=tried.transient + 1)
            after.delay = _whence(outcome)
            after.not_before_ms = _after(now_ms, backoff_s(tried.transient, chance, rules), outcome.retry_after_s)
            after.remote_unknown = record.remote_unknown or outcome.may_have_applied
        case OutcomeKind.UNKNOWN:
            tried = replace(tried, transient=tried.transient + 1)
            after.may_land_late = after.remote_unknown = True
            after.delay = _whence(outcome)
            delay_s = held_s + backoff_s(tried.transient, chance, rules)
            after.not_before_ms = _after(now_ms, delay_s, outcome.retry_after_s)
            after.attempts = tried
            return after, held_s
        case OutcomeKind.PENDING | OutcomeKind.UNSUPPORTED:
            return _undecided(after, revision, digest, outcome, now_ms), held_s
        case OutcomeKind.PERMANENT:
            after.park = Parking(outcome.reason, digest, revision, now_ms)
        case OutcomeKind.CREDENTIALS:
            pass  # the account pauses; the order waits as it is
        case unknown:
            assert_never(unknown)
    after.attempts = tried
    return after, held_s


def _not_found(after: OrderRecord, count: int, park: Parking, rules: DeliveryPolicy) -> None:
    """The provider may not know the order yet: it is asked again a few times, further and further apart."""
    if count >= rules.not_found_attempts:
        after.park = park
        return
    delays = rules.not_found_delays_s
    after.not_before_ms = _after(park.at_ms, delays[min(count, len(delays)) - 1], None)
    after.not_found_delay = True


def _undecided(after: OrderRecord, revision: int, digest: bytes, outcome: Outcome, now_ms: int) -> OrderRecord:
    """The provider does not hold what is owed: not yet, or never. Where it was asked, that was after whatever could
    still land.
    """
    after.may_land_late, after.remote_unknown = after.may_land_late and not outcome.has_response, True
    after.attempts = Attempts()
    if outcome.kind is OutcomeKind.UNSUPPORTED:
        after.reason = outcome.reason[:REASON_MAX]
    if after.heard > revision:
        return after  # what was heard since may be just what it would wait for
    if outcome.kind is OutcomeKind.UNSUPPORTED:
        after.park = Parking(after.reason, digest, revision, now_ms, unsupported=True)
    elif outcome.retry_after_s is None:
        if after.revision == revision:  # a newer one may be another matter
            after.delay = Delay.CHANGE
            after.not_before_ms = _after(now_ms, _FOR_GOOD_S, None)
    else:
        after.delay = Delay.RESULT
        after.not_before_ms = _after(now_ms, outcome.retry_after_s, None)
    return after


def _whence(outcome: Outcome) -> Delay:
    if outcome.retry_after_s:
        return Delay.ASKED
    return Delay.OWN if outcome.kind is OutcomeKind.FORBIDDEN else Delay.TRANSIENT


def _applied(after: OrderRecord, revision: int, digest: bytes, now_ms: int) -> OrderRecord:
    after.acked = max(after.acked, revision)
    after.acked_digest = digest
    after.may_land_late = False
    after.remote_unknown = after.heard > revision
    after.park = None
    after.attempts = Attempts()
    after.reason = ""
    after.owed_since_ms = 0 if after.revision == after.acked else now_ms
    return after


def _after(now_ms: int, delay_s: float, retry_after_s: float | None) -> int:
    return now_ms + int(1000 * max(delay_s, retry_after_s or 0.0)) + 1
