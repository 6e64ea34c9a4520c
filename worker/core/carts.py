"""The two carts of an order: from its content and what became of it, or as they were stated (`DOMAIN.md` section 5)."""

from schemas.events import CHARGES, GOODS
from schemas.facts import Facts, Line
from worker.core.refunds import DIFFERENCE_NAME, Off, has_amounts, settle
from worker.core.shares import Shares, Tally, divide_or_units, rounded, share_content
from worker.model.order import Cart, Item

RETURN_FEE_NAME = "Return fee"
FEE_NAME = "Fee"
REFUND_NAME = "Refund"


def carts_of_content(facts: Facts, lines: list[Line], tallies: dict[str, Tally]) -> tuple[Cart, Cart, list[str]]:
    """Shipped cart, unshipped cart, and what contradicts them."""
    shares = share_content(facts, lines, tallies)
    fees, fees_minor, shipped_minor, unshipped_minor = _before_refunds(facts, shares)
    # A line with units and no money is in the cart, and so is one with money and no units: a charge, or a cent.
    shipped = [
        _item(s.line, s.shipped_units, s.shipped_minor) for s in shares.all if s.shipped_units or s.shipped_minor
    ]
    unshipped = [
        _item(s.line, s.unshipped_units, s.unshipped_minor)
        for s in shares.all
        if s.unshipped_units or s.unshipped_minor
    ]
    shipped += fees  # whole, even after a cancellation: the shop charges them for what has already happened
    if not _has_refunds(facts):
        return Cart(shipped, shipped_minor), Cart(unshipped, unshipped_minor), []
    settled = settle(facts, lines, tallies, shares, shipped_minor, unshipped_minor, fees_minor)
    if settled.difference is not None:
        # A return gave back less than its units were worth: the shopper still owes the rest, so it has to be an item.
        key, minor = settled.difference
        shipped.append(Item("handling", key, DIFFERENCE_NAME, 0, 0, minor))
    paid_back = [_off("other_payment", off, off.shipped_minor) for off in settled.off if off.shipped_minor]
    let_off = [_off("discount", off, off.unshipped_minor) for off in settled.off if off.unshipped_minor]
    reasons: list[str] = []
    if settled.excess is not None:
        # More was paid back than all units were worth: either the return or the content is wrong, and only the shop
        # knows which.
        keys, paid_minor, most_minor = settled.excess
        names = f"return {keys[0]}" if len(keys) == 1 else f"return {keys[-1]} and {len(keys) - 1} older"
        reasons.append(f"{names} refunded {paid_minor}, the carts with its units {most_minor}")
    return (
        _refunded_cart(shipped, paid_back, settled.shipped_minor),
        _refunded_cart(unshipped, let_off, settled.unshipped_minor),
        reasons,
    )


def totals_of_content(facts: Facts, lines: list[Line], tallies: dict[str, Tally]) -> tuple[Cart, Cart, list[str]]:
    """What `carts_of_content` gives, without items: who only wants totals has them for less than half the work."""
    if _has_refunds(facts):
        return carts_of_content(facts, lines, tallies)
    _, _, shipped_minor, unshipped_minor = _before_refunds(facts, share_content(facts, lines, tallies))
    return Cart([], shipped_minor), Cart([], unshipped_minor), []


def totals_of_parcels(facts: Facts, lines: list[Line]) -> tuple[Cart, Cart] | None:
    """What `totals_of_content` gives, for the many orders of which goods and charges were ordered and parcels sent, and
    nothing else became of them: in a third of the time. `None`: there is more to this one, or a contradiction.
    """
    if facts.returns or facts.item_cancellations or facts.refunds or facts.fees or facts.cancellation_now is not None:
        return None
    sent: dict[str, int] = {}
    for shipment in facts.shipments.values():
        for line_id, count in shipment.units or ():
            sent[line_id] = sent.get(line_id, 0) + count
    shipped_minor = unshipped_minor = shipped_units = unshipped_units = 0
    charges: list[int] = []
    for line in lines:
        total = line.total_minor
        if line.type in GOODS:
            quantity = line.quantity
            units = sent.pop(line.line_id, 0)
            if units > quantity:
                return None
            part = 0 if not units else total if units == quantity else rounded(total * units, quantity)
            shipped_minor += part
            unshipped_minor += total - part
            shipped_units += units
            unshipped_units += quantity - units
        elif line.type in CHARGES and line.applies_to is None:
            charges.append(total)
        else:
            return None
    if sent or not shipped_units + unshipped_units:
        return None  # units of other lines, or no goods that a charge could follow
    by_value, by_units = (shipped_minor, unshipped_minor, 0), (shipped_units, unshipped_units, 0)
    for total in charges:
        part, rest = divide_or_units(total, by_value, by_units)
        shipped_minor += part
        unshipped_minor += rest
    return Cart([], shipped_minor), Cart([], unshipped_minor)


def _before_refunds(facts: Facts, shares: Shares) -> tuple[list[Item], int, int, int]:
    """The fees, their total, and the totals of both carts."""
    fees = _fees(facts) if facts.returns or facts.fees else []
    fees_minor = sum([fee.total_minor for fee in fees])
    # Lists, here and below, where a generator would do: half the time, and carts are computed for every update.
    shipped_minor = sum([share.shipped_minor for share in shares.all]) + fees_minor
    return fees, fees_minor, shipped_minor, sum([share.unshipped_minor for share in shares.all])


def _has_refunds(facts: Facts) -> bool:
    return bool(facts.refunds) or (bool(facts.returns) and has_amounts(facts))


def _fees(facts: Facts) -> list[Item]:
    found = [
        (back.stamp, key, RETURN_FEE_NAME, back.fee_minor) for key, back in facts.returns.items() if back.fee_minor
    ]
    if facts.fees:
        found += [
            (fee.stamp, key, fee.name or FEE_NAME, fee.amount_minor)
            for key, fee in facts.fees.items()
            if fee.amount_minor
        ]
    found.sort()
    return [Item("handling", key, name, 0, 0, minor) for _, key, name, minor in found]


def _off(kind: str, off: Off, minor: int) -> Item:
    return Item(kind, off.key, off.name or REFUND_NAME, 0, 0, -minor)  # type: ignore[arg-type]


def _refunded_cart(items: list[Item], refunds: list[Item], total_minor: int) -> Cart:
    # Items that cancel each other out would be articles that nobody owes anything for.
    return Cart([] if refunds and not total_minor else items + refunds, total_minor)


def cart_of_statement(lines: list[Line]) -> Cart:
    """A stated cart, as it was stated."""
    items = [_item(line, line.quantity, line.total_minor) for line in lines if line.quantity or line.total_minor]
    return Cart(items, sum(line.total_minor for line in lines))


def _item(line: Line, units: int, total_minor: int) -> Item:
    return Item(
        line.type,
        line.reference,
        line.name,
        units,
        line.unit_price_minor,
        total_minor,
        line.downloadable,
        line.attributes,
    )
