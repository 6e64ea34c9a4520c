"""Qliro's JSON and its tables, in Qliro's own words.

Source of every name and rule: Qliro's OpenAPI of the Admin API v2 (snapshot of June 2025) and developers.qliro.com,
and the public integrations where these are silent; read 2026-10. Responses have more, including the shopper's data:
it is not decoded, so it cannot leak.
"""

import re
from base64 import b64encode
from decimal import Decimal
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

ORDER_REFERENCE = re.compile(r"(?![0-9]+\Z)[A-Za-z0-9_-]{1,25}")
"""References that an order can be read by: one of digits alone would be treated as an OrderId."""
CHECKOUT_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,25}")
"""References that a checkout can send to Qliro."""
LINES_MAX = 200
_SIGNS = frozenset("(.)'-_&,/\N{EN DASH}+0123456789:")
DESCRIPTION_MAX = 4_000

TYPES = ("Product", "Discount", "Fee", "Shipping")
ACTIONS = ("Create", "Reserve", "Ship", "Return", "Release")
KINDS = (*("Preauthorization", "Debit", "Credit", "Capture", "Reversal", "Refund", "UpdateInvoice", "Registration"),)
STATUSES = ("Created", "InProcess", "UserInteractionRequired", "OnHold", "Success", "Error", "Cancelled")
FINAL = frozenset({"Success", "Error", "Cancelled"})
RESERVES = frozenset({"Preauthorization", "Debit"})
RELEASED = "referencing transaction does not match"
"""In the text of a cancellation's error: the bank had already released the money (developers.qliro.com)."""
OWN_METHODS = "QLIRO"
"""The prefix of the names of Qliro's own payment methods."""


def is_item_reference(text: str) -> bool:
    """Whether an item can have this reference: `^[\\p{L}\\s(.)'\\-_&,\\/\\u2013+0-9:]{1,200}$`."""
    return 0 < len(text) <= 200 and all(each.isalpha() or each.isspace() or each in _SIGNS for each in text)


Word = int | str
"""Declared as numbers, sent as texts: both occur."""


def word(value: Word, words: tuple[str, ...]) -> str:
    """The name of an enumeration's value; an unknown value is unchanged."""
    return words[value] if isinstance(value, int) and 0 <= value < len(words) else str(value)


Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Of an order or a transaction; what is kept of them has 64 bits."""
Count = Annotated[int, Meta(gt=-(2**31), lt=2**31)]
"""Of units."""


class Action(Struct, rename="pascal", frozen=True, gc=False):
    """What happened to an item."""

    action_type: Word
    payment_transaction_id: Id | None = None
    merchant_reference: str = ""
    type: Word = "Product"
    quantity: Count = 0
    price_per_item_inc_vat: Decimal = Decimal(0)
    price_per_item_ex_vat: Decimal | None = None
    description: str | None = None


class Transaction(Struct, rename="pascal", frozen=True, gc=False):
    """A movement of money, or of what is reserved."""

    payment_transaction_id: Id
    type: Word
    status: Word
    amount: Decimal = Decimal(0)
    original_payment_transaction_id: Id | str | None = None
    timestamp: str | None = None
    payment_method_name: str | None = None
    provider_result_description: str | None = None
    error_code: str | None = None
    error_code_description: str | None = None


class Order(Struct, rename="pascal", frozen=True, gc=False):
    """`GetOrder`, without everything about the shopper."""

    order_id: Id
    merchant_reference: str
    currency: str
    order_item_actions: list[Action]
    payment_transactions: list[Transaction]


class Accepted(Struct, rename="pascal", frozen=True, gc=False):
    """The response to a command, in the form of the OpenAPI and in the older forms of UpdateItems."""

    payment_transactions: list[msgspec.Raw] | None = None
    payment_transaction_id: Id | None = None
    reversal_payment_transaction_id: Id | None = None


class AcceptedTransaction(Struct, rename="pascal", frozen=True, gc=False):
    """One of its transactions."""

    payment_transaction_id: Id


class Refusal(Struct, rename="pascal", frozen=True, gc=False):
    """An error."""

    error_code: str | None = None
    error_message: str | None = None
    error_reference: str | None = None


class Item(Struct, rename="pascal", omit_defaults=True, frozen=True, gc=False):
    """A line of a command."""

    merchant_reference: str
    type: str
    quantity: int
    price_per_item_inc_vat: Decimal
    price_per_item_ex_vat: Decimal | UnsetType = UNSET
    description: str | UnsetType = UNSET


class Amount(Struct, rename="pascal", frozen=True, gc=False):
    """A fee or a discount of a return."""

    merchant_reference: str
    description: str
    price_per_item_inc_vat: Decimal
    price_per_item_ex_vat: Decimal


class Entry(Struct, rename="pascal", omit_defaults=True, frozen=True, gc=False):
    """The part of a command about one transaction."""

    payment_transaction_id: int
    order_items: list[Item]
    fees: list[Amount] | UnsetType = UNSET
    discounts: list[Amount] | UnsetType = UNSET


class Command(Struct, rename="pascal", omit_defaults=True, frozen=True, gc=False):
    """The body of a command; `cancelOrder` has neither currency nor entries."""

    request_id: str
    merchant_api_key: str
    order_id: int
    currency: str | UnsetType = UNSET
    shipments: list[Entry] | UnsetType = UNSET
    returns: list[Entry] | UnsetType = UNSET
    updates: list[Entry] | UnsetType = UNSET
    additions: list[Entry] | UnsetType = UNSET


ENTRIES = {
    "MarkItemsAsShipped": "shipments",
    "ReturnItems": "returns",
    "UpdateItems": "updates",
    "AddItemsToInvoice": "additions",
}
"""The member that has each command's entries."""

_encoder = msgspec.json.Encoder(decimal_format="number")
_order = msgspec.json.Decoder(Order, strict=False)
_accepted = msgspec.json.Decoder(Accepted, strict=False)
_accepted_transaction = msgspec.json.Decoder(AcceptedTransaction, strict=False)
_refusal = msgspec.json.Decoder(Refusal, strict=False)


def encode(command: Command) -> bytes:
    """The bytes to be signed and sent."""
    return _encoder.encode(command)


def decode_order(body: bytes) -> Order:
    """Raises `msgspec.DecodeError`."""
    return _order.decode(body)


def decode_accepted(body: bytes) -> list[int]:
    """The new transactions; empty if the response names none. Raises `msgspec.DecodeError`."""
    accepted = _accepted.decode(body)
    listed = [_accepted_transaction.decode(raw).payment_transaction_id for raw in accepted.payment_transactions or ()]
    return listed + [
        one for one in (accepted.reversal_payment_transaction_id, accepted.payment_transaction_id) if one is not None
    ]


def decode_refusal(body: bytes) -> Refusal:
    """The body of an error; empty if it cannot be read."""
    try:
        return _refusal.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return Refusal()


def signature(body: bytes, secret: str) -> str:
    """The value of `Authorization`: over the body alone, so it is the same for all reads."""
    return "Qliro " + b64encode(sha256(body + secret.encode()).digest()).decode()


def money(minor: int) -> Decimal:
    """Minor units as Qliro writes them: exact, with two decimals (more give SYSTEM_ERROR)."""
    return Decimal(minor).scaleb(-2)


_MAGNITUDE_MAX = 15
"""Digits of an amount before the point, less one: with the minor unit's two it is within 64 bits."""


def minor(amount: Decimal) -> int:
    """Raises `ValueError` if it is not a whole number of minor units, or beyond all reason."""
    if amount.is_finite() and amount.adjusted() <= _MAGNITUDE_MAX:
        cents = amount.scaleb(2)
        if cents == cents.to_integral_value():
            return int(cents)
    raise ValueError("no amount, or one with more than two decimals")
