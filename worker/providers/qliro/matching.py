"""Matches our lines with Qliro's items: the units of each line, by Qliro's identity. Pure."""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from worker.providers.qliro.order import Units
from worker.providers.qliro.wanted import Goods, Wanted


class Match(Struct):
    """Which of Qliro's units are which of ours."""

    net: Units
    """Captured and not returned, minus the units found to be kept: the excess."""
    kept: Units = field(default_factory=Units)
    """Captured, and kept by the shopper."""
    ship: Units = field(default_factory=Units)
    """Reserved, and to be captured."""
    back: Units = field(default_factory=Units)
    """Captured, and to be returned with a fee."""
    ahead: Units = field(default_factory=Units)
    """Reserved, and to be captured before such a return."""
    stay: Units = field(default_factory=Units)
    """Reserved, and still to be shipped."""
    missing: list[tuple[Goods, int, int]] = field(default_factory=list)
    """Neither captured nor reserved: line, units that are kept, units that are pending."""
    odd: list[tuple[Goods, int, int]] = field(default_factory=list)
    """Captured at a price that the line no longer has: line, units, price."""

    @property
    def leaves(self) -> Units:
        """Reserved units that are to be captured now."""
        return self.ship + self.ahead


def match(wanted: Wanted, net: Units, left: Units, ahead: dict[str, int]) -> Match:
    """Finds units for every line: those at its own prices first, then the closest price.

    Captured units count as kept before reserved ones do, so that no unit is returned and captured again because of a
    cent. `ahead`: returned units, by reference, that have to be captured first.
    """
    left = Units(left)
    found = Match(Units(net))
    lines = wanted.goods
    filling = _Filling(lines)
    kept, pending, extra = [one.kept for one in lines], [one.pending for one in lines], _spread(lines, ahead)
    rounds = [
        _Round(kept, found.net, found.kept, found.odd),
        _Round(kept, left, found.ship),
        _Round(extra, found.net, found.back, []),
        _Round(extra, left, found.ahead, []),
        _Round(pending, left, found.stay),
    ]
    for loosely in (False, True):
        for each in rounds:
            filling.fill(each, loosely=loosely)
    found.missing = [
        (one, of_kept, of_pending)
        for one, of_kept, of_pending in zip(lines, kept, pending, strict=True)
        if of_kept or of_pending
    ]
    return found


def _spread(lines: list[Goods], counts: dict[str, int]) -> list[int]:
    """Distributes units by reference over the lines of that reference."""
    left = dict(counts)
    spread = []
    for one in lines:
        count = min(left.get(one.reference, 0), max(0, one.quantity - one.kept - one.pending))
        left[one.reference] = left.get(one.reference, 0) - count
        spread.append(count)
    return spread


class _Round(Struct):
    """Units that lines may take for one purpose."""

    wanted: list[int]
    """What each line still lacks, and lacks afterwards."""
    free: Units
    into: Units
    odd: list[tuple[Goods, int, int]] | None = None
    """Where units at a price that the shop has changed are taken, too, and noted."""

    def take(self, number: int, line: Goods, price: int, at_most: int) -> int:
        """Moves units at this price; how many."""
        key = (line.reference, "Product", price)
        count = min(self.wanted[number], self.free[key], at_most)
        if count:
            if self.odd is not None and line.is_repriced and price not in prices(line):
                self.odd.append((line, count, price))
            self.free[key] -= count
            self.into[key] += count
            self.wanted[number] -= count
        return count


class _Filling:
    """Gives units to lines, in several rounds. Of each price that its total divides into, a line takes no more than its
    share before other lines had theirs.
    """

    def __init__(self, lines: list[Goods]) -> None:
        self._lines = lines
        self._alike: dict[str, list[int]] = {}
        """Numbers of lines, by article."""
        for number, line in enumerate(lines):
            self._alike.setdefault(line.reference, []).append(number)
        self._shares = [dict(split(line.total_minor, line.quantity)) for line in lines]
        """Units at each of its prices that a line has not taken yet."""
        self._own = list(_own_prices(lines, self._shares))

    def fill(self, a_round: _Round, *, loosely: bool) -> None:
        """Moves units at the lines' own prices first, then the closest ones that are not nearer to another line of the
        article: those are that line's, even if it lacks none. `loosely`: also these, if no line says just their price;
        for lines that have found nothing else.
        """
        for number, price, is_share in self._own:
            shares = self._shares[number]
            at_most = shares[price] if is_share else a_round.wanted[number]
            taken = a_round.take(number, self._lines[number], price, at_most)
            if price in shares:
                shares[price] = max(0, shares[price] - taken)
        if not any(a_round.wanted):
            return
        others: dict[str, list[int]] = {}
        for (reference, kind, price), count in a_round.free.items():
            if count and kind == "Product":
                others.setdefault(reference, []).append(price)
        for reference, numbers in self._alike.items():
            if reference in others and any(a_round.wanted[number] for number in numbers):
                self._fill_closest(a_round, numbers, sorted(others[reference]), loosely=loosely)

    def _fill_closest(self, a_round: _Round, numbers: list[int], others: list[int], *, loosely: bool) -> None:
        """Linear in lines and prices but for the search: what is exhausted is not looked at again."""
        lines = self._lines
        said = {lines[number].unit_minor for number in numbers}
        units, free = sorted(said), [price for price in others if price not in said]
        near: dict[int, list[int]] = {}
        # What repriced ones were reserved at is not near what they cost now.
        if loosely or any(lines[number].is_repriced for number in numbers):
            near = dict.fromkeys(units, free)
        else:
            for price in free:
                for unit in _nearest(units, price):
                    near.setdefault(unit, []).append(price)
        for number in numbers:
            line = lines[number]
            there = near.get(line.unit_minor, [])
            if line.is_repriced and a_round.odd is None:
                there = [price for price in sorted(prices(line)) if price in there]
            while a_round.wanted[number] and there:
                price = _nearest(there, line.unit_minor)[0]
                a_round.take(number, line, price, a_round.wanted[number])
                if a_round.wanted[number] or not a_round.free[line.reference, "Product", price]:
                    del there[bisect_left(there, price)]


def _nearest(sorted_prices: list[int], price: int) -> list[int]:
    """The closest of these, of which there is at least one; two, if they are equally close."""
    at = bisect_left(sorted_prices, price)
    around = sorted_prices[max(0, at - 1) : at + 1]
    distance = min(abs(each - price) for each in around)
    return [each for each in around if abs(each - price) == distance]


def _own_prices(lines: list[Goods], shares: list[dict[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """The lines' own prices, in the order in which units are looked for at them: the line's number, the price, and
    whether no more than its share is taken of it. What a line says goes before what its total divides into.
    """
    for number, line in enumerate(lines):
        if line.unit_minor in shares[number]:
            yield number, line.unit_minor, True
    for number, line in enumerate(lines):
        if line.unit_minor not in shares[number]:
            yield number, line.unit_minor, False
    for number, line in enumerate(lines):
        for price in sorted(shares[number], key=_distance_to(line)):
            yield number, price, True
    for number, line in enumerate(lines):
        yield number, line.unit_minor, False


def _distance_to(line: Goods) -> Callable[[int], tuple[int, int]]:
    return lambda price: (abs(price - line.unit_minor), price)


def prices(line: Goods) -> set[int]:
    """The prices of a line whose total may not be divisible by its quantity: two, a cent apart."""
    low = line.total_minor // line.quantity
    return {line.unit_minor, low, low + 1}


def split(total_minor: int, count: int) -> list[tuple[int, int]]:
    """(price, units) that add up to exactly this total."""
    low, more = divmod(total_minor, count)
    return [(price, units) for price, units in ((low, count - more), (low + 1, more)) if units]
