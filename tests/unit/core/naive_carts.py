"""A second model of an order, written from `domain.md` sections 4 and 5 alone: slow, plain, in fractions.

It shares no code with `worker.core`. It sorts the whole log by stamp and lets the newest of each kind win, and it
computes every share from a `Fraction`. Where it and the core disagree, one of them has read the text wrongly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Any

from msgspec import UNSET

from schemas import events as e

GOODS = ("product", "service", "subscriber_fee")
CHARGES = ("handling", "invoice_fee")
SPREAD = ("discount", "other_payment", "registration")
REDUCTIONS = ("discount", "other_payment")

Stamp = tuple[int, int, int]
NaiveItem = tuple[str, str | None, str | None, int, int]
"""(type, reference, name, quantity, total)."""


def nearest(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    size = floor(abs(value) + Fraction(1, 2))
    return -size if value < 0 else size


def part(total: int, weight: int, whole: int) -> int:
    """F(weight) of the cumulative rounding."""
    return nearest(Fraction(total) * weight / whole)


@dataclass
class Winners:
    """The newest of each kind, and what all contents had between them."""

    confirmations: list[tuple[Stamp, e.ConfirmedData]] = field(default_factory=list)
    contents: list[tuple[tuple[bool, int, Stamp], Any]] = field(default_factory=list)
    payment: str | None = None
    shipments: dict[str, tuple[Stamp, e.ItemsShippedData | None]] = field(default_factory=dict)
    returns: dict[str, tuple[Stamp, e.ItemsReturnedData | None]] = field(default_factory=dict)
    cancellations: dict[str, tuple[Stamp, e.ItemsCancelledData | None]] = field(default_factory=dict)
    refunds: dict[str, tuple[Stamp, e.RefundedData | None]] = field(default_factory=dict)
    deliveries: dict[str, str] = field(default_factory=dict)
    cancelled: e.CancelledData | None = None
    statements: list[tuple[tuple[bool, int, Stamp], e.CartsStatedData]] = field(default_factory=list)
    statements_void_until: Stamp | None = None


@dataclass
class NaiveOrder:
    """What the model says of an order; carts only where nothing contradicts."""

    state: str
    shipped: list[NaiveItem] | None = None
    unshipped: list[NaiveItem] | None = None
    trackings: list[tuple[str, str | None]] | None = None
    """(reference, delivered_at)."""
    cancellation: tuple[str | None, bool] | None = None
    """(the reason given, whether the shopper cancelled)."""


def naive_order(log: Sequence[e.OrderEvent]) -> NaiveOrder:
    """The order after the events of this log, whose positions are their indices."""
    winners = _winners(log)
    if not winners.confirmations:
        return NaiveOrder("unconfirmed")
    carts = _stated(winners) if _statement(winners) else _computed(winners)
    order = NaiveOrder("inconsistent" if carts is None else "ready")
    if winners.payment not in (None, "approved"):
        order.state = str(winners.payment)
    if carts is not None:
        order.shipped, order.unshipped = carts
        order.trackings = _trackings(winners)
        if not order.shipped and not order.unshipped:
            order.cancellation = _cancellation(winners)
    return order


def _winners(log: Sequence[e.OrderEvent]) -> Winners:
    first: dict[bytes, tuple[Stamp, Any]] = {}
    for position, event in enumerate(log):
        first.setdefault(event.uid, ((event.sequence, event.time_us, position), event.data))
    winners = Winners()
    for stamp, data in sorted(first.values(), key=lambda pair: pair[0]):
        _take(winners, stamp, data)
    return winners


def _take(winners: Winners, stamp: Stamp, data: Any) -> None:  # noqa: C901 - one case for each type, no more
    version = getattr(data, "cart_version", UNSET)
    rank = (version is not UNSET, 0 if version is UNSET else version, stamp)
    match data:
        case e.ConfirmedData():
            winners.confirmations.append((stamp, data))
            winners.contents.append((rank, data))
            if data.payment_state is not UNSET:
                winners.payment = data.payment_state
        case e.PaymentStateChangedData():
            winners.payment = data.payment_state
        case e.CartUpdatedData():
            winners.contents.append((rank, data))
        case e.ItemsShippedData():
            winners.shipments[data.shipment_id] = (stamp, data)
        case e.ItemsDeliveredData():
            winners.deliveries[data.shipment_id] = data.delivered_at
        case e.ItemsReturnedData():
            winners.returns[data.return_id] = (stamp, data)
        case e.ItemsCancelledData():
            winners.cancellations[data.cancellation_id] = (stamp, data)
        case e.RefundedData():
            winners.refunds[data.refund_id] = (stamp, data)
        case e.CancelledData():
            winners.cancelled = data
        case e.CartsStatedData():
            winners.statements.append((rank, data))
        case e.RetractedData():
            _retract(winners, stamp, data)


def _retract(winners: Winners, stamp: Stamp, data: e.RetractedData) -> None:
    if data.shipment_id is not UNSET:
        winners.shipments[data.shipment_id] = (stamp, None)
    if data.return_id is not UNSET:
        winners.returns[data.return_id] = (stamp, None)
    if data.cancellation_id is not UNSET:
        winners.cancellations[data.cancellation_id] = (stamp, None)
    if data.refund_id is not UNSET:
        winners.refunds[data.refund_id] = (stamp, None)
    if data.cancelled is not UNSET:
        winners.cancelled = None
    if data.stated is not UNSET:
        winners.statements_void_until = stamp


def _statement(winners: Winners) -> tuple[Stamp, e.CartsStatedData] | None:
    void = winners.statements_void_until
    valid = [pair for pair in winners.statements if void is None or pair[0][2] > void]
    if not valid:
        return None
    rank, data = max(valid, key=lambda pair: pair[0])
    return rank[2], data


def _living(facts: dict[str, tuple[Stamp, Any]]) -> list[tuple[Stamp, Any]]:
    return [(stamp, data) for stamp, data in facts.values() if data is not None]


def _item(line: e.Line, quantity: int, total: int) -> NaiveItem:
    reference = None if line.reference is UNSET else line.reference
    name = None if line.name is UNSET else line.name
    return (line.type, reference, name, quantity, total)


# --- both carts stated ----------------------------------------------------------------------------------------


def _stated(winners: Winners) -> tuple[list[NaiveItem], list[NaiveItem]] | None:
    found = _statement(winners)
    assert found is not None
    stamp, data = found
    content_stamp = max(winners.contents, key=lambda pair: pair[0])[0][2]
    kinds: tuple[dict[str, tuple[Stamp, Any]], ...] = (
        winners.shipments,
        winners.returns,
        winners.cancellations,
        winners.refunds,
    )
    stamps = [content_stamp, *(fact[0] for facts in kinds for fact in _living(facts))]
    carts = [
        [_item(line, _count(line), line.total_minor) for line in lines if line.type in GOODS or line.total_minor]
        for lines in (data.shipped, data.unshipped)
    ]
    totals = [sum(item[4] for item in cart) for cart in carts]
    kept = any(line.type in GOODS for line in data.shipped)
    cancelled = winners.cancelled
    if (
        any(other > stamp for other in stamps)
        or data.currency != winners.confirmations[0][1].currency
        or min(totals) < 0
        or max(totals) > 10**12
        or (cancelled is not None and kept and (cancelled.by == "provider" or not data.unshipped))
    ):
        return None
    return carts[0], [] if cancelled is not None else carts[1]


def _count(line: e.Line) -> int:
    return 0 if line.quantity is UNSET else line.quantity


# --- carts computed from the content ---------------------------------------------------------------------------


@dataclass
class Goods:
    """One goods line: its counts in the words of `domain.md` section 5, and its two shares."""

    line: e.Line
    q: int
    c: int
    g: int
    s: int
    r: int
    p: int = 0
    shipped: int = 0
    unshipped: int = 0

    @property
    def k(self) -> int:
        """Kept."""
        return self.s - self.r


def _units_of(winners: Winners) -> dict[str, dict[str, int]]:
    """By line: cancelled, gone, shipped, returned."""
    found: dict[str, dict[str, int]] = {}
    named = [("s", data) for _, data in _living(winners.shipments)]
    named += [("c", data) for _, data in _living(winners.cancellations)]
    named += [("r" if data.origin == "shipped" else "g", data) for _, data in _living(winners.returns)]
    for letter, data in named:
        for unit in data.lines:
            counts = found.setdefault(unit.line_id, {"c": 0, "g": 0, "s": 0, "r": 0})
            counts[letter] += unit.quantity
    return found


def _computed(winners: Winners) -> tuple[list[NaiveItem], list[NaiveItem]] | None:
    content = max(winners.contents, key=lambda pair: pair[0])[1]
    lines: list[e.Line] = content.lines
    units = _units_of(winners)
    if content.currency != winners.confirmations[0][1].currency or _units_contradict(winners, lines, units):
        return None
    none = {"c": 0, "g": 0, "s": 0, "r": 0}
    goods = {line.id: Goods(line, _count(line), **units.get(line.id, none)) for line in lines if line.type in GOODS}
    if _money_contradicts(winners, lines) or _cancellation_contradicts(winners, list(goods.values())):
        return None
    for one in goods.values():
        one.p = 0 if winners.cancelled is not None else max(0, one.q - one.c - one.g - one.s)
        one.shipped = part(one.line.total_minor, one.k, one.q)
        one.unshipped = part(one.line.total_minor, one.k + one.p, one.q) - one.shipped
    shares = _shares(winners, lines, goods)
    fees = [
        ("handling", data.return_id, "Return fee", 0, data.fee_minor)
        for _, data in _living(winners.returns)
        if data.fee_minor is not UNSET
    ]
    shipped_total = sum(pair[0] for pair in shares.values()) + sum(fee[4] for fee in fees)
    unshipped_total = sum(pair[1] for pair in shares.values())
    if shipped_total + unshipped_total < 0:
        return None
    _move_reductions(lines, shares, shipped_total, unshipped_total)
    carts: list[list[NaiveItem]] = [list(fees), []]
    for line in lines:
        counts = (goods[line.id].k, goods[line.id].p) if line.type in GOODS else (0, 0)
        for cart, count, share in zip(carts, counts, shares[line.id], strict=True):
            if count if line.type in GOODS else share:
                cart.append(_item(line, count, share))
    _take_refunds(winners, carts)
    if any(sum(item[4] for item in cart) > 10**12 for cart in carts):
        return None
    return carts[0], carts[1]


def _units_contradict(winners: Winners, lines: list[e.Line], units: dict[str, dict[str, int]]) -> bool:
    now = {line.id: line for line in lines}
    ever: dict[str, bool] = {}
    for _, content in winners.contents:
        for line in content.lines:
            ever[line.id] = ever.get(line.id, False) or line.type in GOODS
    for line_id, n in units.items():
        if line_id not in ever or n["r"] > n["s"]:
            return True
        if line_id in now:
            line = now[line_id]
            if line.type not in GOODS or n["c"] + n["g"] + n["s"] - n["r"] > _count(line):
                return True
        elif not ever[line_id] or n["s"] > n["r"]:
            return True
    return False


def _money_contradicts(winners: Winners, lines: list[e.Line]) -> bool:
    returns = [data for _, data in _living(winners.returns)]
    fees = sum(data.fee_minor for data in returns if data.fee_minor is not UNSET)
    largest = max(sum(line.total_minor for line in content.lines) for _, content in winners.contents)
    refunds: int = sum(data.amount_minor for _, data in _living(winners.refunds))
    back: int = sum(data.refund_handling_minor for data in returns if data.refund_handling_minor is not UNSET)
    handling = sum(line.total_minor for line in lines if line.type == "handling")
    return (refunds > 0 and refunds > largest + fees) or back > handling


def _cancellation_contradicts(winners: Winners, goods: list[Goods]) -> bool:
    if winners.cancelled is None or not any(one.k for one in goods):
        return False
    return winners.cancelled.by == "provider" or sum(max(0, one.q - one.g - one.s) for one in goods) == 0


def _shares(winners: Winners, lines: list[e.Line], goods: dict[str, Goods]) -> dict[str, list[int]]:
    """By line: what of it is in the shipped and in the unshipped cart."""
    to_refund = sum(
        data.refund_handling_minor for _, data in _living(winners.returns) if data.refund_handling_minor is not UNSET
    )
    shares: dict[str, list[int]] = {}
    for line in lines:
        if line.type in GOODS:
            shares[line.id] = [goods[line.id].shipped, goods[line.id].unshipped]
        elif line.type in CHARGES:
            total = line.total_minor
            if line.type == "handling":
                off = min(to_refund, total)
                to_refund -= off
                total -= off
            shares[line.id] = _charge(total, list(goods.values()))
        elif line.type in SPREAD:
            ids = set(goods if line.applies_to is UNSET else line.applies_to)
            shares[line.id] = _adjustment(line.total_minor, [goods[one] for one in ids])
        else:
            shares[line.id] = [line.total_minor, 0]  # voucher
    return shares


def _charge(total: int, goods: list[Goods]) -> list[int]:
    v = sum(part(one.line.total_minor, min(one.s, one.q), one.q) for one in goods)
    p = sum(one.unshipped for one in goods)
    if v + p == 0:
        v, p = sum(min(one.s, one.q) for one in goods), sum(one.p for one in goods)
    if v + p == 0:
        return [0, 0]
    return [part(total, v, v + p), total - part(total, v, v + p)]


def _adjustment(total: int, goods: list[Goods]) -> list[int]:
    k, p = sum(one.shipped for one in goods), sum(one.unshipped for one in goods)
    rest = sum(one.line.total_minor - one.shipped - one.unshipped for one in goods)
    if k + p + rest == 0:
        k, p = sum(one.k for one in goods), sum(one.p for one in goods)
        rest = sum(one.q - one.k - one.p for one in goods)
    if k + p + rest == 0:
        return [0, 0]
    whole = k + p + rest
    return [part(total, k, whole), part(total, k + p, whole) - part(total, k, whole)]


def _move_reductions(lines: list[e.Line], shares: dict[str, list[int]], shipped: int, unshipped: int) -> None:
    for here, there, total in ((0, 1, shipped), (1, 0, unshipped)):
        missing = max(0, -total)
        reductions = [line for line in reversed(lines) if line.type in REDUCTIONS]
        for line in sorted(reductions, key=lambda line: line.applies_to is not UNSET):
            moved = min(missing, -shares[line.id][here])
            if moved > 0:
                shares[line.id][here] += moved
                shares[line.id][there] -= moved
                missing -= moved


def _take_refunds(winners: Winners, carts: list[list[NaiveItem]]) -> None:
    touched = [False, False]
    for _, data in sorted(_living(winners.refunds), key=lambda pair: pair[0]):
        left = data.amount_minor
        name = "Refund" if data.name is UNSET else data.name
        for index, kind in ((0, "other_payment"), (1, "discount")):
            off = min(left, sum(item[4] for item in carts[index]))
            if off > 0:
                carts[index].append((kind, data.refund_id, name, 0, -off))
                touched[index] = True
                left -= off
    for index, cart in enumerate(carts):
        if touched[index] and sum(item[4] for item in cart) == 0:
            cart.clear()


# --- what goes along ----------------------------------------------------------------------------------------------


def _trackings(winners: Winners) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for _, data in sorted(_living(winners.shipments), key=lambda pair: pair[0]):
        for tracking in [] if data.tracking is UNSET else data.tracking:
            own = None if tracking.delivered_at is UNSET else tracking.delivered_at
            found.append((tracking.reference, own or winners.deliveries.get(data.shipment_id)))
    return found


def _cancellation(winners: Winners) -> tuple[str | None, bool] | None:
    if _living(winners.shipments):
        return None
    stated = _statement(winners)
    items = _living(winners.cancellations)
    if winners.cancelled is None and stated is None and not items:
        return None
    reasons = [winners.cancelled.reason] if winners.cancelled is not None else []
    if stated is not None:
        reasons.append(stated[1].reason)
    else:
        reasons += [data.reason for _, data in sorted(items, key=lambda pair: pair[0], reverse=True)]
    given = next((reason for reason in reasons if reason is not UNSET and reason), None)
    return given, winners.cancelled is not None and winners.cancelled.by == "shopper"
