"""What must not be sent to seQura: checked before a request is made, with the arithmetic."""

from msgspec import UNSET

from schemas import events
from schemas.base import AMOUNT_MAX_MINOR
from worker.providers.sequra import wire


def problem_of(shipped: wire.Cart, unshipped: wire.Cart, confirmed_total_minor: int) -> str | None:
    """Why seQura would reject these carts, or must not get them; `None`: no known reason."""
    if shipped.currency != unshipped.currency:
        return f"shipped_cart in {shipped.currency}, unshipped_cart in {unshipped.currency}"
    problem = _cart_problem("shipped_cart", shipped) or _cart_problem("unshipped_cart", unshipped)
    if problem is not None:
        return problem
    total = shipped.order_total_with_tax + unshipped.order_total_with_tax
    if total * 100 > confirmed_total_minor * (100 + wire.GROWTH_MAX_PERCENT):
        return (
            f"carts {total}, confirmed {confirmed_total_minor}: seQura rejects an increase above "
            f"{wire.GROWTH_MAX_PERCENT} %"
        )
    return None


def entry_problem(entry: wire.ReportedOrder) -> str | None:
    """Why seQura would reject a delivery in a report; `None`: no known reason."""
    for name, cart, types in (
        ("cart", entry.cart, wire.IN_REPORTED_CART),
        ("remaining_cart", entry.remaining_cart, wire.IN_REMAINING_CART),
    ):
        for item in cart.items:
            if wire.TYPES[item.type] not in types:
                return f"{name}: seQura's report does not accept {item.type} here"
            problem = _member_problem(item)
            if problem is not None:
                return f"{name}: {item.type} {item.reference or ''}: {problem}"
        problem = _cart_problem(name, cart)
        if problem is not None:
            return problem
    for tracking in entry.trackings or ():
        if tracking.type == "postal" and not tracking.carrier:
            return f"tracking {tracking.reference}: no carrier, which seQura requires for postal parcels"
    return None


def _member_problem(item: wire.Item) -> str | None:
    """Members that a report requires and an update does not."""
    kind = wire.TYPES[item.type]
    if kind in wire.BARE:
        return None
    if not item.name:
        return "no name"
    if kind in wire.REFERENCED and not item.reference:
        return "no reference"
    if kind in events.ENDING and (item.ends_on is UNSET) == (item.ends_in is UNSET):
        return "needs exactly one of ends_on and ends_in"
    return None


def _cart_problem(name: str, cart: wire.Cart | wire.ReportedCart | wire.RemainingCart) -> str | None:
    added = sum([item.total_with_tax for item in cart.items if item.total_with_tax is not UNSET])
    if added != cart.order_total_with_tax:
        return f"{name}: items add up to {added}, order_total_with_tax is {cart.order_total_with_tax}"
    if not 0 <= cart.order_total_with_tax <= AMOUNT_MAX_MINOR:
        return f"{name}: order_total_with_tax {cart.order_total_with_tax}, expected 0 to {AMOUNT_MAX_MINOR}"
    for item in cart.items:
        problem = _item_problem(item)
        if problem is not None:
            return f"{name}: {item.type} {item.reference or ''}: {problem}"
    return None


def _item_problem(item: wire.Item) -> str | None:
    kind, total = wire.TYPES[item.type], item.total_with_tax
    if total is UNSET:
        return "no total_with_tax"
    if (total >= 0) if kind in events.NEGATIVE else (total < 0):
        return f"total_with_tax {total} has the wrong sign"
    if kind not in events.GOODS:
        return "has quantity or price_with_tax" if (item.quantity, item.price_with_tax) != (UNSET, UNSET) else None
    if item.quantity is UNSET or item.quantity < 1:
        return f"quantity {item.quantity or 0}, expected at least 1"
    return "no price_with_tax" if item.price_with_tax is UNSET else None
