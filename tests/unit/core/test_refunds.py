"""Refunds that name their lines, and returns that say what was paid back (`DOMAIN.md` section 5)."""

import pytest

from tests.shops.events import (
    EventSpec,
    cancelled,
    cart_updated,
    carts,
    confirmed,
    fee_charged,
    goods,
    items_cancelled,
    order,
    other,
    refunded,
    retracted,
    returned,
    shipped,
    totals,
)

LAMP_AND_SHADE = (confirmed(goods("lamp", 1, 100), goods("shade", 1, 50)), shipped("s1", lamp=1, shade=1))
FLAW = refunded("f1", 30, applies_to=["lamp"])


# --- refunds of some lines -----------------------------------------------------------------------------------------


def test_refund_of_a_line_goes_with_it() -> None:
    """Lamp 100 and shade 50 sent, 30 refunded for the lamp, the lamp comes back: 50."""
    assert carts(*LAMP_AND_SHADE, FLAW)[0] == [("lamp", 1, 100), ("shade", 1, 50), ("f1", 0, -30)]
    assert carts(*LAMP_AND_SHADE, FLAW, returned("r1", lamp=1)) == ([("shade", 1, 50)], [])
    assert totals(*LAMP_AND_SHADE, refunded("f1", 30), returned("r1", lamp=1)) == (20, 0)


def test_return_that_arrives_first_is_newer_all_the_same() -> None:
    """Only the stamps count: the refund was given before the lamp came back."""
    late = returned("r1", lamp=1).but(time="2026-03-02T00:00:00Z")
    assert totals(*LAMP_AND_SHADE, late, FLAW) == (50, 0)


def test_refund_given_after_the_return_is_beside_it() -> None:
    """The line was worth nothing any more: the money comes off the rest of the order."""
    assert totals(*LAMP_AND_SHADE, returned("r1", lamp=1), FLAW) == (20, 0)


def test_refund_follows_the_units_of_its_line() -> None:
    """Off each cart by what its units are worth; with units that are cancelled later its part is gone."""
    told = (confirmed(goods("A", 3, 300)), shipped("s1", A=1), refunded("f1", 31, applies_to=["A"]))
    assert carts(*told) == ([("A", 1, 100), ("f1", 0, -10)], [("A", 2, 200), ("f1", 0, -21)])
    assert totals(*told, items_cancelled("c1", A=2)) == (90, 0)
    assert totals(*told, returned("r1", origin="unshipped", A=1)) == (90, 89)
    assert totals(*told, cancelled()) == (90, 0)


def test_refund_given_after_a_cancellation_belongs_to_what_is_left() -> None:
    """Two of five cancelled, three sent, 3 refunded: one that comes back takes 1 along."""
    told = (confirmed(goods("A", 5, 500)), items_cancelled("c1", A=2), shipped("s1", A=3))
    assert totals(*told, refunded("f1", 3, applies_to=["A"]), returned("r1", A=1)) == (198, 0)
    after = (confirmed(goods("A", 5, 500)), shipped("s1", A=3), cancelled(), refunded("f1", 3, applies_to=["A"]))
    assert totals(*after, returned("r1", A=1)) == (198, 0)


def test_refund_of_what_a_later_cancellation_did_not_touch() -> None:
    """The lamp is sent, so the cancellation of the order takes only the shade, and the shade's part of the refund."""
    told = (confirmed(goods("lamp", 1, 100), goods("shade", 1, 50)), shipped("s1", lamp=1))
    told_after = (refunded("f1", 30, applies_to=["lamp", "shade"]), cancelled())
    assert totals(*told, *told_after) == (80, 0)


def test_refunds_of_lines_and_of_the_order_side_by_side() -> None:
    """Those of lines go with these, the others stay, whichever is older."""
    told = (*LAMP_AND_SHADE, refunded("f0", 5), FLAW, refunded("f2", 7))
    assert totals(*told) == (108, 0)
    assert totals(*told, returned("r1", lamp=1)) == (38, 0)


def test_refund_above_what_its_line_was_worth() -> None:
    """What the line was not worth is a refund of the order, and stays when the line comes back."""
    told = (*LAMP_AND_SHADE, refunded("f1", 70, applies_to=["shade"]))
    assert totals(*told) == (80, 0)
    assert totals(*told, returned("r1", shade=1)) == (80, 0)


def test_older_refunds_go_before() -> None:
    """The newer one takes what the older left of the line; whatever their ids."""
    told = (*LAMP_AND_SHADE, refunded("f2", 80, applies_to=["lamp"]), refunded("f1", 30, applies_to=["lamp"]))
    assert totals(*told) == (40, 0)
    assert totals(*told, returned("r1", lamp=1)) == (40, 0)
    assert totals(*told, returned("r1", lamp=1), retracted(refund_id="f2")) == (50, 0)


def test_refund_is_divided_over_its_lines() -> None:
    """By what they are worth; a cent goes to the line that is named first."""
    lines = (goods("A", 1, 50), goods("B", 1, 30), goods("C", 1, 1))
    for named in (["A", "B"], ["B", "A"]):
        told = (confirmed(*lines), shipped("s1", A=1, B=1), refunded("f1", 8, applies_to=named))
        assert totals(*told, returned("r1", A=1)) == (27, 1)
    cents = (confirmed(goods("A", 1, 1), goods("B", 1, 1), goods("C", 1, 9)), shipped("s1", A=1, B=1, C=1))
    assert totals(*cents, refunded("f1", 1, applies_to=["A", "B"]), returned("r1", A=1)) == (10, 0)
    assert totals(*cents, refunded("f1", 1, applies_to=["B", "A"]), returned("r1", A=1)) == (9, 0)


def test_lines_are_worth_what_was_paid_for_them() -> None:
    """A coupon makes them cheaper: one of some lines these, one of the order all goods, then the charges."""
    lines = (
        goods("A", 1, 100),
        goods("B", 1, 100),
        other("handling", "H", 10),
        other("discount", "D", -50, applies_to=["A"]),
        other("discount", "E", -30),
    )
    told = (confirmed(*lines), shipped("s1", A=1, B=1), refunded("f1", 60, applies_to=["A"]))
    assert totals(*told) == (70, 0)
    assert totals(*told, returned("r1", A=1)) == (70, 0)
    exact = (*told[:2], refunded("f1", 40, applies_to=["A"]))
    assert totals(*exact, returned("r1", A=1)) == (90, 0)


def test_refund_of_a_charge() -> None:
    """A charge is worth its net total, and the refund is divided as the charge is; it stays when goods come back."""
    lines = (goods("A", 1, 300), goods("B", 1, 100), other("handling", "H", 40))
    told = (confirmed(*lines), shipped("s1", A=1), refunded("f1", 20, applies_to=["H"]))
    assert carts(*told) == (
        [("A", 1, 300), ("H", 0, 30), ("f1", 0, -15)],
        [("B", 1, 100), ("H", 0, 10), ("f1", 0, -5)],
    )
    assert totals(*told, returned("r1", A=1)) == (15, 105)
    assert carts(confirmed(*lines), told[2], cancelled()) == ([], [])


def test_refund_of_a_charge_that_was_refunded_as_handling() -> None:
    """It is worth what `refund_handling_minor` left of it; what a discount cannot take of that it takes of the rest."""
    lines = (goods("A", 1, 100), other("handling", "H", 10), other("discount", "D", -4, applies_to=["H"]))
    told = (confirmed(*lines), shipped("s1", A=1), returned("r1", handling=8))
    assert totals(*told) == (100, 0)
    assert totals(*told, refunded("f1", 100, applies_to=["A"]), returned("r2", A=1)) == (0, 0)
    assert totals(*told, refunded("f1", 5, applies_to=["H"])) == (95, 0)


def test_net_worth_of_a_charge_that_was_refunded_as_handling() -> None:
    """Two of ten are left of the delivery: so much of a refund for it is divided as the delivery is, the rest is left."""
    lines = (goods("A", 1, 100), goods("B", 1, 100), other("handling", "H", 10))
    told = (confirmed(*lines), shipped("s1", A=1), returned("r1", handling=8))
    assert totals(*told) == (101, 101)
    assert totals(*told, refunded("f1", 5, applies_to=["H"])) == (97, 100)


def test_refunded_handling_carries_its_discount_in_net_worth_too() -> None:
    """The discount of a delivery makes no goods cheaper, however much of the delivery was refunded."""
    lines = (goods("A", 1, 100), goods("B", 1, 50), other("handling", "H", 10))
    sent = (confirmed(*lines, other("discount", "D", -4, applies_to=["H"])), shipped("s1", A=1, B=1))
    told = (*sent, returned("r1", handling=8), refunded("f1", 100, applies_to=["A"]))
    assert totals(*told) == (50, 0)
    assert totals(*told, returned("r2", A=1)) == (50, 0)


def test_refund_of_a_line_that_the_newest_content_lacks() -> None:
    """Such a line is worth the total it last had, all of it gone; the others keep their part."""
    base = (confirmed(goods("lamp", 1, 50), goods("vase", 1, 30)), shipped("s1", lamp=1, vase=1))
    told = (*base, refunded("f1", 8, applies_to=["lamp", "vase"]), returned("r1", lamp=1))
    assert totals(*told, cart_updated(goods("vase", 1, 30))) == (27, 0)
    cheaper = cart_updated(goods("lamp", 1, 10), goods("vase", 1, 30))
    assert totals(*told, cheaper, cart_updated(goods("vase", 1, 30))) == (24, 0)
    assert totals(*told, cart_updated(goods("vase", 1, 30)), cheaper.but(time="2026-03-01T00:00:04.5Z")) == (24, 0)
    assert totals(*told, cart_updated(goods("vase", 1, 30)), cheaper) == (24, 0)


def test_worth_of_former_lines_does_not_depend_on_the_order_of_arrival() -> None:
    """A line that leaves, comes back and leaves again was last worth what the last content with it says."""
    contents = [
        cart_updated(goods("A", 1, 10), goods("B", 1, 100), cart_version=1),
        cart_updated(goods("B", 1, 100), cart_version=2),
        cart_updated(goods("A", 1, 30), goods("B", 1, 100), cart_version=3),
        cart_updated(goods("B", 1, 100), other("handling", "H", 5), cart_version=4),
        cart_updated(goods("B", 1, 100), cart_version=5),
    ]
    stamped = [one.but(id=f"c{number}", time=f"2026-03-01T00:01:0{number}Z") for number, one in enumerate(contents)]
    base = (confirmed(goods("B", 1, 100)), shipped("s1", B=1), refunded("f1", 20, applies_to=["A", "H"]))
    for order_of_arrival in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1], [4, 0, 2, 3, 1], [3, 2, 4, 1, 0]):
        told = (*base, *(stamped[number] for number in order_of_arrival))
        assert totals(*told) == (100, 0)
    assert totals(*base[:2], refunded("f1", 50, applies_to=["H", "A"]), *stamped) == (85, 0)


def test_what_a_cart_cannot_carry_comes_off_the_other() -> None:
    """The shipped cart is paid for by a gift card, so what was refunded for its line comes off what is to come."""
    lines = (
        goods("A", 1, 100),
        goods("B", 1, 100),
        other("other_payment", "card", -100, applies_to=["A"]),
        other("handling", "H", 10, applies_to=["A"]),
    )
    told = (confirmed(*lines), shipped("s1", A=1), refunded("f1", 20, applies_to=["H", "A"]))
    assert totals(*told) == (0, 90)


def test_one_item_in_each_cart_shows_a_refund() -> None:
    """What goes with the line and what is left are one item, named as the refund."""
    found = order(*LAMP_AND_SHADE, refunded("f1", 130, applies_to=["lamp"], name="Goodwill"))
    item = found.shipped.items[-1]
    assert (item.type, item.reference, item.name, item.total_minor) == ("other_payment", "f1", "Goodwill", -130)
    assert carts(confirmed(goods("A", 1, 10)), refunded("f1", 10, applies_to=["A"])) == ([], [])


def test_worth_of_a_former_line_whose_id_a_discount_took() -> None:
    """It is what the line last had as goods, whatever stood under its id since, in any order of arrival."""
    contents = [
        confirmed(goods("A", 1, 10), goods("B", 1, 100)),
        cart_updated(goods("B", 1, 100), other("discount", "A", -1), cart_version=1),
        cart_updated(goods("B", 1, 100), cart_version=2),
    ]
    stamped = [one.but(id=f"c{number}", time=f"2026-03-01T00:00:0{number}Z") for number, one in enumerate(contents)]
    for order_of_arrival in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]):
        told = [stamped[number] for number in order_of_arrival]
        assert totals(*told, refunded("f1", 15, applies_to=["A"])) == (0, 95)


# --- what returns say was paid back ----------------------------------------------------------------------------------


def test_difference_of_a_return() -> None:
    """… with `refunded_minor` 60: 60, a difference of +10."""
    found = order(*LAMP_AND_SHADE, FLAW, returned("r1", lamp=1, paid=60))
    assert [(item.type, item.reference, item.name, item.total_minor) for item in found.shipped.items[1:]] == [
        ("handling", "r1", "Return difference", 10)
    ]
    assert found.shipped.total_minor == 60


@pytest.mark.parametrize(
    ("paid", "left"),
    [
        (None, [("shade", 1, 50)]),
        (0, [("shade", 1, 50), ("r1", 0, 100)]),
        (99, [("shade", 1, 50), ("r1", 0, 1)]),
        (100, [("shade", 1, 50)]),
        (120, [("shade", 1, 50), ("r1", 0, -20)]),
        (150, []),
        (152, []),
    ],
)
def test_money_that_went_back_is_what_counts(paid: int | None, left: list[tuple[str, int, int]]) -> None:
    """Both carts are what they would be with the units, less what was paid back for them."""
    assert carts(*LAMP_AND_SHADE, returned("r1", lamp=1, paid=paid)) == (left, [])


def test_negative_difference_comes_off_before_what_is_left_of_refunds() -> None:
    """Off the shipped cart, then off the other one, where it is a discount."""
    told = (confirmed(goods("A", 1, 100), goods("B", 1, 100)), shipped("s1", A=1), refunded("f1", 30))
    found = order(*told, returned("r1", A=1, paid=160))
    items = [(item.type, item.reference, item.name, item.total_minor) for item in found.unshipped.items[1:]]
    assert items == [("discount", "r1", "Return difference", -60), ("discount", "f1", "Refund", -30)]


def test_one_difference_under_the_name_of_the_newest_return() -> None:
    """Several returns with amounts make one difference; without the newest one it is the older's."""
    lines = (confirmed(goods("lamp", 1, 100), goods("bulb", 1, 20)), shipped("s1", lamp=1, bulb=1))
    told = (*lines, returned("r2", lamp=1, paid=80), returned("r1", bulb=1, paid=25))
    assert carts(*told) == ([("r1", 0, 15)], [])
    assert carts(*told, retracted(return_id="r1")) == ([("bulb", 1, 20), ("r2", 0, 20)], [])


def test_return_counts_while_the_content_has_all_its_lines() -> None:
    """Once its line is left out of the order, there is nothing to compare with."""
    told = (*LAMP_AND_SHADE, returned("r1", lamp=1, shade=1, paid=60))
    assert totals(*told) == (90, 0)
    assert totals(*told, cart_updated(goods("shade", 1, 50))) == (0, 0)


def test_refunds_newer_than_the_return_have_no_part_in_its_units() -> None:
    """Of older ones the units would have theirs."""
    base = (confirmed(goods("A", 2, 200)), shipped("s1", A=2))
    back = returned("r1", A=1, paid=70)
    assert totals(*base, refunded("f1", 40, applies_to=["A"]), back) == (90, 0)
    assert totals(*base, back, refunded("f1", 40, applies_to=["A"])) == (90, 0)
    two = (refunded("f1", 40, applies_to=["A"]), refunded("f2", 20, applies_to=["A"]))
    assert totals(*base, *two, back) == (70, 0)
    assert totals(*base, *two, returned("r1", A=1, paid=60)) == (80, 0)
    assert totals(*base, refunded("f1", 40, applies_to=["A"]), returned("r1", A=1, paid=80)) == (80, 0)
    assert totals(*base, returned("r1", A=1, paid=80), refunded("f1", 40, applies_to=["A"])) == (80, 0)


def test_charges_are_divided_as_they_would_be_with_the_units() -> None:
    """With the unit still kept nothing of value is pending, so neither is the delivery, nor what was refunded of it."""
    told = (confirmed(other("handling", "H", 6), goods("A", 3, 1)), shipped("s1", A=2), returned("r1", A=1, paid=0))
    assert totals(*told) == (3, 4)
    assert totals(*told, refunded("f1", 6, applies_to=["H"])) == (0, 1)


def test_units_above_what_was_ordered_have_their_share_of_all() -> None:
    """An article sent again for a returned one: paid back was what the first one cost, coupon and refund deducted."""
    base = (confirmed(goods("A", 1, 100), other("discount", "D", -10)), shipped("s1", A=1))
    again = (returned("r1", A=1, paid=90), shipped("s2", A=1))
    assert totals(*base, *again) == (90, 0)
    flawed = (*base, refunded("f1", 30, applies_to=["A"]))
    assert totals(*flawed, returned("r1", A=1, paid=60), shipped("s2", A=1)) == (60, 0)
    registered = confirmed(goods("A", 1, 100), other("registration", "R", 10))
    assert totals(registered, shipped("s1", A=1), returned("r1", A=1, paid=110), shipped("s2", A=1)) == (110, 0)


def test_fees_are_beside_the_difference() -> None:
    """A fee is kept of what was paid back; it is in both amounts that are compared."""
    told = (*LAMP_AND_SHADE, returned("r1", lamp=1, paid=100, fee=5), fee_charged("k1", 7))
    assert totals(*told) == (62, 0)


REFUSED_PARTS: list[tuple[EventSpec, int]] = [
    (returned("r1", shade=1, paid=50), 100),
    (returned("r1", shade=1), 100),
    (returned("r1", shade=1, paid=20, handling=None), 130),
]


@pytest.mark.parametrize(("back", "left"), REFUSED_PARTS)
def test_amount_of_units_is_their_share_unless_it_is_said(back: EventSpec, left: int) -> None:
    """Saying the share changes nothing; saying less leaves the rest owed."""
    assert totals(*LAMP_AND_SHADE, back) == (left, 0)
