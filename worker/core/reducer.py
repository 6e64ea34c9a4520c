"""The only code that changes facts: `reduce(facts, event, position)`.

An order is a set of facts, each the last-writer-wins register of its kind and id, ordered by *stamp*
(sequence, time, position). So duplicates and disorder are harmless: whatever the order of arrival and the split into
batches, events of distinct stamps end in the same facts. What a provider says goes by time alone (`provider_facts`).
`reduce` is total, deterministic and pure; it returns the very facts it was given when the event was seen before, and
new ones otherwise. Source: `DOMAIN.md` section 4.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schemas import events as e
from schemas.base import shallow_copy
from schemas.envelope import Data
from schemas.facts import (
    NIL,
    Cancellation,
    Confirmation,
    Content,
    Facts,
    Fee,
    ItemCancellation,
    Line,
    Packed,
    Payment,
    Refund,
    Return,
    Shipment,
    Stamp,
    Statement,
    UnitList,
    is_nil,
    pack,
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
Stamped = TypeVar("Stamped", Shipment, Return, ItemCancellation, Refund, Fee)


def reduce(facts: Facts, event: e.OrderEvent, position: int) -> Facts:
    """The facts after `event`, which stands at `position` (the record's offset) in its partition."""
    seen, uid, data = facts.seen, event.uid, event.data
    if uid in seen and _has_seen(seen, uid):
        return facts
    changed = shallow_copy(facts)
    changed.seen = (seen + uid)[-_SEEN_BYTES_MAX:]
    apply = _APPLY.get(type(data))
    if apply is None:
        changed.provider = provider_facts.take(facts.provider, event, position)
        return changed
    apply(changed, data, (event.sequence, event.time_us, position))
    confirmation = changed.confirmation
    if confirmation is not None and confirmation.details and confirmation.holds_replaced:
        changed.confirmation = replace(confirmation, details=dict.fromkeys(confirmation.details, NIL))
    return changed


def _has_seen(seen: bytes, uid: bytes) -> bool:
    """Whether the bytes, which are there, are one of the uids: a hit across two neighbours is none."""
    index = seen.find(uid)
    while index >= 0 and index % _UID_BYTES:
        index = seen.find(uid, index + 1)
    return index >= 0


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
        _or_none(line.vat_rate_bp),
    )


def _units(units: list[e.Units]) -> UnitList:
    return [(unit.line_id, unit.quantity) for unit in units]


def _put(known: dict[str, Stamped], key: str, fact: Stamped) -> dict[str, Stamped]:
    """`known` with `fact` under `key`, unless a newer one stands there. Never changes `known` itself."""
    old = known.get(key)
    return known if old is not None and old.stamp > fact.stamp else {**known, key: fact}


def _confirmed(facts: Facts, data: e.ConfirmedData, stamp: Stamp) -> None:
    total = sum([line.total_minor for line in data.lines])
    kept = [_line(line) for line in data.lines]
    lines = pack(kept)
    details = {name: pack(value) for name in e.DETAILS if (value := getattr(data, name)) is not UNSET}
    _set_content(facts, Content(stamp, None, data.currency, total, lines), kept)
    if facts.details:
        for name, packed in details.items():
            _set_detail(facts, name, stamp, packed)
    else:
        facts.details = {name: (stamp, packed) for name, packed in details.items()}
    if facts.confirmation is None or stamp < facts.confirmation.stamp:
        facts.confirmation = Confirmation(
            stamp,
            data.currency,
            total,
            NIL if facts.content is not None and facts.content.stamp == stamp else lines,
            {name: NIL for name in details if facts.details[name][0] != stamp},
        )
    if data.payment_state is not UNSET:
        _set_payment(facts, data.payment_state, stamp)


def _set_content(facts: Facts, content: Content, lines: list[Line]) -> None:
    """`lines` are the content's own, not packed."""
    old = facts.content
    if old is None:
        facts.content, facts.content_total_max_minor = content, content.total_minor
        return
    facts.content_total_max_minor = max(facts.content_total_max_minor, content.total_minor)
    is_newer = content.rank > old.rank
    winner, loser = (content, old) if is_newer else (old, content)
    facts.content = winner
    now = {line.line_id for line in (lines if is_newer else unpack_line_kinds(winner.lines)) if line.type in e.PRICED}
    former = dict(facts.former_lines)
    is_any_lost = False
    for line in unpack_line_kinds(loser.lines) if is_newer else lines:
        line_id = line.line_id
        former[line_id] = former.get(line_id, False) or line.type in e.GOODS
        if line_id not in now:
            is_any_lost = True
    facts.former_lines = former
    if is_any_lost or facts.former_worth:
        _keep_worth(facts, loser, now)
    confirmation = facts.confirmation
    if confirmation is not None and is_nil(confirmation.lines) and confirmation.stamp == loser.stamp:
        facts.confirmation = replace(confirmation, lines=loser.lines)


def _keep_worth(facts: Facts, loser: Content, now: set[str]) -> None:
    """Of goods and charges that the newest content lacks, the total that they last had: a refund may be for them.

    An adjustment of the newest content that has the id of such a line takes nothing away: a newer content may lack it.
    """
    worth = {line_id: known for line_id, known in facts.former_worth.items() if line_id not in now}
    for line in unpack_lines(loser.lines):
        if line.line_id not in now and line.type in e.PRICED:
            known = worth.get(line.line_id)
            if known is None or loser.rank > (known[0] is not None, known[0] or 0, known[1]):
                worth[line.line_id] = (loser.version, loser.stamp, line.total_minor)
    facts.former_worth = worth


def _set_detail(facts: Facts, name: str, stamp: Stamp, packed: Packed) -> None:
    old = facts.details.get(name)
    if old is not None and old[0] > stamp:
        return
    facts.details = {**facts.details, name: (stamp, packed)}
    confirmation = facts.confirmation
    if old is not None and confirmation is not None and old[0] == confirmation.stamp:
        facts.confirmation = replace(confirmation, details={**confirmation.details, name: NIL})


def _set_payment(facts: Facts, state: e.PaymentState, stamp: Stamp) -> None:
    if facts.payment is None or stamp > facts.payment.stamp:
        facts.payment = Payment(stamp, state)


def _payment_state_changed(facts: Facts, data: e.PaymentStateChangedData, stamp: Stamp) -> None:
    _set_payment(facts, data.payment_state, stamp)


def _cart_updated(facts: Facts, data: e.CartUpdatedData, stamp: Stamp) -> None:
    total = sum([line.total_minor for line in data.lines])
    lines = [_line(line) for line in data.lines]
    content = Content(stamp, _or_none(data.cart_version), data.currency, total, pack(lines))
    _set_content(facts, content, lines)


def _items_shipped(facts: Facts, data: e.ItemsShippedData, stamp: Stamp) -> None:
    tracking = pack(data.tracking) if data.tracking else NIL
    shipment = Shipment(stamp, _units(data.lines), _or_none(data.shipped_at), tracking)
    facts.shipments = _put(facts.shipments, data.shipment_id, shipment)


def _items_delivered(facts: Facts, data: e.ItemsDeliveredData, stamp: Stamp) -> None:
    old = facts.deliveries.get(data.shipment_id)
    if old is None or stamp > old[0]:
        facts.deliveries = {**facts.deliveries, data.shipment_id: (stamp, data.delivered_at)}


def _items_returned(facts: Facts, data: e.ItemsReturnedData, stamp: Stamp) -> None:
    fact = Return(
        stamp,
        _units(data.lines),
        data.origin,
        _or_none(data.refund_handling_minor) or 0,
        _or_none(data.fee_minor) or 0,
        _or_none(data.refunded_minor),
        data.reason or None,
    )
    facts.returns = _put(facts.returns, data.return_id, fact)


def _items_cancelled(facts: Facts, data: e.ItemsCancelledData, stamp: Stamp) -> None:
    fact = ItemCancellation(stamp, _units(data.lines), _or_none(data.reason))
    facts.item_cancellations = _put(facts.item_cancellations, data.cancellation_id, fact)


def _refunded(facts: Facts, data: e.RefundedData, stamp: Stamp) -> None:
    fact = Refund(stamp, data.amount_minor, _or_none(data.name), data.applies_to or None, data.reason or None)
    facts.refunds = _put(facts.refunds, data.refund_id, fact)


def _fee_charged(facts: Facts, data: e.FeeChargedData, stamp: Stamp) -> None:
    facts.fees = _put(facts.fees, data.fee_id, Fee(stamp, data.amount_minor, _or_none(data.name)))


def _cancelled(facts: Facts, data: e.CancelledData, stamp: Stamp) -> None:
    _set_cancellation(facts, Cancellation(stamp, False, _or_none(data.reason), data.by))


def _set_cancellation(facts: Facts, cancellation: Cancellation) -> None:
    if facts.cancellation is None or cancellation.stamp > facts.cancellation.stamp:
        facts.cancellation = cancellation


def _carts_stated(facts: Facts, data: e.CartsStatedData, stamp: Stamp) -> None:
    statement = Statement(
        stamp,
        _or_none(data.cart_version),
        data.currency,
        pack([_line(line) for line in data.shipped]),
        pack([_line(line) for line in data.unshipped]),
        _or_none(data.reason),
    )
    _keep_statements(facts, [*facts.statements, statement])


def _keep_statements(facts: Facts, statements: list[Statement]) -> None:
    """Keeps the statements that count now or would after some retraction.

    A retraction voids all statements up to its stamp, so one is out of the game for ever when another one outranks
    it and is newer: whatever voids the other voids it too.
    """
    retraction = facts.statement_retraction
    kept: list[Statement] = []
    for statement in sorted(statements, key=lambda s: s.rank, reverse=True):
        if retraction is not None and statement.stamp < retraction:
            continue
        if not kept or statement.stamp > kept[-1].stamp:
            kept.append(statement)
    if len(kept) > STATEMENTS_MAX:
        kept = kept[:1] + kept[1 - STATEMENTS_MAX :]
    facts.statements = kept


def _details_changed(facts: Facts, data: e.DetailsChangedData, stamp: Stamp) -> None:
    for name in e.DETAILS:
        value = getattr(data, name)
        if value is not UNSET:
            _set_detail(facts, name, stamp, NIL if value is None else pack(value))


def _observed(facts: Facts, data: e.ObservedData, stamp: Stamp) -> None:
    if facts.observed is None or stamp > facts.observed[0]:
        facts.observed = (stamp, pack(data))


def _retracted(facts: Facts, data: e.RetractedData, stamp: Stamp) -> None:
    if data.shipment_id is not UNSET:
        facts.shipments = _put(facts.shipments, data.shipment_id, Shipment(stamp, None))
    elif data.return_id is not UNSET:
        facts.returns = _put(facts.returns, data.return_id, Return(stamp, None))
    elif data.cancellation_id is not UNSET:
        cancellations = _put(facts.item_cancellations, data.cancellation_id, ItemCancellation(stamp, None))
        facts.item_cancellations = cancellations
    elif data.refund_id is not UNSET:
        facts.refunds = _put(facts.refunds, data.refund_id, Refund(stamp, 0))
    elif data.fee_id is not UNSET:
        facts.fees = _put(facts.fees, data.fee_id, Fee(stamp, 0))
    elif data.cancelled is not UNSET:
        _set_cancellation(facts, Cancellation(stamp, retracted=True))
    elif facts.statement_retraction is None or stamp > facts.statement_retraction:
        facts.statement_retraction = stamp
        _keep_statements(facts, facts.statements)


class _Rule(NamedTuple):
    """How an event of one type is reduced."""

    apply: Callable[[Facts, Any, Stamp], None]
    reads: tuple[str, ...] = ()
    """The members of the facts that this takes, besides `READS_ALWAYS`."""


_RULES: dict[type[Data], _Rule] = {
    e.ConfirmedData: _Rule(_confirmed, ("content", "former_lines", "former_worth", "details", "provider")),
    e.PaymentStateChangedData: _Rule(_payment_state_changed, ("provider",)),
    e.CartUpdatedData: _Rule(_cart_updated, ("content", "former_lines", "former_worth")),
    e.ItemsShippedData: _Rule(_items_shipped, ("shipments",)),
    e.ItemsDeliveredData: _Rule(_items_delivered, ("deliveries",)),
    e.ItemsReturnedData: _Rule(_items_returned, ("returns",)),
    e.ItemsCancelledData: _Rule(_items_cancelled, ("item_cancellations",)),
    e.RefundedData: _Rule(_refunded, ("refunds",)),
    e.FeeChargedData: _Rule(_fee_charged, ("fees",)),
    e.CancelledData: _Rule(_cancelled),
    e.CartsStatedData: _Rule(_carts_stated, ("statements",)),
    e.DetailsChangedData: _Rule(_details_changed, ("details", "provider")),
    e.RetractedData: _Rule(_retracted, ("shipments", "returns", "item_cancellations", "refunds", "fees", "statements")),
    e.ObservedData: _Rule(_observed, ("observed",)),
}
"""One for each type of `order.*`; `provider_facts.KINDS` has those of `provider.*`."""

_APPLY = {kind: rule.apply for kind, rule in _RULES.items()}

READS = {kind: rule.reads for kind, rule in _RULES.items()}
"""The members of the facts that an event of the shop's is taken with, besides `READS_ALWAYS`."""

READS_ALWAYS = ("seen", "confirmation", "payment", "content_total_max_minor", "cancellation", "statement_retraction")
"""For every kind of event. The last three are mostly nothing, or a number: cheaper to read than to leave out."""
