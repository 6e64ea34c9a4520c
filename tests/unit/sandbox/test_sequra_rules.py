"""What the sandbox refuses in the body of an order update: each rule of the provider, one broken at a time."""

from typing import Any

import msgspec
import pytest

from worker.sandbox.sequra.rules import (
    ERRORS_MAX,
    MalformedBodyError,
    growth_refusal,
    read_order,
    refusals,
)

Order = dict[str, Any]

ADDRESS_KEYS = (
    *("given_names", "surnames", "company", "address_line_1", "address_line_2"),
    *("postal_code", "city", "country_code"),
)
PLACE_KEYS = (
    *("operator_ref", "store_ref", "tracking_number", "address_line_1", "address_line_2"),
    *("postal_code", "city", "state"),
)
CUSTOMER_KEYS = ("given_names", "surnames", "email", "title", "nin", "company", "vat_number", "nin_control")
PLATFORM_KEYS = ("name", "version", "uname", "db_name", "db_version")

PRODUCT = {
    "reference": "shirt1234",
    "name": "shirt",
    "price_with_tax": 1250,
    "quantity": 1,
    "total_with_tax": 1250,
    "downloadable": False,
}
SERVICE = PRODUCT | {"type": "service", "ends_in": "P3M15D"}
SUBSCRIBER_FEE = {"type": "subscriber_fee", "name": "Fee", "total_with_tax": 100}
UNCOUNTED = {
    "handling": {"type": "handling", "reference": "seur24", "name": "SEUR", "total_with_tax": 242},
    "invoice_fee": {"type": "invoice_fee", "total_with_tax": 295},
    "discount": {"type": "discount", "reference": "HALFOFF", "name": "50 % off", "total_with_tax": -750},
    "other_payment": {"type": "other_payment", "reference": "gift", "name": "Gift", "total_with_tax": -750},
    "voucher": {"type": "voucher", "reference": "v1", "name": "Voucher", "total_with_tax": 1000},
}
REGISTRATION = {"type": "registration", "reference": "x-reg", "name": "Reg. x", "total_with_tax": 1000}


def shallow_copy(value: Any) -> Any:
    """Return an equal value in which nothing stands twice."""
    return msgspec.json.decode(msgspec.json.encode(value))


def step_down(order: Order, path: str) -> Any:
    """Return the member at a path such as `shipped_cart.items[0]`."""
    holder: Any = order
    for step in path.replace("[", ".").replace("]", "").split("."):
        holder = holder[int(step) if step.isdigit() else step]
    return holder


def cart(*items: Any) -> Order:
    """Return a cart in euros whose total is right."""
    total = sum(item["total_with_tax"] for item in items)
    return {"currency": "EUR", "order_total_with_tax": total, "items": shallow_copy(items)}


def minimal(*shipped: Any) -> Order:
    """Return an order with mandatory members only."""
    return {
        "merchant": {"id": "acme"},
        "merchant_reference": {"order_ref_1": "1001"},
        "shipped_cart": cart(*shipped),
        "unshipped_cart": cart(),
        "platform": dict.fromkeys(PLATFORM_KEYS, "x"),
    }


def full() -> Order:
    """Return an order with every documented member, none of it shared with another."""
    order: Order = shallow_copy(_full())
    return order


def _full() -> Order:
    address = dict.fromkeys((*ADDRESS_KEYS, "phone", "mobile_phone", "state", "extra", "vat_number"), "Carrer Gran 7")
    place = {
        **dict.fromkeys(PLACE_KEYS, "x"),
        "available_at": "2014-02-05T13:21:22+01:00",
        "delivered_at": "2014-02-05t19:21:22.25z",
        "country_code": "ES",
    }
    product = PRODUCT | {
        "type": "product",
        "reference": 12,
        "perishable": False,
        "personalized": True,
        "restockable": True,
        "category": "ipod",
        "description": "Este estuche de cuero",
        "manufacturer": "Apple",
        "supplier": "Makro",
        "product_id": 6,
        "url": "http://shop.example.com/case",
        "tracking_reference": "first",
        "subscription_period": 24,
        "subscription_price_per_item": 500,
        "subscription_price": 1000,
        "subscription_vat_rate": 2100,
    }
    service = SERVICE | {"supplier": "Acme", "rendered": False}
    until = {key: value for key, value in service.items() if key != "ends_in"} | {"ends_on": "2017-06-30"}
    fee = SUBSCRIBER_FEE | {
        "reference": "fee",
        "price_with_tax": 50,
        "quantity": 2,
        "subscription_period": 1,
        "subscription_vat_rate": 0,
    }
    return {
        "merchant": {"id": "acme", "store_ref": "gran-via-12"},
        "merchant_reference": {"order_ref_1": "1001", "order_ref_2": 9001, "subscription_ref_1": "sub-77"},
        "shipped_cart": cart(product, service, until, fee, *UNCOUNTED.values(), REGISTRATION)
        | {"gift": True, "cart_ref": "basket-5", "created_at": "2026-01-01", "updated_at": "2026-01-02"},
        "unshipped_cart": cart(PRODUCT),
        "cancellation_reason": "out_of_stock",
        "trackings": [
            {"type": "pickup_store", "reference": "first", **place},
            {"type": "pickup_point", "reference": "second", **place, "country_code": "ESP"},
            {
                "type": "postal",
                "reference": "third",
                "carrier": "SEUR",
                "tracking_number": "TX123",
                "tracking_url": "https://logistics.example/TX123",
                "delivered_at": "2014-02-05T19:21:22+01:00",
            },
        ],
        "delivery_method": {"name": "SEUR24", "days": "2-4", "provider": "Correos", "home_delivery": True},
        "delivery_address": address,
        "invoice_address": address,
        "customer": {
            **dict.fromkeys(CUSTOMER_KEYS, "x"),
            "ref": 123,
            "date_of_birth": "1980-01-20",
            "rating": 100,
            "vehicle": {
                **dict.fromkeys(("plaque", "brand", "model", "frame"), "x"),
                "first_registration_date": "2019-04-02",
            },
            "ip_number": "192.0.2.1",  # of the checkout; integration-core sends it again
        },
        "platform": dict.fromkeys((*PLATFORM_KEYS, "plugin_version", "php_version"), "1.0.2"),
    }


def check(order: Order) -> list[str]:
    """Return what is wrong with an order at the URL of acme/1001, without the prefix that all texts have."""
    texts = refusals(order, "acme", "1001")
    assert all(text.startswith("Invalid data: ") for text in texts)
    return [text.removeprefix("Invalid data: ") for text in texts]


def test_every_documented_member() -> None:
    """An order with every documented member of every section is taken."""
    assert check(full()) == []


def test_minimal_body() -> None:
    """Merchant, reference, two empty carts and platform are enough."""
    assert check(minimal()) == []


def test_numbers_as_references() -> None:
    """Merchant id and order reference may be ints, and are compared with the URL as text."""
    order = minimal()
    order["merchant"]["id"] = 7
    order["merchant_reference"]["order_ref_1"] = 1001
    assert refusals(order, "7", "1001") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"order": {},}',
        b'\xef\xbb\xbf{"order": {}}',
        '{"order": {"name": "ñ"}}'.encode("latin-1"),
        b"[" * 100_000,
        b'{"order": {"a": NaN}}',
    ],
)
def test_body_is_not_json(body: bytes) -> None:
    """What is not strict UTF-8 JSON is malformed: trailing commas, a byte order mark, Latin-1, depth without end."""
    with pytest.raises(MalformedBodyError, match="not UTF-8 JSON"):
        read_order(body)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"1", b"null", b'{"order": []}', b'{"Order": {}}'])
def test_body_without_order(body: bytes) -> None:
    """The top-level key is the name of the resource."""
    with pytest.raises(MalformedBodyError, match="key order"):
        read_order(body)


def test_body_with_order() -> None:
    """The object under the top-level key is what is judged."""
    assert check(read_order(msgspec.json.encode({"order": minimal()}))) == []


def test_documented_sum() -> None:
    """The text of the docs' example comes back word for word."""
    items = [
        UNCOUNTED["handling"] | {"total_with_tax": 200},
        UNCOUNTED["invoice_fee"],
        UNCOUNTED["discount"] | {"total_with_tax": -1500},
        PRODUCT | {"total_with_tax": 6060},
    ]
    order = minimal()
    order["shipped_cart"] = {"currency": "EUR", "order_total_with_tax": 5097, "items": items}
    text = (
        "Invalid data: In shipped_cart, items' total_with_tax add up to 5055 (200+295+-1500+6060)"
        " but order_total_with_tax is 5097. The diff is 42."
    )
    assert refusals(order, "acme", "1001") == [text]


def test_each_cart_has_its_sum() -> None:
    """A cent too much in one cart is not made good by a cent too little in the other."""
    order = minimal(PRODUCT)
    order["unshipped_cart"] = cart(PRODUCT)
    order["shipped_cart"]["order_total_with_tax"] += 1
    order["unshipped_cart"]["order_total_with_tax"] -= 1
    assert [text.split(",")[0] for text in check(order)] == ["In unshipped_cart", "In shipped_cart"]


def test_line_total_need_not_match() -> None:
    """Quantity times price may differ from the total of the line: the docs allow rounding."""
    line = PRODUCT | {"quantity": 3, "price_with_tax": 333, "total_with_tax": 1000}
    assert check(minimal(line)) == []


def test_negative_cart() -> None:
    """A cart below 0 is refused."""
    assert check(minimal(UNCOUNTED["discount"])) == ["shipped_cart.order_total_with_tax must not be negative"]


def test_currencies_differ() -> None:
    """Both carts are in one currency."""
    order = minimal()
    order["unshipped_cart"]["currency"] = "USD"
    assert check(order) == ["unshipped_cart.currency and shipped_cart.currency differ"]


@pytest.mark.parametrize("where", ["shipped_cart", "shipped_cart.items[0]", "customer.vehicle", "trackings[2]"])
def test_null(where: str) -> None:
    """A null is refused wherever it stands, and is the only thing said."""
    order = full()
    step_down(order, where)["reference"] = None
    assert check(order) == [f"order.{where}.reference is null"]


def test_null_far_down() -> None:
    """A null is found in a body that nests deeper than functions may call each other."""
    deep: list[Any] = [None]
    for _ in range(5_000):
        deep = [deep]
    texts = refusals(minimal() | {"extra": deep}, "acme", "1001")
    assert len(texts) == 1
    assert texts[0].endswith("[0] is null")


@pytest.mark.parametrize(("part", "key"), [("merchant", "id"), ("merchant_reference", "order_ref_1")])
def test_differs_from_url(part: str, key: str) -> None:
    """Merchant and reference of the body are those of the URL."""
    order = minimal()
    order[part][key] = "other"
    assert check(order) == [f"{part}.{key} differs from the one in the URL"]


@pytest.mark.parametrize("key", ["merchant", "merchant_reference", "unshipped_cart", "shipped_cart", "platform"])
def test_mandatory_part(key: str) -> None:
    """The five mandatory members of the order must be there, and be objects."""
    order = minimal()
    del order[key]
    assert check(order) == [f"order lacks {key}"]
    order[key] = "x"
    assert check(order) == [f"order.{key} must be an object"]


MANDATORY = [
    ("merchant", ["id"]),
    ("merchant_reference", ["order_ref_1"]),
    ("shipped_cart", ["currency", "order_total_with_tax", "items"]),
    ("unshipped_cart", ["currency", "order_total_with_tax", "items"]),
    ("delivery_method", ["name"]),
    ("delivery_address", ADDRESS_KEYS),
    ("invoice_address", ADDRESS_KEYS),
    ("customer", ["given_names", "surnames", "email"]),
    ("customer.vehicle", ["plaque"]),
    ("platform", PLATFORM_KEYS),
    ("trackings[0]", ["reference"]),
    ("trackings[1]", ["reference"]),
    ("trackings[2]", ["reference", "carrier"]),
    ("shipped_cart.items[0]", list(PRODUCT)),
    ("shipped_cart.items[1]", list(PRODUCT)),
    ("shipped_cart.items[3]", ["name", "total_with_tax"]),
    ("shipped_cart.items[4]", ["reference", "name", "total_with_tax"]),
    ("shipped_cart.items[5]", ["total_with_tax"]),
    ("shipped_cart.items[6]", ["reference", "name", "total_with_tax"]),
    ("shipped_cart.items[7]", ["reference", "name", "total_with_tax"]),
    ("shipped_cart.items[8]", ["reference", "name", "total_with_tax"]),
    ("shipped_cart.items[9]", ["reference", "name", "total_with_tax"]),
]


@pytest.mark.parametrize(("where", "key"), [(where, key) for where, keys in MANDATORY for key in keys])
def test_mandatory_member(where: str, key: str) -> None:
    """Every member that a table calls mandatory must be there."""
    order = full()
    del step_down(order, where)[key]
    assert check(order) == [f"{where} lacks {key}"]


@pytest.mark.parametrize("key", ["quantity", "price_with_tax"])
@pytest.mark.parametrize("kind", list(UNCOUNTED))
def test_forbidden_key(kind: str, key: str) -> None:
    """Charges, adjustments and vouchers have neither a quantity nor a price."""
    order = minimal(PRODUCT, UNCOUNTED[kind] | {key: 1})
    assert check(order) == [f"shipped_cart.items[1].{key} is not allowed here"]


@pytest.mark.parametrize(
    ("kind", "total", "rule"),
    [
        ("discount", 0, "must be a negative int in cents"),
        ("discount", 100, "must be a negative int in cents"),
        ("other_payment", 100, "must be a negative int in cents"),
        ("voucher", -100, "must be a positive int"),
    ],
)
def test_sign(kind: str, total: int, rule: str) -> None:
    """Discounts and other payments lower the cart, a voucher raises it."""
    order = minimal(PRODUCT, UNCOUNTED[kind] | {"total_with_tax": total})
    assert check(order) == [f"shipped_cart.items[1].total_with_tax {rule}"]


@pytest.mark.parametrize("item", [PRODUCT, SERVICE, SUBSCRIBER_FEE])
@pytest.mark.parametrize("quantity", [0, -1, 1.5, "1", True])
def test_quantity(item: Order, quantity: Any) -> None:
    """A quantity is a positive int."""
    order = minimal(item | {"quantity": quantity})
    assert check(order) == ["shipped_cart.items[0].quantity must be a positive int"]


@pytest.mark.parametrize("total", [12.5, "1250", True])
def test_amount_is_int(total: Any) -> None:
    """Amounts are ints; one that is not is reported once and not summed."""
    order = minimal(PRODUCT)
    order["shipped_cart"]["items"][0] = PRODUCT | {"total_with_tax": total}
    assert check(order) == ["shipped_cart.items[0].total_with_tax must be an int in cents"]


@pytest.mark.parametrize("ends", [{}, {"ends_on": "2017-06-30", "ends_in": "P3M"}])
def test_service_ends_once(ends: Order) -> None:
    """A service ends on a date or after a period: one of them."""
    service = {key: value for key, value in SERVICE.items() if key != "ends_in"} | ends
    assert check(minimal(service)) == ["shipped_cart.items[0] must have exactly one of ends_on and ends_in"]


@pytest.mark.parametrize("period", ["P", "PT", "3M", "P3M15", "P3M\n", 3, ""])
def test_period(period: Any) -> None:
    """A period is one of ISO 8601."""
    order = minimal(SERVICE | {"ends_in": period})
    assert check(order) == ["shipped_cart.items[0].ends_in must be an ISO 8601 period"]


@pytest.mark.parametrize("day", ["2017-6-30", "20170630", "2017-02-30", 2017])
def test_date(day: Any) -> None:
    """A date is one of the calendar, with hyphens."""
    order = minimal()
    order["customer"] = {"given_names": "", "surnames": "", "email": "", "date_of_birth": day}
    assert check(order) == ["customer.date_of_birth must be an ISO 8601 date"]


@pytest.mark.parametrize("kind", ["gift_card", "", 1, ["product"]])
def test_unknown_item_type(kind: Any) -> None:
    """An item is of a type that a table names."""
    (text,) = check(minimal(PRODUCT | {"type": kind}))
    assert text.startswith("shipped_cart.items[0].type must be one of product, service, handling")


def test_unknown_tracking_type() -> None:
    """A tracking is of one of three types, and says which."""
    order = minimal() | {"trackings": [{"type": "pigeon", "reference": "r"}, {"reference": "r"}]}
    rule = "type must be one of pickup_store, pickup_point, postal"
    assert check(order) == [f"trackings[0].{rule}", f"trackings[1].{rule}"]


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("trackings", {}, "order.trackings must be a list"),
        ("trackings.0", "x", "trackings[0] must be an object"),
        ("trackings.0.available_at", "2014-02-05T13:21:22", "ISO 8601 timestamp with an offset"),
        ("trackings.0.delivered_at", "yesterday, at T", "ISO 8601 timestamp with an offset"),
        ("trackings.0.delivered_at", 1391602882, "ISO 8601 timestamp with an offset"),
        ("trackings.0.country_code", "Spain", "ISO 3166 alpha-2 or alpha-3 code"),
        ("trackings.2.tracking_url", "http://logistics.example/TX", "trackings[2].tracking_url must be an HTTPS"),
        ("shipped_cart.items", {}, "shipped_cart.items must be a list"),
        ("shipped_cart.items.0", "x", "shipped_cart.items[0] must be an object"),
        ("shipped_cart.currency", "eur", "shipped_cart.currency must be an ISO 4217 code"),
        ("shipped_cart.gift", 1, "shipped_cart.gift must be true or false"),
        ("shipped_cart.items.0.downloadable", "no", "items[0].downloadable must be true or false"),
        ("shipped_cart.items.0.reference", 1.5, "items[0].reference must be a string or an int"),
        ("shipped_cart.items.0.reference", True, "items[0].reference must be a string or an int"),
        ("shipped_cart.items.0.subscription_price", -1, "subscription_price must be an int of 0 or more"),
        ("delivery_address", "Carrer Gran 7", "delivery_address must be an object"),
        ("delivery_address.city", 8, "delivery_address.city must be a string"),
        ("delivery_method.home_delivery", "yes", "delivery_method.home_delivery must be true or false"),
        ("customer.rating", 101, "customer.rating must be an int from 0 to 100"),
        ("customer.vehicle", "car", "customer.vehicle must be an object"),
        ("customer.ref", [], "customer.ref must be a string or an int"),
        ("merchant.id", {}, "merchant.id must be a string or an int"),
        ("platform.php_version", 8.3, "platform.php_version must be a string"),
        ("cancellation_reason", 1, "order.cancellation_reason must be a string"),
    ],
)
def test_kind_of_member(path: str, value: Any, text: str) -> None:
    """A member that is there must be of its kind, also when it is optional."""
    order = full()
    where, dot, last = path.rpartition(".")
    holder: Any = step_down(order, where) if dot else order
    holder[int(last) if last.isdigit() else last] = value
    assert any(text in found for found in check(order)), check(order)


def test_bounded() -> None:
    """However much is wrong, the answer has a bounded number of texts."""
    items = [PRODUCT | {"quantity": 0}] * (ERRORS_MAX + 10)
    assert len(check(minimal(*items))) == ERRORS_MAX


def test_nothing_personal() -> None:
    """A text names the member, not what stood in it."""
    order = full()
    order["customer"]["date_of_birth"] = "born in Girona"
    assert "Girona" not in "".join(check(order))


def test_growth() -> None:
    """Fifteen per cent more is taken; one cent above is not, and the text has the numbers."""
    assert growth_refusal(10_000, 11_500) is None
    assert growth_refusal(10_000, 5_000) is None
    assert growth_refusal(10_000, 11_501) == (
        "Invalid data: the carts add up to 11501, which is more than 15 % above the initial 10000."
    )
