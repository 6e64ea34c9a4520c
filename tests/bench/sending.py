"""Order updates to a local HTTP server, one for each order, through the real outbox, publisher and sender."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from schemas import state
from schemas.state import NextRecord, OrderRecord
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.processes import Line, Process, Watch, calm, run, until
from tests.bench.serving import serve
from tests.shops.load import ACCOUNT, PARTITIONS, history, partition_of, reference_of, subject_of
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.core.intake import decode
from worker.core.plan import Send, plan
from worker.core.record import apply_event
from worker.core.results import Reporting
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.provider import Destination
from worker.ports import StateLog
from worker.providers.registry import PROVIDERS
from worker.providers.sequra.options import SequraAccount
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog

ROUNDS = 5
ORDERS = 10_000
EVENTS = 6
"""Of each order: confirmed, changed, shipped in two parcels."""
CONCURRENCY = 32
"""The default of an account."""

UPDATE = Row(
    "update",
    f"order updates to a local HTTP server, {CONCURRENCY} at once, embedded log",
    "updates/s",
    "aiohttp PUTs of the same bodies, as many at once",
    0.75,
)


async def measure(_brokers: object, tell: Tell) -> list[Figure]:
    """The server is a process of its own."""
    figure = Figure(UPDATE)
    async with Process("sending:server", {}, measured=False) as server:
        arguments = {"base_url": await server.hear(), "orders": ORDERS}

        async def half(target: str) -> Any:
            return await run(f"sending:{target}", arguments)

        for ours, bare in await take_turns(ROUNDS, lambda _: half("ours"), lambda _: half("bare"), tell):
            (ours_s, ours_cpu_s), (bare_s, bare_cpu_s) = ours, bare
            figure.add(ORDERS / ours_s, ORDERS / bare_s, bare_cpu_s / ours_cpu_s)
    return [figure]


async def server(line: Line) -> None:
    """Serves until it is killed."""
    line.say(await serve())
    await asyncio.Event().wait()


def account_at(base_url: str) -> Account:
    """The account of all orders here."""
    return SequraAccount(ACCOUNT, "sequra", base_url, "acme", "user", "secret", concurrency=CONCURRENCY)


def records_of(orders: int, events: int, account: Account) -> Iterator[tuple[int, OrderRecord]]:
    """The records of so many orders after their first events, none of them told."""
    destination = Destination(account, PROVIDERS[account.provider])
    for number in range(orders):
        record = OrderRecord()
        for offset, value in enumerate(history(3, number, events)):
            event = decode(b"key", value, {}, 2**42)
            assert event is not None
            record = apply_event(record, event, position=offset, revision=offset + 1, now_ms=1, destination=destination)
        yield number, record


async def ours(line: Line, base_url: str, orders: int) -> None:
    """A whole worker that finds all orders owed, from ready until all are acknowledged and that is committed."""
    clock, account = SystemClock(), account_at(base_url)
    log = MemoryLog(PARTITIONS, clock)
    await _leave_owed(log.states("predecessor"), orders, account)
    sender = HttpSender(deadline_s=8.0, user_agent="bench")
    ports = Ports(clock, log.events("bench"), log.states("bench"), sender)
    worker = Worker(
        worker_settings_from({}),
        {ACCOUNT: account},
        ports,
        owner_id="bench",
        metrics=Metrics(),
        reporting=Reporting("/cartsync/bench"),
    )
    calm()
    watch = Watch()
    await worker.start()
    await worker.serving()
    await until(worker.is_idle, every_s=0.005)
    line.say(watch.read())


async def _leave_owed(states: StateLog, orders: int, account: Account) -> None:
    """The state topic as an owner left it that was not allowed to send."""
    entries: list[list[tuple[bytes, bytes | None]]] = [[] for _ in range(PARTITIONS)]
    for number, record in records_of(orders, EVENTS, account):
        entries[partition_of(number)].append(((state.ORDER_PREFIX + subject_of(number)).encode(), state.encode(record)))
    for partition in range(PARTITIONS):
        hold = states.partition(partition)
        await hold.fence()
        left = NextRecord(state.SCHEMA, 0, 0, clean=True, version="bench")
        await hold.write([*entries[partition], (state.NEXT_KEY, state.encode(left))])
        await hold.close()


async def bare(line: Line, base_url: str, orders: int) -> None:
    """So many loops that do nothing but PUT."""
    account = account_at(base_url)
    destination = Destination(account, PROVIDERS[account.provider])
    requests = []
    for number, record in records_of(orders, EVENTS, account):
        made = plan(record, subject_of(number), destination)
        assert isinstance(made, Send)
        body = msgspec.json.encode({"order": made.update.body})
        requests.append((f"{base_url}/merchants/acme/orders/{reference_of(number)}", body))
    headers = {"Content-Type": "application/json", "Authorization": "Basic dXNlcjpzZWNyZXQ="}
    left = iter(requests)

    async def loop(session: aiohttp.ClientSession) -> None:
        for url, body in left:
            async with session.put(url, data=body, headers=headers) as response:
                await response.read()
                assert response.status == 204

    async with aiohttp.ClientSession() as session:
        calm()
        watch = Watch()
        await asyncio.gather(*(loop(session) for _ in range(CONCURRENCY)))
        line.say(watch.read())
