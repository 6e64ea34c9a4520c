"""Qliro's sandbox over real HTTP: what it answers, what it works on, what it pushes."""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.unit.sandbox.asking import Client, Shop
from tests.unit.sandbox.conftest import Serve
from worker.model.callbacks import Called, Push
from worker.providers.qliro import questions
from worker.providers.qliro.callbacks import QliroCallbacks
from worker.sandbox.faults import FaultPlan
from worker.sandbox.qliro.sandbox import QliroSandbox

HAT = {
    "MerchantReference": "hat",
    "Type": "Product",
    "Quantity": 2,
    "PricePerItemIncVat": 375.55,
    "PricePerItemExVat": 300.44,
}
PLACED = {
    "OrderId": 12345,
    "MerchantReference": "H-1",
    "Currency": "SEK",
    "OrderItems": [HAT],
    "MerchantCheckoutStatusPushUrl": "http://shop.example/checkout-status",
    "MerchantOrderManagementStatusPushUrl": "http://shop.example/order-status",
}
RECEIVED = (200, b'{"CallbackResponse":"received"}')


def sandbox_to(shop: Shop, plan: str = "", works_s: float = 0.0) -> QliroSandbox:
    """Return a sandbox that calls a shop back."""
    return QliroSandbox("HATS", "test-secret", FaultPlan.parse(plan), 1, send=shop.send, haste=1e6, works_s=works_s)


async def placed(serve: Serve, shop: Shop, plan: str = "", works_s: float = 0.0) -> Client:
    """Return the client of a sandbox at which one order was placed."""
    client = await serve(sandbox_to(shop, plan, works_s))
    assert (await client.tell("/checkout", PLACED))[0] == 200
    return client


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the sandbox is about to do."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the sandbox has no events for its tests
            await asyncio.sleep(0.001)


async def ask(client: Client, method: str, path: str, told: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Ask as Qliro wants it: the token is a hash of the very bytes."""
    body = b"" if told is None else msgspec.json.encode(told)
    token = b64encode(sha256(body + b"test-secret").digest()).decode()
    return await client.ask(method, "/checkout/adminapi/v2/" + path, body, Authorization=f"Qliro {token}")


async def ship(client: Client, quantity: int = 1, **others: Any) -> tuple[int, Any]:
    """Capture some hats."""
    first = next(iter(client.sandbox.orders[12345].transactions))  # type: ignore[attr-defined]
    line = {name: HAT[name] for name in ("MerchantReference", "Type", "PricePerItemIncVat")} | {"Quantity": quantity}
    told = {
        "RequestId": str(uuid4()),
        "MerchantApiKey": "HATS",
        "OrderId": 12345,
        "Currency": "SEK",
        "Shipments": [{"PaymentTransactionId": first, "OrderItems": [line]}],
    }
    return await ask(client, "POST", "MarkItemsAsShipped", told | others)


async def test_looked_at(serve: Serve) -> None:
    """An order is found by Qliro's id and by the shop's reference; an unknown one is 404."""
    client = await placed(serve, Shop(RECEIVED))
    by_id, by_reference = await ask(client, "GET", "orders/12345"), await ask(client, "GET", "orders/H-1")
    assert by_id == by_reference
    assert (by_id[0], by_id[1]["OrderId"], by_id[1]["OrderItemActions"][0]["ActionType"]) == (200, 12345, "Reserve")
    status, said = await ask(client, "GET", "orders/54321")
    assert (status, said["ErrorCode"]) == (404, "ORDER_NOT_FOUND")


async def test_no_capture_above_what_is_reserved(serve: Serve) -> None:
    """A discount that was reserved along is not left out of captures until more is captured than was authorised."""
    client = await serve(sandbox_to(Shop(RECEIVED)))
    gift = HAT | {"MerchantReference": "gift", "Type": "Discount", "Quantity": 1}
    gift |= {"PricePerItemIncVat": -375.56, "PricePerItemExVat": -375.56}
    assert (await client.tell("/checkout", PLACED | {"OrderItems": [HAT, gift]}))[0] == 200
    status, said = await ship(client)
    assert (status, said["ErrorCode"]) == (400, "INVALID_REQUEST_TOTAL_AMOUNT")


async def test_wrong_token(serve: Serve) -> None:
    """The token is that of the merchant's secret, or it is 401."""
    client = await placed(serve, Shop(RECEIVED))
    status, said = await client.ask("GET", "/v2/orders/12345", Authorization="Qliro nonsense")
    assert (status, said["ErrorCode"]) == (401, "UNAUTHORIZED")


async def test_received_and_then_done(serve: Serve) -> None:
    """A command is only received; once it is done, the push says so in the words of pushes."""
    shop = Shop(RECEIVED)
    client = await placed(serve, shop)
    status, said = await ship(client)
    assert status == 200
    (made,) = said["PaymentTransactions"]
    await until(lambda: shop.pushes)
    (told,) = shop.bodies()
    assert shop.pushes[0].url == "http://shop.example/order-status"
    assert (told["PaymentTransactionId"], told["Status"], told["PaymentType"]) == (
        made["PaymentTransactionId"],
        "Success",
        "Capture",
    )
    assert (told["OrderId"], told["MerchantReference"], told["Amount"], told["Currency"]) == (
        12345,
        "H-1",
        375.55,
        "SEK",
    )
    assert type(told["OriginalPaymentTransactionId"]) is str
    assert "Type" not in told
    assert client.sandbox.row(("HATS", "H-1"))[3:5] == (37555, 37555)
    assert client.sandbox.log[-1].applied


async def test_pushes_are_understood(serve: Serve) -> None:
    """What is pushed is what our receiver reads: no push of a sandbox is unmapped."""
    shop = Shop(RECEIVED)
    client = await placed(serve, shop)
    for status in ("OnHold", "Completed"):
        assert (await client.tell("/acts", {"OrderId": 12345, "Status": status}))[0] == 200
    await ship(client)
    await until(lambda: len(shop.pushes) == 3)
    read = [one for push in shop.pushes for one in read_as_ours(push)]
    said = [(kind, data.get("state") or data["status"]) for kind, data in read]
    assert sorted(said) == [("payment_state", "approved"), ("payment_state", "on_hold"), ("transaction", "Success")]


async def test_again_until_received(serve: Serve) -> None:
    """Anything but 200 with the very answer, and the push comes again."""
    shop = Shop((500, b""), (200, b"{}"), (204, b""), RECEIVED)
    client = await placed(serve, shop)
    await client.tell("/acts", {"OrderId": 12345, "Status": "Completed"})
    await until(lambda: client.sandbox.pushes.counts["taken"])
    assert len(shop.pushes) == 4


async def test_works_on_it(serve: Serve) -> None:
    """While a command is worked on, there is no other; the request of before is denied for its id."""
    client = await placed(serve, Shop(RECEIVED), "result_late=1:60m")
    request_id = str(uuid4())
    assert (await ship(client, RequestId=request_id))[0] == 200
    assert (await ship(client, RequestId=request_id))[1]["ErrorCode"] == "INVALID_REQUEST"
    assert (await ship(client))[1]["ErrorCode"] == "OPERATION_NOT_SUPPORTED"
    assert client.sandbox.row(("HATS", "H-1"))[5] == "1 of 2"
    assert client.sandbox.fault_counts == {"result_late": 1}


async def test_comes_to_nothing(serve: Serve) -> None:
    """A command may come to nothing after it was received: nothing is captured, and the push says why."""
    shop = Shop(RECEIVED)
    client = await placed(serve, shop, "result_error=1")
    await ship(client)
    await until(lambda: shop.pushes)
    (told,) = shop.bodies()
    assert (told["Status"], told["ProviderResultDescription"]) == ("Error", "Duplicate Transaction")
    assert client.sandbox.row(("HATS", "H-1"))[4] == 0


async def test_faults_by_reference(serve: Serve) -> None:
    """Faults know an order by its reference, whoever names it how."""
    client = await placed(serve, Shop(RECEIVED))
    client.sandbox.faults.script("HATS", "H-1", "409", "422", "401")
    answers = [await ask(client, "GET", "orders/12345"), await ship(client), await ask(client, "GET", "orders/H-1")]
    assert [status for status, _ in answers] == [409, 422, 401]
    assert [said["ErrorCode"] for _, said in answers] == ["INVALID_INPUT", "INVALID_INPUT", "UNAUTHORIZED"]


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"OrderId": 12345}', b'{"OrderId": 12345, "MerchantApiKey": "HATS", "RequestId": "x"}']
)
async def test_not_understood(serve: Serve, body: bytes) -> None:
    """A body that is no command is refused, and does nothing."""
    client = await placed(serve, Shop(RECEIVED))
    token = b64encode(sha256(body + b"test-secret").digest()).decode()
    status, said = await client.ask("POST", "/v2/MarkItemsAsShipped", body, Authorization=f"Qliro {token}")
    assert (status, said["ErrorCode"]) == (400, "INVALID_INPUT")


SCARF = HAT | {"MerchantReference": "scarf", "Quantity": 1, "PricePerItemIncVat": 100, "PricePerItemExVat": 80}


def read_as_ours(push: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return what our receiver reads in a push."""
    purpose = push.url.rpartition("/")[2]
    called = Called(
        account="hats", purpose=purpose, reference="H-1", media_type=push.content_type, body=push.body, arrived_ms=0
    )
    reading = QliroCallbacks().read(called)
    assert isinstance(reading, Push)
    return [(each.type, each.data) for each in reading.said]


async def upsold(client: Client, **members: Any) -> None:
    """The shopper adds a scarf."""
    upsell = {"OrderItems": [SCARF]} | members
    status, said = await client.tell("/acts", {"OrderId": 12345, "Upsell": upsell})
    assert status == 200, said


async def test_upsell_beside_the_first_reservation(serve: Serve) -> None:
    """What is added is a reservation of its own, and the push names its transaction."""
    shop = Shop(RECEIVED)
    client = await placed(serve, shop)
    await upsold(client)
    await until(lambda: shop.pushes)
    first, second = client.sandbox.orders[12345].reserved  # type: ignore[attr-defined]
    ((kind, data),) = read_as_ours(shop.pushes[0])
    assert (kind, data["status"], data["transaction_id"]) == ("upsell", "Completed", str(second))
    assert not data.get("replaces")
    assert client.sandbox.row(("HATS", "H-1"))[3] == 2 * 37555 + 10000
    actions = (await ask(client, "GET", "orders/12345"))[1]["OrderItemActions"]
    assert [(each["PaymentTransactionId"], each["MerchantReference"]) for each in actions] == [
        (first, "hat"),
        (second, "scarf"),
    ]


async def test_upsell_instead_of_the_first_reservation(serve: Serve) -> None:
    """One that replaces reserves all of it, and reverses what it replaces; more of an item is more of the same one."""
    shop = Shop(RECEIVED)
    client = await placed(serve, shop)
    first = next(iter(client.sandbox.orders[12345].reserved))  # type: ignore[attr-defined]
    await upsold(client, OrderItems=[SCARF, HAT | {"Quantity": 1}], ReplacesOriginalPaymentTransaction=True)
    await until(lambda: shop.pushes)
    ((kind, data),) = read_as_ours(shop.pushes[0])
    assert (kind, data["replaces"]) == ("upsell", str(first))
    (held,) = client.sandbox.orders[12345].reserved.values()  # type: ignore[attr-defined]
    assert {(item.reference, item.quantity) for item in held.values()} == {("hat", 3), ("scarf", 1)}
    seen = (await ask(client, "GET", "orders/12345"))[1]["PaymentTransactions"]
    assert [(each["Type"], each["Status"], each["OriginalPaymentTransactionId"]) for each in seen] == [
        ("Preauthorization", "Success", None),
        ("Preauthorization", "Success", first),
        ("Reversal", "Success", first),
    ]


async def test_upsell_that_fails(serve: Serve) -> None:
    """There is a push with no transaction, and nothing is reserved; nothing is added to what is cancelled."""
    shop = Shop(RECEIVED)
    client = await placed(serve, shop)
    await upsold(client, Status="Error")
    await until(lambda: shop.pushes)
    assert shop.bodies()[0]["PaymentTransactionId"] == 0
    assert read_as_ours(shop.pushes[0])[0][1]["status"] == "Error"
    assert client.sandbox.row(("HATS", "H-1"))[3] == 2 * 37555
    client.sandbox.orders[12345].release()  # type: ignore[attr-defined]
    status, said = await client.tell("/acts", {"OrderId": 12345, "Upsell": {"OrderItems": [SCARF]}})
    assert (status, len(said["errors"])) == (400, 1)


ASKED = PLACED | {
    "MerchantOrderValidationUrl": "http://shop.example/validation",
    "MerchantOrderAvailableShippingMethodsUrl": "http://shop.example/shipping-methods",
    "MerchantOrderAvailableShippingAddressesUrl": "http://shop.example/shipping-addresses",
}
QUESTIONS = ("validation", "shipping_methods", "shipping_addresses")
METHOD = {"MerchantReference": "HOME", "DisplayName": "Home", "PriceIncVat": 30.0, "PriceExVat": 24}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_questions_are_understood(serve: Serve, name: str) -> None:
    """What is asked is what our receiver reads, to the cent; the shop's answer is told as it was given."""
    shop = Shop((400, b'{"DeclineReason":"PostalCodeIsNotSupported"}'))
    client = await serve(sandbox_to(shop))
    await client.tell("/checkout", ASKED)
    address = {"PostalCode": "98107"}
    status, said = await client.tell("/questions", {"OrderId": 12345, "Question": name, "ShippingAddress": address})
    assert (status, said["status"], said["answer"]) == (200, 400, {"DeclineReason": "PostalCodeIsNotSupported"})
    assert (said["problem"] == "") == (name != "shipping_addresses")
    assert shop.pushes[0].url == f"http://shop.example/{name.replace('_', '-')}"
    asked = questions.ask(name, shop.pushes[0].body).question
    assert (asked["provider_order"], asked["shipping_address"]) == ("12345", {"postal_code": "98107"})
    assert asked["customer"]["email"] == "email@domain.com"
    if name != "shipping_addresses":
        (line,) = asked["lines"]
        assert (line["unit_price_minor"], line["unit_price_ex_vat_minor"], line["quantity"]) == (37555, 30044, 2)


@pytest.mark.parametrize(
    ("name", "answer", "is_right"),
    [
        ("validation", (200, b""), True),
        ("validation", (400, b'{"DeclineReason":"OutOfStock","DeclineReasonMessage":"gone"}'), True),
        ("validation", (400, b'{"DeclineReason":"Moody"}'), False),
        ("validation", (400, b'{"DeclineReason":"Other","DeclineReasonMessage":"' + b"m" * 151 + b'"}'), False),
        ("validation", (400, b"no"), False),
        ("validation", (503, b"{}"), False),
        ("shipping_methods", (200, msgspec.json.encode({"AvailableShippingMethods": [METHOD]})), True),
        ("shipping_methods", (200, b'{"AvailableShippingMethods":[]}'), False),
        (
            "shipping_methods",
            (200, msgspec.json.encode({"AvailableShippingMethods": [METHOD | {"DisplayName": ""}]})),
            False,
        ),
        (
            "shipping_methods",
            (200, msgspec.json.encode({"AvailableShippingMethods": [METHOD | {"PriceExVat": "1"}]})),
            False,
        ),
        ("shipping_methods", (400, b'{"DeclineReason":"OutOfStock"}'), False),
        ("shipping_addresses", (200, b'{"AvailableShippingAddresses":[]}'), True),
        ("shipping_addresses", (200, b"{}"), False),
        ("shipping_addresses", None, False),
    ],
)
async def test_answers_that_qliro_could_not_use(
    serve: Serve, name: str, answer: tuple[int, bytes] | None, *, is_right: bool
) -> None:
    """What is wrong about an answer is said; nobody is asked twice."""
    shop = Shop(answer)
    client = await serve(sandbox_to(shop))
    await client.tell("/checkout", ASKED)
    status, said = await client.tell("/questions", {"OrderId": 12345, "Question": name})
    assert (status, said["problem"] == "", len(shop.pushes)) == (200, is_right, 1)


async def test_questions_that_cannot_be_asked(serve: Serve) -> None:
    """Without an address of the shop, of an unknown order, or with an unknown name."""
    client = await placed(serve, Shop(RECEIVED))
    for told in (
        {"OrderId": 12345, "Question": "validation"},
        {"OrderId": 1, "Question": "validation"},
        {"OrderId": 12345, "Question": "mood"},
    ):
        assert (await client.tell("/questions", told))[0] == 400


async def test_refused_checkouts_and_acts(serve: Serve) -> None:
    """An order is placed once, with items that are some; nothing happens to one that was not."""
    client = await placed(serve, Shop(RECEIVED))
    for path, told in (
        ("/checkout", PLACED),
        ("/checkout", PLACED | {"OrderId": 1, "OrderItems": [{}]}),
        ("/checkout", {"OrderId": 1}),
        ("/acts", {"OrderId": 1, "Status": "Completed"}),
        ("/acts", {"OrderId": 12345, "Status": "Lost"}),
        ("/acts", {"OrderId": 12345}),
        ("/acts", {"OrderId": 12345, "Status": "Completed", "Upsell": {"OrderItems": [HAT]}}),
        ("/acts", {"OrderId": 12345, "Upsell": {"OrderItems": [{}]}}),
    ):
        status, said = await client.tell(path, told)
        assert (status, len(said["errors"])) == (400, 1)
    assert list(client.sandbox.orders) == [12345]  # type: ignore[attr-defined]


async def test_shown(serve: Serve) -> None:
    """Page, list and single order show what is held."""
    client = await placed(serve, Shop(RECEIVED))
    _, listed = await client.ask("GET", "/orders")
    _, one = await client.ask("GET", "/orders/HATS/H-1")
    assert (listed["count"], listed["orders"]) == (1, [one])
    assert (await client.ask("GET", "/orders/HATS/H-2"))[0] == 404
    async with client.session.get(client.base_url + "/") as response:
        text = await response.text()
    assert "Sandbox provider: Qliro" in text
    assert "75110" in text
