"""An order at Qliro from its checkout on, by the commands that a developer types: sandbox, receiver, worker."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from tests.chaos.processes import Process, spawn, toml
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ShopOrder
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka

REFERENCE = "A14/12345"
PLACED = {
    "OrderId": 12345,
    "MerchantReference": REFERENCE,
    "Currency": "SEK",
    "OrderItems": [
        {
            "MerchantReference": "hat",
            "Description": "Hat",
            "Type": "Product",
            "Quantity": 2,
            "PricePerItemIncVat": 375.55,
            "PricePerItemExVat": 300.44,
        }
    ],
}
SCARF = {
    "MerchantReference": "scarf",
    "Description": "Scarf",
    "Type": "Product",
    "Quantity": 1,
    "PricePerItemIncVat": 100,
    "PricePerItemExVat": 80,
}
MEMBERS = {
    "checkout-status": "MerchantCheckoutStatusPushUrl",
    "order-status": "MerchantOrderManagementStatusPushUrl",
    "validation": "MerchantOrderValidationUrl",
    "shipping-methods": "MerchantOrderAvailableShippingMethodsUrl",
    "shipping-addresses": "MerchantOrderAvailableShippingAddressesUrl",
}
HAT_LINE = {"reference": "hat", "name": "Hat", "quantity": 2, "unit_price_minor": 37_555, "total_minor": 75_110}
SCARF_LINE = {"reference": "scarf", "name": "Scarf", "quantity": 1, "unit_price_minor": 10_000, "total_minor": 10_000}
METHOD = {"reference": "HOME", "name": "Home delivery", "price_minor": 3_000, "price_ex_vat_minor": 2_400}
ADDRESS = {"given_names": "First", "surnames": "Last", "line_1": "Street", "postal_code": "12345", "city": "City"}


class LookupServer:
    """The shop's own endpoint, which alone can say what is in stock and where it delivers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.is_hanging = False
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/questions"

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        asked = json.loads(await request.read())
        self.asked.append(asked)
        if self.is_hanging:
            await asyncio.sleep(10)
        unserved = asked.get("shipping_address", {}).get("postal_code") == "98107"
        answers: dict[str, dict[str, Any]] = {
            "validation": {"accept": True},
            "shipping_methods": {"decline": "PostalCodeIsNotSupported"} if unserved else {"methods": [METHOD]},
            "shipping_addresses": {"addresses": [ADDRESS]},
        }
        return web.json_response(answers[asked["question"]])


class Everything:
    """The processes, and how to reach them."""

    def __init__(self, folder: Path, settings: KafkaSettings, lookups: str) -> None:
        self.processes: list[Process] = []
        self.settings = settings
        self.sandbox_url, self.sandbox_port = "", 0
        self._folder = folder
        self.sandbox_port, self.receive_port, *self._private = free_ports(5)
        self.sandbox_url = f"http://127.0.0.1:{self.sandbox_port}"
        tables: dict[str, dict[str, Any]] = {
            "kafka": {
                name: getattr(settings, name)
                for name in (
                    *("bootstrap_servers", "group_id", "transactional_id_prefix", "event_topic", "state_topic"),
                    *("dead_letter_topic", "results_topic"),
                )
            }
            | {"partitioner": "murmur2"},
            "callbacks": {
                "port": self.receive_port,
                "record_secrets": ["record-secret-of-the-test-0123456789"],
                "public_url": f"http://127.0.0.1:{self.receive_port}",
            },
            "log": {"format": "json"},
            "accounts.hats": {
                "provider": "qliro",
                "base_url": self.sandbox_url,
                "api_key": "HATS",
                "api_secret": "secret-of-the-test",
                "callback_secrets": ["callback-secret-of-the-test-0123456789"],
                "poll_after": ["1s", "2s", "5s"],
            },
            "accounts.hats.lookups": {"url": lookups, "token": "token-of-the-test", "timeout": "1s"},
            "accounts.hats.lookups.default": {
                "validation": "OutOfStock",
                "shipping_methods": "declined",
                "shipping_addresses": "empty",
            },
        }
        (folder / "cartsync.toml").write_text(toml(tables))

    def start(self) -> None:
        """Starts them."""
        options = ["--provider", "qliro", "--port", str(self.sandbox_port), "--account", "HATS:secret-of-the-test"]
        for command, port in zip((["sandbox", *options], ["receive"], ["run"]), self._private, strict=True):
            self.processes.append(spawn(command[0], command, self._folder, "cartsync.toml", port, {}))

    async def addresses(self) -> dict[str, str]:
        """What the shop's checkout tells Qliro, made with `cartsync callback url`."""
        command = ["callback", "url", "hats", REFERENCE, "--json"]
        process = spawn("callback-url", command, self._folder, "cartsync.toml", 0, {})
        while process.is_running():  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(0.05)
        found = json.loads(process.log_file.read_text())["addresses"]
        return {MEMBERS[each["purpose"]]: each["url"] for each in found if each["purpose"] in MEMBERS}

    async def sandbox(self, path: str, told: dict[str, Any] | None = None) -> Any:
        """Posts to the sandbox, or reads there."""
        return await self._ask(self.sandbox_url + path, told)

    async def order(self) -> Any:
        """As the worker shows it."""
        return await self._ask(f"{self.processes[-1].url}/orders/hats/{REFERENCE}")

    async def _ask(self, url: str, told: dict[str, Any] | None = None) -> Any:
        method = "GET" if told is None else "POST"
        async with aiohttp.ClientSession() as session, session.request(method, url, json=told) as response:
            return await response.json(content_type=None)

    async def until(self, holds: Any, within_s: float = 30) -> Any:
        """What `order` says, once that holds; processes may be starting still."""
        give_up_at = time.monotonic() + within_s
        found: Any = None
        while time.monotonic() < give_up_at:
            try:
                found = await self.order()
                if holds(found):
                    return found
            except (aiohttp.ClientError, json.JSONDecodeError, KeyError, TypeError):
                pass
            await asyncio.sleep(0.1)
        tails = "\n".join(process.log_file.read_text()[-1500:] for process in self.processes)
        raise AssertionError(f"not within {within_s:g} s: {found}\n{tails}")


@pytest.fixture
async def lookups() -> AsyncIterator[LookupServer]:
    """Starts the shop's endpoint."""
    async with LookupServer() as server:
        yield server


@pytest.fixture
async def everything(kafka: LocalKafka, tmp_path: Path, lookups: LookupServer) -> AsyncIterator[Everything]:
    """Starts sandbox, receiver and worker; they are killed when the test ends."""
    settings = settings_of(kafka.bootstrap)
    await create_topics(settings, 2)
    found = Everything(tmp_path, settings, lookups.url)
    found.start()
    for url in (found.sandbox_url + "/orders", f"{found.processes[1].url}/readyz", f"{found.processes[2].url}/readyz"):
        await _reachable(url)
    yield found
    for process in found.processes:
        if process.is_running():
            process.kill()


async def _reachable(url: str) -> None:
    give_up_at = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < give_up_at:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


async def test_questions_have_answers_and_upsells_are_captured(everything: Everything, lookups: LookupServer) -> None:
    """Before the order the shop is asked; after it the shopper adds a scarf, which is captured with its own reservation.

    A shop that hangs does not hold up the checkout: Qliro gets the default that the merchant has chosen, in time.
    """
    assert await everything.sandbox("/checkout", PLACED | await everything.addresses()) == {}

    async def asked(question: str, **members: Any) -> tuple[Any, Any]:
        found = await everything.sandbox("/questions", {"OrderId": 12345, "Question": question} | members)
        assert (found["problem"], found["seconds"] < 4.5) == ("", True), found
        return found["status"], found["answer"]

    assert await asked("validation") == (200, {})
    status, answer = await asked("shipping_methods")
    assert (status, answer["AvailableShippingMethods"][0]["DisplayName"]) == (200, "Home delivery")
    unserved = await asked("shipping_methods", ShippingAddress={"PostalCode": "98107"})
    assert unserved == (400, {"DeclineReason": "PostalCodeIsNotSupported"})
    status, answer = await asked("shipping_addresses")
    assert (status, answer["AvailableShippingAddresses"][0]["Street"]) == (200, "Street")
    assert {question["reference"] for question in lookups.asked} == {REFERENCE}
    assert lookups.asked[0]["lines"][0]["unit_price_minor"] == 37_555
    lookups.is_hanging = True
    assert await asked("validation") == (400, {"DeclineReason": "OutOfStock"})
    assert await asked("shipping_methods") == (400, {"DeclineReason": "PostalCodeIsNotSupported"})
    assert await asked("shipping_addresses") == (200, {"AvailableShippingAddresses": []})

    writer = EventWriter(everything.settings)
    await writer.start()
    order = ShopOrder(writer.write, f"hats/{REFERENCE}")
    await order.tell("confirmed", currency="SEK", lines=[HAT_LINE], references={"provider": "12345"})
    await everything.sandbox("/acts", {"OrderId": 12345, "Status": "Completed"})
    await everything.until(lambda found: found["provider"]["payment_state"]["state"] == "approved")
    await everything.sandbox("/acts", {"OrderId": 12345, "Upsell": {"OrderItems": [SCARF]}})
    found = await everything.until(lambda found: found["provider"]["upsell"]["status"] == "Completed")
    held = await everything.sandbox(f"/orders/HATS/{REFERENCE.replace('/', '%2F')}")
    first, second = (action["PaymentTransactionId"] for action in held["OrderItemActions"])
    assert found["provider"]["upsell"]["transaction_id"] == str(second)

    await order.tell("cart_updated", currency="SEK", lines=[HAT_LINE, SCARF_LINE])
    await order.ship("s1", hat=2, scarf=1)
    found = await everything.until(lambda found: (found["status"], found["shipped_minor"]) == ("settled", 85_110))
    await writer.stop()
    held = await everything.sandbox(f"/orders/HATS/{REFERENCE.replace('/', '%2F')}")
    captures = [each for each in held["PaymentTransactions"] if each["Type"] == "Capture"]
    assert sorted((each["OriginalPaymentTransactionId"], each["Amount"], each["Status"]) for each in captures) == [
        (first, 751.10, "Success"),
        (second, 100.00, "Success"),
    ]
    for process in everything.processes[1:]:
        assert process.is_running()
