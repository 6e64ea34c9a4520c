"""What goes along with the carts: trackings, the cancellation reason, details."""

from typing import Any

import pytest

from tests.shops.events import (
    REFERENCE,
    EventSpec,
    cancelled,
    cart_updated,
    confirmed,
    delivered,
    goods,
    items_cancelled,
    order,
    refunded,
    retracted,
    returned,
    shipped,
    stated,
)
from worker.model.order import CancellationReason

BASE = confirmed(goods("A", 2, 200), goods("B", 1, 100))
POSTAL: dict[str, Any] = {"reference": "T1", "type": "postal", "carrier": "UPS", "tracking_number": "1Z"}


def test_order_is_known_by_its_reference_and_currency() -> None:
    """The reference is what follows the first slash of the subject, other slashes included."""
    found = order(BASE)
    assert (found.reference, found.currency, found.confirmed_total_minor) == (REFERENCE, "EUR", 300)


# --- trackings -----------------------------------------------------------------------------------------------------


def test_trackings_stand_in_the_order_of_their_shipments() -> None:
    """By the shipments' stamps, not by arrival; several of one shipment in their own order."""
    late = shipped("s1", [POSTAL | {"reference": "late"}], A=1).but(time="2026-03-02T00:00:00Z")
    early = shipped("s2", [POSTAL | {"reference": "one"}, POSTAL | {"reference": "two"}], A=1)
    assert [each.reference for each in order(BASE, late, early).trackings] == ["one", "two", "late"]


def test_trackings_of_returned_shipments_stay() -> None:
    """A return takes the goods back and leaves the parcel told; a retraction takes it away."""
    told = (BASE, shipped("s1", [POSTAL], A=2))
    assert len(order(*told, returned("r1", A=2)).trackings) == 1
    assert order(*told, retracted(shipment_id="s1")).trackings == []


def test_delivery_fills_what_trackings_lack() -> None:
    """Only missing `delivered_at` are filled, and only those of the shipment."""
    own = POSTAL | {"reference": "T2", "delivered_at": "2026-03-02T09:00:00Z"}
    told = (BASE, shipped("s1", [POSTAL, own], A=1), shipped("s2", [POSTAL | {"reference": "T3"}], A=1))
    found = order(*told, delivered("s1", "2026-03-03T09:00:00Z"))
    assert [each.delivered_at or None for each in found.trackings] == [
        "2026-03-03T09:00:00Z",
        "2026-03-02T09:00:00Z",
        None,
    ]
    assert found.trackings[0].tracking_number == "1Z"


def test_delivery_without_trackings_changes_nothing() -> None:
    """No tracking, nothing to fill; nor is one made up for a shipment that nobody told."""
    told = (BASE, shipped("s1", A=1), shipped("s2", [], A=1))
    assert order(*told, delivered("s1"), delivered("s9")).is_same(order(*told))


def test_trackings_go_out_beside_a_statement() -> None:
    """Details and trackings go out as usual when both carts are stated."""
    told = (BASE, shipped("s1", [POSTAL], A=1), stated([goods("A", 1, 100)], []))
    assert [each.reference for each in order(*told).trackings] == ["T1"]


# --- why both carts are empty --------------------------------------------------------------------------------------

EMPTY = stated([], [])
REASONS: list[tuple[str, list[EventSpec], CancellationReason | None]] = [
    ("cancelled, no reason", [cancelled()], CancellationReason(None, False)),
    ("cancelled with a reason", [cancelled(reason="out_of_stock")], CancellationReason("out_of_stock", False)),
    ("cancelled by the shopper", [cancelled(by="shopper")], CancellationReason(None, True)),
    ("by the shopper, with a reason", [cancelled(by="shopper", reason="late")], CancellationReason("late", True)),
    ("cancelled by the provider", [cancelled(by="provider")], CancellationReason(None, False)),
    ("all items cancelled", [items_cancelled("c1", "late", A=2, B=1)], CancellationReason("late", False)),
    (
        "the newest item cancellation that gives a reason",
        [items_cancelled("c1", "old", A=1), items_cancelled("c2", "new", A=1), items_cancelled("c3", B=1)],
        CancellationReason("new", False),
    ),
    (
        "item cancellations, none with a reason",
        [items_cancelled("c1", A=2, B=1)],
        CancellationReason(None, False),
    ),
    (
        "a retracted one gives no reason",
        [items_cancelled("c1", "old", A=2, B=1), items_cancelled("c2", "new", A=1), retracted(cancellation_id="c2")],
        CancellationReason("old", False),
    ),
    (
        "the order's own reason before that of items",
        [items_cancelled("c1", "items", A=1), cancelled(reason="order")],
        CancellationReason("order", False),
    ),
    (
        "the items' reason when the order's cancellation gives none",
        [items_cancelled("c1", "items", A=1), cancelled(by="shopper")],
        CancellationReason("items", True),
    ),
    (
        "an empty text is no reason",
        [items_cancelled("c1", "x", A=1), cancelled(reason="")],
        CancellationReason("x", False),
    ),
    ("stated", [stated([], [], reason="fraud")], CancellationReason("fraud", False)),
    ("stated without a reason", [EMPTY], CancellationReason(None, False)),
    ("stated with an empty reason", [stated([], [], reason="")], CancellationReason(None, False)),
    (
        "reasons of item cancellations no longer count beside a statement",
        [items_cancelled("c1", "items", A=1), EMPTY],
        CancellationReason(None, False),
    ),
    (
        "the order's own reason before that of the statement",
        [stated([], [], reason="stated"), cancelled(reason="order")],
        CancellationReason("order", False),
    ),
    (
        "a statement and a cancellation that gives no reason",
        [stated([], [], reason="stated"), cancelled(by="shopper")],
        CancellationReason("stated", True),
    ),
    ("something was shipped once", [shipped("s1", A=2, B=1), returned("r1", A=2, B=1), cancelled()], None),
    ("something was shipped before the statement", [shipped("s1", A=1), stated([], [], reason="x")], None),
    (
        "the shipment was retracted",
        [shipped("s1", A=1), retracted(shipment_id="s1"), cancelled(reason="late")],
        CancellationReason("late", False),
    ),
    (
        "only returns out of the pending",
        [returned("r1", origin="unshipped", A=2, B=1)],
        CancellationReason(None, False),
    ),
    (
        "a return out of the pending with a reason",
        [returned("r1", origin="any", reason="fraud", A=2, B=1)],
        CancellationReason("fraud", False),
    ),
    ("only refunds", [refunded("f1", 300)], CancellationReason(None, False)),
    (
        "the newest of a cancellation, a return and a refund that gives one",
        [
            refunded("f1", 100, reason="refund"),
            items_cancelled("c1", "cancellation", A=1),
            returned("r1", origin="unshipped", reason="return", A=1),
            refunded("f2", 100),
        ],
        CancellationReason("return", False),
    ),
    (
        "a retracted return and a retracted refund give none",
        [
            returned("r1", origin="unshipped", reason="return", A=1),
            refunded("f1", 1, reason="refund"),
            retracted(return_id="r1"),
            retracted(refund_id="f1"),
            cancelled(),
        ],
        CancellationReason(None, False),
    ),
    ("something is left", [items_cancelled("c1", "late", A=2)], None),
    ("cancelled, but something is kept", [shipped("s1", A=1), cancelled(reason="late")], None),
]


@pytest.mark.parametrize(("specs", "reason"), [row[1:] for row in REASONS], ids=[row[0] for row in REASONS])
def test_cancellation_reason(specs: list[EventSpec], reason: CancellationReason | None) -> None:
    """Only when both carts are empty and nothing was ever shipped, whatever emptied them."""
    assert order(BASE, *specs).cancellation == reason


def test_retracted_cancellation_gives_no_reason() -> None:
    """The reason of a cancellation that did not happen is not told, nor who made it."""
    told = (cancelled(reason="late", by="shopper"), retracted(cancelled=True), refunded("f1", 300))
    assert order(BASE, *told).cancellation == CancellationReason(None, False)
    items = items_cancelled("c1", "items", A=2, B=1)
    assert order(BASE, items, *told[:2]).cancellation == CancellationReason("items", False)


def test_free_goods_that_are_pending_are_no_empty_cart() -> None:
    """A cart of total 0 with items in it is not empty."""
    free = confirmed(goods("A", 1, 0))
    assert order(free).cancellation is None
    assert order(free, cancelled(), cart_updated(goods("A", 3, 0))).cancellation is not None
