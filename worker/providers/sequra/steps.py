"""The adapter for seQura: Order Update, one PUT with the order's full state, or the delivery report. Pure.

With updates it is the simplest of adapters: one command and done. The same update may be sent again at any time, and
seQura cannot be read. If the account's `delivery` says so, orders are sent in reports by a job (`report.py`,
`pages.py`); then a step says whether an order waits for a report, is sent by update, or can no longer be sent.
"""

import re
from hashlib import blake2b
from typing import Any, assert_never

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from worker.model import order as carts
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    HttpRequest,
    HttpResponse,
    Settled,
    Step,
    Unsendable,
)
from worker.model.provider import Answered, GuaranteeLevel, Question, Update
from worker.providers.sequra import wire
from worker.providers.sequra.calls import headers, merchant_url
from worker.providers.sequra.checks import problem_of
from worker.providers.sequra.memory import Reported, kept, read
from worker.providers.sequra.options import SequraAccount
from worker.providers.sequra.rendering import (
    or_unset,
    wire_address,
    wire_cart,
    wire_customer,
    wire_method,
    wire_reference,
    wire_tracking,
)
from worker.providers.sequra.report import Situation, judge, situation_of
from worker.providers.sequra.responses import outcome_of

_encoder = msgspec.json.Encoder()

_CODE = re.compile(r"[a-z][a-z0-9_]{0,49}")


class _Body(Struct, array_like=True, frozen=True):
    """The body of an update if reports are sent."""

    situation: Situation
    problem: str | None
    """Why the update must not be sent."""
    update: Raw


_body_decoder = msgspec.json.Decoder(_Body)
_BY_UPDATE = kept(Reported(by_update=True))


class Sequra:
    """The adapter. Level D: nothing in the API lets seQura distinguish an old request from a new one."""

    name = "sequra"
    guarantee: GuaranteeLevel = "D"
    can_read = False

    def render(self, order: carts.Order, account: SequraAccount) -> Update:
        shipped, unshipped = wire_cart(order.shipped, order), wire_cart(order.unshipped, order)
        payload = _Payload(*map(_raw, _payload(order, shipped, unshipped)))
        problem = problem_of(shipped, unshipped, order.confirmed_total_minor)
        update = _raw(_body(payload, order, account))
        if account.delivery == "update":
            return Update(_digest(payload), problem, update)
        return Update(_digest(payload), None, _raw(_Body(situation_of(order), problem, update)))

    def digest(self, order: carts.Order) -> bytes:
        return _digest(_payload(order, wire_cart(order.shipped, order), wire_cart(order.unshipped, order)))

    def next_step(self, asked: Question) -> Step:
        account: SequraAccount = asked.account
        if account.delivery == "update" and asked.remote in (b"", _BY_UPDATE):
            return _put(asked, asked.update.body, _BY_UPDATE)
        reported = read(asked.remote)
        if account.delivery == "update":
            if reported is None or reported.under_way is not None:
                return AwaitResult(_POLL_S, _UNDER_WAY, None)
            return _put(asked, asked.update.body, kept(replace(reported, by_update=True)))
        body = _body_decoder.decode(asked.update.body)
        verdict = judge(
            body.situation,
            reported,
            account.delivery,
            may_land_late=asked.may_land_late,
            remote_unknown=asked.remote_unknown,
        )
        match verdict.kind:
            case "update" if body.problem is not None:
                return Unsendable(body.problem, None, "not sent")
            case "update":
                assert reported is not None  # otherwise the verdict would be different
                return _put(asked, body.update, kept(_after_update(reported, body.situation)))
            case "same" | "later":
                return Settled(None)
            case "changed":
                return Unsendable(verdict.why, None, "changed after its report")
            case "unsupported":
                return Unsendable(verdict.why, None)
            case "under_way":
                return AwaitResult(None, _UNDER_WAY, None)
            case "due":
                return AwaitResult(None, "waits for its report", None)
            case "broken":
                return AwaitResult(None, f"cannot be reported: {verdict.why}", None)
            case unknown:
                assert_never(unknown)

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:
        return Answered(outcome_of(response, asked.now_ms, sent.remote))

    def describe(self, remote: bytes) -> dict[str, Any]:
        if remote == _BY_UPDATE:
            return {}  # what most orders have, and every one of them is asked for it once it is told
        reported = read(remote)
        if reported is None:
            return {"reported": "by a newer version"}
        found: dict[str, Any] = {}
        if reported.is_reported:
            found["reported"] = sorted(reported.shipments)
        if reported.under_way is not None:
            found["being_reported"] = sorted(reported.under_way.shipments)
        if reported.refused_ms:
            found["report_refused"] = reported.refused_status
        return found


_UNDER_WAY = "its report is under way"
_POLL_S = 300.0


def _put(asked: Question, body: bytes | Raw, remote: bytes) -> Exchange:
    """`PUT {base}/merchants/{merchant}/orders/{order_ref}` with the full current state."""
    account: SequraAccount = asked.account
    sent = headers(account) | {"Idempotency-Key": asked.idempotency_key} | asked.trace_headers
    url = f"{merchant_url(account.base_url, account.merchant_id)}/orders/{carts.quoted(asked.reference)}"
    return Exchange(HttpRequest("PUT", url, sent, b'{"order":' + body + b"}", account.name), remote=remote)


def _after_update(reported: Reported, now: Situation) -> Reported:
    """The memory once an update was accepted. Until that is known, the next one is not skipped as unchanged."""
    return replace(
        reported, by_update=True, shipped=now.shipped, unshipped=now.unshipped, refused_ms=0, refused_status=0
    )


class _Payload(Struct, array_like=True, frozen=True, gc=False):
    """The part that comes from the order's facts, in the order of the digest; null for absent members.

    Encoded member by member, once for the digest and the body: encoding both from the objects costs 1.4 us more, and
    waiting updates are one text instead of dozens of objects.
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


def _payload(order: carts.Order, shipped: wire.Cart, unshipped: wire.Cart) -> tuple[object, ...]:
    """The members of `_Payload` before encoding; `None` for absent members."""
    details = order.details
    method, customer = details.delivery_method, details.customer
    delivered_to, invoiced_to = details.delivery_address, details.invoice_address
    return (
        wire_reference(order),
        shipped,
        unshipped,
        [wire_tracking(tracking) for tracking in order.trackings] or None,
        None if method is None else wire_method(method),
        None if delivered_to is None else wire_address(delivered_to),
        None if invoiced_to is None else wire_address(invoiced_to),
        None if customer is None else wire_customer(customer),
        details.store_ref,
    )


def _digest(payload: _Payload | tuple[object, ...]) -> bytes:
    """Without values from the configuration, and without the reason: or a new release would make all orders owed."""
    return blake2b(_encoder.encode(payload), digest_size=16).digest()


def _body(payload: _Payload, order: carts.Order, account: SequraAccount) -> wire.OrderUpdate:
    return wire.OrderUpdate(
        wire.Merchant(account.merchant_id, or_unset(order.details.store_ref or account.store_ref)),
        payload.merchant_reference,
        payload.shipped_cart,
        payload.unshipped_cart,
        wire.PLATFORM if account.platform is None else wire.PLATFORM | account.platform,
        UNSET if order.cancellation is None else _reason(order.cancellation, account),
        _or_left_out(payload.trackings),
        _or_left_out(payload.delivery_method),
        _or_left_out(payload.delivery_address),
        _or_left_out(payload.invoice_address),
        _or_left_out(payload.customer),
    )


def _or_left_out(raw: Raw) -> Raw | UnsetType:
    return UNSET if raw is _NULL else raw


def _reason(reason: carts.CancellationReason, account: SequraAccount) -> str:
    """The account's table, a code verbatim, or a default: a clerk's sentence is never sent."""
    given = reason.given
    if given is not None:
        if given in account.cancellation_reasons:
            return account.cancellation_reasons[given]
        if _CODE.fullmatch(given):
            return given
    return "customer_cancel" if reason.by_shopper else account.default_cancellation_reason
