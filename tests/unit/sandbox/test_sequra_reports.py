"""What the sandbox takes of delivery reports, what it refuses, and what it knows afterwards."""

from copy import deepcopy
from typing import Any

import msgspec
import pytest

from worker.sandbox.sequra.reports import Reports
from worker.sandbox.sequra.rules import report_refusals

ITEM = {
    "type": "product",
    "reference": "A",
    "name": "A",
    "quantity": 1,
    "price_with_tax": 100,
    "total_with_tax": 100,
    "downloadable": False,
}
LEFT = ITEM | {"reference": "B"}
DELIVERY: dict[str, Any] = {
    "merchant_reference": {"order_ref_1": "o1"},
    "state": "shipped",
    "sent_at": "2026-03-01T00:00:01+00:00",
    "cart": {"currency": "EUR", "gift": False, "order_total_with_tax": 100, "items": [ITEM]},
    "remaining_cart": {"order_total_with_tax": 100, "items": [LEFT]},
    "delivery_method": {"name": "post"},
    "customer": {"given_names": "Ana", "surnames": "G", "email": "ana@example.org"},
    "trackings": [{"type": "postal", "reference": "T1", "carrier": "UPS"}],
}
PLATFORM = dict.fromkeys(("name", "version", "uname", "db_name", "db_version"), "x")


def report(*orders: Any, **members: Any) -> dict[str, Any]:
    """A report of these deliveries."""
    return {"merchant": {"id": "m1"}, "orders": list(orders), "platform": PLATFORM, **members}


def take(reports: Reports, *orders: Any, **members: Any) -> int:
    """The status that it is answered with."""
    return reports.take(msgspec.json.encode({"delivery_report": report(*orders, **members)})).status


def changed(path: str, value: Any) -> dict[str, Any]:
    """The delivery with another member; `None`: without it."""
    made = deepcopy(DELIVERY)
    *holders, last = path.split(".")
    holder: Any = made
    for name in holders:
        holder = holder[int(name) if name.isdigit() else name]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return made


def test_deliveries_add_up() -> None:
    """By second; what is left is what the newest one said."""
    reports = Reports("m1")
    second = changed("sent_at", "2026-03-01T01:00:02+01:00") | {
        "remaining_cart": {"order_total_with_tax": 0, "items": []}
    }
    assert take(reports, DELIVERY, second) == 204
    order = reports.order("o1")
    assert (order.shipped, order.remaining) == ({("product", "A"): (2, 200)}, {})
    assert [each.trackings for each in order.deliveries.values()] == [["T1"], ["T1"]]
    assert (order.repeats, reports.count) == (0, 1)


def test_repeats_add_nothing() -> None:
    """The same page again is a repeat; in another page, or with another cart, it contradicts."""
    reports = Reports("m1")
    other = changed("merchant_reference", {"order_ref_1": "o2"})
    for orders in ([DELIVERY], [DELIVERY], [DELIVERY, other], [changed("state", "delivered")]):
        assert take(reports, *orders) == 204
    order = reports.order("o1")
    assert (order.shipped, order.repeats, order.contradictions) == ({("product", "A"): (1, 100)}, 3, 2)


def test_broken_orders_and_statistics() -> None:
    """They tell of no delivery."""
    reports = Reports("m1")
    numbers = {"completed_at": "2026-03-01T00:00:01Z", "currency": "EUR", "merchant_reference": {"order_ref_1": "o3"}}
    broken = [{"merchant_reference": {"order_ref_1": "o2"}}]
    assert take(reports, broken_orders=broken, statistics={"orders": [numbers]}) == 204
    assert (reports.order("o2").broken, reports.order("o3").statistics) == (1, numbers)
    assert reports.order("o2").deliveries == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"delivery_report": 7}', b"\xff"])
def test_what_is_no_report(body: bytes) -> None:
    """Refused, and nothing changes."""
    reports = Reports("m1")
    assert reports.take(body).status in (400, 409)
    assert reports.count == 0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("state", "sent", "state must be shipped or delivered"),
        ("sent_at", "2026-03-01", "sent_at must be an ISO 8601 timestamp"),
        ("cart", None, "lacks cart"),
        ("cart.gift", None, "cart lacks gift"),
        ("cart.currency", None, "cart lacks currency"),
        ("cart.order_total_with_tax", 99, "add up to 100"),
        ("cart.items.0.quantity", 0, "quantity must be a positive int"),
        ("cart.items.0.type", "registration", "type registration is not allowed here"),
        ("remaining_cart", None, "lacks remaining_cart"),
        ("remaining_cart.order_total_with_tax", 1, "add up to 100"),
        ("remaining_cart.items.0.type", "voucher", "type voucher is not allowed here"),
        ("customer", None, "lacks customer"),
        ("customer.email", None, "customer lacks email"),
        ("delivery_method.name", None, "delivery_method lacks name"),
        ("delivery_address", {"city": "Vigo"}, "delivery_address lacks given_names"),
        ("merchant_reference.order_ref_1", None, "merchant_reference lacks order_ref_1"),
        ("trackings.0.carrier", None, "trackings[0] lacks carrier"),
    ],
)
def test_what_is_refused_of_a_delivery(path: str, value: Any, said: str) -> None:
    """Each member of the field list."""
    assert report_refusals(report(DELIVERY), "m1") == []
    found = report_refusals(report(changed(path, value)), "m1")
    assert any(said in text for text in found), found
    assert take(Reports("m1"), changed(path, value)) == 409


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"merchant": {"id": "m2"}}, "merchant.id differs"),
        ({"merchant": {}}, "merchant lacks id"),
        ({"platform": {"name": "x"}}, "platform lacks version"),
        ({"orders": None}, "orders is null"),
        ({"orders": {}}, "orders must be a list"),
        ({"orders": [7]}, "orders[0] must be an object"),
        ({"broken_orders": [{}]}, "broken_orders[0].merchant_reference must be an object"),
        ({"statistics": {"orders": [{"currency": "EUR"}]}}, "statistics.orders[0] lacks completed_at"),
    ],
)
def test_what_is_refused_of_a_report(members: dict[str, Any], said: str) -> None:
    """Whoever reports, and with what."""
    found = report_refusals(report() | members, "m1")
    assert any(said in text for text in found), found
