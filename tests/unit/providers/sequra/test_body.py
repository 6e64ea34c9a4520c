"""From our members to seQura's: every field of an order update, as `worker/providers/sequra/wire.py` has them."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from tests.asking import request_of
from tests.shops.events import (
    REFERENCE,
    EventSpec,
    cancelled,
    confirmed,
    delivered,
    details,
    goods,
    items_cancelled,
    order,
    other,
    shipped,
)
from tests.unit.core import samples
from worker.model.order import CancellationReason, Order
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

SEQURA = Sequra()
ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "camisasonline", "user", "secret")
ONE = confirmed(goods("A", 2, 200))


def body_of(found: Order, account: SequraAccount = ACCOUNT) -> dict[str, Any]:
    """The JSON object `order` as it is sent."""
    request = request_of(SEQURA, found, account)
    body = msgspec.json.decode(request.body)
    assert list(body) == ["order"]
    result: dict[str, Any] = body["order"]
    return result


def body(*specs: EventSpec, account: SequraAccount = ACCOUNT) -> dict[str, Any]:
    """The same of an order that was told."""
    return body_of(order(*specs), account)


PLATFORM = {"name": "cartsync", "version": "0.1.0", "uname": "Linux", "db_name": "kafka", "db_version": "4"}
EMPTY = {"currency": "EUR", "order_total_with_tax": 0, "items": []}


def test_minimal_body() -> None:
    """Only what was told, and what seQura demands: no null, no empty member; an empty cart is never left out."""
    assert body(ONE) == {
        "merchant": {"id": "camisasonline"},
        "merchant_reference": {"order_ref_1": REFERENCE},
        "shipped_cart": EMPTY,
        "unshipped_cart": {
            "currency": "EUR",
            "order_total_with_tax": 200,
            "items": [
                {
                    "type": "product",
                    "reference": "A",
                    "name": "A",
                    "quantity": 2,
                    "price_with_tax": 100,
                    "total_with_tax": 200,
                    "downloadable": False,
                }
            ],
        },
        "platform": PLATFORM,
    }


ADDRESS = {
    "given_names": "Ana",
    "surnames": "García Núñez",
    "company": "ACME",
    "address_line_1": "Calle Mayor 1",
    "address_line_2": "2º B",
    "postal_code": "08010",
    "city": "Barcelona",
    "country_code": "ES",
    "state": "B",
    "phone": "+34931234567",
    "mobile_phone": "+34666123456",
    "extra": "Ring twice",
    "vat_number": "ESX1234567X",
}
PRODUCT = {
    "type": "product",
    "reference": "SKU-1",
    "name": "Camiseta ñ €",
    "price_with_tax": 333,
    "downloadable": False,
    "perishable": False,
    "personalized": True,
    "restockable": True,
    "category": "shirts",
    "description": "A shirt",
    "manufacturer": "M",
    "supplier": "S",
    "product_id": "P-1",
    "url": "https://shop.example/p/1",
    "tracking_reference": "T1",
    "subscription_period": 12,
    "subscription_price": 500,
    "subscription_price_per_item": 250,
    "subscription_vat_rate": 2100,
}
SERVICE = {
    "type": "service",
    "reference": "SRV",
    "name": "Course",
    "quantity": 1,
    "price_with_tax": 900,
    "total_with_tax": 900,
    "downloadable": True,
    "ends_in": "P3M15D",
    "rendered": True,
    "supplier": "S",
}


def other_item(kind: str, reference: str, name: str, total: int) -> dict[str, Any]:
    """A charge or adjustment as seQura knows it: no quantity, no price."""
    return {"type": kind, "reference": reference, "name": name, "total_with_tax": total}


def test_full_body() -> None:
    """Every member that an event can have arrives under seQura's name, and nothing else does."""
    shipment = EventSpec("order.items_shipped", samples.FULL["order.items_shipped"])
    found = body(EventSpec("order.confirmed", samples.FULL["order.confirmed"]), shipment)
    shipped_cart, unshipped_cart = found.pop("shipped_cart"), found.pop("unshipped_cart")
    assert found == {
        "merchant": {"id": "camisasonline", "store_ref": "store-9"},
        "merchant_reference": {"order_ref_1": REFERENCE, "order_ref_2": "S-7", "subscription_ref_1": "SUB-1"},
        "platform": PLATFORM,
        "delivery_method": {"name": "post", "days": "2-3", "provider": "Correos", "home_delivery": True},
        "delivery_address": ADDRESS,
        "invoice_address": ADDRESS,
        "customer": samples.DETAILS["customer"],
        "trackings": [
            {
                "type": "postal",
                "reference": "T1",
                "carrier": "UPS",
                "tracking_number": "1Z",
                "tracking_url": "https://ups.example/1Z",
                "delivered_at": "2026-03-05T10:00:00Z",
            },
            {
                "type": "pickup_store",
                "reference": "T2",
                "tracking_number": "2Z",
                "delivered_at": "2026-03-05T10:00:00.123456+01:00",
                "available_at": "2026-03-04t10:00:00z",
                "store_ref": "9",
                "operator_ref": "op",
                "address_line_1": "Gran Vía 2",
                "address_line_2": "",
                "postal_code": "28001",
                "city": "Madrid",
                "state": "M",
                "country_code": "ES",
            },
        ],
    }
    for cart in (shipped_cart, unshipped_cart):
        assert (cart["currency"], cart["gift"], cart["cart_ref"]) == ("EUR", False, "cart-1")
        assert cart["order_total_with_tax"] == sum(item["total_with_tax"] for item in cart["items"])
    # Shipped are 2 of 3 shirts: 667 of 1000; charges and the registration go 667 : 1233, the coupon with the shirts, and
    # the gift card by what the coupon left: 600 : 1200.
    assert shipped_cart["items"] == [
        PRODUCT | {"quantity": 2, "total_with_tax": 667},
        other_item("handling", "ship", "Shipping", 176),
        {"type": "invoice_fee", "total_with_tax": 33},
        other_item("discount", "COUPON", "Coupon", -67),
        other_item("other_payment", "GIFT", "Gift card", -17),
        other_item("voucher", "V", "Voucher", 10),
        other_item("registration", "SKU-1-reg", "Reg. Camiseta", 7),
    ]
    assert unshipped_cart["items"] == [
        PRODUCT | {"quantity": 1, "total_with_tax": 333},
        SERVICE,
        other_item("handling", "ship", "Shipping", 324),
        {"type": "invoice_fee", "total_with_tax": 62},
        other_item("discount", "COUPON", "Coupon", -33),
        other_item("other_payment", "GIFT", "Gift card", -33),
        other_item("registration", "SKU-1-reg", "Reg. Camiseta", 13),
    ]


# --- items -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["handling", "discount", "other_payment", "voucher", "registration"])
def test_charges_and_adjustments_have_no_units(kind: str) -> None:
    """`quantity` and `price_with_tax` are forbidden on them."""
    amount = -5 if kind in ("discount", "other_payment") else 5
    found = body(confirmed(goods("A", 1, 100), other(kind, "X", amount)))
    items = found["shipped_cart"]["items"] + found["unshipped_cart"]["items"]
    assert other_item(kind, "X", "X", amount) in items


def test_invoice_fee_has_a_type_and_a_total_only() -> None:
    """seQura takes neither reference nor name of it, also when the shop gives both."""
    fee = {"type": "invoice_fee", "reference": "fee", "name": "Fee", "total_minor": 95}
    assert body(confirmed(goods("A", 1, 1), fee))["unshipped_cart"]["items"][1] == {
        "type": "invoice_fee",
        "total_with_tax": 95,
    }


def test_subscriber_fee_is_goods() -> None:
    """A subscriber fee has units and a price like other goods."""
    item = body(confirmed(goods("F", 2, 20, type="subscriber_fee")))["unshipped_cart"]["items"][0]
    assert (item["type"], item["quantity"], item["price_with_tax"]) == ("subscriber_fee", 2, 10)


def test_service_may_end_on_a_date() -> None:
    """Dates are written as seQura wants them."""
    line = goods("S", 1, 1, type="service", attributes={"ends_on": "2026-12-31"})
    assert body(confirmed(line))["unshipped_cart"]["items"][0]["ends_on"] == "2026-12-31"


def test_unit_price_is_as_given() -> None:
    """The unit price of a line is told as it was given, also when its share was rounded."""
    found = body(confirmed(goods("A", 3, 1000, unit_price_minor=333)), shipped("s1", A=2))
    item = found["shipped_cart"]["items"][0]
    assert (item["quantity"], item["price_with_tax"], item["total_with_tax"]) == (2, 333, 667)


# --- what is demanded and missing ------------------------------------------------------------------------------------


def test_missing_mandatory_texts_are_sent_empty() -> None:
    """What seQura demands inside an object and the event lacks is `""`; the object itself is left out when unknown."""
    found = body(ONE, details(customer={}, delivery_address={}, invoice_address={"city": "Vigo"}, delivery_method={}))
    mandatory = [
        "given_names",
        "surnames",
        "company",
        "address_line_1",
        "address_line_2",
        "postal_code",
        "city",
        "country_code",
    ]
    assert found["delivery_address"] == dict.fromkeys(mandatory, "")
    assert found["invoice_address"] == dict.fromkeys(mandatory, "") | {"city": "Vigo"}
    assert found["customer"] == {"given_names": "", "surnames": "", "email": ""}
    assert found["delivery_method"] == {"name": ""}
    assert found.keys().isdisjoint({"trackings", "cancellation_reason"})


def test_vehicle_needs_its_plate() -> None:
    """A vehicle without a plate is sent with an empty one."""
    assert body(ONE, details(customer={"vehicle": {}}))["customer"]["vehicle"] == {"plaque": ""}


@pytest.mark.parametrize("days", [3, "2-3 days"])
def test_days_of_delivery(days: int | str) -> None:
    """seQura's field list has a text; a shop may tell a number."""
    assert body(ONE, details(delivery_method={"days": days}))["delivery_method"] == {"name": "", "days": str(days)}


def test_removed_details_are_left_out() -> None:
    """What was removed is not sent as null."""
    full = EventSpec("order.confirmed", samples.FULL["order.confirmed"])
    found = body(full, EventSpec("order.details_changed", samples.MINIMAL["order.details_changed"]))
    assert set(found) == {"merchant", "merchant_reference", "shipped_cart", "unshipped_cart", "platform"}
    assert found["merchant"] == {"id": "camisasonline"}
    assert found["merchant_reference"] == {"order_ref_1": REFERENCE}
    assert set(found["shipped_cart"]) == {"currency", "order_total_with_tax", "items"}


@pytest.mark.parametrize("gift", [True, False])
def test_gift_is_sent_when_known(gift: bool) -> None:
    """`gift` stands in both carts, false as well as true."""
    found = body(ONE, details(gift=gift))
    assert (found["shipped_cart"]["gift"], found["unshipped_cart"]["gift"]) == (gift, gift)


# --- trackings -------------------------------------------------------------------------------------------------------


OF_A_PARCEL = "type reference carrier tracking_number tracking_url delivered_at"
OF_A_PLACE = (
    "type reference operator_ref store_ref tracking_number available_at delivered_at "
    "line_1 line_2 postal_code city state country_code"
)


@pytest.mark.parametrize(
    ("kind", "members"), [("postal", OF_A_PARCEL), ("pickup_point", OF_A_PLACE), ("pickup_store", OF_A_PLACE)]
)
def test_members_of_another_kind_of_tracking_are_left_out(kind: str, members: str) -> None:
    """A parcel has no operator, a place to pick it up no carrier (Delivery Report field list, 2026-10)."""
    entry = samples.POSTAL | samples.PICKUP | {"type": kind}
    names = {"line_1": "address_line_1", "line_2": "address_line_2"}
    found = body(ONE, shipped("s1", [entry], A=1))["trackings"]
    assert found == [{names.get(name, name): entry[name] for name in members.split()}]


def test_delivery_is_reported_with_the_tracking() -> None:
    """A delivery fills `delivered_at`."""
    parcel = {"reference": "T", "type": "postal", "carrier": "UPS"}
    found = body(ONE, shipped("s1", [parcel], A=1), delivered("s1", "2026-03-05T10:00:00Z"))
    assert found["trackings"] == [parcel | {"delivered_at": "2026-03-05T10:00:00Z"}]


# --- what configuration adds -----------------------------------------------------------------------------------------


def test_store_of_the_order_comes_before_that_of_the_account() -> None:
    """`store_ref` is forbidden for most merchants: sent only when the order or the account has one."""
    account = replace(ACCOUNT, store_ref="account-store")
    assert body(ONE, account=account)["merchant"] == {"id": "camisasonline", "store_ref": "account-store"}
    assert body(ONE, details(store_ref="7"), account=account)["merchant"]["store_ref"] == "7"


def test_platform_of_the_account() -> None:
    """The account's members replace the built-in ones; the mandatory ones are always there."""
    account = replace(ACCOUNT, platform={"name": "Shop", "plugin_version": "2"})
    assert body(ONE, account=account)["platform"] == PLATFORM | {"name": "Shop", "plugin_version": "2"}
    assert body(ONE)["platform"] == PLATFORM


# --- the cancellation reason -----------------------------------------------------------------------------------------

TABLE = {"Artikel vergriffen": "out_of_stock", "late": "too_late", "": "empty"}
REASONS: list[tuple[str | None, bool, str]] = [
    (None, False, "unspecified"),
    (None, True, "customer_cancel"),
    ("out_of_stock", False, "out_of_stock"),
    ("out_of_stock", True, "out_of_stock"),
    ("late", False, "too_late"),
    ("Artikel vergriffen", True, "out_of_stock"),
    ("The shopper, Ana, changed her mind", False, "unspecified"),
    ("The shopper, Ana, changed her mind", True, "customer_cancel"),
    ("Out_of_stock", False, "unspecified"),
    ("1_of_stock", False, "unspecified"),
    ("_x", False, "unspecified"),
    ("a", False, "a"),
    ("a" + "b" * 49, False, "a" + "b" * 49),
    ("a" + "b" * 50, False, "unspecified"),
    ("code\n", False, "unspecified"),
    ("código", False, "unspecified"),
    ("", False, "empty"),
]


@pytest.mark.parametrize(("given", "by_shopper", "code"), REASONS)
def test_cancellation_reason(given: str | None, by_shopper: bool, code: str) -> None:
    """Through the account's table; as it is when it looks like a code; else by who cancelled; else the default."""
    account = replace(ACCOUNT, cancellation_reasons=TABLE)
    found = replace(order(ONE, cancelled()), cancellation=CancellationReason(given, by_shopper))
    assert body_of(found, account)["cancellation_reason"] == code


def test_default_cancellation_reason_of_the_account() -> None:
    """The account may have a default of its own."""
    account = replace(ACCOUNT, default_cancellation_reason="fraud")
    assert body(ONE, cancelled(), account=account)["cancellation_reason"] == "fraud"
    assert body(ONE, cancelled(by="shopper"), account=account)["cancellation_reason"] == "customer_cancel"


def test_no_reason_while_something_is_left() -> None:
    """The member is absent unless a cancellation emptied both carts."""
    assert "cancellation_reason" not in body(ONE, items_cancelled("c1", "out_of_stock", A=1))
    assert body(ONE, items_cancelled("c1", "out_of_stock", A=2))["cancellation_reason"] == "out_of_stock"


# --- the digest --------------------------------------------------------------------------------------------------------


def digest(*specs: EventSpec, account: SequraAccount = ACCOUNT) -> bytes:
    """The digest that the outbox goes by."""
    found = order(*specs)
    rendered = SEQURA.render(found, account).digest
    assert rendered == SEQURA.digest(found)
    assert len(rendered) == 16
    return rendered


def test_digest_ignores_configuration() -> None:
    """Merchant, store, platform, credentials and tables of the account do not count."""
    changed = SequraAccount(
        "other",
        "sequra",
        "https://live.example",
        "m2",
        "u",
        "p",
        store_ref="9",
        platform={"name": "Shop", "version": "9"},
        send_on_confirm=True,
        cancellation_reasons={"late": "x"},
        default_cancellation_reason="y",
    )
    specs = (
        EventSpec("order.confirmed", samples.FULL["order.confirmed"]),
        EventSpec("order.items_shipped", samples.MINIMAL["order.items_shipped"]),
    )
    assert digest(*specs) == digest(*specs, account=changed)
    assert digest(ONE, cancelled()) == digest(ONE, cancelled(), account=changed)


def test_digest_ignores_the_cancellation_reason() -> None:
    """A reason alone makes nothing owed."""
    assert digest(ONE, cancelled()) == digest(ONE, cancelled(reason="late", by="shopper"))


FULL = EventSpec("order.confirmed", samples.FULL["order.confirmed"])
CHANGES: list[dict[str, Any]] = [{name: None} for name in samples.DETAILS] + [
    {"references": {"secondary": "other", "subscription": "SUB-1"}},
    {"references": {"secondary": "S-7"}},
    {"customer": samples.DETAILS["customer"] | {"nin": "1"}},
    {"delivery_address": samples.ADDRESS | {"extra": "x"}},
    {"invoice_address": samples.ADDRESS | {"line_2": ""}},
    {"delivery_method": {"name": "post", "days": 3}},
    {"gift": True},
    {"cart_ref": "cart-2"},
    {"store_ref": "store-1"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_digest_knows_every_detail(change: dict[str, Any]) -> None:
    """Whatever the shop told and seQura is told counts."""
    assert digest(FULL) != digest(FULL, details(**change))


def test_digest_knows_the_trackings() -> None:
    """A tracking number that is told later has to be sent."""
    parcel = {"reference": "T", "type": "postal", "carrier": "UPS"}
    plain = digest(ONE, shipped("s1", A=1))
    told = digest(ONE, shipped("s1", [parcel], A=1))
    assert len({plain, told, digest(ONE, shipped("s1", [parcel | {"tracking_number": "1Z"}], A=1))}) == 3


def test_digest_does_not_know_the_way() -> None:
    """Different events that end in the same carts have the same digest."""
    assert digest(ONE, shipped("s1", A=2)) == digest(ONE, shipped("s1", A=1), shipped("s2", A=1))
