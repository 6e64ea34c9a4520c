"""What must not be sent to seQura is found before a request is made of it, with the arithmetic."""

from typing import Any

import pytest
from hypothesis import given, settings
from msgspec import UNSET
from msgspec.structs import replace

from schemas.events import GOODS, NEGATIVE, OrderEvent
from tests.shops.events import REFERENCE, cart_updated, confirmed, fold, goods, order, refunded, shipped
from tests.shops.histories import histories
from worker.core.order import assess
from worker.providers.sequra import Sequra, wire
from worker.providers.sequra.checks import entry_problem, problem_of
from worker.providers.sequra.options import SequraAccount

ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "u", "p")
PRODUCT = wire.Item("product", "A", "A", 1, 100, 100, False)
HANDLING = wire.Item("handling", "H", "H", total_with_tax=20)
DISCOUNT = wire.Item("discount", "D", "D", total_with_tax=-10)


def cart(*items: wire.Item, total: int | None = None, currency: str = "EUR") -> wire.Cart:
    """A cart whose total is the sum of its items unless said otherwise."""
    added = sum(item.total_with_tax for item in items if item.total_with_tax is not UNSET)
    return wire.Cart(currency, added if total is None else total, list(items))


def problem(shipped_cart: wire.Cart, unshipped_cart: wire.Cart, confirmed_total: int = 10**12) -> str | None:
    """What is wrong with an update of these two carts."""
    return problem_of(shipped_cart, unshipped_cart, confirmed_total)


def test_sound_carts() -> None:
    """Nothing is known against carts that keep the rules, empty ones included."""
    assert problem(cart(PRODUCT, HANDLING, DISCOUNT), cart()) is None
    assert problem(cart(), cart()) is None


WRONG: list[tuple[wire.Cart, str]] = [
    (cart(PRODUCT, HANDLING, total=121), "shipped_cart: items add up to 120, order_total_with_tax is 121"),
    (cart(DISCOUNT), "shipped_cart: order_total_with_tax -10, expected 0 to 1000000000000"),
    (
        cart(replace(PRODUCT, total_with_tax=10**12 + 1)),
        "shipped_cart: order_total_with_tax 1000000000001, expected 0 to 1000000000000",
    ),
    (cart(replace(PRODUCT, total_with_tax=UNSET)), "shipped_cart: product A: no total_with_tax"),
    (cart(replace(DISCOUNT, total_with_tax=100)), "shipped_cart: discount D: total_with_tax 100 has the wrong sign"),
    (cart(replace(DISCOUNT, total_with_tax=0)), "shipped_cart: discount D: total_with_tax 0 has the wrong sign"),
    (
        cart(PRODUCT, replace(HANDLING, total_with_tax=-1)),
        "shipped_cart: handling H: total_with_tax -1 has the wrong sign",
    ),
    (cart(replace(HANDLING, quantity=1)), "shipped_cart: handling H: has quantity or price_with_tax"),
    (cart(replace(HANDLING, price_with_tax=1)), "shipped_cart: handling H: has quantity or price_with_tax"),
    (cart(replace(PRODUCT, quantity=0)), "shipped_cart: product A: quantity 0, expected at least 1"),
    (cart(replace(PRODUCT, quantity=-2)), "shipped_cart: product A: quantity -2, expected at least 1"),
    (cart(replace(PRODUCT, quantity=UNSET)), "shipped_cart: product A: quantity 0, expected at least 1"),
    (cart(replace(PRODUCT, price_with_tax=UNSET)), "shipped_cart: product A: no price_with_tax"),
    (
        cart(wire.Item("invoice_fee", quantity=1, total_with_tax=5)),
        "shipped_cart: invoice_fee : has quantity or price_with_tax",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=[row[1] for row in WRONG])
def test_wrong_cart(wrong: wire.Cart, words: str) -> None:
    """Sums, signs, forbidden members, quantities: the cart, the item and the numbers are named."""
    assert problem(wrong, cart()) == words
    assert problem(cart(), wrong) == words.replace("shipped_cart", "unshipped_cart", 1)


@pytest.mark.parametrize("kind", sorted(wire.ITEM_RULES.keys() - GOODS - NEGATIVE))
def test_types_without_units(kind: str) -> None:
    """Each type on which seQura forbids units."""
    item = wire.Item(kind, "X", "X", total_with_tax=5)
    assert problem(cart(item), cart()) is None
    assert problem(cart(replace(item, quantity=1)), cart()) is not None


def test_carts_of_two_currencies() -> None:
    """Both carts are in one currency."""
    assert problem(cart(), cart(currency="USD")) == "shipped_cart in EUR, unshipped_cart in USD"


@pytest.mark.parametrize(
    ("confirmed_total", "total", "is_refused"),
    [(10_000, 11_500, False), (10_000, 11_501, True), (99, 113, False), (99, 114, True), (0, 0, False), (0, 1, True)],
)
def test_growth_above_15_percent(confirmed_total: int, total: int, is_refused: bool) -> None:
    """seQura accepts an increase of up to 15 % over the initial price; both carts count together."""
    expected = f"carts {total}, confirmed {confirmed_total}: seQura rejects an increase above 15 %"
    one = cart(replace(PRODUCT, total_with_tax=total // 2)) if total else cart()
    other = cart(replace(PRODUCT, total_with_tax=total - total // 2)) if total else cart()
    assert problem(one, other, confirmed_total) == (expected if is_refused else None)


def test_render_says_what_is_wrong() -> None:
    """The update is rendered all the same, with its problem, so that it can be parked by its digest."""
    grown = order(confirmed(goods("A", 1, 100)), cart_updated(goods("A", 1, 116)))
    found = Sequra().render(grown, ACCOUNT)
    assert found.problem == "carts 116, confirmed 100: seQura rejects an increase above 15 %"
    assert found.digest == Sequra().digest(grown)


def test_growth_is_measured_against_the_confirmation() -> None:
    """A return and an increase in one: only the total counts, and refunds make room."""
    specs: list[Any] = [confirmed(goods("A", 1, 100)), cart_updated(goods("A", 1, 120)), shipped("s1", A=1)]
    assert Sequra().render(order(*specs), ACCOUNT).problem is not None
    assert Sequra().render(order(*specs, refunded("f1", 5)), ACCOUNT).problem is None


@settings(max_examples=150)
@given(histories(max_size=12))
def test_carts_of_the_core_break_no_rule_but_growth(events: list[OrderEvent]) -> None:
    """What the core computes always adds up, has the right signs and no forbidden member."""
    found = assess(fold(events), REFERENCE).order
    if found is not None:
        problem = Sequra().render(replace(found, confirmed_total_minor=10**13), ACCOUNT).problem
        assert problem is None


# --- deliveries of a report ----------------------------------------------------------------------------------------

SERVICE = wire.Item("service", "S", "S", 1, 50, 50, False, ends_in="P1M")
FEE = wire.Item("subscriber_fee", UNSET, "F", 1, 5, 5, False)
INVOICE = wire.Item("invoice_fee", total_with_tax=3)
PARCEL = wire.Tracking("postal", "T1", "UPS")


def entry(
    *items: wire.Item, left: tuple[wire.Item, ...] = (), total: int | None = None, trackings: Any = UNSET
) -> wire.ReportedOrder:
    """A delivery with these items."""
    here, rest = cart(*items, total=total), cart(*left)
    return wire.ReportedOrder(
        wire.MerchantReference(REFERENCE),
        "shipped",
        "2026-03-01T00:00:00+00:00",
        wire.ReportedCart("EUR", False, here.order_total_with_tax, here.items),
        wire.RemainingCart(rest.order_total_with_tax, rest.items),
        wire.DeliveryMethod("post"),
        wire.Customer("Ana", "G", "a@example.org"),
        trackings=trackings,
    )


def test_sound_deliveries() -> None:
    """What a report takes."""
    voucher = wire.Item("voucher", "V", "V", total_with_tax=10)
    paid = wire.Item("other_payment", "P", "P", total_with_tax=-10)
    items = (PRODUCT, SERVICE, FEE, INVOICE, HANDLING, DISCOUNT, voucher, paid)
    assert entry_problem(entry(*items, left=(PRODUCT, SERVICE, INVOICE, HANDLING, DISCOUNT))) is None
    pickup = wire.Tracking("pickup_store", "T2")
    assert entry_problem(entry(PRODUCT, trackings=[PARCEL, pickup])) is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (entry(replace(PRODUCT, type="registration")), "cart: seQura's report does not accept registration here"),
        (entry(PRODUCT, left=(FEE,)), "remaining_cart: seQura's report does not accept subscriber_fee here"),
        (entry(replace(PRODUCT, name=UNSET)), "cart: product A: no name"),
        (entry(replace(FEE, name=UNSET)), "cart: subscriber_fee : no name"),
        (entry(replace(PRODUCT, reference=UNSET)), "cart: product : no reference"),
        (entry(replace(SERVICE, ends_in=UNSET)), "cart: service S: needs exactly one of ends_on and ends_in"),
        (entry(replace(PRODUCT, quantity=0)), "cart: product A: quantity 0, expected at least 1"),
        (entry(PRODUCT, total=99), "cart: items add up to 100, order_total_with_tax is 99"),
        (entry(PRODUCT, left=(DISCOUNT,)), "remaining_cart: order_total_with_tax -10, expected 0 to 1000000000000"),
        (
            entry(PRODUCT, trackings=[replace(PARCEL, carrier="")]),
            "tracking T1: no carrier, which seQura requires for postal parcels",
        ),
    ],
)
def test_deliveries_that_sequra_would_refuse(found: wire.ReportedOrder, expected: str) -> None:
    """Each member that the field list of the Delivery Report demands."""
    assert entry_problem(found) == expected
