"""What Qliro asks a shop before an order is placed, and whether it could use the answer. Pure.

Source: developers.qliro.com, "Callbacks" (read 2026-11): bodies as its samples have them, the reasons for declining,
and the bounds of `AvailableShippingMethod` in its OpenAPI. An answer is wanted within 5 s.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from worker.sandbox.qliro.orders import Item, Json, Order

Name = Literal["validation", "shipping_methods", "shipping_addresses"]
DEADLINE_S = 5.0
REASONS = frozenset(
    {
        "OutOfStock",
        "PostalCodeIsNotSupported",
        "ShippingIsNotSupportedForPostalCode",
        "CashOnDeliveryIsNotSupportedForShippingMethod",
        "IdentityNotVerified",
        "Other",
    }
)
_CUSTOMER = {"Email": "email@domain.com", "MobileNumber": "0701234567"}
_ADDRESS = {"FirstName": "First", "LastName": "Last", "Street": "Street", "PostalCode": "12345", "City": "City"}
_METHOD_LENGTHS = {"MerchantReference": 450, "DisplayName": 100}


def question(name: Name, order: Order, said: Json) -> Json:
    """The body of a question about an order; `said` replaces members such as `ShippingAddress`."""
    asked: Json = {"OrderId": order.id, "MerchantReference": order.reference, "Customer": _CUSTOMER}
    if name == "shipping_addresses":
        return asked | said
    lines = [_line(item) for held in order.reserved.values() for item in held.values() if item.quantity]
    asked |= {"OrderItems": lines, "ShippingAddress": _ADDRESS, "SelectedShippingMethod": None}
    if name == "shipping_methods":
        return asked | {"JuridicalType": "Physical", "ProvideShippingSecondaryOptions": False} | said
    asked |= {
        "Currency": order.currency,
        "PaymentMethod": {"PaymentMethodName": order.method, "PaymentTypeCode": None},
        "SelectedShippingSecondaryOption": None,
        "IdentityVerification": {"RequireIdentityVerification": False, "IdentityVerified": None},
    }
    return asked | said


def _line(item: Item) -> Json:
    return {
        "MerchantReference": item.reference,
        "Description": item.description,
        "Type": item.type,
        "Quantity": item.quantity,
        "PricePerItemIncVat": Decimal(item.inc).scaleb(-2),
        "PricePerItemExVat": Decimal(item.ex).scaleb(-2),
    }


def problem(name: Name, status: int, body: bytes) -> str:
    """Why Qliro could not use an answer; empty: it could."""
    if name == "validation" and status == 200:
        return ""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "the answer is no JSON object"
    if status in (200, 400) and "DeclineReason" in found and name != "shipping_addresses":
        wanted = REASONS if name == "validation" else {"PostalCodeIsNotSupported"}
        if found["DeclineReason"] not in wanted:
            return f"DeclineReason {found['DeclineReason']} is none of {', '.join(sorted(wanted))}"
        return "" if len(str(found.get("DeclineReasonMessage", ""))) <= 150 else "DeclineReasonMessage is too long"
    if status != 200:
        return f"answered {status} without a DeclineReason"
    return _LISTS[name](found)


def _methods(found: Json) -> str:
    methods = found.get("AvailableShippingMethods")
    if not isinstance(methods, list) or not methods:
        return "AvailableShippingMethods lists none"
    for method in methods:
        for member, length in _METHOD_LENGTHS.items():
            if not 0 < len(str(method.get(member, ""))) <= length:
                return f"{member} of a method must have 1 to {length} characters"
        for member in ("PriceIncVat", "PriceExVat"):
            if not isinstance(method.get(member), int | float):
                return f"{member} of a method must be a number"
    return ""


def _addresses(found: Json) -> str:
    is_list = isinstance(found.get("AvailableShippingAddresses"), list)
    return "" if is_list else "AvailableShippingAddresses must be a list"


_LISTS: Mapping[str, Callable[[Json], str]] = {"shipping_methods": _methods, "shipping_addresses": _addresses}
