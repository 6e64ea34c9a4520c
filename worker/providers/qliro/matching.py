"""Matches our lines with Qliro's items: the units of each line, by Qliro's identity. Pure."""

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
    """Finds units for every line: those at its own price first, then the closest price.

    Captured units count as kept before reserved ones do, so that no unit is returned and captured again because of a
    cent. `ahead`: returned units, by reference, that have to be captured first.
    """
    left = Units(left)
    found = Match(Units(net))
    lines = wanted.goods
    kept = [one.kept for one in lines]
    _fill(lines, kept, found.net, found.kept, odd=found.odd)
    _fill(lines, kept, left, found.ship)
    extra = _spread(lines, ahead)
    _fill(lines, extra, found.net, found.back, odd=[])
    _fill(lines, extra, left, found.ahead, odd=[])
    pending = [one.pending for one in lines]
    _fill(lines, pending, left, found.stay)
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


def _fill(
    lines: list[Goods],
    wanted: list[int],
    free: Units,
    into: Units,
    odd: list[tuple[Goods, int, int]] | None = None,
) -> None:
    """Moves units from what is free, those at the lines' own prices first; the prices of others are not touched.

    `wanted` is what each line still lacks, and lacks afterwards.

    `odd`: where units at a price that the shop has changed are taken, too, and noted.
    """
    for number, line in enumerate(lines):
        _take(number, line, (line.reference, "Product", line.unit_minor), wanted, free, into, odd)
    lacking = [(number, line) for number, line in enumerate(lines) if wanted[number]]
    if not lacking:
        return
    own: dict[str, set[int]] = {}
    for line in lines:
        own.setdefault(line.reference, set()).update(prices(line))
    there: dict[str, list[Key]] = {}
    for key, count in free.items():
        if count and key[1] == "Product":
            there.setdefault(key[0], []).append(key)
    for number, line in lacking:
        keys = [
            key
            for key in there.get(line.reference, [])
            if key[2] in prices(line) or (key[2] not in own[key[0]] and not (line.is_repriced and odd is None))
        ]
        for key in sorted(keys, key=lambda key: (abs(key[2] - line.unit_minor), key[2])):
            _take(number, line, key, wanted, free, into, odd)


def _take(
    number: int,
    line: Goods,
    key: Key,
    wanted: list[int],
    free: Units,
    into: Units,
    odd: list[tuple[Goods, int, int]] | None,
) -> None:
    count = min(wanted[number], free[key])
    if not count:
        return
    if odd is not None and line.is_repriced and key[2] not in prices(line):
        odd.append((line, count, key[2]))
    free[key] -= count
    into[key] += count
    wanted[number] -= count


def prices(line: Goods) -> set[int]:
    """The prices of a line whose total may not be divisible by its quantity: two, a cent apart."""
    low = line.total_minor // line.quantity
    return {line.unit_minor, low, low + 1}


def split(total_minor: int, count: int) -> list[tuple[int, int]]:
    """(price, units) that add up to exactly this total."""
    low, more = divmod(total_minor, count)
    return [(price, units) for price, units in ((low, count - more), (low + 1, more)) if units]
