"""Random histories of one order: mostly plausible, sometimes contradictory, over all twelve event types.

`histories()` gives events in the order in which the shop told them; tests shuffle, repeat and split them. No two have
the same (sequence, time) unless `ties` is asked for, so every order of arrival has to end in the same carts.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from schemas.events import GOODS, OrderEvent
from tests.unit.core import shop
from tests.unit.core.shop import LineDict, Told

GOODS_IDS = ("a", "b", "c")
AMOUNTS = st.one_of(st.integers(0, 5_000), st.sampled_from([0, 1, 333, 1000, 10**11]))
REASONS = st.sampled_from([None, "out_of_stock", "late", "", "The customer no longer wants it"])

Draw = Callable[[st.SearchStrategy[Any]], Any]


class _Shelf:
    """What the shop believes of its order, so that what it tells makes sense unless it is `careless`."""

    def __init__(self, careless: bool) -> None:
        self.careless = careless
        self.pending: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.told_ids = 0
        self.shipments: list[str] = []

    def ordered(self, lines: list[LineDict]) -> None:
        """A new content: what is kept stays kept."""
        self.pending = {
            line["reference"]: max(0, line["quantity"] - self.kept.get(line["reference"], 0))
            for line in lines
            if line.get("type", "product") in GOODS
        }

    def has(self, lines: list[LineDict]) -> list[LineDict]:
        """A content in which nothing is missing of what the shopper keeps; the shop may not look."""
        if self.careless:
            return lines
        known = {line["reference"]: line for line in lines}
        missing = [one for one, count in self.kept.items() if count and one not in known]
        for one, count in self.kept.items():
            if "quantity" in known.get(one, {}):
                known[one]["quantity"] = max(count, known[one]["quantity"])
        return lines + [shop.goods(one, self.kept[one], 700, unit_price_minor=0) for one in missing]


@st.composite
def contents(draw: Draw) -> list[LineDict]:
    """A cart: up to three goods lines, sometimes none, and up to four charges and adjustments."""
    ids = draw(st.lists(st.sampled_from(GOODS_IDS), unique=True, max_size=3)) or draw(st.sampled_from([["a"], []]))
    lines = [shop.goods(one, draw(st.integers(1, 4)), draw(AMOUNTS), unit_price_minor=0) for one in ids]
    free = [one for one in GOODS_IDS if one not in ids]
    kinds = st.sampled_from(
        ["handling", "handling", "discount", "discount", "other_payment", "registration", "voucher", "invoice_fee"]
    )
    for number, kind in enumerate(draw(st.lists(kinds, max_size=4))):
        total = draw(st.one_of(st.integers(0, 100), st.integers(0, 800)))
        if kind in ("discount", "other_payment"):
            total = -max(1, total)
        # One time in eight the id is one that goods have in another cart.
        reference = free.pop() if free and draw(st.integers(0, 7)) == 0 else f"{kind}-{number}"
        line = shop.other(kind, reference, total)
        if ids and kind in ("discount", "other_payment", "registration") and draw(st.booleans()):
            line["applies_to"] = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True))
        lines.append(line)
    lines = draw(st.permutations(lines))
    return lines or [shop.other("handling", "handling-0", 100)]


def _some_units(draw: Draw, shelf: _Shelf, available: dict[str, int]) -> dict[str, Any]:
    """Units of what is there, if anything is; the careless take something that is not, or more than there is."""
    if not any(available.values()) and not shelf.careless:
        return {}
    if not any(available.values()) or (shelf.careless and draw(st.integers(0, 5)) == 0):
        return {draw(st.sampled_from([*GOODS_IDS, "handling-0", "z"])): draw(st.integers(1, 5))}
    there = [one for one, count in available.items() if count]
    chosen = draw(st.lists(st.sampled_from(there), min_size=1, max_size=len(there), unique=True))
    return {one: draw(st.integers(1, available[one])) for one in chosen}


def _an_id(draw: Draw, shelf: _Shelf, letter: str) -> str:
    """Mostly a new id; sometimes one from before: a correction."""
    shelf.told_ids += 1
    return f"{letter}{draw(st.integers(0, 2)) if draw(st.integers(0, 5)) == 0 else shelf.told_ids}"


def _tracking(draw: Draw) -> list[dict[str, Any]] | None:
    if not draw(st.booleans()):
        return None
    postal: dict[str, Any] = {"reference": "T", "type": "postal", "carrier": "UPS"}
    return [postal, postal | {"reference": "T2", "delivered_at": "2026-03-04T00:00:00Z"}][: draw(st.integers(1, 2))]


def _confirmed(draw: Draw, shelf: _Shelf) -> Told:
    lines = shelf.has(draw(contents()))
    shelf.ordered(lines)
    members = draw(
        st.sampled_from([{}, {}, {}, {"payment_state": "approved"}, {"payment_state": "on_hold"}, {"gift": True}])
    )
    return shop.confirmed(*lines, **members)


def _cart_updated(draw: Draw, shelf: _Shelf) -> Told:
    lines = shelf.has(draw(contents()))
    shelf.ordered(lines)
    members = {"cart_version": draw(st.integers(-1, 3))} if draw(st.booleans()) else {}
    return shop.cart_updated(
        *lines, currency="USD" if shelf.careless and draw(st.integers(0, 9)) == 0 else "EUR", **members
    )


def _shipped(draw: Draw, shelf: _Shelf) -> Told:
    named = _some_units(draw, shelf, shelf.pending)
    if not named:
        return _details(draw, shelf)
    for one, count in named.items():
        shelf.pending[one] = max(0, shelf.pending.get(one, 0) - count)
        shelf.kept[one] = shelf.kept.get(one, 0) + count
    shipment_id = _an_id(draw, shelf, "s")
    shelf.shipments.append(shipment_id)
    return shop.shipped(shipment_id, _tracking(draw), **named)


def _delivered(draw: Draw, shelf: _Shelf) -> Told:
    day = draw(st.integers(10, 28))
    return shop.delivered(draw(st.sampled_from([*shelf.shipments, "s9"])), f"2026-03-{day}T10:00:00Z")


def _returned(draw: Draw, shelf: _Shelf) -> Told:
    origin = draw(st.sampled_from(["shipped", "shipped", "unshipped"]))
    source = shelf.kept if origin == "shipped" else shelf.pending
    named = _some_units(draw, shelf, source)
    if not named:
        return _refunded(draw, shelf)
    for one, count in named.items():
        source[one] = max(0, source.get(one, 0) - count)
    handling = draw(st.integers(1, 300)) if draw(st.integers(0, 3)) == 0 else None
    fee = draw(st.integers(1, 300)) if origin == "shipped" and draw(st.integers(0, 3)) == 0 else None
    return shop.returned(_an_id(draw, shelf, "r"), origin=origin, fee=fee, handling=handling, **named)


def _items_cancelled(draw: Draw, shelf: _Shelf) -> Told:
    named = _some_units(draw, shelf, shelf.pending)
    if not named:
        return _details(draw, shelf)
    for one, count in named.items():
        shelf.pending[one] = max(0, shelf.pending.get(one, 0) - count)
    return shop.items_cancelled(_an_id(draw, shelf, "c"), draw(REASONS), **named)


def _refunded(draw: Draw, shelf: _Shelf) -> Told:
    amount = 10**12 if shelf.careless and draw(st.booleans()) else draw(st.integers(1, 500))
    return shop.refunded(_an_id(draw, shelf, "f"), amount, **draw(st.sampled_from([{}, {"name": "Goodwill"}])))


def _cancelled(draw: Draw, shelf: _Shelf) -> Told:
    shelf.pending = {}
    members: dict[str, Any] = {"by": draw(st.sampled_from(["merchant", "shopper", "provider"]))}
    reason = draw(REASONS)
    return shop.cancelled(**(members if reason is None else members | {"reason": reason}))


def _stated(draw: Draw, shelf: _Shelf) -> Told:
    empty: list[LineDict] = []
    members: dict[str, Any] = {"cart_version": draw(st.integers(-1, 3))} if draw(st.booleans()) else {}
    reason = draw(REASONS)
    return shop.stated(
        draw(st.one_of(st.just(empty), contents())),
        draw(st.one_of(st.just(empty), contents())),
        "USD" if shelf.careless and draw(st.integers(0, 9)) == 0 else "EUR",
        **(members if reason is None else members | {"reason": reason}),
    )


_DETAILS: list[dict[str, Any]] = [
    {"gift": True},
    {"gift": None, "cart_ref": "c1"},
    {"customer": {"given_names": "Ana", "email": "ana@example.org"}},
    {"customer": None},
    {"delivery_address": {"line_1": "Calle 1", "city": "Vigo"}, "delivery_method": {"name": "post", "days": 2}},
    {"references": {"secondary": "S-1"}, "store_ref": "7"},
]


def _details(draw: Draw, shelf: _Shelf) -> Told:
    return shop.details(**draw(st.sampled_from(_DETAILS)))


def _payment(draw: Draw, shelf: _Shelf) -> Told:
    return shop.payment(draw(st.sampled_from(["approved", "approved", "approved", "on_hold", "refused"])))


def _retracted(draw: Draw, shelf: _Shelf) -> Told:
    kind = draw(st.sampled_from(["shipment_id", "return_id", "cancellation_id", "refund_id", "cancelled", "stated"]))
    if kind in ("cancelled", "stated"):
        return shop.retracted(**{kind: True})
    letter = {"shipment_id": "s", "return_id": "r", "cancellation_id": "c", "refund_id": "f"}[kind]
    return shop.retracted(**{kind: f"{letter}{draw(st.integers(0, 6))}"})


_TELLERS: list[tuple[int, Callable[[Draw, _Shelf], Told]]] = [
    (9, _shipped),
    (6, _returned),
    (3, _items_cancelled),
    (3, _refunded),
    (2, _retracted),
    (2, _cart_updated),
    (2, _delivered),
    (2, _details),
    (1, _cancelled),
    (1, _stated),
    (1, _payment),
    (1, _confirmed),
]
_WEIGHTED = [teller for weight, teller in _TELLERS for _ in range(weight)]


@st.composite
def tellings(draw: Draw, max_size: int = 10) -> list[Told]:
    """What a shop tells of one order, in its own order; the confirmation mostly first, sometimes late or never."""
    shelf = _Shelf(careless=draw(st.integers(0, 2)) == 0)
    told = [_confirmed(draw, shelf)] if draw(st.integers(0, 9)) else []
    told += [teller(draw, shelf) for teller in draw(st.lists(st.sampled_from(_WEIGHTED), max_size=max_size))]
    return told or [shop.details(gift=True)]


@st.composite
def histories(draw: Draw, max_size: int = 10, ties: bool = False) -> list[OrderEvent]:
    """The events of `tellings`, with or without sequences, their times not always in the order of telling."""
    told = draw(tellings(max_size))
    sequences = draw(st.sampled_from(["none", "none", "all", "some"]))
    jumble = draw(st.integers(0, 4)) == 0
    times = list(range(1, len(told) + 1))
    if ties:
        times = [number // 2 for number in times]
    elif jumble:
        times = draw(st.permutations(times))
    events = []
    for number, (one, at) in enumerate(zip(told, times, strict=True), start=1):
        attributes: dict[str, Any] = {"id": f"e{number}", "time": shop.time_text(at)}
        if sequences == "all" or (sequences == "some" and draw(st.booleans())):
            attributes["sequence"] = str(number // 2 if ties else number)
        events.append(shop.event(one.but(**attributes)))
    return events
