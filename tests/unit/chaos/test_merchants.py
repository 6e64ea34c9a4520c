"""The shops of a chaos run at Qliro and AtaraPay: their checks see money that moves twice, and steps back."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from tests.chaos.merchants import AtaraPayShop, AtaraPayWords, QliroMoney, QliroShop, history_of, outcome_of, plot_of
from worker.providers.atarapay.wire import State
from worker.sandbox.atarapay.escrow import Escrow
from worker.sandbox.qliro.api import QliroApi
from worker.sandbox.qliro.orders import Item, Order, Result
from worker.tools.demo.merchants import ESCROW, HATS
from worker.tools.shop import ShopLine, ShopOrder

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
SHOP = ShopOrder("hats/H1000", [ShopLine("mug", "Mug", 1000, 4, shipped=2, returned=1)], 0, refunded_minor=50)
MUG = Item("mug", "Product", 1000, 800, 4)


async def refuse(_push: object) -> None:
    """Be a receiver that is not there."""


def at_qliro() -> tuple[QliroApi, Order]:
    """Return an order of four mugs as the checkout has left it."""
    api = QliroApi("HATS", "secret", lambda _: Result())
    return api, api.checkout(70_000, "H1000", "SEK", "QLIRO_INVOICE", [MUG], 0.0)


def done(api: QliroApi, order: Order, name: str, *lines: Item) -> None:
    """Have a command done at once."""
    make = api.make(order, 1.0, Result())
    if name == "ship":
        order.ship(None, list(lines), make)
    elif name == "return":
        order.give_back(max(order.captures), list(lines), 0, 0, make)
    elif name == "add":
        order.add(max(order.captures), list(lines), make)
    else:
        order.update(None, list(lines), make)
    api.advance(2.0)


def test_as_the_shop_says() -> None:
    """Two mugs captured, one of them returned, fifty cents off, less reserved: nothing is wrong at any step."""
    api, order = at_qliro()
    money = QliroMoney()
    steps = [
        ("ship", MUG.of(2)),
        ("return", MUG.of(1)),
        ("add", Item("f1", "Discount", -50, -50, 1)),
        ("update", MUG.of(1)),
    ]
    assert money.check(SHOP, order) == []
    for name, line in steps:
        done(api, order, name, line)
        assert money.check(SHOP, order) == [], name


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([("ship", MUG.of(3))], "3 x mug captured, 2 were ever shipped"),
        ([("ship", MUG.of(2)), ("return", MUG.of(2))], "2 x mug returned, 1 ever came back"),
        (
            [
                ("ship", MUG.of(2)),
                ("add", Item("f1", "Discount", -50, -50, 1)),
                ("add", Item("f1", "Discount", -50, -50, 1)),
            ],
            "100 paid back by amount, 50 were refunded",
        ),
        ([("update", MUG.of(2)), ("update", MUG.of(3))], "3 x mug reserved again, after 2"),
    ],
)
def test_money_that_moves_twice_is_seen(steps: list[tuple[str, Item]], says: str) -> None:
    """A unit captured, returned or reserved once more than there is cause, an amount paid back twice."""
    api, order = at_qliro()
    money, found = QliroMoney(), list[str]()
    for name, line in steps:
        done(api, order, name, line)
        found = money.check(SHOP, order)
    assert found == [f"{SHOP.subject}: {says}"]


def test_words_beyond_those_of_the_order_are_seen() -> None:
    """A second delivery without a second attempt, a cancellation after it, a word where there is none."""

    def wrong(shop: ShopOrder, *words: str) -> bool:
        return bool(AtaraPayWords.check(shop, Escrow("3000", "1000", 100, words=list(words))))

    delivered = replace(SHOP, words=("delivered",))
    assert not wrong(delivered)
    assert not wrong(delivered, "delivered")
    assert wrong(delivered, "delivered", "delivered")
    assert wrong(delivered, "cancelled")
    assert wrong(delivered, "delivered", "cancelled")
    assert wrong(SHOP, "delivered")
    assert not wrong(replace(SHOP, is_unsupported=True), "delivered")
    assert not wrong(replace(SHOP, words=("delivered", "delivered")), "delivered", "delivered")


async def test_shops_differ_until_everything_was_sent() -> None:
    """Orders of which something has to be sent disagree while nothing was; each process makes the same orders."""
    plot = plot_of(60, 100.0, 7, BEGAN)
    for shop in (QliroShop(plot, refuse), AtaraPayShop(plot, refuse)):
        for order in shop.history.orders.values():
            shop.place(order)
        assert {order.subject for order in shop.disagreeing()} == {
            order.subject for order in shop.history.orders.values() if _has_to_happen(order)
        }
        assert history_of(shop.name, plot) == shop.history
        assert shop.violations.total() == 0
        assert shop.breaches() == []
        await shop.sandbox.stop()


async def test_second_delivery_comes_after_the_notification() -> None:
    """Not before the slowest callback has told of the second attempt; what else can happen does at once."""
    shop = AtaraPayShop(plot_of(60, 100.0, 7, BEGAN), refuse)
    order = next(order for order in shop.history.orders.values() if len(order.words) == 2)
    shop.place(order)
    shop.sandbox.escrows[order.number].state = State.REJECTED
    del order.acts[0]
    found = [at_s for at_s in range(40) for event in shop.happen(at_s) if event.subject == order.subject]
    assert found == [16]
    assert order.acts == ["accept"]
    await shop.sandbox.stop()


async def test_second_attempt_that_nobody_heard_of() -> None:
    """An order may wait at AtaraPay for a delivery only while the notification that asked for it was taken by nobody."""
    shop = AtaraPayShop(plot_of(60, 100.0, 7, BEGAN), refuse)
    order = next(order for order in shop.history.orders.values() if len(order.words) == 2)
    shop.place(order)
    escrow = shop.sandbox.escrows[order.number]
    escrow.words.append("delivered")
    escrow.state = State.SECOND
    order.acts = ["accept"]
    assert shop.is_right(order)
    shop.taken = {("seller", order.number): Counter({"Pending II: Second delivery attempt": 1})}
    assert not shop.is_right(order)
    await shop.sandbox.stop()


def _has_to_happen(order: ShopOrder) -> bool:
    if order.account == HATS.name:
        return order.told
    return bool(order.words or order.acts) and not (order.is_unsupported and not order.acts)


def test_outcomes() -> None:
    """Of a cancellation that AtaraPay tells once: known if a receiver has taken it, else both may be."""
    orders = history_of(ESCROW.name, plot_of(60, 100.0, 7, BEGAN)).orders.values()
    there = next(order for order in orders if order.acts == ["cancel_as_buyer"])
    unsupported = next(order for order in orders if order.is_unsupported)
    assert outcome_of(there, ["Rejected"]).carts == ((0, 0),)
    assert outcome_of(there, []).carts == ((0, 0), (0, there.total_minor))
    assert outcome_of(unsupported, []).statuses == ("parked",)
