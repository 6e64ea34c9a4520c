"""Orders at Qliro from owed to captured, each with a look before its command and one after it, on an embedded log."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec

from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.owed import bring_to_rest, record_of
from tests.bench.processes import Line, Process, ProcessError, Watch, calm, run
from tests.bench.serving import serve
from worker.model.provider import Destination
from worker.providers.qliro.options import QliroAccount
from worker.providers.registry import PROVIDERS

ROUNDS = 3
ORDERS = 3_000
CONCURRENCY = 32
ACCOUNT, KEY, SECRET = "hats", "HATS", "secret"
CALLS = 3
"""Of each order: a look, the capture, and a look that shows it."""
POLL_S = 0.05
"""When the second look comes; in production a push brings it on."""

CAPTURE = Row(
    "capture",
    f"orders at Qliro from owed to settled ({CALLS} calls each), {CONCURRENCY} at once, embedded log",
    "orders/s",
    "aiohttp with the same calls, signed and decoded",
    0.3,
)
_PRICES = (("hat", 2, 37555, 30044), ("scarf", 1, 10000, 8000), ("glove", 3, 4990, 3992))
_TOTAL_MINOR = sum(quantity * inc for _, quantity, inc, _ in _PRICES)


async def measure(_brokers: object, tell: Tell) -> list[Figure]:
    """The server is a process of its own, new in each half: it remembers what was captured."""
    figure = Figure(CAPTURE)

    async def half(target: str) -> Any:
        async with Process("capturing:server", {}, measured=False) as server:
            found = await run(f"capturing:{target}", {"base_url": await server.hear(), "orders": ORDERS})
            server.go()
            if (captured := await server.hear()) != ORDERS:
                raise ProcessError(f"{captured} orders were captured once, not {ORDERS}")
            return found

    for ours, bare in await take_turns(ROUNDS, lambda _: half("ours"), lambda _: half("bare"), tell):
        (ours_s, ours_cpu_s), (bare_s, bare_cpu_s) = ours, bare
        figure.add(ORDERS / ours_s, ORDERS / bare_s, bare_cpu_s / ours_cpu_s)
    return [figure]


# --- Qliro ---


def _subject(number: int) -> str:
    return f"{ACCOUNT}/H{number}"


def _action(number: int, kind: str, transaction: int) -> Iterator[dict[str, Any]]:
    for reference, quantity, inc, ex in _PRICES:
        yield {
            "Id": number,
            "ActionType": kind,
            "PaymentTransactionId": transaction,
            "MerchantReference": reference,
            "Type": "Product",
            "Quantity": quantity,
            "PricePerItemIncVat": inc / 100,
            "PricePerItemExVat": ex / 100,
            "Description": reference,
        }


def _order(number: int, *, captured: bool) -> bytes:
    """As GetOrder shows it."""
    first = 10 * number + 1
    moved = [(first, "Preauthorization", None), *([(first + 1, "Capture", first)] if captured else [])]
    return msgspec.json.encode(
        {
            "OrderId": number,
            "MerchantReference": f"H{number}",
            "Currency": "SEK",
            "OrderItemActions": [
                *_action(1, "Reserve", first),
                *(_action(2, "Ship", first + 1) if captured else ()),
            ],
            "PaymentTransactions": [
                {
                    "PaymentTransactionId": transaction,
                    "OriginalPaymentTransactionId": original,
                    "Type": kind,
                    "Amount": _TOTAL_MINOR / 100,
                    "Currency": "SEK",
                    "Status": "Success",
                    "Timestamp": "2026-03-01T08:00:00Z",
                    "PaymentMethodName": "QLIRO_INVOICE",
                }
                for transaction, kind, original in moved
            ],
        }
    )


def _response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Command(msgspec.Struct):
    order_id: int = msgspec.field(name="OrderId")


async def server(line: Line) -> None:
    """Answers until it is asked how many orders were captured just once."""
    looked = [_response(_order(number, captured=False)) for number in range(ORDERS)]
    shown = [_response(_order(number, captured=True)) for number in range(ORDERS)]
    captures = [0] * ORDERS
    read = msgspec.json.Decoder(_Command).decode

    def answer(head: bytes, body: bytes) -> bytes:
        if head.startswith(b"GET"):
            number = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
            return (shown if captures[number] else looked)[number]
        number = read(body).order_id
        captures[number] += 1
        made = {"PaymentTransactionId": 10 * number + 2, "Status": "Created"}
        return _response(msgspec.json.encode({"PaymentTransactions": [made]}))

    line.say(await serve(answer=answer))
    await line.wait()
    line.say(captures.count(1))


# --- both sides ---


def _events(number: int) -> Iterator[bytes]:
    lines = [
        {
            "reference": reference,
            "name": reference,
            "quantity": quantity,
            "unit_price_minor": inc,
            "total_minor": quantity * inc,
        }
        for reference, quantity, inc, _ in _PRICES
    ]
    units = [{"line_id": reference, "quantity": quantity} for reference, quantity, _, _ in _PRICES]
    confirmed = {"currency": "SEK", "lines": lines, "references": {"provider": str(number)}}
    for step, (kind, data) in enumerate(
        (("confirmed", confirmed), ("items_shipped", {"shipment_id": "s1", "lines": units}))
    ):
        yield msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": f"{number}#{step}",
                "source": "/shops/hats",
                "type": f"order.{kind}",
                "time": f"2026-03-01T08:00:0{step}Z",
                "subject": _subject(number),
                "data": data,
            }
        )


async def ours(line: Line, base_url: str, orders: int) -> None:
    """A whole worker that finds all orders owed, from ready until all are acknowledged and that is committed."""
    account = QliroAccount(
        ACCOUNT, "qliro", base_url, KEY, SECRET, concurrency=CONCURRENCY, poll_after_s=(POLL_S,) * 100
    )
    destination = Destination(account, PROVIDERS["qliro"])
    owed = ((number, _subject(number), record_of(_events(number), destination)) for number in range(orders))
    await bring_to_rest(line, account, owed)


async def bare(line: Line, base_url: str, orders: int) -> None:
    """So many loops that look, capture, and look again."""
    left = iter(range(orders))
    calm()
    watch = Watch()

    async def loop(session: aiohttp.ClientSession) -> None:
        async def call(method: str, path: str, body: bytes = b"") -> Any:
            token = b64encode(hashlib.sha256(body + SECRET.encode()).digest()).decode()
            headers = {"Authorization": f"Qliro {token}", "Content-Type": "application/json"}
            async with session.request(method, f"{base_url}/v2/{path}", data=body or None, headers=headers) as response:
                return msgspec.json.decode(await response.read())

        for number in left:
            found = await call("GET", f"orders/{number}")
            items = [
                {name: action[name] for name in ("MerchantReference", "Type", "Quantity", "PricePerItemIncVat")}
                for action in found["OrderItemActions"]
            ]
            shipment = {
                "PaymentTransactionId": found["OrderItemActions"][0]["PaymentTransactionId"],
                "OrderItems": items,
            }
            command = {
                "RequestId": str(uuid4()),
                "MerchantApiKey": KEY,
                "OrderId": number,
                "Currency": found["Currency"],
                "Shipments": [shipment],
            }
            await call("POST", "MarkItemsAsShipped", msgspec.json.encode(command))
            found = await call("GET", f"orders/{number}")
            assert any(made["Type"] == "Capture" for made in found["PaymentTransactions"])

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(loop(session) for _ in range(CONCURRENCY)))
    line.say(watch.read())
