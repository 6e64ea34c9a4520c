"""The six situations of seQura's Order Update documentation (docs.sequra.com, read 2026), from event to provider."""

from typing import Any

import msgspec

from tests.integration.conftest import OpenStage
from tests.shops.by_hand import ACCOUNT, MERCHANTS, ShopOrder, key_of, line

SHIRT = line("shirt1234", 1250, name="shirt")
SHIRT_XL = line("shirt_XL", 1250, name="shirt XL")
JACKET = line("jacket9876", 7100, name="jacket")


def item(reference: str, name: str, price: int) -> dict[str, Any]:
    """An item as the documentation shows it, and with the type that it leaves out."""
    return {
        "type": "product",
        "reference": reference,
        "name": name,
        "price_with_tax": price,
        "quantity": 1,
        "total_with_tax": price,
        "downloadable": False,
    }


def cart(*items: dict[str, Any]) -> dict[str, Any]:
    """A cart as the documentation shows it."""
    total = sum(each["total_with_tax"] for each in items)
    return {"currency": "EUR", "order_total_with_tax": total, "items": list(items)}


SHIRT_ITEM = item("shirt1234", "shirt", 1250)
SHIRT_XL_ITEM = item("shirt_XL", "shirt XL", 1250)
JACKET_ITEM = item("jacket9876", "jacket", 7100)


async def shipped(order: ShopOrder) -> None:
    """The most common case."""
    await order.confirm(SHIRT, JACKET)
    await order.ship("s1", shirt1234=1, jacket9876=1)


async def partially_shipped(order: ShopOrder) -> None:
    """The shirt is sent later."""
    await order.confirm(SHIRT, JACKET)
    await order.ship("s1", jacket9876=1)


async def partially_returned(order: ShopOrder) -> None:
    """The shirt comes back."""
    await shipped(order)
    await order.take_back("r1", shirt1234=1)


async def returned(order: ShopOrder) -> None:
    """Everything comes back, in two parcels."""
    await partially_returned(order)
    await order.take_back("r2", jacket9876=1)


async def cancelled(order: ShopOrder) -> None:
    """Nothing was sent, and nothing will be."""
    await order.confirm(SHIRT, JACKET)
    await order.tell("cancelled", reason="out_of_stock")


async def cart_updated(order: ShopOrder) -> None:
    """Another size, and then it is sent."""
    await order.confirm(SHIRT, JACKET)
    await order.tell("cart_updated", currency="EUR", lines=[SHIRT_XL, JACKET])
    await order.ship("s1", shirt_XL=1, jacket9876=1)


MERCHANT = MERCHANTS[ACCOUNT]
SITUATIONS = {
    "A14/1": (shipped, cart(SHIRT_ITEM, JACKET_ITEM), cart(), None),
    "A14/2": (partially_shipped, cart(JACKET_ITEM), cart(SHIRT_ITEM), None),
    "A14/3": (partially_returned, cart(JACKET_ITEM), cart(), None),
    "A14/4": (returned, cart(), cart(), None),
    "A14/5": (cancelled, cart(), cart(), "out_of_stock"),
    "A14/6": (cart_updated, cart(SHIRT_XL_ITEM, JACKET_ITEM), cart(), None),
}
"""By order reference: what happened, `shipped_cart`, `unshipped_cart`, `cancellation_reason`."""


async def test_the_six_situations_end_in_the_documented_carts(open_stage: OpenStage) -> None:
    """Each order's body at the provider is the documented one, and its reference's slash is escaped in the URL."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    for reference, (happen, *_) in SITUATIONS.items():
        await happen(stage.order(f"{ACCOUNT}/{reference}"))
    await stage.order(f"{ACCOUNT}/A14/7").confirm(SHIRT)
    await stage.agreed(
        {
            f"{ACCOUNT}/{reference}": (shipped["order_total_with_tax"], unshipped["order_total_with_tax"])
            for reference, (_, shipped, unshipped, _) in SITUATIONS.items()
        }
    )
    for reference, (_, shipped_cart, unshipped_cart, reason) in SITUATIONS.items():
        order = msgspec.json.decode(stage.sandbox.held[MERCHANT, reference].body)["order"]
        assert (order["shipped_cart"], order["unshipped_cart"]) == (shipped_cart, unshipped_cart), reference
        assert order.get("cancellation_reason") == reason
        assert order["merchant"]["id"] == MERCHANT
        assert order["merchant_reference"] == {"order_ref_1": reference}
        last = stage.attempts(f"{ACCOUNT}/{reference}")[-1]
        assert last.raw_path == f"/merchants/{MERCHANT}/orders/{reference.replace('/', '%2F')}"
        assert key_of(last) == (
            f"{ACCOUNT}/{reference}",
            (await worker.shown(f"{ACCOUNT}/{reference}", "settled")).acked,
        )
    confirmed_only = await worker.shown(f"{ACCOUNT}/A14/7", "settled")
    assert stage.holds(confirmed_only.subject) is None
    stage.assert_monotone()


async def test_every_step_is_told_when_there_is_time(open_stage: OpenStage) -> None:
    """Steps that are far apart are told one by one: the provider follows the order, each time with a higher key."""
    stage = await open_stage()
    await stage.started()
    order = stage.order(f"{ACCOUNT}/A14/12345")
    await order.confirm(SHIRT, JACKET)
    await order.ship("s1", jacket9876=1)
    await stage.agreed({order.subject: (7100, 1250)})
    await order.ship("s2", shirt1234=1)
    await stage.agreed({order.subject: (8350, 0)})
    await order.take_back("r1", shirt1234=1)
    await stage.agreed({order.subject: (7100, 0)})
    revisions = [key_of(attempt)[1] for attempt in stage.attempts(order.subject)]
    assert len(revisions) == 3
    assert revisions == sorted(set(revisions))
