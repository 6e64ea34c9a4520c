"""What follows from an outcome: acknowledged, again and when, held, or parked (`DOMAIN.md` section 6)."""

from typing import TypeVar, assert_never

from msgspec.structs import replace

from schemas.base import shallow_copy
from schemas.state import Attempts, Delay, OrderRecord, Parking, SealedRecord
from worker.core.policy import DeliveryPolicy
from worker.model.exchange import REASON_MAX, RETRY_AFTER_MAX_S, Outcome, OutcomeKind

_FOR_GOOD_S = 10 * 365 * 86_400.0
"""Until something else happens."""


def backoff_s(count: int, chance: float, rules: DeliveryPolicy) -> float:
    """The delay after `count` failures in a row: full jitter below a cap that doubles up to `retry_max`."""
    cap = min(rules.retry_max_s, rules.retry_initial_s * 2.0 ** min(count, 40))
    return rules.retry_initial_s + (cap - rules.retry_initial_s) * chance


_Record = TypeVar("_Record", OrderRecord, SealedRecord)


def delay_max_s(record: OrderRecord | SealedRecord, rules: DeliveryPolicy) -> float:
    """The longest delay that this record may hold; a longer one was stored by a clock that was wrong.

    A version that did not store how long it is leaves only the longest one of its kind.
    """
    if record.delay_ms:
        return record.delay_ms / 1000
    if record.not_found_delay:
        return max(rules.not_found_delays_s)
    backoff_max_s = rules.retry_max_s + (rules.settle_s if record.may_land_late else 0.0)
    return max(backoff_max_s, RETRY_AFTER_MAX_S) if record.delay is Delay.ASKED else backoff_max_s


def awaits_result(record: OrderRecord | SealedRecord) -> bool:
    """Whether its delay is the time that the provider has to say what became of it: nothing has failed."""
    return record.delay in (Delay.RESULT, Delay.CHANGE) and record.not_before_ms != 0


def awaits_change(record: OrderRecord | SealedRecord) -> bool:
    """Whether nobody looks at it before it changes, or a job has told it."""
    return record.delay is Delay.CHANGE and record.not_before_ms != 0


def is_transient(record: OrderRecord | SealedRecord) -> bool:
    """Whether its delay comes from something that may be over for all orders at once."""
    return record.delay is Delay.TRANSIENT and not record.not_found_delay


def settle(
    record: _Record,
    revision: int,
    digest: bytes,
    outcome: Outcome,
    *,
    now_ms: int,
    chance: float,
    rules: DeliveryPolicy,
) -> tuple[_Record, float]:
    """The record after an attempt with this revision and digest had this outcome, and for how long (seconds) the
    order must be held because the request may still land.
    """
    after, hold_s = _settled(record, revision, digest, outcome, now_ms, chance, rules)
    after.delay_ms = after.not_before_ms - now_ms if after.not_before_ms else 0
    return after, hold_s


def _settled(
    record: _Record, revision: int, digest: bytes, outcome: Outcome, now_ms: int, chance: float, rules: DeliveryPolicy
) -> tuple[_Record, float]:
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
    match outcome.kind:
        case OutcomeKind.APPLIED:
            return _applied(after, revision, digest, now_ms), 0.0
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
            after.remote_unknown = record.remote_unknown or (outcome.status is not None and outcome.status >= 500)
        case OutcomeKind.UNKNOWN:
            tried = replace(tried, transient=tried.transient + 1)
            after.may_land_late = after.remote_unknown = True
            after.delay = _whence(outcome)
            delay_s = rules.settle_s + backoff_s(tried.transient, chance, rules)
            after.not_before_ms = _after(now_ms, delay_s, outcome.retry_after_s)
            after.attempts = tried
            return after, rules.settle_s
        case OutcomeKind.PENDING | OutcomeKind.UNSUPPORTED:
            return _undecided(after, revision, digest, outcome, now_ms), 0.0
        case OutcomeKind.PERMANENT:
            after.park = Parking(outcome.reason, digest, revision, now_ms)
        case OutcomeKind.CREDENTIALS:
            pass  # the account pauses; the order waits as it is
        case unknown:
            assert_never(unknown)
    after.attempts = tried
    return after, 0.0


def _not_found(after: OrderRecord | SealedRecord, count: int, park: Parking, rules: DeliveryPolicy) -> None:
    """The provider may not know the order yet: it is asked again a few times, further and further apart."""
    if count >= rules.not_found_attempts:
        after.park = park
        return
    delays = rules.not_found_delays_s
    after.not_before_ms = _after(park.at_ms, delays[min(count, len(delays)) - 1], None)
    after.not_found_delay = True


def _undecided(after: _Record, revision: int, digest: bytes, outcome: Outcome, now_ms: int) -> _Record:
    """The provider does not hold what is owed: not yet, or never. Where it was asked, that was after whatever could
    still land.
    """
    after.may_land_late, after.remote_unknown = after.may_land_late and outcome.status is None, True
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


def _applied(after: _Record, revision: int, digest: bytes, now_ms: int) -> _Record:
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
