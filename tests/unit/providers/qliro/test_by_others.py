"""Amounts that somebody else has told at Qliro itself: once the shop says the same, they are not sent a second time."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.shops.events import EventSpec, fee_charged, refunded, returned, shipped
from tests.unit.providers.qliro.compared import compared
from tests.unit.providers.qliro.test_commands import names, sent
from tests.unit.providers.qliro.test_reconcile import (
    FREIGHT,
    HATS,
    bought,
    by_hand,
    last_capture,
    return_by_hand,
    take_off_by_hand,
    told,
)
from tests.unit.providers.qliro.turns import Client, item, order_of


def refund_without_items(client: Client, minor: int) -> Client:
    """Somebody refunds an amount, and Qliro lists no item for it."""

    def do(order: Any, make: Any) -> None:
        which = last_capture(client)
        made = make("Refund", minor, which)
        capture = order.captures[which]
        made.apply = lambda: setattr(capture, "left", capture.left - minor)

    return by_hand(client, do)


def charge_by_hand(client: Client, minor: int) -> Client:
    """Somebody charges an amount."""
    more = item("late", 1, minor, "Fee", ex=minor)
    return by_hand(client, lambda order, make: order.add(last_capture(client), [more], make))


@pytest.mark.parametrize("origin", [None, "qliro"], ids=["told plainly", "told with its origin"])
@pytest.mark.parametrize(
    "do",
    [
        lambda client: take_off_by_hand(client, 120),
        lambda client: refund_without_items(client, 120),
        lambda client: take_off_by_hand(refund_without_items(client, 50), 70),
    ],
    ids=["as an item", "without an item", "in two parts"],
)
def test_refund_of_the_back_office_goes_out_once(do: Callable[[Client], Client], origin: str | None) -> None:
    """The shop books it: nothing is sent for it, neither then nor with what comes later."""
    client = do(told(bought(), shipped("s1", hat=1)))
    assert compared(client).difference_minor == -120
    booked = refunded("f1", 120)
    told(client, booked if origin is None else booked.but(origin=origin))
    assert compared(client).verdict == "agrees"
    told(client, shipped("s2", hat=1))
    assert names(client) == ["MarkItemsAsShipped"] * 2
    assert order_of(client).captured_minor == 19_880
    assert compared(client).verdict == "agrees"


def test_charge_of_the_back_office_is_made_once() -> None:
    """The same of an amount on top."""
    client = charge_by_hand(told(bought(), shipped("s1", hat=2)), 120)
    told(client, fee_charged("f1", 120))
    assert names(client) == ["MarkItemsAsShipped"]
    assert compared(client).verdict == "agrees"


def test_delivery_that_the_back_office_refunded() -> None:
    """Refunded there by amount, and told with a return of the shop: the line is not returned as well."""
    items = [item("hat", 2, 10_000), item("freight", 1, 4_900, "Shipping")]
    client = refund_without_items(told(bought(HATS, FREIGHT, items=items), shipped("s1", hat=2)), 4_900)
    told(client, returned("r1", handling=4_900))
    assert names(client) == ["MarkItemsAsShipped"]
    assert compared(client).verdict == "agrees"
    told(client, returned("r2", hat=1))
    assert names(client)[1:] == ["ReturnItems"]
    assert compared(client).verdict == "agrees"


@pytest.mark.parametrize("amount", [500, 121, 119], ids=["another one", "a cent more", "a cent less"])
def test_another_amount_is_sent(amount: int) -> None:
    """What the back office did is not undone, and what is due beside it is told in full."""
    client = told(take_off_by_hand(told(bought(), shipped("s1", hat=2)), 120), refunded("f1", amount))
    assert names(client)[1:] == ["AddItemsToInvoice"]
    assert sent(client)["Additions"][0]["OrderItems"][0]["PricePerItemIncVat"] == -amount / 100
    assert compared(client).difference_minor == -120


def test_one_of_two_refunds_was_made_there() -> None:
    """The other one is sent; when both are taken back by the shop nothing more is."""
    client = take_off_by_hand(told(bought(), shipped("s1", hat=2)), 120)
    told(client, refunded("f1", 300), refunded("f2", 120))
    assert names(client)[1:] == ["AddItemsToInvoice"]
    assert compared(client).verdict == "agrees"
    twice = take_off_by_hand(told(bought(), shipped("s1", hat=2)), 120)
    told(twice, refunded("f1", 120), refunded("f2", 120))
    assert names(twice)[1:] == ["AddItemsToInvoice"]
    assert compared(twice).verdict == "agrees"


def test_two_refunds_at_once() -> None:
    """Of those that are told together, the one that was made there is known by its amount."""
    client = take_off_by_hand(told(bought(), shipped("s1", hat=2)), 120)
    client.tell(refunded("f1", 300), refunded("f2", 120), refunded("f3", 50))
    told(client)
    prices = [sent(client, number)["Additions"][0]["OrderItems"][0]["PricePerItemIncVat"] for number in (1, 2)]
    assert (len(client.requests), prices) == (3, [-3.0, -0.5])
    assert compared(client).verdict == "agrees"


def test_our_own_refund_is_no_other_one() -> None:
    """One that Qliro lists without its item is remembered as ours: the next of the same amount is sent."""
    client = told(bought(method="CREDITCARDS"), shipped("s1", hat=2), refunded("f1", 120))
    order = order_of(client)
    made = max(one.id for one in order.transactions.values() if one.type == "Refund")
    order.actions[:] = [each for each in order.actions if each[1] != made]
    told(client, refunded("f2", 120))
    assert names(client)[1:] == ["AddItemsToInvoice"] * 2
    assert order.captured_minor == 19_760


@pytest.mark.parametrize(
    ("tellings", "commands", "captured"),
    [
        ([refunded("f1", 120)], ["ReturnItems", "AddItemsToInvoice"], 9_880),
        ([], ["ReturnItems"], 10_000),
    ],
    ids=["booked", "not booked"],
)
def test_goods_that_come_back_after_it(tellings: list[EventSpec], commands: list[str], captured: int) -> None:
    """Their return pays what is left of their capture. The rest is due from another one if the shop has booked the
    refund beyond the goods; else the back office has paid it already.
    """
    client = take_off_by_hand(told(bought(), shipped("s1", hat=1)), 120)
    told(client, shipped("s2", hat=1), *tellings, returned("r1", hat=1))
    assert names(client) == ["MarkItemsAsShipped", "MarkItemsAsShipped", *commands]
    assert order_of(client).captured_minor == captured
    assert compared(client).verdict == "agrees"


def test_units_that_the_back_office_returned() -> None:
    """They are compared as units, so nothing is sent for them."""
    client = return_by_hand(told(bought(), shipped("s1", hat=2)), 1)
    told(client, returned("r1", hat=1).but(origin="qliro"))
    assert names(client) == ["MarkItemsAsShipped"]
    assert compared(client).verdict == "agrees"
