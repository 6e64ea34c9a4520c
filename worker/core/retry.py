"""How long an order waits after an attempt: its hold, its delay, and what the delay is for."""

from typing import assert_never

from schemas.state import Delay, OrderRecord
from worker.core.policy import DeliveryPolicy
from worker.model.exchange import RETRY_AFTER_MAX_S, Outcome, OutcomeKind


def hold_s(outcome: Outcome, rules: DeliveryPolicy) -> float:
    """For how many seconds after an attempt with this outcome its request may still be applied: until then nothing else
    may be sent of what it was about, be it an order or a page of a report. 0: it is known what became of it. Never
    longer than `rules.hold_max_s`.
    """
    match outcome.kind:
        case OutcomeKind.UNKNOWN:
            return rules.settle_s
        case (
            OutcomeKind.APPLIED
            | OutcomeKind.PENDING
            | OutcomeKind.UNSUPPORTED
            | OutcomeKind.CONFLICT
            | OutcomeKind.NOT_FOUND
            | OutcomeKind.PERMANENT
            | OutcomeKind.CREDENTIALS
            | OutcomeKind.FORBIDDEN
            | OutcomeKind.REJECTED
            | OutcomeKind.NOT_SENT
        ):
            return 0.0
        case unknown:
            assert_never(unknown)


def backoff_s(count: int, chance: float, rules: DeliveryPolicy) -> float:
    """The delay after `count` failures in a row: full jitter below a cap that doubles up to `retry_max`."""
    cap = min(rules.retry_max_s, rules.retry_initial_s * 2.0 ** min(count, 40))
    return rules.retry_initial_s + (cap - rules.retry_initial_s) * chance


def delay_max_s(record: OrderRecord, rules: DeliveryPolicy) -> float:
    """The longest delay that this record may hold; a longer one was stored by a clock that was wrong.

    A version that did not store how long it is leaves only the longest one of its kind.
    """
    if record.delay_ms:
        return record.delay_ms / 1000
    if record.not_found_delay:
        return max(rules.not_found_delays_s)
    backoff_max_s = rules.retry_max_s + (rules.hold_max_s if record.may_land_late else 0.0)
    return max(backoff_max_s, RETRY_AFTER_MAX_S) if record.delay is Delay.ASKED else backoff_max_s


def awaits_result(record: OrderRecord) -> bool:
    """Whether its delay is the time that the provider has to say what became of it: nothing has failed."""
    return record.delay in (Delay.RESULT, Delay.CHANGE) and record.not_before_ms != 0


def awaits_change(record: OrderRecord) -> bool:
    """Whether nobody looks at it before it changes, or a job has told it."""
    return record.delay is Delay.CHANGE and record.not_before_ms != 0


def is_transient(record: OrderRecord) -> bool:
    """Whether its delay comes from something that may be over for all orders at once."""
    return record.delay is Delay.TRANSIENT and not record.not_found_delay
