"""What is to be done about an order that is owed: send, acknowledge without a call, park, or wait."""

from typing import Literal

from msgspec import Struct

from schemas.state import OrderRecord
from schemas.views import STATUS_RULES, Waits
from worker.core.order import Assessment, Shown, assess, baseline, shown_of
from worker.core.record import known_digest, newest_event
from worker.model.account import Account
from worker.model.exchange import REASON_MAX
from worker.model.order import reference_of
from worker.model.provider import Destination, Update


class Send(Struct, frozen=True):
    """This is owed and may be told."""

    update: Update
    trace: str | None = None
    """`traceparent` of the newest event that had one."""
    generation: int = 0
    """Of the order's record, for the key of the request."""
    account: Account | None = None
    """As it was when this was rendered."""
    event_id: str = ""
    """Of the newest event in it, as logs may have it."""
    remote: bytes = b""
    """As the order's record has it."""
    may_land_late: bool = False
    remote_unknown: bool = False
    shown: Shown | None = None


class Acknowledge(Struct, frozen=True):
    """The provider holds just this: acknowledged without a call."""

    digest: bytes
    shown: Shown | None = None
    is_approved: bool = True
    """Its payment is; otherwise it is at rest, but not settled."""


class Park(Struct, frozen=True):
    """It must not be sent as it is."""

    reason: str
    digest: bytes
    by_check: bool = True
    """By a check of ours; otherwise the provider has refused this payload."""
    shown: Shown | None = None


class Wait(Struct, frozen=True):
    """Nothing can be sent until an event or an operator changes something."""

    state: Literal[Waits, "no_account"]
    reasons: list[str]
    contradicts: bool = False
    """Whether its facts contradict each other, also while the payment is on hold."""
    shown: Shown | None = None
    """`None`: it has no carts."""


Plan = Send | Acknowledge | Park | Wait


def plan(record: OrderRecord, subject: str, destination: Destination) -> Plan:
    """What is to be done about an order that is owed, delays and holds apart."""
    reference = reference_of(subject)
    assessment = assess(record.facts, reference)
    if assessment.state != "ready":
        if _is_over(assessment, record):
            return Acknowledge(record.acked_digest, shown_of(assessment.order), is_approved=False)
        return wait_of(assessment)
    order = assessment.order
    assert order is not None  # ready means that there are carts
    shown = shown_of(order)
    update = destination.provider.render(order, destination.account)
    if not (record.remote_unknown or record.may_land_late) and update.digest == known_digest(
        record, order, reference, destination
    ):
        return Acknowledge(record.acked_digest, shown)  # empty stays empty: an older confirmation may come yet
    parked = record.park if record.park is not None and record.park.digest == update.digest else None
    refusal = parked.reason if parked is not None and not parked.by_check else None  # the provider's, of this payload
    # Our own checks are made again each time: what they measure the payload against may be another one now.
    reason = refusal if refusal is not None else update.problem
    if reason is None:
        return Send(
            update,
            record.trace,
            record.generation,
            destination.account,
            newest_event(record),
            record.remote,
            record.may_land_late,
            record.remote_unknown,
            shown,
        )
    if parked is not None and parked.revision == record.revision and parked.reason == reason[:REASON_MAX]:
        return Wait("parked", [reason], shown=shown)
    return Park(reason, update.digest, refusal is None, shown)


def _is_over(assessment: Assessment, record: OrderRecord) -> bool:
    """Whether the provider itself has cancelled an order before its payment was approved: nothing is told before that,
    and it will not be, so the order must not wait for it. Doubt about what the provider holds stays in the record: if
    it is approved all the same, all of it is sent.
    """
    if assessment.state == "ready" or not STATUS_RULES[assessment.state].is_of_payment or assessment.reasons:
        return False
    return record.facts.is_cancelled_there


def plan_unconfigured(record: OrderRecord, subject: str) -> Acknowledge | Wait:
    """What is to be done about an order whose account is not configured: as while an account is paused, and no
    adapter can tell more than whether it is still just as it was confirmed.
    """
    reference = reference_of(subject)
    assessment = assess(record.facts, reference)
    if assessment.state != "ready":
        return wait_of(assessment)
    is_known = not (record.remote_unknown or record.may_land_late or record.acked_digest)
    order = assessment.order
    assert order is not None  # ready means that there are carts
    if is_known and order.is_same(baseline(order.facts, reference)):
        return Acknowledge(b"", shown_of(order))
    return Wait("no_account", [], shown=shown_of(order))


def wait_of(assessment: Assessment) -> Wait:
    """What an order of this assessment waits for, which is not ready."""
    assert assessment.state != "ready"
    return Wait(assessment.state, assessment.reasons, bool(assessment.contradictions), shown_of(assessment.order))
