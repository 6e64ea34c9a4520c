"""What was paid back beside the lines: refunds, and returns that say how much (`DOMAIN.md` section 5).

Refunds of some lines go with these lines. Then both carts together are brought to what returns say was paid back for
their units. Last comes what is left of the refunds: off the shipped cart as far as it reaches, then off the other one.
"""

from itertools import repeat

from msgspec import Struct

from schemas.facts import Facts, Line, Moment, Refund, Return, Stamp
from worker.core.shares import Share, Shares, Tally, divide_or_units, net_totals, rounded, share_content

DIFFERENCE_NAME = "Return difference"


class Off(Struct, gc=False):
    """What comes off each cart under one id."""

    key: str
    name: str | None
    shipped_minor: int = 0
    unshipped_minor: int = 0


class Settled(Struct, gc=False):
    """What follows from all that was paid back."""

    shipped_minor: int
    """Total of the shipped cart."""
    unshipped_minor: int
    difference: tuple[str, int] | None
    """Return and amount of an item of the shipped cart."""
    off: list[Off]
    excess: tuple[list[str], int, int] | None
    """Returns, what they paid back, and the most that it could be, when that is a contradiction."""


class _Line(Struct, gc=False):
    """A line that refunds name."""

    number: int
    """In the newest content."""
    share: Share | None
    """`None`: the newest content lacks it."""
    net_minor: int
    worth_minor: int
    """Of what was there of it when the refund was given that is looked at; below 0: not reckoned yet."""
    taken_minor: int = 0
    """By the refunds that were divided so far."""
    lost_since: int = 0
    returned_since: int = 0
    """Of these, units that returns with an amount of their own took."""
    kept_minor: int = 0
    """What units of goods that are kept are worth."""
    both_minor: int = 0
    """What they are worth with the pending ones."""
    back: int = 0
    """Units that the next two take as kept, too, although they came back."""
    kept_with_back_minor: int = 0
    both_with_back_minor: int = 0

    def __post_init__(self) -> None:
        if self.share is not None and self.share.weights is None:
            self.kept_minor, self.both_minor = self.worths(0)

    def worths(self, back: int) -> tuple[int, int]:
        """The same with so many more units as kept. With more than were ordered, each has its part all the same."""
        share = self.share
        assert share is not None  # what the newest content lacks has no units
        kept, quantity = share.shipped_units + back, share.line.quantity
        return (
            rounded(self.net_minor * kept, quantity),
            rounded(self.net_minor * (kept + share.unshipped_units), quantity),
        )


class _Claim(Struct, gc=False):
    """A refund of some lines."""

    number: int
    refund: Refund
    lines: list[_Line]
    """As the refund names them."""
    worths: list[int] = []
    returned_since: list[int] = []
    """Empty when no return has an amount of its own."""
    gone_minor: int = 0
    """What its lines took along, or had lost."""
    off: tuple[int, int] = (0, 0)
    """What comes off each cart."""
    off_as_kept: tuple[int, int] = (0, 0)
    """Of goods the same, with the units of returns that have an amount of their own."""
    of_charges: list[tuple[int, int]] = []
    """Numbers of charges, and what comes off them; empty when no return has an amount of its own."""


def settle(
    facts: Facts,
    lines: list[Line],
    tallies: dict[str, Tally],
    shares: Shares,
    shipped_minor: int,
    unshipped_minor: int,
    fees_minor: int,
) -> Settled:
    """What is left of the carts, which add up to these totals, fees included."""
    # Of 0: retracted, or as good as that.
    refunds = [entry for entry in facts.refunds.items() if entry[1].amount_minor]
    if len(refunds) > 1:
        refunds.sort(key=lambda entry: entry[1].stamp)
    counted = _with_amount(facts, shares) if has_amounts(facts) else []
    claims: list[_Claim] = []
    if [None for _, refund in refunds if refund.applies_to is not None]:
        claims = _divide(facts, refunds, counted, tallies, shares)
    off = [Off(key, refund.name) for key, refund in refunds]
    left = [refund.amount_minor for _, refund in refunds]
    for claim in claims:
        one = off[claim.number]
        # Bounded by the cart: what it cannot absorb is part of the rest, which may come off the other one.
        one.shipped_minor = min(claim.off[0], shipped_minor)
        one.unshipped_minor = min(claim.off[1], unshipped_minor)
        shipped_minor -= one.shipped_minor
        unshipped_minor -= one.unshipped_minor
        left[claim.number] -= claim.gone_minor + one.shipped_minor + one.unshipped_minor
    difference, excess = None, None
    if counted:
        paid_minor = sum(back.refunded_minor or 0 for _, back in counted)
        most_minor = _as_kept(facts, lines, tallies, counted, claims, fees_minor)
        # A cent for each line: every line is rounded on its own, and a shop that rounds differently is not wrong.
        if paid_minor > most_minor + len(lines):
            excess = [key for key, _ in counted], paid_minor, most_minor
        newest = counted[-1][0]
        missing = most_minor - paid_minor - shipped_minor - unshipped_minor
        if missing > 0:
            difference = newest, missing
            shipped_minor += missing
        elif missing < 0:  # before all other refunds: it is about units, and they are what is left of the money
            off.insert(0, Off(newest, DIFFERENCE_NAME))
            left.insert(0, -missing)
    for one, amount in zip(off, left, strict=True):
        taken = min(amount, shipped_minor)
        one.shipped_minor += taken
        shipped_minor -= taken
        taken = min(amount - taken, unshipped_minor)
        one.unshipped_minor += taken
        unshipped_minor -= taken
    return Settled(shipped_minor, unshipped_minor, difference, off, excess)


def has_amounts(facts: Facts) -> bool:
    """Whether any return says what was paid back for its units."""
    return bool([None for back in facts.returns.values() if back.refunded_minor is not None])


def _with_amount(facts: Facts, shares: Shares) -> list[tuple[str, Return]]:
    """The returns that say what was paid back for their units, while the content has all their lines; by stamp."""
    goods = {share.line.line_id for share in shares.goods}
    found = [
        (key, back)
        for key, back in facts.returns.items()
        if back.refunded_minor is not None and goods.issuperset([line_id for line_id, _ in back.units or ()])
    ]
    return sorted(found, key=lambda entry: entry[1].stamp)


def _divide(
    facts: Facts,
    refunds: list[tuple[str, Refund]],
    counted: list[tuple[str, Return]],
    tallies: dict[str, Tally],
    shares: Shares,
) -> list[_Claim]:
    """The refunds that name lines, the oldest first, each divided over these."""
    claims, lines = _claims(facts, refunds, shares)
    _look_back(facts, claims, lines, counted, tallies)
    for claim in claims:
        _share_out(claim)
    return claims


def _claims(facts: Facts, refunds: list[tuple[str, Refund]], shares: Shares) -> tuple[list[_Claim], dict[str, _Line]]:
    """The refunds of some lines, and by line id all lines that they name."""
    net = net_totals(shares)
    order = {share.line.line_id: number for number, share in enumerate(shares.all)}
    lines: dict[str, _Line] = {}
    claims: list[_Claim] = []
    for number, (_, refund) in enumerate(refunds):
        if refund.applies_to is None:
            continue  # all of it is rest
        try:
            named = list(map(lines.__getitem__, refund.applies_to))
        except KeyError:  # it is the first one that names some of them
            for line_id in refund.applies_to:
                if line_id not in lines:
                    lines[line_id] = _line(facts, shares, order.get(line_id), net, line_id)
            named = list(map(lines.__getitem__, refund.applies_to))
        claims.append(_Claim(number, refund, named))
    return claims, lines


def _line(facts: Facts, shares: Shares, number: int | None, net: list[int], line_id: str) -> _Line:
    if number is None:
        known = facts.former_worth.get(line_id)
        return _Line(-1, None, 0, 0 if known is None else known[2])
    share = shares.all[number]
    return _Line(number, share, net[number], -1 if share.weights is None else net[number])


def _look_back(
    facts: Facts,
    claims: list[_Claim],
    lines: dict[str, _Line],
    counted: list[tuple[str, Return]],
    tallies: dict[str, Tally],
) -> None:
    """What the lines of each refund were worth when it was given: the newest first, while what was lost comes back."""
    lines = {line_id: line for line_id, line in lines.items() if line.share is not None}
    amounts = {key for key, _ in counted}
    losses: list[tuple[Stamp, list[tuple[str, int]], bool]] = [
        (back.stamp, back.units, key in amounts) for key, back in facts.returns.items() if back.units
    ]
    losses += [(fact.stamp, fact.units, False) for fact in facts.item_cancellations.values() if fact.units]
    cancellation = facts.cancellation_now
    said_at: Moment | None = None
    if cancellation is not None and not cancellation.retracted:
        if cancellation is facts.cancellation:  # the shop's own; a provider's has no sequence, so no place among stamps
            losses.append((cancellation.stamp, _cancelled_units(lines, tallies), False))
        else:
            said_at = cancellation.stamp[1:]
    # Backwards in time, so that one pass over the losses does for all refunds.
    losses.sort(key=lambda loss: loss[0])
    is_back = False
    for claim in reversed(claims):
        while losses and losses[-1][0] > claim.refund.stamp:
            _, units, is_counted = losses.pop()
            _come_back(lines, units, 1, is_counted=is_counted)
        if said_at is not None and (said_at > claim.refund.stamp[1:]) != is_back:
            is_back = not is_back  # what the provider says goes by time: with sequences it may be to and fro
            _come_back(lines, _cancelled_units(lines, tallies), 1 if is_back else -1, is_counted=False)
        claim.worths = [worth if (worth := line.worth_minor) >= 0 else _reckon(line) for line in claim.lines]
        if counted:
            claim.returned_since = [line.returned_since for line in claim.lines]


def _come_back(lines: dict[str, _Line], units: list[tuple[str, int]], sign: int, *, is_counted: bool) -> None:
    """Units that were lost later than the refund that is looked at were there; `sign` −1: they were not after all."""
    for line_id, count in units:
        line = lines.get(line_id)
        if line is not None:
            line.lost_since += sign * count
            line.worth_minor = -1
            if is_counted:
                line.returned_since += count


def _reckon(line: _Line) -> int:
    share = line.share
    assert share is not None  # what the newest content lacks is worth what it was
    quantity = share.line.quantity
    # At most what was ordered: of an article that was sent again, the same unit may be lost twice.
    there = min(share.shipped_units + share.unshipped_units + line.lost_since, quantity)
    line.worth_minor = rounded(line.net_minor * there, quantity)
    return line.worth_minor


def _cancelled_units(lines: dict[str, _Line], tallies: dict[str, Tally]) -> list[tuple[str, int]]:
    """What the order's cancellation took of goods."""
    found: list[tuple[str, int]] = []
    for line_id, line in lines.items():
        if line.share is not None and line.share.weights is None:
            units = tallies.get(line_id) or Tally()
            pending = line.share.line.quantity - units.cancelled - units.gone - units.shipped
            if pending > 0:
                found.append((line_id, pending))
    return found


def _share_out(claim: _Claim) -> None:
    """Over the lines, by what older refunds left of what was there."""
    there = [worth - line.taken_minor for worth, line in zip(claim.worths, claim.lines, strict=True)]
    whole = sum([minor for minor in there if minor > 0])
    amount = min(claim.refund.amount_minor, whole)
    if not amount:
        return
    off_shipped = off_both = kept_shipped = kept_both = 0
    reached = end = 0
    half_whole = whole // 2
    of_charges: list[tuple[int, int]] = []
    # Hundreds of refunds may name hundreds of lines each: here `rounded` stands written out, for what is not below 0.
    for line, available, worth, back in zip(
        claim.lines, there, claim.worths, claim.returned_since or repeat(0), strict=False
    ):
        if available <= 0:
            continue
        reached += available
        before, end = end, (amount * reached + half_whole) // whole
        minor = end - before
        if not minor:
            continue
        line.taken_minor += minor
        share = line.share
        if share is None:
            continue  # its part is gone with the line, and comes off neither cart
        if share.weights is not None:
            shipped_minor, unshipped_minor = divide_or_units(minor, *share.weights)
            off_shipped += shipped_minor
            off_both += shipped_minor + unshipped_minor
            if claim.returned_since:
                of_charges.append((line.number, minor))
            continue
        half = worth // 2
        kept_minor, both_minor = line.kept_minor, line.both_minor
        shipped_minor = (minor * kept_minor + half) // worth
        both = shipped_minor if both_minor == kept_minor else (minor * both_minor + half) // worth
        off_shipped += shipped_minor
        off_both += both
        if back:
            if back != line.back:
                line.back = back
                line.kept_with_back_minor, line.both_with_back_minor = line.worths(back)
            kept_minor, both_minor = line.kept_with_back_minor, line.both_with_back_minor
            shipped_minor = (minor * kept_minor + half) // worth
            both = shipped_minor if both_minor == kept_minor else (minor * both_minor + half) // worth
        kept_shipped += shipped_minor
        kept_both += both
    claim.gone_minor = amount - off_both
    claim.off = off_shipped, off_both - off_shipped
    claim.off_as_kept = kept_shipped, kept_both - kept_shipped
    claim.of_charges = of_charges


def _as_kept(
    facts: Facts,
    lines: list[Line],
    tallies: dict[str, Tally],
    counted: list[tuple[str, Return]],
    claims: list[_Claim],
    fees_minor: int,
) -> int:
    """What both carts together would be if the units of these returns were still kept."""
    back: dict[str, int] = {}
    for _, fact in counted:
        for line_id, units in fact.units or ():
            back[line_id] = back.get(line_id, 0) + units
    shares = share_content(facts, lines, tallies, back)
    shipped_minor = fees_minor + sum([share.shipped_minor for share in shares.all])
    unshipped_minor = sum([share.unshipped_minor for share in shares.all])
    for claim in claims:
        off_shipped, off_unshipped = claim.off_as_kept
        for number, minor in claim.of_charges:
            weights = shares.all[number].weights
            assert weights is not None  # a charge
            one, other = divide_or_units(minor, *weights)
            off_shipped += one
            off_unshipped += other
        # As `settle` bounds them: otherwise the comparison would find a difference where there is none.
        shipped_minor -= min(off_shipped, shipped_minor)
        unshipped_minor -= min(off_unshipped, unshipped_minor)
    return shipped_minor + unshipped_minor
