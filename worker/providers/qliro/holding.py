"""What Qliro holds of an order, as its answer to GetOrder says it. Pure.

Only transactions that succeeded count, and whatever is not final stands in the way of every command. Units are known
by Qliro's own identity: reference, type and price with tax, which are copied and never computed anew.
"""

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import msgspec
from msgspec import Struct, field

from worker.providers.qliro import wire

Key = tuple[str, str, int]
"""Reference, type, and price with tax in minor units."""
Units = Counter[Key]
When = tuple[str, int]
"""Time and id of a transaction: what they are sorted by."""


class Reservation(Struct):
    """What may still be captured."""

    id: int
    at: When
    items: Units


class Capture(Struct):
    """What was captured at once."""

    id: int
    at: When
    items: Units
    """Not returned yet."""
    taken: Units
    """All that was captured."""
    left_minor: int
    """Money that may still be taken back."""


class Known(Struct, frozen=True):
    """What a reserved item was reserved as."""

    ex_minor: int
    description: str | None


class Holding(Struct):
    """An order at Qliro. Amounts in minor units with tax."""

    order_id: int
    merchant_reference: str
    currency: str
    is_own: bool
    """Whether the payment method is Qliro's: others can only be lowered, and only before the first capture."""
    statuses: dict[int, str]
    """Of every transaction."""
    errors: dict[int, str]
    """What is said of those that failed."""
    reservations: list[Reservation]
    """Those that count, oldest first."""
    captures: list[Capture]
    """Oldest first."""
    first_reservation: int
    """The oldest that ever was: the checkout's."""
    replacing: dict[int, int]
    """Reservations that were made of another one, and which."""
    known: dict[Key, Known]
    """Every item that was ever reserved."""
    kinds: dict[int, str]
    """The type of every transaction."""
    did: dict[int, dict[str, Units]]
    """By transaction and action, whatever became of it."""
    added: Counter[str] = field(default_factory=Counter)
    """What was taken off captures by amount, by reference; below 0: what was charged on top."""
    amounts: dict[int, int] = field(default_factory=dict)
    """By transaction, what was taken off captures by amount; below 0: what was charged on top."""
    short: dict[int, int] = field(default_factory=dict)
    """By return, what it paid back less than its lines: fees and discounts."""
    rates: dict[str | None, int | None] = field(default_factory=dict)
    """Of tax, by article, or of all: as far as somebody asked."""
    fingerprint: bytes = b""
    """Of all transactions and actions: the same while nothing changes."""

    @property
    def left(self) -> Units:
        """What is reserved, over all reservations."""
        return sum((one.items for one in self.reservations), Units())

    @property
    def net(self) -> Units:
        """What is captured and not returned, over all captures."""
        return sum((one.items for one in self.captures), Units())

    @property
    def not_final(self) -> list[int]:
        """Transactions under way."""
        return [one for one, status in self.statuses.items() if status not in wire.FINAL]


def worth(units: Units) -> int:
    """The price of units."""
    return sum(key[2] * count for key, count in units.items())


_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?")


def _when(transaction: wire.Transaction) -> When:
    """Times come with and without zone, and with up to seven fraction digits; all are UTC."""
    match = _TIME.match(transaction.timestamp or "")
    at = "" if match is None else f"{match[1]}.{(match[2] or '')[:9]:0<9}"
    return at, transaction.payment_transaction_id


class _Seen(Struct):
    """A transaction with its actions."""

    id: int
    kind: str
    status: str
    at: When
    original: int | None
    amount_minor: int
    is_released: bool
    """A cancellation that failed because the bank had let go of the money before."""
    actions: dict[str, Units] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.status == "Success"

    def of(self, action: str) -> Units:
        """What it did so to; the caller's own."""
        return Units(self.actions.get(action, ()))


def hold(order: wire.Order) -> Holding:
    """Raises `ValueError` when it has amounts that are no whole minor units."""
    seen = {one.payment_transaction_id: _seen(one) for one in order.payment_transactions}
    known: dict[Key, Known] = {}
    for action in order.order_item_actions:
        key = _key(action)
        name = wire.word(action.action_type, wire.ACTIONS)
        if name == "Reserve" and key not in known and action.price_per_item_ex_vat is not None:
            known[key] = Known(wire.minor(action.price_per_item_ex_vat), action.description)
        one = seen.get(action.payment_transaction_id or 0)
        if one is not None:
            one.actions.setdefault(name, Units())[key] += action.quantity
    ordered = sorted(seen.values(), key=lambda one: one.at)
    reserving = [one for one in ordered if one.kind in wire.RESERVES]
    holding = Holding(
        order.order_id,
        order.merchant_reference,
        order.currency,
        _is_own(order),
        {one.id: one.status for one in ordered},
        {one.payment_transaction_id: _words(one) for one in order.payment_transactions},
        [],
        [],
        reserving[0].id if reserving else 0,
        {one.id: one.original for one in reserving if one.original in seen},
        known,
        {one.id: one.kind for one in ordered},
        {one.id: one.actions for one in ordered},
        fingerprint=_fingerprint(seen.values()),
    )
    _take_back(holding, ordered)
    _keep_reserved(holding, ordered, reserving)
    return holding


def _is_own(order: wire.Order) -> bool:
    paying = [one for one in order.payment_transactions if wire.word(one.type, wire.KINDS) in wire.RESERVES]
    return bool(paying) and all((one.payment_method_name or "").startswith(wire.OWN_METHODS) for one in paying)


def _key(action: wire.Action) -> Key:
    return (
        action.merchant_reference,
        wire.word(action.type, wire.TYPES),
        wire.minor(action.price_per_item_inc_vat),
    )


def _seen(one: wire.Transaction) -> _Seen:
    status = wire.word(one.status, wire.STATUSES)
    original = one.original_payment_transaction_id
    if isinstance(original, str):
        original = int(original) if original.isascii() and original.isdigit() else None
    kind = wire.word(one.type, wire.KINDS)
    said = _words(one)
    return _Seen(
        one.payment_transaction_id,
        kind,
        status,
        _when(one),
        original,
        abs(wire.minor(one.amount)),  # the amount of a refund may be below 0
        kind == "Reversal" and status == "Error" and wire.RELEASED in said,
    )


def _words(one: wire.Transaction) -> str:
    return one.error_code_description or one.provider_result_description or one.error_code or ""


def _fingerprint(seen: Iterable[_Seen]) -> bytes:
    told = sorted(
        [
            one.id,
            one.kind,
            one.status,
            one.amount_minor,
            sorted([action, *key, count] for action, units in one.actions.items() for key, count in units.items()),
        ]
        for one in seen
    )
    return blake2b(msgspec.json.encode(told), digest_size=16).digest()


# --- captures ----------------------------------------------------------------------------------------------------


def _take_back(holding: Holding, ordered: list[_Seen]) -> None:
    """Captures, and what returns and additions made of them."""
    captures: dict[int, Capture] = {}
    for one in ordered:
        if one.kind == "Capture" and one.is_ok and one.original not in captures:
            units = one.of("Ship")
            captures[one.id] = Capture(one.id, one.at, Units(units), Units(units), one.amount_minor)
    holding.captures = list(captures.values())
    for one in ordered:
        if not one.is_ok or one.id in captures or one.kind in wire.RESERVES:
            continue
        capture = captures.get(one.original or 0)
        back, more = one.of("Return"), one.of("Ship")
        if back and holding.captures:
            holding.short[one.id] = worth(back) - one.amount_minor
            _return(holding.captures if capture is None else [capture], back, one.amount_minor)
        elif more and capture is not None:
            capture.left_minor += worth(more)
            holding.amounts[one.id] = -worth(more)
            for key, count in more.items():
                holding.added[key[0]] -= key[2] * count
        elif one.kind == "Refund" and capture is not None:
            capture.left_minor -= one.amount_minor  # by somebody else, by amount
            holding.amounts[one.id] = one.amount_minor


def _return(captures: list[Capture], back: Units, amount_minor: int) -> None:
    """Takes what came back off the capture it was taken from; of several the oldest that has it."""
    back = Units(back)
    for capture in captures:
        for key in list(back):
            taken = min(back[key], capture.items[key])
            capture.items[key] -= taken
            back[key] -= taken
    captures[0].left_minor -= amount_minor
    for capture in captures:
        capture.items = +capture.items


# --- reservations ------------------------------------------------------------------------------------------------


def _keep_reserved(holding: Holding, ordered: list[_Seen], reserving: list[_Seen]) -> None:
    """A reservation counts unless it is cancelled or named by a reversal, so upsells beside the first one count."""
    reversals = [one for one in ordered if one.kind == "Reversal" and one.is_ok]
    named = {one.original for one in reversals}
    let_go = max((one.at for one in ordered if one.is_released), default=("", 0))
    standing = [
        Reservation(one.id, one.at, Units(one.of("Reserve"))) for one in reserving if one.is_ok and one.at > let_go
    ]
    live = [one for one in standing if one.id not in named]
    gone = {one.id: one for one in standing if one.id in named}
    originals = {one.id: one.original or 0 for one in ordered}
    for capture in holding.captures:
        original = originals[capture.id]
        origin = [one for one in standing if one.id == original]
        _draw(origin if origin and original not in gone else _before(live, capture.at), Units(capture.taken))
        if original in gone:
            _draw([gone[original]], Units(capture.taken))
    for one in reversals:
        # Which replaced a reservation or cancelled all of them: what is released beyond the one it names, others held.
        units = one.of("Release")
        _draw([gone.pop(one.original)] if one.original in gone else [], units)
        _draw(_before(live, one.at), units)
    for reservation in live:
        reservation.items = +reservation.items
    holding.reservations = live


def _before(live: list[Reservation], at: When) -> list[Reservation]:
    """Those that were there by then, newest first."""
    return [one for one in reversed(live) if one.at < at]


def _draw(reservations: list[Reservation], units: Units) -> None:
    """Takes units off the first that have them; what none has is left in `units`."""
    for reservation in reservations:
        for key in list(units):
            taken = min(units[key], reservation.items[key])
            reservation.items[key] -= taken
            units[key] -= taken
