"""A second model of an order, written from `CONTRACT.md` and from `DOMAIN.md` sections 4 and 5 alone: slow and plain.

It shares no code, no types and no method with `worker.core`. It takes the events as the shop wrote them (plain JSON)
and keeps nothing between them: every question goes through the whole story again. Amounts lie in cells, one for each
line and place, and whoever takes something walks along the cells. Where it and the core disagree, one of them has
read the text wrongly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

GOODS = ("product", "service", "subscriber_fee")
CHARGES = ("handling", "invoice_fee")
REDUCTIONS = ("discount", "other_payment")
PLACES = ("shipped", "unshipped", "lost")
MOST = 10**12

Json = dict[str, Any]
Stamp = tuple[int, int, int]
NaiveItem = tuple[str, str | None, str | None, int, int]
"""(type, reference, name, quantity, total)."""
Words = tuple[str, ...]
"""The ids and numbers that a reason must name, in this order."""


@dataclass
class NaiveOrder:
    """What the model says of an order; carts only where nothing contradicts."""

    state: str
    contradictions: list[Words] = field(default_factory=list)
    shipped: list[NaiveItem] | None = None
    unshipped: list[NaiveItem] | None = None
    trackings: list[tuple[str, str | None]] | None = None
    """(reference, delivered_at)."""
    cancellation: tuple[str | None, bool] | None = None
    """(the reason given, whether the shopper cancelled)."""
    details: Json = field(default_factory=dict)


def naive_order(log: Iterable[Json]) -> NaiveOrder:
    """The order after the accepted events of this log, whose positions are their indices."""
    story = Story(log)
    if not story.all("order.confirmed"):
        return NaiveOrder("unconfirmed")
    contradictions, carts = stated_carts(story) if story.statement() else computed_carts(story)
    order = NaiveOrder("inconsistent" if contradictions else "ready", contradictions)
    payment = story.payment()
    if payment != "approved":
        order.state = payment
    if not contradictions:
        order.shipped, order.unshipped = carts
        order.trackings = story.trackings()
        order.details = story.details()
        if not order.shipped and not order.unshipped:
            order.cancellation = cancellation_reason(story)
    return order


# --- the story: what was told, and what of it stands -----------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One event: when it ranks, what it is, what it says."""

    stamp: Stamp
    type: str
    data: Json
    source: str = ""

    @property
    def moment(self) -> tuple[int, int]:
        """When it ranks beside what providers say, which have no sequence: by time, then by position."""
        return self.stamp[1:]

    @property
    def is_final(self) -> bool:
        """Whether nobody can ask the provider about it."""
        return self.source.rsplit("/", 1)[-1] in ("webhook", "ipn")

    @property
    def rank(self) -> tuple[bool, int, Stamp]:
        """Among contents, and among statements, the version comes before the stamp."""
        version = self.data.get("cart_version")
        return version is not None, version or 0, self.stamp


class Story:
    """All that was told of an order. Nothing is kept of it but the events themselves, each once."""

    def __init__(self, log: Iterable[Json]) -> None:
        first: dict[tuple[str, str], Event] = {}
        for position, event in enumerate(log):
            sequence = int(event["sequence"]) if event.get("sequence") is not None else -1
            stamp = (sequence, _microseconds(event["time"]), position)
            first.setdefault(
                (event["source"], event["id"]), Event(stamp, event["type"], event["data"], event["source"])
            )
        self.events = sorted(first.values(), key=lambda one: one.stamp)

    def all(self, *types: str) -> list[Event]:
        """Every event of these types, the oldest first."""
        return [one for one in self.events if one.type in types]

    def unretracted(self, kind: str, member: str) -> list[Event]:
        """Of each id its newest word, unless that word takes it back; the oldest first."""
        found = []
        for one in self.all(kind):
            words = [
                other
                for other in self.all(kind, "order.retracted")
                if member in other.data and other.data[member] == one.data[member]
            ]
            if words[-1] is one:
                found.append(one)
        return found

    def shipments(self) -> list[Event]:
        """Shipments that stand."""
        return self.unretracted("order.items_shipped", "shipment_id")

    def returns(self) -> list[Event]:
        """Returns that stand."""
        return self.unretracted("order.items_returned", "return_id")

    def cancellations(self) -> list[Event]:
        """Cancellations of items that stand."""
        return self.unretracted("order.items_cancelled", "cancellation_id")

    def refunds(self) -> list[Event]:
        """Refunds that stand."""
        return self.unretracted("order.refunded", "refund_id")

    def fees(self) -> list[Event]:
        """Fees of their own that stand."""
        return self.unretracted("order.fee_charged", "fee_id")

    def cancelled(self) -> Event | None:
        """The cancellation of the order, if it stands: the shop's newest word on it, or the provider's."""
        words = [one for one in self.all("order.cancelled", "order.retracted") if "cancelled" in one.data]
        words += self.all("order.cancelled")
        own = max(words, key=lambda one: one.stamp, default=None)
        there = [one for one in self.all("provider.cancelled") if one.is_final]
        said = max(there, key=lambda one: one.moment, default=None)
        if said is not None and (own is None or said.moment > own.moment):
            return Event(said.stamp, said.type, {"by": "provider"})
        return own if own is not None and own.type == "order.cancelled" else None

    def statement(self) -> Event | None:
        """The statement that counts."""
        voids = [one.stamp for one in self.all("order.retracted") if "stated" in one.data]
        valid = [one for one in self.all("order.carts_stated") if not voids or one.stamp > max(voids)]
        return max(valid, key=lambda one: one.rank, default=None)

    def contents(self) -> list[Event]:
        """Every content there ever was, the one that counts last."""
        return sorted(self.all("order.confirmed", "order.cart_updated"), key=lambda one: one.rank)

    def currency(self) -> str:
        """The confirmed one."""
        currency: str = self.all("order.confirmed")[0].data["currency"]
        return currency

    def payment(self) -> str:
        """The shop's newest word on the payment, or the provider's, whichever is later."""
        written = [
            one for one in self.all("order.confirmed", "order.payment_state_changed") if "payment_state" in one.data
        ]
        words = [(one.moment, str(one.data["payment_state"])) for one in written[-1:]]
        said = [one for one in self.all("provider.payment_state") if one.data["state"] != "under_evaluation"]
        if any(one.data["state"] == "refused" for one in said):
            said = [one for one in said if not (one.data["state"] == "approved" and one.is_final)]
        if any(one.data["state"] != "on_hold" for one in said):
            said = [one for one in said if one.data["state"] != "on_hold"]
        if said:
            newest = max(said, key=lambda one: one.moment)
            words.append((newest.moment, str(newest.data["state"])))
        return max(words)[1] if words else "approved"

    def details(self) -> Json:
        """Each member as its newest word has it."""
        found: Json = {}
        members = ("references", "customer", "delivery_address", "invoice_address", "delivery_method")
        for one in self.all("order.confirmed", "order.details_changed"):
            for member in (*members, "gift", "cart_ref", "store_ref"):
                if member in one.data:
                    found[member] = one.data[member]
        return {member: value for member, value in found.items() if value is not None}

    def trackings(self) -> list[tuple[str, str | None]]:
        """Of all shipments that stand, with the time of delivery."""
        found: list[tuple[str, str | None]] = []
        for one in self.shipments():
            deliveries = [
                other.data["delivered_at"]
                for other in self.all("order.items_delivered")
                if other.data["shipment_id"] == one.data["shipment_id"]
            ]
            found += [
                (tracking["reference"], tracking.get("delivered_at") or (deliveries or [None])[-1])
                for tracking in one.data.get("tracking", [])
            ]
        return found


def is_newer(one: Event, stamp: Stamp) -> bool:
    """Whether it is newer than what the shop told with this stamp."""
    return one.moment > stamp[1:] if one.type.startswith("provider.") else one.stamp > stamp


def _microseconds(text: str) -> int:
    since = datetime.fromisoformat(text.upper()) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


def line_id(line: Mapping[str, Any]) -> str:
    """`line_id`, else the reference, else `invoice_fee`."""
    return str(line.get("line_id") or line.get("reference") or "invoice_fee")


def kind_of(line: Mapping[str, Any]) -> str:
    """Its type, `product` unless said."""
    return str(line.get("type", "product"))


def item_of(line: Mapping[str, Any], quantity: int, total: int) -> NaiveItem:
    """A share of a line in a cart."""
    return kind_of(line), line.get("reference"), line.get("name"), quantity, total


def named_units(facts: Iterable[Event], line: str) -> int:
    """How many units of a line these facts name."""
    return sum(unit["quantity"] for one in facts for unit in one.data["lines"] if unit["line_id"] == line)


# --- cumulative rounding ------------------------------------------------------------------------------------------


def nearest(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    whole, rest = divmod(abs(value.numerator), value.denominator)
    size = whole + (2 * rest >= value.denominator)
    return -size if value < 0 else size


def share(total: int, weight: int, whole: int) -> int:
    """F(weight)."""
    return nearest(Fraction(total * weight, whole))


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """The parts of a total, walking along the weights; nothing where there is no weight at all."""
    whole, parts, walked = sum(weights), [], 0
    for weight in weights:
        before = share(total, walked, whole) if whole else 0
        walked += weight
        parts.append((share(total, walked, whole) if whole else 0) - before)
    return parts


# --- both carts stated --------------------------------------------------------------------------------------------

Carts = tuple[list[NaiveItem], list[NaiveItem]]


def stated_carts(story: Story) -> tuple[list[Words], Carts]:
    """Contradictions and carts beside a statement."""
    statement = story.statement()
    assert statement is not None
    data = statement.data
    found: list[Words] = []
    if data["currency"] != story.currency():
        found.append((data["currency"], story.currency()))
    if story.contents()[-1].stamp > statement.stamp:
        found.append(("content", "newer than the statement"))
    for facts, name in (
        (story.shipments(), "shipment"),
        (story.returns(), "return"),
        (story.cancellations(), "cancellation"),
        (story.refunds(), "refund"),
        (story.fees(), "fee"),
    ):
        ids = [one.data[f"{name}_id"] for one in facts if one.stamp > statement.stamp]
        found += [(f"{name} {key}", "newer than the statement") for key in ids]
    carts = [
        [
            item_of(line, line.get("quantity", 0), line["total_minor"])
            for line in data[cart]
            if kind_of(line) in GOODS or line["total_minor"]
        ]
        for cart in ("shipped", "unshipped")
    ]
    for cart in carts:
        total = sum(item[4] for item in cart)
        if total < 0:
            found.append((number(total),))
        if total > MOST:
            found.append((str(total), str(MOST)))
    cancelled = story.cancelled()
    kept = [line for line in data["shipped"] if kind_of(line) in GOODS]
    if cancelled and kept and (cancelled.data.get("by") == "provider" or not data["unshipped"]):
        found.append(("cancelled", *(f"{line['quantity']} × {line_id(line)}" for line in kept)))
    return found, (carts[0], [] if cancelled else carts[1])


# --- what became of the units -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Units:
    """The counts of a goods line, in the letters of the text."""

    q: int
    c: int
    g: int
    s: int
    r: int
    p: int

    @property
    def k(self) -> int:
        """Kept."""
        return self.s - self.r


def units_of(story: Story, line: str, q: int | None) -> Units:
    """Of a line with this quantity, or (`None`) of one that the newest content lacks."""
    back = story.returns()
    s = named_units(story.shipments(), line)
    c = named_units(story.cancellations(), line)
    g = named_units([one for one in back if one.data.get("from") == "unshipped"], line)
    r = named_units([one for one in back if one.data.get("from", "shipped") == "shipped"], line)
    unknown = named_units([one for one in back if one.data.get("from") == "any"], line)
    if q is None:
        came_back = min(unknown, max(0, s - r))
        return Units(0, c, g + unknown - came_back, s, r + came_back, 0)
    gone = min(unknown, max(0, q - c - g - s))
    g, r = g + gone, r + unknown - gone
    return Units(q, c, g, s, r, 0 if story.cancelled() else max(0, q - c - g - s))


# --- contradictions of a content ----------------------------------------------------------------------------------


def computed_carts(story: Story) -> tuple[list[Words], Carts]:
    """Contradictions and carts of the newest content."""
    content = story.contents()[-1].data
    found: list[Words] = []
    if content["currency"] != story.currency():
        found.append((content["currency"], story.currency()))
    total = sum(line["total_minor"] for line in content["lines"])
    if total < 0:
        found.append((number(total), *sums_by_kind(content["lines"])))
    found += unit_contradictions(story, content["lines"])
    found += money_contradictions(story, content["lines"])
    found += cancelled_while_kept(story, content["lines"])
    if found:
        return found, ([], [])
    reckoning = Reckoning(story, content["lines"])
    found += reckoning.contradictions()
    if found:
        return found, ([], [])
    carts = reckoning.carts()
    totals = [sum(item[4] for item in cart) for cart in carts]
    found += [(str(total), str(MOST)) for total in totals if total > MOST]
    return found, carts


def unit_contradictions(story: Story, lines: list[Json]) -> list[Words]:
    """Facts that name what there is not, or more than there is."""
    now = {line_id(line): line for line in lines}
    ever: dict[str, set[str]] = {}
    for one in story.contents():
        for line in one.data["lines"]:
            ever.setdefault(line_id(line), set()).add(kind_of(line))

    def kinds(name: str) -> set[str]:
        return {kind_of(now[name])} if name in now else ever.get(name, set())

    found: list[Words] = []
    named: dict[str, None] = {}
    for facts, member in (
        (story.shipments(), "shipment_id"),
        (story.returns(), "return_id"),
        (story.cancellations(), "cancellation_id"),
    ):
        for one in facts:
            for unit in one.data["lines"]:
                name = unit["line_id"]
                if kinds(name).isdisjoint(GOODS):
                    found.append((one.data[member], f"{unit['quantity']} × {name}"))
                else:
                    named[name] = None
    for one in story.refunds():
        wrong = [name for name in one.data.get("applies_to", []) if kinds(name).isdisjoint((*GOODS, *CHARGES))]
        found += [(one.data["refund_id"], name) for name in wrong]
    for name in named:
        found += count_contradictions(name, units_of(story, name, now[name]["quantity"] if name in now else None))
    return found


def count_contradictions(name: str, u: "Units") -> list[Words]:
    """More of one line than there is; `u.q` is 0 when the newest content lacks it."""
    found: list[Words] = []
    if u.r > u.s:
        found.append((f"line {name}", f"{u.r} returned", f"{u.s} shipped"))
    if not u.q:
        found += [(f"line {name}", f"{u.k} kept")] if u.k > 0 else []
    elif u.c + u.g + u.k > u.q:
        counts = [f"{u.s} shipped"] if not (u.c or u.g or u.r) else [f"{u.k} kept"]
        counts += [f"{u.c} cancelled"] if u.c else []
        found.append((f"line {name}", *counts, f"{u.q} ordered"))
    return found


def money_contradictions(story: Story, lines: list[Json]) -> list[Words]:
    """More refunded than there ever was."""
    back = story.returns()
    totals = [sum(line["total_minor"] for line in one.data["lines"]) for one in story.contents()]
    fees = sum(one.data.get("fee_minor", 0) for one in back) + sum(one.data["amount_minor"] for one in story.fees())
    chargeable = max(totals) + fees
    refunds = sum(one.data["amount_minor"] for one in story.refunds())
    found: list[Words] = []
    if refunds and refunds > chargeable + len(lines):
        found.append((str(refunds), str(abs(chargeable))))
    repaid = sum(one.data.get("refund_handling_minor", 0) for one in back)
    handling = sum(line["total_minor"] for line in lines if kind_of(line) == "handling")
    if repaid > handling:
        found.append((str(repaid), str(handling)))
    return found


def number(minor: int) -> str:
    """With a real minus sign."""
    return str(minor).replace("-", "−")


def sums_by_kind(lines: list[Json]) -> list[str]:
    """What goods and each other type add up to, by name."""
    sums: dict[str, int] = {}
    for line in lines:
        kind = "goods" if kind_of(line) in GOODS else kind_of(line)
        sums[kind] = sums.get(kind, 0) + line["total_minor"]
    return [f"{kind} {number(total)}" for kind, total in sorted(sums.items())]


def cancelled_while_kept(story: Story, lines: list[Json]) -> list[Words]:
    """The order was cancelled, and the shopper has something of it."""
    cancelled = story.cancelled()
    goods = [line for line in lines if kind_of(line) in GOODS]
    counts = {line_id(line): units_of(story, line_id(line), line["quantity"]) for line in goods}
    named = dict.fromkeys(unit["line_id"] for one in story.shipments() for unit in one.data["lines"])
    gone = {name: units_of(story, name, None) for name in named if name not in counts}
    kept = [f"{u.k} × {name}" for name, u in (counts | gone).items() if u.k > 0]
    unsent = [one for one in story.returns() if one.data.get("from") == "unshipped"]
    left = sum(max(0, u.q - named_units(unsent, name) - u.s) for name, u in counts.items())
    if cancelled and kept and (cancelled.data.get("by") == "provider" or left == 0):
        return [("cancelled", *kept)]
    return []


# --- the reckoning ------------------------------------------------------------------------------------------------


class Ledger:
    """Where the money of each line lies, and what reductions took from there."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], int] = {}
        """What lies at (line, place): `shipped`, `unshipped`, `lost`, and of a charge `repaid`.

        `lost` is below 0 of goods of which more units are taken as kept than were ordered.
        """
        self.off: dict[tuple[str, str], int] = {}
        """What reductions of single lines took there."""
        self.off_together: dict[tuple[str, str], int] = {}
        """What reductions took at (group, place)."""

    def at(self, name: str, place: str) -> int:
        """What is left of a line at a place."""
        return self.cells.get((name, place), 0) - self.off.get((name, place), 0)

    def of(self, group: str, names: list[str], place: str) -> int:
        """What is left of a group at a place."""
        return sum(self.at(name, place) for name in names) - self.off_together.get((group, place), 0)


class Reckoning:
    """The carts of a content, `again`: with the units of returns that say what was paid back still kept."""

    def __init__(self, story: Story, lines: list[Json], again: bool = False) -> None:
        self.story = story
        self.lines = lines
        self.again = again
        self.by_id = {line_id(line): line for line in lines}
        self.names = {
            "goods": [line_id(line) for line in lines if kind_of(line) in GOODS],
            "charges": [line_id(line) for line in lines if kind_of(line) in CHARGES],
            "others": [line_id(line) for line in lines if kind_of(line) in ("registration", "voucher")],
        }
        self.units = {name: units_of(story, name, self.by_id[name]["quantity"]) for name in self.names["goods"]}
        self.kept = {name: u.k + (self.units_again(name) if again else 0) for name, u in self.units.items()}
        self.ledger = Ledger()
        self.repaid = self._repaid()
        self._put_goods()
        self._put_charges()
        self._put_others()
        self.reductions = self._reduce(self.ledger)
        self.fees = self._fees()
        self.totals = {place: self._total(place) for place in ("shipped", "unshipped")}
        self.refund_items: dict[str, dict[str, int]] = {"shipped": {}, "unshipped": {}}
        self.left_of_refunds = self._take_refunds_of_lines()

    # --- returns with an amount

    def told_amounts(self) -> list[Event]:
        """The returns that say what was paid back, and whose lines are all there."""
        return [
            one
            for one in self.story.returns()
            if "refunded_minor" in one.data and all(unit["line_id"] in self.by_id for unit in one.data["lines"])
        ]

    def units_again(self, name: str, newer_than: Stamp | None = None) -> int:
        """The units of a line that these returns brought back."""
        return named_units([one for one in self.told_amounts() if newer_than is None or one.stamp > newer_than], name)

    # --- what lies where before anything comes off

    def worth(self, name: str, count: int) -> int:
        """F(count) of a goods line."""
        return share(self.by_id[name]["total_minor"], count, self.units[name].q)

    def _put_goods(self) -> None:
        for name, u in self.units.items():
            k, p = self.kept[name], u.p
            self.ledger.cells[name, "shipped"] = self.worth(name, k)
            self.ledger.cells[name, "unshipped"] = self.worth(name, k + p) - self.worth(name, k)
            self.ledger.cells[name, "lost"] = self.worth(name, u.q) - self.worth(name, k + p)

    def _repaid(self) -> dict[str, int]:
        """What `refund_handling_minor` took of each handling line."""
        left = sum(one.data.get("refund_handling_minor", 0) for one in self.story.returns())
        found = {}
        for line in self.lines:
            if kind_of(line) == "handling":
                found[line_id(line)] = min(left, line["total_minor"])
                left -= found[line_id(line)]
        return found

    def _lines_of(self, line: Json) -> list[str]:
        """The lines of a charge or an adjustment, in the order of lines."""
        named = line.get("applies_to", self.names["goods"])
        return [name for name in self.by_id if name in named]

    def divide_as(self, line: Json, amount: int) -> dict[str, int]:
        """An amount of a charge, divided as its shares are."""
        if not self.names["goods"]:
            return {self.place_without_goods(): amount}
        names = self._lines_of(line)
        sent = {name: min(self.units[name].s, self.units[name].q) for name in names}
        weights = [
            sum(self.worth(name, sent[name]) for name in names),
            sum(self.ledger.cells[name, "unshipped"] for name in names),
        ]
        if not any(weights):
            weights = [sum(sent.values()), sum(self.units[name].p for name in names)]
        if not any(weights):
            return {"lost": amount}
        return dict(zip(("shipped", "unshipped"), spread(amount, weights), strict=True))

    def place_without_goods(self) -> str:
        """Where everything lies when the content has no goods."""
        if self.story.shipments():
            return "shipped"
        return "lost" if self.story.cancelled() else "unshipped"

    def _put_charges(self) -> None:
        for name in self.names["charges"]:
            line = self.by_id[name]
            repaid = self.repaid.get(name, 0)
            for place, part in self.divide_as(line, line["total_minor"] - repaid).items():
                self.ledger.cells[name, place] = part
            self.ledger.cells[name, "repaid"] = repaid

    def _put_others(self) -> None:
        for name in self.names["others"]:
            line = self.by_id[name]
            if kind_of(line) == "voucher":
                self.ledger.cells[name, "shipped"] = line["total_minor"]
            elif not self.names["goods"]:
                self.ledger.cells[name, self.place_without_goods()] = line["total_minor"]
            else:
                for place, part in zip(PLACES, spread(line["total_minor"], self._registration(line)), strict=True):
                    self.ledger.cells[name, place] = part

    def _registration(self, line: Json) -> list[int]:
        """Its weights: by value, by units where there is no value."""
        names = self._lines_of(line)
        cells = self.ledger.cells
        weights = [sum(cells.get((name, place), 0) for name in names) for place in PLACES]
        weights[2] += sum(cells.get((name, "repaid"), 0) for name in names)
        if any(weights):
            return weights
        for name in names:
            if name in self.units:
                u = self.units[name]
                counts = [self.kept[name], u.p, u.q - self.kept[name] - u.p]
            else:
                mine = [self.units[one] for one in self._lines_of(self.by_id[name])]
                counts = [sum(min(u.s, u.q) for u in mine), sum(u.p for u in mine), 0]
            weights = [one + other for one, other in zip(weights, counts, strict=True)]
        return weights

    # --- reductions

    def _reduce(self, ledger: Ledger) -> dict[str, dict[str, int]]:
        """By reduction: what it takes of each cart. Walks over the cells; takes only what is there."""
        reductions = [line for line in self.lines if kind_of(line) in REDUCTIONS]
        took = {line_id(line): dict.fromkeys(PLACES, 0) for line in reductions}
        left = {line_id(line): -line["total_minor"] for line in reductions}
        for line in reductions:
            if "applies_to" in line:
                mine = line_id(line)
                names = self._lines_of(line)
                walk = [(name, place) for place in PLACES for name in names]
                weights = [ledger.at(*cell) for cell in walk]
                for (name, place), part in zip(walk, spread(min(left[mine], sum(weights)), weights), strict=True):
                    ledger.off[name, place] = ledger.off.get((name, place), 0) + part
                    took[mine][place] += part
                left[mine] -= min(left[mine], sum(weights))
                for name in names:
                    part = min(left[mine], ledger.at(name, "repaid"))
                    ledger.off[name, "repaid"] = ledger.off.get((name, "repaid"), 0) + part
                    left[mine] -= part
        for line in reductions:
            mine = line_id(line)
            for group, names in self.names.items():
                weights = [ledger.of(group, names, place) for place in PLACES]
                taken = min(left[mine], sum(weights))
                left[mine] -= taken
                for place, part in zip(PLACES, spread(taken, weights), strict=True):
                    ledger.off_together[group, place] = ledger.off_together.get((group, place), 0) + part
                    took[mine][place] += part
                taken = min(left[mine], ledger.of(group, names, "repaid"))
                left[mine] -= taken
                ledger.off_together[group, "repaid"] = ledger.off_together.get((group, "repaid"), 0) + taken
        return took

    def _fees(self) -> list[NaiveItem]:
        found: list[NaiveItem] = [
            ("handling", one.data["return_id"], "Return fee", 0, one.data["fee_minor"])
            for one in self.story.returns()
            if "fee_minor" in one.data
        ]
        for one in self.story.fees():
            name = one.data.get("name", "Fee")
            found.append(("handling", one.data["fee_id"], name, 0, one.data["amount_minor"]))
        return found

    def _total(self, place: str) -> int:
        """Of a cart before refunds."""
        lying = sum(amount for (_, where), amount in self.ledger.cells.items() if where == place)
        taken = sum(took[place] for took in self.reductions.values())
        return lying - taken + (sum(fee[4] for fee in self.fees) if place == "shipped" else 0)

    # --- refunds of lines

    def nets(self) -> dict[str, int]:
        """N of each goods and charge line: its total less its part of the reductions, as if nothing were lost."""
        whole = Ledger()
        for line in self.lines:
            name = line_id(line)
            if kind_of(line) not in REDUCTIONS:
                whole.cells[name, "shipped"] = line["total_minor"] - self.repaid.get(name, 0)
                whole.cells[name, "repaid"] = self.repaid.get(name, 0)
        rest = 0
        for line in self.lines:
            if kind_of(line) in REDUCTIONS:
                left = -line["total_minor"]
                if "applies_to" in line:
                    names = self._lines_of(line)
                    weights = [whole.at(name, "shipped") for name in names]
                    taken = min(left, sum(weights))
                    for name, part in zip(names, spread(taken, weights), strict=True):
                        whole.off[name, "shipped"] = whole.off.get((name, "shipped"), 0) + part
                    left -= taken
                    for name in names:
                        part = min(left, whole.at(name, "repaid"))
                        whole.off[name, "repaid"] = whole.off.get((name, "repaid"), 0) + part
                        left -= part
                rest += left
        nets = {}
        for group in ("goods", "charges"):
            names = self.names[group]
            weights = [whole.at(name, "shipped") for name in names]
            taken = min(rest, sum(weights))
            rest -= taken
            rest -= min(rest, sum(whole.at(name, "repaid") for name in names))
            for name, weight, part in zip(names, weights, spread(taken, weights), strict=True):
                nets[name] = weight - part
        return nets

    def units_then(self, name: str, stamp: Stamp) -> int:
        """u: the units of a goods line when a refund of this stamp was given."""
        u = self.units[name]
        newer = [one for one in [*self.story.returns(), *self.story.cancellations()] if one.stamp > stamp]
        then = u.k + u.p + named_units(newer, name)
        cancelled = self.story.cancelled()
        if cancelled is not None and is_newer(cancelled, stamp):
            then += max(0, u.q - u.c - u.g - u.s)
        return min(u.q, then)

    def last_total(self, name: str) -> int:
        """What a line that the newest content lacks was worth when it was last there."""
        had = [
            line["total_minor"]
            for one in self.story.contents()
            for line in one.data["lines"]
            if line_id(line) == name and kind_of(line) in (*GOODS, *CHARGES)
        ]
        total: int = had[-1]
        return total

    def _take_refunds_of_lines(self) -> dict[str, int]:
        """Takes refunds with `applies_to` off the carts; returns what is left of each refund."""
        nets = self.nets()
        before: dict[str, int] = {}
        remaining = {}
        for refund in self.story.refunds():
            data = refund.data
            remaining[data["refund_id"]] = data["amount_minor"]
            if "applies_to" not in data:
                continue
            names: list[str] = data["applies_to"]
            worth = {name: self._worth_then(name, refund, nets) for name in names}
            weights = [max(0, worth[name] - before.get(name, 0)) for name in names]
            given = min(data["amount_minor"], sum(weights))
            come_off = {"shipped": 0, "unshipped": 0, "lost": 0}
            for name, part in zip(names, spread(given, weights), strict=True):
                before[name] = before.get(name, 0) + part
                for place, amount in self._places(name, refund, part, worth[name], nets).items():
                    come_off[place] += amount
            remaining[data["refund_id"]] -= come_off["lost"]
            for place in ("shipped", "unshipped"):
                carried = min(come_off[place], self.totals[place])
                self._take(data["refund_id"], place, carried)
                remaining[data["refund_id"]] -= carried
        return remaining

    def _worth_then(self, name: str, refund: Event, nets: dict[str, int]) -> int:
        if name not in self.by_id:
            return self.last_total(name)
        if name in self.units:
            return share(nets[name], self.units_then(name, refund.stamp), self.units[name].q)
        return nets[name]

    def _places(self, name: str, refund: Event, part: int, worth: int, nets: dict[str, int]) -> dict[str, int]:
        """Where a line's part of a refund comes off."""
        if name not in self.by_id or not worth:
            return {"lost": part}
        if name in self.units:
            u = self.units[name]
            kept = u.k + (self.units_again(name, newer_than=refund.stamp) if self.again else 0)
            first = share(part, share(nets[name], kept, u.q), worth)
            second = share(part, share(nets[name], kept + u.p, u.q), worth)
            return {"shipped": first, "unshipped": second - first, "lost": part - second}
        return self.divide_as(self.by_id[name], part)

    def _take(self, reference: str, place: str, amount: int) -> None:
        self.totals[place] -= amount
        items = self.refund_items[place]
        items[reference] = items.get(reference, 0) + amount

    # --- differences, what is left of refunds, and the carts

    def contradictions(self) -> list[Words]:
        """More paid back for returned units than the carts would be worth with them."""
        told = self.told_amounts()
        paid = sum(one.data["refunded_minor"] for one in told)
        with_them = Reckoning(self.story, self.lines, again=True)
        worth = sum(with_them.totals.values())
        if told and paid > worth + len(self.lines):
            return [(told[-1].data["return_id"], str(paid), str(worth))]
        return []

    def carts(self) -> Carts:
        """Both carts, item by item."""
        told = self.told_amounts()
        extra: list[NaiveItem] = []
        if told:
            with_them = Reckoning(self.story, self.lines, again=True)
            paid = sum(one.data["refunded_minor"] for one in told)
            difference = sum(with_them.totals.values()) - paid - sum(self.totals.values())
            reference = told[-1].data["return_id"]
            if difference > 0:
                extra.append(("handling", reference, "Return difference", 0, difference))
                self.totals["shipped"] += difference
            else:
                self._take_what_is_left("difference of " + reference, -difference)
        for refund in self.story.refunds():
            name = refund.data["refund_id"]
            self._take_what_is_left(name, self.left_of_refunds[name])
        names = {one.data["refund_id"]: one.data.get("name", "Refund") for one in self.story.refunds()}
        carts: dict[str, list[NaiveItem]] = {"shipped": [*self.fees, *extra], "unshipped": []}
        for place, kind in (("shipped", "other_payment"), ("unshipped", "discount")):
            for line in self.lines:
                item = self._item(line, place)
                if item is not None:
                    carts[place].append(item)
            items = {reference: amount for reference, amount in self.refund_items[place].items() if amount}
            for reference, amount in items.items():
                if reference.startswith("difference of ") and reference not in names:
                    carts[place].append((kind, reference[len("difference of ") :], "Return difference", 0, -amount))
                else:
                    carts[place].append((kind, reference, names[reference], 0, -amount))
            if items and not self.totals[place]:
                carts[place] = []
        return carts["shipped"], carts["unshipped"]

    def _take_what_is_left(self, reference: str, amount: int) -> None:
        for place in ("shipped", "unshipped"):
            taken = min(amount, self.totals[place])
            self._take(reference, place, taken)
            amount -= taken

    def _item(self, line: Json, place: str) -> NaiveItem | None:
        name = line_id(line)
        if name in self.units:
            count = self.kept[name] if place == "shipped" else self.units[name].p
            return item_of(line, count, self.ledger.cells[name, place]) if count else None
        if kind_of(line) in REDUCTIONS:
            total = -self.reductions[name][place]
        else:
            total = self.ledger.cells.get((name, place), 0)
        return item_of(line, 0, total) if total else None


# --- what goes along ----------------------------------------------------------------------------------------------


def cancellation_reason(story: Story) -> tuple[str | None, bool] | None:
    """Why both carts are empty; nothing when anything was ever shipped."""
    if story.shipments():
        return None
    cancelled, statement = story.cancelled(), story.statement()
    told = [cancelled.data.get("reason")] if cancelled else []
    if statement:
        told.append(statement.data.get("reason"))
    else:
        facts = [*story.cancellations(), *story.returns(), *story.refunds()]
        told += [one.data.get("reason") for one in sorted(facts, key=lambda one: one.stamp, reverse=True)]
    given = next((reason for reason in told if reason), None)
    return given, bool(cancelled and cancelled.data.get("by") == "shopper")
