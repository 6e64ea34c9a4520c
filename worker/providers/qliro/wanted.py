"""The desired state at Qliro, from an order's facts: units by line, charges and adjustments, refunds. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from schemas.events import GOODS, VOUCHERS, LineType
from schemas.facts import Facts, Line, Return, Stamp, is_nil, unpack_lines
from worker.core.shares import count_units, share_content, tally
from worker.model.order import Order

_TYPES: Mapping[LineType, str] = {
    "product": "Product",
    "service": "Product",
    "subscriber_fee": "Product",
    "handling": "Shipping",
    "invoice_fee": "Fee",
    "discount": "Discount",
    "other_payment": "Discount",
    "voucher": "Fee",
    "registration": "Fee",
}
"""Qliro's type of every line of ours. It has no vouchers: an order with one cannot be sent (`plan`)."""


class Goods(Struct, array_like=True, frozen=True):
    """An article line, and how many of its units are kept and pending."""

    reference: str
    name: str
    unit_minor: int
    quantity: int
    total_minor: int
    kept: int
    pending: int
    vat_rate_bp: int | None
    is_repriced: bool
    """Whether its price differs from the confirmed one."""


class Once(Struct, array_like=True, frozen=True):
    """A charge or an adjustment: it is present once or not at all."""

    reference: str
    """Empty: the order does not say Qliro's reference."""
    type: str
    name: str
    total_minor: int
    share_minor: int
    """Its part in the two carts."""
    refunded_minor: int
    vat_rate_bp: int | None
    is_changed: bool
    """Whether its total differs from the confirmed one."""

    @property
    def sent_minor(self) -> int:
        """The amount that is sent: its share and its refunded part, which is sent as an amount of its own."""
        return self.share_minor + self.refunded_minor


class Back(Struct, array_like=True, frozen=True):
    """A return with a fee or a refunded amount."""

    name: str
    units: list[tuple[str, int]]
    """By reference."""
    fee_minor: int
    refunded_minor: int | None
    worth_minor: int
    """The worth of its units, at the prices of their lines."""

    @property
    def withheld_minor(self) -> int:
        """The part of the worth that was not refunded; below 0: more was refunded."""
        return 0 if self.refunded_minor is None else self.worth_minor - self.refunded_minor


class Money(Struct, array_like=True, frozen=True):
    """An amount apart from lines."""

    name: str
    """Its id."""
    text: str
    minor: int


class Wanted(Struct, array_like=True, frozen=True):
    """The desired state of an order, as far as Qliro's API can express it."""

    order_id: str
    currency: str
    goods: list[Goods]
    once: list[Once]
    backs: list[Back]
    refunds: list[Money]
    fees: list[Money]
    """Charged without a return."""
    vouchers_minor: int
    shipped_minor: int
    """The total of the shipped cart."""
    unshipped_minor: int
    shipped_units: dict[str, int]
    """By reference: units that were ever shipped."""
    confirmed: list[tuple[str, str]]
    """Reference and type of each confirmed line."""
    is_bare: bool
    """Whether the order has only been confirmed."""

    @property
    def ordered(self) -> Counter[str]:
        """Units of the content, by reference, whatever happened to them."""
        counts: Counter[str] = Counter()
        for goods in self.goods:
            counts[goods.reference] += goods.quantity
        return counts

    hint: str = ""
    """The order's id at Qliro according to callbacks: used to read the order, but not trusted."""


def want(order: Order) -> Wanted:
    """The desired state of any order that is ready."""
    facts = order.facts
    confirmed = _confirmed(facts)
    goods, once, vouchers_minor = _stated(facts, confirmed) if facts.statements else _content(facts, confirmed)
    lines = {line.line_id: line for line in [*confirmed.values(), *_newest(facts)]}
    is_stated = bool(facts.statements)
    returns = sorted(facts.returns.items(), key=lambda item: item[1].stamp)
    return Wanted(
        _reported_order(order),
        order.currency,
        goods,
        once,
        [] if is_stated else [_back(key, back, lines) for key, back in returns if _says_money(back)],
        [] if is_stated else _money((key, one.stamp, one.name, one.amount_minor) for key, one in facts.refunds.items()),
        [] if is_stated else _money((key, one.stamp, one.name, one.amount_minor) for key, one in facts.fees.items()),
        vouchers_minor,
        order.shipped.total_minor,
        order.unshipped.total_minor,
        _shipped_units(facts, lines, goods),
        sorted({(line.reference or "", type_of(line.type)) for line in confirmed.values()}),
        _is_bare(facts),
        _pushed_order(facts),
    )


def _reported_order(order: Order) -> str:
    """Qliro's own id of the order, if the shop reported it."""
    references = order.details.references
    return "" if references is None or references.provider is UNSET else _digits(references.provider)


def _pushed_order(facts: Facts) -> str:
    """Qliro's id of the order according to callbacks."""
    return "" if facts.provider is None or facts.provider.order is None else _digits(facts.provider.order[1])


def _digits(reported: str) -> str:
    return reported if reported.isascii() and reported.isdigit() and len(reported) < 20 else ""


def encode(wanted: Wanted) -> msgspec.Raw:
    """Encodes it as an update's body."""
    return msgspec.Raw(_encoder.encode(wanted))


def decode(body: msgspec.Raw) -> Wanted:
    """The inverse of `encode`."""
    return _decoder.decode(body)


def digest(wanted: Wanted) -> bytes:
    """A digest of the shop's facts alone: without configuration, and without the hint, so neither makes orders owed."""
    return blake2b(_encoder.encode(replace(wanted, hint="")), digest_size=16).digest()


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Wanted)


def type_of(kind: LineType) -> str:
    """Qliro's type of a line of ours."""
    return _TYPES[kind]


# --- lines -------------------------------------------------------------------------------------------------------


def _newest(facts: Facts) -> list[Line]:
    assert facts.content is not None  # an order that is ready is confirmed
    return unpack_lines(facts.content.lines)


def _confirmed(facts: Facts) -> dict[str, Line]:
    """The lines that the checkout sent to Qliro."""
    assert facts.confirmation is not None  # an order that is ready is confirmed
    packed = facts.confirmation.lines
    return {line.line_id: line for line in (_newest(facts) if is_nil(packed) else unpack_lines(packed))}


def _content(facts: Facts, confirmed: Mapping[str, Line]) -> tuple[list[Goods], list[Once], int]:
    lines = _newest(facts)
    shares = share_content(facts, lines, tally(count_units(facts), lines))
    goods = [_goods(s.line, s.shipped_units, s.unshipped_units, confirmed) for s in shares.goods]
    once = [
        _once(s.line, s.shipped_minor + s.unshipped_minor, s.refunded_minor, confirmed)
        for s in shares.all
        if _is_once(s.line)
    ]
    return goods, once, sum(line.total_minor for line in lines if line.type in VOUCHERS)


def _stated(facts: Facts, confirmed: Mapping[str, Line]) -> tuple[list[Goods], list[Once], int]:
    """Both carts as the shop stated them: units in the shipped one are kept, in the unshipped one pending."""
    statement = facts.statements[0]
    shipped, unshipped = unpack_lines(statement.shipped), unpack_lines(statement.unshipped)
    cancellation = facts.cancellation_now
    if cancellation is not None and not cancellation.retracted:
        unshipped = []
    goods = [_goods(line, line.quantity, 0, confirmed) for line in shipped if line.type in GOODS]
    goods += [_goods(line, 0, line.quantity, confirmed) for line in unshipped if line.type in GOODS]
    totals: dict[tuple[str, str], tuple[Line, int]] = {}
    for line in [*shipped, *unshipped]:
        if _is_once(line):
            key = (line.reference or line.line_id, line.type)
            totals[key] = (line, line.total_minor + totals.get(key, (line, 0))[1])
    once = [_once(replace(line, total_minor=total), total, 0, confirmed) for line, total in totals.values()]
    vouchers = [line.total_minor for line in [*shipped, *unshipped] if line.type in VOUCHERS]
    return goods, once, sum(vouchers)


def _is_once(line: Line) -> bool:
    return line.type not in GOODS and line.type not in VOUCHERS and line.total_minor != 0


def _goods(line: Line, kept: int, pending: int, confirmed: Mapping[str, Line]) -> Goods:
    before = confirmed.get(line.line_id)
    if before is not None:
        prices = {before.unit_price_minor}
    else:
        prices = {one.unit_price_minor for one in confirmed.values() if one.reference == line.reference}
    return Goods(
        line.reference or "",
        line.name or "",
        line.unit_price_minor,
        line.quantity,
        line.total_minor,
        kept,
        pending,
        line.vat_rate_bp,
        bool(prices) and line.unit_price_minor not in prices,
    )


def _once(line: Line, share_minor: int, refunded_minor: int, confirmed: Mapping[str, Line]) -> Once:
    before = confirmed.get(line.line_id)
    return Once(
        line.reference or "",
        type_of(line.type),
        line.name or "",
        line.total_minor,
        share_minor,
        refunded_minor,
        line.vat_rate_bp,
        before is None or before.total_minor != line.total_minor,
    )


# --- money -------------------------------------------------------------------------------------------------------


def _says_money(back: Return) -> bool:
    return back.units is not None and (back.fee_minor > 0 or back.refunded_minor is not None)


def _back(key: str, back: Return, lines: Mapping[str, Line]) -> Back:
    counts: dict[str, int] = {}
    worth_minor = 0
    for line_id, count in back.units or ():
        line = lines.get(line_id)
        if line is not None:  # the reference of a line that only a former content had is unknown
            reference = line.reference or ""
            counts[reference] = counts.get(reference, 0) + count
            worth_minor += count * line.unit_price_minor
    return Back(key, sorted(counts.items()), back.fee_minor, back.refunded_minor, worth_minor)


def _money(reported: Iterable[tuple[str, Stamp, str | None, int]]) -> list[Money]:
    """Oldest first; without retracted amounts."""
    found = sorted((stamp, key, name, minor) for key, stamp, name, minor in reported if minor)
    return [Money(key, name or "", minor) for _, key, name, minor in found]


def _shipped_units(facts: Facts, lines: Mapping[str, Line], goods: list[Goods]) -> dict[str, int]:
    """Never fewer than the kept units."""
    counts: dict[str, int] = {}
    for line_id, count in count_units(facts).shipped.items():
        if line_id in lines:
            reference = lines[line_id].reference or ""
            counts[reference] = counts.get(reference, 0) + count
    kept: dict[str, int] = {}
    for one in goods:
        kept[one.reference] = kept.get(one.reference, 0) + one.kept
    return {key: max(counts.get(key, 0), kept.get(key, 0)) for key in sorted(counts.keys() | kept.keys())}


def _is_bare(facts: Facts) -> bool:
    assert facts.confirmation is not None  # an order that is ready is confirmed
    return is_nil(facts.confirmation.lines) and not (
        facts.shipments
        or facts.returns
        or facts.item_cancellations
        or facts.refunds
        or facts.fees
        or facts.statements
        or facts.cancellation_now
    )
