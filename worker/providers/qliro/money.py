"""Amounts apart from lines: refunds, fees, amounts withheld from returns; and tax rates. Pure."""

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

from worker.core.shares import rounded
from worker.providers.qliro import wire
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.order import Key, QliroOrder, Units
from worker.providers.qliro.wanted import Back, Once, Wanted

REFUND, FEE, RETURN_FEE, DELIVERY, AGAIN = "Refund", "Fee", "Return fee", "Delivery refund", "Refunded before"
AGAIN_REFERENCE = "not refunded by a return"
RATE_STEP_BP, RATE_MAX_BP = 50, 10_000


class Due(Struct, frozen=True):
    """An amount that is sent as a line of its own."""

    reference: str
    text: str
    minor: int
    """Above 0: back to the shopper; below 0: charged."""

    @property
    def type(self) -> str:
        """Qliro's type."""
        return "Discount" if self.minor > 0 else "Fee"


class Books:
    """The amounts that were sent already, by reference."""

    def __init__(self, wanted: Wanted, there: QliroOrder, memory: Memory, net: Units, left: Units) -> None:
        self._taken = {
            AGAIN_REFERENCE,
            *(one.reference for one in wanted.goods),
            *(one.reference for one in wanted.once),
        }
        self._added = there.added
        self._noted: Counter[str] = Counter()
        for note in memory.notes_of("amount", there):
            self._noted[note.name] += note.minor
        self._net, self._left = _amounts(net), _amounts(left)
        self._captured = {key[:2] for key in net}
        self._theirs = self._by_others(wanted, there, memory)

    def _by_others(self, wanted: Wanted, there: QliroOrder, memory: Memory) -> list[int]:
        """Amounts that somebody else subtracted from captures, or added, under references that are none of ours."""
        ours = self._taken | {self.reference_of(one.name) for one in [*wanted.refunds, *wanted.fees]}
        ours |= {self.reference_of(one.name) for one in wanted.backs}
        ours |= {_delivery(once) for once in wanted.once}
        known = set(memory.ours)
        return [
            minor
            for one, minor in there.amounts.items()
            if one not in known and not ours.intersection(key[0] for key in there.did[one].get("Ship", ()))
        ]

    def found(self, dues: list["Due"], *, with_left: bool) -> Counter[str]:
        """By reference, the amounts that somebody else has refunded at Qliro already, in its back office say: sent
        again they would be paid twice. An amount counts as one that is due if both are equal, or if all of them
        together are.
        """
        found: Counter[str] = Counter()
        theirs = list(self._theirs)
        rests = [(due.reference, due.minor - self.sent(due.reference, with_left=with_left)) for due in dues]
        unsent = [(name, rest) for name, rest in rests if rest]
        for name, rest in unsent:
            if rest in theirs:
                theirs.remove(rest)
                found[name] = rest
        left = [(name, rest) for name, rest in unsent if name not in found]
        if left and theirs and sum(theirs) == sum(rest for _, rest in left):
            found.update(dict(left))
        return found

    def reference_of(self, name: str) -> str:
        """The reference of an amount at Qliro: its id, unless that is not permitted, or already used."""
        if wire.is_item_reference(name) and name not in self._taken:
            return name
        return f"amount {blake2b(name.encode(), digest_size=6).hexdigest()}"

    def sent(self, reference: str, *, with_left: bool = True) -> int:
        """The amount sent, as `Due.minor`: by additions to captures, and by lines of its own.

        Unverified: that additions are listed under `Ship`; so sent amounts are also remembered, and the larger counts.
        """
        lying = self._net[reference] + (self._left[reference] if with_left else 0)
        return max(self._added[reference], self._noted[reference], key=abs) + lying

    def goes_whole(self, once: Once) -> bool:
        """Whether a charge is refunded by returning its line: all of it, and nobody refunded a part of it by amount
        before.
        """
        is_there = (once.reference, once.type) in self._captured
        if self.sent(_delivery(once)) or (is_there and once.refunded_minor in self._theirs):
            return False
        return 0 < once.total_minor <= once.refunded_minor


def _amounts(units: Units) -> Counter[str]:
    """The deductions of lines that may be amounts, by reference."""
    found: Counter[str] = Counter()
    for key, count in units.items():
        if key[1] in ("Discount", "Fee"):
            found[key[0]] -= key[2] * count
    return found


def dues(wanted: Wanted, books: Books, again_minor: int) -> list[Due]:
    """All amounts of the order, sent or not."""
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
    """Amounts that returns withheld from their lines, by cause."""

    uncharged: list[Back]
    """Returns whose fee was not charged yet."""
    withheld: set[str]
    """Returns that were sent with a smaller refund."""
    rest: int = 0
    """Because their captures had too little left: still to be refunded."""


def kept_back(wanted: Wanted, there: QliroOrder, memory: Memory) -> Kept:
    """From the notes of when it was sent. A shortfall without a note (it was lost) is attributed to the order's fees
    and withheld amounts, as far as these explain it.
    """
    charged = {note.name for note in memory.notes_of("fee", there)}
    kept = Kept([], {note.name for note in memory.notes_of("withheld", there)})
    noted = {note.transaction for note in memory.notes}
    short = sum(minor for one, minor in there.short.items() if one not in noted)
    for back in wanted.backs:
        if back.fee_minor and back.name not in charged:
            if back.fee_minor <= short:
                short -= back.fee_minor
            else:
                kept.uncharged.append(back)
        if back.name not in kept.withheld and 0 < back.withheld_minor <= short:
            short -= back.withheld_minor
            kept.withheld.add(back.name)
    kept.rest = max(0, short) + sum(note.minor for note in memory.notes_of("rest", there))
    return kept


# --- tax -----------------------------------------------------------------------------------------------------------


def without_tax(minor: int, rate_bp: int) -> int:
    """Rounded to a minor unit, halves away from zero."""
    return rounded(minor * 10_000, 10_000 + rate_bp)


def rate_of(there: QliroOrder, reference: str | None = None) -> int | None:
    """The only rate that explains every reserved pair of prices to the cent, for one article or for all."""
    if not there.rates:
        pairs: dict[str | None, set[tuple[int, int]]] = {None: set()}
        for key, known in there.known.items():
            for name in (key[0], None):
                pairs.setdefault(name, set()).add((key[2], known.ex_minor))
        for name, sent in pairs.items():
            fitting = _fitting(sent)
            there.rates[name] = fitting[0] if len(fitting) == 1 else None
    return there.rates.get(reference)


def _fitting(pairs: Iterable[tuple[int, int]]) -> list[int]:
    if not (sent := [(inc, ex) for inc, ex in pairs if inc]):
        return []
    return [
        rate
        for rate in range(0, RATE_MAX_BP + 1, RATE_STEP_BP)
        if all(without_tax(inc, rate) == ex for inc, ex in sent)
    ]


def ex_of(key: Key, rate_bp: int | None, there: QliroOrder) -> int | None:
    """The price of an item without tax: as it was reserved, or by a rate; `None`: unknown."""
    if (known := there.known.get(key)) is not None:
        return known.ex_minor
    if rate_bp is None:
        rate_bp = rate_of(there, key[0])
    if rate_bp is None:
        rate_bp = rate_of(there)
    return None if rate_bp is None else without_tax(key[2], rate_bp)
