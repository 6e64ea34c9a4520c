"""The table of contradictions of `DOMAIN.md` section 4, row by row, with the words of the reasons."""

from typing import Any

import pytest

from schemas.base import AMOUNT_MAX_MINOR
from tests.shops.events import (
    EventSpec,
    assessment,
    cancelled,
    cart_updated,
    confirmed,
    details,
    fee_charged,
    goods,
    items_cancelled,
    other,
    payment,
    refunded,
    retracted,
    returned,
    shipped,
    stated,
)
from worker.core.order import REASONS_MAX

SHIRTS = confirmed(goods("shirt", 3, 300))
MIXED = confirmed(goods("shirt", 3, 300), other("handling", "post", 50), other("discount", "coupon", -10))
JACKET = confirmed(goods("jacket", 1, 700))
STATED = stated([goods("shirt", 1, 100)], [goods("shirt", 2, 200)])

CONTRADICTIONS: list[tuple[str, list[EventSpec], str]] = [
    ("unknown line", [SHIRTS, shipped("s2", hat=1)], "shipment s2 ships 1 × hat, which the order does not have"),
    (
        "unknown line returned",
        [SHIRTS, returned("r1", origin="unshipped", hat=2)],
        "return r1 returns 2 × hat, which the order does not have",
    ),
    (
        "unknown line cancelled",
        [SHIRTS, items_cancelled("c1", hat=1)],
        "cancellation c1 cancels 1 × hat, which the order does not have",
    ),
    (
        "kept units of a line that is gone",
        [SHIRTS, shipped("s1", shirt=2), cart_updated(goods("hat", 1, 10))],
        "line shirt: 2 kept, which the newest cart does not have",
    ),
    ("units of a charge", [MIXED, shipped("s1", post=1)], "shipment s1 ships 1 × post, which is no goods line"),
    (
        "units of an adjustment",
        [MIXED, items_cancelled("c1", coupon=1)],
        "cancellation c1 cancels 1 × coupon, which is no goods line",
    ),
    (
        "units of a charge that is gone",
        [MIXED, cart_updated(goods("shirt", 3, 300)), returned("r1", origin="unshipped", post=1)],
        "return r1 returns 1 × post, which is no goods line",
    ),
    (
        "units of a line that is a charge by now",
        [SHIRTS, shipped("s1", shirt=1), cart_updated(other("handling", "shirt", 5), goods("hat", 1, 1))],
        "shipment s1 ships 1 × shirt, which is no goods line",
    ),
    ("more shipped than ordered", [SHIRTS, shipped("s1", shirt=4)], "line shirt: 4 shipped of 3 ordered"),
    (
        "kept and cancelled exceed the ordered",
        [SHIRTS, shipped("s1", shirt=3), items_cancelled("c1", shirt=1)],
        "line shirt: 3 kept + 1 cancelled of 3 ordered (3 shipped, 0 returned)",
    ),
    (
        "kept and returned unsent exceed the ordered",
        [SHIRTS, shipped("s1", shirt=3), returned("r1", shirt=1), returned("r2", origin="unshipped", shirt=2)],
        "line shirt: 2 kept + 2 returned unsent of 3 ordered (3 shipped, 1 returned)",
    ),
    (
        "all three exceed the ordered",
        [
            SHIRTS,
            shipped("s1", shirt=1),
            items_cancelled("c1", shirt=2),
            returned("r1", origin="unshipped", shirt=1),
        ],
        "line shirt: 1 kept + 2 cancelled + 1 returned unsent of 3 ordered (1 shipped, 0 returned)",
    ),
    (
        "the newest content has fewer than are kept",
        [SHIRTS, shipped("s1", shirt=3), returned("r1", shirt=1), cart_updated(goods("shirt", 1, 100))],
        "line shirt: 2 kept of 1 ordered (3 shipped, 1 returned)",
    ),
    (
        "more returned than shipped",
        [SHIRTS, shipped("s1", shirt=1), returned("r1", shirt=2)],
        "line shirt: 2 returned, 1 shipped",
    ),
    (
        "more returned than shipped of a line that is gone",
        [SHIRTS, cart_updated(goods("hat", 1, 10)), returned("r1", shirt=2)],
        "line shirt: 2 returned, 0 shipped",
    ),
    (
        "refunds above all that was chargeable",
        [confirmed(goods("A", 1, 10_000)), shipped("s1", A=1), refunded("f1", 12_500)],
        "refunds 12500, chargeable 10000",
    ),
    (
        "refunds above content and fees by more than a cent a line",
        [JACKET, fee_charged("k1", 20), shipped("s1", jacket=1), returned("r1", fee=5, jacket=1), refunded("f1", 727)],
        "refunds 727, chargeable 725",
    ),
    (
        "a refund for a line that the order does not have",
        [MIXED, refunded("f1", 5, applies_to=["shirt", "hat"])],
        "refund f1 names hat, which the order does not have",
    ),
    (
        "a refund for an adjustment",
        [MIXED, refunded("f1", 5, applies_to=["coupon"])],
        "refund f1 names coupon, which is neither goods nor a charge",
    ),
    (
        "a refund for an adjustment that is gone",
        [MIXED, cart_updated(goods("shirt", 3, 300)), refunded("f1", 5, applies_to=["coupon"])],
        "refund f1 names coupon, which is neither goods nor a charge",
    ),
    (
        "units from anywhere, more than there are",
        [SHIRTS, shipped("s1", shirt=1), returned("r1", origin="any", shirt=4)],
        "line shirt: 2 returned, 1 shipped",
    ),
    (
        "units from anywhere of a line that is gone, some kept",
        [SHIRTS, shipped("s1", shirt=3), cart_updated(goods("hat", 1, 10)), returned("r1", origin="any", shirt=1)],
        "line shirt: 2 kept, which the newest cart does not have",
    ),
    (
        "more paid back for units than the order is worth",
        [JACKET, shipped("s1", jacket=1), returned("r1", jacket=1, paid=702)],
        "return r1 refunded 702, the carts with its units 700",
    ),
    (
        "more paid back for units in two returns than the order is worth",
        [
            confirmed(goods("a", 2, 200)),
            shipped("s1", a=2),
            returned("r1", a=1, paid=150),
            returned("r2", a=1, paid=60),
        ],
        "return r2 and 1 older refunded 210, the carts with its units 200",
    ),
    (
        "cancelled though all is shipped, and something came back from anywhere",
        [confirmed(goods("a", 2, 2)), shipped("s1", a=2), returned("r1", origin="any", a=1), cancelled()],
        "cancelled, but all is shipped and 1 × a is not returned",
    ),
    (
        "fee newer than the statement",
        [SHIRTS, STATED, fee_charged("k1", 5)],
        "fee k1 is newer than the statement",
    ),
    ("handling refunded above handling", [MIXED, returned("r1", handling=51)], "handling refunded 51, handling 50"),
    (
        "cancelled though all is shipped and kept",
        [JACKET, shipped("s1", jacket=1), cancelled()],
        "cancelled, but all is shipped and 1 × jacket is not returned",
    ),
    (
        "cancelled though all is shipped and several are kept",
        [confirmed(goods("a", 2, 2), goods("b", 1, 1)), shipped("s1", a=2, b=1), cancelled()],
        "cancelled, but all is shipped and 2 × a, 1 × b are not returned",
    ),
    (
        "cancelled by the provider though units are kept",
        [SHIRTS, shipped("s1", shirt=2), cancelled(by="provider")],
        "cancelled by the provider, but 2 × shirt are not returned",
    ),
    (
        "cancelled though all is stated as shipped",
        [SHIRTS, stated([goods("shirt", 1, 100)], []), cancelled()],
        "cancelled, but all is shipped and 1 × shirt is not returned",
    ),
    (
        "cart in another currency",
        [SHIRTS, cart_updated(goods("shirt", 3, 300), currency="USD")],
        "cart in USD, order confirmed in EUR",
    ),
    (
        "carts stated in another currency",
        [SHIRTS, stated([], [], "USD")],
        "carts stated in USD, order confirmed in EUR",
    ),
    (
        "carts below 0",
        [confirmed(goods("A", 1, 1000), other("discount", "D", -1200))],
        "carts −200: discount −1200, goods 1000",
    ),
    ("stated cart below 0", [SHIRTS, stated([other("discount", "D", -1)], [])], "shipped cart stated as −1"),
    (
        "stated unshipped cart below 0",
        [SHIRTS, stated([], [other("discount", "D", -9)])],
        "unshipped cart stated as −9",
    ),
    (
        "cart above the greatest amount",
        [confirmed(goods("A", 1, AMOUNT_MAX_MINOR), goods("B", 1, 1)), shipped("s1", A=1, B=1)],
        f"shipped cart {AMOUNT_MAX_MINOR + 1}, at most {AMOUNT_MAX_MINOR}",
    ),
    (
        "stated cart above the greatest amount",
        [SHIRTS, stated([], [goods("A", 1, AMOUNT_MAX_MINOR), goods("B", 1, 1)])],
        f"unshipped cart {AMOUNT_MAX_MINOR + 1}, at most {AMOUNT_MAX_MINOR}",
    ),
    (
        "content newer than the statement",
        [SHIRTS, STATED, cart_updated(goods("b", 1, 1))],
        "the content is newer than the statement",
    ),
    (
        "shipment newer than the statement",
        [SHIRTS, STATED, shipped("s3", shirt=1)],
        "shipment s3 is newer than the statement",
    ),
    (
        "return newer than the statement",
        [SHIRTS, STATED, returned("r1", shirt=1)],
        "return r1 is newer than the statement",
    ),
    ("refund newer than the statement", [SHIRTS, STATED, refunded("f1", 1)], "refund f1 is newer than the statement"),
    (
        "item cancellation newer than the statement",
        [SHIRTS, STATED, items_cancelled("c1", shirt=1)],
        "cancellation c1 is newer than the statement",
    ),
]


@pytest.mark.parametrize(
    ("specs", "reason"), [row[1:] for row in CONTRADICTIONS], ids=[row[0] for row in CONTRADICTIONS]
)
def test_contradiction_is_named(specs: list[EventSpec], reason: str) -> None:
    """The order is inconsistent, has no carts, and says why with ids and both numbers."""
    found = assessment(*specs)
    assert (found.state, found.reasons, found.order) == ("inconsistent", [reason], None)


CONSISTENT: list[tuple[str, list[EventSpec]]] = [
    ("exactly all shipped", [SHIRTS, shipped("s1", shirt=3)]),
    ("exactly all accounted for", [SHIRTS, shipped("s1", shirt=2), items_cancelled("c1", shirt=1)]),
    ("exactly all returned", [SHIRTS, shipped("s1", shirt=3), returned("r1", shirt=3)]),
    ("refunds up to the total", [JACKET, shipped("s1", jacket=1), refunded("f1", 700)]),
    ("refunds a cent a line above the total", [MIXED, shipped("s1", shirt=3), refunded("f1", 343)]),
    (
        "a cent a line above the order paid back for units",
        [JACKET, shipped("s1", jacket=1), returned("r1", jacket=1, paid=701)],
    ),
    ("a refund for a charge", [MIXED, refunded("f1", 5, applies_to=["post", "shirt"])]),
    (
        "a refund for lines that are gone",
        [MIXED, cart_updated(goods("hat", 1, 10)), refunded("f1", 5, applies_to=["post", "shirt"])],
    ),
    (
        "cancelled with room that units from anywhere took",
        [confirmed(goods("a", 2, 2)), shipped("s1", a=1), returned("r1", origin="any", a=1), cancelled()],
    ),
    (
        "refunds up to the total and the fees",
        [JACKET, shipped("s1", jacket=1), returned("r1", fee=30, jacket=1), refunded("f1", 730)],
    ),
    (
        "refunds up to the largest total that any content had",
        [JACKET, shipped("s1", jacket=1), cart_updated(goods("jacket", 1, 500)), refunded("f1", 700)],
    ),
    ("handling refunded whole", [MIXED, returned("r1", handling=50)]),
    ("cancelled while something is pending", [SHIRTS, shipped("s1", shirt=2), cancelled()]),
    ("cancelled after all came back", [JACKET, shipped("s1", jacket=1), returned("r1", jacket=1), cancelled()]),
    ("cancelled by the provider before anything left", [JACKET, cancelled(by="provider")]),
    (
        "cancelled units left to cancel, though all of them were cancelled one by one",
        [SHIRTS, shipped("s1", shirt=1), items_cancelled("c1", shirt=2), cancelled()],
    ),
    ("cancelled beside a statement with something unshipped", [SHIRTS, STATED, cancelled()]),
    (
        "cancelled beside a statement that keeps no goods",
        [SHIRTS, stated([other("handling", "H", 5)], []), cancelled()],
    ),
    (
        "a line that is gone and not kept",
        [SHIRTS, shipped("s1", shirt=1), returned("r1", shirt=1), cart_updated(goods("hat", 1, 1))],
    ),
    (
        "a line that was goods once, then a charge, and is gone",
        [
            SHIRTS,
            shipped("s1", shirt=1),
            cart_updated(other("handling", "shirt", 5), goods("hat", 1, 1)),
            returned("r1", shirt=1),
            cart_updated(goods("hat", 1, 1)),
        ],
    ),
    ("cart at the greatest amount", [confirmed(goods("A", 1, AMOUNT_MAX_MINOR))]),
    ("carts at 0", [confirmed(goods("A", 1, 100), other("discount", "D", -100))]),
    ("stated carts at 0", [SHIRTS, stated([], [])]),
    ("details newer than the statement", [SHIRTS, STATED, details(gift=True)]),
    ("a retraction newer than the statement", [SHIRTS, STATED, retracted(shipment_id="s1")]),
    (
        "facts older than the statement",
        [SHIRTS, shipped("s1", hat=1), refunded("f1", 10**6), fee_charged("k1", 5), STATED],
    ),
    ("a fee of its own, retracted after the statement", [SHIRTS, STATED, fee_charged("k1", 5), retracted(fee_id="k1")]),
    ("wrong currency before the statement", [SHIRTS, cart_updated(goods("b", 1, 1), currency="USD"), STATED]),
    ("unknown line of a shipment that was retracted", [SHIRTS, shipped("s1", hat=1), retracted(shipment_id="s1")]),
    ("refund above all, retracted", [SHIRTS, refunded("f1", 999), retracted(refund_id="f1")]),
    ("cancelled, retracted", [JACKET, shipped("s1", jacket=1), cancelled(), retracted(cancelled=True)]),
]


@pytest.mark.parametrize("specs", [row[1] for row in CONSISTENT], ids=[row[0] for row in CONSISTENT])
def test_no_contradiction_at_the_boundary(specs: list[EventSpec]) -> None:
    """What the rules just allow is told to the provider."""
    found = assessment(*specs)
    assert (found.state, found.reasons) == ("ready", [])
    assert found.order is not None


def test_several_contradictions_are_all_named() -> None:
    """Every reason is given, each once."""
    found = assessment(SHIRTS, shipped("s1", hat=1, shirt=4), cart_updated(goods("shirt", 3, 300), currency="USD"))
    assert found.reasons == [
        "cart in USD, order confirmed in EUR",
        "shipment s1 ships 1 × hat, which the order does not have",
        "line shirt: 4 shipped of 3 ordered",
    ]


def test_reasons_are_bounded() -> None:
    """A thousand wrong lines do not make a thousand reasons."""
    named: dict[str, Any] = {f"x{number}": 1 for number in range(REASONS_MAX + 5)}
    wrong = shipped("s1", **named)
    assert len(assessment(SHIRTS, wrong).reasons) == REASONS_MAX
    assert len(assessment(SHIRTS, wrong, payment("on_hold")).reasons) == REASONS_MAX


def test_every_list_in_a_reason_is_bounded() -> None:
    """Neither refunds of wrong lines nor units that are kept, nor facts newer than a statement make endless reasons."""
    ids = [f"x{number}" for number in range(REASONS_MAX + 5)]
    many = confirmed(*[goods(one, 1, 1) for one in ids])
    assert len(assessment(SHIRTS, refunded("f1", 1, applies_to=ids)).reasons) == REASONS_MAX
    one_each: dict[str, Any] = dict.fromkeys(ids, 1)
    kept = assessment(many, shipped("s1", **one_each), cancelled()).reasons
    assert len(kept) == 1
    assert kept[0].endswith(f"1 × x{REASONS_MAX - 1} and 5 lines more are not returned")
    assert len(assessment(SHIRTS, STATED, *[refunded(one, 1) for one in ids]).reasons) == REASONS_MAX
    two_each: dict[str, Any] = dict.fromkeys(ids, 2)
    too_many = assessment(many, shipped("s1", **two_each))
    assert len(too_many.reasons) == REASONS_MAX


@pytest.mark.parametrize("state", ["on_hold", "refused"])
def test_payment_comes_before_contradictions(state: str) -> None:
    """An order whose payment is not approved is that first, and still says what else is wrong."""
    found = assessment(SHIRTS, shipped("s1", hat=1), payment(state))
    assert found.state == state
    assert found.reasons == ["shipment s1 ships 1 × hat, which the order does not have"]
    assert found.order is None
    assert assessment(SHIRTS, payment(state)).order is not None
    assert assessment(SHIRTS, payment(state), payment("approved")).state == "ready"


def test_shipment_before_the_confirmation_is_kept() -> None:
    """What comes before the confirmation waits for it, and counts when it comes."""
    assert assessment(shipped("s1", shirt=1)).state == "unconfirmed"
    found = assessment(shipped("s1", shirt=1), SHIRTS)
    assert found.order is not None
    assert found.order.shipped.total_minor == 100


def test_resolving_fact_releases_the_order() -> None:
    """The fact that resolves a contradiction makes the order ready again."""
    assert assessment(SHIRTS, shipped("s1", shirt=4)).state == "inconsistent"
    assert assessment(SHIRTS, shipped("s1", shirt=4), shipped("s1", shirt=3)).state == "ready"
    assert assessment(SHIRTS, shipped("s1", shirt=4), cart_updated(goods("shirt", 4, 400))).state == "ready"
