"""seQura's JSON and its tables, in seQura's own words.

Source of every name and rule: seQura's Order Update and Delivery Report documentation (docs.sequra.com,
docs.sequrapi.com, read 2026-10), and the official clients where the documentation is silent. Members that are unset
are left out: seQura's own clients drop null keys before sending.
"""

from collections.abc import Mapping
from datetime import date

from msgspec import UNSET, Raw, Struct, UnsetType

from schemas.events import LineType


class Merchant(Struct, omit_defaults=True, frozen=True, gc=False):
    """`store_ref` is mandatory for multistore merchants and forbidden for the others."""

    id: str
    store_ref: str | UnsetType = UNSET


class MerchantReference(Struct, omit_defaults=True, frozen=True, gc=False):
    """The shop's references of the order."""

    order_ref_1: str
    order_ref_2: str | UnsetType = UNSET
    subscription_ref_1: str | UnsetType = UNSET


class Item(Struct, omit_defaults=True, frozen=True, gc=False):
    """An item of any type; amounts are integer cents with tax."""

    type: str
    reference: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    quantity: int | UnsetType = UNSET
    price_with_tax: int | UnsetType = UNSET
    total_with_tax: int | UnsetType = UNSET
    downloadable: bool | UnsetType = UNSET
    perishable: bool | UnsetType = UNSET
    personalized: bool | UnsetType = UNSET
    restockable: bool | UnsetType = UNSET
    rendered: bool | UnsetType = UNSET
    category: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    manufacturer: str | UnsetType = UNSET
    supplier: str | UnsetType = UNSET
    product_id: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    tracking_reference: str | UnsetType = UNSET
    ends_on: date | UnsetType = UNSET
    ends_in: str | UnsetType = UNSET
    subscription_period: int | UnsetType = UNSET
    subscription_price: int | UnsetType = UNSET
    subscription_price_per_item: int | UnsetType = UNSET
    subscription_vat_rate: int | UnsetType = UNSET


class Cart(Struct, omit_defaults=True, frozen=True, gc=False):
    """An empty cart is total 0 with no items: never left out, never null."""

    currency: str
    order_total_with_tax: int
    items: list[Item]
    gift: bool | UnsetType = UNSET
    cart_ref: str | UnsetType = UNSET


class Vehicle(Struct, omit_defaults=True, frozen=True, gc=False):
    """`plaque` is mandatory."""

    plaque: str
    brand: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    frame: str | UnsetType = UNSET
    first_registration_date: date | UnsetType = UNSET


class Customer(Struct, omit_defaults=True, frozen=True, gc=False):
    """The first three are mandatory; an unknown one is sent empty."""

    given_names: str
    surnames: str
    email: str
    title: str | UnsetType = UNSET
    ref: str | UnsetType = UNSET
    date_of_birth: date | UnsetType = UNSET
    nin: str | UnsetType = UNSET
    company: str | UnsetType = UNSET
    vat_number: str | UnsetType = UNSET
    vehicle: Vehicle | UnsetType = UNSET


class Address(Struct, omit_defaults=True, frozen=True, gc=False):
    """The first eight are mandatory; an unknown one is sent empty."""

    given_names: str
    surnames: str
    company: str
    address_line_1: str
    address_line_2: str
    postal_code: str
    city: str
    country_code: str
    state: str | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    mobile_phone: str | UnsetType = UNSET
    extra: str | UnsetType = UNSET
    vat_number: str | UnsetType = UNSET


class DeliveryMethod(Struct, omit_defaults=True, frozen=True, gc=False):
    """`name` is mandatory."""

    name: str
    days: str | UnsetType = UNSET
    provider: str | UnsetType = UNSET
    home_delivery: bool | UnsetType = UNSET


class Tracking(Struct, omit_defaults=True, frozen=True, gc=False):
    """A parcel, or a place where the shopper picks it up."""

    type: str
    reference: str
    carrier: str | UnsetType = UNSET
    tracking_number: str | UnsetType = UNSET
    tracking_url: str | UnsetType = UNSET
    delivered_at: str | UnsetType = UNSET
    available_at: str | UnsetType = UNSET
    store_ref: str | UnsetType = UNSET
    operator_ref: str | UnsetType = UNSET
    address_line_1: str | UnsetType = UNSET
    address_line_2: str | UnsetType = UNSET
    postal_code: str | UnsetType = UNSET
    city: str | UnsetType = UNSET
    state: str | UnsetType = UNSET
    country_code: str | UnsetType = UNSET


class ReportedCart(Struct, omit_defaults=True, frozen=True, gc=False):
    """The content of one delivery; `gift` is mandatory."""

    currency: str
    gift: bool
    order_total_with_tax: int
    items: list[Item]
    cart_ref: str | UnsetType = UNSET


class RemainingCart(Struct, frozen=True, gc=False):
    """The rest to be shipped. If it is missing, seQura derives it, "sometimes confusing" (docs, 2026-10)."""

    order_total_with_tax: int
    items: list[Item]


class ReportedOrder(Struct, omit_defaults=True, frozen=True, gc=False):
    """One delivery: `orders[]` of a report."""

    merchant_reference: MerchantReference
    state: str
    sent_at: str
    cart: ReportedCart
    remaining_cart: RemainingCart
    delivery_method: DeliveryMethod
    customer: Customer
    delivery_address: Address | UnsetType = UNSET
    invoice_address: Address | UnsetType = UNSET
    trackings: list[Tracking] | UnsetType = UNSET


class BrokenOrder(Struct, omit_defaults=True, frozen=True, gc=False):
    """An order that cannot be reported properly: `broken_orders[]`, with its known members."""

    merchant_reference: MerchantReference
    cart: ReportedCart | UnsetType = UNSET
    delivery_method: DeliveryMethod | UnsetType = UNSET
    customer: Customer | UnsetType = UNSET


class StatisticsEntry(Struct, omit_defaults=True, frozen=True, gc=False):
    """One order of the last 7 days, however it was paid: `statistics.orders[]`."""

    completed_at: str
    currency: str
    merchant_reference: MerchantReference
    amount: int | UnsetType = UNSET
    payment_method: str | UnsetType = UNSET
    country: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    raw_status: str | UnsetType = UNSET
    sequra_offered: bool | UnsetType = UNSET


class Statistics(Struct, frozen=True, gc=False):
    """All orders of the statistics, or a page of them."""

    orders: list[StatisticsEntry]


class DeliveryReport(Struct, omit_defaults=True, frozen=True, gc=False):
    """The body under `delivery_report`; `orders` is present even if empty."""

    merchant: Raw
    orders: list[Raw]
    platform: Raw
    broken_orders: list[Raw] | UnsetType = UNSET
    statistics: Statistics | UnsetType = UNSET


class OrderUpdate(Struct, omit_defaults=True, frozen=True, gc=False):
    """The full current state of an order; members from its facts are already encoded."""

    merchant: Merchant
    merchant_reference: Raw
    shipped_cart: Raw
    unshipped_cart: Raw
    platform: dict[str, str]
    cancellation_reason: str | UnsetType = UNSET
    trackings: Raw | UnsetType = UNSET
    delivery_method: Raw | UnsetType = UNSET
    delivery_address: Raw | UnsetType = UNSET
    invoice_address: Raw | UnsetType = UNSET
    customer: Raw | UnsetType = UNSET


PLATFORM = {
    "name": "cartsync",
    "version": "0.1.0",
    "uname": "Linux",
    "db_name": "kafka",
    "db_version": "4",
}
"""The default of `platform`; its members are mandatory (docs, 2026-10)."""

GROWTH_MAX_PERCENT = 15
"""An increase above this over the initial price is not accepted (docs.sequra.com, Order Update API, 2026-10)."""


class ItemRules(Struct, frozen=True):
    """What seQura says of an item type (docs.sequrapi.com, field list; docs, Delivery Report field list, 2026-10).

    Which types have units and which amounts are below 0 is the same as in a shop's events, and not repeated here:
    `quantity` and `price_with_tax` are forbidden on all but goods. Unverified: `registration`, which only seQura's own
    plugins send; they send neither member.
    """

    word: str
    """seQura's name of the type."""
    in_cart: bool = True
    """Whether the cart of a reported delivery may contain it."""
    in_remaining_cart: bool = True
    is_bare: bool = False
    """Sent with its total alone."""
    needs_reference: bool = True
    """In a report."""


ITEM_RULES: Mapping[LineType, ItemRules] = {
    "product": ItemRules("product"),
    "service": ItemRules("service"),
    "subscriber_fee": ItemRules("subscriber_fee", in_remaining_cart=False, needs_reference=False),
    "handling": ItemRules("handling"),
    "invoice_fee": ItemRules("invoice_fee", is_bare=True, needs_reference=False),
    "discount": ItemRules("discount"),
    "other_payment": ItemRules("other_payment", in_remaining_cart=False),
    "voucher": ItemRules("voucher", in_remaining_cart=False),
    "registration": ItemRules("registration", in_cart=False, in_remaining_cart=False),
}
TYPES: Mapping[str, LineType] = {rules.word: name for name, rules in ITEM_RULES.items()}
"""By seQura's word."""
assert len(TYPES) == len(ITEM_RULES), "each type has a word of its own"
IN_REPORTED_CART = frozenset(name for name, rules in ITEM_RULES.items() if rules.in_cart)
IN_REMAINING_CART = frozenset(name for name, rules in ITEM_RULES.items() if rules.in_remaining_cart)
BARE = frozenset(name for name, rules in ITEM_RULES.items() if rules.is_bare)
REFERENCED = frozenset(name for name, rules in ITEM_RULES.items() if rules.needs_reference)
