"""The shops of the demo: what must be held at each provider in the end, and that a difference is seen."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from schemas.views import OrderView
from worker.sandbox.atarapay.escrow import Act
from worker.sandbox.qliro.orders import Result
from worker.tools.demo.merchants import AtAtaraPay, AtQliro, AtSequra, Merchant, Plot
from worker.tools.shop import NIGERIA, REDELIVER, SPAIN, SWEDEN, Market, make_history, redelivered

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
PLOT = Plot(60, 10.0, 3, BEGAN)
NOTHING = OrderView("", "settled", "")


async def refuse(_push: object) -> None:
    """Be a shop that is not there."""


def verdicts(merchant: Merchant, view: OrderView | None) -> Counter[str]:
    """Return what each order's verdict is, by whether the provider has to be told anything."""
    orders = merchant.history.orders.values()
    return Counter(f"{merchant.verdict(order, view)} {order.told}" for order in orders)


async def test_nothing_told_differs() -> None:
    """When nobody tells anything, every order of which there is something to tell differs, and no other."""
    for merchant in (AtSequra(PLOT, refuse), AtQliro(PLOT, refuse)):
        for order in merchant.history.orders.values():
            merchant.place(order)
        found = verdicts(merchant, None)
        assert set(found) == {"agrees False", "differs True"}
        await merchant.sandbox.stop()


async def test_qliro_units_and_cents_count() -> None:
    """What is held is units by article and cents, charges with the first capture; a cent too many is seen."""
    merchant = AtQliro(PLOT, refuse)
    order = next(each for each in merchant.history.orders.values() if each.handling_minor and not each.told)
    merchant.place(order)
    line = order.lines[0]
    held = merchant.sandbox.orders[int(order.number)]
    (reserved,) = held.reserved.values()
    charge = next(item for item in reserved.values() if item.type == "Shipping")
    one = next(item for item in reserved.values() if item.reference == line.reference)
    ship = merchant.sandbox._api.make(held, 0.0, Result())
    held.ship(None, [one.of(1), charge], ship)
    held.transactions[max(held.transactions)].apply()
    assert merchant.verdict(order, None) == "differs"
    line.shipped = 1
    assert merchant.wanted(order) == merchant.held(order)
    assert merchant.held(order).split(" | ")[0].endswith(f": {line.unit_minor + order.handling_minor}")
    held.captures[max(held.captures)].left += 1
    assert merchant.verdict(order, None) == "differs"
    await merchant.sandbox.stop()


async def test_qliro_nothing_captured() -> None:
    """Charges are captured with goods alone: when all came back before anything was told, nothing is held."""
    merchant = AtQliro(PLOT, refuse)
    order = next(each for each in merchant.history.orders.values() if each.handling_minor and not each.told)
    merchant.place(order)
    for line in order.lines:
        line.shipped = line.returned = line.ordered
    assert merchant.verdict(order, None) == "differs"
    merchant.sandbox.orders[int(order.number)].release()
    assert merchant.verdict(order, None) == "agrees"
    await merchant.sandbox.stop()


async def test_atarapay_verdicts() -> None:
    """A part return must be parked as unsupported; a cancellation there must be known here; words must be taken."""
    merchant = AtAtaraPay(PLOT, refuse)
    orders = list(merchant.history.orders.values())
    for each in orders:
        merchant.place(each)
    returned = next(each for each in orders if each.is_unsupported)
    parked = msgspec.structs.replace(NOTHING, status="parked", reason="unsupported: 1 of 2 units")
    assert merchant.verdict(returned, parked) == "unsupported"
    for view in (None, NOTHING, msgspec.structs.replace(parked, reason="422: no")):
        assert merchant.verdict(returned, view) == "differs"
    called_off = next(each for each in orders if each.acts == ["cancel_as_buyer"])
    assert merchant.verdict(called_off, NOTHING) == "differs"
    list(merchant.happen(1.0))
    assert merchant.verdict(called_off, None) == "differs"
    assert merchant.verdict(called_off, NOTHING) == "agrees"
    await merchant.sandbox.stop()


async def test_second_attempt_is_brought_anew() -> None:
    """Once a second attempt was agreed on, the shop brings the order again, which it says with another event."""
    merchant = AtAtaraPay(PLOT, refuse)
    order = next(each for each in merchant.history.orders.values() if REDELIVER in each.acts)
    merchant.place(order)
    assert list(merchant.happen(1.0)) == []
    assert merchant.sandbox.do(order.number, Act.DELIVER)
    events = [event for at_s in (2.0, 3.0, 4.0) for event in merchant.happen(at_s)]
    (event,) = events
    told = msgspec.json.decode(event.value)
    assert (told["type"], told["time"]) == ("order.items_delivered", "2026-03-01T00:00:04.000000Z")
    assert not merchant.is_over
    await merchant.sandbox.stop()


@pytest.mark.parametrize("market", [SPAIN, SWEDEN, NIGERIA])
def test_markets(market: Market) -> None:
    """Each market's orders have what its provider needs, in its currency, and the same seed gives the same day."""
    history = make_history(7, 40, 5.0, began_at=BEGAN, market=market, odd=False)
    assert history == make_history(7, 40, 5.0, began_at=BEGAN, market=market, odd=False)
    first = {each.subject: msgspec.json.decode(each.value) for each in reversed(history.events)}
    confirmed = [each["data"] for each in first.values()]
    assert {each["currency"] for each in confirmed} == {market.currency}
    rates = {line.get("vat_rate_bp") for each in confirmed for line in each["lines"]}
    named = [each for each in confirmed if "references" in each]
    assert (rates, len(named) > 30) == (({2500}, True) if market is SWEDEN else ({None}, market is NIGERIA))
    assert all(("mobile_phone" in each["delivery_address"]) == (market is NIGERIA) for each in confirmed)


def test_redelivery_has_an_id_of_its_own() -> None:
    """It is another event than the first delivery, and later."""
    history = make_history(7, 60, 5.0, began_at=BEGAN, market=NIGERIA, odd=False)
    order = next(each for each in history.orders.values() if REDELIVER in each.acts)
    before = [msgspec.json.decode(each.value)["id"] for each in history.events if each.subject == order.subject]
    told = msgspec.json.decode(redelivered(order, 9.0, BEGAN).value)
    assert told["id"] not in before
    assert told["data"]["delivered_at"] == (BEGAN + timedelta(seconds=9)).isoformat()
