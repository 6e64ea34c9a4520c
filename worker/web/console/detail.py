"""One order, from its record: both carts as the shop has them beside what the provider is known to have, and what comes
next. Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, assert_never

from schemas.console import CartLine, CartSides, HistoryLine
from schemas.state import OrderRecord
from schemas.views import OrderView
from worker.core.order import assess, baseline
from worker.core.policy import DeliveryPolicy
from worker.model.order import Cart, Item, Order, reference_of
from worker.web.console.amounts import age

_CARTS: tuple[Literal["shipped", "unshipped"], ...] = ("shipped", "unshipped")


def sides_of(subject: str, record: OrderRecord, history: Sequence[HistoryLine]) -> tuple[str, list[CartSides]]:
    """What is known of the provider's side, in words, and each cart with both; without carts while the shop's facts
    give none.
    """
    order = assess(record.facts, reference_of(subject)).order
    words, there = _there(subject, record, order, history)
    if record.may_land_late or record.remote_unknown:
        words += "; it may also have something else: what became of a request is not known"
    if order is None:
        return words, []
    sides = []
    for name in _CARTS:
        ours: Cart = getattr(order, name)
        if isinstance(there, Order):
            sides.append(_compared(name, ours, getattr(there, name)))
        else:
            lines = [_line(item, None, is_known=False) for item in ours.items]
            minor = None if there is None else getattr(there, f"{name}_minor")
            differs = minor is not None and minor != ours.total_minor
            sides.append(CartSides(name, lines, ours.total_minor, minor, differs))
    return words, sides


def _there(
    subject: str, record: OrderRecord, order: Order | None, history: Sequence[HistoryLine]
) -> tuple[str, Order | HistoryLine | None]:
    """In words, and item by item, or at least its amounts, where these are known."""
    if record.acked == record.revision:
        made_at = record.made_at
        if made_at is not None and made_at.revision == record.revision:
            return f"the newest state, which came from {made_at.provider} itself", order
        return "the newest state: it has acknowledged it", order
    if not record.acked_digest:
        confirmed = baseline(record.facts, reference_of(subject))
        if confirmed is not None:
            return "what was confirmed at checkout: nothing newer was acknowledged", confirmed
        return "what was confirmed at checkout, if it was; nothing newer was acknowledged", None
    for line in history:
        if line.acked == line.revision == record.acked and line.shipped_minor is not None:
            return "an older state, which it has acknowledged; of that one only the amounts are kept", line
    return "an older state, which it has acknowledged; what was in it is not kept", None


def _compared(name: Literal["shipped", "unshipped"], ours: Cart, theirs: Cart) -> CartSides:
    left = list(theirs.items)
    lines = []
    for item in ours.items:
        other = next((each for each in left if (each.type, each.reference) == (item.type, item.reference)), None)
        if other is not None:
            left.remove(other)
        lines.append(_line(item, other, is_known=True))
    lines += [
        CartLine(other.type, other.reference, other.name, 0, 0, other.quantity, other.total_minor, differs=True)
        for other in left
    ]
    differs = any(line.differs for line in lines)
    return CartSides(name, lines, ours.total_minor, theirs.total_minor, differs)


def _line(item: Item, other: Item | None, *, is_known: bool) -> CartLine:
    if not is_known:
        return CartLine(item.type, item.reference, item.name, item.quantity, item.total_minor, None, None, False)
    quantity, minor = (0, 0) if other is None else (other.quantity, other.total_minor)
    differs = (quantity, minor) != (item.quantity, item.total_minor)
    return CartLine(item.type, item.reference, item.name, item.quantity, item.total_minor, quantity, minor, differs)


def next_of(view: OrderView, record: OrderRecord, *, rules: DeliveryPolicy, now_ms: int) -> str:
    """What comes next, and when."""
    return "; ".join(_next(view, record, rules, now_ms))


def _next(view: OrderView, record: OrderRecord, rules: DeliveryPolicy, now_ms: int) -> Iterator[str]:
    match view.status:
        case "settled":
            yield "nothing: the provider has the newest state"
        case "unconfirmed":
            yield "it waits for order.confirmed from the shop"
        case "on_hold":
            yield "it waits for the payment to be approved (order.payment_state_changed)"
        case "refused":
            yield "nothing is sent: the payment was refused"
        case "inconsistent":
            left_s = record.inconsistent_since_ms / 1000 + rules.inconsistent_after_s - now_ms / 1000
            yield "it waits for an event of the shop that resolves the contradiction"
            if left_s > 0:
                yield f"parked in {age(left_s)} if none comes"
        case "parked" if record.inconsistent_since_ms:
            yield "nothing until an event of the shop resolves the contradiction; a release does not help"
        case "parked":
            yield (
                "nothing until an event changes it or somebody releases it: mend the cause first, then release; "
                "or settle it at the provider by hand, then adopt"
            )
        case "owed":
            yield _next_attempt(view, record, now_ms)
        case unknown:
            assert_never(unknown)


def _next_attempt(view: OrderView, record: OrderRecord, now_ms: int) -> str:
    if view.in_flight:
        return "an update is in flight"
    if view.next_attempt_s is not None:
        return f"the next attempt in {age(view.next_attempt_s)}"
    if record.not_before_ms > now_ms:
        return f"the next attempt in {age((record.not_before_ms - now_ms) / 1000)} at the earliest"
    return f"it is sent as soon as its turn comes at the worker that serves partition {view.partition}"
