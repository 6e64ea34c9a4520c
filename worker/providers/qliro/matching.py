"""Matches our lines with Qliro's items: the units of each line, by Qliro's identity. Pure."""

from collections.abc import Callable

from msgspec import Struct, field

from worker.providers.qliro.order import Key, Units
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
    kept = [one.kept for one in lines]
    filling.fill(kept, found.net, found.kept, odd=found.odd)
    filling.fill(kept, left, found.ship)
    extra = _spread(lines, ahead)
    filling.fill(extra, found.net, found.back, odd=[])
    filling.fill(extra, left, found.ahead, odd=[])
    pending = [one.pending for one in lines]
    filling.fill(pending, left, found.stay)
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


class _Filling:
    """Gives units to lines, in several rounds. What a line takes of the prices that its total divides into, it takes
    once: of lines that share such a price, none takes the share of another.
    """

    def __init__(self, lines: list[Goods]) -> None:
        self._lines = lines
        self._alike: dict[str, list[Goods]] = {}
        """By article."""
        for line in lines:
            self._alike.setdefault(line.reference, []).append(line)
        self._shares = [dict(split(line.total_minor, line.quantity)) for line in lines]
        """Units at each of its prices that a line has not taken yet."""

    def fill(
        self, wanted: list[int], free: Units, into: Units, odd: list[tuple[Goods, int, int]] | None = None
    ) -> None:
        """Moves units from what is free: those at the lines' own prices first, then the closest ones that are not
        nearer to another line of the article: those are that line's, even if it lacks none.

        `wanted` is what each line still lacks, and lacks afterwards. `odd`: where units at a price that the shop has
        changed are taken, too, and noted.
        """

        def take(number: int, price: int, at_most: int) -> int:
            line, key = self._lines[number], _key(self._lines[number], price)
            count = min(wanted[number], free[key], at_most)
            if count:
                if odd is not None and line.is_repriced and price not in prices(line):
                    odd.append((line, count, price))
                free[key] -= count
                into[key] += count
                wanted[number] -= count
            return count

        for rank in (0, 1):  # first the price of each line that is closest to what it says
            for number, line in enumerate(self._lines):
                shares = self._shares[number]
                for price in sorted(shares, key=_distance_to(line))[rank : rank + 1]:
                    shares[price] -= take(number, price, shares[price])
        for number, line in enumerate(self._lines):
            take(number, line.unit_minor, wanted[number])
        if not any(wanted):
            return
        there = self._prices_of(free)
        for number, line in enumerate(self._lines):
            for price in sorted(there.get(line.reference, []), key=_distance_to(line)):
                is_foreign = line.is_repriced and odd is None and price not in prices(line)
                if not is_foreign and not _is_of_another(price, line, self._alike[line.reference]):
                    take(number, price, wanted[number])

    def _prices_of(self, units: Units) -> dict[str, list[int]]:
        """By article."""
        found: dict[str, list[int]] = {}
        for (reference, kind, price), count in units.items():
            if count and kind == "Product" and reference in self._alike:
                found.setdefault(reference, []).append(price)
        return found


def _key(line: Goods, price: int) -> Key:
    return line.reference, "Product", price


def _distance_to(line: Goods) -> Callable[[int], tuple[int, int]]:
    return lambda price: (abs(price - line.unit_minor), price)


def _is_of_another(price: int, line: Goods, alike: list[Goods]) -> bool:
    """Whether units at this price are those of another of the lines of an article."""
    if any(one.is_repriced for one in alike):  # what they were reserved at is not near what they cost now
        return any(price == one.unit_minor for one in alike if one is not line)
    return any(abs(price - one.unit_minor) < abs(price - line.unit_minor) for one in alike)


def prices(line: Goods) -> set[int]:
    """The prices of a line whose total may not be divisible by its quantity: two, a cent apart."""
    low = line.total_minor // line.quantity
    return {line.unit_minor, low, low + 1}


def split(total_minor: int, count: int) -> list[tuple[int, int]]:
    """(price, units) that add up to exactly this total."""
    low, more = divmod(total_minor, count)
    return [(price, units) for price, units in ((low, count - more), (low + 1, more)) if units]
