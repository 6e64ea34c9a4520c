"""Everything that the steps of a plan depend on, and the questions that several of them ask. Pure."""

from collections import Counter
from collections.abc import Iterable

from worker.core.shares import rounded
from worker.providers.qliro import money
from worker.providers.qliro.command import Line
from worker.providers.qliro.matching import Match, match, split
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.money import Due
from worker.providers.qliro.order import Key, QliroOrder, Units
from worker.providers.qliro.wanted import Back, Goods, Once, Wanted

LISTED_MAX = 5


class Situation:
    """The desired state, the actual state, and which units are which; frequent answers are computed once."""

    def __init__(self, wanted: Wanted, there: QliroOrder, memory: Memory) -> None:
        self.wanted, self.there, self.memory = wanted, there, memory
        self.net, self.left = there.net, there.left
        self.kept_back = money.kept_back(wanted, there, memory)
        self.match: Match = match(wanted, self.net, self.left, _ahead(self.kept_back.uncharged))
        self.books = money.Books(wanted, there, memory, self.net, self.left)
        self.dues: list[Due] = money.dues(wanted, self.books, self.kept_back.rest)
        self._dues = {(due.reference, due.type): due for due in reversed(self.dues)}
        self._once = {(one.reference, one.type): one for one in reversed(wanted.once)}
        self._unnamed = {(one.type, one.total_minor): one for one in wanted.once if not one.reference}
        self._captured = {_name(one) for key in self.net if (one := self.once_of(key)) is not None}
        self._ever = {
            _name(one)
            for capture in there.captures
            for key in capture.captured
            if (one := self.once_of(key)) is not None
        }
        self._references = Counter(one.reference for one in wanted.goods)
        self._lines = Counter((one.reference, one.type) for one in wanted.once)
        ours = set(memory.ours)
        self._theirs = {key for one, did in there.did.items() if one not in ours for key in did.get("Reserve", ())}
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
        """Units that somebody else has captured beyond what the shop has shipped: not ours to return."""
        captured: dict[str, int] = {}
        foreign = Units()
        for capture in self.there.captures:
            for key, count in capture.captured.items():
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
        """Leaves out pending units that somebody else has captured: reserved again, they would be there twice."""
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
        """Finds units at the price that an update of ours gave them.

        Once some were captured at the old price, the remaining ones make up the line's total at a different price.
        """
        free = self.left - self.match.leaves - self.match.stay
        ship, stay, missing = Units(), Units(), []
        for goods, of_kept, of_pending in self.match.missing:
            kept, pending = of_kept, of_pending
            for price, count in split(self._worth_of_missing(goods, kept + pending), kept + pending):
                key = (goods.reference, "Product", price)
                there = min(count, free[key])
                now = min(there, kept)
                ship[key] += now
                stay[key] += there - now
                free[key] -= there
                kept, pending = kept - now, pending - (there - now)
            if kept or pending:
                missing.append((goods, kept, pending))
        self.match.ship += ship
        self.match.stay += stay
        self.match.missing = missing
        self._worth_there = self._worth_found()

    @property
    def has_captures(self) -> bool:
        return bool(self.there.captures)

    @property
    def stays(self) -> bool:
        """Whether anything is still to be captured, now or later, or was captured early by somebody else."""
        return bool(self.match.leaves or self.match.stay or self.match.missing or self.is_ahead_there)

    def rest(self, due: Due) -> int:
        """The part of an amount that is still to be sent. Lines of a reservation that ends no longer count as sent."""
        return due.minor - self.books.sent(due.reference, with_left=self.stays) - self._found[due.reference]

    def once_of(self, key: Key) -> Once | None:
        """Our line for this item; a line without Qliro's reference is identified by its price."""
        return self._once.get(key[:2]) or self._unnamed.get(key[1:])

    def is_twice(self, once: Once) -> bool:
        """Whether several lines have this reference: then Qliro's cannot be told apart."""
        return self._lines[once.reference, once.type] > 1

    def is_only_theirs(self, key: Key) -> bool:
        """Whether only Qliro's checkout has this line: it comes neither from our content nor from our commands."""
        if key[:2] in self._confirmed or self.once_of(key) is not None or self.due_of(key) is not None:
            return False
        return key in self._theirs

    def due_of(self, key: Key) -> Due | None:
        """The amount that this item stands for."""
        return self._dues.get(key[:2])

    def goes_back(self, once: Once) -> bool:
        """Whether a charge is refunded by returning its line."""
        return once.type == "Shipping" and self.books.goes_whole(once)

    def is_wanted(self, key: Key) -> bool:
        """Whether an item that is not an article is still to be captured."""
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
        first = self.there.first_reservation
        return any(one.id != first and not self.memory.is_known(one.id) for one in self.there.reservations)

    def both_sides(self, wanted: Units) -> str:
        """The reason if both sides were changed."""
        return f"changed at Qliro: {listed(self.left)} reserved there, {listed(wanted)} here"

    def new_lines(self) -> list[Line] | str:
        """Items for units that Qliro does not have; or why they cannot be sent."""
        lines = []
        for goods, kept, pending in self.match.missing:
            for price, count in split(self._worth_of_missing(goods, kept + pending), kept + pending):
                key = (goods.reference, "Product", price)
                ex_minor = money.ex_of(key, goods.vat_rate_bp, self.there)
                if ex_minor is None:
                    return f"{goods.reference} has no vat_rate_bp, and the reserved items have no single rate"
                lines.append(Line(key, count, ex_minor, goods.name))
        return lines

    @property
    def missing_minor(self) -> int:
        """What the units come to that Qliro does not have."""
        return sum(self._worth_of_missing(goods, kept + pending) for goods, kept, pending in self.match.missing)

    def _worth_of_missing(self, goods: Goods, count: int) -> int:
        """For an article with one line, the rest of its total; otherwise at the line's price."""
        if self._references[goods.reference] > 1:
            return goods.unit_minor * count
        total = rounded(goods.total_minor * (goods.kept + goods.pending), goods.quantity)
        rest = total - self._worth_there[goods.reference]
        return rest if rest >= 0 else goods.unit_minor * count

    def _worth_found(self) -> Counter[str]:
        """The worth of the found units, by reference."""
        found: Counter[str] = Counter()
        for units in (self.match.kept, self.match.ship, self.match.stay):
            for key, count in units.items():
                found[key[0]] += key[2] * count
        return found


def _name(once: Once) -> tuple[str, str, int]:
    """The identity of a line: without a reference, its price."""
    return once.reference, once.type, 0 if once.reference else once.total_minor


def _ahead(fees: Iterable[Back]) -> dict[str, int]:
    """Units that are returned with a fee: they are captured first, so that the fee can be withheld."""
    units: dict[str, int] = {}
    for back in fees:
        for reference, count in back.units:
            units[reference] = units.get(reference, 0) + count
    return units


def listed(units: Units) -> str:
    """Units in words; only the first of many."""
    texts = [f"{count} × {key[0]} at {key[2]}" for key, count in sorted(units.items())]
    more = [f"{len(texts) - LISTED_MAX} more"] if len(texts) > LISTED_MAX else []
    return ", ".join(texts[:LISTED_MAX] + more) or "nothing"
