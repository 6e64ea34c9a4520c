"""Callbacks a second through the public port into a real Kafka, beside clients that say nothing and forged tokens.

python -m tests.bench --only receive          how many, beside a bare aiohttp server and aiokafka producer, not attacked
python -m tests.bench --only receive_p99      how long each waits, when so many come as are promised
python -m tests.bench --only ask              how long questions wait while Kafka is gone
python -m tests.bench.receiving               one run of ten seconds, in words; --memory: without Kafka
"""

import argparse
import asyncio
import contextlib
import hmac
import json
import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from aiohttp import web
from rich.console import Console

from tests.bench.brokers import PRODUCER, Brokers
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.processes import Line, Process, ProcessError, Watch, calm, cores
from tests.bench.serving import serve
from tests.shops.load import PARTITIONS
from worker.core.placing import Placing
from worker.core.tokens import Address, Tokens
from worker.core.trust import Trust
from worker.kafka.client import AIOKafkaProducer
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.metrics import Metrics
from worker.model.callbacks import Caller, Lookups
from worker.providers.registry import CALLBACKS
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock
from worker.sim.producer import MemoryEventProducer, put_into
from worker.web.lookups import Lookup
from worker.web.receiver import Limits, Receiver

ROUNDS = 3
SECONDS = 10
CONNECTIONS = 100
SLOW = 150
"""Connections that begin a header and never end it; each that is hung up on is made anew."""
FORGED_PER_S = 500
SECRET = "0123456789abcdef0123456789abcdef"
TARGET_PER_S = 5_000
ASKING = 16
"""Questions at once: the receiver keeps 20 slots for them."""
ASK_SECONDS = 8
TOKEN = "token-of-the-shop"

RECEIVE = Row(
    "receive",
    f"pushes/s, {CONNECTIONS} connections, Kafka, beside {SLOW} slow clients and {FORGED_PER_S} forged tokens/s",
    "/s",
    "aiohttp's low-level server, an HMAC, send_and_wait; nobody attacks it",
    0.35,
)
RECEIVE_P99 = Row(
    "receive_p99",
    f"a push to its answer, 99th percentile, {TARGET_PER_S:,} pushes/s offered for {SECONDS} s, the same attack",
    "ms",
    "what is promised",
    1.0,
    is_cost=True,
)
P99_MAX_MS = 1_000.0
ASK = Row(
    "ask",
    f"a question to its answer, 99th percentile, {ASKING} at once, while Kafka is frozen and pushes hang",
    "ms",
    "what is promised: a second less than providers wait",
    1.0,
    is_cost=True,
)
ASK_MAX_MS = 4_000.0
_BODY = (
    b'{"OrderId":67890,"MerchantReference":"MerchantRef1234","PaymentTransactionId":%d,"Amount":550,"Currency":"SEK",'
    b'"Status":"Success","PaymentType":"Capture","ProviderTransactionId":"8a82944a5a8ee61d015aa44c44787ead",'
    b'"OriginalPaymentTransactionId":"67890","PaymentReference":123456,"Timestamp":"2016-03-03T11:43:05.567"}'
)


async def measure(brokers: Brokers, tell: Tell) -> list[Figure]:
    """Ours under attack, the limit without."""
    tell("starting Kafka")

    async def half(target: str) -> dict[str, Any]:
        return await one_run(target, await brokers.topics(), SECONDS, attacked=target == "ours")

    figure = Figure(RECEIVE)
    for ours, bare in await take_turns(ROUNDS, lambda _: half("ours"), lambda _: half("bare"), tell):
        figure.add(ours["per_s"], bare["per_s"], (ours["per_cpu_s"]) / bare["per_cpu_s"])
        tell(in_words(ours))
    return [figure]


async def measure_wait(brokers: Brokers, tell: Tell) -> list[Figure]:
    """Pushes come as often as is promised, whether or not the ones before are answered."""
    figure = Figure(RECEIVE_P99)
    for number in range(ROUNDS):
        tell(f"round {number + 1} of {ROUNDS}")
        found = await one_run("ours", await brokers.topics(), SECONDS, attacked=True, rate=TARGET_PER_S)
        figure.add(found["p99_ms"], P99_MAX_MS)
        tell(in_words(found))
    return [figure]


async def measure_questions(brokers: Brokers, tell: Tell) -> list[Figure]:
    """The shop answers at once; Kafka does not answer at all, so that every push waits for its deadline."""
    figure = Figure(ASK)
    async with Process("receiving:shop", {}, measured=False) as shop:
        url = await shop.hear()
        for number in range(ROUNDS):
            tell(f"round {number + 1} of {ROUNDS}")
            settings = await brokers.topics()
            async with Process("receiving:ours", {"settings": settings, "lookups": url}) as process:
                port = await process.hear()
                with brokers.frozen():
                    found = await asyncio.to_thread(attack, port, ASK_SECONDS, attacked=True, asking=ASKING)
            figure.add(found["asked_p99_ms"], ASK_MAX_MS)
            tell(
                f"{found['asked']} questions answered 200, p99 {found['asked_p99_ms']:.0f} ms; pushes {found['answers']}"
            )
            if set(found["asked"]) != {"200"}:
                raise ProcessError(f"questions were answered {found['asked']}")
    return [figure]


async def one_run(
    target: str, settings: dict[str, Any] | None, seconds: int, *, attacked: bool, rate: int = 0
) -> dict[str, Any]:
    """Figures of one run: a measured process, and what calls it beside. `rate`: as for `attack`."""
    async with Process(f"receiving:{target}", {"settings": settings}) as process:
        port = await process.hear()
        found = await asyncio.to_thread(attack, port, seconds, attacked=attacked, rate=rate)
        process.go()
        cpu_s, written = await process.hear()
    pushes = found["answers"].get("200", 0)
    found |= {"per_s": pushes / seconds, "per_cpu_s": pushes / cpu_s, "cpu": cpu_s / seconds, "written": written}
    return found


def in_words(found: dict[str, Any]) -> str:
    """For people."""
    return (
        f"{found['per_s']:,.0f} pushes/s ({found['cpu']:.0%} of a core), p50 {found['p50_ms']:.1f} ms, p99 "
        f"{found['p99_ms']:.1f} ms, slowest {found['max_ms']:.0f} ms; answers {found['answers']}; "
        f"forged {found['forged']}; slow clients hung up on {found['hung_up']:,}"
    )


# --- what is measured ---


async def shop(line: Line) -> None:
    """What answers questions: yes, at once."""
    answer = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"accept":true}'
    line.say(await serve(answer=lambda _head, _body: answer))
    await asyncio.Event().wait()


async def ours(line: Line, settings: dict[str, Any] | None, lookups: str = "") -> None:
    """The receiver, with rates that are out of the way. `lookups`: where the shop is asked."""
    metrics, placing = Metrics(), Placing("murmur2")
    loop = asyncio.get_running_loop()
    producer: Any
    if settings is None:
        producer = MemoryEventProducer(put_into(MemoryLog(PARTITIONS, VirtualClock(loop)), placing), VirtualClock(loop))
    else:
        producer = KafkaEventProducer(KafkaSettings(**settings), placing)
    producer.start()
    sender = HttpSender(deadline_s=4.0, user_agent="bench")
    receiver = Receiver(
        {"hats": Caller(name="hats", provider="qliro", callback_secrets=(SECRET,), lookups=_lookups(lookups))},
        CALLBACKS,
        producer,
        Lookup(sender, metrics, 20),
        Trust([SECRET]),
        placing.key_of,
        metrics,
        Limits(account_rate=1e6, peer_rate=1e6),
    )
    address = await receiver.start("127.0.0.1", 0)
    calm()
    watch = Watch()
    line.say(int(address.rpartition(":")[2]))
    await line.wait()
    _, cpu_s = watch.read()
    counted = metrics.value("cartsync_callbacks_total", account="hats", purpose="order-status", result="received")
    line.say([cpu_s, counted])
    await receiver.stop()
    await producer.stop()
    await sender.close()


def _lookups(url: str) -> Lookups | None:
    if not url:
        return None
    choices = {"validation": "OutOfStock", "shipping_methods": "declined", "shipping_addresses": "empty"}
    adapter = CALLBACKS["qliro"]
    defaults = {name: adapter.default(name, choice, _no_file) for name, choice in choices.items()}
    return Lookups(url=url, token=TOKEN, timeout_s=3.5, defaults=defaults)


def _no_file(name: str) -> bytes:
    raise ProcessError(f"{name} is none of the choices here")


async def bare(line: Line, settings: dict[str, Any]) -> None:
    """The least that somebody could write."""
    producer = AIOKafkaProducer(bootstrap_servers=settings["bootstrap_servers"], linger_ms=2, **PRODUCER)
    await producer.start()
    written = 0

    async def handle(request: web.BaseRequest) -> web.Response:
        nonlocal written
        _, _, account, purpose, _token, reference = request.raw_path.split("/")
        told = f"{account}\n{purpose}\n{reference}".encode()
        hmac.new(SECRET.encode(), told, "sha256").digest()
        body = await request.read()
        await producer.send_and_wait(settings["event_topic"], body, f"{account}/{reference}".encode())
        written += 1
        return web.Response(body=b'{"CallbackResponse":"received"}', content_type="application/json")

    server = web.Server(handle, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    calm()
    watch = Watch()
    line.say(listening.sockets[0].getsockname()[1])
    await line.wait()
    _, cpu_s = watch.read()
    line.say([cpu_s, written])
    await producer.stop()


# --- what calls it ---


def attack(port: int, seconds: int, *, attacked: bool, rate: int = 0, asking: int = 0) -> dict[str, Any]:
    """Pushes, and whoever is in their way. Blocks. `rate`: so many a second, answered or not; 0: as fast as they are
    answered. `asking`: connections with questions.
    """
    os.sched_setaffinity(0, cores()[1])
    crowd = _Crowd(port, rate)
    for _ in range(CONNECTIONS):
        crowd.open(crowd.push)
    for _ in range(asking):
        crowd.open(crowd.ask)
    for _ in range(SLOW if attacked else 0):
        crowd.open(crowd.be_slow)
    began = time.monotonic()
    forged = 0
    while (now := time.monotonic()) < began + seconds:
        if attacked and forged < (now - began) * FORGED_PER_S:
            forged += 1
            crowd.open(crowd.forge)
        crowd.send_due(now)
        crowd.turn()
    crowd.give_up(time.monotonic())
    crowd.close()
    took, asked = sorted(crowd.took_s) or [0.0], sorted(crowd.asked_s) or [0.0]
    return {
        "asked": dict(crowd.asked),
        "asked_p99_ms": 1000 * asked[len(asked) * 99 // 100],
        "answers": dict(crowd.answers),
        "forged": dict(crowd.forged),
        "hung_up": crowd.hung_up,
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[len(took) * 99 // 100],
        "max_ms": 1000 * took[-1],
    }


class _Crowd:
    """Clients of one thread."""

    def __init__(self, port: int, rate: int = 0) -> None:
        self._port = port
        self._rate = rate
        self._due_at = time.monotonic()
        self._idle: list[socket.socket] = []
        self._questions = _questions()
        self.asked: Counter[str] = Counter()
        self.asked_s: list[float] = []
        self._selector = selectors.DefaultSelector()
        self._requests = _pushes()
        self.answers: Counter[str] = Counter()
        self.forged: Counter[str] = Counter()
        self.hung_up = 0
        self.took_s: list[float] = []

    def open(self, act: Callable[[socket.socket, bytes], None]) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect_ex(("127.0.0.1", self._port))
        self._selector.register(client, selectors.EVENT_WRITE, [act, 0.0])

    def turn(self) -> None:
        for key, events in self._selector.select(0.002):
            client: Any = key.fileobj
            if events & selectors.EVENT_WRITE:  # it is connected, or never will be
                self._selector.modify(client, selectors.EVENT_READ, key.data)
                with contextlib.suppress(OSError):
                    key.data[0](client, b"")
                continue
            try:
                data = client.recv(4096)
            except OSError:
                data = b""
            if not data:
                self._selector.unregister(client)
                client.close()
                if client in self._idle:
                    self._idle.remove(client)
                if key.data[0] == self.be_slow:
                    self.hung_up += 1
                    self.open(self.be_slow)
                elif key.data[0] == self.push:
                    self.answers["hung up on"] += 1
                    self.open(self.push)
                continue
            if data.startswith(b"HTTP/"):  # and no body that came by itself
                with contextlib.suppress(OSError):
                    key.data[0](client, data)

    def push(self, client: socket.socket, answer: bytes) -> None:
        now = time.monotonic()
        about = self._selector.get_key(client).data
        if answer:
            self.answers[answer[9:12].decode()] += 1
            self.took_s.append(now - about[1])
        if self._rate:
            self._idle.append(client)
        else:
            about[1] = now
            client.send(next(self._requests))

    def send_due(self, now: float) -> None:
        """Sends what should have been sent by now, as far as there are connections."""
        while self._rate and self._idle and self._due_at <= now:
            client = self._idle.pop()
            with contextlib.suppress(OSError):
                self._selector.get_key(client).data[1] = self._due_at
                client.send(next(self._requests))
            self._due_at += 1 / self._rate

    def give_up(self, now: float) -> None:
        """What is still to be sent has waited, too."""
        while self._rate and self._due_at <= now:
            self.took_s.append(now - self._due_at)
            self._due_at += 1 / self._rate

    def ask(self, client: socket.socket, answer: bytes) -> None:
        now = time.monotonic()
        about = self._selector.get_key(client).data
        if answer:
            self.asked[answer[9:12].decode()] += 1
            self.asked_s.append(now - about[1])
        about[1] = now
        client.send(next(self._questions))

    def be_slow(self, client: socket.socket, answer: bytes) -> None:
        if not answer:
            client.send(b"POST /callbacks/hats/order-status/x/1 HTTP/1.1\r\nHost: ")

    def forge(self, client: socket.socket, answer: bytes) -> None:
        if answer:
            self.forged[answer[9:12].decode()] += 1
        else:
            client.send(
                b"POST /callbacks/hats/order-status/"
                + b"A" * 43
                + b"/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            client: Any = key.fileobj
            client.close()


def _pushes() -> Iterator[bytes]:
    """Requests, each about another order; some thousand are made beforehand, and told apart by their transactions."""
    tokens = Tokens([SECRET])
    heads = []
    for number in range(4_000):
        reference = f"A14/{number}"
        path = Address("hats", "order-status", tokens.token("hats", "order-status", reference), reference).path()
        heads.append(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ".encode())
    number = 0
    while True:
        number += 1
        body = _BODY % (10**9 + number)
        yield heads[number % len(heads)] + str(len(body)).encode() + b"\r\n\r\n" + body


def _questions() -> Iterator[bytes]:
    """Validations, each of another order: the receiver takes only some calls at once for the same one."""
    tokens, body = Tokens([SECRET]), b'{"OrderId":67890,"Currency":"SEK","OrderItems":[]}'
    requests = []
    for number in range(200):
        reference = f"A14/{number}"
        path = Address("hats", "validation", tokens.token("hats", "validation", reference), reference).path()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return cycle(requests)


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.receiving", description=__doc__)
    parser.add_argument("--memory", action="store_true", help="the event topic is in memory")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    options = parser.parse_args()
    with Brokers() as brokers:
        settings = None if options.memory else await brokers.topics()
        found = await one_run("ours", settings, options.seconds, attacked=True)
    console = Console()
    console.print(in_words(found), highlight=False)
    console.print_json(json.dumps(found))
    for name in ("per_s", "per_cpu_s"):
        met = "met" if found[name] >= TARGET_PER_S else "not met"
        console.print(f"{name}: {found[name]:,.0f}; target {TARGET_PER_S:,} on one core: {met}", highlight=False)


if __name__ == "__main__":
    asyncio.run(_main())
