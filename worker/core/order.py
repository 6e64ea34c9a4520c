"""What follows from an order's facts: contradictions, assessment, and the state to tell the provider.

`assess` is a pure function of the facts. Contradictions never refuse an event: they make the order inconsistent,
nothing is sent, and the fact that resolves them releases it (`DOMAIN.md` section 4).
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from schemas.base import AMOUNT_MAX_MINOR
from schemas.events import FREIGHT, GOODS, PRICED
from schemas.facts import (
    MEMBERS,
    Confirmation,
    Content,
    Facts,
    Line,
    OrderDetails,
    Packed,
    ProviderFacts,
    Statement,
    Tracking,
    UnitList,
    digest_of_details,
    is_nil,
    open_money,
    unpack_details,
    unpack_lines,
    unpack_trackings,
)
from schemas.state import OrderRecord
from schemas.views import STATUS_RULES, NotReady
from worker.core.carts import cart_of_statement, carts_of_content, totals_of_content, totals_of_parcels
from worker.core.shares import Tally, count_units, tally
from worker.model.order import CancellationReason, Cart, Order

REASONS_MAX = 20


State = Literal[NotReady, "ready"]


class Standing(Struct, frozen=True):
    """What the facts say of an order, apart from its carts."""

    state: State
    reasons: list[str] = []
    """What stands in the way, each in words, at most `REASONS_MAX`."""

    @property
    def contradictions(self) -> list[str]:
        """Those of the reasons, also while the payment is on hold."""
        return self.reasons if self.state != "ready" and STATUS_RULES[self.state].has_contradictions else []


class Assessment(Standing, frozen=True):
    """What the facts say of an order."""

    order: Order | None = None
    """What the provider should hold; `None` while unconfirmed or inconsistent."""


class Summary(Standing, frozen=True):
    """The same without what is in the carts."""

    currency: str | None = None
    """`None`, and both totals 0, while unconfirmed or inconsistent."""
    shipped_minor: int = 0
    unshipped_minor: int = 0


class Shown(Struct, frozen=True, gc=False):
    """What others are shown of an order's carts, and of its provider."""

    currency: str
    shipped_minor: int
    unshipped_minor: int
    provider: ProviderFacts | None = None
    """What the order's provider said of it."""


def shown_of(order: Order | None) -> Shown | None:
    """`None`: there are no carts."""
    if order is None:
        return None
    return Shown(order.currency, order.shipped.total_minor, order.unshipped.total_minor, order.facts.provider)


def assess(facts: Facts, reference: str) -> Assessment:
    """The assessment of the order with this reference (the subject after its first slash)."""
    state, reasons, carts = _judge(facts, carts_of_content)
    if carts is None:
        return Assessment(state, reasons)
    assert facts.confirmation is not None  # there are no carts without
    return Assessment(state, reasons, _order(facts, reference, facts.confirmation, *carts))


def summarize(record: OrderRecord) -> tuple[Summary, ProviderFacts | None]:
    """What `assess` says of a record, without what is in the carts, and what its provider said: for a third of the
    work, as nothing is opened that neither status nor money follows from. Raises `msgspec.MsgspecError`.
    """
    facts = open_money(record.sealed)
    state, reasons, carts = _judge(facts, totals_of_content, at_a_glance=totals_of_parcels)
    if carts is None:
        return Summary(state, reasons), facts.provider
    assert facts.confirmation is not None  # there are no carts without
    shipped, unshipped = carts
    summary = Summary(state, reasons, facts.confirmation.currency, shipped.total_minor, unshipped.total_minor)
    return summary, facts.provider


_Carts = tuple[Cart, Cart]
"""Shipped and unshipped."""
_CartsOf = Callable[[Facts, list[Line], dict[str, Tally]], tuple[Cart, Cart, list[str]]]
_AtAGlance = Callable[[Facts, list[Line]], _Carts | None]


def _judge(
    facts: Facts, carts_of: _CartsOf, at_a_glance: _AtAGlance | None = None
) -> tuple[State, list[str], _Carts | None]:
    """How the order stands, what stands in the way, and, unless they contradict each other, both carts. `at_a_glance`:
    gives what `carts_of` would, where that can be told at once and there are no contradictions.
    """
    confirmation = facts.confirmation
    if confirmation is None:
        return "unconfirmed", ["no order.confirmed yet"], None
    if facts.statements:
        reasons, carts = _from_statement(facts, confirmation, facts.statements[0])
    else:
        reasons, carts = _from_content(facts, confirmation, carts_of, at_a_glance)
    payment = facts.payment_now
    if payment is not None and payment.state != "approved":
        return payment.state, reasons[:REASONS_MAX], carts
    return "inconsistent" if reasons else "ready", reasons[:REASONS_MAX], carts


def baseline(facts: Facts, reference: str) -> Order | None:
    """The state that the oldest confirmation alone gives: what the provider already knows (`CONTRACT.md` section 5).

    `None` while unconfirmed, when the confirmation contradicts itself, or when newer facts have replaced details of it
    by others.
    """
    confirmation = facts.confirmation
    if confirmation is None:
        return None
    replaced = confirmation.details
    details = {name: fact for name, fact in facts.details.items() if fact[0] == confirmation.stamp or name in replaced}
    if replaced:
        # Gone, but where all are again as they were then, they are known.
        if digest_of_details({name: packed for name, (_, packed) in details.items()}) != confirmation.details_digest:
            return None
        details = {name: (confirmation.stamp, packed) for name, (_, packed) in details.items()}
    lines = confirmation.lines
    if is_nil(lines):
        assert facts.content is not None  # a confirmation without lines shares those of the newest content
        lines = facts.content.lines
    alone = Facts(
        confirmation=confirmation,
        content=Content(confirmation.stamp, None, confirmation.currency, confirmation.total_minor, lines),
        content_total_max_minor=confirmation.total_minor,
        details=details,
    )
    carts = _still_to_ship(lines) or _from_content(alone, confirmation, carts_of_content)[1]
    return None if carts is None else _order(alone, reference, confirmation, *carts)


def _still_to_ship(packed: Packed) -> _Carts | None:
    """The carts of a content of which nothing became anything yet, when they can be told at a glance: goods and charges
    within the bounds. That takes half the time, and an order whose details change is asked for it.
    """
    lines = unpack_lines(packed)
    if [None for line in lines if line.type not in PRICED]:
        return None
    cart = cart_of_statement(lines)
    return None if cart.total_minor > AMOUNT_MAX_MINOR else (Cart([], 0), cart)


def _order(facts: Facts, reference: str, confirmation: Confirmation, shipped: Cart, unshipped: Cart) -> Order:
    details = (
        unpack_details({name: raw for name, (_, raw) in facts.details.items()}) if facts.details else OrderDetails()
    )
    return Order(
        reference,
        confirmation.currency,
        shipped,
        unshipped,
        details,
        _trackings(facts),
        None if shipped.items or unshipped.items else _cancellation_reason(facts),
        confirmation.total_minor,
        facts,
    )


# --- both carts stated -----------------------------------------------------------------------------------------


def _from_statement(facts: Facts, confirmation: Confirmation, statement: Statement) -> tuple[list[str], _Carts | None]:
    shipped_lines, unshipped_lines = unpack_lines(statement.shipped), unpack_lines(statement.unshipped)
    reasons: list[str] = []
    if statement.currency != confirmation.currency:
        reasons.append(f"carts stated in {statement.currency}, order confirmed in {confirmation.currency}")
    reasons += _newer_than(facts, statement)
    kept = {line.line_id: line.quantity for line in shipped_lines if line.type in GOODS}
    reasons += _cancelled_while_kept(facts, kept, nothing_left=not unshipped_lines)
    shipped, unshipped = cart_of_statement(shipped_lines), cart_of_statement(unshipped_lines)
    for name, cart in (("shipped", shipped), ("unshipped", unshipped)):
        if cart.total_minor < 0:
            reasons.append(f"{name} cart stated as {_number(cart.total_minor)}")
        reasons += _too_large(name, cart)
    if (cancellation := facts.cancellation_now) is not None and not cancellation.retracted:
        unshipped = Cart([], 0)
    return reasons, None if reasons else (shipped, unshipped)


def _newer_than(facts: Facts, statement: Statement) -> list[str]:
    """The facts that the shop told after it stated both carts: who is right, cannot be known."""
    found = [
        f"{member.contradicts} {key}".rstrip()
        for name, member in MEMBERS.items()
        if member.contradicts
        for key, fact in facts.stamped(name)
        if fact.stamp > statement.stamp and not fact.is_retracted
    ]
    return [f"{name} is newer than the statement" for name in found[:REASONS_MAX]]


# --- carts computed from the content -----------------------------------------------------------------------------


def _from_content(
    facts: Facts, confirmation: Confirmation, carts_of: _CartsOf, at_a_glance: _AtAGlance | None = None
) -> tuple[list[str], _Carts | None]:
    content = facts.content
    assert content is not None  # a confirmation is a content
    lines = unpack_lines(content.lines)
    reasons: list[str] = []
    if content.currency != confirmation.currency:
        reasons.append(f"cart in {content.currency}, order confirmed in {confirmation.currency}")
    if content.total_minor < 0:
        reasons.append(_below_zero(content.total_minor, lines))
    if at_a_glance is not None and not reasons and (carts := at_a_glance(facts, lines)) is not None:
        reasons = _too_large("shipped", carts[0]) + _too_large("unshipped", carts[1])
        return reasons, None if reasons else carts
    tallies: dict[str, Tally] = {}
    if facts.shipments or facts.returns or facts.item_cancellations:
        counts = count_units(facts)
        goods = {line.line_id: line for line in lines if line.type in GOODS}
        former: dict[str, bool] = {}
        if counts.has_others(goods.keys()):
            now = {line.line_id for line in lines}
            former = {line_id: is_goods for line_id, is_goods in facts.former_lines.items() if line_id not in now}
            reasons += islice(_who(facts, lines), REASONS_MAX)
            if len(reasons) >= REASONS_MAX:
                return reasons, None
        tallies = tally(counts, lines)
        reasons += _unit_contradictions(goods, former, tallies)
    if facts.refunds or facts.returns:
        reasons += _money_contradictions(facts, lines)
    if facts.cancellation_now is not None:
        reasons += _cancelled_content(facts, lines, tallies)
    if reasons:
        return reasons, None
    shipped, unshipped, reasons = carts_of(facts, lines, tallies)
    reasons += _too_large("shipped", shipped) + _too_large("unshipped", unshipped)
    return reasons, None if reasons else (shipped, unshipped)


def _who(facts: Facts, lines: list[Line]) -> Iterator[str]:
    """`shipment s2 ships 1 x hat, which the order does not have`, for each fact that names such a line."""
    is_goods = facts.former_lines | {line.line_id: line.type in GOODS for line in lines}

    def name(kind: str, verb: str, named: Iterable[tuple[str, UnitList | None]]) -> Iterator[str]:
        for key, units in named:
            for line_id, count in units or ():
                if not is_goods.get(line_id):
                    what = "is no goods line" if line_id in is_goods else "the order does not have"
                    yield f"{kind} {key} {verb} {count} × {line_id}, which {what}"

    yield from name("shipment", "ships", ((key, fact.units) for key, fact in facts.shipments.items()))
    yield from name("return", "returns", ((key, fact.units) for key, fact in facts.returns.items()))
    yield from name("cancellation", "cancels", ((key, fact.units) for key, fact in facts.item_cancellations.items()))


def _unit_contradictions(goods: dict[str, Line], former: dict[str, bool], tallies: dict[str, Tally]) -> list[str]:
    """`former`: the lines that the newest content lacks, and whether they were goods."""
    reasons: list[str] = []
    for line_id, units in tallies.items():
        line = goods.get(line_id)
        if line is not None:
            if units.returned > units.shipped or units.cancelled + units.gone + units.kept > line.quantity:
                reasons.append(_counts(line_id, line, units))
        elif former.get(line_id) and units.kept:
            reasons.append(_counts_of_former(line_id, units))
        if len(reasons) >= REASONS_MAX:
            break
    return reasons


def _counts(line_id: str, line: Line, units: Tally) -> str:
    if units.returned > units.shipped:
        return f"line {line_id}: {units.returned} returned, {units.shipped} shipped"
    if not (units.cancelled or units.gone or units.returned):
        return f"line {line_id}: {units.shipped} shipped of {line.quantity} ordered"
    text = f"line {line_id}: {units.kept} kept"
    if units.cancelled:
        text += f" + {units.cancelled} cancelled"
    if units.gone:
        text += f" + {units.gone} returned unsent"
    return f"{text} of {line.quantity} ordered ({units.shipped} shipped, {units.returned} returned)"


def _counts_of_former(line_id: str, units: Tally) -> str:
    if units.returned > units.shipped:
        return f"line {line_id}: {units.returned} returned, {units.shipped} shipped"
    return f"line {line_id}: {units.kept} kept, which the newest cart does not have"


def _money_contradictions(facts: Facts, lines: list[Line]) -> list[str]:
    reasons: list[str] = []
    if facts.refunds:
        refunds = facts.refunds.values()
        if [None for refund in refunds if refund.applies_to is not None]:
            reasons += islice(_refunds_of_wrong_lines(facts, lines), REASONS_MAX)
        refunded = sum([refund.amount_minor for refund in refunds])
        chargeable = facts.content_total_max_minor
        chargeable += sum([back.fee_minor for back in facts.returns.values()])
        chargeable += sum([fee.amount_minor for fee in facts.fees.values()])
        if refunded and refunded > chargeable + len(lines):  # shops round per line
            reasons.append(f"refunds {refunded}, chargeable {chargeable}")
    handling_refunds = sum([back.refund_handling_minor for back in facts.returns.values()])
    if handling_refunds:
        handling = sum([line.total_minor for line in lines if line.type in FREIGHT])
        if handling_refunds > handling:
            reasons.append(f"handling refunded {handling_refunds}, handling {handling}")
    return reasons


def _refunds_of_wrong_lines(facts: Facts, lines: list[Line]) -> Iterator[str]:
    """A refund is for goods and charges that the newest content has, or one before it had."""
    priced = {line.line_id for line in lines if line.type in PRICED}
    others = {line.line_id for line in lines if line.type not in PRICED}
    for key, refund in facts.refunds.items():
        for line_id in [line_id for line_id in refund.applies_to or () if line_id not in priced]:
            if line_id not in others and line_id not in facts.former_lines:
                yield f"refund {key} names {line_id}, which the order does not have"
            elif line_id in others or not (facts.former_lines[line_id] or line_id in facts.former_worth):
                yield f"refund {key} names {line_id}, which is neither goods nor a charge"


def _cancelled_content(facts: Facts, lines: list[Line], tallies: dict[str, Tally]) -> list[str]:
    kept = {line_id: units.kept for line_id, units in tallies.items() if units.kept > 0}
    left = 0
    for line in lines:
        if line.type in GOODS:
            units = tallies.get(line.line_id) or Tally()
            left += max(0, line.quantity - (units.gone - units.fitted) - units.shipped)
    return _cancelled_while_kept(facts, kept, nothing_left=left == 0)


def _cancelled_while_kept(facts: Facts, kept: dict[str, int], *, nothing_left: bool) -> list[str]:
    cancellation = facts.cancellation_now
    if cancellation is None or cancellation.retracted or not kept:
        return []
    units = ", ".join(f"{count} × {line_id}" for line_id, count in islice(kept.items(), REASONS_MAX))
    if len(kept) > REASONS_MAX:
        units += f" and {len(kept) - REASONS_MAX} lines more"
    are = "is" if sum(kept.values()) == 1 else "are"
    if cancellation.by == "provider":
        return [f"cancelled by the provider, but {units} {are} not returned"]
    return [f"cancelled, but all is shipped and {units} {are} not returned"] if nothing_left else []


def _below_zero(total_minor: int, lines: list[Line]) -> str:
    parts: dict[str, int] = {}
    for line in lines:
        name = "goods" if line.type in GOODS else line.type
        parts[name] = parts.get(name, 0) + line.total_minor
    listed = ", ".join(f"{name} {_number(minor)}" for name, minor in sorted(parts.items()))
    return f"carts {_number(total_minor)}: {listed}"


def _too_large(name: str, cart: Cart) -> list[str]:
    if cart.total_minor <= AMOUNT_MAX_MINOR:
        return []
    return [f"{name} cart {cart.total_minor}, at most {AMOUNT_MAX_MINOR}"]


def _number(minor: int) -> str:
    return str(minor).replace("-", "−")


# --- what goes along with the carts ------------------------------------------------------------------------------


def _trackings(facts: Facts) -> list[Tracking]:
    shipped = [
        (shipment.stamp, key, shipment.tracking)
        for key, shipment in facts.shipments.items()
        if shipment.units is not None and not is_nil(shipment.tracking)
    ]
    if len(shipped) > 1:
        shipped.sort(key=itemgetter(0))
    return [tracking for _, key, raw in shipped for tracking in trackings_of(facts, key, raw)]


def trackings_of(facts: Facts, key: str, raw: Packed) -> list[Tracking]:
    """The trackings of one shipment, each with the time of its delivery where that was told of the shipment."""
    delivery = facts.deliveries.get(key)
    if delivery is None:
        return unpack_trackings(raw)
    return [
        tracking if tracking.delivered_at else replace(tracking, delivered_at=delivery[1])
        for tracking in unpack_trackings(raw)
    ]


def _cancellation_reason(facts: Facts) -> CancellationReason | None:
    """Why both carts are empty, whatever emptied them; `None` when something was shipped once."""
    if any(shipment.units is not None for shipment in facts.shipments.values()):
        return None
    cancellation = facts.cancellation_now
    if cancellation is not None and cancellation.retracted:
        cancellation = None
    if cancellation is not None and cancellation.reason:
        given: str | None = cancellation.reason
    elif facts.statements:
        given = facts.statements[0].reason or None
    else:
        told = [
            (fact.stamp, fact.reason)
            for kind in (facts.item_cancellations, facts.returns, facts.refunds)
            for fact in kind.values()
            if fact.reason
        ]
        given = max(told)[1] if told else None
    return CancellationReason(given, cancellation is not None and cancellation.by == "shopper")
