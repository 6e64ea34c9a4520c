"""Amounts beside the lines: refunds, fees, what returns paid back less than their lines; and rates of tax. Pure."""

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

from worker.core.shares import rounded
from worker.providers.qliro import wire
from worker.providers.qliro.holding import Holding, Key, Units
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.wanted import Back, Once, Wanted

REFUND, FEE, RETURN_FEE, DELIVERY, AGAIN = "Refund", "Fee", "Return fee", "Delivery refund", "Refunded before"
AGAIN_REFERENCE = "not refunded by a return"
RATE_STEP_BP, RATE_MAX_BP = 50, 10_000


class Due(Struct, frozen=True):
    """An amount that is to be told as a line of its own."""

    reference: str
    text: str
    minor: int
    """Above 0: back to the shopper; below 0: charged."""

    @property
    def type(self) -> str:
        """Qliro's."""
        return "Discount" if self.minor > 0 else "Fee"


class Books:
    """What of amounts was told already, by reference, read once."""

    def __init__(self, wanted: Wanted, holding: Holding, memory: Memory, net: Units, left: Units) -> None:
        self._taken = {
            AGAIN_REFERENCE,
            *(one.reference for one in wanted.goods),
            *(one.reference for one in wanted.once),
        }
        self._added = holding.added
        self._noted: Counter[str] = Counter()
        for note in memory.told("amount", holding):
            self._noted[note.name] += note.minor
        self._net, self._left = _amounts(net), _amounts(left)
        self._captured = {key[:2] for key in net}
        self._theirs = self._by_others(wanted, holding, memory)

    def _by_others(self, wanted: Wanted, holding: Holding, memory: Memory) -> list[int]:
        """Amounts that somebody else took off captures, or charged, under names that tell nothing of ours."""
        ours = self._taken | {self.reference_of(one.name) for one in [*wanted.refunds, *wanted.fees]}
        ours |= {self.reference_of(one.name) for one in wanted.backs}
        ours |= {_delivery(once) for once in wanted.once}
        told = set(memory.ours)
        return [
            minor
            for one, minor in holding.amounts.items()
            if one not in told and not ours.intersection(key[0] for key in holding.did[one].get("Ship", ()))
        ]

    def found(self, dues: list["Due"], *, with_left: bool) -> Counter[str]:
        """By reference, what of amounts somebody else has told at Qliro itself, in the back office say: sent again it
        would be paid twice. An amount is taken for one that is due when they are the same, or all of them together.
        """
        found: Counter[str] = Counter()
        theirs = list(self._theirs)
        rests = [(due.reference, due.minor - self.told(due.reference, with_left=with_left)) for due in dues]
        untold = [(name, rest) for name, rest in rests if rest]
        for name, rest in untold:
            if rest in theirs:
                theirs.remove(rest)
                found[name] = rest
        left = [(name, rest) for name, rest in untold if name not in found]
        if left and theirs and sum(theirs) == sum(rest for _, rest in left):
            found.update(dict(left))
        return found

    def reference_of(self, name: str) -> str:
        """What an amount is called at Qliro: its id, unless no item can be called so, or something else is."""
        if wire.is_item_reference(name) and name not in self._taken:
            return name
        return f"amount {blake2b(name.encode(), digest_size=6).hexdigest()}"

    def told(self, reference: str, *, with_left: bool = True) -> int:
        """What was told, as `Due.minor`: off captures, and by lines of its own.

        Unverified: that additions are listed under `Ship`; so what was told is remembered, too, and the larger counts.
        """
        lying = self._net[reference] + (self._left[reference] if with_left else 0)
        return max(self._added[reference], self._noted[reference], key=abs) + lying

    def goes_whole(self, once: Once) -> bool:
        """Whether a charge goes back as the line it is: all of it, and no part of it went by amount before, whoever
        took it off.
        """
        is_there = (once.reference, once.type) in self._captured
        if self.told(_delivery(once)) or (is_there and once.refunded_minor in self._theirs):
            return False
        return 0 < once.total_minor <= once.refunded_minor


def _amounts(units: Units) -> Counter[str]:
    """What lines that may be amounts take off, by reference."""
    found: Counter[str] = Counter()
    for key, count in units.items():
        if key[1] in ("Discount", "Fee"):
            found[key[0]] -= key[2] * count
    return found


def dues(wanted: Wanted, books: Books, again_minor: int) -> list[Due]:
    """All amounts that the order comes to, told or not."""
    found = [Due(books.reference_of(one.name), one.text or REFUND, one.minor) for one in wanted.refunds]
    found += [
        Due(_delivery(once), DELIVERY, once.refunded_minor)
        for once in wanted.once
        if once.refunded_minor and not books.goes_whole(once)
    ]
    found += [
        Due(books.reference_of(back.name), REFUND, -back.withheld_minor)
        for back in wanted.backs
        if back.withheld_minor < 0
    ]
    if again_minor:
        found.append(Due(AGAIN_REFERENCE, AGAIN, again_minor))
    found += [Due(books.reference_of(fee.name), fee.text or FEE, -fee.minor) for fee in wanted.fees]
    return found


def _delivery(once: Once) -> str:
    return f"{once.reference[:180]} refunded"


# --- fees and discounts of returns -----------------------------------------------------------------------------------


class Kept(Struct):
    """What returns paid back less than their lines, by why."""

    untold: list[Back]
    """Returns whose fee was not charged yet."""
    withheld: set[str]
    """Returns of which it was told that less was refunded."""
    rest: int = 0
    """Because their captures had no more left: it is still to be refunded."""


def kept_back(wanted: Wanted, holding: Holding, memory: Memory) -> Kept:
    """As it was noted when it was told. What is short without a note, because the note was lost, are fees of the
    order and what it withholds, as far as that reaches.
    """
    charged = {note.name for note in memory.told("fee", holding)}
    kept = Kept([], {note.name for note in memory.told("withheld", holding)})
    noted = {note.transaction for note in memory.notes}
    short = sum(minor for one, minor in holding.short.items() if one not in noted)
    for back in wanted.backs:
        if back.fee_minor and back.name not in charged:
            if back.fee_minor <= short:
                short -= back.fee_minor
            else:
                kept.untold.append(back)
        if back.name not in kept.withheld and 0 < back.withheld_minor <= short:
            short -= back.withheld_minor
            kept.withheld.add(back.name)
    kept.rest = max(0, short) + sum(note.minor for note in memory.told("rest", holding))
    return kept


# --- tax -----------------------------------------------------------------------------------------------------------


def without_tax(minor: int, rate_bp: int) -> int:
    """Rounded to a minor unit, halves away from zero."""
    return rounded(minor * 10_000, 10_000 + rate_bp)


def rate_of(holding: Holding, reference: str | None = None) -> int | None:
    """The one rate that explains every reserved pair of prices to the cent, of one article or of all."""
    if not holding.rates:
        pairs: dict[str | None, set[tuple[int, int]]] = {None: set()}
        for key, known in holding.known.items():
            for name in (key[0], None):
                pairs.setdefault(name, set()).add((key[2], known.ex_minor))
        for name, told in pairs.items():
            fitting = _fitting(told)
            holding.rates[name] = fitting[0] if len(fitting) == 1 else None
    return holding.rates.get(reference)


def _fitting(pairs: Iterable[tuple[int, int]]) -> list[int]:
    if not (told := [(inc, ex) for inc, ex in pairs if inc]):
        return []
    return [
        rate
        for rate in range(0, RATE_MAX_BP + 1, RATE_STEP_BP)
        if all(without_tax(inc, rate) == ex for inc, ex in told)
    ]


def ex_of(key: Key, rate_bp: int | None, holding: Holding) -> int | None:
    """The price without tax of an item: as it was reserved, or by a rate; `None`: nobody knows."""
    if (known := holding.known.get(key)) is not None:
        return known.ex_minor
    if rate_bp is None:
        rate_bp = rate_of(holding, key[0])
    if rate_bp is None:
        rate_bp = rate_of(holding)
    return None if rate_bp is None else without_tax(key[2], rate_bp)
