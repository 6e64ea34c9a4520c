"""AtaraPay's sandbox over real HTTP: the words that it takes, and what it notifies the seller of."""

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.unit.sandbox.asking import Client, Shop
from tests.unit.sandbox.conftest import Serve
from worker.model.callbacks import Called, Push
from worker.providers.atarapay.callbacks import AtaraPayCallbacks
from worker.providers.atarapay.tokens import authtoken
from worker.sandbox.atarapay.sandbox import AtaraPaySandbox
from worker.sandbox.faults import FaultPlan

TOKEN = authtoken("public", "private")
DELIVERED = {"status": "delivered", "phone_number": "+2348012345678"}


async def paid(serve: Serve, shop: Shop, plan: str = "") -> Client:
    """Return the client of a sandbox into which one order was paid."""
    sandbox = AtaraPaySandbox(
        "public", "private", FaultPlan.parse(plan), 1, send=shop.send, callback_url="http://shop.example/notification"
    )
    client = await serve(sandbox)
    assert (await client.tell("/checkout", {"number": "3021", "product_id": "1001", "amount_minor": 6051900}))[0] == 200
    return client


async def word(client: Client, order: str = "3021", token: str = TOKEN, **form: str) -> tuple[int, Any]:
    """Tell a word."""
    body = urlencode({"authtoken": token, "order": order} | form).encode()
    return await client.ask("POST", "/api/callback/order", body)


async def at_rest(client: Client) -> None:
    """Wait until nothing is on its way to the seller."""
    async with asyncio.timeout(5):
        while client.sandbox.pushes.pending:  # noqa: ASYNC110 - the sandbox has no events for its tests
            await asyncio.sleep(0)


async def test_delivered(serve: Serve) -> None:
    """A word is taken once; the seller is notified of it, and Order Status shows it."""
    shop = Shop((200, b""))
    client = await paid(serve, shop)
    assert (await word(client, **DELIVERED))[1]["message"] == "pod_created"
    assert (await word(client, **DELIVERED))[1]["status"] == "error"
    assert (await word(client, status="order"))[1]["data"]["status"]["title"] == "Awaiting Buyer Response"
    await at_rest(client)
    assert [(push.what, push.url) for push in shop.pushes] == [
        ("Delivered: Order is marked completed", "http://shop.example/notification")
    ]
    assert [(attempt.what, attempt.applied) for attempt in client.sandbox.log] == [
        ("delivered", True),
        ("delivered", False),
        ("order", False),
    ]


async def test_refused(serve: Serve) -> None:
    """Wrong tokens, unknown orders and words are refused in AtaraPay's words."""
    client = await paid(serve, Shop((200, b"")))
    said = [
        await word(client, token="x", status="order"),
        await word(client, order="1", status="order"),
        await word(client, status="shipped"),
        await client.ask("POST", "/callback/order", b"\xff"),
    ]
    assert [answer["status"] for _, answer in said] == ["error"] * 4
    assert (await word(client, status="order"))[1]["status"] == "success"


async def test_happens_there(serve: Serve) -> None:
    """What buyer and seller do happens when it can, or is refused with the state that the order is in."""
    client = await paid(serve, Shop((200, b"")))
    status, said = await client.tell("/acts", {"number": "3021", "act": "reject"})
    assert (status, said["errors"]) == (400, ["reject cannot be done now: the order is Pending"])
    assert (await client.tell("/acts", {"number": "3021", "act": "cancel_as_buyer"}))[0] == 200
    assert (await client.ask("GET", "/orders/seller/3021"))[1]["state"] == "Cancelled"
    assert (await client.tell("/acts", {"number": "1", "act": "reject"}))[0] == 400
    assert (await client.tell("/acts", {"number": "3021", "act": "sing"}))[0] == 400


async def test_notifications_are_understood(serve: Serve) -> None:
    """JSON, form and multipart: in each our receiver reads the same order and its token; no one comes again."""
    shop = Shop((500, b""))
    client = await paid(serve, shop)
    await word(client, **DELIVERED)
    for act in ("reject", "agree_second_attempt"):
        await client.tell("/acts", {"number": "3021", "act": act})
    await at_rest(client)
    assert [
        push.content_type.partition(";")[0] for push in sorted(shop.pushes, key=lambda push: push.content_type)
    ] == [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ]
    states = set()
    for push in shop.pushes:
        called = Called(
            account="escrow",
            purpose="notification",
            reference="",
            media_type=push.content_type,
            body=push.body,
            arrived_ms=0,
            public_key="public",
            private_key="private",
        )
        reading = AtaraPayCallbacks().read(called)
        assert isinstance(reading, Push)
        (said,) = reading.said
        assert (said.reference, said.data["provider_order"]) == ("1001", "3021")
        states.add(said.data["state"])
    assert states == {"delivered", "rejected", "second_attempt"}


@pytest.mark.parametrize(("fault", "words"), [("500", []), ("500_applied", ["delivered"])])
async def test_faults(serve: Serve, fault: str, words: list[str]) -> None:
    """Faults know an order by its number."""
    client = await paid(serve, Shop((200, b"")))
    client.sandbox.faults.script("seller", "3021", fault, "401")
    url = client.base_url + "/callback/order"
    form = {"authtoken": TOKEN, "order": "3021"} | DELIVERED
    async with client.session.post(url, data=form) as response:
        assert (response.status, response.content_type) == (500, "text/html")
    status, said = await word(client, status="order")
    assert (status, said["message"]) == (401, "Invalid authtoken. Does not match any record.")
    assert (await client.ask("GET", "/orders/seller/3021"))[1]["words"] == words


async def test_shown(serve: Serve) -> None:
    """Page and list show what is held, and no keys."""
    client = await paid(serve, Shop((200, b"")))
    await word(client, **DELIVERED)
    assert (await client.ask("GET", "/orders"))[1]["orders"][0]["words"] == ["delivered"]
    assert (await client.ask("GET", "/orders/seller/1"))[0] == 404
    async with client.session.get(client.base_url + "/") as response:
        text = await response.text()
    assert "Awaiting Buyer Response" in text
    assert TOKEN not in text
    assert "private" not in text
