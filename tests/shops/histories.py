"""Random histories of one order: mostly plausible, sometimes contradictory, over every type of event.

The one place that makes them. `story` gives the events as a shop writes them (CloudEvents as JSON), in the order in
which it told them; all chance comes from the `Random` that it is given, so a seed is a history. `histories` and
`stories` are the same for hypothesis. No two events have the same (sequence, time) unless `ties` is asked for, so
every order of arrival has to end in the same carts.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from hypothesis import strategies as st

from schemas.base import AMOUNT_MAX_MINOR
from schemas.events import CHARGES, GOODS, NEGATIVE, OrderEvent
from tests.shops.events import SUBJECT, LineDict, event_of, goods, other, time_text

Json = dict[str, Any]

GOODS_IDS = ("a", "b", "c", "d")
OTHER_KINDS = (
    ("handling",) * 6 + ("discount",) * 6 + ("other_payment",) * 3 + ("registration",) * 2 + ("voucher", "invoice_fee")
)
AMOUNTS = (0, 1, 2, 3, 7, 10, 99, 100, 333, 500, 1_000, 2_500, 9_999)
REASONS = (None, None, "out_of_stock", "late", "", "The customer no longer wants it")
FACTS = {"s": "shipment_id", "r": "return_id", "c": "cancellation_id", "f": "refund_id", "e": "fee_id"}
ENDS: Json = {"attributes": {"ends_in": "P1Y"}}
GOODS_TYPES: tuple[Json, ...] = ({"type": "subscriber_fee"}, {"type": "service"} | ENDS)
"""Instead of a product."""
HUGE = 10**11
SEEDS = st.integers(0, 2**48)


class Shop:
    """What the shop believes of its order, so that what it tells makes sense unless it is `careless`."""

    def __init__(self, chance: Random, careless: bool) -> None:
        self.chance = chance
        self.careless = careless
        self.lines: list[LineDict] = []
        self.pending: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.refundable = 0
        self.handling = 0
        self.stated = False
        self.told: dict[str, tuple[str, dict[str, int]]] = {}
        """By fact id: where its units came from (`pending` or `kept`, with what became of them), and the units."""
        self.count = 0

    def one_in(self, number: int) -> bool:
        """Chance."""
        return self.chance.randrange(number) == 0

    # --- contents

    def content(self) -> list[LineDict]:
        """A whole new cart, or what was there with a change; what is kept is in it, unless nobody looks."""
        lines = self._changed() if self.lines and not self.one_in(3) else self._fresh()
        lines = self._with_kept(lines) or [other("handling", "handling-0", 100)]
        ids = {key_of(line): line for line in lines}
        for line in lines:
            if "applies_to" in line:
                fits = (*GOODS,) if line["type"] in CHARGES else (*GOODS, *CHARGES)
                line["applies_to"] = [
                    one for one in line["applies_to"] if one in ids and ids[one].get("type", "product") in fits
                ]
                if not line["applies_to"]:
                    del line["applies_to"]
        self._know(lines)
        return lines

    def _fresh(self) -> list[LineDict]:
        chance = self.chance
        wanted = [one for one in GOODS_IDS if self.one_in(2)]
        if not wanted and not self.one_in(4):
            wanted = [chance.choice(GOODS_IDS)]
        lines = [self._goods(one) for one in wanted]
        kinds = [chance.choice(OTHER_KINDS) for _ in range(chance.choice((0, 0, 1, 1, 2, 2, 3, 4)))]
        for number, kind in enumerate(kinds):
            lines.append(self._other(kind, number, lines))
        chance.shuffle(lines)
        return self._above_zero(lines) or [other("handling", "handling-0", 100)]

    def _goods(self, one: str) -> LineDict:
        chance = self.chance
        total = chance.choice((chance.choice(AMOUNTS), chance.randrange(6_000), chance.randrange(60)))
        if self.one_in(200):
            total = HUGE * chance.randrange(1, 11)
        line = goods(one, chance.choice((1, 1, 2, 2, 3, 4, 5, 7)), total, unit_price_minor=0)
        if self.one_in(6):
            line |= {"line_id": one, "reference": f"sku-{one}"}
        if self.one_in(6):
            line |= chance.choice(GOODS_TYPES)
        return line

    def _other(self, kind: str, number: int, lines: list[LineDict]) -> LineDict:
        chance = self.chance
        total = chance.choice((chance.randrange(101), chance.randrange(801), chance.choice(AMOUNTS)))
        used = {key_of(line) for line in lines}
        free = [one for one in GOODS_IDS if one not in used]
        # One time in thirty the id is one that goods have in another cart.
        reference = chance.choice(free) if free and self.one_in(30) else f"{kind}-{number}"
        if kind in NEGATIVE:
            reach = sum(line["total_minor"] for line in lines if line.get("type") != "voucher")
            total = -min(AMOUNT_MAX_MINOR, max(1, chance.choice((total, total, reach - chance.randrange(-3, 40)))))
        line = other(kind, reference, total)
        fits = [
            key_of(one)
            for one in lines
            if one.get("type", "product") in GOODS or (one["type"] in CHARGES and kind not in CHARGES)
        ]
        tied = kind != "voucher" and fits and (self.one_in(4) if kind in CHARGES else self.one_in(2))
        if tied:
            line["applies_to"] = chance.sample(fits, chance.randrange(1, min(3, len(fits)) + 1))
        return line

    def _above_zero(self, lines: list[LineDict]) -> list[LineDict]:
        """Without the reductions that a content below 0 has too many."""
        while sum(line["total_minor"] for line in lines) < 0 and not (self.careless and self.one_in(8)):
            lines.remove(next(line for line in lines if line["total_minor"] < 0))
        return lines

    def _changed(self) -> list[LineDict]:
        chance = self.chance
        lines: list[LineDict] = [dict(line) for line in self.lines]
        for _ in range(chance.choice((1, 1, 2))):
            change = chance.randrange(5)
            if change == 0 and len(lines) > 1:
                lines.pop(chance.randrange(len(lines)))
            elif change == 1:
                line = chance.choice(lines)
                if line["total_minor"] >= 0:
                    line["total_minor"] = min(
                        AMOUNT_MAX_MINOR, max(0, line["total_minor"] + chance.randrange(-300, 301))
                    )
            elif change == 2:
                line = chance.choice(lines)
                if "quantity" in line:
                    line["quantity"] = max(1, line["quantity"] + chance.choice((-1, 1, 2)))
            elif change == 3:
                free = [one for one in GOODS_IDS if one not in {key_of(line) for line in lines}]
                lines += [self._goods(chance.choice(free))] if free else []
            else:
                number = 4 + chance.randrange(4)
                line = self._other(chance.choice(OTHER_KINDS), number, lines)
                lines += [line] if key_of(line) not in {key_of(one) for one in lines} else []
        return self._above_zero(lines)

    def _with_kept(self, lines: list[LineDict]) -> list[LineDict]:
        if self.careless and self.one_in(2):
            return lines
        known = {key_of(line): line for line in lines}
        for one, count in self.kept.items():
            if count and one not in known:
                lines = [*lines, goods(one, count, 700, unit_price_minor=0)]
            elif "quantity" in known.get(one, {}):
                known[one]["quantity"] = max(count, known[one]["quantity"])
        return lines

    def _know(self, lines: list[LineDict]) -> None:
        self.lines = lines
        self.pending = {
            key_of(line): max(0, line["quantity"] - self.kept.get(key_of(line), 0))
            for line in lines
            if "quantity" in line
        }
        self.refundable = max(self.refundable, sum(line["total_minor"] for line in lines))
        self.handling = sum(line["total_minor"] for line in lines if line.get("type") == "handling")

    # --- facts and their ids

    def units(self, shelves: Iterable[dict[str, int]]) -> dict[str, int]:
        """Units of what is there, if anything is; the careless take something that is not, or more than there is."""
        chance = self.chance
        there: dict[str, int] = {}
        for shelf in shelves:
            for one, count in shelf.items():
                there[one] = there.get(one, 0) + count
        there = {one: count for one, count in there.items() if count > 0}
        if self.careless and self.one_in(5):
            return {chance.choice((*GOODS_IDS, "handling-0", "z")): chance.randrange(1, 6)}
        chosen = chance.sample(list(there), chance.randrange(1, len(there) + 1)) if there else []
        return {one: there[one] if self.one_in(3) else chance.randrange(1, there[one] + 1) for one in chosen}

    def fact_id(self, letter: str) -> str:
        """Mostly a new id; sometimes one from before: a correction, whose former units are where they were."""
        known = [key for key in self.told if key.startswith(letter)]
        if known and self.one_in(8):
            key = self.chance.choice(known)
            self.undo(key)
            return key
        self.count += 1
        return f"{letter}{self.count}"

    def move(self, key: str, path: str, units: dict[str, int]) -> None:
        """Takes units along a path: `pending>kept`, `kept>`, `pending>`, and remembers it for a retraction."""
        self.told[key] = (path, units)
        source, _, target = path.partition(">")
        for one, count in units.items():
            self._shelf(source)[one] = max(0, self._shelf(source).get(one, 0) - count)
            if target:
                self._shelf(target)[one] = self._shelf(target).get(one, 0) + count

    def undo(self, key: str) -> None:
        """The units of this fact are where they were before it."""
        path, units = self.told.pop(key, ("", {}))
        source, _, target = path.partition(">")
        for one, count in units.items():
            if target:
                self._shelf(target)[one] = max(0, self._shelf(target).get(one, 0) - count)
            if source:
                self._shelf(source)[one] = self._shelf(source).get(one, 0) + count

    def _shelf(self, name: str) -> dict[str, int]:
        return self.pending if name == "pending" else self.kept


def key_of(line: LineDict) -> str:
    """The id of a line."""
    return str(line.get("line_id", line["reference"]))


# --- tellers: what a shop may tell next; nothing when there is nothing to tell ---------------------------------------

Spec = tuple[str, Json]


def _confirmed(shop: Shop) -> Spec:
    extra = shop.chance.choice(
        ({}, {}, {}, {"payment_state": "approved"}, {"payment_state": "on_hold"}, {"gift": True})
    )
    return "order.confirmed", {"currency": "EUR", "lines": shop.content()} | extra


def _cart_updated(shop: Shop) -> Spec:
    data: Json = {"currency": "USD" if shop.careless and shop.one_in(12) else "EUR", "lines": shop.content()}
    if shop.one_in(4):
        data["cart_version"] = shop.chance.randrange(-1, 4)
    return "order.cart_updated", data


def _shipped(shop: Shop) -> Spec | None:
    key = shop.fact_id("s")
    named = shop.units([shop.pending])
    if not named:
        return None
    shop.move(key, "pending>kept", named)
    data: Json = {"shipment_id": key, "lines": _units(named)}
    if shop.one_in(3):
        postal: Json = {"reference": "T", "type": "postal", "carrier": "UPS"}
        parcels = [postal, postal | {"reference": "T2", "delivered_at": "2026-03-04T00:00:00Z"}]
        data["tracking"] = parcels[: shop.chance.randrange(1, 3)]
    return "order.items_shipped", data


def _delivered(shop: Shop) -> Spec:
    shipments = [key for key in shop.told if key.startswith("s")]
    day = shop.chance.randrange(10, 29)
    key = shop.chance.choice([*shipments, "s99"])
    return "order.items_delivered", {"shipment_id": key, "delivered_at": f"2026-03-{day}T10:00:00Z"}


def _returned(shop: Shop) -> Spec | None:
    chance = shop.chance
    origin = chance.choice(("shipped", "shipped", "shipped", "unshipped", "any", "any"))
    shelves = {"shipped": [shop.kept], "unshipped": [shop.pending], "any": [shop.pending, shop.kept]}[origin]
    key = shop.fact_id("r")
    named = {} if shop.one_in(10) else shop.units(shelves)
    data: Json = {"return_id": key, "lines": _units(named)}
    if origin != "shipped" or shop.one_in(4):
        data["from"] = origin
    if (not named or shop.one_in(4)) and (shop.handling or shop.careless):
        most = shop.handling if not (shop.careless and shop.one_in(4)) else 900
        data["refund_handling_minor"] = most if shop.one_in(3) and most else chance.randrange(1, max(2, most + 1))
        shop.handling = max(0, shop.handling - data["refund_handling_minor"])
    if not named and "refund_handling_minor" not in data:
        return None
    if origin == "shipped":
        if shop.one_in(5):
            data["fee_minor"] = chance.randrange(1, 300)
        if named and shop.one_in(2):
            data["refunded_minor"] = _paid_back(shop, named)
    if shop.one_in(4):
        data |= _reason(shop)
    shop.move(key, "kept>" if origin == "shipped" else "pending>", named)
    return "order.items_returned", data


def _paid_back(shop: Shop, named: dict[str, int]) -> int:
    """About what the units were worth; sometimes nothing, sometimes more."""
    worth = sum(
        line["total_minor"] * named[key_of(line)] // line["quantity"]
        for line in shop.lines
        if key_of(line) in named and "quantity" in line
    )
    chance = shop.chance
    paid = chance.choice((0, worth, worth - chance.randrange(300), worth // 2, worth + chance.randrange(60)))
    return min(AMOUNT_MAX_MINOR, max(0, paid))


def _items_cancelled(shop: Shop) -> Spec | None:
    key = shop.fact_id("c")
    named = shop.units([shop.pending])
    if not named:
        return None
    shop.move(key, "pending>", named)
    return "order.items_cancelled", {"cancellation_id": key, "lines": _units(named)} | _reason(shop)


def _refunded(shop: Shop) -> Spec | None:
    chance = shop.chance
    if not shop.refundable and not (shop.careless and shop.one_in(4)):
        return None
    most = max(1, shop.refundable)
    amount = max(1, chance.choice((chance.randrange(1, 500), chance.randrange(1, most + 1), most, most // 3)))
    if not shop.careless or not shop.one_in(6):
        amount = max(1, min(amount, most))
    amount = min(amount, AMOUNT_MAX_MINOR)
    shop.refundable = max(0, shop.refundable - amount)
    data: Json = {"refund_id": shop.fact_id("f"), "amount_minor": amount}
    shop.told[data["refund_id"]] = ("", {})
    fits = [key_of(one) for one in shop.lines if one.get("type", "product") in GOODS | CHARGES]
    if shop.careless and shop.one_in(8):
        fits = sorted({"z", *(key_of(one) for one in shop.lines)})
    if fits and not shop.one_in(3):
        data["applies_to"] = chance.sample(fits, chance.randrange(1, min(3, len(fits)) + 1))
    return "order.refunded", data | chance.choice(({}, {}, {"name": "Goodwill"})) | (_reason(shop))


def _fee_charged(shop: Shop) -> Spec:
    key = shop.fact_id("e")
    shop.told[key] = ("", {})
    data = {"fee_id": key, "amount_minor": shop.chance.randrange(1, 400)}
    return "order.fee_charged", data | shop.chance.choice(({}, {"name": "Reminder"}))


def _cancelled(shop: Shop) -> Spec | None:
    kept = any(shop.kept.values())
    if kept and not any(shop.pending.values()) and not shop.careless:
        return None
    data: Json = {}
    if shop.one_in(2):
        data["by"] = shop.chance.choice(
            ("merchant", "shopper") if kept and not shop.careless else ("provider", "shopper")
        )
    return "order.cancelled", data | _reason(shop)


def _stated(shop: Shop) -> Spec:
    shop.stated = True
    carts: list[list[LineDict]] = []
    for _ in range(2):
        fresh = Shop(shop.chance, shop.careless)
        carts.append([] if shop.one_in(3) else fresh.content())
    currency = "USD" if shop.careless and shop.one_in(12) else "EUR"
    data: Json = {"currency": currency, "shipped": carts[0], "unshipped": carts[1]}
    if shop.one_in(2):
        data["cart_version"] = shop.chance.randrange(-1, 4)
    return "order.carts_stated", data | _reason(shop)


DETAILS: tuple[Json, ...] = (
    {"gift": True},
    {"gift": None, "cart_ref": "c1"},
    {"customer": {"given_names": "Ana", "email": "ana@example.org"}},
    {"customer": None},
    {"delivery_address": {"line_1": "Calle 1", "city": "Vigo"}, "delivery_method": {"name": "post", "days": 2}},
    {"references": {"secondary": "S-1"}, "store_ref": "7"},
)


def _details(shop: Shop) -> Spec:
    return "order.details_changed", shop.chance.choice(DETAILS)


def _payment(shop: Shop) -> Spec:
    state = shop.chance.choice(("approved", "approved", "approved", "approved", "on_hold", "refused"))
    return "order.payment_state_changed", {"payment_state": state}


def _retracted(shop: Shop) -> Spec:
    chance = shop.chance
    if shop.stated and not shop.one_in(4):
        shop.stated = False
        return "order.retracted", {"stated": True}
    if shop.told and not shop.one_in(4):
        key = chance.choice(list(shop.told))
        shop.undo(key)
        return "order.retracted", {FACTS[key[0]]: key}
    return "order.retracted", chance.choice(
        ({"cancelled": True}, {"cancelled": True}, {"stated": True}, {"shipment_id": "s1"}, {"return_id": "r2"})
    )


def _units(named: dict[str, int]) -> list[Json]:
    return [{"line_id": one, "quantity": count} for one, count in named.items()]


def _reason(shop: Shop) -> Json:
    reason = shop.chance.choice(REASONS)
    return {} if reason is None else {"reason": reason}


_MAKERS: list[tuple[int, Callable[[Shop], Spec | None]]] = [
    (12, _shipped),
    (10, _returned),
    (4, _items_cancelled),
    (7, _refunded),
    (3, _retracted),
    (4, _cart_updated),
    (1, _delivered),
    (1, _details),
    (2, _fee_charged),
    (1, _cancelled),
    (1, _stated),
    (1, _payment),
    (1, _confirmed),
]
_WEIGHTED = [teller for weight, teller in _MAKERS for _ in range(weight)]
_BESIDE_A_STATEMENT = [_stated, _retracted, _retracted, _details, _payment, _cancelled, _delivered]


# --- histories ----------------------------------------------------------------------------------------------------


def story(chance: Random, size_max: int = 12, ties: bool = False) -> list[Json]:
    """The events of one order in the order of spec, with or without sequences, their times not always in it; in half
    of all stories with what the provider says meanwhile.
    """
    told = shop_story(chance, size_max, ties)
    beside = Random(repr(told))  # so the story of a seed is the same with and without
    return _with_sayings(beside, told) if beside.randrange(2) else told


def shop_story(chance: Random, size_max: int = 12, ties: bool = False) -> list[Json]:
    """What the shop alone tells."""
    shop = Shop(chance, careless=chance.randrange(4) == 0)
    late = chance.randrange(15) == 0
    specs = [] if late else [_confirmed(shop)]
    for _ in range(chance.randrange(size_max + 1)):
        careful = shop.stated and not shop.careless and not shop.one_in(8)
        told = chance.choice(_BESIDE_A_STATEMENT if careful else _WEIGHTED)(shop)
        if told is not None:
            specs.append(told)
    if late and chance.randrange(4):
        specs.append(_confirmed(shop))
    return _dated(chance, specs or [_details(shop)], ties)


def _dated(chance: Random, specs: list[Spec], ties: bool) -> list[Json]:
    sequences = chance.choice(("none", "none", "none", "all", "some"))
    times = list(range(1, len(specs) + 1))
    if ties:
        times = [number // 2 for number in times]
    elif chance.randrange(5) == 0:
        chance.shuffle(times)
    events = []
    for number, ((kind, data), at) in enumerate(zip(specs, times, strict=True), start=1):
        one: Json = {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "/shops/acme",
            "type": kind,
            "time": time_text(at),
            "subject": SUBJECT,
            "data": data,
        }
        if sequences == "all" or (sequences == "some" and chance.randrange(2)):
            one["sequence"] = str(number // 2 if ties else number)
        events.append(one)
    return events


SAYINGS: tuple[tuple[str, Json], ...] = (
    *(("payment_state", {"state": state}) for state in ("approved", "approved", "on_hold", "refused")),
    ("payment_state", {"state": "under_evaluation"}),
    ("cancelled", {"by": "provider"}),
    ("cancelled", {"by": "shopper"}),
    (
        "transaction",
        {"transaction_id": "1", "kind": "Capture", "status": "Error", "amount_minor": 5, "currency": "EUR"},
    ),
    ("delivery", {"state": "second_attempt"}),
    ("disbursed", {"disbursement": "/d", "amount_minor": 100, "issued_on": "2026-03-09"}),
    ("risk", {"level": "high_risk"}),
)
CALLBACKS = ("webhook", "ipn", "order-status")


def _with_sayings(chance: Random, told: list[Json]) -> list[Json]:
    """The story with up to four sayings of the provider's in between, none at the time of another event, each with a
    name of the order or none; and sometimes the order was observed, too.
    """
    events = list(told)
    for number, slot in enumerate(chance.sample(range(4 * len(told) + 4), chance.randrange(1, 5)), start=1):
        kind, data = chance.choice(SAYINGS)
        named = chance.choice(({}, {"provider_order": "1"}, {"provider_order": "2"}))
        one: Json = {
            "specversion": "1.0",
            "id": f"p{number}",
            "source": f"/cartsync/acme/{chance.choice(CALLBACKS)}",
            "type": f"provider.{kind}",
            "time": time_text(slot / 4 + 0.1),
            "subject": SUBJECT,
            "data": data | named,
        }
        events.insert(chance.randrange(len(events) + 1), one)
    if chance.randrange(4) == 0:
        data = {"completed_at": time_text(0), "currency": "EUR"}
        events.append(told[0] | {"id": "o1", "type": "order.observed", "time": time_text(0.05), "data": data})
    return events


def events_of(log: Iterable[Json]) -> list[OrderEvent]:
    """The events as the worker gets them."""
    return [event_of(one) for one in log]


def stories(size_max: int = 12, ties: bool = False) -> st.SearchStrategy[list[Json]]:
    """Stories, for hypothesis: it draws their seeds, which costs a tenth of drawing every choice."""
    return SEEDS.map(lambda seed: story(Random(seed), size_max, ties))


def histories(max_size: int = 10, ties: bool = False) -> st.SearchStrategy[list[OrderEvent]]:
    """Stories as the worker gets them, for hypothesis."""
    return stories(max_size, ties).map(events_of)


def contents() -> st.SearchStrategy[list[LineDict]]:
    """A cart: up to four goods lines, sometimes none, and up to four charges and adjustments."""
    return SEEDS.map(lambda seed: Shop(Random(seed), careless=False).content())
