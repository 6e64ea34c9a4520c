"""What was paid back beside the lines: refunds, and returns that say how much (`domain.md` section 5).

Refunds of some lines go with these lines. Then both carts together are brought to what returns say was paid back for
their units. Last comes what is left of the refunds: off the shipped cart as far as it reaches, then off the other one.
"""

from msgspec import Struct

from schemas.facts import Facts, Line, Refund, Return, Stamp
from worker.core.shares import Share, Shares, Tally, Weights, divide_or_units, net_totals, rounded, share_content

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


class _Part(Struct, gc=False):
    """What a refund takes of one line."""

    line: _Line
    minor: int
    worth_minor: int
    """Of what was there of the line when the refund was given."""
    returned_since: int

    def in_carts(self, as_kept: dict[str, Weights] | None) -> tuple[int, int]:
        """The parts that come off the carts; `as_kept`: with the units that returns with an amount took since, and
        what charges are divided by then.

        With more units than were ordered, each has its part all the same.
        """
        share = self.line.share
        if share is None:
            return 0, 0
        if share.weights is not None:
            weights = share.weights if as_kept is None else as_kept[share.line.line_id]
            return divide_or_units(self.minor, *weights)
        kept = share.shipped_units + (0 if as_kept is None else self.returned_since)
        net, quantity = self.line.net_minor, share.line.quantity
        off_kept = rounded(self.minor * rounded(net * kept, quantity), self.worth_minor)
        off_both = rounded(self.minor * rounded(net * (kept + share.unshipped_units), quantity), self.worth_minor)
        return off_kept, off_both - off_kept


class _Claim(Struct, gc=False):
    """A refund of some lines."""

    number: int
    refund: Refund
    lines: list[_Line]
    """As the refund names them."""
    worths: list[int] = []
    returned_since: list[int] = []
    """Empty when no return has an amount of its own."""


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
    refunds = sorted(
        [entry for entry in facts.refunds.items() if entry[1].amount_minor], key=lambda entry: entry[1].stamp
    )
    counted = _with_amount(facts, shares)
    parts = _divide(facts, refunds, counted, tallies, shares)
    off = [Off(key, refund.name) for key, refund in refunds]
    left = [refund.amount_minor for _, refund in refunds]
    if parts:
        shipped_minor, unshipped_minor = _take_parts(parts, off, left, shipped_minor, unshipped_minor, None)
    difference, excess = None, None
    if counted:
        paid_minor = sum(back.refunded_minor or 0 for _, back in counted)
        most_minor = _as_kept(facts, lines, tallies, counted, parts, fees_minor)
        if paid_minor > most_minor + len(lines):
            excess = [key for key, _ in counted], paid_minor, most_minor
        newest = counted[-1][0]
        missing = most_minor - paid_minor - shipped_minor - unshipped_minor
        if missing > 0:
            difference = newest, missing
            shipped_minor += missing
        elif missing < 0:
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


def _with_amount(facts: Facts, shares: Shares) -> list[tuple[str, Return]]:
    """The returns that say what was paid back for their units, while the content has all their lines; by stamp."""
    found = [entry for entry in facts.returns.items() if entry[1].refunded_minor is not None]
    if not found:
        return []
    goods = {share.line.line_id for share in shares.goods}
    found = [entry for entry in found if all(line_id in goods for line_id, _ in entry[1].units or ())]
    return sorted(found, key=lambda entry: entry[1].stamp)


def _divide(
    facts: Facts,
    refunds: list[tuple[str, Refund]],
    counted: list[tuple[str, Return]],
    tallies: dict[str, Tally],
    shares: Shares,
) -> dict[int, list[_Part]]:
    """By number of the refund, what it takes of each of its lines; only of refunds that name lines."""
    if all(refund.applies_to is None for _, refund in refunds):
        return {}
    claims = _claims(facts, refunds, shares)
    _look_back(facts, claims, counted, tallies)
    return {claim.number: _parts(claim) for claim in claims}


def _claims(facts: Facts, refunds: list[tuple[str, Refund]], shares: Shares) -> list[_Claim]:
    net = net_totals(shares)
    order = {share.line.line_id: number for number, share in enumerate(shares.all)}
    lines: dict[str, _Line] = {}
    claims: list[_Claim] = []
    for number, (_, refund) in enumerate(refunds):
        if refund.applies_to is None:
            continue
        for line_id in refund.applies_to:
            if line_id in lines:
                continue
            if line_id in order:
                share = shares.all[order[line_id]]
                lines[line_id] = _Line(share, net[line_id], -1 if share.weights is None else net[line_id])
            else:
                known = facts.former_worth.get(line_id)
                lines[line_id] = _Line(None, 0, 0 if known is None else known[2])
        claims.append(_Claim(number, refund, [lines[line_id] for line_id in refund.applies_to]))
    return claims


def _look_back(
    facts: Facts, claims: list[_Claim], counted: list[tuple[str, Return]], tallies: dict[str, Tally]
) -> None:
    """What the lines of each refund were worth when it was given: the newest first, while what was lost comes back."""
    lines = {line.share.line.line_id: line for claim in claims for line in claim.lines if line.share is not None}
    amounts = {key for key, _ in counted}
    losses: list[tuple[Stamp, list[tuple[str, int]], bool]] = [
        (back.stamp, back.units, key in amounts) for key, back in facts.returns.items() if back.units
    ]
    losses += [(fact.stamp, fact.units, False) for fact in facts.item_cancellations.values() if fact.units]
    cancellation = facts.cancellation
    if cancellation is not None and not cancellation.retracted:
        losses.append((cancellation.stamp, _cancelled_units(lines, tallies), False))
    losses.sort(key=lambda loss: loss[0])
    for claim in reversed(claims):
        while losses and losses[-1][0] > claim.refund.stamp:
            _, units, is_counted = losses.pop()
            for line_id, count in units:
                line = lines.get(line_id)
                if line is not None:
                    line.lost_since += count
                    line.worth_minor = -1
                    if is_counted:
                        line.returned_since += count
        claim.worths = [line.worth_minor if line.worth_minor >= 0 else _reckon(line) for line in claim.lines]
        if counted:
            claim.returned_since = [line.returned_since for line in claim.lines]


def _reckon(line: _Line) -> int:
    share = line.share
    assert share is not None  # what the newest content lacks is worth what it was
    quantity = share.line.quantity
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


def _parts(claim: _Claim) -> list[_Part]:
    """Over the lines, by what older refunds left of what was there."""
    there = [max(0, worth - line.taken_minor) for worth, line in zip(claim.worths, claim.lines, strict=True)]
    whole = sum(there)
    amount = min(claim.refund.amount_minor, whole)
    if not amount:
        return []
    parts: list[_Part] = []
    reached = reached_off = 0
    for index, available in enumerate(there):
        reached += available
        up_to = rounded(amount * reached, whole)
        minor, reached_off = up_to - reached_off, up_to
        if minor:
            line = claim.lines[index]
            line.taken_minor += minor
            since = claim.returned_since[index] if claim.returned_since else 0
            parts.append(_Part(line, minor, claim.worths[index], since))
    return parts


def _take_parts(
    parts: dict[int, list[_Part]],
    off: list[Off],
    left: list[int],
    shipped_minor: int,
    unshipped_minor: int,
    as_kept: dict[str, Weights] | None,
) -> tuple[int, int]:
    """Takes the refunds' parts off their carts as far as these reach; returns what remains of the carts."""
    for number, of_lines in parts.items():
        off_shipped = off_unshipped = whole = 0
        for part in of_lines:
            one, other = part.in_carts(as_kept)
            off_shipped += one
            off_unshipped += other
            whole += part.minor
        gone = whole - off_shipped - off_unshipped
        off_shipped, off_unshipped = min(off_shipped, shipped_minor), min(off_unshipped, unshipped_minor)
        shipped_minor -= off_shipped
        unshipped_minor -= off_unshipped
        if as_kept is None:
            off[number].shipped_minor, off[number].unshipped_minor = off_shipped, off_unshipped
            left[number] -= off_shipped + off_unshipped + gone
    return shipped_minor, unshipped_minor


def _as_kept(
    facts: Facts,
    lines: list[Line],
    tallies: dict[str, Tally],
    counted: list[tuple[str, Return]],
    parts: dict[int, list[_Part]],
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
    weights = {share.line.line_id: share.weights for share in shares.charges if share.weights is not None}
    return sum(_take_parts(parts, [], [], shipped_minor, unshipped_minor, weights))
