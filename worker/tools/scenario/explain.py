"""`cartsync scenario --explain FILE`: what each event of a scenario changed in both carts, and why.

Events are applied one by one, in the order of the file, with the reducer and the arithmetic of a worker; nothing is
sent, so steps about the provider are ignored.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

from msgspec import UNSET, Struct, structs

from schemas import events as e
from schemas.envelope import Data
from schemas.events import LINE_RULES, NEGATIVE
from schemas.facts import Facts, Refund, Stamp, unpack_lines
from schemas.provider_events import PaymentStateSaidData
from schemas.views import STATUS_RULES
from worker.core.effects import OPERATOR_KINDS
from worker.core.intake import decode
from worker.core.order import Assessment, assess
from worker.core.provider_facts import KINDS
from worker.core.reducer import reduce
from worker.core.refunds import DIFFERENCE_NAME
from worker.core.shares import Share, Shares, Tally, count_units, share_content, tally
from worker.errors import MalformedEventError, UsageError
from worker.model.order import Cart, Item, Order
from worker.sim.loop import START_WALL_MS
from worker.tools.scenario.files import find_files, read_scenario
from worker.tools.scenario.play import TRUST, raw_record, record_of_event
from worker.tools.scenario.steps import EventStep, RecordStep, Scenario

CartName = Literal["shipped", "unshipped"]
CARTS: tuple[CartName, CartName] = ("shipped", "unshipped")
_WIDTH = 32


class ItemChange(Struct, frozen=True):
    """An item that is new, changed or removed; amounts and units before and after."""

    change: Literal["new", "changed", "gone"]
    type: str
    reference: str | None
    name: str | None
    quantity_before: int
    quantity: int
    before_minor: int
    after_minor: int
    why: str


class CartChange(Struct, frozen=True):
    """A cart before and after, and the items in which it differs."""

    before_minor: int
    after_minor: int
    items: list[ItemChange]


class Explanation(Struct, frozen=True):
    """One event: its content, its changes, and what they mean."""

    step: int
    """The number of its step in the file, from 1."""
    event: str
    """The event type."""
    id: str
    subject: str
    says: str
    state: str
    """What the facts say of its status; `ready`: its provider may be told."""
    shipped: CartChange | None
    """`None`: unchanged, or unknown."""
    unshipped: CartChange | None
    contradictions: list[str]
    notes: list[str]


class Explained(Struct, frozen=True):
    """A scenario, event by event."""

    file: str
    name: str
    title: str
    events: list[Explanation]


def explain_files(paths: Iterable[Path], as_json: bool = False) -> int:
    """Explains scenario files, and folders of them, on stdout; 0, or 2 if one cannot be read."""
    explained: list[Explained] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            for file in find_files(path):
                scenario = read_scenario(file)
                explained.append(Explained(f"{file}", scenario.name, scenario.title, explain(scenario)))
        except UsageError as error:
            unreadable.append(str(error))
    if as_json:
        print(json.dumps({"unreadable": unreadable, "scenarios": [_plain(one) for one in explained]}, indent=2))
    else:
        lines = [line for one in explained for line in [*as_lines(one), ""]] + [f"ERROR {text}" for text in unreadable]
        print("\n".join(lines).rstrip().encode("utf-8", "backslashreplace").decode())
    return 2 if unreadable else 0


def explain(scenario: Scenario) -> list[Explanation]:
    """The changes of each event of the scenario, in the order of the file."""
    orders: dict[str, _Known] = {}
    found: list[Explanation] = []
    events = position = 0
    for number, step in enumerate(scenario.steps, 1):
        match step:
            case EventStep():
                events += 1
                key, value, headers, timestamp_ms = record_of_event(step, events, START_WALL_MS)
            case RecordStep(record):
                key, value, headers, timestamp_ms = raw_record(record, START_WALL_MS)
            case _:
                continue
        envelope = _Envelope.of(value, headers)
        try:
            event = decode(key, value, dict(headers), timestamp_ms, trust=TRUST)
        except MalformedEventError as error:
            found.append(_nothing(number, envelope, f"refused, it goes to the dead-letter topic: {error}"))
            continue
        if event is None:
            found.append(_nothing(number, envelope, "skipped: not a known event"))
            continue
        if type(event.data) in OPERATOR_KINDS:
            found.append(_nothing(number, envelope, "an operator's: it changes no fact of the order"))
            continue
        known = orders.setdefault(event.subject, _Known())
        found.append(known.take(number, envelope, event, position))
        position += 1
    return found


# --- one event -------------------------------------------------------------------------------------------------------


class _Envelope(Struct, frozen=True):
    """How a reader identifies an event."""

    type: str = ""
    id: str = ""
    subject: str = ""

    @classmethod
    def of(cls, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> "_Envelope":
        """The label of a record, which may not contain an event."""
        named = {name.removeprefix("ce_"): text.decode("utf-8", "replace") for name, text in headers}
        if "specversion" not in named:
            try:
                body = json.loads(value or b"null")
            except (ValueError, RecursionError):
                body = None
            named = {name: f"{text}" for name, text in body.items()} if isinstance(body, dict) else {}
        return cls(named.get("type", ""), named.get("id", ""), named.get("subject", ""))


def _nothing(number: int, envelope: _Envelope, note: str) -> Explanation:
    return Explanation(number, envelope.type, envelope.id, envelope.subject, "", "", None, None, [], [note])


class _Known:
    """An order after some of its events."""

    def __init__(self) -> None:
        self._facts = Facts()
        self._standing: Assessment = assess(self._facts, "")
        self._carts: dict[CartName, Cart] = {name: Cart([], 0) for name in CARTS}

    def take(self, number: int, envelope: _Envelope, event: e.OrderEvent, position: int) -> Explanation:
        """Applies one more event."""
        before, was = self._facts, self._standing
        after = reduce(before, event, position)
        self._facts = after
        self._standing = now = assess(after, event.subject.partition("/")[2])
        changes: dict[CartName, CartChange | None] = dict.fromkeys(CARTS)
        if now.order is not None:
            whys = _whys(after, now.order)
            absent = "not in the statement" if after.statements else "not in the newest content"
            for name, cart in _carts_of(now.order):
                changes[name] = _changes(self._carts[name], cart, whys[name], absent)
                self._carts[name] = cart
        notes = _notes(before, after, event, position, was, now, any(changes.values()))
        return Explanation(
            number,
            envelope.type,
            envelope.id,
            event.subject,
            _says(event.data),
            now.state,
            changes["shipped"],
            changes["unshipped"],
            now.contradictions,
            notes,
        )


def _carts_of(order: Order) -> tuple[tuple[CartName, Cart], tuple[CartName, Cart]]:
    return ("shipped", order.shipped), ("unshipped", order.unshipped)


_Key = tuple[str, str | None]
"""(type, reference) of an item. Two lines may share it: they come in the order of lines."""
_Whys = dict[_Key, list[str]]


def _changes(before: Cart, after: Cart, whys: _Whys, absent: str) -> CartChange | None:
    """`absent`: why an item is gone, if nothing else is known about it."""
    if before == after:
        return None
    old, new = _by_key(before.items), _by_key(after.items)
    items: list[ItemChange] = []
    for key in [*new, *(key for key in old if key not in new)]:
        had, has = old.get(key, []), new.get(key, [])
        for index in range(max(len(had), len(has))):
            was = had[index] if index < len(had) else None
            now = has[index] if index < len(has) else None
            if was != now:
                reasons = whys.get(key) or [absent]
                items.append(_change(was, now, reasons[min(index, len(reasons) - 1)]))
    return CartChange(before.total_minor, after.total_minor, items)


def _change(was: Item | None, now: Item | None, why: str) -> ItemChange:
    item = now if now is not None else was
    assert item is not None  # one of them is there
    return ItemChange(
        "new" if was is None else "gone" if now is None else "changed",
        item.type,
        item.reference,
        item.name,
        0 if was is None else was.quantity,
        0 if now is None else now.quantity,
        0 if was is None else was.total_minor,
        0 if now is None else now.total_minor,
        why,
    )


def _by_key(items: list[Item]) -> dict[_Key, list[Item]]:
    found: dict[_Key, list[Item]] = {}
    for item in items:
        found.setdefault((item.type, item.reference), []).append(item)
    return found


# --- why an item is what it is ----------------------------------------------------------------------------------------


def _whys(facts: Facts, order: Order) -> dict[CartName, _Whys]:
    """By cart and item: the source of its amount."""
    found: dict[CartName, _Whys] = {name: {} for name in CARTS}
    if facts.statements:
        for name, cart in _carts_of(order):
            for item in cart.items:
                found[name].setdefault((item.type, item.reference), []).append("as stated")
        return found
    assert facts.content is not None  # there is an order
    lines = unpack_lines(facts.content.lines)
    tallies = tally(count_units(facts), lines)
    shares = share_content(facts, lines, tallies)
    for share in shares.all:
        line = share.line
        key = (line.type, line.reference)
        shipped, unshipped = _why(share, shares, tallies.get(line.line_id) or Tally())
        found["shipped"].setdefault(key, []).append(shipped)
        found["unshipped"].setdefault(key, []).append(unshipped)
    _why_beside_lines(facts, order, found)
    return found


def _why(share: Share, shares: Shares, units: Tally) -> tuple[str, str]:
    """The sources of a line's items in the shipped and the unshipped cart."""
    line = share.line
    match LINE_RULES[line.type].division:
        case "goods":
            return _why_goods(share, units)
        case "charge":
            return _twice(_why_charge(share))
        case "voucher":
            return _twice("a voucher was issued: whole in the shipped cart")
        case "reduction":
            return _twice(_why_reduction(share))
        case "registration":
            return _twice(_why_registration(share, shares))
        case unknown:
            assert_never(unknown)


def _why_registration(share: Share, shares: Shares) -> str:
    line = share.line
    named = shares.goods if line.applies_to is None else [shares.by_id[line_id] for line_id in line.applies_to]
    shipped, unshipped = sum(other.shipped_minor for other in named), sum(other.unshipped_minor for other in named)
    lost = sum(other.lost_minor + other.refunded_minor for other in named)
    return f"{line.total_minor} follows its lines: {shipped} shipped, {unshipped} pending, {lost} lost"


def _twice(text: str) -> tuple[str, str]:
    return text, text


def _why_goods(share: Share, units: Tally) -> tuple[str, str]:
    line, kept, pending = share.line, share.shipped_units, share.unshipped_units
    became = [
        f"{count} {what}"
        for count, what in (
            (units.shipped, "shipped"),
            (units.returned, "returned"),
            (units.gone, "refunded unsent"),
            (units.cancelled, "cancelled"),
        )
        if count
    ]
    counts = f"{line.quantity} ordered" + "".join(f", {text}" for text in became)
    total = f"{line.total_minor} × "
    first = f"{counts}: {kept} kept, {total}{kept}/{line.quantity}"
    if not pending:
        return first, f"{counts}: 0 pending"
    if not kept:
        return first, f"{counts}: {pending} pending, {total}{pending}/{line.quantity}"
    both = f"{total}{kept + pending}/{line.quantity} less the {share.shipped_minor} shipped"
    return first, f"{counts}: {pending} pending, {both}"


def _why_charge(share: Share) -> str:
    line = share.line
    given_back = f", {share.refunded_minor} of it refunded" if share.refunded_minor else ""
    assert share.weights is not None  # of a charge
    by_value, by_units = share.weights
    whose = "goods" if line.applies_to is None else ", ".join(line.applies_to)
    if any(by_value):
        shares = f"{by_value[0]} ever shipped, {by_value[1]} pending"
    elif any(by_units):
        shares = f"{by_units[0]} units ever shipped, {by_units[1]} pending"
    else:
        return f"{line.total_minor}{given_back}: gone with its {whose}"
    return f"{line.total_minor}{given_back}, follows {whose}: {shares}"


def _why_reduction(share: Share) -> str:
    off_shipped, off_unshipped = -share.shipped_minor, -share.unshipped_minor
    rest = -share.line.total_minor - off_shipped - off_unshipped
    of = "all lines" if share.line.applies_to is None else ", ".join(share.line.applies_to)
    elsewhere = f", {rest} of lost units" if rest else ""
    return f"{-share.line.total_minor} off {of}: {off_shipped} shipped, {off_unshipped} pending{elsewhere}"


def _why_beside_lines(facts: Facts, order: Order, found: dict[CartName, _Whys]) -> None:
    """Fees, refunds and return differences."""
    shipped = {item.reference: item.total_minor for item in order.shipped.items if _is_beside_lines(facts, item)}
    unshipped = {item.reference: item.total_minor for item in order.unshipped.items if _is_beside_lines(facts, item)}
    for key, refund in facts.refunds.items():
        text = _why_refund(refund, -shipped.get(key, 0), -unshipped.get(key, 0))
        found["shipped"].setdefault(("other_payment", key), []).append(text)
        found["unshipped"].setdefault(("discount", key), []).append(text)
    for key, fee in facts.fees.items():
        text = "a fee, due at once" if fee.amount_minor else "the fee was taken back"
        found["shipped"].setdefault(("handling", key), []).append(text)
    paid_minor = sum(back.refunded_minor or 0 for back in facts.returns.values())
    for key, back in facts.returns.items():
        if back.fee_minor:
            found["shipped"].setdefault(("handling", key), []).append(f"the fee of return {key}")
        difference = sum(
            item.total_minor
            for item in order.shipped.items + order.unshipped.items
            if item.reference == key and item.name == DIFFERENCE_NAME
        )
        text = f"{paid_minor} refunded for returned units"
        if difference:
            text += f", {abs(difference)} {'less' if difference > 0 else 'more'} than their share"
        for name, kind in _DIFFERENCES:
            found[name].setdefault((kind, key), []).append("the return was taken back" if back.units is None else text)


_DIFFERENCES: tuple[tuple[CartName, str], ...] = (
    ("shipped", "handling"),
    ("shipped", "other_payment"),
    ("unshipped", "discount"),
)


def _is_beside_lines(facts: Facts, item: Item) -> bool:
    return item.reference in facts.refunds and item.type in NEGATIVE


def _why_refund(refund: Refund, shipped_minor: int, unshipped_minor: int) -> str:
    if not refund.amount_minor:
        return "the refund was taken back"
    whose = "" if refund.applies_to is None else f" for {', '.join(refund.applies_to)}"
    rest = refund.amount_minor - shipped_minor - unshipped_minor
    gone = f", {rest} with lost units or beyond what the carts have" if rest else ""
    return f"{refund.amount_minor} refunded{whose}: {shipped_minor} shipped, {unshipped_minor} pending{gone}"


# --- what an event says, and what it means ----------------------------------------------------------------------------


def _says(data: Data) -> str:
    match data:
        case e.ConfirmedData() | e.CartUpdatedData():
            return ", ".join(_line_text(line) for line in data.lines)
        case e.ItemsShippedData():
            return f"{data.shipment_id}: {_units_text(data.lines)}"
        case e.ItemsReturnedData():
            return f"{data.return_id}: " + _joined(
                _units_text(data.lines),
                "" if data.origin == "shipped" else f"from {data.origin}",
                _amount("paid back for them", data.refunded_minor),
                _amount("of the handling refunded", data.refund_handling_minor),
                _amount("fee", data.fee_minor),
            )
        case e.ItemsCancelledData():
            return f"{data.cancellation_id}: {_units_text(data.lines)}"
        case e.RefundedData():
            whose = "" if data.applies_to is UNSET else f" for {', '.join(data.applies_to)}"
            return f"{data.refund_id}: {data.amount_minor}{whose}"
        case e.FeeChargedData():
            return f"{data.fee_id}: {data.amount_minor}"
        case e.CartsStatedData():
            shipped = ", ".join(_line_text(line) for line in data.shipped) or "nothing"
            return f"shipped {shipped}; unshipped {', '.join(_line_text(line) for line in data.unshipped) or 'nothing'}"
        case _:
            given = {name: getattr(data, name) for name in data.__struct_fields__}
            return ", ".join(
                f"{name} {value}" if isinstance(value, str) else name
                for name, value in given.items()
                if value is not UNSET
            )


def _line_text(line: e.Line) -> str:
    count = "" if line.quantity is UNSET else f"{line.quantity} × "
    return f"{count}{line.id} {line.total_minor}"


def _units_text(units: list[e.Units]) -> str:
    return ", ".join(f"{unit.quantity} × {unit.line_id}" for unit in units)


def _amount(what: str, minor: Any) -> str:
    return "" if minor is UNSET else f"{minor} {what}" if what != "fee" else f"fee {minor}"


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _notes(
    before: Facts, after: Facts, event: e.OrderEvent, position: int, was: Assessment, now: Assessment, has_changed: bool
) -> list[str]:
    """Remarks on the event, apart from its changes."""
    if after is before:
        return ["a repetition: an event with this id and source was accepted before"]
    stamp = (event.sequence, event.time_us, position)
    if not _counts(after, event.data, stamp):
        return ["does not count: a newer fact about the same is known"]
    if now.state == "unconfirmed":
        return ["kept; nothing is sent to the provider before order.confirmed"]
    notes: list[str] = []
    if was.state == "unconfirmed" and now.order is not None:
        notes.append("the provider is assumed to know what order.confirmed alone gives")
    if now.order is None and now.contradictions:
        notes.append("nothing is sent while this contradiction lasts")
    elif was.order is None and was.contradictions:
        notes.append("the contradiction is gone")
    if now.state != "ready":
        rules = STATUS_RULES[now.state]
        if rules.is_of_payment or not rules.has_contradictions:  # those are said already
            notes.append(f"nothing is sent: {rules.meaning}")
    if not has_changed and now.order is not None and not notes:
        notes.append(_nothing_changed(after, event.data, stamp))
    return notes


def _counts(facts: Facts, data: Data, stamp: Stamp) -> bool:
    """Whether the facts contain the event's content, so that nothing newer outranks it."""
    by_id: Mapping[str, Mapping[str, Any]] = {
        "shipment_id": facts.shipments,
        "return_id": facts.returns,
        "cancellation_id": facts.item_cancellations,
        "refund_id": facts.refunds,
        "fee_id": facts.fees,
    }
    match data:
        case e.ConfirmedData() | e.CartUpdatedData():
            kept = [facts.content, facts.confirmation if isinstance(data, e.ConfirmedData) else None]
            return any(fact is not None and fact.stamp == stamp for fact in kept)
        case e.PaymentStateChangedData() | PaymentStateSaidData():
            is_shown = isinstance(data, PaymentStateSaidData) and data.state == "under_evaluation"
            return is_shown or (facts.payment_now is not None and facts.payment_now.stamp[1:] == stamp[1:])
        case e.CancelledData():
            return facts.cancellation_now is not None and facts.cancellation_now.stamp == stamp
        case e.CartsStatedData():
            return bool(facts.statements) and facts.statements[0].stamp == stamp
        case e.ItemsDeliveredData():
            return facts.deliveries[data.shipment_id][0] == stamp
        case e.DetailsChangedData():
            return any(detail == stamp for detail, _ in facts.details.values())
        case e.RetractedData():
            if data.cancelled is not UNSET:
                return facts.cancellation_now is not None and facts.cancellation_now.stamp == stamp
            if data.stated is not UNSET:
                return facts.statement_retraction == stamp
    for member, known in by_id.items():
        key = getattr(data, member, UNSET)
        if key is not UNSET:
            return bool(known[key].stamp == stamp)
    return True


_QUIET: dict[type, str] = {
    e.DetailsChangedData: "part of the update, not of the carts",
    e.ItemsDeliveredData: "fills in when the shipment's trackings were delivered; no cart depends on it",
    e.PaymentStateChangedData: "no cart depends on the payment",
    e.RetractedData: "there was nothing in the carts to retract",
    e.ObservedData: "for statistics alone",
    **dict.fromkeys(KINDS, "shown; if the provider can be read, it is read before this counts"),
    PaymentStateSaidData: "no cart depends on the payment",
}


def _nothing_changed(facts: Facts, data: Data, stamp: Stamp) -> str:
    if facts.statements and facts.statements[0].stamp > stamp and type(data) not in _QUIET:
        return "older than the shop's statement of both carts, which alone counts"
    return _QUIET.get(type(data), "it counts, and leads to the same carts")


# --- for people, for machines ---------------------------------------------------------------------------------------


def as_lines(explained: Explained) -> list[str]:
    """The explanation as text."""
    lines = [f"{explained.name}  {explained.title}".rstrip()]
    for one in explained.events:
        lines.append(f"{one.step:>3}  {one.event}  {one.subject}  {one.says}".rstrip())
        for name, change in (("shipped", one.shipped), ("unshipped", one.unshipped)):
            if change is not None:
                lines.append(f"     {name} {change.before_minor} → {change.after_minor}")
                lines += [f"       {_item_text(item)}" for item in change.items]
        lines += [f"     {text}" for text in [*one.contradictions, *one.notes]]
    return lines


def _item_text(item: ItemChange) -> str:
    def units(count: int) -> str:
        return f"{count} × " if count else ""

    name = item.reference or item.name or item.type
    count = f"{item.quantity_before} → {item.quantity} × " if item.change == "changed" else ""
    if item.quantity_before == item.quantity or item.change != "changed":
        count = units(item.quantity or item.quantity_before)
    amounts = {
        "new": f"{item.after_minor}",
        "gone": f"{item.before_minor} → 0",
        "changed": f"{item.before_minor} → {item.after_minor}",
    }[item.change]
    return f"{item.change:<8} {f'{count}{name}':<{_WIDTH}} {amounts:<16} {item.why}".rstrip()


def _plain(explained: Explained) -> dict[str, Any]:
    found: dict[str, Any] = structs.asdict(explained)
    found["events"] = [as_plain(one) for one in explained.events]
    return found


def as_plain(one: Explanation) -> dict[str, Any]:
    """An event's explanation in JSON values."""
    found: dict[str, Any] = structs.asdict(one)
    for name, change in (("shipped", one.shipped), ("unshipped", one.unshipped)):
        if change is not None:
            found[name] = structs.asdict(change) | {"items": [structs.asdict(item) for item in change.items]}
    return found
