"""All that a step of the plan looks at, and what several of them ask of it. Pure."""

from msgspec import Struct

from worker.core.shares import rounded
from worker.providers.qliro import money
from worker.providers.qliro.command import Line
from worker.providers.qliro.holding import Holding, Key, Units
from worker.providers.qliro.matching import Match, split
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.money import Due, Kept
from worker.providers.qliro.wanted import Goods, Once, Wanted

LISTED_MAX = 5


class Situation(Struct):
    """What should be so, what is, and which units are which."""

    wanted: Wanted
    holding: Holding
    memory: Memory
    match: Match
    kept_back: Kept
    dues: list[Due]

    @property
    def has_captures(self) -> bool:
        return bool(self.holding.captures)

    @property
    def stays(self) -> bool:
        """Whether anything of ours is still to be captured, now or later."""
        return bool(self.match.leaves or self.match.hold or self.match.missing)

    def rest(self, due: Due) -> int:
        """What of an amount is still to be told. What lies in a reservation that ends is told no more."""
        return due.minor - money.told(due.reference, self.holding, self.memory, with_left=self.stays)

    def once_of(self, key: Key) -> Once | None:
        """Our line that this item is; one that does not say what Qliro calls it is known by its price."""
        for one in self.wanted.once:
            if one.type == key[1] and (one.reference == key[0] or (not one.reference and one.total_minor == key[2])):
                return one
        return None

    def is_only_theirs(self, key: Key) -> bool:
        """Whether only Qliro's checkout has this line: no content of ours, and no command of ours brought it."""
        if key[:2] in self.wanted.confirmed or self.once_of(key) is not None or self.due_of(key) is not None:
            return False
        return any(
            key in did.get("Reserve", ()) for one, did in self.holding.did.items() if one not in self.memory.ours
        )

    def due_of(self, key: Key) -> Due | None:
        """The amount that this item tells."""
        return next((one for one in self.dues if (one.reference, one.type) == key[:2]), None)

    def goes_back(self, once: Once) -> bool:
        """Whether a charge is refunded as the line it is."""
        return once.type == "Shipping" and money.goes_whole(once, self.holding, self.memory)

    def is_wanted(self, key: Key) -> bool:
        """Whether an item that is no article is still to be captured."""
        once = self.once_of(key)
        if once is not None:
            return not self.goes_back(once) and not any(self._is(once, other) for other in self.holding.net)
        if (due := self.due_of(key)) is not None:
            return self.rest(due) * due.minor >= 0
        return key[1] != "Product" and self.is_only_theirs(key)

    def _is(self, once: Once, key: Key) -> bool:
        return self.once_of(key) is once

    def went_back(self, once: Once) -> bool:
        """Whether it was captured, and returned with the last goods of its capture."""
        return any(self._is(once, key) for capture in self.holding.captures for key in capture.taken)

    @property
    def changed_there(self) -> bool:
        """Whether somebody else has changed what is reserved, and the shop's facts have not agreed with it since."""
        first = self.holding.first_reservation
        return any(one.id != first and not self.memory.is_known(one.id) for one in self.holding.reservations)

    def both_sides(self, wanted: Units) -> str:
        """What cannot be made one, in words."""
        return f"changed at Qliro: {listed(self.holding.left)} reserved there, {listed(wanted)} here"

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
        if any(one is not goods and one.reference == goods.reference for one in self.wanted.goods):
            return goods.unit_minor * count
        match = self.match
        there = match.kept + match.ship + match.hold
        total = rounded(goods.total_minor * (goods.kept + goods.pending), goods.quantity)
        rest = total - sum(key[2] * n for key, n in there.items() if key[:2] == (goods.reference, "Product"))
        return rest if rest >= 0 else goods.unit_minor * count


def listed(units: Units) -> str:
    """Units in words; of many the first."""
    texts = [f"{count} × {key[0]} at {key[2]}" for key, count in sorted(units.items())]
    more = [f"{len(texts) - LISTED_MAX} more"] if len(texts) > LISTED_MAX else []
    return ", ".join(texts[:LISTED_MAX] + more) or "nothing"
