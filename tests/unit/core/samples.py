"""One sample of each event type with all its members, and one with only those that it must have."""

from typing import Any

from tests.shops.events import EventSpec

ADDRESS: dict[str, Any] = {
    "given_names": "Ana",
    "surnames": "García Núñez",
    "company": "ACME",
    "line_1": "Calle Mayor 1",
    "line_2": "2º B",
    "postal_code": "08010",
    "city": "Barcelona",
    "country_code": "ES",
    "state": "B",
    "phone": "+34931234567",
    "mobile_phone": "+34666123456",
    "extra": "Ring twice",
    "vat_number": "ESX1234567X",
}
DETAILS: dict[str, Any] = {
    "references": {"secondary": "S-7", "subscription": "SUB-1", "provider": "Q-1"},
    "customer": {
        "given_names": "Ana",
        "surnames": "García",
        "email": "ana@example.org",
        "title": "mrs",
        "ref": "C-1",
        "date_of_birth": "1980-02-29",
        "nin": "12345678Z",
        "company": "ACME",
        "vat_number": "ESX1",
        "vehicle": {
            "plaque": "1234ABC",
            "brand": "Seat",
            "model": "Ibiza",
            "frame": "VSS1",
            "first_registration_date": "2019-05-01",
        },
    },
    "delivery_address": ADDRESS,
    "invoice_address": ADDRESS,
    "delivery_method": {"name": "post", "days": "2-3", "provider": "Correos", "home_delivery": True},
    "gift": False,
    "cart_ref": "cart-1",
    "store_ref": "store-9",
}
PRODUCT: dict[str, Any] = {
    "line_id": "1",
    "type": "product",
    "reference": "SKU-1",
    "name": "Camiseta ñ €",
    "quantity": 3,
    "unit_price_minor": 333,
    "total_minor": 1000,
    "downloadable": False,
    "vat_rate_bp": 2100,
    "attributes": {
        "perishable": False,
        "personalized": True,
        "restockable": True,
        "category": "shirts",
        "description": "A shirt",
        "manufacturer": "M",
        "supplier": "S",
        "product_id": "P-1",
        "url": "https://shop.example/p/1",
        "tracking_reference": "T1",
        "subscription": {
            "period_months": 12,
            "price_minor": 500,
            "price_per_item_minor": 250,
            "vat_rate_bp": 2100,
        },
    },
}
SERVICE: dict[str, Any] = {
    "type": "service",
    "reference": "SRV",
    "name": "Course",
    "quantity": 1,
    "unit_price_minor": 900,
    "total_minor": 900,
    "downloadable": True,
    "attributes": {"ends_in": "P3M15D", "rendered": True, "supplier": "S"},
}
OTHERS: list[dict[str, Any]] = [
    {"type": "handling", "reference": "ship", "name": "Shipping", "total_minor": 500, "vat_rate_bp": 0},
    {"type": "invoice_fee", "total_minor": 95, "applies_to": ["1", "SRV"]},
    {"type": "discount", "reference": "COUPON", "name": "Coupon", "total_minor": -100, "applies_to": ["1"]},
    {"type": "other_payment", "reference": "GIFT", "name": "Gift card", "total_minor": -50},
    {"type": "voucher", "reference": "V", "name": "Voucher", "total_minor": 10},
    {"type": "registration", "reference": "SKU-1-reg", "name": "Reg. Camiseta", "total_minor": 20},
]
LINES = [PRODUCT, SERVICE, *OTHERS]
POSTAL: dict[str, Any] = {
    "reference": "T1",
    "type": "postal",
    "carrier": "UPS",
    "tracking_number": "1Z",
    "tracking_url": "https://ups.example/1Z",
    "delivered_at": "2026-03-05T10:00:00Z",
}
PICKUP: dict[str, Any] = {
    "reference": "T2",
    "type": "pickup_store",
    "tracking_number": "2Z",
    "delivered_at": "2026-03-05T10:00:00.123456+01:00",
    "available_at": "2026-03-04t10:00:00z",
    "store_ref": "9",
    "operator_ref": "op",
    "line_1": "Gran Vía 2",
    "line_2": "",
    "postal_code": "28001",
    "city": "Madrid",
    "state": "M",
    "country_code": "ES",
}
NAMED = {"provider_order": "67890"}
OPERATORS = {
    "release": False,
    "resend": False,
    "note": True,
    "adopt": True,
    "forget": True,
    "pause": False,
    "resume": False,
}
"""The types of operators; whether they must have a reason."""
UNITS = [{"line_id": "1", "quantity": 2}]
MINIMAL_LINES = [{"reference": "A", "name": "A", "quantity": 1, "unit_price_minor": 1, "total_minor": 1}]

FULL: dict[str, dict[str, Any]] = {
    "order.confirmed": {"currency": "EUR", "lines": LINES, "payment_state": "approved"} | DETAILS,
    "order.payment_state_changed": {"payment_state": "on_hold"},
    "order.cart_updated": {"currency": "EUR", "lines": LINES, "cart_version": 7},
    "order.items_shipped": {
        "shipment_id": "s1",
        "lines": UNITS,
        "shipped_at": "2026-03-02T08:00:00Z",
        "tracking": [POSTAL, PICKUP],
    },
    "order.items_delivered": {"shipment_id": "s1", "delivered_at": "2026-03-05T10:00:00Z"},
    "order.items_returned": {
        "return_id": "r1",
        "lines": UNITS,
        "from": "shipped",
        "refund_handling_minor": 100,
        "fee_minor": 50,
        "refunded_minor": 600,
        "reason": "too small",
    },
    "order.items_cancelled": {"cancellation_id": "c1", "lines": UNITS, "reason": "out_of_stock"},
    "order.refunded": {
        "refund_id": "f1",
        "amount_minor": 250,
        "applies_to": ["1", "ship"],
        "name": "Goodwill",
        "reason": "late",
    },
    "order.fee_charged": {"fee_id": "k1", "amount_minor": 300, "name": "Second parcel"},
    "order.cancelled": {"reason": "changed my mind", "by": "shopper"},
    "order.carts_stated": {
        "currency": "EUR",
        "shipped": [PRODUCT],
        "unshipped": [SERVICE],
        "cart_version": -1,
        "reason": "repaired by hand",
    },
    "order.details_changed": DETAILS,
    "order.retracted": {"shipment_id": "s1"},
    "order.observed": {
        "completed_at": "2026-03-02T08:00:00.123456+01:00",
        "currency": "EUR",
        "amount_minor": 2500,
        "payment_method": "O/Bizum",
        "country": "ES",
        "device": "tablet/ipad",
        "status": "shipped",
        "raw_status": "wc-completed",
        "sequra_offered": False,
    },
    "provider.payment_state": NAMED | {"state": "approved", "transaction_id": "454212"},
    "provider.transaction": NAMED
    | {
        "transaction_id": "454213",
        "original_transaction_id": "454212",
        "kind": "Capture",
        "status": "Error",
        "amount_minor": 1000,
        "currency": "SEK",
        "error": "Declined",
    },
    "provider.upsell": NAMED | {"status": "Completed", "transaction_id": "454214", "replaces": "454212"},
    "provider.delivery": NAMED | {"state": "second_attempt"},
    "provider.cancelled": NAMED | {"by": "shopper"},
    "provider.cancel_asked": NAMED,
    "provider.risk": NAMED | {"level": "high_risk"},
    "provider.disbursed": NAMED
    | {
        "disbursement": "/merchants/acme/disbursements/1",
        "amount_minor": -1000,
        "maximum_minor": 1800,
        "issued_on": "2026-03-09",
        "reference": "T-1",
    },
    "provider.shipping": NAMED | {"provider": "Ingrid", "success": False, "error": "no slot", "payload": {"a": [1]}},
    "provider.card_saved": NAMED | {"id": "c1", "brand": "Visa", "last4": "0042"},
    "provider.unmapped": NAMED | {"kind": "order-status", "word": ""},
    **{f"operator.{name}": {"by": "ana", "why": "ticket 4711"} for name in OPERATORS},
}
MINIMAL: dict[str, dict[str, Any]] = {
    "order.confirmed": {"currency": "EUR", "lines": MINIMAL_LINES},
    "order.payment_state_changed": {"payment_state": "refused"},
    "order.cart_updated": {"currency": "EUR", "lines": MINIMAL_LINES},
    "order.items_shipped": {"shipment_id": "s1", "lines": UNITS},
    "order.items_delivered": {"shipment_id": "s1", "delivered_at": "2026-03-05T10:00:00Z"},
    "order.items_returned": {"return_id": "r1", "lines": [], "refund_handling_minor": 1},
    "order.items_cancelled": {"cancellation_id": "c1", "lines": UNITS},
    "order.refunded": {"refund_id": "f1", "amount_minor": 1},
    "order.fee_charged": {"fee_id": "k1", "amount_minor": 1},
    "order.cancelled": {},
    "order.carts_stated": {"currency": "EUR", "shipped": [], "unshipped": []},
    "order.details_changed": dict.fromkeys(DETAILS),
    "order.retracted": {"stated": True},
    "order.observed": {"completed_at": "2026-03-02T08:00:00Z", "currency": "EUR"},
    "provider.payment_state": {"state": "under_evaluation"},
    "provider.transaction": {
        "transaction_id": "1",
        "kind": "Refund",
        "status": "Success",
        "amount_minor": 0,
        "currency": "SEK",
    },
    "provider.upsell": {"status": "Error", "transaction_id": "0"},
    "provider.delivery": {"state": "refunded"},
    "provider.cancelled": {"by": "provider"},
    "provider.cancel_asked": {},
    "provider.risk": {"level": ""},
    "provider.disbursed": {"disbursement": "1", "amount_minor": 0, "issued_on": "2026-03-09"},
    "provider.shipping": {"provider": "Unifaun", "success": True},
    "provider.card_saved": {"id": "c", "brand": "", "last4": "1234"},
    "provider.unmapped": {"kind": "", "word": "?"},
    **{
        f"operator.{name}": {"by": "a"} | ({"why": "?"} if is_reasoned else {})
        for name, is_reasoned in OPERATORS.items()
    },
}
OF_ACCOUNTS = {"operator.pause": {"subject": "acme"}, "operator.resume": {"subject": "acme"}}
"""Types whose subject is an account."""
SAMPLES = [
    EventSpec(kind, data, OF_ACCOUNTS.get(kind, {})) for samples in (FULL, MINIMAL) for kind, data in samples.items()
]
