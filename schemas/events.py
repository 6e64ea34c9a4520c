"""Order events as a shop writes them: `order.*` types in CloudEvents 1.0 (`CONTRACT.md`).

`Event` is the union of them, of provider events (`provider_events`) and operator events (`operator_events`);
`worker.core.intake` decodes records into it.
A rule that a type cannot express is in `__post_init__` and raises `RuleError`, so that a refusal names the member to
blame.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

from schemas.base import (
    TEXT_MAX,
    AmountMinor,
    BasisPoints,
    Count,
    Country,
    Currency,
    Date,
    HttpsUrl,
    Minor,
    Name,
    Period,
    PriceMinor,
    Quantity,
    RuleError,
    Text,
    Time,
    Version,
    cut_time,
    matching,
)
from schemas.envelope import Data, Envelope
from schemas.operator_events import OperatorEvent
from schemas.provider_events import ProviderEvent

LINES_MAX = 2_000
"""Lines of a cart, and units of an event, at most."""

LineType = Literal[
    "product",
    "service",
    "subscriber_fee",
    "handling",
    "invoice_fee",
    "discount",
    "other_payment",
    "voucher",
    "registration",
]
Division = Literal["goods", "charge", "reduction", "voucher", "registration"]
"""How a line is divided between the carts (`DOMAIN.md` section 5)."""


class LineRules(Struct, frozen=True):
    """What holds for every line of one type."""

    division: Division
    is_named: bool = True
    """Whether it needs `reference` and `name`."""
    ends: bool = False
    """Whether it needs an end, in its attributes."""
    is_freight: bool = False
    """Whether `refund_handling_minor` of a return is a part of it."""


LINE_RULES: Mapping[LineType, LineRules] = {
    "product": LineRules("goods"),
    "service": LineRules("goods", ends=True),
    "subscriber_fee": LineRules("goods"),
    "handling": LineRules("charge", is_freight=True),
    "invoice_fee": LineRules("charge", is_named=False),
    "discount": LineRules("reduction"),
    "other_payment": LineRules("reduction"),
    "voucher": LineRules("voucher"),
    "registration": LineRules("registration"),
}
"""Everything that depends on a line's type, but for each provider's own words, is derived from this table."""
assert LINE_RULES.keys() == set(get_args(LineType)), "each has a place in carts"


def _types_where(holds: Callable[[LineRules], bool]) -> frozenset[str]:
    return frozenset(name for name, rules in LINE_RULES.items() if holds(rules))


GOODS = _types_where(lambda rules: rules.division == "goods")
CHARGES = _types_where(lambda rules: rules.division == "charge")
PRICED = GOODS | CHARGES
NEGATIVE = _types_where(lambda rules: rules.division == "reduction")
VOUCHERS = _types_where(lambda rules: rules.division == "voucher")
NAMED = _types_where(lambda rules: rules.is_named)
ENDING = _types_where(lambda rules: rules.ends)
FREIGHT = _types_where(lambda rules: rules.is_freight)

PaymentState = Literal["approved", "on_hold", "refused"]
PaymentMethod = Annotated[
    str,
    matching(
        r"^(CC|COD|PP|TR|SQ|O/[\s\S]+)$",
        f"CC, COD, PP, TR, SQ, or O/ and a name, at most {TEXT_MAX} characters",
        "card, cash on delivery, PayPal, transfer, seQura, or another one by its name",
        max_length=TEXT_MAX,
    ),
]
Device = Annotated[
    str,
    matching(
        r"^(computer|tablet|phone|other)(/[\s\S]*)?$",
        f"computer, tablet, phone or other, if need be with / and more of it, at most {TEXT_MAX} characters",
        "what the shopper ordered with",
        max_length=TEXT_MAX,
    ),
]


class Subscription(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Terms of a subscription that begins with a line."""

    period_months: Count | UnsetType = UNSET
    price_minor: Minor | UnsetType = UNSET
    price_per_item_minor: Minor | UnsetType = UNSET
    vat_rate_bp: Count | UnsetType = UNSET
    """Basis points: 2100 is 21 %."""


class Attributes(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Further properties of an article, for the provider."""

    perishable: bool | UnsetType = UNSET
    personalized: bool | UnsetType = UNSET
    restockable: bool | UnsetType = UNSET
    rendered: bool | UnsetType = UNSET
    """Whether a service was rendered."""
    category: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    manufacturer: Text | UnsetType = UNSET
    supplier: Text | UnsetType = UNSET
    product_id: Text | UnsetType = UNSET
    url: Text | UnsetType = UNSET
    tracking_reference: Text | UnsetType = UNSET
    """The `reference` of the tracking that the article travels with."""
    ends_on: Date | UnsetType = UNSET
    """When a service ends."""
    ends_in: Period | UnsetType = UNSET
    """How long a service lasts, from now."""
    subscription: Subscription | UnsetType = UNSET


LineIds = Annotated[
    list[Name],
    Meta(
        min_length=1,
        max_length=LINES_MAX,
        extra={"expected": f"a list of 1 to {LINES_MAX} line ids"},
    ),
]


def _check_once(ids: list[str]) -> None:
    """Raises `RuleError` if `applies_to` names a line twice."""
    if len(set(ids)) != len(ids):
        raise RuleError("every line id once", ".applies_to")


class Line(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One position of a cart: goods, a charge, or an adjustment.

    Goods are `product`, `service` and `subscriber_fee`; charges `handling` and `invoice_fee`; adjustments `discount`,
    `other_payment`, `voucher` and `registration`. Goods need `quantity` and `unit_price_minor`, the others must not
    have them; only an `invoice_fee` needs neither `reference` nor `name`. A `service` has exactly one of
    `attributes.ends_on` and `attributes.ends_in`.
    """

    total_minor: Minor
    """Of the whole line; need not be quantity × unit price. Below 0 only for `discount` and `other_payment`."""
    type: LineType = "product"
    line_id: Name | UnsetType = UNSET
    """Unique in the cart; by default the `reference`, or `invoice_fee` if there is none."""
    reference: Name | UnsetType = UNSET
    """The article number, the coupon's code, …"""
    name: Name | UnsetType = UNSET
    quantity: Quantity | UnsetType = UNSET
    unit_price_minor: PriceMinor | UnsetType = UNSET
    """Of one unit, with tax; not negative."""
    applies_to: LineIds | UnsetType = UNSET
    """Ids of lines of this cart, each once, that the shares follow instead of the whole order: of goods and charges for
    an adjustment, of goods for a charge."""
    downloadable: bool = False
    attributes: Attributes | UnsetType = UNSET
    vat_rate_bp: BasisPoints | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.type in NAMED:
            if self.reference is UNSET:
                raise RuleError("a member reference")
            if self.name is UNSET:
                raise RuleError("a member name")
        if self.type in GOODS:
            self._check_goods()
        else:
            if self.quantity is not UNSET or self.unit_price_minor is not UNSET:
                raise RuleError(f"no quantity and no unit_price_minor on a line of type {self.type}")
            if self.applies_to is not UNSET:
                _check_once(self.applies_to)
        if self.type in NEGATIVE:
            if self.total_minor >= 0:
                raise RuleError(f"an amount below 0 on a line of type {self.type}", ".total_minor")
        elif self.total_minor < 0:
            raise RuleError(f"an amount of 0 or more on a line of type {self.type}", ".total_minor")

    def _check_goods(self) -> None:
        if self.quantity is UNSET:
            raise RuleError("a member quantity")
        if self.unit_price_minor is UNSET:
            raise RuleError("a member unit_price_minor")
        if self.applies_to is not UNSET:
            raise RuleError(f"no applies_to on a line of type {self.type}")
        if self.type in ENDING:
            attributes = self.attributes
            ends = 0 if attributes is UNSET else (attributes.ends_on is not UNSET) + (attributes.ends_in is not UNSET)
            if ends != 1:
                what = "exactly one of attributes.ends_on and attributes.ends_in"
                raise RuleError(f"{what} on a line of type {self.type}")

    @property
    def id(self) -> str:
        """`line_id`, by default the reference, by default the type (`invoice_fee`); unique in the cart."""
        if self.line_id is not UNSET:
            return self.line_id
        return self.type if self.reference is UNSET else self.reference


def check_lines(lines: list[Line], member: str) -> None:
    """Raises `RuleError` if an id occurs twice in the cart, or `applies_to` names a line that it must not name."""
    ids = [line.id for line in lines]
    if len(set(ids)) != len(ids):
        raise RuleError("every line_id (by default the reference) once", member)
    goods: set[str] = set()
    priced: set[str] = set()
    for index, line in enumerate(lines):
        if line.applies_to is UNSET:
            continue
        if not priced:
            goods = {one for one, other in zip(ids, lines, strict=True) if other.type in GOODS}
            priced = goods.union(one for one, other in zip(ids, lines, strict=True) if other.type in CHARGES)
        if line.type in CHARGES:
            if not goods.issuperset(line.applies_to):
                raise RuleError(
                    "applies_to of a charge to name goods lines of this cart", f"{member}[{index}].applies_to"
                )
        elif not priced.issuperset(line.applies_to):
            raise RuleError("applies_to to name goods and charge lines of this cart", f"{member}[{index}].applies_to")


class Units(Struct, forbid_unknown_fields=True, frozen=True):
    """A number of units of one goods line."""

    line_id: Name
    quantity: Quantity


def check_units(units: list[Units]) -> None:
    """Raises `RuleError` if a line is named twice."""
    if len({unit.line_id for unit in units}) != len(units):
        raise RuleError("every line_id once", ".lines")


_LINES = {"expected": f"a list of 1 to {LINES_MAX} lines"}
_LINES_OR_NONE = {"expected": f"a list of at most {LINES_MAX} lines"}
Lines = Annotated[list[Line], Meta(min_length=1, max_length=LINES_MAX, extra=_LINES)]
StatedLines = Annotated[list[Line], Meta(max_length=LINES_MAX, extra=_LINES_OR_NONE)]
UnitsList = Annotated[list[Units], Meta(min_length=1, max_length=LINES_MAX, extra=_LINES)]
UnitsOrNone = Annotated[list[Units], Meta(max_length=LINES_MAX, extra=_LINES_OR_NONE)]


class References(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Further references of the order."""

    secondary: Text | UnsetType = UNSET
    subscription: Text | UnsetType = UNSET
    provider: Text | UnsetType = UNSET
    """The order's id at the provider."""


class Vehicle(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The shopper's vehicle, where a contract asks for it."""

    plaque: Text | UnsetType = UNSET
    brand: Text | UnsetType = UNSET
    model: Text | UnsetType = UNSET
    frame: Text | UnsetType = UNSET
    first_registration_date: Date | UnsetType = UNSET


class Customer(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The shopper. Personal data."""

    given_names: Text | UnsetType = UNSET
    surnames: Text | UnsetType = UNSET
    email: Text | UnsetType = UNSET
    title: Text | UnsetType = UNSET
    ref: Text | UnsetType = UNSET
    date_of_birth: Date | UnsetType = UNSET
    nin: Text | UnsetType = UNSET
    company: Text | UnsetType = UNSET
    vat_number: Text | UnsetType = UNSET
    vehicle: Vehicle | UnsetType = UNSET


class Address(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A postal address. Personal data."""

    given_names: Text | UnsetType = UNSET
    surnames: Text | UnsetType = UNSET
    company: Text | UnsetType = UNSET
    line_1: Text | UnsetType = UNSET
    line_2: Text | UnsetType = UNSET
    postal_code: Text | UnsetType = UNSET
    city: Text | UnsetType = UNSET
    country_code: Text | UnsetType = UNSET
    state: Text | UnsetType = UNSET
    phone: Text | UnsetType = UNSET
    mobile_phone: Text | UnsetType = UNSET
    extra: Text | UnsetType = UNSET
    vat_number: Text | UnsetType = UNSET


class DeliveryMethod(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How the order is delivered."""

    name: Text | UnsetType = UNSET
    days: Text | Count | UnsetType = UNSET
    provider: Text | UnsetType = UNSET
    home_delivery: bool | UnsetType = UNSET


class Tracking(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One parcel, or one place where the shopper picks it up.

    A `postal` tracking needs a `carrier`. Trackings are sent in the order of their shipments; those of returned
    shipments stay.
    """

    reference: Name
    type: Literal["postal", "pickup_point", "pickup_store"]
    carrier: Text | UnsetType = UNSET
    tracking_number: Text | UnsetType = UNSET
    tracking_url: HttpsUrl | UnsetType = UNSET
    delivered_at: Time | UnsetType = UNSET
    available_at: Time | UnsetType = UNSET
    store_ref: Text | UnsetType = UNSET
    operator_ref: Text | UnsetType = UNSET
    line_1: Text | UnsetType = UNSET
    line_2: Text | UnsetType = UNSET
    postal_code: Text | UnsetType = UNSET
    city: Text | UnsetType = UNSET
    state: Text | UnsetType = UNSET
    country_code: Text | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.type == "postal" and self.carrier is UNSET:
            raise RuleError("a member carrier on a tracking of type postal")
        cut_time(self, "delivered_at")
        cut_time(self, "available_at")


DETAILS = (
    "references",
    "customer",
    "delivery_address",
    "invoice_address",
    "delivery_method",
    "gift",
    "cart_ref",
    "store_ref",
)
"""The members of Details; each is kept, replaced and removed on its own."""


class Details(Data, frozen=True):
    """An order's properties apart from its lines."""

    references: References | UnsetType = UNSET
    customer: Customer | UnsetType = UNSET
    delivery_address: Address | UnsetType = UNSET
    invoice_address: Address | UnsetType = UNSET
    delivery_method: DeliveryMethod | UnsetType = UNSET
    gift: bool | UnsetType = UNSET
    """In both carts."""
    cart_ref: Text | UnsetType = UNSET
    """In both carts."""
    store_ref: Text | UnsetType = UNSET
    """The store of the order, where a merchant has several."""


class ConfirmedData(Details, kw_only=True, frozen=True):
    """The order as the provider approved it. Every line id occurs once, and `applies_to` names lines of the cart.

    The provider is assumed to know its content, so nothing is sent until something differs from it.
    """

    currency: Currency
    lines: Lines
    payment_state: Literal["approved", "on_hold"] | UnsetType = UNSET
    """Default: `approved`; an omitted state competes with no other."""

    def __post_init__(self) -> None:
        check_lines(self.lines, ".lines")


class PaymentStateChangedData(Data, kw_only=True, frozen=True):
    """The payment's state at the provider."""

    payment_state: PaymentState


class CartUpdatedData(Data, kw_only=True, frozen=True):
    """The whole new content, as ordered. Units that other events ship, cancel or return are still in it.

    Report each change once: a shop that sends the remaining units after a cancellation does not send the cancellation,
    too.
    """

    currency: Currency
    lines: Lines
    cart_version: Version | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_lines(self.lines, ".lines")


class ItemsShippedData(Data, kw_only=True, frozen=True):
    """Units that left the shop. Each line is named once."""

    shipment_id: Name
    lines: UnitsList
    shipped_at: Time | UnsetType = UNSET
    """When the units left."""
    tracking: list[Tracking] | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_units(self.lines)
        cut_time(self, "shipped_at")


class ItemsDeliveredData(Data, kw_only=True, frozen=True):
    """A shipment reached the shopper. Without trackings it changes nothing."""

    shipment_id: Name
    delivered_at: Time

    def __post_init__(self) -> None:
        cut_time(self, "delivered_at")


class ItemsReturnedData(Data, kw_only=True, frozen=True):
    """Units that came back, or were refunded before they were sent. Each line is named once.

    `lines` may be empty if there is a `refund_handling_minor`. Only a return from `shipped` may have a `fee_minor`, and
    only one with units a `refunded_minor`.
    """

    return_id: Name
    lines: UnitsOrNone
    origin: Literal["shipped", "unshipped", "any"] = field(name="from", default="shipped")
    """`unshipped`: refunded before it was sent; `any`: units that may still be pending count as such,
    the others as returned."""
    refund_handling_minor: AmountMinor | UnsetType = UNSET
    """Refunded handling; above 0."""
    fee_minor: AmountMinor | UnsetType = UNSET
    """What the shopper pays for the return; above 0."""
    refunded_minor: PriceMinor | UnsetType = UNSET
    """Refunded for the units alone, before the fee is deducted; default: their share of the payment."""
    reason: Text | UnsetType = UNSET
    """Why; sent to the provider if nothing is left and nothing was ever shipped."""

    def __post_init__(self) -> None:
        if not self.lines and self.refund_handling_minor is UNSET:
            raise RuleError("at least one line, or refund_handling_minor", ".lines")
        if self.origin != "shipped":
            if self.fee_minor is not UNSET:
                raise RuleError(f"no fee_minor on a return from {self.origin}", ".fee_minor")
            if self.refunded_minor is not UNSET:
                raise RuleError(f"no refunded_minor on a return from {self.origin}", ".refunded_minor")
        if self.refunded_minor is not UNSET and not self.lines:
            raise RuleError("no refunded_minor on a return without units", ".refunded_minor")
        check_units(self.lines)


class ItemsCancelledData(Data, kw_only=True, frozen=True):
    """Units that will not be sent. Each line is named once."""

    cancellation_id: Name
    lines: UnitsList
    reason: Text | UnsetType = UNSET
    """A code or a sentence; each account has a table of the provider's codes for it."""

    def __post_init__(self) -> None:
        check_units(self.lines)


class RefundedData(Data, kw_only=True, frozen=True):
    """Money back without goods, in addition to what returns and cancellations refund."""

    refund_id: Name
    amount_minor: AmountMinor
    applies_to: LineIds | UnsetType = UNSET
    """Goods and charges of any content, each once: the refund is for these, and shrinks with units of them that
    are lost later."""
    name: Name | UnsetType = UNSET
    """The name that the provider shows; default: "Refund"."""
    reason: Text | UnsetType = UNSET
    """Why; sent to the provider if nothing is left and nothing was ever shipped."""

    def __post_init__(self) -> None:
        if self.applies_to is not UNSET:
            _check_once(self.applies_to)


class FeeChargedData(Data, kw_only=True, frozen=True):
    """A charge without a return, due at once."""

    fee_id: Name
    amount_minor: AmountMinor
    name: Name | UnsetType = UNSET
    """The name that the provider shows; default: "Fee"."""


class CancelledData(Data, kw_only=True, frozen=True):
    """Everything not yet shipped is cancelled. It stays so, whatever content follows, until it is retracted."""

    reason: Text | UnsetType = UNSET
    """A code or a sentence; each account has a table of the provider's codes for it."""
    by: Literal["merchant", "shopper", "provider"] = "merchant"
    """`provider`: made there, so it is not sent back."""
    origin: Text | UnsetType = UNSET
    """The event's `origin`, in case somebody puts it here; the event's own takes precedence."""


class CartsStatedData(Data, kw_only=True, frozen=True):
    """Both carts outright. In each, every line id occurs once, and `applies_to` names lines of the same cart."""

    currency: Currency
    shipped: StatedLines
    unshipped: StatedLines
    cart_version: Version | UnsetType = UNSET
    reason: Text | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_lines(self.shipped, ".shipped")
        check_lines(self.unshipped, ".unshipped")


class ObservedData(Data, kw_only=True, frozen=True):
    """An order of any payment method, for seQura's statistics. Last writer wins."""

    completed_at: Time
    """When the shopper completed it."""
    currency: Currency
    amount_minor: PriceMinor | UnsetType = UNSET
    payment_method: PaymentMethod | UnsetType = UNSET
    country: Country | UnsetType = UNSET
    """Of the delivery."""
    device: Device | UnsetType = UNSET
    status: Literal["processing", "shipped", "cancelled"] | UnsetType = UNSET
    raw_status: Text | UnsetType = UNSET
    """The shop's own word for it."""
    sequra_offered: bool | UnsetType = UNSET
    """Whether the shopper could have paid with seQura."""

    def __post_init__(self) -> None:
        cut_time(self, "completed_at")


class DetailsChangedData(Data, kw_only=True, frozen=True):
    """Members of the details. A given member replaces the whole member, `null` removes it, an omitted one stays."""

    references: References | UnsetType | None = UNSET
    customer: Customer | UnsetType | None = UNSET
    delivery_address: Address | UnsetType | None = UNSET
    invoice_address: Address | UnsetType | None = UNSET
    delivery_method: DeliveryMethod | UnsetType | None = UNSET
    gift: bool | UnsetType | None = UNSET
    cart_ref: Text | UnsetType | None = UNSET
    store_ref: Text | UnsetType | None = UNSET


class RetractedData(Data, kw_only=True, frozen=True):
    """A fact that did not happen after all. Exactly one member names it."""

    shipment_id: Name | UnsetType = UNSET
    return_id: Name | UnsetType = UNSET
    cancellation_id: Name | UnsetType = UNSET
    refund_id: Name | UnsetType = UNSET
    fee_id: Name | UnsetType = UNSET
    cancelled: Literal[True] | UnsetType = UNSET
    """A reopened order."""
    stated: Literal[True] | UnsetType = UNSET
    """Back from statements to facts."""

    def __post_init__(self) -> None:
        given = [getattr(self, name) for name in self.__struct_fields__]
        if sum(value is not UNSET for value in given) != 1:
            raise RuleError(f"exactly one of {', '.join(self.__struct_fields__)}")


class Confirmed(Envelope, tag="order.confirmed", kw_only=True, frozen=True):
    """The order as the provider approved it. Of several, the newest determines the content, the oldest the baseline."""

    data: ConfirmedData


class PaymentStateChanged(Envelope, tag="order.payment_state_changed", kw_only=True, frozen=True):
    """The payment was approved, put on hold or refused."""

    data: PaymentStateChangedData


class CartUpdated(Envelope, tag="order.cart_updated", kw_only=True, frozen=True):
    """The whole new content. The shopper must not keep units of a line that it no longer has."""

    data: CartUpdatedData


class ItemsShipped(Envelope, tag="order.items_shipped", kw_only=True, frozen=True):
    """Units left the shop."""

    data: ItemsShippedData


class ItemsDelivered(Envelope, tag="order.items_delivered", kw_only=True, frozen=True):
    """Fills in the `delivered_at` that the shipment's trackings lack."""

    data: ItemsDeliveredData


class ItemsReturned(Envelope, tag="order.items_returned", kw_only=True, frozen=True):
    """Units came back, or were refunded before they were sent."""

    data: ItemsReturnedData


class ItemsCancelled(Envelope, tag="order.items_cancelled", kw_only=True, frozen=True):
    """Units will not be sent."""

    data: ItemsCancelledData


class Refunded(Envelope, tag="order.refunded", kw_only=True, frozen=True):
    """Money back without goods."""

    data: RefundedData


class FeeCharged(Envelope, tag="order.fee_charged", kw_only=True, frozen=True):
    """A charge without a return: a separate invoice, a cancellation fee."""

    data: FeeChargedData


class Cancelled(Envelope, tag="order.cancelled", kw_only=True, frozen=True):
    """Everything not yet shipped is cancelled."""

    data: CancelledData


class CartsStated(Envelope, tag="order.carts_stated", kw_only=True, frozen=True):
    """The shop states both carts outright; its newest statement is the carts."""

    data: CartsStatedData


class DetailsChanged(Envelope, tag="order.details_changed", kw_only=True, frozen=True):
    """Details were replaced or removed."""

    data: DetailsChangedData


class Retracted(Envelope, tag="order.retracted", kw_only=True, frozen=True):
    """A fact did not happen; a newer event with its id counts again."""

    data: RetractedData


class Observed(Envelope, tag="order.observed", kw_only=True, frozen=True):
    """An order of any payment method, for statistics alone: no fact of its carts or status."""

    data: ObservedData


ShopEvent = (
    Confirmed
    | PaymentStateChanged
    | CartUpdated
    | ItemsShipped
    | ItemsDelivered
    | ItemsReturned
    | ItemsCancelled
    | Refunded
    | FeeCharged
    | Cancelled
    | CartsStated
    | DetailsChanged
    | Retracted
    | Observed
)
Event = ShopEvent | ProviderEvent | OperatorEvent
"""Every type of event: who adds one adds it here, its rule to the core, and an example."""
EVENT_TYPES: tuple[type[Envelope], ...] = get_args(Event)
PROVIDER_TYPES = frozenset[type[Envelope]](get_args(ProviderEvent))
OPERATOR_TYPES = frozenset[type[Envelope]](get_args(OperatorEvent))


def data_of(event: type[Envelope]) -> type[Data]:
    """The type of `data` of an event type."""
    found: type[Data] = event.__annotations__["data"]
    return found


def event_type(event: type[Struct]) -> str:
    """The CloudEvents type that the class stands for."""
    return str(event.__struct_config__.tag)


class OrderEvent(Struct, frozen=True, gc=False):
    """A decoded event, as the reducer takes it."""

    subject: str
    uid: bytes
    """8 bytes that stand for (source, id)."""
    sequence: int
    """-1 when the event has none: it ranks below every event with one."""
    time_us: int
    """Microseconds since 1970-01-01 UTC."""
    data: Data
    origin: str | None = None
    traceparent: str | None = None
    id: str = ""
    """The shop's own text, of any length."""
    is_final: bool = False
    """Of what a provider says: nobody can ask it whether it is so, so it counts as it was said."""
