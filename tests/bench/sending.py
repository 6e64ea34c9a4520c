"""Order updates to a local HTTP server, one for each order, through the real outbox, publisher and sender."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, TextIO, cast

import aiohttp
import msgspec

from schemas.state import OrderRecord
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.owed import bring_to_rest, record_of
from tests.bench.processes import Line, Process, Watch, calm, cores, run
from tests.bench.serving import serve
from tests.shops.load import ACCOUNT, history, reference_of, subject_of
from worker import logs
from worker.core.plan import Send, plan
from worker.model.account import Account
from worker.model.provider import Destination
from worker.providers.registry import PROVIDERS
from worker.providers.sequra.options import SequraAccount

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
    0.70,
)
_LOG_LIMIT = "the same worker, logging from `warning` on"
LOG_FILE = Row(
    "log-file",
    "CPU of an update, a line of the log for each, to a file",
    "µs",
    _LOG_LIMIT,
    1.03,
    is_cost=True,
    decimals=1,
)
LOG_PIPE = Row("log-pipe", "the same, to a pipe", "µs", _LOG_LIMIT, 1.03, is_cost=True, decimals=1)


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


async def measure_log(_brokers: object, tell: Tell) -> list[Figure]:
    """The same worker twice, by CPU: with and without a line for each update, to a file and to a pipe."""
    figures = [Figure(LOG_FILE), Figure(LOG_PIPE)]
    async with Process("sending:server", {}, measured=False) as server:
        arguments = {"base_url": await server.hear(), "orders": ORDERS}

        async def with_it(log: str, _number: int = 0) -> Any:
            return await run("sending:ours", arguments | {"log": log})

        async def without(_number: int) -> Any:
            return await with_it("")

        for figure, log in zip(figures, ("file", "pipe"), strict=True):
            for (_, cpu_s), (_, without_s) in await take_turns(ROUNDS, partial(with_it, log), without, tell):
                figure.add(1e6 * cpu_s / ORDERS, 1e6 * without_s / ORDERS, cpu_s / without_s)
    return figures


async def server(line: Line, after_s: float = 0.0) -> None:
    """Serves until it is killed; answers so long after a request."""
    line.say(await serve(after_s=after_s))
    await asyncio.Event().wait()


def account_at(base_url: str) -> Account:
    """The account of all orders here."""
    return SequraAccount(ACCOUNT, "sequra", base_url, "acme", "user", "secret", concurrency=CONCURRENCY)


def records_of(orders: int, events: int, account: Account) -> Iterator[tuple[int, OrderRecord]]:
    """The records of so many orders after their first events, none of them told."""
    destination = Destination(account, PROVIDERS[account.provider])
    for number in range(orders):
        yield number, record_of(history(3, number, events), destination)


async def ours(line: Line, base_url: str, orders: int, log: Literal["", "file", "pipe"] = "") -> None:
    """A whole worker that finds all orders owed, from ready until all are acknowledged and that is committed. `log`:
    where it logs everything from `info` on; empty: what is at least a warning, to the standard error.
    """
    account = account_at(base_url)
    if log:
        logs.configure("json", "info", stream=_stream(log))
    owed = ((number, subject_of(number), record) for number, record in records_of(orders, EVENTS, account))
    await bring_to_rest(line, account, owed)


def _stream(kind: Literal["file", "pipe"]) -> TextIO:
    """A file that is gone with the process, or a pipe that somebody reads on the other cores."""
    if kind == "file":
        return tempfile.TemporaryFile("w", encoding="utf-8")
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, encoding="utf-8")
    os.sched_setaffinity(reader.pid, cores()[1])
    assert reader.stdin is not None
    return cast(TextIO, reader.stdin)


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
