"""What other systems are told of an order, and when it is news. Pure.

What was told last stands in the order's record (`told`), so a result is written in the transaction that makes it true,
and never twice. It is found out where the status is known anyway: when the order is looked at, when an attempt has
ended, when somebody acts on it; to find it out for every event would cost as much again as to take the event.
"""

from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from schemas.base import time_text
from schemas.events import OrderEvent
from schemas.facts import PROVIDER, ProviderFacts, pack
from schemas.results import CUT, Operated, OperatedData, OrderChanged, OrderChangedData, ProviderFact
from schemas.state import Operated as Deed
from schemas.state import OrderRecord, Told
from schemas.views import ProviderView, Status
from worker.core.order import Shown, assess, shown_of
from worker.core.plan import Wait
from worker.core.policy import DeliveryPolicy
from worker.core.provider_facts import TYPES, as_kept, as_shared, view_without_words
from worker.core.status import ready_status, status
from worker.core.view import not_configured, view_provider, why_not_ready
from worker.model.exchange import REASON_MAX
from worker.model.order import account_of, reference_of
from worker.model.provider import Destination

LEAN_BYTES = 2048
"""Of a result when Kafka has refused larger ones, whatever its topic's settings say."""
_TRACE_MAX = 55
"""Of version 00; what a later one may append has no bound."""


class Reporting(Struct, frozen=True):
    """How results are told."""

    source: str
    with_reasons: bool = False
    """Whether the provider's words are repeated: they may be personal."""


class Found(Struct, frozen=True):
    """How an order stands."""

    status: Status
    shown: Shown | None
    """`None`: its carts cannot be told."""
    provider: ProviderFacts | None = None
    reason: str = ""
    unsupported: bool = False
    known: dict[str, Any] | None = None
    """What its adapter knows of the order there."""


def source_of(group_id: str) -> str:
    """The `source` of a deployment's results."""
    return f"/cartsync/{quote(group_id, safe='')}"


# --- how an order stands ---------------------------------------------------------------------------------------------


def find(
    record: OrderRecord, subject: str, destination: Destination | None, *, now_ms: int, rules: DeliveryPolicy
) -> Found:
    """By its facts: dear."""
    facts = record.facts
    assessment = assess(facts, reference_of(subject))
    shown = shown_of(assessment.order)
    if assessment.state == "ready":
        return find_ready(record, shown, destination)
    held_as = status(record, assessment, now_ms=now_ms, rules=rules)
    reason = why_not_ready(assessment.state, assessment.reasons, held_as)
    return Found(held_as, shown, facts.provider, reason, known=_known(record, destination))


def find_ready(record: OrderRecord, shown: Shown | None, destination: Destination | None) -> Found:
    """One that is known to be ready."""
    held_as, known = ready_status(record), _known(record, destination)
    provider = None if shown is None else shown.provider
    if held_as == "parked":
        assert record.park is not None  # says `ready_status`
        return Found(held_as, shown, provider, record.park.reason, record.park.unsupported, known)
    return Found(held_as, shown, provider, "" if held_as == "settled" else record.reason, known=known)


def find_waiting(
    record: OrderRecord, subject: str, plan: Wait, destination: Destination | None, *, is_overdue: bool
) -> Found:
    """One that was looked at, and waits. `is_overdue`: for too long."""
    if plan.state == "parked":
        return find_ready(record, plan.shown, destination)
    provider = PROVIDER.open(record.sealed.provider)
    if plan.state == "no_account":
        return Found(ready_status(record), plan.shown, provider, not_configured(account_of(subject)))
    held_as: Status = "parked" if is_overdue and plan.state == "inconsistent" else plan.state
    reason = why_not_ready(plan.state, plan.reasons, held_as)
    return Found(held_as, plan.shown, provider, reason, known=_known(record, destination))


def _known(record: OrderRecord, destination: Destination | None) -> dict[str, Any] | None:
    """`None`: nothing, or there is no adapter."""
    return destination.provider.describe(record.remote) if record.remote and destination is not None else None


# --- what is news ----------------------------------------------------------------------------------------------------


def is_news(record: OrderRecord, found: Found, reporting: Reporting) -> bool:
    """Whether something else was told of the order last, or nothing yet."""
    return _differs(record, found) or (record.told is not None and record.told.rest != _rest(found, reporting))


def _differs(record: OrderRecord, found: Found) -> bool:
    """As far as it is seen at a glance."""
    told = record.told
    return told is None or told.status != found.status or told.acked != record.acked


def _rest(found: Found, reporting: Reporting) -> int:
    """Of what else is news. While an order is owed every attempt may give another reason: that is none."""
    reason = found.reason if reporting.with_reasons and found.status != "owed" else ""
    provider = _provider(found, reporting)
    if not reason and provider is UNSET:
        return 0
    checksum = blake2b(reason.encode(errors="replace"), digest_size=7)
    if provider is not UNSET:
        checksum.update(pack(provider))
    return int.from_bytes(checksum.digest())


def pass_over(before: OrderRecord, after: OrderRecord) -> None:
    """Takes a revision that says nothing about the order for told, if the one before it was. Changes `after` itself."""
    told = before.told
    if told is not None and told.acked == before.acked:
        after.told = replace(told, acked=after.acked)


def tell(
    record: OrderRecord, subject: str, found: Found, reporting: Reporting, *, time: str, max_bytes: int
) -> bytes | None:
    """The result, which the record then says was told; `None`: it is no news. Changes `record` itself.

    What is larger than `max_bytes` is told without its reason; that may be larger still.
    """
    told, rest = record.told, _rest(found, reporting)
    if told is not None and told.rest == rest and not _differs(record, found):
        return None
    record.told = Told(found.status, record.acked, 1 if told is None else told.count + 1, rest)
    reason = _cut(found.reason) if reporting.with_reasons else UNSET
    value = _encode(_order_changed(record, subject, found, reporting, time, reason))
    if len(value) > max_bytes and reason:
        value = _encode(_order_changed(record, subject, found, reporting, time, CUT))
    return value


_encode = msgspec.json.Encoder().encode


def _order_changed(
    record: OrderRecord,
    subject: str,
    found: Found,
    reporting: Reporting,
    time: str,
    reason: str | UnsetType,
) -> OrderChanged:
    assert record.told is not None  # set above
    shown, count = found.shown, record.told.count
    return OrderChanged(
        specversion="1.0",
        id=f"{subject}:{record.revision}:{found.status}:{count}",
        source=reporting.source,
        time=time,
        subject=subject,
        sequence=str(count),
        traceparent=_trace(record.trace),
        data=OrderChangedData(
            status=found.status,
            revision=record.revision,
            acked=record.acked,
            unsupported=found.unsupported,
            currency=None if shown is None else shown.currency,
            shipped_minor=None if shown is None else shown.shipped_minor,
            unshipped_minor=None if shown is None else shown.unshipped_minor,
            paid_minor=found.provider.paid_minor if found.provider is not None and found.provider.disbursed else UNSET,
            provider=_provider(found, reporting),
            reason=reason,
        ),
    )


def _trace(trace: str | None) -> str | UnsetType:
    return trace if trace is not None and len(trace) <= _TRACE_MAX else UNSET


def _cut(reason: str) -> str:
    return reason if len(reason) <= REASON_MAX else reason[: REASON_MAX - len(CUT)] + CUT


# --- what operators do -----------------------------------------------------------------------------------------------


def tell_operated(
    event: OrderEvent,
    deed: Deed,
    reporting: Reporting,
    *,
    partition: int,
    position: int,
    time: str,
    event_id: str,
    record: OrderRecord | None = None,
    status: Status | None = None,
) -> bytes:
    """The result of an operator's event. `record`: the order's, after it; `None`: it is not known, or it is an account.
    `status`: the order's. `position`: of the event's record, as a revision has it.
    """
    result = Operated(
        specversion="1.0",
        id=f"{event.subject}:{position}:operated:{partition}",
        source=reporting.source,
        time=time,
        subject=event.subject,
        traceparent=_trace(event.traceparent),
        data=OperatedData(
            command=deed.command,
            by=deed.by,
            why=deed.why or UNSET,
            done=deed.done,
            outcome=deed.words,
            event_id=event_id,
            partition=partition,
            status=UNSET if status is None else status,
            revision=UNSET if record is None else record.revision,
            acked=UNSET if record is None else record.acked,
        ),
    )
    return _encode(result)


# --- what a provider says --------------------------------------------------------------------------------------------


def tell_fact(event: OrderEvent, revision: int, reporting: Reporting, *, max_bytes: int) -> bytes | None:
    """What a provider has said, as others may have it; `None`: it did not say it, or it is personal. The same twice is
    taken once, so this is, too. What is larger than `max_bytes` is told without its words; that may be larger still.
    """
    kind = TYPES.get(type(event.data))
    if kind is None:
        return None
    kept = as_kept(event.data)
    data = kept if reporting.with_reasons else as_shared(kept)
    if data is None:
        return None
    fact = ProviderFact(
        specversion="1.0",
        id=f"{event.subject}:{revision}:{kind}",
        source=reporting.source,
        type=kind,
        time=time_text(event.time_us),
        subject=event.subject,
        traceparent=_trace(event.traceparent),
        data=data,
    )
    value = _encode(fact)
    if len(value) > max_bytes and (lean := as_shared(data)) is not None:
        value = _encode(replace(fact, data=lean))
    return value


def _provider(found: Found, reporting: Reporting) -> ProviderView | UnsetType:
    view = view_provider(found.provider, found.known)
    if view is None:
        return UNSET
    return view if reporting.with_reasons else view_without_words(view)
