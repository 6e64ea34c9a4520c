"""How the lines of a content are divided between the two carts, never a cent off (`DOMAIN.md` section 5).

One division rule serves everywhere: to divide an amount T by weights, F(x) = T*x/W rounded to the nearest unit,
halves away from zero, and the parts are F(w1), F(w1 + w2) - F(w1), ... So the answer depends only on the counts, not
on the order in which things happened, and the parts always add up to what they divide.
"""

from collections.abc import Iterable, Set
from typing import assert_never

from msgspec import Struct

from schemas.events import CHARGES, FREIGHT, GOODS, LINE_RULES, NEGATIVE
from schemas.facts import Facts, Line, UnitList


class Tally(Struct, gc=False):
    """Units of one line, over all facts that count."""

    shipped: int = 0
    returned: int = 0
    gone: int = 0
    """Returned out of the pending: refunded before they were sent."""
    cancelled: int = 0
    fitted: int = 0
    """Of `gone`, what was returned from `any`."""

    @property
    def kept(self) -> int:
        """What the shopper has."""
        return self.shipped - self.returned


_NO_UNITS = Tally()


class Counts(Struct, gc=False):
    """Units by line id, retracted facts left out."""

    shipped: dict[str, int]
    returned: dict[str, int]
    unsent: dict[str, int]
    """Returned out of the pending."""
    either: dict[str, int]
    """Returned from `any`."""
    cancelled: dict[str, int]

    def has_others(self, lines: Set[str]) -> bool:
        """Whether there are units of any line but these."""
        return not (
            self.shipped.keys() <= lines
            and self.returned.keys() <= lines
            and self.unsent.keys() <= lines
            and self.either.keys() <= lines
            and self.cancelled.keys() <= lines
        )


_NOTHING: dict[str, int] = {}


def count_units(facts: Facts) -> Counts:
    """What the facts say of units. A record may hold hundreds of thousands of them."""
    returned = unsent = either = cancelled = _NOTHING
    if facts.returns:
        backs = facts.returns.values()
        returned = _sums([back.units for back in backs if back.origin == "shipped"])
        # Most shops never return what was not sent: the two other sums are then not worth a pass over all returns.
        if len([None for back in backs if back.origin == "shipped"]) < len(backs):
            unsent = _sums([back.units for back in backs if back.origin == "unshipped"])
            either = _sums([back.units for back in backs if back.origin == "any"])
    if facts.item_cancellations:
        cancelled = _sums([cancellation.units for cancellation in facts.item_cancellations.values()])
    shipped = _sums([shipment.units for shipment in facts.shipments.values()])
    return Counts(shipped, returned, unsent, either, cancelled)


def _sums(lists: list[UnitList | None]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for units in lists:
        for line_id, count in units or ():
            if line_id in sums:
                sums[line_id] += count
            else:
                sums[line_id] = count
    return sums


def tally(counts: Counts, lines: Iterable[Line]) -> dict[str, Tally]:
    """Units by line id; `lines` are those of the newest content."""
    tallies = {line_id: Tally(count) for line_id, count in counts.shipped.items()}
    for line_id, count in counts.returned.items():
        _of(tallies, line_id).returned = count
    for line_id, count in counts.unsent.items():
        _of(tallies, line_id).gone = count
    for line_id, count in counts.cancelled.items():
        _of(tallies, line_id).cancelled = count
    if counts.either:
        ordered = {line.line_id: line.quantity for line in lines}
        for line_id, count in counts.either.items():
            _settle(_of(tallies, line_id), count, ordered.get(line_id))
    return tallies


def _of(tallies: dict[str, Tally], line_id: str) -> Tally:
    known = tallies.get(line_id)
    if known is None:
        known = tallies[line_id] = Tally()
    return known


def _settle(units: Tally, either: int, ordered: int | None) -> None:
    """Of the units returned from `any`, those that fit into what is pending are gone, the others came back.

    Of a line that the newest content lacks (`ordered` is `None`), what was kept came back.
    """
    if ordered is not None:
        # Pending first: whoever says `any` does not know, and a unit that was never sent cannot have come back.
        units.fitted = min(either, max(ordered - units.cancelled - units.gone - units.shipped, 0))
    else:
        # Nothing of it is pending any more, so kept units come first here.
        units.fitted = either - min(either, max(units.kept, 0))
    units.gone += units.fitted
    units.returned += either - units.fitted


def rounded(dividend: int, divisor: int) -> int:
    """The nearest integer to dividend / divisor (divisor > 0), halves away from zero."""
    # The half rounded down decides the same as an exact one: both sides of the comparison are integers.
    if dividend >= 0:
        return (dividend + divisor // 2) // divisor
    return -((divisor // 2 - dividend) // divisor)


def divide(total: int, first: int, second: int, rest: int) -> tuple[int, int]:
    """The parts of `total` that belong to the first two of three weights (none negative, not all 0)."""
    if not rest and not second:  # also spares the division in by far the most frequent case
        return total, 0
    whole = first + second + rest
    part = rounded(total * first, whole) if first else 0
    # F of the whole is the total itself: without a rest the two parts add up to it, whatever was rounded before.
    both = rounded(total * (first + second), whole) if rest else total
    return part, both - part


def divide_or_units(total: int, weights: tuple[int, int, int], units: tuple[int, int, int]) -> tuple[int, int]:
    """Divides by value; by units when the lines are worth nothing; (0, 0) when there are none either."""
    if weights != _NO_WEIGHTS:
        return divide(total, *weights)
    return divide(total, *units) if units != _NO_WEIGHTS else (0, 0)


_NO_WEIGHTS = (0, 0, 0)


_Weights = tuple[tuple[int, int, int], tuple[int, int, int]]
"""What a charge or a registration is divided by: by value, and by units where that is nothing."""


class Share(Struct, gc=False):
    """One line's part in each cart."""

    line: Line
    shipped_units: int = 0
    unshipped_units: int = 0
    shipped_minor: int = 0
    unshipped_minor: int = 0
    ever_shipped_units: int = 0
    ever_shipped_minor: int = 0
    refunded_minor: int = 0
    """Of a handling line: what returns gave back of it."""
    weights: _Weights | None = None
    """Of a charge."""

    @property
    def lost_minor(self) -> int:
        """What is in neither cart: below 0 where more units are taken as kept than were ordered."""
        return self.line.total_minor - self.shipped_minor - self.unshipped_minor


class Shares(Struct, gc=False):
    """All lines of a content, in their order, and those of each kind."""

    all: list[Share]
    goods: list[Share]
    by_id: dict[str, Share]
    """Empty when no line names others."""


def share_content(
    facts: Facts, lines: list[Line], tallies: dict[str, Tally], back: dict[str, int] | None = None
) -> Shares:
    """The parts of all lines. `back`: units, by line id, that are taken as kept although they were returned."""
    cancellation = facts.cancellation_now
    is_cancelled = cancellation is not None and not cancellation.retracted
    shares: list[Share] = []
    goods: list[Share] = []
    others: list[Share] = []
    for line in lines:
        if line.type in GOODS:
            units = tallies.get(line.line_id) or _NO_UNITS
            kept = units.kept if back is None else units.kept + back.get(line.line_id, 0)
            share = _share_of_goods(line, units, kept, is_cancelled)
            goods.append(share)
        else:
            share = Share(line)
            others.append(share)
        shares.append(share)
    made = Shares(shares, goods, {})
    if others:
        _share_others(facts, made, others, is_cancelled)
    return made


def _share_of_goods(line: Line, units: Tally, kept: int, is_cancelled: bool) -> Share:
    quantity = line.quantity
    if units is _NO_UNITS and not kept:
        return Share(line) if is_cancelled else Share(line, 0, quantity, 0, line.total_minor)
    # Not below 0: of an article that was sent again after a return, more units were shipped than ordered.
    pending = 0 if is_cancelled else max(0, quantity - units.cancelled - units.gone - units.shipped)
    if kept + pending <= quantity:
        shipped_minor, unshipped_minor = divide(line.total_minor, kept, pending, quantity - kept - pending)
    else:  # units of an article that was sent again are taken as kept
        shipped_minor = rounded(line.total_minor * kept, quantity)
        unshipped_minor = rounded(line.total_minor * (kept + pending), quantity) - shipped_minor
    # What charges follow. A unit that was sent twice is one unit of the order.
    ever = min(units.shipped, quantity)
    ever_minor = shipped_minor if ever == kept else divide(line.total_minor, ever, 0, quantity - ever)[0]
    return Share(line, kept, pending, shipped_minor, unshipped_minor, ever, ever_minor)


def _share_others(facts: Facts, shares: Shares, others: list[Share], is_cancelled: bool) -> None:
    # An index of all lines costs as much as everything else here, and few orders have charges of some lines.
    if [None for share in others if share.line.applies_to is not None]:
        shares.by_id = {share.line.line_id: share for share in shares.all}
    whole = None if shares.goods else _place_without_goods(facts, is_cancelled)
    _share_charges(facts, shares, others, whole)  # first: registrations may be of charges, and reductions take off them
    of_goods: _Weights | None = None
    has_reductions = False
    for share in others:
        line = share.line
        match LINE_RULES[line.type].division:
            case "goods" | "charge":  # they have been divided
                pass
            case "voucher":
                share.shipped_minor = line.total_minor  # issued for what was not sent: it belongs to no units
            case "reduction":
                has_reductions = True
            case "registration":
                if whole is not None:
                    share.shipped_minor = line.total_minor * whole[0]
                    share.unshipped_minor = line.total_minor * whole[1]
                    continue
                if line.applies_to is not None:
                    weights = _weights_of_registration([shares.by_id[line_id] for line_id in line.applies_to])
                else:
                    weights = of_goods = of_goods or _weights_of_registration(shares.goods)
                share.shipped_minor, share.unshipped_minor = divide_or_units(line.total_minor, *weights)
            case unknown:
                assert_never(unknown)
    if has_reductions:
        _share_reductions(shares)


def _place_without_goods(facts: Facts, is_cancelled: bool) -> tuple[int, int]:
    """Where a content without goods has its lines, as factors: shipped, unshipped, or nowhere any more."""
    # `None`: it was retracted. One with an empty list counts: something went out, if no goods of this content.
    if any(shipment.units is not None for shipment in facts.shipments.values()):
        return 1, 0
    return (0, 0) if is_cancelled else (0, 1)


def _share_charges(facts: Facts, shares: Shares, others: list[Share], whole: tuple[int, int] | None) -> None:
    """A charge follows what was ever shipped: a return does not bring the shipping cost back."""
    refunded = sum([back.refund_handling_minor for back in facts.returns.values()]) if facts.returns else 0
    of_all: _Weights | None = None if whole is None else ((*whole, 0), (0, 0, 0))
    for share in others:
        line = share.line
        if line.type in CHARGES:
            total = line.total_minor
            # Before it is divided: what was refunded of the freight is in neither cart.
            if refunded and line.type in FREIGHT:
                share.refunded_minor = taken = min(total, refunded)
                refunded -= taken
                total -= taken
            if line.applies_to is not None:
                weights = _weights_of_charge([shares.by_id[line_id] for line_id in line.applies_to])
            else:
                weights = of_all = of_all or _weights_of_charge(shares.goods)
            share.weights = weights
            share.shipped_minor, share.unshipped_minor = divide_or_units(total, *weights)


def _weights_of_charge(goods: list[Share]) -> _Weights:
    ever_minor = ever_units = unshipped_minor = unshipped_units = 0
    for share in goods:
        ever_minor += share.ever_shipped_minor
        ever_units += share.ever_shipped_units
        unshipped_minor += share.unshipped_minor
        unshipped_units += share.unshipped_units
    return (ever_minor, unshipped_minor, 0), (ever_units, unshipped_units, 0)


def _weights_of_registration(named: list[Share]) -> _Weights:
    shipped_minor = unshipped_minor = lost_minor = shipped = unshipped = lost = 0
    for share in named:
        shipped_minor += share.shipped_minor
        unshipped_minor += share.unshipped_minor
        lost_minor += share.lost_minor
        if share.weights is None:
            shipped += share.shipped_units
            unshipped += share.unshipped_units
            lost += share.line.quantity - share.shipped_units - share.unshipped_units
        else:
            shipped += share.weights[1][0]
            unshipped += share.weights[1][1]
    return (shipped_minor, unshipped_minor, lost_minor), (shipped, unshipped, lost)


# --- reductions ------------------------------------------------------------------------------------------------------

_SHIPPED, _UNSHIPPED, _LOST, _SPARE = range(4)
_Purses = tuple[list[int], list[int], list[int], list[int]]
"""What each line, by number, still has for reductions: shipped, unshipped, lost, and spare.

Spare is what was refunded of charges: it has no weight, but carries what is left.
"""


def _share_reductions(shares: Shares) -> None:
    """They take only what is there: first those of some lines, then the others and what these could not carry."""
    purses: _Purses = (
        [share.shipped_minor for share in shares.all],
        [share.unshipped_minor for share in shares.all],
        # What was refunded of a charge was lost, too, but may not attract reductions: they would then come off less of
        # the rest, and a refund would raise what is owed.
        [share.lost_minor - share.refunded_minor for share in shares.all],
        [share.refunded_minor for share in shares.all],
    )
    reductions = [share for share in shares.all if share.line.type in NEGATIVE]
    left = _share_named(reductions, shares, purses) if shares.by_id else {}
    goods, charges, others = [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]
    for share, *places in zip(shares.all, *purses, strict=True):
        kind = share.line.type
        if kind not in NEGATIVE:
            group = goods if kind in GOODS else charges if kind in CHARGES else others
            for place, minor in enumerate(places):
                group[place] += minor
    for number, share in enumerate(reductions):
        amount = left.get(number, -share.line.total_minor)
        # In this order, and only as far as each reaches: a discount on goods must not eat the freight, nor make a cart
        # negative.
        for group in (goods, charges, others):
            if amount:
                amount = _take_together(share, amount, group)


def _take_together(share: Share, amount: int, group: list[int]) -> int:
    """Takes what it can of the amount; returns what is left of it."""
    shipped, unshipped, lost, spare = group
    taken = min(amount, shipped + unshipped + lost)
    if taken:
        off_shipped, off_unshipped = divide(taken, shipped, unshipped, lost)
        share.shipped_minor -= off_shipped
        share.unshipped_minor -= off_unshipped
        group[_SHIPPED] -= off_shipped
        group[_UNSHIPPED] -= off_unshipped
        group[_LOST] -= taken - off_shipped - off_unshipped
        amount -= taken
    taken = min(amount, spare)
    group[_SPARE] -= taken
    return amount - taken


def _share_named(reductions: list[Share], shares: Shares, purses: _Purses) -> dict[int, int]:
    """Takes the reductions of some lines off these; returns what they could not carry, by number of the reduction."""
    numbers = {line_id: number for number, line_id in enumerate(shares.by_id)}
    left: dict[int, int] = {}
    for number, reduction in enumerate(reductions):
        if reduction.line.applies_to is not None:
            named = sorted(map(numbers.__getitem__, reduction.line.applies_to))
            left[number] = _take_in_turn(reduction, named, purses)
    return left


def _take_in_turn(reduction: Share, named: list[int], purses: _Purses) -> int:
    """Over the shipped parts of the lines, then their unshipped ones, then what they lost; returns what is left."""
    # One F over all parts, in this order, rather than one for each cart: what a return moves from "shipped" to "lost"
    # then changes neither the sum nor the part of what is still to be shipped.
    amount = -reduction.line.total_minor
    wholes = [sum(map(purse.__getitem__, named)) for purse in purses[:_SPARE]]
    whole = sum(wholes)
    taken = min(amount, whole)
    if taken:
        shipped = _spread(purses[_SHIPPED], named, taken, whole)
        both = _spread(purses[_UNSHIPPED], named, taken, whole, wholes[_SHIPPED])
        _spread(purses[_LOST], named, taken, whole, wholes[_SHIPPED] + wholes[_UNSHIPPED])
        reduction.shipped_minor, reduction.unshipped_minor = -shipped, shipped - both
        amount -= taken
    return _take_spare(amount, named, purses[_SPARE]) if amount else 0


def _spread(weights: list[int], named: Iterable[int], total: int, whole: int, reached: int = 0) -> int:
    """Divides a total that is not above `whole` over these weights, before which so much of `whole` is reached, and
    takes the parts off them; returns F of where it ends.

    An order may have hundreds of thousands of parts: this is `rounded`, for what is not below 0.
    """
    half = whole // 2
    end = (total * reached + half) // whole
    for number in named:
        weight = weights[number]
        if weight:
            reached += weight
            before, end = end, (total * reached + half) // whole
            weights[number] = weight - end + before
    return end


def _take_spare(amount: int, named: list[int], spare: list[int]) -> int:
    for number in named:
        if spare[number]:
            taken = min(amount, spare[number])
            spare[number] -= taken
            amount -= taken
    return amount


def net_totals(shares: Shares) -> list[int]:
    """By number of the line, the total of goods and charges less its part of the reductions, as if nothing were lost.

    What was refunded of a charge is not there any more, but carries what these lines otherwise cannot.
    """
    net = [share.line.total_minor - share.refunded_minor for share in shares.all]
    spare = [share.refunded_minor for share in shares.all]
    numbers = {share.line.line_id: number for number, share in enumerate(shares.all)}
    of_all = 0
    for share in shares.all:
        line = share.line
        if line.type in NEGATIVE:
            amount = -line.total_minor
            if line.applies_to is not None:
                named = sorted(map(numbers.__getitem__, line.applies_to))
                amount = _take_net(net, amount, named)
                if amount:
                    amount = _take_spare(amount, named, spare)
            of_all += amount
    for kinds in (GOODS, CHARGES):
        group = [number for number, share in enumerate(shares.all) if share.line.type in kinds]
        of_all = _take_net(net, of_all, group)
    return net


def _take_net(net: list[int], amount: int, named: list[int]) -> int:
    """Takes the amount off these lines as far as they have something; returns what is left of it."""
    whole = sum(map(net.__getitem__, named))
    taken = min(amount, whole)
    if taken:
        _spread(net, named, taken, whole)
    return amount - taken
