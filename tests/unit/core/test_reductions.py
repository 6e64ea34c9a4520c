"""Reductions take only what is there (`DOMAIN.md` section 5): where they lie, and that no loss raises what is owed."""

from tests.shops.events import (
    cancelled,
    carts,
    confirmed,
    goods,
    items_cancelled,
    other,
    returned,
    shipped,
    totals,
)

CARD = (goods("A", 2, 100), other("handling", "H", 50), other("other_payment", "card", -105))


def test_what_goods_cannot_carry_comes_off_the_delivery() -> None:
    """Goods 100, delivery 50, gift card −105: 100 come off the goods, 5 off the delivery; all comes back: 45 stay."""
    told = (confirmed(*CARD), shipped("s1", A=2))
    assert totals(*told) == (45, 0)
    assert totals(*told, returned("r1", A=1)) == (45, 0)
    assert carts(*told, returned("r1", A=2)) == ([("H", 0, 50), ("card", 0, -5)], [])


def test_what_is_cancelled_takes_its_part_along() -> None:
    """One of two is cancelled, the other is sent: the card still pays the goods whole and 5 of the delivery."""
    assert totals(confirmed(*CARD), items_cancelled("c1", A=1), shipped("s1", A=1)) == (45, 0)


def test_delivery_less_its_discount_is_refunded() -> None:
    """Delivery 10 less a discount of 4 on it, 6 refunded of it: 0; also when the shop refunds the whole 10."""
    lines = (goods("A", 1, 100), other("handling", "H", 10), other("discount", "D", -4, applies_to=["H"]))
    told = (confirmed(*lines), shipped("s1", A=1), returned("r1", A=1))
    assert carts(*told) == ([("H", 0, 10), ("D", 0, -4)], [])
    assert totals(*told, returned("r2", handling=6)) == (0, 0)
    assert carts(*told, returned("r2", handling=10)) == ([], [])


def test_discount_of_some_lines_comes_first() -> None:
    """What it took of them weighs no more for those of the whole order, wherever these stand."""
    lines = (
        goods("A", 1, 100),
        goods("B", 1, 100),
        other("discount", "all", -100),
        other("discount", "one", -100, applies_to=["A"]),
    )
    assert carts(confirmed(*lines), shipped("s1", B=1)) == (
        [("B", 1, 100), ("all", 0, -100)],
        [("A", 1, 100), ("one", 0, -100)],
    )


def test_what_named_lines_cannot_carry_comes_off_the_others_in_its_turn() -> None:
    """A discount above its line comes off the other goods, in the order of lines with those of the whole order."""
    lines = (
        goods("A", 1, 100),
        goods("B", 1, 1000),
        other("handling", "H", 50),
        other("discount", "D", -400, applies_to=["A"]),
        other("discount", "E", -740),
    )
    assert carts(confirmed(*lines), shipped("s1", A=1)) == (
        [("A", 1, 100), ("H", 0, 5), ("D", 0, -100), ("E", 0, -4)],
        [("B", 1, 1000), ("H", 0, 45), ("D", 0, -300), ("E", 0, -736)],
    )
    told = (confirmed(*lines), items_cancelled("c1", A=1))
    assert carts(*told) == ([], [("B", 1, 1000), ("H", 0, 50), ("D", 0, -300), ("E", 0, -740)])


def test_discount_of_goods_and_their_delivery() -> None:
    """It is divided by what both have: what belongs to the article goes with it."""
    lines = (goods("A", 1, 90), goods("B", 1, 90), other("handling", "H", 10, applies_to=["A"]))
    told = (confirmed(*lines, other("discount", "D", -50, applies_to=["H", "A"])), shipped("s1", A=1))
    assert totals(*told) == (50, 90)
    assert carts(*told, returned("r1", A=1)) == ([("H", 0, 10), ("D", 0, -5)], [("B", 1, 90)])


def test_discount_over_lines_is_rounded_over_all_of_them() -> None:
    """Over the shipped parts, then the unshipped ones, then what was lost; two halves are not rounded twice."""
    lines = (goods("A", 2, 2), goods("B", 2, 2), goods("C", 1, 9), other("discount", "D", -2, applies_to=["B", "A"]))
    told = (confirmed(*lines), shipped("s1", A=1, B=1))
    assert totals(*told) == (1, 10)
    assert totals(*told, items_cancelled("c1", A=1, B=1)) == (1, 9)


def test_order_of_the_lines_counts_and_not_that_of_their_names() -> None:
    """A cent goes to the first line of the content: what is taken there is missing for the next discount of it."""
    lines = (
        goods("A", 1, 1),
        goods("B", 1, 1),
        goods("C", 1, 10),
        other("discount", "D", -1, applies_to=["B", "A"]),
        other("discount", "E", -1, applies_to=["A"]),
    )
    assert totals(confirmed(*lines), shipped("s1", C=1)) == (9, 1)


def test_discount_of_a_delivery_that_is_gone_goes_with_it() -> None:
    """Its goods were cancelled before anything was sent, so there is no delivery: the others do not carry its coupon."""
    lines = (
        goods("A", 1, 100),
        goods("B", 1, 100),
        other("handling", "H", 10, applies_to=["A"]),
        other("discount", "D", -10, applies_to=["H"]),
    )
    assert carts(confirmed(*lines), items_cancelled("c1", A=1)) == ([], [("B", 1, 100)])


def test_registration_and_voucher_are_reached_last() -> None:
    """A gift card above goods and delivery pays part of the rest; all comes back, that part stays."""
    lines = (goods("A", 2, 100), other("handling", "H", 50), other("voucher", "V", 80), other("registration", "R", 20))
    told = (confirmed(*lines, other("other_payment", "card", -190)), shipped("s1", A=2))
    assert totals(*told) == (60, 0)
    assert totals(*told, returned("r1", A=1)) == (54, 0)
    assert totals(*told, returned("r1", A=2)) == (48, 0)
    assert totals(*told, cancelled(), returned("r1", A=2)) == (48, 0)


def test_free_gift_that_comes_back_takes_nothing_along() -> None:
    """What is worth nothing carries nothing of the coupon."""
    told = (confirmed(goods("gift", 1, 0), goods("A", 1, 100), other("discount", "D", -10)), shipped("s1", gift=1, A=1))
    assert totals(*told, returned("r1", gift=1)) == (90, 0)


def test_reduction_of_a_content_without_goods() -> None:
    """It lies where the charges lie, and comes off a voucher only where these cannot carry it."""
    lines = (other("handling", "H", 100), other("voucher", "V", 50), other("discount", "D", -130))
    assert carts(confirmed(*lines)) == ([("V", 0, 50), ("D", 0, -30)], [("H", 0, 100), ("D", 0, -100)])
    assert carts(confirmed(*lines), cancelled()) == ([("V", 0, 50), ("D", 0, -30)], [])
