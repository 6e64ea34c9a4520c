"""What was paid back beside the lines: refunds, and returns that say how much (`domain.md` section 5).

Refunds of some lines go with these lines. Then both carts together are brought to what returns say was paid back for
their units. Last comes what is left of the refunds: off the shipped cart as far as it reaches, then off the other one.
"""

from msgspec import Struct

from schemas.facts import Facts, Line, Refund, Return, Stamp
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


class _Part(Struct, gc=False):
    """What a refund takes of one line."""

    part_minor: int
    share: Share | None
    """`None`: the newest content lacks the line."""
    net_minor: int
    whole_minor: int
    """What the units were worth that were there when the refund was given."""
    returned_since: int
    """Units that returns with an amount of their own took since then."""

    def in_carts(self, *, as_kept: bool) -> tuple[int, int]:
        """The parts that come off the carts; `as_kept`: with the units of such returns."""
        share = self.share
        if share is None or not self.part_minor:
            return 0, 0
        if share.weights is not None:
            return divide_or_units(self.part_minor, *share.weights)
        kept = share.shipped_units + (self.returned_since if as_kept else 0)
        quantity = share.line.quantity
        up_to = [
            min(rounded(self.part_minor * rounded(self.net_minor * units, quantity), self.whole_minor), self.part_minor)
            for units in (kept, kept + share.unshipped_units)
        ]
        return up_to[0], up_to[1] - up_to[0]


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
        shipped_minor, unshipped_minor = _take_parts(parts, off, left, shipped_minor, unshipped_minor, as_kept=False)
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
    named = {number: refund for number, (_, refund) in enumerate(refunds) if refund.applies_to is not None}
    if not named:
        return {}
    net = net_totals(shares)
    by_id = {share.line.line_id: share for share in shares.goods + shares.charges}
    worth = _worth_when_given(facts, named, counted, tallies, net, by_id)
    taken: dict[str, int] = {}
    parts: dict[int, list[_Part]] = {}
    for number, refund in named.items():
        ids = refund.applies_to or []
        there = [max(0, whole - taken.get(line_id, 0)) for line_id, (whole, _) in zip(ids, worth[number], strict=True)]
        whole_there = sum(there)
        amount = min(refund.amount_minor, whole_there)
        reached = before = 0
        parts[number] = []
        for line_id, available, (whole, since) in zip(ids, there, worth[number], strict=True):
            if available and amount:
                reached += available
                up_to = rounded(amount * reached, whole_there)
                part, before = up_to - before, up_to
                taken[line_id] = taken.get(line_id, 0) + part
                parts[number].append(_Part(part, by_id.get(line_id), net.get(line_id, 0), whole, since))
    return parts


def _worth_when_given(
    facts: Facts,
    named: dict[int, Refund],
    counted: list[tuple[str, Return]],
    tallies: dict[str, Tally],
    net: dict[str, int],
    by_id: dict[str, Share],
) -> dict[int, list[tuple[int, int]]]:
    """By refund and line: what was there then was worth, and units that returns of `counted` took since."""
    amounts = {key for key, _ in counted}
    losses: list[tuple[Stamp, list[tuple[str, int]], bool]] = [
        (back.stamp, back.units, key in amounts) for key, back in facts.returns.items() if back.units
    ]
    losses += [(fact.stamp, fact.units, False) for fact in facts.item_cancellations.values() if fact.units]
    losses.sort(key=lambda loss: loss[0])
    cancellation = None if facts.cancellation is None or facts.cancellation.retracted else facts.cancellation
    lost: dict[str, int] = {}
    returned: dict[str, int] = {}
    worth: dict[int, list[tuple[int, int]]] = {}
    for number, refund in reversed(named.items()):
        while losses and losses[-1][0] > refund.stamp:
            _, units, is_counted = losses.pop()
            for line_id, count in units:
                lost[line_id] = lost.get(line_id, 0) + count
                if is_counted:
                    returned[line_id] = returned.get(line_id, 0) + count
        is_cancelled_since = cancellation is not None and cancellation.stamp > refund.stamp
        row: list[tuple[int, int]] = []
        for line_id in refund.applies_to or ():
            share = by_id.get(line_id)
            if share is None:
                known = facts.former_worth.get(line_id)
                row.append((0 if known is None else known[2], 0))
            elif share.weights is not None:
                row.append((net[line_id], 0))
            else:
                quantity = share.line.quantity
                there = share.shipped_units + share.unshipped_units + lost.get(line_id, 0)
                if is_cancelled_since:
                    known_units = tallies.get(line_id) or Tally()
                    there += max(0, quantity - known_units.cancelled - known_units.gone - known_units.shipped)
                there = min(there, quantity)
                row.append((rounded(net[line_id] * there, quantity), returned.get(line_id, 0)))
        worth[number] = row
    return worth


def _take_parts(
    parts: dict[int, list[_Part]],
    off: list[Off],
    left: list[int],
    shipped_minor: int,
    unshipped_minor: int,
    *,
    as_kept: bool,
) -> tuple[int, int]:
    """Takes the refunds' parts off their carts as far as these reach; returns what remains of the carts."""
    for number, of_lines in parts.items():
        off_shipped = off_unshipped = whole = 0
        for part in of_lines:
            one, other = part.in_carts(as_kept=as_kept)
            off_shipped += one
            off_unshipped += other
            whole += part.part_minor
        gone = whole - off_shipped - off_unshipped
        off_shipped, off_unshipped = min(off_shipped, shipped_minor), min(off_unshipped, unshipped_minor)
        shipped_minor -= off_shipped
        unshipped_minor -= off_unshipped
        if not as_kept:
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
    return sum(_take_parts(parts, [], [], shipped_minor, unshipped_minor, as_kept=True))
