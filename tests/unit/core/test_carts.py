"""The examples and rules of `DOMAIN.md` section 5, one by one."""

import pytest

from schemas.facts import Facts, unpack_lines
from tests.shops.events import (
    EventSpec,
    cancelled,
    cart_updated,
    carts,
    confirmed,
    facts_of,
    fee_charged,
    goods,
    items_cancelled,
    order,
    other,
    refunded,
    retracted,
    returned,
    shipped,
    stated,
    totals,
)
from worker.core.carts import carts_of_content, totals_of_parcels
from worker.core.shares import count_units, divide, tally

THREE_A = confirmed(goods("A", 3, 1000, unit_price_minor=333))
A_AND_B = (goods("A", 1, 1000), goods("B", 1, 3000))


# --- the examples of the text ------------------------------------------------------------------------------------


def test_one_of_three_shipped() -> None:
    """A 3 × 333 with total 1000, one shipped: 333 | 667."""
    assert carts(THREE_A, shipped("s1", A=1)) == ([("A", 1, 333)], [("A", 2, 667)])


def test_two_shipped_and_one_of_them_returned() -> None:
    """Two shipped, one of them returned: 333 | 334, and 333 are gone."""
    told = (THREE_A, shipped("s1", A=2), returned("r1", A=1))
    assert carts(*told) == ([("A", 1, 333)], [("A", 1, 334)])


def test_handling_and_discount_follow_the_goods() -> None:
    """A 1000 shipped, B 3000 pending, handling 500, discount −600: 975 | 2925."""
    lines = (*A_AND_B, other("handling", "H", 500), other("discount", "D", -600))
    found = carts(confirmed(*lines), shipped("s1", A=1))
    assert found == (
        [("A", 1, 1000), ("H", 0, 125), ("D", 0, -150)],
        [("B", 1, 3000), ("H", 0, 375), ("D", 0, -450)],
    )


def test_half_a_cent_goes_away_from_zero() -> None:
    """A 1000 shipped, B 1000 pending, discount −333: −167 | −166."""
    told = confirmed(goods("A", 1, 1000), goods("B", 1, 1000), other("discount", "D", -333))
    first, second = carts(told, shipped("s1", A=1))
    assert (first[1], second[1]) == (("D", 0, -167), ("D", 0, -166))


HANDLING_KEPT = (
    confirmed(goods("A", 2, 2000), other("handling", "H", 500)),
    shipped("s1", A=2),
    returned("r1", A=2),
)


def test_handling_stays_when_all_came_back() -> None:
    """2 × 1000 and handling 500, all shipped and all returned: handling 500 stays in `shipped_cart`."""
    assert carts(*HANDLING_KEPT) == ([("H", 0, 500)], [])


def test_handling_stays_until_an_event_refunds_it() -> None:
    """… until an event refunds it."""
    assert carts(*HANDLING_KEPT, returned("r2", handling=500)) == ([], [])
    assert carts(*HANDLING_KEPT, returned("r2", handling=200)) == ([("H", 0, 300)], [])


def test_refund_is_not_paid_twice() -> None:
    """10000 shipped, 2500 refunded, then all returned: both empty."""
    told = (confirmed(goods("A", 1, 10_000)), shipped("s1", A=1), refunded("f1", 2500))
    assert carts(*told) == ([("A", 1, 10_000), ("f1", 0, -2500)], [])
    assert carts(*told, returned("r1", A=1)) == ([], [])


# --- goods ---------------------------------------------------------------------------------------------------------


def test_returned_article_is_sent_again() -> None:
    """s may exceed q when a returned article is sent again: one kept, nothing pending."""
    told = (confirmed(goods("A", 1, 700)), shipped("s1", A=1), returned("r1", A=1), shipped("s2", A=1))
    assert carts(*told) == ([("A", 1, 700)], [])


def test_returned_unsent_and_cancelled_units_are_gone() -> None:
    """Units returned out of the pending, or cancelled, are in neither cart."""
    told = (confirmed(goods("A", 4, 1002)), items_cancelled("c1", A=1), returned("r1", origin="unshipped", A=1))
    assert carts(*told) == ([], [("A", 2, 501)])


def test_free_goods_are_kept_in_the_carts() -> None:
    """Goods with a quantity are told, though they cost nothing; without one they are left out."""
    told = (confirmed(goods("gift", 2, 0), goods("A", 1, 100)), shipped("s1", gift=1))
    assert carts(*told) == ([("gift", 1, 0)], [("gift", 1, 0), ("A", 1, 100)])


def test_order_cancelled_empties_the_pending_only() -> None:
    """`order.cancelled` leaves what was shipped, and the fees follow what was ever shipped."""
    told = (confirmed(*A_AND_B, other("handling", "H", 400)), shipped("s1", A=1), cancelled())
    assert carts(*told) == ([("A", 1, 1000), ("H", 0, 400)], [])


def test_cancelled_order_stays_cancelled_until_retracted() -> None:
    """A content told after the cancellation brings nothing back; the retraction does."""
    told = (confirmed(goods("A", 1, 100)), cancelled(), cart_updated(goods("A", 2, 200)))
    assert carts(*told) == ([], [])
    assert carts(*told, retracted(cancelled=True)) == ([], [("A", 2, 200)])


def test_retracted_fact_counts_again_when_newer() -> None:
    """A retraction takes a fact away; a newer event with the id counts again."""
    told = (confirmed(goods("A", 2, 200)), shipped("s1", A=2), retracted(shipment_id="s1"))
    assert carts(*told) == ([], [("A", 2, 200)])
    assert carts(*told, shipped("s1", A=1)) == ([("A", 1, 100)], [("A", 1, 100)])


RETRACTIONS = [
    (returned("x", A=1), retracted(return_id="x")),
    (items_cancelled("x", B=1), retracted(cancellation_id="x")),
    (refunded("x", 50), retracted(refund_id="x")),
    (shipped("x", B=1), retracted(shipment_id="x")),
    (fee_charged("x", 30), retracted(fee_id="x")),
]


@pytest.mark.parametrize(("fact", "retraction"), RETRACTIONS)
def test_retraction_undoes_its_fact(fact: EventSpec, retraction: EventSpec) -> None:
    """Whether it comes after the fact or before it, only the newer of both counts."""
    base = (confirmed(*A_AND_B), shipped("s1", A=1))
    assert carts(*base, fact, retraction) == carts(*base)
    assert carts(*base, retraction, fact) == carts(*base, fact) != carts(*base)
    overtaken = retraction.but(time="2026-03-01T00:30:00Z")
    assert carts(*base, overtaken, fact) == carts(*base)


def test_retraction_of_one_kind_leaves_the_others() -> None:
    """Ids of different kinds do not meet."""
    told = (confirmed(*A_AND_B), shipped("x", A=1), retracted(return_id="x"), retracted(refund_id="x"))
    assert totals(*told) == (1000, 3000)


# --- charges -------------------------------------------------------------------------------------------------------


def test_charges_wait_with_the_goods() -> None:
    """While nothing was shipped, charges are in the unshipped cart."""
    told = confirmed(goods("A", 1, 100), other("handling", "H", 30), {"type": "invoice_fee", "total_minor": 5})
    assert carts(told) == ([], [("A", 1, 100), ("H", 0, 30), (None, 0, 5)])


def test_charges_follow_what_was_ever_shipped() -> None:
    """A return does not bring the shipping cost back: V counts returned goods too."""
    told = (confirmed(goods("A", 2, 2000), other("handling", "H", 500)), shipped("s1", A=1), returned("r1", A=1))
    assert carts(*told) == ([("H", 0, 250)], [("A", 1, 1000), ("H", 0, 250)])


def test_charges_of_free_goods_follow_the_units() -> None:
    """When goods are worth nothing, units take their place."""
    told = (confirmed(goods("A", 3, 0), other("handling", "H", 100)), shipped("s1", A=1))
    assert carts(*told) == ([("A", 1, 0), ("H", 0, 33)], [("A", 2, 0), ("H", 0, 67)])


def test_charges_without_goods_left_are_gone() -> None:
    """When units are 0 too, the item is gone: everything was cancelled."""
    told = (confirmed(goods("A", 3, 300), other("handling", "H", 100)), items_cancelled("c1", A=3))
    assert carts(*told) == ([], [])


def test_charge_of_zero_is_left_out() -> None:
    """Other items with total 0 are left out."""
    assert carts(confirmed(goods("A", 1, 100), other("handling", "H", 0))) == ([], [("A", 1, 100)])


def test_handling_refund_goes_through_the_lines_in_their_order() -> None:
    """The first handling line is used up before the second is touched; an invoice fee never is."""
    told = (
        confirmed(
            goods("A", 1, 100),
            {"type": "invoice_fee", "total_minor": 40},
            other("handling", "H1", 30),
            other("handling", "H2", 50),
        ),
        shipped("s1", A=1),
        returned("r1", handling=45),
    )
    assert carts(*told) == ([("A", 1, 100), (None, 0, 40), ("H2", 0, 35)], [])


def test_return_fee_is_a_handling_item() -> None:
    """`fee_minor` is a `handling` item in `shipped_cart`: reference is the return's, name "Return fee"."""
    found = order(confirmed(goods("A", 2, 2000)), shipped("s1", A=2), returned("r7", fee=150, A=1))
    fee = found.shipped.items[-1]
    assert (fee.type, fee.reference, fee.name, fee.quantity, fee.total_minor) == (
        "handling",
        "r7",
        "Return fee",
        0,
        150,
    )
    assert found.shipped.total_minor == 1150


def test_several_fees_are_several_items() -> None:
    """Each return has a fee of its own, the older one first; a retracted return has none."""
    told = (
        confirmed(goods("A", 3, 3000)),
        shipped("s1", A=3),
        returned("r2", fee=10, A=1),
        returned("r1", fee=20, A=1),
    )
    assert carts(*told) == ([("A", 1, 1000), ("r2", 0, 10), ("r1", 0, 20)], [])
    assert carts(*told, retracted(return_id="r2")) == ([("A", 2, 2000), ("r1", 0, 20)], [])


# --- adjustments ---------------------------------------------------------------------------------------------------


def test_voucher_is_whole_in_the_shipped_cart() -> None:
    """Handed out for goods not sent or returned: whole, also while nothing is shipped."""
    told = confirmed(goods("A", 2, 200), other("voucher", "V", 70))
    assert carts(told) == ([("V", 0, 70)], [("A", 2, 200)])
    assert carts(told, cancelled()) == ([("V", 0, 70)], [])


def test_adjustment_shrinks_with_what_was_cancelled() -> None:
    """Lost goods take their share of a discount along."""
    lines = (goods("A", 1, 1000), goods("B", 1, 3000), other("discount", "D", -400))
    assert carts(confirmed(*lines), items_cancelled("c1", B=1)) == ([], [("A", 1, 1000), ("D", 0, -100)])


def test_applies_to_follows_the_named_lines() -> None:
    """A discount on B alone stays with B."""
    lines = (goods("A", 1, 1000), goods("B", 1, 3000), other("discount", "D", -400, applies_to=["B"]))
    told = confirmed(*lines)
    assert carts(told, shipped("s1", A=1)) == ([("A", 1, 1000)], [("B", 1, 3000), ("D", 0, -400)])
    assert carts(told, items_cancelled("c1", B=1)) == ([], [("A", 1, 1000)])


def test_adjustment_of_free_goods_follows_the_units() -> None:
    """A registration on free goods is divided by units kept, pending and lost."""
    told = (
        confirmed(goods("A", 3, 0), other("registration", "A-reg", 100)),
        shipped("s1", A=1),
        items_cancelled("c1", A=1),
    )
    assert carts(*told) == ([("A", 1, 0), ("A-reg", 0, 33)], [("A", 1, 0), ("A-reg", 0, 34)])


def test_adjustment_of_lost_goods_is_gone() -> None:
    """When units are 0 too, there is nothing that an adjustment could follow."""
    told = (confirmed(goods("A", 1, 0), other("registration", "R", 100)), items_cancelled("c1", A=1))
    assert carts(*told) == ([], [])


# --- refunds -------------------------------------------------------------------------------------------------------


def test_refund_takes_the_shipped_cart_first() -> None:
    """What the shipped cart cannot bear comes off the unshipped one as a discount."""
    found = order(confirmed(*A_AND_B), shipped("s1", A=1), refunded("f1", 1500, name="Goodwill"))
    assert found.shipped.items == []
    item = found.unshipped.items[-1]
    assert (item.type, item.reference, item.name, item.total_minor) == ("discount", "f1", "Goodwill", -500)


def test_refund_items_are_named() -> None:
    """A refund without a name is a "Refund", an `other_payment` in the shipped cart."""
    item = order(confirmed(*A_AND_B), shipped("s1", B=1), refunded("f1", 1)).shipped.items[-1]
    assert (item.type, item.reference, item.name, item.quantity, item.total_minor) == (
        "other_payment",
        "f1",
        "Refund",
        0,
        -1,
    )


def test_refunds_go_by_stamp() -> None:
    """The older refund is taken off first, whatever their ids and the order of arrival."""
    told = (confirmed(goods("A", 1, 100)), shipped("s1", A=1))
    late, early = refunded("f1", 80).but(time="2026-03-02T00:00:00Z"), refunded("f2", 15)
    assert carts(*told, late, early) == ([("A", 1, 100), ("f2", 0, -15), ("f1", 0, -80)], [])


def test_sixty_and_forty_make_an_empty_cart() -> None:
    """60 + 40 refunded of 100: a cart brought to 0 by refunds is sent empty."""
    told = (confirmed(goods("A", 1, 100)), shipped("s1", A=1), refunded("f1", 60), refunded("f2", 40))
    assert carts(*told) == ([], [])


def test_refund_leaves_a_cart_that_was_zero_before() -> None:
    """A gift sent first stays told: it was not the refund that brought its cart to 0."""
    told = (confirmed(goods("gift", 1, 0), goods("A", 1, 100)), shipped("s1", gift=1), refunded("f1", 40))
    assert carts(*told) == ([("gift", 1, 0)], [("A", 1, 100), ("f1", 0, -40)])


def test_refund_before_shipping_marks_nothing_as_shipped() -> None:
    """A refund of an order that waits is a discount on what waits."""
    assert carts(confirmed(goods("A", 1, 100)), refunded("f1", 10)) == ([], [("A", 1, 100), ("f1", 0, -10)])


def test_what_is_above_the_order_by_rounding_counts_as_all_of_it() -> None:
    """A shop that rounds per line may refund a cent a line too much: all is refunded."""
    told = (confirmed(goods("A", 3, 1000)), shipped("s1", A=3), refunded("f1", 600), refunded("f2", 401))
    assert carts(*told) == ([], [])


# --- fees ----------------------------------------------------------------------------------------------------------


def test_fee_of_its_own_is_a_handling_item() -> None:
    """Reference is the fee's id, name "Fee" unless given; due at once, also when nothing was shipped or all is cancelled."""
    base = confirmed(goods("A", 1, 100))
    found = order(base, fee_charged("k1", 20), fee_charged("k2", 5, name="Second parcel"), cancelled())
    assert [(item.type, item.reference, item.name, item.total_minor) for item in found.shipped.items] == [
        ("handling", "k1", "Fee", 20),
        ("handling", "k2", "Second parcel", 5),
    ]
    assert found.unshipped.items == []
    assert found.cancellation is None


def test_fee_is_corrected_and_taken_back() -> None:
    """The newest fee of one id counts, until it is retracted."""
    base = (confirmed(goods("A", 1, 100)), fee_charged("k1", 20), fee_charged("k1", 30))
    assert carts(*base) == ([("k1", 0, 30)], [("A", 1, 100)])
    assert carts(*base, retracted(fee_id="k1")) == ([], [("A", 1, 100)])
    assert carts(*base, retracted(fee_id="k1"), fee_charged("k1", 7)) == ([("k1", 0, 7)], [("A", 1, 100)])


# --- content without goods -----------------------------------------------------------------------------------------

CHARGE_ONLY = confirmed(
    other("handling", "H", 100),
    {"type": "invoice_fee", "total_minor": 7},
    other("registration", "R", 20),
    other("discount", "D", -30),
    other("voucher", "V", 50),
)


def test_content_without_goods_is_to_come() -> None:
    """All but vouchers in the unshipped cart while nothing was shipped, and gone once the order is cancelled."""
    unshipped = [("H", 0, 100), (None, 0, 7), ("R", 0, 20), ("D", 0, -30)]
    assert carts(CHARGE_ONLY) == ([("V", 0, 50)], unshipped)
    assert carts(CHARGE_ONLY, cancelled()) == ([("V", 0, 50)], [])


def test_content_without_goods_is_due_when_something_was_shipped() -> None:
    """All in the shipped cart, whatever came back, also of a cancelled order."""
    told = (
        confirmed(goods("A", 1, 9)),
        shipped("s1", A=1),
        returned("r1", A=1),
        cart_updated(*CHARGE_ONLY.data["lines"]),
    )
    shipped_rows = [("H", 0, 100), (None, 0, 7), ("R", 0, 20), ("D", 0, -30), ("V", 0, 50)]
    assert carts(*told) == (shipped_rows, [])
    assert carts(*told, cancelled()) == (shipped_rows, [])
    assert totals(*told, returned("r2", handling=60)) == (87, 0)


# --- charges of some lines -----------------------------------------------------------------------------------------

TWO_SELLERS = confirmed(
    goods("A", 1, 100),
    goods("B", 1, 200),
    other("handling", "H1", 10, applies_to=["A"]),
    other("handling", "H2", 20, applies_to=["B"]),
)


def test_charge_of_some_lines_follows_these() -> None:
    """Two sellers, each with a delivery of their own."""
    assert carts(TWO_SELLERS, shipped("s1", A=1)) == ([("A", 1, 100), ("H1", 0, 10)], [("B", 1, 200), ("H2", 0, 20)])
    assert carts(TWO_SELLERS, items_cancelled("c1", B=1)) == ([], [("A", 1, 100), ("H1", 0, 10)])


def test_registration_of_a_charge_follows_it() -> None:
    """By what the charge has in the carts and what of it was refunded; by units where it is worth nothing."""
    base = (*TWO_SELLERS.data["lines"], other("registration", "R", 60, applies_to=["H1", "B"]))
    assert carts(confirmed(*base), shipped("s1", A=1))[0] == [("A", 1, 100), ("H1", 0, 10), ("R", 0, 3)]
    refund = returned("r1", handling=4)
    assert carts(confirmed(*base), shipped("s1", A=1), refund)[0] == [("A", 1, 100), ("H1", 0, 6), ("R", 0, 2)]
    free = (goods("A", 4, 0), other("handling", "H", 0), other("registration", "R", 80, applies_to=["H"]))
    assert carts(confirmed(*free), shipped("s1", A=1)) == ([("A", 1, 0), ("R", 0, 20)], [("A", 3, 0), ("R", 0, 60)])


# --- returned from anywhere ------------------------------------------------------------------------------------------


def test_units_from_anywhere_fit_into_what_is_pending_first() -> None:
    """20 ordered, 10 sent, 5 back from `any`: 10 | 5 units; the other 5 sent: 15 | 0."""
    told = (confirmed(goods("A", 20, 2000)), shipped("s1", A=10), returned("r1", origin="any", A=5))
    assert carts(*told) == ([("A", 10, 1000)], [("A", 5, 500)])
    assert carts(*told, shipped("s2", A=5)) == ([("A", 15, 1500)], [])
    assert carts(*told, shipped("s2", A=8)) == ([("A", 15, 1500)], [])
    assert carts(*told, items_cancelled("c1", A=10)) == ([("A", 5, 500)], [])


def test_units_from_anywhere_of_a_cancelled_order() -> None:
    """The room is that before the order was cancelled: what was pending is gone, not returned."""
    told = (confirmed(goods("A", 4, 400)), shipped("s1", A=2), returned("r1", origin="any", A=2), cancelled())
    assert carts(*told) == ([("A", 2, 200)], [])


def test_units_from_anywhere_of_a_line_that_is_gone() -> None:
    """What was kept came back, the others are gone."""
    told = (confirmed(goods("A", 4, 400)), shipped("s1", A=2), cart_updated(goods("B", 1, 50)))
    assert carts(*told, returned("r1", origin="any", A=4)) == ([], [("B", 1, 50)])


# --- statements ----------------------------------------------------------------------------------------------------

STATED = stated([goods("X", 1, 50), other("handling", "H", 0)], [goods("A", 2, 90)])


def test_statement_is_the_carts() -> None:
    """Both carts as stated; older facts no longer count, whatever they say."""
    told = (confirmed(goods("A", 1, 100)), shipped("s1", Z=9), STATED)
    assert carts(*told) == ([("X", 1, 50)], [("A", 2, 90)])


def test_cancellation_empties_the_unshipped_cart_of_a_statement() -> None:
    """`order.cancelled`, older or newer, still empties the unshipped one."""
    assert carts(confirmed(goods("A", 1, 100)), STATED, cancelled()) == ([("X", 1, 50)], [])
    assert carts(confirmed(goods("A", 1, 100)), cancelled(), STATED) == ([("X", 1, 50)], [])


def test_statement_of_the_greatest_version_counts() -> None:
    """`cart_version` comes before the stamp among statements; a missing one is lowest."""
    base = confirmed(goods("A", 1, 100))
    high, low, none = (
        stated([goods("A", 1, 3)], [], cart_version=3),
        stated([goods("A", 1, 2)], [], cart_version=-2),
        stated([goods("A", 1, 1)], []),
    )
    assert totals(base, high, low, none) == (3, 0)
    assert totals(base, low, none) == (2, 0)


def test_after_a_retraction_newer_statements_count() -> None:
    """After a retraction, statements newer than it count, whatever their version; before it none does."""
    base = confirmed(goods("A", 1, 100))
    high, low = stated([goods("A", 1, 3)], [], cart_version=3), stated([goods("A", 1, 2)], [], cart_version=2)
    assert totals(base, high, retracted(stated=True)) == (0, 100)
    assert totals(base, high, retracted(stated=True), low) == (2, 0)
    between = retracted(stated=True).but(time="2026-03-01T00:00:02.5Z")
    assert totals(base, high, low, between) == (2, 0)
    assert totals(base, high, low, between, retracted(stated=True).but(time="2026-03-01T00:00:00Z")) == (2, 0)


# --- the division and the tally ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((1000, 1, 2, 0), (333, 667)),
        ((-333, 1, 1, 0), (-167, -166)),
        ((1, 1, 1, 0), (1, 0)),
        ((-1, 1, 1, 0), (-1, 0)),
        ((3, 1, 1, 2), (1, 1)),
        ((100, 0, 0, 7), (0, 0)),
        ((100, 7, 0, 0), (100, 0)),
        ((0, 1, 2, 3), (0, 0)),
        ((10**12, 1, 10**6 - 1, 0), (10**6, 10**12 - 10**6)),
    ],
)
def test_divide(arguments: tuple[int, int, int, int], parts: tuple[int, int]) -> None:
    """Parts are differences of cumulative shares, rounded to the nearest unit, halves away from zero."""
    assert divide(*arguments) == parts


def test_tally_of_nothing() -> None:
    """No facts, no units."""
    assert tally(count_units(Facts()), []) == {}


# --- totals at a glance ------------------------------------------------------------------------------------------

CHARGED = (goods("A", 3, 1000, unit_price_minor=333), goods("B", 2, 401), other("handling", "H", 500))


def at_a_glance(*events: EventSpec) -> tuple[int, int] | None:
    """Both totals, if they can be told so."""
    facts = facts_of(*events)
    assert facts.content is not None
    found = totals_of_parcels(facts, unpack_lines(facts.content.lines))
    return None if found is None else (found[0].total_minor, found[1].total_minor)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([confirmed(*CHARGED)], (0, 1901)),
        ([confirmed(*CHARGED), shipped("s1", A=3, B=2)], (1901, 0)),
        # 333 of A, and of the handling 500 x 333 / 1401.
        ([confirmed(*CHARGED), shipped("s1", A=1)], (333 + 119, 1449)),
        ([confirmed(*CHARGED), shipped("s1", A=1), shipped("s2", A=1, B=1)], (667 + 201 + 310, 723)),
        ([confirmed(*CHARGED), shipped("s1", A=1), retracted(shipment_id="s1")], (0, 1901)),
        # Without worth, the handling goes by units.
        ([confirmed(goods("A", 4, 0), other("handling", "H", 500)), shipped("s1", A=1)], (125, 375)),
    ],
)
def test_orders_of_parcels_at_a_glance(events: list[EventSpec], expected: tuple[int, int]) -> None:
    """Whoever wants totals alone has them at once where only parcels were sent, and they are those of the carts."""
    facts = facts_of(*events)
    assert facts.content is not None
    lines = unpack_lines(facts.content.lines)
    shipped_cart, unshipped_cart, _ = carts_of_content(facts, lines, tally(count_units(facts), lines))
    assert at_a_glance(*events) == expected == (shipped_cart.total_minor, unshipped_cart.total_minor)


@pytest.mark.parametrize(
    "events",
    [
        [confirmed(*CHARGED), shipped("s1", A=1), returned("r1", A=1)],
        [confirmed(*CHARGED), items_cancelled("c1", A=1)],
        [confirmed(*CHARGED), refunded("f1", 1)],
        [confirmed(*CHARGED), fee_charged("f1", 1)],
        [confirmed(*CHARGED), cancelled()],
        [confirmed(*CHARGED), shipped("s1", A=4)],
        [confirmed(*CHARGED), shipped("s1", C=1)],
        [confirmed(*CHARGED, other("discount", "D", -1))],
        [confirmed(*CHARGED, other("handling", "I", 5, applies_to=["A"]))],
        [confirmed(other("handling", "H", 500))],
    ],
)
def test_no_orders_of_parcels(events: list[EventSpec]) -> None:
    """Of whatever else has happened, and of contradictions, nothing is told at a glance."""
    assert at_a_glance(*events) is None
