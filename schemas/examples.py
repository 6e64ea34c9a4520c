"""One example of each event, as a shop may write it: shown in the generated reference, and tested to be taken."""

from typing import Any

_SHIRT = {"reference": "shirt1234", "name": "Shirt", "quantity": 2, "unit_price_minor": 1250, "total_minor": 2500}
_JACKET = {"reference": "jacket9876", "name": "Jacket", "quantity": 1, "unit_price_minor": 7100, "total_minor": 7100}
_SHIPPING = {"type": "handling", "reference": "standard", "name": "Shipping", "total_minor": 495}
_AT_QLIRO = {"provider_order": "67890"}

EXAMPLES: dict[str, dict[str, Any]] = {
    "order.confirmed": {
        "currency": "EUR",
        "lines": [
            _SHIRT,
            _JACKET,
            _SHIPPING,
            {"type": "discount", "reference": "SPRING", "name": "Coupon", "total_minor": -500},
        ],
        "delivery_method": {"name": "Standard delivery", "days": "2-3"},
    },
    "order.payment_state_changed": {"payment_state": "on_hold"},
    "order.cart_updated": {"currency": "EUR", "lines": [_SHIRT, _SHIPPING], "cart_version": 2},
    "order.items_shipped": {
        "shipment_id": "s1",
        "lines": [{"line_id": "shirt1234", "quantity": 1}],
        "tracking": [{"reference": "p1", "type": "postal", "carrier": "Correos", "tracking_number": "PQ123456789ES"}],
    },
    "order.items_delivered": {"shipment_id": "s1", "delivered_at": "2026-03-05T10:30:00+01:00"},
    "order.items_returned": {
        "return_id": "r1",
        "lines": [{"line_id": "shirt1234", "quantity": 1}],
        "from": "shipped",
        "fee_minor": 299,
    },
    "order.items_cancelled": {
        "cancellation_id": "c1",
        "lines": [{"line_id": "jacket9876", "quantity": 1}],
        "reason": "out_of_stock",
    },
    "order.refunded": {"refund_id": "f1", "amount_minor": 1000, "applies_to": ["jacket9876"], "name": "Goodwill"},
    "order.fee_charged": {"fee_id": "k1", "amount_minor": 300, "name": "Second delivery"},
    "order.cancelled": {"reason": "out_of_stock", "by": "merchant"},
    "order.carts_stated": {"currency": "EUR", "shipped": [_SHIRT], "unshipped": [_SHIPPING]},
    "order.details_changed": {"cart_ref": "cart-77", "gift": None},
    "order.retracted": {"shipment_id": "s1"},
    "order.observed": {
        "completed_at": "2026-03-02T09:15:00+01:00",
        "currency": "EUR",
        "amount_minor": 9095,
        "payment_method": "CC",
        "country": "ES",
        "device": "phone/iphone",
        "status": "processing",
        "raw_status": "paid",
        "sequra_offered": True,
    },
    "provider.payment_state": _AT_QLIRO | {"state": "approved", "transaction_id": "454212"},
    "provider.transaction": _AT_QLIRO
    | {
        "transaction_id": "454213",
        "original_transaction_id": "454212",
        "kind": "Capture",
        "status": "Success",
        "amount_minor": 9095,
        "currency": "SEK",
    },
    "provider.upsell": _AT_QLIRO | {"status": "Completed", "transaction_id": "454214", "replaces": "454212"},
    "provider.delivery": {"provider_order": "20211", "state": "accepted"},
    "provider.cancelled": {"by": "provider"},
    "provider.cancel_asked": {},
    "provider.risk": {"level": "low_risk"},
    "provider.disbursed": {
        "disbursement": "/merchants/acme/disbursements/7d1f",
        "amount_minor": 130000,
        "maximum_minor": 180000,
        "issued_on": "2026-03-09",
        "reference": "SEQ-2026-10",
    },
    "provider.shipping": _AT_QLIRO | {"provider": "Ingrid", "success": True, "payload": {"tos_id": "01"}},
    "provider.card_saved": _AT_QLIRO | {"id": "c-1", "brand": "Visa", "last4": "4242"},
    "provider.unmapped": _AT_QLIRO | {"kind": "order-status", "word": "Frobnicated"},
    "operator.release": {"by": "ana"},
    "operator.resend": {"by": "ana", "why": "the provider restored a backup"},
    "operator.note": {"by": "ana", "why": "the shopper called, ticket 4711"},
    "operator.adopt": {"by": "ana", "why": "settled in the back office, ticket 4711"},
    "operator.forget": {"by": "ana", "why": "erasure request 2026-117"},
    "operator.pause": {"by": "ana", "why": "maintenance at the provider until 04:00"},
    "operator.resume": {"by": "ana"},
}
"""`data` by event type."""


RESULTS: dict[str, dict[str, Any]] = {
    "cartsync.order_changed": {
        "specversion": "1.0",
        "id": "acme/A14/12345:4183:settled:3",
        "source": "/cartsync/cartsync",
        "type": "cartsync.order_changed",
        "time": "2026-03-02T08:15:02.417Z",
        "subject": "acme/A14/12345",
        "sequence": "3",
        "data": {
            "status": "settled",
            "revision": 4183,
            "acked": 4183,
            "unsupported": False,
            "currency": "EUR",
            "shipped_minor": 1250,
            "unshipped_minor": 8345,
        },
    },
    "cartsync.operated": {
        "specversion": "1.0",
        "id": "acme/A14/12345:4190:operated:3",
        "source": "/cartsync/cartsync",
        "type": "cartsync.operated",
        "time": "2026-03-02T09:02:11.052Z",
        "subject": "acme/A14/12345",
        "data": {
            "command": "adopt",
            "by": "ana",
            "why": "settled in the back office, ticket 4711",
            "done": True,
            "outcome": "what the provider has counts as sent",
            "event_id": "5f0c9b1e-7f53-4c1c-9d5f-0c2a4f6b7d10",
            "partition": 3,
            "status": "settled",
            "revision": 4183,
            "acked": 4183,
        },
    },
}
"""A result of each type, whole."""


def example_event(kind: str) -> dict[str, Any]:
    """The whole CloudEvents object of the example of this type."""
    family = kind.partition(".")[0]
    return {
        "specversion": "1.0",
        "id": "7c1f",
        "source": _SOURCES.get(family, "/shops/acme"),
        "type": kind,
        "time": "2026-03-02T08:15:00Z",
        "subject": "acme" if kind in _OF_ACCOUNTS else "acme/A14/12345",
        "data": EXAMPLES[kind],
    }


_SOURCES = {"provider": "/cartsync/acme/order-status", "operator": "/cartsync/operator"}
_OF_ACCOUNTS = ("operator.pause", "operator.resume")
