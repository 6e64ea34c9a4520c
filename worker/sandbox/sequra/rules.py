"""What seQura refuses in the body of an order update: values in, error texts out. No I/O.

Sources, by tag in the comments: D = docs.sequra.com, Order Update API and the field list of the Delivery
Report (same generator, same sections), read 2026; C = code of the official clients
(`sequra/integration-core`, `sequra/magento2-core`), read 2026; ours = not documented, perhaps stricter than
seQura, because no correct sender needs it. Only the text about a cart's sum is seQura's own (D).

Not checked: what depends on a merchant's contract (`store_ref`, `nin_control`, `invoice_fee` only with the
product `i1`), and keys that no table names, which are let through. A text names keys, and as values only
amounts and currencies: nothing personal.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import msgspec

ERRORS_MAX = 50
"""Texts in one answer; ours, so that a body of a thousand bad items does not echo a thousand lines."""

UPSELL_MAX_PERCENT = 15
"""D: "an initial price increase greater than 15%" is not accepted. Status and text are ours."""

CARTS = ("unshipped_cart", "shipped_cart")

_PERIOD = re.compile(r"P(?=\d|T\d)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COUNTRY = re.compile(r"[A-Z]{2,3}")


class MalformedBodyError(ValueError):
    """The body is not strict UTF-8 JSON with an object under the key `order`."""


class Kind(NamedTuple):
    """What a member must be, as a test and in words."""

    accepts: Callable[[Any], bool]
    rule: str


class Shape(NamedTuple):
    """An object: the keys it must have, and a kind for each key that a table names."""

    mandatory: tuple[str, ...]
    kinds: dict[str, Kind]


def _is_date(value: Any) -> bool:
    # `date.fromisoformat` also takes the basic form 20260131, which the docs do not show.
    if type(value) is not str or len(value) != 10:
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_time(value: Any) -> bool:
    # RFC 3339 lets `t` and `z` be small; the orders' own contract does as well.
    if type(value) is not str or "T" not in value.upper():
        return False
    try:
        return datetime.fromisoformat(value.upper()).tzinfo is not None
    except ValueError:
        return False


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and pattern.fullmatch(value) is not None


# `type() is` rather than `isinstance`: JSON's true and false are no ints.
_STRING = Kind(lambda v: type(v) is str, "must be a string")
_REFERENCE = Kind(lambda v: type(v) is str or type(v) is int, "must be a string or an int")
_BOOL = Kind(lambda v: type(v) is bool, "must be true or false")
_INT = Kind(lambda v: type(v) is int, "must be an int in cents")
_NEGATIVE = Kind(lambda v: type(v) is int and v < 0, "must be a negative int in cents")
_POSITIVE = Kind(lambda v: type(v) is int and v > 0, "must be a positive int")
_COUNT = Kind(lambda v: type(v) is int and v >= 0, "must be an int of 0 or more")
_RATING = Kind(lambda v: type(v) is int and 0 <= v <= 100, "must be an int from 0 to 100")
_DATE = Kind(_is_date, "must be an ISO 8601 date")
_TIME = Kind(_is_time, "must be an ISO 8601 timestamp with an offset")
_PERIOD_KIND = Kind(_matches(_PERIOD), "must be an ISO 8601 period")
_CURRENCY_KIND = Kind(_matches(_CURRENCY), "must be an ISO 4217 code")
_COUNTRY_KIND = Kind(_matches(_COUNTRY), "must be an ISO 3166 alpha-2 or alpha-3 code")
_HTTPS = Kind(lambda v: type(v) is str and v.startswith("https://"), "must be an HTTPS URL")
_LIST = Kind(lambda v: type(v) is list, "must be a list")
_OBJECT = Kind(lambda v: type(v) is dict, "must be an object")
_FORBIDDEN = Kind(lambda _: False, "is not allowed here")


def _shape(mandatory: Mapping[str, Kind], optional: Mapping[str, Kind]) -> Shape:
    return Shape(tuple(mandatory), {**mandatory, **optional})


def _strings(names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), _STRING)


# D says positive, yet 0 is let through: a free month or no VAT is no reason to refuse an update.
_SUBSCRIPTION = {f"subscription_{name}": _COUNT for name in ("period", "price_per_item", "price", "vat_rate")}
_NAMED = {"reference": _REFERENCE, "name": _STRING}
_COUNTED = {"price_with_tax": _INT, "quantity": _POSITIVE, "total_with_tax": _INT}
_UNCOUNTED = {"price_with_tax": _FORBIDDEN, "quantity": _FORBIDDEN}

# D, one row per item type; `registration` is C (integration-core, WooCommerce) and has no documented row.
_ITEMS: dict[str, Shape] = {
    "product": _shape(
        {**_NAMED, **_COUNTED, "downloadable": _BOOL},
        {
            **dict.fromkeys(("perishable", "personalized", "restockable"), _BOOL),
            **_strings("category description manufacturer supplier url tracking_reference"),
            **_SUBSCRIPTION,
            "product_id": _REFERENCE,
        },
    ),
    "service": _shape(
        {**_NAMED, **_COUNTED, "downloadable": _BOOL},
        {"ends_on": _DATE, "ends_in": _PERIOD_KIND, "supplier": _STRING, "rendered": _BOOL},
    ),
    "handling": _shape({**_NAMED, "total_with_tax": _INT}, _UNCOUNTED),
    "invoice_fee": _shape({"total_with_tax": _INT}, _UNCOUNTED),
    "discount": _shape({**_NAMED, "total_with_tax": _NEGATIVE}, _UNCOUNTED),
    "other_payment": _shape({**_NAMED, "total_with_tax": _NEGATIVE}, _UNCOUNTED),
    "voucher": _shape({**_NAMED, "total_with_tax": _POSITIVE}, _UNCOUNTED),
    "subscriber_fee": _shape(
        {"name": _STRING, "total_with_tax": _INT},
        {"reference": _REFERENCE, "price_with_tax": _INT, "quantity": _POSITIVE, **_SUBSCRIPTION},
    ),
    "registration": _shape({**_NAMED, "total_with_tax": _INT}, {}),
}

# The optional members of a cart are C: integration-core sends them in every update.
_CART = _shape(
    {"currency": _CURRENCY_KIND, "order_total_with_tax": _INT, "items": _LIST},
    {"gift": _BOOL, "cart_ref": _REFERENCE, "created_at": _STRING, "updated_at": _STRING},
)
_PLACE = {
    **_strings("operator_ref store_ref tracking_number address_line_1 address_line_2 postal_code city state"),
    "available_at": _TIME,
    "delivered_at": _TIME,
    "country_code": _COUNTRY_KIND,
}
_TRACKINGS: dict[str, Shape] = {
    "pickup_store": _shape({"reference": _STRING}, _PLACE),
    "pickup_point": _shape({"reference": _STRING}, _PLACE),
    "postal": _shape(
        {"reference": _STRING, "carrier": _STRING},
        {"tracking_number": _STRING, "tracking_url": _HTTPS, "delivered_at": _TIME},
    ),
}
_ADDRESS = _shape(
    _strings("given_names surnames company address_line_1 address_line_2 postal_code city country_code"),
    _strings("phone mobile_phone state extra vat_number"),
)
_ORDER = _shape(
    {
        "merchant": _OBJECT,
        "merchant_reference": _OBJECT,
        **dict.fromkeys(CARTS, _OBJECT),
        "platform": _OBJECT,
    },
    {"cancellation_reason": _STRING, "trackings": _LIST},
)
_PARTS: dict[str, Shape] = {
    "merchant": _shape({"id": _REFERENCE}, {"store_ref": _STRING}),
    "merchant_reference": _shape(
        {"order_ref_1": _REFERENCE}, {"order_ref_2": _REFERENCE, "subscription_ref_1": _REFERENCE}
    ),
    "delivery_method": _shape({"name": _STRING}, {**_strings("days provider"), "home_delivery": _BOOL}),
    "delivery_address": _ADDRESS,
    "invoice_address": _ADDRESS,
    "customer": _shape(
        _strings("given_names surnames email"),
        {
            **_strings("title nin company vat_number nin_control"),
            "ref": _REFERENCE,
            "date_of_birth": _DATE,
            "rating": _RATING,
            "vehicle": _OBJECT,
        },
    ),
    "platform": _shape(_strings("name version uname db_name db_version"), _strings("plugin_version php_version")),
}
_VEHICLE = _shape({"plaque": _STRING}, {**_strings("brand model frame"), "first_registration_date": _DATE})


def read_order(body: bytes) -> dict[str, Any]:
    """The object under `order`. Raises `MalformedBodyError`."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBodyError("The body is not UTF-8 JSON") from None
    order = decoded.get("order") if type(decoded) is dict else None
    if type(order) is not dict:
        raise MalformedBodyError("The body has no object under the key order")
    return order


def refusals(order: dict[str, Any], merchant: str, order_ref: str) -> list[str]:
    """Why seQura would refuse this state of the order, whatever it held before; empty when it would take it.

    `merchant` and `order_ref` are the decoded segments of the URL. At most `ERRORS_MAX` texts, each beginning
    with `Invalid data: `.
    """
    # A null would also break the rule of its member: say the cause only.
    found = _nulls(order, "order") if _has_null(order) else _broken_rules(order, merchant, order_ref)
    return [f"Invalid data: {text}" for text, _ in zip(found, range(ERRORS_MAX), strict=False)]


def growth_refusal(initial_minor: int, total_minor: int) -> str | None:
    """Why both carts together are too much for an order that began with `initial_minor`, or None."""
    if total_minor * 100 <= initial_minor * (100 + UPSELL_MAX_PERCENT):
        return None
    return (
        f"Invalid data: the carts add up to {total_minor}, which is more than {UPSELL_MAX_PERCENT} % above"
        f" the initial {initial_minor}."
    )


def _has_null(order: dict[str, Any]) -> bool:
    # On every update: no paths are built here. A stack, because a body may nest deeper than Python may call.
    stack: list[Any] = [order]
    while stack:
        value = stack.pop()
        for member in value.values() if type(value) is dict else value:
            if member is None:
                return True
            if type(member) is dict or type(member) is list:
                stack.append(member)
    return False


def _nulls(value: Any, where: str) -> Iterator[str]:
    # C: the official clients drop null keys before sending.
    stack = [(value, where)]
    while stack:
        value, where = stack.pop()
        if value is None:
            yield f"{where} is null"
        elif type(value) is dict:
            stack.extend((member, f"{where}.{key}") for key, member in reversed(value.items()))
        elif type(value) is list:
            stack.extend((value[index], f"{where}[{index}]") for index in range(len(value) - 1, -1, -1))


def _broken_rules(order: dict[str, Any], merchant: str, order_ref: str) -> Iterator[str]:
    yield from _broken_members(order, _ORDER, "order")
    for key, shape in _PARTS.items():
        if key in order:
            yield from _broken_members(order[key], shape, key)
    yield from _other_names(order, merchant, order_ref)
    for name in CARTS:
        yield from _broken_cart(order.get(name), name)
    yield from _broken_pair(order)
    trackings = order.get("trackings")
    if type(trackings) is list:
        for index, tracking in enumerate(trackings):
            yield from _broken_tracking(tracking, f"trackings[{index}]")
    customer = order.get("customer")
    if type(customer) is dict and "vehicle" in customer:
        yield from _broken_members(customer["vehicle"], _VEHICLE, "customer.vehicle")


def _broken_members(value: Any, shape: Shape, where: str) -> Iterator[str]:
    if type(value) is not dict:
        if where not in _ORDER.kinds:  # those are reported as members of the order
            yield f"{where} must be an object"
        return
    for key in shape.mandatory:
        if key not in value:
            yield f"{where} lacks {key}"
    kinds = shape.kinds
    for key, member in value.items():
        kind = kinds.get(key)
        if kind is not None and not kind.accepts(member):
            yield f"{where}.{key} {kind.rule}"


def _broken_item(item: Any, where: str) -> Iterator[str]:
    if type(item) is not dict:
        yield f"{where} must be an object"
        return
    kind = item.get("type", "product")
    shape = _ITEMS.get(kind) if type(kind) is str else None
    if shape is None:
        yield f"{where}.type must be one of {', '.join(_ITEMS)}"
        return
    yield from _broken_members(item, shape, where)
    # C: integration-core's ServiceItem takes exactly one; the docs mark both as mandatory.
    if kind == "service" and ("ends_on" in item) == ("ends_in" in item):
        yield f"{where} must have exactly one of ends_on and ends_in"


def _broken_tracking(tracking: Any, where: str) -> Iterator[str]:
    if type(tracking) is not dict:
        yield f"{where} must be an object"
        return
    kind = tracking.get("type")
    shape = _TRACKINGS.get(kind) if type(kind) is str else None
    if shape is None:
        yield f"{where}.type must be one of {', '.join(_TRACKINGS)}"
    else:
        yield from _broken_members(tracking, shape, where)


def _other_names(order: dict[str, Any], merchant: str, order_ref: str) -> Iterator[str]:
    named = (("merchant", "id", merchant), ("merchant_reference", "order_ref_1", order_ref))
    for part, key, expected in named:
        holder = order.get(part)
        given = holder.get(key) if type(holder) is dict else None
        if type(given) in (str, int) and str(given) != expected:
            yield f"{part}.{key} differs from the one in the URL"


def _broken_cart(cart: Any, name: str) -> Iterator[str]:
    if type(cart) is not dict:
        return  # reported as a member of the order
    yield from _broken_members(cart, _CART, name)
    items = cart.get("items")
    if type(items) is not list:
        return
    for index, item in enumerate(items):
        yield from _broken_item(item, f"{name}.items[{index}]")
    yield from _wrong_sum(items, cart.get("order_total_with_tax"), name)


def _wrong_sum(items: list[Any], total: Any, name: str) -> Iterator[str]:
    addends: list[Any] = [item.get("total_with_tax") if type(item) is dict else None for item in items]
    if type(total) is not int or any(type(addend) is not int for addend in addends):
        return  # reported as a member of the item or the cart
    added = sum(addends)
    if added != total:
        # D, word for word; whether the difference can be negative there is not documented.
        yield (
            f"In {name}, items' total_with_tax add up to {added} ({'+'.join(map(str, addends))})"
            f" but order_total_with_tax is {total}. The diff is {total - added}."
        )
    if total < 0:
        # Ours; the Magento module refuses it before sending (C).
        yield f"{name}.order_total_with_tax must not be negative"


def _broken_pair(order: dict[str, Any]) -> Iterator[str]:
    carts = [order.get(name) for name in CARTS]
    currencies = [cart.get("currency") if type(cart) is dict else None for cart in carts]
    if None not in currencies and currencies[0] != currencies[1]:
        yield "unshipped_cart.currency and shipped_cart.currency differ"


# --- delivery reports ---------------------------------------------------------------------------------------------

_REPORT = _shape(
    {"merchant": _OBJECT, "platform": _OBJECT, "orders": _LIST}, {"broken_orders": _LIST, "statistics": _OBJECT}
)
_STATE = Kind(lambda v: type(v) is str and v in ("shipped", "delivered"), "must be shipped or delivered")
_REPORTED = _shape(
    {
        **dict.fromkeys(("merchant_reference", "cart", "remaining_cart", "delivery_method", "customer"), _OBJECT),
        "state": _STATE,
    },
    {"sent_at": _TIME, "trackings": _LIST, "delivery_address": _OBJECT, "invoice_address": _OBJECT},
)
_REPORTED_CARTS = {
    "cart": _shape(
        {"currency": _CURRENCY_KIND, "gift": _BOOL, "order_total_with_tax": _INT, "items": _LIST},
        {"cart_ref": _REFERENCE, "created_at": _STRING, "updated_at": _STRING},
    ),
    "remaining_cart": _shape({"order_total_with_tax": _INT, "items": _LIST}, {}),
}
# D: what stands in the field list of each cart.
_REPORTED_TYPES = {
    "cart": frozenset(_ITEMS) - {"registration"},
    "remaining_cart": frozenset({"product", "handling", "invoice_fee", "discount", "service"}),
}
_STATISTICS = _shape(
    {"completed_at": _TIME, "currency": _CURRENCY_KIND},
    {
        "amount": _INT,
        "merchant_reference": _OBJECT,
        **_strings("payment_method country device status raw_status"),
        "sequra_offered": _BOOL,
    },
)


def report_refusals(report: Any, merchant: str) -> list[str]:
    """Why seQura would refuse the object under `delivery_report`; empty when it would take it. As `refusals`."""
    if type(report) is not dict:
        return ["Invalid data: delivery_report must be an object"]
    found = _nulls(report, "delivery_report") if _has_null(report) else _broken_report(report, merchant)
    return [f"Invalid data: {text}" for text, _ in zip(found, range(ERRORS_MAX), strict=False)]


def _broken_report(report: dict[str, Any], merchant: str) -> Iterator[str]:
    yield from _broken_members(report, _REPORT, "delivery_report")
    for key in ("merchant", "platform"):
        yield from _broken_members(report.get(key, {}), _PARTS[key], key)
    yield from _other_names(report, merchant, "")
    for index, order in enumerate(_listed(report, "orders")):
        yield from _broken_delivery(order, f"orders[{index}]")
    for index, order in enumerate(_listed(report, "broken_orders")):
        given = order.get("merchant_reference") if type(order) is dict else None
        yield from _broken_members(given, _PARTS["merchant_reference"], f"broken_orders[{index}].merchant_reference")
    statistics = report.get("statistics")
    for index, order in enumerate(_listed(statistics if type(statistics) is dict else {}, "orders")):
        yield from _broken_members(order, _STATISTICS, f"statistics.orders[{index}]")


def _listed(holder: dict[str, Any], key: str) -> list[Any]:
    given = holder.get(key)
    return given if type(given) is list else []


def _broken_delivery(order: Any, where: str) -> Iterator[str]:
    yield from _broken_members(order, _REPORTED, where)
    if type(order) is not dict:
        return
    for key in ("merchant_reference", "delivery_method", "delivery_address", "invoice_address", "customer"):
        if key in order:
            yield from _broken_members(order[key], _PARTS[key], f"{where}.{key}")
    for key, shape in _REPORTED_CARTS.items():
        cart = order.get(key)
        yield from _broken_members(cart, shape, f"{where}.{key}")
        items = _listed(cart, "items") if type(cart) is dict else []
        for index, item in enumerate(items):
            kind = item.get("type", "product") if type(item) is dict else "product"
            if kind not in _REPORTED_TYPES[key]:
                yield f"{where}.{key}.items[{index}].type {kind} is not allowed here"
            else:
                yield from _broken_item(item, f"{where}.{key}.items[{index}]")
        yield from _wrong_sum(items, cart.get("order_total_with_tax") if type(cart) is dict else None, key)
    for index, tracking in enumerate(_listed(order, "trackings")):
        yield from _broken_tracking(tracking, f"{where}.trackings[{index}]")
