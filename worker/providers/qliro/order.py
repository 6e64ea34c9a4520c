"""An order as Qliro has it, from the response to GetOrder. Pure.

Only successful transactions count, and a transaction that is not final blocks every command. Units have Qliro's own
identity: reference, type and price with tax, which are copied and never recomputed.
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
"""Time and id of a transaction: the sort key."""


class Reservation(Struct):
    """Items that may still be captured."""

    id: int
    at: When
    items: Units


class Capture(Struct):
    """Items that were captured together."""

    id: int
    at: When
    items: Units
    """Captured and not returned yet."""
    captured: Units
    """All that was captured."""
    left_minor: int
    """Money that may still be refunded."""


class Known(Struct, frozen=True):
    """How an item was reserved."""

    ex_minor: int
    description: str | None


class QliroOrder(Struct):
    """An order at Qliro. Amounts in minor units with tax."""

    order_id: int
    merchant_reference: str
    currency: str
    is_own: bool
    """Whether the payment method is Qliro's own: others can only be lowered, and only before the first capture."""
    statuses: dict[int, str]
    """The status of every transaction."""
    errors: dict[int, str]
    """The error texts of failed transactions."""
    reservations: list[Reservation]
    """Reservations that count, oldest first."""
    captures: list[Capture]
    """Oldest first."""
    first_reservation: int
    """The very first reservation: the checkout's."""
    replacing: dict[int, int]
    """By reservation: the one that it replaced."""
    known: dict[Key, Known]
    """Every item that was ever reserved."""
    kinds: dict[int, str]
    """The type of every transaction."""
    did: dict[int, dict[str, Units]]
    """By transaction and action, whatever its status."""
    added: Counter[str] = field(default_factory=Counter)
    """Amounts subtracted from captures, by reference; below 0: amounts added."""
    amounts: dict[int, int] = field(default_factory=dict)
    """The same amounts by transaction."""
    short: dict[int, int] = field(default_factory=dict)
    """By return: fees and discounts that it withheld."""
    rates: dict[str | None, int | None] = field(default_factory=dict)
    """Cached tax rates, by article, or for all."""
    fingerprint: bytes = b""
    """A digest of all transactions and actions: the same while nothing changes."""

    @property
    def left(self) -> Units:
        """All reserved units."""
        return sum((one.items for one in self.reservations), Units())

    @property
    def net(self) -> Units:
        """All units that are captured and not returned."""
        return sum((one.items for one in self.captures), Units())

    @property
    def not_final(self) -> list[int]:
        """Transactions that are not final."""
        return [one for one, status in self.statuses.items() if status not in wire.FINAL]


def worth(units: Units) -> int:
    """The price of units."""
    return sum(key[2] * count for key, count in units.items())


def above_zero(units: Units, once: Units) -> Units:
    """The units, with those of the lines that are captured once that leave the total above 0; the dearest first."""
    found = Units(units)
    total = worth(found)
    for key in sorted(once, key=lambda key: (-key[2], key)):
        more = key[2] * once[key]
        if total + more > 0:
            found[key] = once[key]
            total += more
    return found


_ID = re.compile(r"[0-9]{1,18}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?")


def _when(transaction: wire.Transaction) -> When:
    """Times occur with and without zone, and with up to seven fraction digits; all are UTC."""
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
    """A cancellation that failed because the bank had already released the money."""
    actions: dict[str, Units] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.status == "Success"

    def of(self, action: str) -> Units:
        """A copy of the units of this action."""
        return Units(self.actions.get(action, ()))


def order_from(order: wire.Order) -> QliroOrder:
    """Raises `ValueError` if it has amounts that are not whole minor units."""
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
    there = QliroOrder(
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
    _take_back(there, ordered)
    _keep_reserved(there, ordered, reserving)
    return there


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
        original = int(original) if _ID.fullmatch(original) else None
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
    parts = sorted(
        [
            one.id,
            one.kind,
            one.status,
            one.amount_minor,
            sorted([action, *key, count] for action, units in one.actions.items() for key, count in units.items()),
        ]
        for one in seen
    )
    return blake2b(msgspec.json.encode(parts), digest_size=16).digest()


# --- captures ----------------------------------------------------------------------------------------------------


def _take_back(there: QliroOrder, ordered: list[_Seen]) -> None:
    """Finds captures, and applies returns and additions to them."""
    captures: dict[int, Capture] = {}
    for one in ordered:
        if one.kind == "Capture" and one.is_ok and one.original not in captures:
            units = one.of("Ship")
            captures[one.id] = Capture(one.id, one.at, Units(units), Units(units), one.amount_minor)
    there.captures = list(captures.values())
    for one in ordered:
        if not one.is_ok or one.id in captures or one.kind in wire.RESERVES:
            continue
        capture = captures.get(one.original or 0)
        back, more = one.of("Return"), one.of("Ship")
        if back and there.captures:
            there.short[one.id] = worth(back) - one.amount_minor
            _return(there.captures if capture is None else [capture], back, one.amount_minor)
        elif more and capture is not None:
            capture.left_minor += worth(more)
            there.amounts[one.id] = -worth(more)
            for key, count in more.items():
                there.added[key[0]] -= key[2] * count
        elif one.kind == "Refund" and capture is not None:
            capture.left_minor -= one.amount_minor  # by somebody else, by amount
            there.amounts[one.id] = one.amount_minor


def _return(captures: list[Capture], back: Units, amount_minor: int) -> None:
    """Subtracts returned units from their capture; if there are several, from the oldest that has them."""
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


def _keep_reserved(there: QliroOrder, ordered: list[_Seen], reserving: list[_Seen]) -> None:
    """A reservation counts unless it is cancelled or named by a reversal, so upsells count in addition to the first."""
    reversals = [one for one in ordered if one.kind == "Reversal" and one.is_ok]
    named = {one.original for one in reversals}
    let_go = max((one.at for one in ordered if one.is_released), default=("", 0))
    standing = [
        Reservation(one.id, one.at, Units(one.of("Reserve"))) for one in reserving if one.is_ok and one.at > let_go
    ]
    live = [one for one in standing if one.id not in named]
    gone = {one.id: one for one in standing if one.id in named}
    originals = {one.id: one.original or 0 for one in ordered}
    for capture in there.captures:
        original = originals[capture.id]
        origin = [one for one in standing if one.id == original]
        _draw(origin if origin and original not in gone else _before(live, capture.at), Units(capture.captured))
        if original in gone:
            _draw([gone[original]], Units(capture.captured))
    for one in reversals:
        # It replaced one reservation or cancelled all: units released beyond the one that it names came from others.
        units = one.of("Release")
        _draw([gone.pop(one.original)] if one.original in gone else [], units)
        _draw(_before(live, one.at), units)
    for reservation in live:
        reservation.items = +reservation.items
    there.reservations = live


def _before(live: list[Reservation], at: When) -> list[Reservation]:
    """Earlier reservations, newest first."""
    return [one for one in reversed(live) if one.at < at]


def _draw(reservations: list[Reservation], units: Units) -> None:
    """Subtracts units from the first reservations that have them; the rest stays in `units`."""
    for reservation in reservations:
        for key in list(units):
            taken = min(units[key], reservation.items[key])
            reservation.items[key] -= taken
            units[key] -= taken
