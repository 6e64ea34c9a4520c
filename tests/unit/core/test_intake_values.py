"""The value types of `CONTRACT.md` section 2 at their bounds, and just outside."""

from typing import Any

import msgspec
import pytest

from tests.shops.events import START_MS, EventSpec, details, envelope, goods, items_cancelled, refunded
from worker.core.intake import decode
from worker.errors import MalformedEventError

MAX = 10**12
TEXT, LONG = "x" * 1000, "x" * 1001
WIDE = "😀" * 1000
"""1,000 characters, 4,000 bytes."""


def is_taken(told: EventSpec) -> bool:
    """Whether the door takes this; anything but an event or `invalid_data` fails the test."""
    try:
        return decode(b"k", msgspec.json.encode(envelope(told)), {}, START_MS) is not None
    except MalformedEventError as error:
        if error.reason != "invalid_data":
            raise
        return False


def values(*given: Any) -> tuple[Any, ...]:
    """Values of whatever type."""
    return given


def cart(**members: Any) -> EventSpec:
    """A content with one goods line that has these members."""
    return EventSpec("order.cart_updated", {"currency": "EUR", "lines": [goods("A", 1, 1) | members]})


def other(kind: str, total: int) -> EventSpec:
    """A content with one goods line and one other."""
    lines = [goods("A", 1, 1), {"type": kind, "reference": "O", "name": "O", "total_minor": total}]
    return EventSpec("order.cart_updated", {"currency": "EUR", "lines": lines})


def attributes(**members: Any) -> EventSpec:
    """A goods line with these attributes."""
    return cart(attributes=members)


def ends(**members: Any) -> EventSpec:
    """A service line with these attributes."""
    return cart(type="service", attributes=members)


def content(**members: Any) -> EventSpec:
    """A content with these members."""
    return EventSpec("order.cart_updated", {"currency": "EUR", "lines": [goods("A", 1, 1)]} | members)


def tracking(**members: Any) -> EventSpec:
    """A shipment with one tracking that has these members."""
    entry = {"reference": "T", "type": "postal", "carrier": "C"} | members
    data = {"shipment_id": "s", "lines": [{"line_id": "A", "quantity": 1}], "tracking": [entry]}
    return EventSpec("order.items_shipped", data)


TAKEN: list[EventSpec] = [
    *(cart(quantity=value) for value in values(1, 1_000_000)),
    *(cart(unit_price_minor=value) for value in values(0, MAX)),
    *(cart(total_minor=value) for value in values(0, MAX)),
    *(other("discount", value) for value in values(-1, -MAX)),
    *(other("other_payment", value) for value in values(-1, -MAX)),
    *(
        other(kind, value)
        for kind in ("handling", "voucher", "registration", "invoice_fee")
        for value in values(0, MAX)
    ),
    *(refunded("f", value) for value in values(1, MAX)),
    *(content(cart_version=value) for value in values(-(2**63), 2**63 - 1, 0)),
    *(content(currency=value) for value in values("EUR", "AAA", "XXX")),
    *(cart(reference=value) for value in values("x", " ", TEXT, WIDE)),
    *(cart(name=value) for value in values("x", TEXT, WIDE, "\n")),
    *(cart(line_id=value) for value in values("x", TEXT)),
    *(items_cancelled("c", value, A=1) for value in values("", TEXT, WIDE)),
    *(attributes(category=value) for value in values("", TEXT)),
    *(attributes(subscription={"vat_rate_bp": value}) for value in values(0, 1_000_000)),
    *(attributes(subscription={"price_minor": value}) for value in values(-MAX, MAX)),
    attributes(subscription={}),
    cart(attributes={}),
    *(ends(ends_on=value) for value in values("2026-02-28", "2024-02-29", "0001-01-01", "9999-12-31")),
    *(
        ends(ends_in=value)
        for value in values("P1Y", "P3M", "P2W", "P10D", "P1Y2M3W4D", "PT1H", "PT2M3S", "P1DT1H", "P0D")
    ),
    *(details(delivery_method={"days": value}) for value in values("", "2-3", 0, 5, 1_000_000)),
    details(delivery_method={}),
    details(customer={}, delivery_address={}, invoice_address={}, references={}),
    details(),
    details(gift=None, customer=None),
    *(tracking(tracking_url=value) for value in values("https://x", "https://" + "x" * 992)),
    *(tracking(delivered_at=value) for value in values("2026-03-01T00:00:00Z", "2026-03-01t00:00:00.123456+02:00")),
    tracking(carrier=""),
    tracking(type="pickup_point"),
    tracking(type="pickup_store"),
    EventSpec("order.items_shipped", {"shipment_id": "s", "lines": [{"line_id": "A", "quantity": 1}], "tracking": []}),
]
REFUSED: list[EventSpec] = [
    *(cart(quantity=value) for value in values(0, -1, 1_000_001, 2.0, 1.5, "1", True, None, [], 2**63, 2**64, 10**30)),
    *(cart(unit_price_minor=value) for value in values(-1, MAX + 1, 1.0, "1", False)),
    *(cart(total_minor=value) for value in values(-1, MAX + 1, 0.0, None)),
    *(other("discount", value) for value in values(0, 1, -MAX - 1)),
    *(other("other_payment", value) for value in values(0, 1, -MAX - 1)),
    *(
        other(kind, value)
        for kind in ("handling", "voucher", "registration", "invoice_fee")
        for value in values(-1, MAX + 1)
    ),
    *(refunded("f", value) for value in values(0, -1, MAX + 1)),
    *(content(cart_version=value) for value in values(-(2**63) - 1, 2**63, 1.0, None, True)),
    *(content(currency=value) for value in values("", "EU", "EURO", "eur", "EU1", "EUR ", "\uff25\uff35\uff32", None)),
    *(cart(reference=value) for value in values("", LONG, None, 5)),
    *(cart(name=value) for value in values("", LONG, WIDE + "x")),
    *(cart(line_id=value) for value in values("", LONG, None)),
    *(items_cancelled("c", value, A=1) for value in values(LONG, WIDE + "x")),
    *(attributes(category=value) for value in values(LONG, None, 1)),
    *(attributes(subscription={"vat_rate_bp": value}) for value in values(-1, 1_000_001)),
    *(attributes(subscription={"price_minor": value}) for value in values(-MAX - 1, MAX + 1)),
    attributes(subscription={"price": 1}),
    cart(attributes=None),
    *(
        ends(ends_on=value)
        for value in ("2026-02-29", "2026-2-3", "20260203", "2026-02-03T00:00:00Z", "0000-01-01", "", None)
    ),
    *(
        ends(ends_in=value)
        for value in ("", "P", "PT", "P1YT", "P1", "1Y", "p1y", "-P1D", "P-1D", "P1.5D", "P1D1Y", "P٣M", "P1Y\n")
    ),
    *(details(delivery_method={"days": value}) for value in values(-1, 1_000_001, 1.5, True, None, LONG, [])),
    details(customer={"rating": 5}),
    *(
        tracking(tracking_url=value)
        for value in ("https://", "http://x", "HTTPS://x", "https:// x", "ftp://x", "", "https://" + "x" * 993)
    ),
    *(
        tracking(delivered_at=value)
        for value in ("2026-03-01", "2026-03-01T00:00:00", "2026-02-29T00:00:00Z", "", None)
    ),
    tracking(type=None),
    tracking(type="POSTAL"),
    tracking(reference=""),
]


@pytest.mark.parametrize("told", TAKEN)
def test_value_inside_its_bounds(told: EventSpec) -> None:
    """What the contract just allows is taken."""
    assert is_taken(told)


@pytest.mark.parametrize("told", REFUSED)
def test_value_outside_its_bounds(told: EventSpec) -> None:
    """What is just outside is refused as invalid data."""
    assert not is_taken(told)
