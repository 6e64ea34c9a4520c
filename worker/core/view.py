"""An order as people see it: its status, its carts, and what stands in its way. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict, assert_never

from msgspec import Struct, msgpack

from schemas.base import time_text
from schemas.facts import Moment, ProviderFacts
from schemas.state import OrderRecord
from schemas.views import STATUS_RULES, ItemView, NotReady, OrderView, Paid, ProviderView, Said, Status
from worker.core.order import Assessment, Standing, assess, summarize
from worker.core.policy import DeliveryPolicy
from worker.core.retry import awaits_change
from worker.core.status import status
from worker.model.order import Cart, account_of, reference_of

WAITS_FOR_OWNER = "it waits for the worker that serves its partition"
"""Why an order that is owed is not sent, as far as those know who only read the state topic."""


class Outlook(Struct, frozen=True):
    """What the owner of an order's partition knows about when it is sent. Times are those of that owner's clock."""

    waiting: str = ""
    """Why nothing can be sent; empty: it can."""
    is_overdue: bool = False
    """It has waited for too long."""
    hold_until: float = 0.0
    not_before: float = 0.0
    """When its delay and its hold are over."""
    in_flight: bool = False


def view_order(
    subject: str,
    record: OrderRecord,
    *,
    partition: int,
    rules: DeliveryPolicy,
    now_ms: int,
    now: float = 0.0,
    outlook: Outlook | None = None,
    paused: str | None = None,
    waits: str = "",
    idle: str = WAITS_FOR_OWNER,
    also_in: Sequence[int] = (),
    is_configured: bool = True,
    known: dict[str, Any] | None = None,
) -> OrderView:
    """The view of a committed record.

    `outlook`: what its owner knows about when it is sent, at `now` on that owner's monotonic clock. `paused`: why its
    account sends nothing until somebody acts. `waits`: why it sends nothing now. `idle`: why an order that is owed and
    has no outlook is not sent. `also_in`: other partitions that hold the order, too. `is_configured`:
    whether its account is. `known`: what its adapter says of the provider's side.
    """
    facts = record.facts
    assessment = assess(facts, reference_of(subject))
    is_overdue = outlook is not None and outlook.is_overdue
    held_as = status(record, assessment, now_ms=now_ms, rules=rules, is_overdue=is_overdue)
    order = assessment.order
    reason = _reason(record, assessment, held_as, outlook, now, paused, waits, idle)
    if not is_configured and reason != (missing := not_configured(account_of(subject))):
        reason = f"{missing}; {reason}" if reason else missing
    return OrderView(
        subject=subject,
        status=held_as,
        reason=reason,
        currency=None if order is None else order.currency,
        shipped_minor=None if order is None else order.shipped.total_minor,
        unshipped_minor=None if order is None else order.unshipped.total_minor,
        shipped=None if order is None else _items(order.shipped),
        unshipped=None if order is None else _items(order.unshipped),
        revision=record.revision,
        acked=record.acked,
        next_attempt_s=None
        if outlook is None or outlook.waiting or paused is not None or awaits_change(record)
        else max(0.0, outlook.not_before - now),
        in_flight=outlook is not None and outlook.in_flight,
        partition=partition,
        notes=list(_notes(record, partition, also_in)),
        provider=view_provider(facts.provider, known),
        **_paid(facts.provider, None if order is None else order.shipped.total_minor),
    )


class Brief(Struct, frozen=True, gc=False):
    """What a list shows of an order."""

    status: Status
    reason: str
    """As in `OrderView`, without what only its owner knows. May hold a provider's words."""
    currency: str | None
    shipped_minor: int | None
    unshipped_minor: int | None
    paid_minor: int | None
    paid: Paid | None


def brief_view(record: OrderRecord, *, rules: DeliveryPolicy, now_ms: int) -> Brief:
    """What a list shows of a committed record, for a fifth of the work of `view_order`."""
    summary, provider = summarize(record)
    held_as = status(record, summary, now_ms=now_ms, rules=rules)
    has_carts = summary.currency is not None
    shipped_minor = summary.shipped_minor if has_carts else None
    paid = _paid(provider, shipped_minor)
    return Brief(
        held_as,
        _standing_reason(record, summary, held_as) or ("" if held_as == "settled" else record.reason),
        summary.currency,
        shipped_minor,
        summary.unshipped_minor if has_carts else None,
        paid.get("paid_minor"),
        paid.get("paid"),
    )


def not_configured(account: str) -> str:
    """Why nobody is told of its orders."""
    return f"account {account} is not configured"


def _notes(record: OrderRecord, partition: int, also_in: Sequence[int]) -> Iterator[str]:
    if record.closed_day:
        day = time_text(record.closed_day * _DAY_US)[:10]
        yield f"it was closed on {day} and its record removed: what was known of it before is gone"
    if record.erased is not None:
        day = time_text(record.erased.at_ms * 1000)[:10]
        yield f"its personal details were erased on {day}; its record is removed once nothing is owed"
    for deed in record.operated:
        at, why = time_text(deed.at_ms // 1000 * 1_000_000), f" ({deed.why})" if deed.why else ""
        yield f"{at} {deed.by}: {deed.command}{why}: {deed.words}"
    made_at = record.made_at
    if made_at is not None and made_at.revision == record.acked == record.revision:
        yield f"not sent: the change was made at {made_at.provider}"
    if also_in:
        held = " and ".join(map(str, sorted([partition, *also_in])))
        yield f"partitions {held} hold this order, each a part of its events: producers differ in key or partitioner"
    elif record.has_several_keys:
        yield "its events came under several record keys: some may lie in other partitions, as an order of their own"


_DAY_US = 86_400_000_000
_ONLY_AN_EVENT = "inconsistent for too long: only an event can resolve it, no release"


def why_not_ready(state: NotReady, reasons: list[str], held_as: Status) -> str:
    """What stands in the way of an order in this assessment, and which contradictions; never empty."""
    rules = STATUS_RULES[state]
    said = [rules.meaning] if rules.is_of_payment or not reasons else []
    only = [_ONLY_AN_EVENT] if held_as == "parked" else []
    return "; ".join(said + reasons + only)


def _reason(
    record: OrderRecord,
    assessment: Assessment,
    held_as: Status,
    outlook: Outlook | None,
    now: float,
    paused: str | None,
    waits: str,
    idle: str,
) -> str:
    if held_as != "owed":
        return _standing_reason(record, assessment, held_as)
    if paused is not None:
        return paused
    if outlook is None:
        return f"{idle}; the last attempt: {record.reason}" if record.reason else idle
    if outlook.in_flight:
        return "an attempt is under way"
    if outlook.hold_until > now:
        last = f" ({record.reason})" if record.reason else ""
        return f"held for {outlook.hold_until - now:.0f} s more: the last request may still land{last}"
    if awaits_change(record):
        return record.reason
    if outlook.not_before > now:
        return f"next attempt in {outlook.not_before - now:.1f} s; the last one: {record.reason}"
    return waits or record.reason or "waiting for its turn"


def _standing_reason(record: OrderRecord, assessment: Standing, held_as: Status) -> str:
    """Why an order is not even owed; empty: it is, or nothing stands in its way."""
    if held_as != "settled" and assessment.state != "ready":
        return why_not_ready(assessment.state, assessment.reasons, held_as)
    match held_as:
        case "parked":
            return "" if record.park is None else record.park.reason
        case "settled" | "owed" | "unconfirmed" | "inconsistent" | "on_hold" | "refused":
            return ""
        case unknown:  # a status that follows from the record says here why
            assert_never(unknown)


def view_provider(facts: ProviderFacts | None, known: dict[str, Any] | None = None) -> ProviderView | None:
    """What it said, without what would only repeat the order's id, and what its adapter knows of its side; `None`:
    nothing yet.
    """
    if facts is None:
        return ProviderView(known=known) if known else None
    shown = {name: _said(moment, msgpack.decode(packed)) for name, (moment, packed) in facts.said.items()}
    if (payment := facts.payment) is not None:
        shown["payment_state"] = _said(payment[0], {"state": payment[1]})
    if facts.disbursed:
        _, newest = max(facts.disbursed.items(), key=lambda named: (named[1].issued_on, named[0]))
        line: Said = {"issued_on": newest.issued_on, "amount_minor": newest.amount_minor}
        if newest.maximum_minor is not None:
            line["maximum_minor"] = newest.maximum_minor
        shown["disbursed"] = line | {"lines": len(facts.disbursed)}
    return ProviderView(None if facts.order is None else facts.order[1], known=known or None, **shown)


def _said(moment: Moment, data: Said) -> Said:
    data.pop("provider_order", None)
    return {"at": time_text(moment[0]), **data}


class _Paid(TypedDict, total=False):
    paid_minor: int
    paid: Paid


def _paid(facts: ProviderFacts | None, shipped_minor: int | None) -> _Paid:
    """What the provider has paid out, beside the shipped cart if that is known."""
    paid_minor = 0 if facts is None else facts.paid_minor
    if not (paid_minor or shipped_minor):
        return {}
    if shipped_minor is None:
        return {"paid_minor": paid_minor}
    if paid_minor == shipped_minor:
        return {"paid_minor": paid_minor, "paid": "paid"}
    if paid_minor > shipped_minor:
        return {"paid_minor": paid_minor, "paid": "overpaid"}
    return {"paid_minor": paid_minor, "paid": "part_paid" if paid_minor else "unpaid"}


def _items(cart: Cart) -> list[ItemView]:
    return [ItemView(item.type, item.reference, item.name, item.quantity, item.total_minor) for item in cart.items]
