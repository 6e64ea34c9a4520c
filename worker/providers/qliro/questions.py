"""Qliro's questions as the shop gets them, and the shop's answers as Qliro accepts them.

Source: Qliro, "Callbacks" and the OpenAPI of `AvailableShippingMethod` (read 2026-11): lengths, counts, at most two
categories, on all methods or on none. Unverified: the status that declines a shipping question; we use 400 with the
same member as for a declined validation.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from worker.errors import ConfigError
from worker.model.callbacks import Answered, Ask, Reply
from worker.providers.callbacks import NotUnderstoodError, flag_of, minor_of, plain, raw_text, read_json, text_of

REASONS = (
    "OutOfStock",
    "PostalCodeIsNotSupported",
    "ShippingIsNotSupportedForPostalCode",
    "CashOnDeliveryIsNotSupportedForShippingMethod",
    "IdentityNotVerified",
    "Other",
)
"""Why an order may be declined."""
UNDELIVERABLE = "PostalCodeIsNotSupported"
"""The only permitted reason for offering no shipping methods."""
MESSAGE_MAX, LINES_MAX, METHODS_MAX, ADDRESSES_MAX, OPTIONS_MAX = 150, 200, 100, 100, 200
CATEGORIES = ("HOME_DELIVERY", "PICKUP")
_TYPES = {"Product": "product", "Discount": "discount", "Fee": "invoice_fee", "Shipping": "handling"}

_encode = msgspec.json.Encoder().encode
_ACCEPTED = Answered(Reply(200))
_UNUSABLE = Answered(None)


# --- the question ---


class _Asked(Struct):
    """The union of the three questions' members."""

    order_id: Any = field(default=None, name="OrderId")
    order_id_too: Any = field(default=None, name="OrderID")
    currency: Any = field(default=None, name="Currency")
    juridical_type: Any = field(default=None, name="JuridicalType")
    customer: dict[str, Any] | None = field(default=None, name="Customer")
    lines: list[dict[str, Raw]] | None = field(default=None, name="OrderItems")
    shipping: dict[str, Any] | None = field(default=None, name="ShippingAddress")
    billing: dict[str, Any] | None = field(default=None, name="BillingAddress")
    payment: dict[str, Any] | None = field(default=None, name="PaymentMethod")
    method: Any = field(default=None, name="SelectedShippingMethod")
    option: Any = field(default=None, name="SelectedShippingSecondaryOption")
    wants_options: Any = field(default=None, name="ProvideShippingSecondaryOptions")
    identity: dict[str, Any] | None = field(default=None, name="IdentityVerification")


_asked = msgspec.json.Decoder(_Asked)

_CUSTOMER = {
    "email": "Email",
    "phone": "MobileNumber",
    "given_names": "FirstName",
    "surnames": "LastName",
    "nin": "PersonalNumber",
    "juridical_type": "JuridicalType",
}
_ADDRESS = {
    "given_names": "FirstName",
    "surnames": "LastName",
    "company": "CompanyName",
    "care_of": "CareOf",
    "line_1": "Street",
    "line_2": "Street2",
    "postal_code": "PostalCode",
    "city": "City",
    "state": "Area",
    "country_code": "CountryCode",
}
"""Our names and Qliro's, in both directions."""


def ask(name: str, body: bytes) -> Ask:
    """A call as a question; without details if they are not understood. Raises `UnreadableError`."""
    try:
        asked = read_json(_asked, body)
        lines = None if asked.lines is None else [_line(each) for each in asked.lines[:LINES_MAX]]
    except NotUnderstoodError:
        asked, lines = _Asked(), None
    customer = _renamed(asked.customer, _CUSTOMER)
    if kind := text_of(asked.juridical_type):
        customer["juridical_type"] = kind
    identity = asked.identity or {}
    question = {
        "provider_order": text_of(asked.order_id) or text_of(asked.order_id_too),
        "currency": text_of(asked.currency),
        "customer": customer,
        "lines": lines,
        "shipping_address": _renamed(asked.shipping, _ADDRESS),
        "billing_address": _renamed(asked.billing, _ADDRESS),
        "payment": _renamed(asked.payment, {"method": "PaymentMethodName", "type": "PaymentTypeCode"}),
        "shipping_method": text_of(asked.method),
        "shipping_option": text_of(asked.option),
        "wants_options": flag_of(asked.wants_options),
        "identity": _present(
            {
                "required": flag_of(identity.get("RequireIdentityVerification")),
                "verified": flag_of(identity.get("IdentityVerified")),
            }
        ),
    }
    return Ask(name, _present(question))


def _line(given: Mapping[str, Raw]) -> dict[str, Any]:
    """Raises `NotUnderstoodError`."""
    texts = {
        name: raw_text(given.get(name, Raw(b""))) for name in ("MerchantReference", "Description", "Type", "Quantity")
    }
    prices = {name: raw_text(given.get(name, Raw(b""))) for name in ("PricePerItemIncVat", "PricePerItemExVat")}
    quantity = texts["Quantity"]
    if not (quantity.isascii() and quantity.isdigit() and len(quantity) <= 9):
        raise NotUnderstoodError
    attributes = given.get("Metadata", given.get("MetaData", Raw(b"null")))
    return _present(
        {
            "reference": texts["MerchantReference"],
            "name": texts["Description"],
            "type": _TYPES.get(texts["Type"], texts["Type"]),
            "quantity": int(quantity),
            "unit_price_minor": _signed(prices["PricePerItemIncVat"]),
            "unit_price_ex_vat_minor": _signed(prices["PricePerItemExVat"]) if prices["PricePerItemExVat"] else None,
            "attributes": plain(bytes(attributes)),
        }
    )


def _signed(text: str) -> int:
    """A discount's price is below zero."""
    return -minor_of(text) if text.startswith("-") else minor_of(text)


def _renamed(given: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any]:
    return _present({ours: text_of((given or {}).get(theirs)) for ours, theirs in names.items()})


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, "", {})}


# --- the answer ---


class _Validation(Struct):
    accept: bool = False
    decline: str = ""
    message: Any = None


class _Method(Struct):
    """A method in the shop's answer; a member of a wrong type makes the whole answer unusable."""

    reference: str
    name: str
    price_minor: Annotated[int, Meta(ge=0, le=10**12)]
    price_ex_vat_minor: Annotated[int, Meta(ge=0, le=10**12)]
    fee_reference: str = ""
    descriptions: list[str] = []
    brand: str = ""
    category: str = ""
    access_code: bool | UnsetType = UNSET
    options: list["_Option"] = []
    services: list["_Service"] = []
    delivery_date: str = ""


class _Option(Struct):
    reference: str
    name: str
    descriptions: list[str] = []
    address: str = ""
    postal_code: str = ""
    city: str = ""
    latitude: float | None = None
    longitude: float | None = None


class _Service(Struct):
    reference: str
    name: str
    price_minor: Annotated[int, Meta(ge=0, le=10**12)] | None = None
    price_ex_vat_minor: Annotated[int, Meta(ge=0, le=10**12)] | None = None
    descriptions: list[str] = []
    delivery_date: str = ""


class _Methods(Struct):
    methods: list[_Method] | None = None
    header: str = ""
    decline: str = ""


class _Addresses(Struct):
    addresses: list[dict[str, Any]]


_validation = msgspec.json.Decoder(_Validation)
_methods = msgspec.json.Decoder(_Methods)
_addresses = msgspec.json.Decoder(_Addresses)


def answer(name: str, body: bytes) -> Answered:
    """The response to Qliro for the shop's answer."""
    try:
        return _ANSWERS[name](body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNUSABLE


def _of_validation(body: bytes) -> Answered:
    found = _validation.decode(body)
    if found.accept == bool(found.decline) or (found.decline and found.decline not in REASONS):
        return _UNUSABLE
    return _ACCEPTED if found.accept else _declined(found.decline, text_of(found.message))


def _declined(reason: str, message: str = "") -> Answered:
    said = {"DeclineReason": reason}
    left_out: tuple[str, ...] = ()
    if len(message) > MESSAGE_MAX:
        left_out = ("message",)
    elif message:
        said["DeclineReasonMessage"] = message
    return Answered(Reply(400, _encode(said)), left_out)


def _of_methods(body: bytes) -> Answered:
    found = _methods.decode(body)
    if (found.methods is None) != bool(found.decline) or found.decline not in ("", UNDELIVERABLE):
        return _UNUSABLE
    return _declined(UNDELIVERABLE) if found.methods is None else _offered(found.methods, found.header)


def _offered(methods: list[_Method], header: str) -> Answered:
    """Leaves out parts that exceed a limit: the whole method if the part is required, otherwise the member."""
    bounds = _Bounds()
    kept = [
        method
        for method in methods
        if bounds.fits("methods", method.reference, 450) and bounds.fits("methods", method.name, 100)
    ]
    kept = bounds.first("methods", kept, METHODS_MAX)
    if not kept:
        return _UNUSABLE
    categories = [method.category if method.category in CATEGORIES else "" for method in kept]
    if any(method.category for method in kept) and not all(categories):
        bounds.left_out.add("category")
        categories = [""] * len(kept)
    given = {
        "AvailableShippingMethods": [
            _method(method, category, bounds) for method, category in zip(kept, categories, strict=True)
        ],
        "ShippingAdditionalHeader": header,
    }
    return Answered(Reply(200, _encode(_present(given))), tuple(sorted(bounds.left_out)))


class _Bounds:
    """Qliro's limits, and the parts that exceeded them."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()

    def fits(self, member: str, text: str, max_length: int) -> bool:
        """Whether a required text is present and not too long."""
        if 0 < len(text) <= max_length:
            return True
        self.left_out.add(member)
        return False

    def text(self, member: str, text: str, max_length: int) -> str:
        """The text, or an empty one if it is too long."""
        return text if not text or self.fits(member, text, max_length) else ""

    def texts(self, texts: list[str]) -> list[str]:
        """Descriptions: at most 3 of at most 200 characters."""
        return self.first("descriptions", [text for text in texts if self.fits("descriptions", text, 200)], 3)

    def first(self, member: str, found: list[Any], count_max: int) -> list[Any]:
        """The first ones, up to the limit."""
        if len(found) > count_max:
            self.left_out.add(member)
        return found[:count_max]


def _method(method: _Method, category: str, bounds: _Bounds) -> dict[str, Any]:
    options = [
        o for o in method.options if bounds.fits("options", o.reference, 450) and bounds.fits("options", o.name, 100)
    ]
    services = [
        s for s in method.services if bounds.fits("services", s.reference, 450) and bounds.fits("services", s.name, 100)
    ]
    return _filled(
        {
            "MerchantReference": method.reference,
            "DisplayName": method.name,
            "ShippingFeeMerchantReference": bounds.text("fee_reference", method.fee_reference, 450),
            "Descriptions": bounds.texts(method.descriptions),
            "Brand": bounds.text("brand", method.brand, 50),
            "CategoryDisplayName": category,
            "PriceIncVat": _decimal(method.price_minor),
            "PriceExVat": _decimal(method.price_ex_vat_minor),
            "SupportsAccessCode": None if method.access_code is UNSET else method.access_code,
            "SecondaryOptions": [_option(o, bounds) for o in bounds.first("options", options, OPTIONS_MAX)],
            "AdditionalShippingServices": [
                _service(s, bounds) for s in bounds.first("services", services, OPTIONS_MAX)
            ],
            "DeliveryDate": bounds.text("delivery_date", method.delivery_date, 40),
        }
    )


def _option(option: _Option, bounds: _Bounds) -> dict[str, Any]:
    place = None
    if option.latitude is not None and option.longitude is not None:
        place = {"Lat": option.latitude, "Lng": option.longitude}
    return _filled(
        {
            "MerchantReference": option.reference,
            "DisplayName": option.name,
            "Descriptions": bounds.texts(option.descriptions),
            "Address": bounds.text("options", option.address, 200),
            "PostalCode": bounds.text("options", option.postal_code, 20),
            "City": bounds.text("options", option.city, 100),
            "Coordinates": place,
        }
    )


def _service(service: _Service, bounds: _Bounds) -> dict[str, Any]:
    return _filled(
        {
            "MerchantReference": service.reference,
            "DisplayName": service.name,
            "Descriptions": bounds.texts(service.descriptions),
            "PriceIncVat": None if service.price_minor is None else _decimal(service.price_minor),
            "PriceExVat": None if service.price_ex_vat_minor is None else _decimal(service.price_ex_vat_minor),
            "DeliveryDate": bounds.text("services", service.delivery_date, 40),
        }
    )


def _filled(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None and value not in ("", [])}


def _decimal(minor: int) -> Raw:
    """A JSON number with two decimals, from an integer."""
    return Raw(f"{minor // 100}.{minor % 100:02d}".encode())


def _of_addresses(body: bytes) -> Answered:
    bounds = _Bounds()
    given = [
        _their_address(each) for each in bounds.first("addresses", _addresses.decode(body).addresses, ADDRESSES_MAX)
    ]
    return Answered(Reply(200, _encode({"AvailableShippingAddresses": given})), tuple(bounds.left_out))


def _their_address(given: Mapping[str, Any]) -> dict[str, str]:
    return {theirs: text_of(given.get(ours)) for ours, theirs in _ADDRESS.items() if ours != "country_code"}


_ANSWERS: Mapping[str, Callable[[bytes], Answered]] = {
    "validation": _of_validation,
    "shipping_methods": _of_methods,
    "shipping_addresses": _of_addresses,
}


# --- the default if the shop does not answer ---


def default(name: str, choice: str, read_file: Callable[[str], bytes]) -> Answered:
    """The configured default. Raises `ConfigError`."""
    if name == "validation":
        return _ACCEPTED if choice == "accept" else _one_of(choice, ("accept", *REASONS), _declined)
    if name == "shipping_addresses":
        return _one_of(choice, ("empty",), lambda _: Answered(Reply(200, b'{"AvailableShippingAddresses":[]}')))
    if choice == "declined":
        return _declined(UNDELIVERABLE)
    found = answer(name, read_file(choice))
    if found.reply is None or found.left_out:
        wrong = f"; too long or too many: {', '.join(found.left_out)}" if found.left_out else ""
        raise ConfigError(
            f'should be "declined", or name a file with {{"methods": [{{"reference", "name", "price_minor", '
            f'"price_ex_vat_minor", …}}]}}{wrong}'
        )
    return found


def _one_of(choice: str, choices: Iterable[str], make: Callable[[str], Answered]) -> Answered:
    known = tuple(choices)
    if choice not in known:
        raise ConfigError(f"should be one of {', '.join(known)}")
    return make(choice)
