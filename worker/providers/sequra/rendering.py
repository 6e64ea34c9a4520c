"""An order's parts in seQura's terms: items, carts, people, addresses, trackings."""

from typing import Any

from msgspec import UNSET, UnsetType

from schemas import events
from schemas.facts import Tracking
from worker.model import order as carts
from worker.providers.sequra import wire


def or_unset(value: Any) -> Any:
    """`UNSET` instead of `None`."""
    return UNSET if value is None else value


def _or_empty(value: str | UnsetType) -> str:
    return "" if value is UNSET else value


def wire_reference(order: carts.Order) -> wire.MerchantReference:
    """The shop's references of the order."""
    references = order.details.references or events.References()
    return wire.MerchantReference(order.reference, references.secondary, references.subscription)


def wire_cart(cart: carts.Cart, order: carts.Order) -> wire.Cart:
    """One of the carts of an Order Update."""
    return wire.Cart(
        order.currency,
        cart.total_minor,
        [wire_item(item) for item in cart.items],
        or_unset(order.details.gift),
        or_unset(order.details.cart_ref),
    )


def wire_item(item: carts.Item) -> wire.Item:
    """A share of a line, with the members that its type permits."""
    word = wire.ITEM_RULES[item.type].word
    if item.type in wire.BARE:
        return wire.Item(word, total_with_tax=item.total_minor)
    if item.type not in events.GOODS:
        return wire.Item(word, item.reference or UNSET, item.name or UNSET, total_with_tax=item.total_minor)
    reference, name = item.reference or UNSET, item.name or UNSET
    if item.attributes is None:
        return wire.Item(
            word,
            reference,
            name,
            item.quantity,
            item.unit_price_minor,
            item.total_minor,
            item.downloadable,
        )
    a = item.attributes
    terms = a.subscription or events.Subscription()
    return wire.Item(
        word,
        reference,
        name,
        item.quantity,
        item.unit_price_minor,
        item.total_minor,
        item.downloadable,
        a.perishable,
        a.personalized,
        a.restockable,
        a.rendered,
        a.category,
        a.description,
        a.manufacturer,
        a.supplier,
        a.product_id,
        a.url,
        a.tracking_reference,
        a.ends_on,
        a.ends_in,
        terms.period_months,
        terms.price_minor,
        terms.price_per_item_minor,
        terms.vat_rate_bp,
    )


def wire_customer(customer: events.Customer) -> wire.Customer:
    """Mandatory members that are unknown are empty."""
    vehicle = customer.vehicle
    return wire.Customer(
        _or_empty(customer.given_names),
        _or_empty(customer.surnames),
        _or_empty(customer.email),
        customer.title,
        customer.ref,
        customer.date_of_birth,
        customer.nin,
        customer.company,
        customer.vat_number,
        UNSET
        if vehicle is UNSET
        else wire.Vehicle(
            _or_empty(vehicle.plaque),
            vehicle.brand,
            vehicle.model,
            vehicle.frame,
            vehicle.first_registration_date,
        ),
    )


def wire_address(address: events.Address) -> wire.Address:
    """Mandatory members that are unknown are empty."""
    return wire.Address(
        _or_empty(address.given_names),
        _or_empty(address.surnames),
        _or_empty(address.company),
        _or_empty(address.line_1),
        _or_empty(address.line_2),
        _or_empty(address.postal_code),
        _or_empty(address.city),
        _or_empty(address.country_code),
        address.state,
        address.phone,
        address.mobile_phone,
        address.extra,
        address.vat_number,
    )


def wire_method(method: events.DeliveryMethod) -> wire.DeliveryMethod:
    """The delivery method."""
    days = method.days if method.days is UNSET else str(method.days)  # a text (docs, Delivery Report, 2026-10)
    return wire.DeliveryMethod(_or_empty(method.name), days, method.provider, method.home_delivery)


def wire_tracking(tracking: Tracking) -> wire.Tracking:
    """A tracking with the members that its type permits (docs.sequrapi.com, Delivery Report field list, 2026-10)."""
    t = tracking
    if t.type == "postal":
        return wire.Tracking(t.type, t.reference, t.carrier, t.tracking_number, t.tracking_url, t.delivered_at)
    return wire.Tracking(
        t.type,
        t.reference,
        UNSET,
        t.tracking_number,
        UNSET,
        t.delivered_at,
        t.available_at,
        t.store_ref,
        t.operator_ref,
        t.line_1,
        t.line_2,
        t.postal_code,
        t.city,
        t.state,
        t.country_code,
    )
