"""The only code that changes facts: `reduce_sealed(facts, event, position)`, and `reduce` for who holds them open.

An order is a set of facts, each the last-writer-wins register of its kind and id, ordered by *stamp*
(sequence, time, position). So duplicates and disorder are harmless: whatever the order of arrival and the split into
batches, events of distinct stamps end in the same facts. What a provider says goes by time alone (`provider_facts`).
It is total, deterministic and pure; it returns the very facts it was given when the event was seen before, and new ones
otherwise. Source: `DOMAIN.md` section 4.

Facts come sealed from the record and go sealed into it. Each event opens the registers that it is about, and no other.
"""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schemas import events as e
from schemas.base import shallow_copy
from schemas.envelope import Data
from schemas.facts import (
    CANCELLATION,
    CONFIRMATION,
    CONTENT,
    DELIVERIES,
    DETAILS,
    FEES,
    FORMER_LINES,
    FORMER_WORTH,
    ITEM_CANCELLATIONS,
    NIL,
    OBSERVED,
    PAYMENT,
    PROVIDER,
    REFUNDS,
    RETURNS,
    SHIPMENTS,
    STATEMENT_RETRACTION,
    STATEMENTS,
    Cancellation,
    Confirmation,
    Content,
    Facts,
    Fee,
    FormerWorth,
    ItemCancellation,
    Line,
    Packed,
    Payment,
    Refund,
    Return,
    SealedFacts,
    Shipment,
    Stamp,
    Statement,
    UnitList,
    digest_of_details,
    is_nil,
    open_facts,
    pack,
    seal_facts,
    unpack_line_kinds,
    unpack_lines,
)
from worker.core import provider_facts

SEEN_MAX = 1_000
"""Events of one order that are remembered by id. An older one again is still harmless unless its stamp ties."""

STATEMENTS_MAX = 100
"""Statements of one order that are kept: the one that counts, and the newest of those that might after a retraction."""

_UID_BYTES = 8
_SEEN_BYTES_MAX = SEEN_MAX * _UID_BYTES

T = TypeVar("T")


def reduce(facts: Facts, event: e.OrderEvent, position: int) -> Facts:
    """As `reduce_sealed`, for facts that are open: as costly as to seal and to open all of them."""
    before = seal_facts(facts)
    after = reduce_sealed(before, event, position)
    return facts if after is before else open_facts(after)


def reduce_sealed(facts: SealedFacts, event: e.OrderEvent, position: int) -> SealedFacts:
    """The facts after `event`, which stands at `position` (the record's offset) in its partition."""
    seen, uid, data = facts.seen, event.uid, event.data
    # Before anything is copied: at least once in Kafka means that repeats are everyday.
    if uid in seen and _has_seen(seen, uid):
        return facts
    changed = shallow_copy(facts)
    changed.seen = (seen + uid)[-_SEEN_BYTES_MAX:]
    apply = _APPLY.get(type(data))
    if apply is None:  # a provider's event: which of them is newest goes by time, not by the shop's sequence
        changed.provider = PROVIDER.seal(provider_facts.take(PROVIDER.open(facts.provider), event, position))
    else:
        apply(changed, data, (event.sequence, event.time_us, position))
    return changed


def _has_seen(seen: bytes, uid: bytes) -> bool:
    """Whether the bytes, which are there, are one of the uids: a hit across two neighbours is none."""
    index = seen.find(uid)
    while index >= 0 and index % _UID_BYTES:
        index = seen.find(uid, index + 1)
    return index >= 0


def has_seen(seen: bytes, uid: bytes) -> bool:
    """Whether an event with this uid is among the last that were taken."""
    return uid in seen and _has_seen(seen, uid)


def with_seen(seen: bytes, uid: bytes) -> bytes:
    """The last events with one more that changes no fact: before the newest of those that did, which stays the last."""
    return (seen[:-_UID_BYTES] + uid + seen[-_UID_BYTES:])[-_SEEN_BYTES_MAX:]


PERSONAL = ("customer", "delivery_address", "invoice_address")
"""Members of the details that are about a person."""


def without_person(facts: SealedFacts, stamp: Stamp) -> tuple[SealedFacts, list[str]]:
    """The facts without personal details, as if the shop had removed them now, and which of them were there.

    However the shop numbers its events, what it told before stays removed when it comes late.
    """
    known = DETAILS.open(facts.details)
    there = [name for name in PERSONAL if name in known and not is_nil(known[name][1])]
    changed = shallow_copy(facts)
    newest = max([stamp, *(known[name][0] for name in there)])
    _set_details(changed, dict.fromkeys(PERSONAL, NIL), newest)
    return changed, there


def _or_none(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value


def _line(line: e.Line) -> Line:
    return Line(
        line.id,
        line.type,
        line.reference or None,
        line.name or None,
        line.quantity or 0,
        line.unit_price_minor or 0,
        line.total_minor,
        line.applies_to or None,
        line.downloadable,
        line.attributes or None,
        None if line.vat_rate_bp is UNSET else line.vat_rate_bp,
    )


def _units(units: list[e.Units]) -> UnitList:
    return [(unit.line_id, unit.quantity) for unit in units]


def _confirmed(facts: SealedFacts, data: e.ConfirmedData, stamp: Stamp) -> None:
    total = sum([line.total_minor for line in data.lines])
    kept = [_line(line) for line in data.lines]
    lines = pack(kept)
    details = {name: pack(value) for name in e.DETAILS if (value := getattr(data, name)) is not UNSET}
    is_newest = _set_content(facts, Content(stamp, None, data.currency, total, lines), kept)
    replaced = _set_details(facts, details, stamp)
    old = CONFIRMATION.open(facts.confirmation) if facts.confirmation else None
    # The oldest one counts: it is what the checkout told the provider. A later one is a change of content and details.
    if old is None or stamp < old.stamp:
        own = NIL if is_newest else lines
        digest = digest_of_details(details) if replaced else b""
        confirmation = Confirmation(stamp, data.currency, total, own, dict.fromkeys(replaced, NIL), digest)
        facts.confirmation = CONFIRMATION.seal(confirmation)
    if data.payment_state is not UNSET:
        _set_payment(facts, data.payment_state, stamp)


def _set_content(facts: SealedFacts, content: Content, lines: list[Line]) -> bool:
    """Whether it is the newest. `lines` are its own, not packed."""
    old = CONTENT.open(facts.content) if facts.content else None
    if old is None:
        facts.content, facts.content_total_max_minor = CONTENT.seal(content), content.total_minor
        return True
    # Also of a content that loses: it was chargeable for a while, so refunds may be of it.
    facts.content_total_max_minor = max(facts.content_total_max_minor, content.total_minor)
    is_newest = content.rank > old.rank
    loser = old if is_newest else content
    if is_newest:
        facts.content = CONTENT.seal(content)
    others = unpack_line_kinds(old.lines)
    newest, gone = (lines, others) if is_newest else (others, lines)
    now = {line.line_id for line in newest if line.type in e.PRICED}
    former = {line.line_id: line.type in e.GOODS for line in gone}
    # Most changes keep all lines: then nothing is gone, and the loser's lines need not be decoded in full.
    if facts.former_worth or not now.issuperset(former):
        _keep_worth(facts, loser, now)
    if facts.former_lines:
        for line_id, was_goods in FORMER_LINES.open(facts.former_lines).items():
            former[line_id] = was_goods or former.get(line_id, False)
    facts.former_lines = FORMER_LINES.seal(former)
    confirmation = CONFIRMATION.open(facts.confirmation)
    # The confirmation shares its lines with the content while it is the newest; now it needs a copy of its own.
    if confirmation is not None and is_nil(confirmation.lines) and confirmation.stamp == loser.stamp:
        facts.confirmation = CONFIRMATION.seal(replace(confirmation, lines=loser.lines))
    return is_newest


def _keep_worth(facts: SealedFacts, loser: Content, now: set[str]) -> None:
    """Of goods and charges that the newest content lacks, the total that they last had: a refund may be for them.

    An adjustment of the newest content that has the id of such a line takes nothing away: a newer content may lack it.
    """
    worth: dict[str, FormerWorth] = {
        line_id: known for line_id, known in FORMER_WORTH.open(facts.former_worth).items() if line_id not in now
    }
    for line in unpack_lines(loser.lines):
        if line.line_id not in now and line.type in e.PRICED:
            known = worth.get(line.line_id)
            if known is None or loser.rank > (known[0] is not None, known[0] or 0, known[1]):
                worth[line.line_id] = (loser.version, loser.stamp, line.total_minor)
    facts.former_worth = FORMER_WORTH.seal(worth)


def _set_details(facts: SealedFacts, members: dict[str, Packed], stamp: Stamp) -> list[str]:
    """Those of them that a newer event has set already."""
    known = DETAILS.open(facts.details) if facts.details else {}
    old = {name: known[name][0] for name in members if name in known}
    newer = [name for name, at in old.items() if at > stamp]
    if old and (confirmation := CONFIRMATION.open(facts.confirmation)) is not None:
        replaced = [name for name, at in old.items() if at == confirmation.stamp and at <= stamp]
        if replaced:
            facts.confirmation = CONFIRMATION.seal(_without(confirmation, replaced, known))
    for name, packed in members.items():
        if name not in newer:
            known[name] = (stamp, packed)
    facts.details = DETAILS.seal(known)
    return newer


def _without(confirmation: Confirmation, replaced: list[str], known: dict[str, tuple[Stamp, Packed]]) -> Confirmation:
    """The oldest confirmation, before details of it are gone: of what the provider knows a digest stays."""
    digest = confirmation.details_digest
    if not confirmation.details:
        digest = digest_of_details({name: packed for name, (at, packed) in known.items() if at == confirmation.stamp})
    return Confirmation(
        confirmation.stamp,
        confirmation.currency,
        confirmation.total_minor,
        confirmation.lines,
        confirmation.details | dict.fromkeys(replaced, NIL),
        digest,
    )


def _set_payment(facts: SealedFacts, state: e.PaymentState, stamp: Stamp) -> None:
    old = PAYMENT.open(facts.payment)
    if old is None or stamp > old.stamp:
        facts.payment = PAYMENT.seal(Payment(stamp, state))


def _payment_state_changed(facts: SealedFacts, data: e.PaymentStateChangedData, stamp: Stamp) -> None:
    _set_payment(facts, data.payment_state, stamp)


def _cart_updated(facts: SealedFacts, data: e.CartUpdatedData, stamp: Stamp) -> None:
    total = sum([line.total_minor for line in data.lines])
    lines = [_line(line) for line in data.lines]
    _set_content(facts, Content(stamp, _or_none(data.cart_version), data.currency, total, pack(lines)), lines)


def _items_shipped(facts: SealedFacts, data: e.ItemsShippedData, stamp: Stamp) -> None:
    tracking = pack(data.tracking) if data.tracking else NIL
    shipment = Shipment(stamp, _units(data.lines), _or_none(data.shipped_at), tracking)
    facts.shipments = SHIPMENTS.put(facts.shipments, data.shipment_id, shipment)


def _items_delivered(facts: SealedFacts, data: e.ItemsDeliveredData, stamp: Stamp) -> None:
    facts.deliveries = DELIVERIES.put(facts.deliveries, data.shipment_id, (stamp, data.delivered_at))


def _items_returned(facts: SealedFacts, data: e.ItemsReturnedData, stamp: Stamp) -> None:
    fact = Return(
        stamp,
        _units(data.lines),
        data.origin,
        _or_none(data.refund_handling_minor) or 0,
        _or_none(data.fee_minor) or 0,
        _or_none(data.refunded_minor),
        data.reason or None,
    )
    facts.returns = RETURNS.put(facts.returns, data.return_id, fact)


def _items_cancelled(facts: SealedFacts, data: e.ItemsCancelledData, stamp: Stamp) -> None:
    fact = ItemCancellation(stamp, _units(data.lines), _or_none(data.reason))
    facts.item_cancellations = ITEM_CANCELLATIONS.put(facts.item_cancellations, data.cancellation_id, fact)


def _refunded(facts: SealedFacts, data: e.RefundedData, stamp: Stamp) -> None:
    fact = Refund(stamp, data.amount_minor, _or_none(data.name), data.applies_to or None, data.reason or None)
    facts.refunds = REFUNDS.put(facts.refunds, data.refund_id, fact)


def _fee_charged(facts: SealedFacts, data: e.FeeChargedData, stamp: Stamp) -> None:
    facts.fees = FEES.put(facts.fees, data.fee_id, Fee(stamp, data.amount_minor, _or_none(data.name)))


def _cancelled(facts: SealedFacts, data: e.CancelledData, stamp: Stamp) -> None:
    _set_cancellation(facts, Cancellation(stamp, False, _or_none(data.reason), data.by))


def _set_cancellation(facts: SealedFacts, cancellation: Cancellation) -> None:
    old = CANCELLATION.open(facts.cancellation)
    if old is None or cancellation.stamp > old.stamp:
        facts.cancellation = CANCELLATION.seal(cancellation)


def _carts_stated(facts: SealedFacts, data: e.CartsStatedData, stamp: Stamp) -> None:
    statement = Statement(
        stamp,
        _or_none(data.cart_version),
        data.currency,
        pack([_line(line) for line in data.shipped]),
        pack([_line(line) for line in data.unshipped]),
        _or_none(data.reason),
    )
    _keep_statements(facts, [*STATEMENTS.open(facts.statements), statement])


def _keep_statements(facts: SealedFacts, statements: list[Statement]) -> None:
    """Keeps the statements that count now or would after some retraction.

    A retraction voids all statements up to its stamp, so one is out of the game for ever when another one outranks
    it and is newer: whatever voids the other voids it too.
    """
    retraction = STATEMENT_RETRACTION.open(facts.statement_retraction)
    kept: list[Statement] = []
    for statement in sorted(statements, key=lambda s: s.rank, reverse=True):
        if retraction is not None and statement.stamp < retraction:
            continue
        if not kept or statement.stamp > kept[-1].stamp:
            kept.append(statement)
    if len(kept) > STATEMENTS_MAX:  # the one that counts stays; of the others the newest are voided last
        kept = kept[:1] + kept[1 - STATEMENTS_MAX :]
    facts.statements = STATEMENTS.seal(kept)


def _details_changed(facts: SealedFacts, data: e.DetailsChangedData, stamp: Stamp) -> None:
    _set_details(facts, {name: pack(value) for name in e.DETAILS if (value := getattr(data, name)) is not UNSET}, stamp)


def _observed(facts: SealedFacts, data: e.ObservedData, stamp: Stamp) -> None:
    old = OBSERVED.open(facts.observed)
    if old is None or stamp > old[0]:
        facts.observed = OBSERVED.seal((stamp, pack(data)))


def _retracted(facts: SealedFacts, data: e.RetractedData, stamp: Stamp) -> None:
    for name, retract in _RETRACT.items():
        if (value := getattr(data, name)) is not UNSET:
            retract(facts, value, stamp)


def _retract_shipment(facts: SealedFacts, shipment_id: str, stamp: Stamp) -> None:
    facts.shipments = SHIPMENTS.put(facts.shipments, shipment_id, Shipment(stamp, None))


def _retract_return(facts: SealedFacts, return_id: str, stamp: Stamp) -> None:
    facts.returns = RETURNS.put(facts.returns, return_id, Return(stamp, None))


def _retract_item_cancellation(facts: SealedFacts, cancellation_id: str, stamp: Stamp) -> None:
    one = ItemCancellation(stamp, None)
    facts.item_cancellations = ITEM_CANCELLATIONS.put(facts.item_cancellations, cancellation_id, one)


def _retract_refund(facts: SealedFacts, refund_id: str, stamp: Stamp) -> None:
    facts.refunds = REFUNDS.put(facts.refunds, refund_id, Refund(stamp, 0))


def _retract_fee(facts: SealedFacts, fee_id: str, stamp: Stamp) -> None:
    facts.fees = FEES.put(facts.fees, fee_id, Fee(stamp, 0))


def _retract_cancellation(facts: SealedFacts, _true: bool, stamp: Stamp) -> None:
    _set_cancellation(facts, Cancellation(stamp, retracted=True))


def _retract_statements(facts: SealedFacts, _true: bool, stamp: Stamp) -> None:
    old = STATEMENT_RETRACTION.open(facts.statement_retraction)
    if old is None or stamp > old:
        facts.statement_retraction = STATEMENT_RETRACTION.seal(stamp)
        _keep_statements(facts, STATEMENTS.open(facts.statements))


_RETRACT: dict[str, Callable[[SealedFacts, Any, Stamp], None]] = {
    "shipment_id": _retract_shipment,
    "return_id": _retract_return,
    "cancellation_id": _retract_item_cancellation,
    "refund_id": _retract_refund,
    "fee_id": _retract_fee,
    "cancelled": _retract_cancellation,
    "stated": _retract_statements,
}
"""By the member that names what did not happen; an event has one."""
assert tuple(_RETRACT) == e.RetractedData.__struct_fields__, "each member retracts something"

_APPLY: dict[type[Data], Callable[[SealedFacts, Any, Stamp], None]] = {
    e.ConfirmedData: _confirmed,
    e.PaymentStateChangedData: _payment_state_changed,
    e.CartUpdatedData: _cart_updated,
    e.ItemsShippedData: _items_shipped,
    e.ItemsDeliveredData: _items_delivered,
    e.ItemsReturnedData: _items_returned,
    e.ItemsCancelledData: _items_cancelled,
    e.RefundedData: _refunded,
    e.FeeChargedData: _fee_charged,
    e.CancelledData: _cancelled,
    e.CartsStatedData: _carts_stated,
    e.DetailsChangedData: _details_changed,
    e.RetractedData: _retracted,
    e.ObservedData: _observed,
}
"""One for each type of `order.*`; `provider_facts.KINDS` has those of `provider.*`."""
assert _APPLY.keys() == {event.__annotations__["data"] for event in get_args(e.ShopEvent)}, "each type changes facts"
