"""All that a step of the plan looks at, and what several of them ask of it. Pure."""

from collections import Counter
from collections.abc import Iterable

from worker.core.shares import rounded
from worker.providers.qliro import money
from worker.providers.qliro.command import Line
from worker.providers.qliro.holding import Holding, Key, Units
from worker.providers.qliro.matching import Match, match, split
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.money import Due
from worker.providers.qliro.wanted import Back, Goods, Once, Wanted

LISTED_MAX = 5


class Situation:
    """What should be so, what is, and which units are which; what is asked again and again is looked up once."""

    def __init__(self, wanted: Wanted, holding: Holding, memory: Memory) -> None:
        self.wanted, self.holding, self.memory = wanted, holding, memory
        self.net, self.left = holding.net, holding.left
        self.kept_back = money.kept_back(wanted, holding, memory)
        self.match: Match = match(wanted, self.net, self.left, _ahead(self.kept_back.untold))
        self.books = money.Books(wanted, holding, memory, self.net, self.left)
        self.dues: list[Due] = money.dues(wanted, self.books, self.kept_back.rest)
        self._dues = {(due.reference, due.type): due for due in reversed(self.dues)}
        self._once = {(one.reference, one.type): one for one in reversed(wanted.once)}
        self._unnamed = {(one.type, one.total_minor): one for one in wanted.once if not one.reference}
        self._captured = {_name(one) for key in self.net if (one := self.once_of(key)) is not None}
        self._ever = {
            _name(one)
            for capture in holding.captures
            for key in capture.taken
            if (one := self.once_of(key)) is not None
        }
        self._references = Counter(one.reference for one in wanted.goods)
        self._lines = Counter((one.reference, one.type) for one in wanted.once)
        ours = set(memory.ours)
        self._theirs = {key for one, did in holding.did.items() if one not in ours for key in did.get("Reserve", ())}
        self._confirmed = set(wanted.confirmed)
        self._worth_there = self._worth_found()
        self.too_much = self.match.back + Units({key: n for key, n in self.match.net.items() if key[1] == "Product"})
        self.by_others = self._captured_by_others()
        self.is_ahead_there = False
        if self.match.missing:
            self._find_repriced()
            self._leave_to_others()
        self._found = self.books.found(self.dues, with_left=self.stays)

    def _captured_by_others(self) -> Units:
        """What somebody else has captured beyond what the shop has shipped: not ours to return."""
        captured: dict[str, int] = {}
        foreign = Units()
        for capture in self.holding.captures:
            for key, count in capture.taken.items():
                if key[1] == "Product":
                    captured[key[0]] = captured.get(key[0], 0) + count
            if not self.memory.is_known(capture.id):
                foreign += capture.items
        found = Units()
        for key, count in (self.too_much & foreign).items():
            surplus = captured[key[0]] - self.wanted.shipped_units.get(key[0], 0)
            found[key] = max(0, min(count, surplus))
            captured[key[0]] -= found[key]
        return +found

    def _leave_to_others(self) -> None:
        """Units that are still to be sent, and that somebody else has captured: reserved again they would be twice."""
        there: Counter[str] = Counter()
        for key, count in self.by_others.items():
            there[key[0]] += count
        missing = []
        for goods, kept, pending in self.match.missing:
            count = min(pending, there[goods.reference])
            there[goods.reference] -= count
            self.is_ahead_there = self.is_ahead_there or count > 0
            if kept or pending > count:
                missing.append((goods, kept, pending - count))
        self.match.missing = missing

    def _find_repriced(self) -> None:
        """Units that lie there at the price that an update of ours gave them.

        Once some were captured at the old price, those left make up the line's total at a price that is not the line's.
        """
        free = self.left - self.match.leaves - self.match.hold
        ship, hold, missing = Units(), Units(), []
        for goods, of_kept, of_pending in self.match.missing:
            kept, pending = of_kept, of_pending
            for price, count in split(self._worth_of_missing(goods, kept + pending), kept + pending):
                key = (goods.reference, "Product", price)
                there = min(count, free[key])
                now = min(there, kept)
                ship[key] += now
                hold[key] += there - now
                free[key] -= there
                kept, pending = kept - now, pending - (there - now)
            if kept or pending:
                missing.append((goods, kept, pending))
        self.match.ship += ship
        self.match.hold += hold
        self.match.missing = missing
        self._worth_there = self._worth_found()

    @property
    def has_captures(self) -> bool:
        return bool(self.holding.captures)

    @property
    def stays(self) -> bool:
        """Whether anything of ours is still to be captured, now or later, or to be agreed on with who captured it."""
        return bool(self.match.leaves or self.match.hold or self.match.missing or self.is_ahead_there)

    def rest(self, due: Due) -> int:
        """What of an amount is still to be told. What lies in a reservation that ends is told no more."""
        return due.minor - self.books.told(due.reference, with_left=self.stays) - self._found[due.reference]

    def once_of(self, key: Key) -> Once | None:
        """Our line that this item is; one that does not say what Qliro calls it is known by its price."""
        return self._once.get(key[:2]) or self._unnamed.get(key[1:])

    def is_twice(self, once: Once) -> bool:
        """Whether several lines are called so: then nobody can say which of Qliro's is which."""
        return self._lines[once.reference, once.type] > 1

    def is_only_theirs(self, key: Key) -> bool:
        """Whether only Qliro's checkout has this line: no content of ours, and no command of ours brought it."""
        if key[:2] in self._confirmed or self.once_of(key) is not None or self.due_of(key) is not None:
            return False
        return key in self._theirs

    def due_of(self, key: Key) -> Due | None:
        """The amount that this item tells."""
        return self._dues.get(key[:2])

    def goes_back(self, once: Once) -> bool:
        """Whether a charge is refunded as the line it is."""
        return once.type == "Shipping" and self.books.goes_whole(once)

    def is_wanted(self, key: Key) -> bool:
        """Whether an item that is no article is still to be captured."""
        once = self.once_of(key)
        if once is not None:
            return not self.goes_back(once) and _name(once) not in self._captured
        if (due := self.due_of(key)) is not None:
            return self.rest(due) * due.minor >= 0
        return key[1] != "Product" and self.is_only_theirs(key)

    def went_back(self, once: Once) -> bool:
        """Whether it was captured, and may have been returned with the last goods of its capture."""
        return _name(once) in self._ever

    @property
    def changed_there(self) -> bool:
        """Whether somebody else has changed what is reserved, and the shop's facts have not agreed with it since."""
        first = self.holding.first_reservation
        return any(one.id != first and not self.memory.is_known(one.id) for one in self.holding.reservations)

    def both_sides(self, wanted: Units) -> str:
        """What cannot be made one, in words."""
        return f"changed at Qliro: {listed(self.left)} reserved there, {listed(wanted)} here"

    def new_lines(self) -> list[Line] | str:
        """Items for units that Qliro does not have; or why they cannot be told."""
        lines = []
        for goods, kept, pending in self.match.missing:
            for price, count in split(self._worth_of_missing(goods, kept + pending), kept + pending):
                key = (goods.reference, "Product", price)
                ex_minor = money.ex_of(key, goods.vat_rate_bp, self.holding)
                if ex_minor is None:
                    return f"{goods.reference} has no vat_rate_bp, and what is reserved not one rate"
                lines.append(Line(key, count, ex_minor, goods.name))
        return lines

    def _worth_of_missing(self, goods: Goods, count: int) -> int:
        """Of an article that has one line, what makes up its total; else at the price of the line."""
        if self._references[goods.reference] > 1:
            return goods.unit_minor * count
        total = rounded(goods.total_minor * (goods.kept + goods.pending), goods.quantity)
        rest = total - self._worth_there[goods.reference]
        return rest if rest >= 0 else goods.unit_minor * count

    def _worth_found(self) -> Counter[str]:
        """Of the units that were found, by reference."""
        found: Counter[str] = Counter()
        for units in (self.match.kept, self.match.ship, self.match.hold):
            for key, count in units.items():
                found[key[0]] += key[2] * count
        return found


def _name(once: Once) -> tuple[str, str, int]:
    """Of one without a reference, its price is its name."""
    return once.reference, once.type, 0 if once.reference else once.total_minor


def _ahead(fees: Iterable[Back]) -> dict[str, int]:
    """Units that come back with a fee: they are captured first, or nothing could be kept back of them."""
    units: dict[str, int] = {}
    for back in fees:
        for reference, count in back.units:
            units[reference] = units.get(reference, 0) + count
    return units


def listed(units: Units) -> str:
    """Units in words; of many the first."""
    texts = [f"{count} × {key[0]} at {key[2]}" for key, count in sorted(units.items())]
    more = [f"{len(texts) - LISTED_MAX} more"] if len(texts) > LISTED_MAX else []
    return ", ".join(texts[:LISTED_MAX] + more) or "nothing"
