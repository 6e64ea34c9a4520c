"""Drills of receivers: callbacks that Kafka does not take, questions that the shop does not answer."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from tests.drills.drill import drill
from tests.drills.scene import Scene
from worker.core.tokens import Address, Tokens
from worker.tools.kafka_ports import free_ports

SECRET = "0123456789abcdef0123456789abcdef"
_PUSH = b'{"OrderId":12345,"Status":"Completed","Timestamp":"2016-03-03T11:43:05.567","PaymentTransactionId":1234}'
_QUESTION = b'{"OrderId":12345,"MerchantReference":"A1","OrderItems":[]}'


def _accounts(**hats: Any) -> dict[str, dict[str, Any]]:
    account = {"provider": "qliro", "callback_secrets": [SECRET], "api_secret_file": "/nowhere"}
    return {"accounts.hats": account} | hats


async def _calls(public: int, purpose: str, body: bytes) -> None:
    """Qliro calls twice a second."""
    address = Address("hats", purpose, Tokens([SECRET]).token("hats", purpose, "A1"), "A1")
    url = URL(f"http://127.0.0.1:{public}{address.path()}", encoded=True)
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.post(url, data=body) as response:
                    await response.read()
            except aiohttp.ClientError:
                pass  # it has not opened its port yet
            await asyncio.sleep(0.5)


async def _called(public: int, purpose: str, body: bytes, play: Callable[[], Awaitable[None]]) -> None:
    calls = asyncio.create_task(_calls(public, purpose, body))
    try:
        await play()
    finally:
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)


@drill("CartsyncCallbacksLost", "the receiver's event topic does not exist", factor=60)
async def callbacks_lost(scene: Scene) -> None:
    """The topic is made, and callbacks are taken."""
    (public,) = free_ports(1)
    missing = f"{scene.name}.pushes"
    receiver = scene.start_receiver(public, _accounts(), event_topic=missing)
    scene.broken()

    async def play() -> None:
        await scene.fires()
        said = await scene.says("events_not_written", receiver)
        assert missing in said["error"], said
        scene.named("whether the event topic exists")
        scene.configure(kafka={"event_topic": missing, "state_topic": f"{missing}.state"})
        assert (await scene.command("topics", "create", "--partitions", "1")).code == 0
        await scene.resolves()

    await _called(public, "checkout-status", _PUSH, play)


@drill(
    "CartsyncReceiversDown",
    "the only receiver is stopped; a worker goes on",
    mended="rule and section are new: nothing said that all receivers were gone",
    factor=600,
)
async def receivers_down(scene: Scene) -> None:
    """It is started again."""
    (public,) = free_ports(1)
    await scene.started()
    receiver = scene.start_receiver(public, _accounts())
    while not await scene.value("count(cartsync_callbacks_total)"):  # noqa: ASYNC110 - Prometheus says nothing by itself
        await asyncio.sleep(0.1)
    scene.broken()
    receiver.send_signal(signal.SIGTERM)
    await scene.fires()
    await scene.says("receiver_stopped", receiver)
    scene.named("start it again")
    scene.start_receiver(public, _accounts())
    await scene.resolves()


@drill("CartsyncQuestionsDefaulted", "the shop's endpoint does not listen", factor=60)
async def questions_defaulted(scene: Scene) -> None:
    """The endpoint is started."""
    public, shop = free_ports(2)
    lookups = {
        "accounts.hats.lookups": {
            "url": f"http://127.0.0.1:{shop}/questions",
            "token": "0123456789abcdef",
            "timeout": "1s",
        },
        "accounts.hats.lookups.default": {
            "validation": "OutOfStock",
            "shipping_methods": "declined",
            "shipping_addresses": "empty",
        },
    }
    receiver = scene.start_receiver(public, _accounts(**lookups))
    scene.broken()

    async def play() -> None:
        await scene.fires()
        await scene.says("lookup_default_given", receiver, account="hats")
        scene.named("[accounts.NAME.lookups]")
        runner = web.ServerRunner(web.Server(_accept), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", shop).start()
        await scene.resolves()
        await runner.cleanup()

    await _called(public, "validation", _QUESTION, play)


async def _accept(request: web.BaseRequest) -> web.Response:
    return web.json_response({"accept": True})
