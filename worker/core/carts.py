"""The cart arithmetic: facts in, two carts out, never a cent off (`domain.md` section 5).

One division rule serves everywhere: to divide an amount T by weights, F(x) = T*x/W rounded to the nearest unit,
halves away from zero, and the parts are F(w1), F(w1 + w2) - F(w1), ... So the answer depends only on the counts, not
on the order in which things happened, and the parts always add up to what they divide.
"""

from msgspec import Struct

from schemas.carts import Cart, Item
from schemas.events import CHARGES, GOODS, NEGATIVE
from schemas.facts import Facts, Line

FEE_NAME = "Return fee"
REFUND_NAME = "Refund"


class Tally(Struct, gc=False):
    """Units of one line, over all facts that count."""

    shipped: int = 0
    returned: int = 0
    gone: int = 0
    """Returned out of the pending: refunded before they were sent."""
    cancelled: int = 0

    @property
    def kept(self) -> int:
        """What the shopper has."""
        return self.shipped - self.returned


_NO_UNITS = Tally()


class _Share(Struct, gc=False):
    """One line's part in each cart."""

    line: Line
    shipped_units: int = 0
    unshipped_units: int = 0
    shipped_minor: int = 0
    unshipped_minor: int = 0
    ever_shipped_units: int = 0
    ever_shipped_minor: int = 0


def tally(facts: Facts) -> dict[str, Tally]:
    """Units by line id, retracted facts left out."""
    tallies: dict[str, Tally] = {}

    def of(line_id: str) -> Tally:
        known = tallies.get(line_id)
        if known is None:
            known = tallies[line_id] = Tally()
        return known

    for shipment in facts.shipments.values():
        for line_id, units in shipment.units or ():
            of(line_id).shipped += units
    for back in facts.returns.values():
        for line_id, units in back.units or ():
            if back.origin == "shipped":
                of(line_id).returned += units
            else:
                of(line_id).gone += units
    for cancellation in facts.item_cancellations.values():
        for line_id, units in cancellation.units or ():
            of(line_id).cancelled += units
    return tallies


def divide(total: int, first: int, second: int, rest: int) -> tuple[int, int]:
    """The parts of `total` that belong to the first two of three weights (none negative, not all 0)."""
    if not rest and not second:
        return total, 0
    whole = first + second + rest
    part = _rounded(total * first, whole) if first else 0
    both = _rounded(total * (first + second), whole) if rest else total
    return part, both - part


def _rounded(dividend: int, divisor: int) -> int:
    """The nearest integer to dividend / divisor (divisor > 0), halves away from zero."""
    half_up = (2 * abs(dividend) + divisor) // (2 * divisor)
    return half_up if dividend >= 0 else -half_up


def _divide_or_units(total: int, weights: tuple[int, int, int], units: tuple[int, int, int]) -> tuple[int, int]:
    """Divides by value; by units when the goods are worth nothing; (0, 0) when there are none either."""
    if any(weights):
        return divide(total, *weights)
    return divide(total, *units) if any(units) else (0, 0)


def carts_of_content(facts: Facts, lines: list[Line], tallies: dict[str, Tally]) -> tuple[Cart, Cart, int]:
    """Shipped cart, unshipped cart, and what both add up to before refunds (below 0: a contradiction)."""
    cancelled = facts.cancellation is not None and not facts.cancellation.retracted
    shares: list[_Share] = []
    goods: list[_Share] = []
    for line in lines:
        if line.type in GOODS:
            share = _share_of_goods(line, tallies.get(line.line_id) or _NO_UNITS, cancelled)
            goods.append(share)
        else:
            share = _Share(line)
        shares.append(share)
    if len(goods) < len(shares):
        _share_charges(facts, shares, goods)
        _share_adjustments(shares, goods)
    fees = _fees(facts) if facts.returns else []
    shipped_minor, unshipped_minor = sum([fee.total_minor for fee in fees]), 0
    for share in shares:
        shipped_minor += share.shipped_minor
        unshipped_minor += share.unshipped_minor
    before_refunds_minor = shipped_minor + unshipped_minor
    if (shipped_minor < 0 or unshipped_minor < 0) and before_refunds_minor >= 0:
        _move_reductions(shares, min(shipped_minor, 0), min(unshipped_minor, 0))
        shipped_minor = max(0, min(shipped_minor, before_refunds_minor))
        unshipped_minor = before_refunds_minor - shipped_minor
    shipped = [_item(s.line, s.shipped_units, s.shipped_minor) for s in shares if s.shipped_units or s.shipped_minor]
    unshipped = [
        _item(s.line, s.unshipped_units, s.unshipped_minor) for s in shares if s.unshipped_units or s.unshipped_minor
    ]
    shipped_cart = Cart(shipped + fees, shipped_minor)
    unshipped_cart = Cart(unshipped, unshipped_minor)
    if facts.refunds:
        shipped_cart, unshipped_cart = _refund(facts, shipped_cart, unshipped_cart)
    return shipped_cart, unshipped_cart, before_refunds_minor


def _share_of_goods(line: Line, units: Tally, cancelled: bool) -> _Share:
    kept = units.kept
    pending = 0 if cancelled else max(0, line.quantity - units.cancelled - units.gone - units.shipped)
    shipped_minor, unshipped_minor = divide(line.total_minor, kept, pending, line.quantity - kept - pending)
    ever = min(units.shipped, line.quantity)
    ever_minor = shipped_minor if ever == kept else divide(line.total_minor, ever, 0, line.quantity - ever)[0]
    return _Share(line, kept, pending, shipped_minor, unshipped_minor, ever, ever_minor)


def _share_charges(facts: Facts, shares: list[_Share], goods: list[_Share]) -> None:
    """A charge follows what was ever shipped: a return does not bring the shipping cost back."""
    refunded = sum([back.refund_handling_minor for back in facts.returns.values()])
    ever_minor = ever_units = unshipped_minor = unshipped_units = 0
    for share in goods:
        ever_minor += share.ever_shipped_minor
        ever_units += share.ever_shipped_units
        unshipped_minor += share.unshipped_minor
        unshipped_units += share.unshipped_units
    weights, units = (ever_minor, unshipped_minor, 0), (ever_units, unshipped_units, 0)
    for share in shares:
        line = share.line
        if line.type in CHARGES:
            total = line.total_minor
            if line.type == "handling":
                taken = min(total, refunded)
                refunded -= taken
                total -= taken
            share.shipped_minor, share.unshipped_minor = _divide_or_units(total, weights, units)


def _share_adjustments(shares: list[_Share], goods: list[_Share]) -> None:
    for share in shares:
        line = share.line
        if line.type == "voucher":
            share.shipped_minor = line.total_minor
        elif line.type not in GOODS and line.type not in CHARGES:
            named = goods if line.applies_to is None else [s for s in goods if s.line.line_id in line.applies_to]
            shipped, unshipped = sum(s.shipped_minor for s in named), sum(s.unshipped_minor for s in named)
            k, p = sum(s.shipped_units for s in named), sum(s.unshipped_units for s in named)
            share.shipped_minor, share.unshipped_minor = _divide_or_units(
                line.total_minor,
                (shipped, unshipped, sum(s.line.total_minor for s in named) - shipped - unshipped),
                (k, p, sum(s.line.quantity for s in named) - k - p),
            )


def _move_reductions(shares: list[_Share], shipped_minor: int, unshipped_minor: int) -> None:
    """Brings the one cart that is below 0 to 0, by moving reductions into the other.

    Reductions of the whole order go before those of single lines, in each group the last line first.
    """
    reductions = [share for share in reversed(shares) if share.line.type in NEGATIVE]
    reductions.sort(key=lambda share: share.line.applies_to is not None)
    for share in reductions:
        moved = max(shipped_minor, share.shipped_minor)
        shipped_minor -= moved
        share.shipped_minor -= moved
        share.unshipped_minor += moved
        moved = max(unshipped_minor, share.unshipped_minor)
        unshipped_minor -= moved
        share.unshipped_minor -= moved
        share.shipped_minor += moved


def _fees(facts: Facts) -> list[Item]:
    with_fee = [(back.stamp, key, back.fee_minor) for key, back in facts.returns.items() if back.fee_minor]
    return [Item("handling", key, FEE_NAME, 0, 0, fee) for _, key, fee in sorted(with_fee)]


def _refund(facts: Facts, shipped: Cart, unshipped: Cart) -> tuple[Cart, Cart]:
    """Refunds come off the shipped cart as far as it reaches, then off the unshipped one; what is left is dropped."""
    paid_back: list[Item] = []
    let_off: list[Item] = []
    shipped_minor, unshipped_minor = shipped.total_minor, unshipped.total_minor
    for key, refund in sorted(facts.refunds.items(), key=lambda entry: entry[1].stamp):
        name = refund.name or REFUND_NAME
        taken = min(refund.amount_minor, shipped_minor)
        if taken > 0:
            shipped_minor -= taken
            paid_back.append(Item("other_payment", key, name, 0, 0, -taken))
        taken = min(refund.amount_minor - max(taken, 0), unshipped_minor)
        if taken > 0:
            unshipped_minor -= taken
            let_off.append(Item("discount", key, name, 0, 0, -taken))
    return _refunded_cart(shipped, paid_back, shipped_minor), _refunded_cart(unshipped, let_off, unshipped_minor)


def _refunded_cart(cart: Cart, refunds: list[Item], total_minor: int) -> Cart:
    if not refunds:
        return cart
    return Cart(cart.items + refunds if total_minor else [], total_minor)


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
