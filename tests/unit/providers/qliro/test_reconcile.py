"""What a settled order comes to at Qliro: each verdict, who is owed what, and what to do."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.reconciliation import ProviderSide
from tests.shops.events import (
    confirmed,
    details,
    goods,
    items_cancelled,
    other,
    refunded,
    returned,
    shipped,
)
from tests.unit.providers.qliro.compared import RECONCILER, compared
from tests.unit.providers.qliro.test_commands import confirm
from tests.unit.providers.qliro.turns import ACCOUNT, Client, item, opened, order_of
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.reconcile import Terms
from worker.sandbox.qliro.orders import Item, Result

HATS = goods("hat", 2, 20_000)
FREIGHT = other("handling", "freight", 4_900)
DISCOUNT = other("discount", "coupon", -3_000)


def by_hand(client: Client, do: Callable[[Any, Any], None]) -> Client:
    """Somebody does something in Qliro's back office, of which nobody hears."""
    order = order_of(client)
    do(order, client.api.make(order, client.now, Result()))
    client.pass_time(1.0)
    return client


def bought(*lines: Any, items: list[Item] | None = None, method: str = "QLIRO_INVOICE") -> Client:
    """Two hats, as the checkout left them; or something else."""
    client = opened(*(items or [item("hat", 2, 10_000)]), method=method)
    return client.tell(confirm(*(lines or (HATS,))))


def told(client: Client, *specs: Any) -> Client:
    """The worker has sent all of it, one after the other."""
    assert client.work() == "settled"
    for spec in specs:
        client.tell(spec)
        assert client.work() == "settled"
    return client


def last_capture(client: Client) -> int:
    """Its number."""
    return max(order_of(client).captures)


def ship_by_hand(client: Client, count: int) -> Client:
    """Somebody captures hats."""
    which = max(order_of(client).reserved)
    return by_hand(client, lambda order, make: order.ship(which, [item("hat", count, 10_000)], make))


def take_off_by_hand(client: Client, minor: int) -> Client:
    """Somebody refunds an amount."""
    off = item("goodwill", 1, -minor, "Discount", ex=-minor)
    return by_hand(client, lambda order, make: order.add(last_capture(client), [off], make))


def return_by_hand(client: Client, count: int) -> Client:
    """Somebody returns hats."""
    which = last_capture(client)
    return by_hand(client, lambda order, make: order.give_back(which, [item("hat", count, 10_000)], 0, 0, make))


def lose_return(client: Client) -> Client:
    """Qliro has forgotten the return that it had confirmed."""
    order = order_of(client)
    made = max(one.id for one in order.transactions.values() if one.type == "Refund")
    capture = order.captures[order.transactions[made].original or 0]
    for action, number, line in order.actions:
        if (action, number) == ("Return", made):
            capture.returned[line.key] -= line.quantity
    capture.left += order.transactions[made].amount
    order.actions[:] = [each for each in order.actions if each[1] != made]
    del order.transactions[made]
    return client


def upsold(client: Client) -> Client:
    """The shopper adds a scarf."""
    client.api.reserve(order_of(client), [item("scarf", 1, 5_000)], client.now)
    return client


AGREES: dict[str, Callable[[], Client]] = {
    "only confirmed": lambda: told(bought()),
    "all shipped": lambda: told(bought(), shipped("s1", hat=2)),
    "half shipped": lambda: told(bought(), shipped("s1", hat=1)),
    "returned": lambda: told(bought(), shipped("s1", hat=2), returned("r1", hat=1)),
    "cancelled": lambda: told(bought(), items_cancelled("c1", hat=2)),
    "refunded": lambda: told(bought(), shipped("s1", hat=2), refunded("f1", 500)),
    "the delivery goes whole with the first capture": lambda: told(
        bought(HATS, FREIGHT, items=[item("hat", 2, 10_000), item("freight", 1, 4_900, "Shipping")]),
        shipped("s1", hat=1),
    ),
    "what was done there and undone by hand": lambda: by_hand(
        take_off_by_hand(told(bought(), shipped("s1", hat=2)), 500),
        lambda order, make: order.add(max(order.captures), [item("again", 1, 500, "Fee", ex=500)], make),
    ),
}


@pytest.mark.parametrize("made", AGREES.values(), ids=AGREES.keys())
def test_agrees(made: Callable[[], Client]) -> None:
    """What was told is what is there; both sides are shown."""
    client = made()
    found = compared(client)
    assert (found.category, found.verdict, found.difference_minor) == ("agrees", "agrees", None), found
    order = order_of(client)
    assert found.held == ProviderSide(
        order="12345", captured_minor=order.captured_minor, reserved_minor=order.left_minor
    )


SAID: dict[str, tuple[Callable[[], Client], str, str, int | None, str | None, str, str]] = {
    "captured early": (
        lambda: ship_by_hand(told(bought(), shipped("s1", hat=1)), 1),
        *("differs", "captured_more", 10_000, "shopper"),
        "100.00 EUR more captured than what was shipped and kept (captured and not kept: 1 × hat at 100.00 EUR)",
        "It was done at Qliro itself (transaction",
    ),
    "captured early, with a delivery that went whole before": (
        lambda: ship_by_hand(told(_with_freight(), shipped("s1", hat=1)), 1),
        *("differs", "captured_more", 10_000, "shopper"),
        "100.00 EUR more captured",
        "It was done at Qliro itself",
    ),
    "a delivery that is still reserved": (
        lambda: _lose_freight(told(_with_freight(), shipped("s1", hat=2))),
        *("differs", "captured_less", -4_900, "shop"),
        "49.00 EUR less captured than what was shipped and kept. The shop is owed 49.00 EUR.",
        "(it sends MarkItemsAsShipped)",
    ),
    "a return that is lost": (
        lambda: lose_return(told(bought(), shipped("s1", hat=2), returned("r1", hat=1))),
        *("differs", "captured_more", 10_000, "shopper"),
        "The shopper is owed 100.00 EUR.",
        "cartsync order resend acme/A14/12345 (it sends ReturnItems)",
    ),
    "a refund that is lost": (
        lambda: _lose_amount(told(bought(), shipped("s1", hat=2), refunded("f1", 500))),
        *("differs", "captured_more", 500, "shopper"),
        "5.00 EUR more captured",
        "Settle it by amount in Qliro's back office",
    ),
    "refunded by amount": (
        lambda: take_off_by_hand(told(bought(), shipped("s1", hat=2)), 120),
        *("differs", "captured_less", -120, "shop"),
        "Qliro has 1.20 EUR less captured than what was shipped and kept. The shop is owed 1.20 EUR.",
        "write it as an event with origin qliro",
    ),
    "refunded by amount while something is to be shipped": (
        lambda: take_off_by_hand(told(bought(), shipped("s1", hat=1)), 120),
        *("differs", "captured_less", -120, "shop"),
        "1.20 EUR less captured",
        "It was done at Qliro itself",
    ),
    "refunded by amount before the last shipment": (
        lambda: told(take_off_by_hand(told(bought(), shipped("s1", hat=1)), 120), shipped("s2", hat=1)),
        *("differs", "captured_less", -120, "shop"),
        "1.20 EUR less captured",
        "It was done at Qliro itself (transaction",
    ),
    "returned by hand": (
        lambda: return_by_hand(told(bought(), shipped("s1", hat=2)), 1),
        *("differs", "captured_less", -10_000, "shop"),
        "(neither captured nor reserved: 1 × hat at 100.00 EUR)",
        "order.items_returned",
    ),
    "a capture that is lost": (
        lambda: _lose_capture(told(bought(), shipped("s1", hat=2))),
        *("differs", "captured_less", -20_000, "shop"),
        "(kept and only reserved: 2 × hat at 100.00 EUR)",
        "(it sends MarkItemsAsShipped)",
    ),
    "other units for the same money": (
        lambda: _swap(
            told(
                bought(HATS, goods("mug", 1, 10_000), items=[item("hat", 2, 10_000), item("mug", 1, 10_000)]),
                shipped("s1", hat=2),
            )
        ),
        *("differs", "units_differ", None, None),
        "The amounts at Qliro are right, its units are not those of the carts",
        "cartsync order resend",
    ),
    "a discount that cannot be divided": (
        lambda: told(
            bought(
                HATS,
                DISCOUNT,
                items=[item("hat", 2, 10_000), item("coupon", 1, -3_000, "Discount", ex=-2_400)],
            ),
            shipped("s1", hat=2),
            returned("r1", hat=1),
        ),
        *("differs", "captured_less", -1_500, "shop"),
        "15.00 EUR less captured than what was shipped and kept.",
        "Settle it by amount in Qliro's back office",
    ),
    "an upsell": (
        lambda: upsold(told(bought())),
        *("differs", "changed_at_provider", 5_000, None),
        "50.00 EUR more reserved than what is still to be shipped (reserved and not to be shipped: 1 × scarf at 50.00",
        "order.cart_updated",
    ),
    "a cancellation that is lost": (
        lambda: _reserve_again(told(bought(), items_cancelled("c1", hat=2))),
        *("differs", "reserved_more", 20_000, None),
        "The shopper has not paid that, but cannot spend it.",
        "(it sends cancelOrder)",
    ),
    "a reservation that is gone": (
        lambda: _release(told(bought(), shipped("s1", hat=1))),
        *("differs", "reserved_less", -10_000, None),
        "It cannot be captured when it is shipped.",
        "It was done at Qliro itself",
    ),
    "other units reserved": (
        lambda: _rename_reserved(told(bought(), shipped("s1", hat=1))),
        *("differs", "units_differ", None, None),
        "neither captured nor reserved: 1 × hat",
        "cartsync order resend",
    ),
    "the checkout has reserved more": (
        lambda: told(bought(items=[item("hat", 2, 10_000), item("mug", 1, 500)])),
        *("differs", "reserved_more", 500, None),
        "5.00 EUR more reserved",
        "cartsync order resend",
    ),
    "a card whose reservation is released in the end": (
        lambda: told(
            bought(goods("hat", 3, 30_000), method="CREDITCARDS", items=[item("hat", 3, 10_000)]),
            shipped("s1", hat=1),
            items_cancelled("c1", hat=1),
        ),
        *("not_final", "released_later", 10_000, None),
        "the rest is released in the end",
        "",
    ),
}


def _with_freight() -> Client:
    return bought(HATS, FREIGHT, items=[item("hat", 2, 10_000), item("freight", 1, 4_900, "Shipping")])


def _lose_freight(client: Client) -> Client:
    """The delivery was not captured with the hats."""
    order, key = order_of(client), ("freight", 4_900)
    made = max(order.captures)
    capture = order.captures[made]
    line = capture.items.pop(key)
    capture.left -= line.inc
    order.transactions[made].amount -= line.inc
    order.reserved[order.transactions[made].original or 0][key].quantity = 1
    order.actions[:] = [each for each in order.actions if (each[1], each[2].reference) != (made, "freight")]
    return client


def _lose_amount(client: Client) -> Client:
    """Qliro has forgotten a refund by amount; what told it is still remembered here."""
    order = order_of(client)
    made = max(one.id for one in order.transactions.values() if one.type == "UpdateInvoice")
    order.captures[order.transactions[made].original or 0].left += order.transactions[made].amount
    order.actions[:] = [each for each in order.actions if each[1] != made]
    order.transactions[made].status = "Success"
    order.transactions[made].amount = 0
    return client


def _lose_capture(client: Client) -> Client:
    order = order_of(client)
    made = max(order.captures)
    for key, line in order.captures.pop(made).items.items():
        order.reserved[order.transactions[made].original or 0][key].quantity += line.quantity
    order.actions[:] = [each for each in order.actions if each[1] != made]
    del order.transactions[made]
    return client


def _swap(client: Client) -> Client:
    """The mug was captured in the place of one hat."""
    order = order_of(client)
    hat, mug = ("hat", 10_000), ("mug", 10_000)
    capture = order.captures[max(order.captures)]
    capture.items = {hat: capture.items[hat].of(1), mug: order.known[mug].of(1)}
    (held,) = order.reserved.values()
    held[hat].quantity, held[mug].quantity = 1, 0
    made = max(order.captures)
    order.actions[:] = [each for each in order.actions if each[1] != made]
    order.actions += [("Ship", made, line) for line in capture.items.values()]
    return client


def _reserve_again(client: Client) -> Client:
    """Qliro has forgotten that all was released."""
    order = order_of(client)
    made = max(one.id for one in order.transactions.values() if one.type == "Reversal")
    order.actions[:] = [each for each in order.actions if each[1] != made]
    del order.transactions[made]
    return client


def _release(client: Client) -> Client:
    return by_hand(client, lambda order, make: order.cancel(make))


def _rename_reserved(client: Client) -> Client:
    """What is reserved is something else, for the same money."""
    order = order_of(client)
    order.actions[:] = [
        (kind, made, Item("cap", one.type, one.inc, one.ex, 1) if kind == "Reserve" and one.reference == "hat" else one)
        for kind, made, one in order.actions
    ]
    return client


@pytest.mark.parametrize(
    ("made", "category", "verdict", "minor", "owed_to", "text", "action"), SAID.values(), ids=SAID.keys()
)
def test_differs(
    made: Callable[[], Client],
    category: str,
    verdict: str,
    minor: int | None,
    owed_to: str | None,
    text: str,
    action: str,
) -> None:
    """What differs is named: how much of what, who is owed it, and what to do."""
    found = compared(made())
    assert (found.category, found.verdict, found.difference_minor, found.owed_to) == (
        *(category, verdict, minor, owed_to),
    ), found
    assert text in found.text, found
    assert action in found.action, found


def test_another_order() -> None:
    """An answer about another order, or in another currency, is named, and nothing of it is compared."""
    client = told(bought(), shipped("s1", hat=2))
    order_of(client).reference = "another-ref"
    found = compared(client)
    assert (found.category, found.verdict) == ("differs", "other_order")
    assert found.text == "Qliro's order 12345 is called 'another-ref', expected 'qliro-ref'."
    assert found.held is not None
    assert found.held.reference == "another-ref"
    order_of(client).currency = "SEK"
    found = compared(client)
    assert (found.category, found.verdict) == ("differs", "other_currency")
    assert found.text == "Qliro's order 12345 is in SEK, the order in EUR."
    assert found.held is not None
    assert found.held.currency == "SEK"
    assert "Correct references.provider of acme/A14/12345" in found.action


def test_transactions_that_are_not_final() -> None:
    """While something moves there, nothing can be said."""
    client = told(bought(), shipped("s1", hat=2))
    order = order_of(client)
    made = client.api.make(order, client.now, Result(60.0))("Refund", 500, last_capture(client))
    found = compared(client)
    assert (found.category, found.verdict) == ("not_final", "transactions_pending")
    assert found.text == f"Qliro works on transaction {made.id}."
    assert found.held is not None
    assert found.held.pending == [made.id]


def test_cancelled_whatever_the_list_shows() -> None:
    """Qliro has said that the order was cancelled: what it still lists as reserved does not count."""
    client = bought()
    order_of(client).is_cancelled = True
    client.tell(items_cancelled("c1", hat=2))
    assert client.work() == "settled"
    assert order_of(client).left == 2
    assert compared(client).verdict == "agrees"


def test_nothing_to_ask_by() -> None:
    """Without a number, and with a reference that Qliro does not take, it cannot be asked."""
    client = opened(item("hat", 2, 10_000)).tell(confirmed(HATS))
    assert client.work() == "settled"
    found = compared(client)
    assert (found.category, found.verdict) == ("not_compared", "cannot_be_asked")
    assert "references.provider is missing" in found.text
    assert compared(told(client, details(references={"provider": "12345"}))).verdict == "agrees"


def test_what_cannot_be_sent_is_said() -> None:
    """A voucher, which Qliro has no line for: both sides are shown, and why no command mends it."""
    client = opened(item("hat", 2, 10_000))
    client.tell(confirm(HATS, other("voucher", "gift", 500)), shipped("s1", hat=2))
    assert client.work().startswith("parked")
    found = compared(client)
    assert (found.verdict, found.difference_minor, found.owed_to) == ("captured_less", -500, "shop")
    assert "it cannot be sent: a voucher of 500: Qliro has no such line" in found.action


def test_many_units_are_counted() -> None:
    """Of many articles the first are named."""
    lines = [goods(f"a{n}", 1, 1_000) for n in range(7)]
    client = bought(*lines, items=[item(f"a{n}", 1, 1_000) for n in range(7)])
    found = compared(by_hand(told(client), lambda order, make: order.cancel(make)))
    assert "1 × a4 at 10.00 EUR, 2 more)" in found.text


def test_unknown_and_ledger() -> None:
    """404 says that there is no such order; each order is asked about by itself."""
    assert RECONCILER.is_unknown(ACCOUNT, Outcome(OutcomeKind.NOT_FOUND, "404", 404))
    assert not RECONCILER.is_unknown(ACCOUNT, Outcome(OutcomeKind.PERMANENT, "400", 400))
    assert RECONCILER.ledger(ACCOUNT, Terms(0, 31, True)) is None
    assert RECONCILER.title == "Qliro"
