"""What is to be done about an order that is owed: send, acknowledge without a call, park, or wait."""

from typing import Literal

from msgspec import Struct

from schemas.state import OrderRecord
from worker.core.order import Shown, Standing, assess, baseline, shown_of
from worker.core.record import known_digest, newest_event
from worker.model.account import Account
from worker.model.exchange import REASON_MAX
from worker.model.order import reference_of
from worker.model.provider import Addressee, Update


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


class Same(Struct, frozen=True):
    """The provider holds just this: acknowledged without a call."""

    digest: bytes
    shown: Shown | None = None


class ParkIt(Struct, frozen=True):
    """It must not be sent as it is."""

    reason: str
    digest: bytes
    by_check: bool = True
    """By a check of ours; otherwise the provider has refused this payload."""
    shown: Shown | None = None


class Wait(Struct, frozen=True):
    """Nothing can be sent until an event or an operator changes something."""

    state: Literal["unconfirmed", "refused", "on_hold", "inconsistent", "parked", "no_account"]
    reasons: list[str]
    contradicts: bool = False
    """Whether its facts contradict each other, also while the payment is on hold."""
    shown: Shown | None = None
    """`None`: it has no carts."""


Plan = Send | Same | ParkIt | Wait


def plan(record: OrderRecord, subject: str, addressee: Addressee) -> Plan:
    """What is to be done about an order that is owed, delays and holds apart."""
    reference = reference_of(subject)
    standing = assess(record.facts, reference)
    if standing.state != "ready":
        return wait_of(standing)
    order = standing.order
    assert order is not None  # ready means that there are carts
    shown = shown_of(order)
    update = addressee.provider.render(order, addressee.account)
    if not (record.doubt or record.uncertain) and update.digest == known_digest(record, order, reference, addressee):
        return Same(record.acked_digest, shown)  # empty stays empty: an older confirmation may come yet
    parked = record.park
    if parked is not None and parked.digest != update.digest:
        parked = None
    # A check is made anew: what the payload is measured against may be another one now.
    is_refused = parked is not None and not parked.by_check
    reason = parked.reason if parked is not None and is_refused else update.problem
    if reason is None:
        return Send(
            update,
            record.trace,
            record.generation,
            addressee.account,
            newest_event(record),
            record.remote,
            record.uncertain,
            record.doubt,
            shown,
        )
    if parked is not None and parked.revision == record.revision and parked.reason == reason[:REASON_MAX]:
        return Wait("parked", [reason], shown=shown)
    return ParkIt(reason, update.digest, not is_refused, shown)


def plan_unaddressed(record: OrderRecord, subject: str) -> Same | Wait:
    """What is to be done about an order whose account is not configured: as while an account is paused, and no
    adapter can tell more than whether it is still just as it was confirmed.
    """
    reference = reference_of(subject)
    standing = assess(record.facts, reference)
    if standing.state != "ready":
        return wait_of(standing)
    is_known = not (record.doubt or record.uncertain or record.acked_digest)
    order = standing.order
    assert order is not None  # ready means that there are carts
    if is_known and order.is_same(baseline(record.facts, reference)):
        return Same(b"", shown_of(order))
    return Wait("no_account", [], shown=shown_of(order))


def wait_of(standing: Standing) -> Wait:
    """What an order of this standing waits for, which is not ready."""
    assert standing.state != "ready"
    contradicts = standing.state != "unconfirmed" and bool(standing.reasons)
    return Wait(standing.state, standing.reasons, contradicts, shown_of(standing.order))
