"""Order updates to seQura: an order's state becomes one PUT, its answer an outcome. Pure.

The simplest of adapters: one command and done. seQura can be told the same again at any time and cannot be asked, so
nothing is kept of it.
"""

import re
from base64 import b64encode
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from schemas import events
from schemas.facts import Tracking
from worker.model import order as carts
from worker.model.exchange import Exchange, HttpRequest, HttpResponse, Outcome
from worker.model.provider import Answered, GuaranteeLevel, Question, Update
from worker.providers.answers import describe, kind_of_status, retry_after_s
from worker.providers.sequra import wire
from worker.providers.sequra.checks import problem_of
from worker.providers.sequra.options import SequraAccount

_encoder = msgspec.json.Encoder()

TRACE_LENGTH = 55
"""What every version of `traceparent` begins with (W3C Trace Context, section 3.2); what may follow is any text."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,49}")
_HOLDS_ACCOUNT = frozenset({429, 503})


class Sequra:
    """The adapter. Level D: nothing in the API lets seQura tell an old request from a new one."""

    name = "sequra"
    guarantee: GuaranteeLevel = "D"
    can_read = False

    def render(self, order: carts.Order, account: SequraAccount) -> Update:
        shipped, unshipped = _cart(order.shipped, order), _cart(order.unshipped, order)
        told = _Told(*map(_raw, _told(order, shipped, unshipped)))
        problem = problem_of(shipped, unshipped, order.confirmed_total_minor)
        return Update(_digest(told), problem, _raw(_body(told, order, account)))

    def digest(self, order: carts.Order) -> bytes:
        return _digest(_told(order, _cart(order.shipped, order), _cart(order.unshipped, order)))

    def next_step(self, asked: Question) -> Exchange:
        """`PUT {base}/merchants/{merchant}/orders/{order_ref}` with the full current state."""
        account: SequraAccount = asked.account
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Authorization": _basic(account.username, account.password),
            "Sequra-Merchant-Id": account.merchant_id,
            "Idempotency-Key": asked.idempotency_key,
        }
        if asked.trace is not None:
            headers["traceparent"] = asked.trace[:TRACE_LENGTH]
        url = _orders_url(account.base_url, account.merchant_id) + quote(asked.reference, safe="")
        return Exchange(HttpRequest("PUT", url, headers, b'{"order":' + asked.update.body + b"}", account.name))

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:  # noqa: ARG002
        """The status decides: 200 and 202 are success whatever the body (docs.sequra.com, 2026-10)."""
        kind = kind_of_status(response.status)
        wait_s = retry_after_s(response.headers.get("retry-after"), asked.now_ms)
        reason = "" if response.status < 300 else describe(response)
        return Answered(Outcome(kind, reason, response.status, wait_s, holds_account=response.status in _HOLDS_ACCOUNT))

    def describe(self, remote: bytes) -> dict[str, Any]:  # noqa: ARG002 - nothing is kept
        return {}


@lru_cache(maxsize=256)
def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


@lru_cache(maxsize=256)
def _orders_url(base_url: str, merchant_id: str) -> str:
    return f"{base_url.rstrip('/')}/merchants/{quote(merchant_id, safe='')}/orders/"


class _Told(Struct, array_like=True, frozen=True, gc=False):
    """What comes from the order's facts, in the order in which the digest goes over it; null where there is nothing.

    Encoded member by member, once for the digest and the body: to encode both from the objects costs 1.4 us more, and
    what waits to be sent, or to be committed, is one text instead of dozens of objects.
    """

    merchant_reference: Raw
    shipped_cart: Raw
    unshipped_cart: Raw
    trackings: Raw
    delivery_method: Raw
    delivery_address: Raw
    invoice_address: Raw
    customer: Raw
    store_ref: Raw


_NULL = Raw(b"null")


def _raw(value: Any) -> Raw:
    return _NULL if value is None else Raw(_encoder.encode(value))


def _told(order: carts.Order, shipped: wire.Cart, unshipped: wire.Cart) -> tuple[object, ...]:
    """The members of `_Told`, not encoded yet; `None` where there is nothing."""
    details = order.details
    references = details.references or events.References()
    method, customer = details.delivery_method, details.customer
    delivered_to, invoiced_to = details.delivery_address, details.invoice_address
    return (
        wire.MerchantReference(order.reference, references.secondary, references.subscription),
        shipped,
        unshipped,
        [_tracking(tracking) for tracking in order.trackings] or None,
        None if method is None else _delivery_method(method),
        None if delivered_to is None else _address(delivered_to),
        None if invoiced_to is None else _address(invoiced_to),
        None if customer is None else _customer(customer),
        details.store_ref,
    )


def _digest(told: _Told | tuple[object, ...]) -> bytes:
    """What configuration adds does not count, nor does the reason alone: or a new release would make all owed."""
    return blake2b(_encoder.encode(told), digest_size=16).digest()


def _body(told: _Told, order: carts.Order, account: SequraAccount) -> wire.OrderUpdate:
    return wire.OrderUpdate(
        wire.Merchant(account.merchant_id, _or_unset(order.details.store_ref or account.store_ref)),
        told.merchant_reference,
        told.shipped_cart,
        told.unshipped_cart,
        wire.PLATFORM if account.platform is None else wire.PLATFORM | account.platform,
        UNSET if order.cancellation is None else _reason(order.cancellation, account),
        _or_left_out(told.trackings),
        _or_left_out(told.delivery_method),
        _or_left_out(told.delivery_address),
        _or_left_out(told.invoice_address),
        _or_left_out(told.customer),
    )


def _or_left_out(raw: Raw) -> Raw | UnsetType:
    return UNSET if raw is _NULL else raw


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value


def _or_empty(value: str | UnsetType) -> str:
    return "" if value is UNSET else value


def _cart(cart: carts.Cart, order: carts.Order) -> wire.Cart:
    return wire.Cart(
        order.currency,
        cart.total_minor,
        [_item(item) for item in cart.items],
        _or_unset(order.details.gift),
        _or_unset(order.details.cart_ref),
    )


def _item(item: carts.Item) -> wire.Item:
    if item.type == "invoice_fee":
        return wire.Item(item.type, total_with_tax=item.total_minor)
    if item.type not in events.GOODS:
        return wire.Item(item.type, item.reference or UNSET, item.name or UNSET, total_with_tax=item.total_minor)
    reference, name = item.reference or UNSET, item.name or UNSET
    if item.attributes is None:
        return wire.Item(
            item.type,
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
        item.type,
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


def _reason(reason: carts.CancellationReason, account: SequraAccount) -> str:
    """A clerk's sentence is not sent: the account's table, a code as it is, or a default."""
    given = reason.given
    if given is not None:
        if given in account.cancellation_reasons:
            return account.cancellation_reasons[given]
        if _CODE.fullmatch(given):
            return given
    return "customer_cancel" if reason.by_shopper else account.default_cancellation_reason


def _customer(customer: events.Customer) -> wire.Customer:
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


def _address(address: events.Address) -> wire.Address:
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


def _delivery_method(method: events.DeliveryMethod) -> wire.DeliveryMethod:
    return wire.DeliveryMethod(_or_empty(method.name), method.days, method.provider, method.home_delivery)


def _tracking(tracking: Tracking) -> wire.Tracking:
    """With the members that its kind may have (docs.sequrapi.com, Delivery Report field list, 2026-10)."""
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
