"""One order at Qliro: reservations, captures, and the transactions that lead from one to the other. Pure.

A command makes transactions that are not final; only `Success` moves units and money (Qliro's OpenAPI of the Admin API
v2, June 2025; developers.qliro.com, read 2026-10). Amounts in minor units with tax.

Unverified, and so as it seems likely: an update after a partial shipment states what is left, not what was shipped; it
reverses the reservation that it replaces; additions are listed as shipped items; no capture is above what is reserved.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from msgspec import Struct, field

FINAL = frozenset({"Success", "Error", "Cancelled"})
Json = dict[str, Any]
Key = tuple[str, int]
"""Reference and price with tax: Qliro's identity of an item."""


class Refusal(Exception):  # noqa: N818 - the answer of a provider, not a mistake of ours
    """A command that comes to nothing."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class Item(Struct):
    """A line."""

    reference: str
    type: str
    inc: int
    ex: int
    quantity: int
    description: str = ""

    @property
    def key(self) -> Key:
        return self.reference, self.inc

    def of(self, quantity: int) -> "Item":
        """So many of it."""
        return Item(self.reference, self.type, self.inc, self.ex, quantity, self.description)


def without_tax(minor: int, rate_bp: int) -> int:
    """A price without its tax, in minor units, rounded half up as shops do."""
    full = 10_000 + rate_bp
    return (2 * minor * 10_000 + full) // (2 * full)


class Result(Struct, frozen=True):
    """How a transaction ends."""

    after_s: float = 0.0
    status: str = "Success"
    code: str = ""
    words: str = ""


class Transaction(Struct):
    """A movement on its way, or done."""

    id: int
    type: str
    amount: int
    at: float
    result: Result
    apply: Callable[[], None]
    original: int | None = None
    status: str = "Created"


class Capture(Struct):
    """What was captured at once."""

    items: dict[Key, Item]
    left: int
    returned: Counter[Key] = field(default_factory=Counter)

    def remaining(self, key: Key) -> int:
        """Units that were not returned."""
        return self.items[key].quantity - self.returned[key] if key in self.items else 0


class Order(Struct):
    """All that Qliro holds of an order."""

    id: int
    reference: str
    currency: str
    method: str
    transactions: dict[int, Transaction] = field(default_factory=dict)
    actions: list[tuple[str, int, Item]] = field(default_factory=list)
    reserved: dict[int, dict[Key, Item]] = field(default_factory=dict)
    captures: dict[int, Capture] = field(default_factory=dict)
    known: dict[Key, Item] = field(default_factory=dict)
    fees: int = 0
    """Kept back by returns."""
    is_cancelled: bool = False

    @property
    def is_own(self) -> bool:
        """Whether the payment method is Qliro's."""
        return self.method.startswith("QLIRO")

    @property
    def pending(self) -> list[Transaction]:
        """Transactions that are not final."""
        return [one for one in self.transactions.values() if one.status not in FINAL]

    @property
    def left(self) -> int:
        """Units that are reserved."""
        return sum(item.quantity for held in self.reserved.values() for item in held.values())

    @property
    def left_minor(self) -> int:
        """Money that is reserved."""
        return sum(item.quantity * item.inc for held in self.reserved.values() for item in held.values())

    @property
    def captured_minor(self) -> int:
        """Money that was captured and not given back."""
        return sum(one.left for one in self.captures.values())

    # --- the five commands; `make` gives a transaction its id and its fate ---

    def ship(self, which: int | None, lines: list[Item], make: "Make") -> None:
        """Captures units of one reservation."""
        which = max(self.reserved, default=0) if which is None else which
        held = self._reservation(which)
        if not any(item.quantity for item in held.values()):
            words = f"All items already shipped for transaction '{max(self.captures, default=which)}'"
            raise Refusal("NO_ITEMS_LEFT_IN_RESERVATION", f"Evaluation, {words} , therefore no items left.")
        items = self._named(lines, held, lambda key: held[key].quantity)
        total = sum(item.inc * item.quantity for item in items)
        reserved = sum(item.inc * item.quantity for item in held.values())
        if not 0 < total <= reserved:
            words = f"Evaluation, a capture of {total}, {reserved} reserved"
            raise Refusal("INVALID_REQUEST_TOTAL_AMOUNT", words)
        made = make("Capture", total, which)
        made.apply = lambda: self._captured(made, which, items)
        self._act("Ship", made, items)

    def _captured(self, made: Transaction, which: int, items: list[Item]) -> None:
        for item in items:
            self.reserved[which][item.key].quantity -= item.quantity
        self.captures[made.id] = Capture({item.key: item for item in items}, made.amount)

    def give_back(self, which: int | None, lines: list[Item], fees: int, discounts: int, make: "Make") -> None:
        """Refunds units of one capture; both amounts above 0."""
        capture = self._capture(which)
        items = self._named(lines, capture.items, capture.remaining)
        total = sum(item.inc * item.quantity for item in items) - fees - discounts
        if not 0 < total <= capture.left:
            words = f"Evaluation, a return of {total}, {capture.left} left"
            raise Refusal("INVALID_REQUEST_TOTAL_AMOUNT", words)
        made = make("Refund", total, which)
        made.apply = lambda: self._returned(made, capture, items, fees)
        self._act("Return", made, items)

    def _returned(self, made: Transaction, capture: Capture, items: list[Item], fees: int) -> None:
        for item in items:
            capture.returned[item.key] += item.quantity
        capture.left -= made.amount
        self.fees += fees

    def update(self, which: int | None, lines: list[Item], make: "Make") -> None:
        """Replaces a reservation."""
        which = max(self.reserved, default=0) if which is None else which
        self._reservation(which)
        if not self.left:
            raise Refusal("OPERATION_NOT_SUPPORTED", "Evaluation, everything has been shipped")
        items = self._said(lines)
        total = sum(item.inc * item.quantity for item in items)
        if total <= 0:
            raise Refusal("INVALID_REQUEST_TOTAL_AMOUNT", f"Evaluation, an update to {total}")
        if not self.is_own and (self.captures or total > self.left_minor):
            raise Refusal("OPERATION_NOT_SUPPORTED", f"Evaluation, not with {self.method}")
        was = sum(item.inc * item.quantity for item in self.reserved[which].values())
        made = make("Preauthorization", total, which)
        undone = make("Reversal", was, which)
        undone.result = made.result if made.result.status == "Success" else Result(made.result.after_s, "Cancelled")
        made.apply = lambda: self._replaced(made, which, items)
        self._act("Reserve", made, items)

    def _replaced(self, made: Transaction, which: int, items: list[Item]) -> None:
        del self.reserved[which]
        self.reserved[made.id] = {item.key: item.of(item.quantity) for item in items}
        for item in items:
            self.known.setdefault(item.key, item)

    def add(self, which: int | None, lines: list[Item], make: "Make") -> None:
        """Changes a capture by an amount."""
        capture, items = self._capture(which), self._said(lines)
        total = sum(item.inc * item.quantity for item in items)
        if total > 0 and not self.is_own:
            raise Refusal("OPERATION_NOT_SUPPORTED", f"Evaluation, not with {self.method}")
        if total + capture.left < 0:
            raise Refusal("INVALID_REQUEST_TOTAL_AMOUNT", f"Evaluation, {total} of {capture.left}")
        made = make("UpdateInvoice" if self.is_own else "Refund", abs(total), which)
        made.apply = lambda: setattr(capture, "left", capture.left + total)
        self._act("Ship", made, items)

    def cancel(self, make: "Make") -> None:
        """Releases all that is reserved."""
        if not self.left:
            raise Refusal("NO_ITEMS_LEFT_IN_RESERVATION", "Evaluation, no items left")
        made = make("Reversal", self.left_minor, next(iter(self.transactions)))
        made.apply = self.release
        self._act("Release", made, [item for held in self.reserved.values() for item in held.values() if item.quantity])

    def release(self) -> None:
        """Nothing is reserved any more."""
        self.reserved = {which: {} for which in self.reserved}
        self.is_cancelled = True

    # --- what they have in common ---

    def _reservation(self, which: int) -> dict[Key, Item]:
        if which not in self.reserved or self.transactions[which].status != "Success":
            words = f"Evaluation, {which} is no successful Preauthorization or Debit"
            raise Refusal("PAYMENT_REFERENCE_IS_INCORRECT", words)
        return self.reserved[which]

    def _capture(self, which: int | None) -> Capture:
        if which not in self.captures:
            actual = self.transactions[which].type if which in self.transactions else "nothing"
            words = f"Evaluation, Expected type 'Capture' but actual type '{actual}'"
            raise Refusal("INVALID_PAYMENT_TYPE", words)
        return self.captures[which]

    def _named(self, lines: list[Item], held: dict[Key, Item], there: Callable[[Key], int]) -> list[Item]:
        """Lines that only name what is held, no more of it than there is."""
        if not lines:
            raise Refusal("INVALID_INPUT", "Property: OrderItems, Message: must not be empty")
        items = []
        for line in lines:
            known = held.get(line.key)
            if known is None or known.type != line.type:
                raise Refusal("INVALID_ITEM", f"Evaluation, no matching item {line.reference} in the order")
            if line.quantity > there(line.key):
                raise Refusal("EXCEEDING_QUANTITY", f"Evaluation, quantity of {line.reference} exceeds what is left")
            items.append(known.of(line.quantity))
        return items

    def _said(self, lines: list[Item]) -> list[Item]:
        """Lines that say everything of themselves, and nothing else of what is known."""
        if not lines:
            raise Refusal("INVALID_INPUT", "Property: OrderItems, Message: must not be empty")
        for line in lines:
            known = self.known.get(line.key)
            if known is not None and (known.ex, known.type) != (line.ex, line.type):
                raise Refusal("INVALID_ITEM", f"Evaluation, {line.reference} is known with another price or type")
        return lines

    def _act(self, action: str, made: Transaction, items: list[Item]) -> None:
        self.actions += [(action, made.id, item.of(item.quantity)) for item in items]


Make = Callable[[str, int, int | None], Transaction]
