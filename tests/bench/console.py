"""The console over a real Kafka: how fast its index is built, how long its pages take, what it keeps in memory.

python -m tests.bench --only console-list             with Kafka, 200,000 orders
python -m tests.bench.console --orders 1000000        without Kafka: an index of so many orders, its lists, its memory
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from schemas import state
from tests.bench.brokers import Brokers
from tests.bench.measuring import Figure, Row, Tell
from tests.bench.processes import Line, Process, Watch, calm, run, until
from tests.bench.restoring import ORDERS
from tests.bench.sending import account_at, records_of
from tests.shops.load import subject_of
from worker.config.sections import ConsoleSection
from worker.core.policy import DeliveryPolicy
from worker.core.record import acknowledge
from worker.kafka.following import KafkaRecords
from worker.kafka.settings import KafkaSettings
from worker.ports import Chunk, Place, StoredRecord, TopicFound, TopicName
from worker.tools.console.assistant import assistance
from worker.tools.console.run import open_console, wall_ms
from worker.web.console.follower import Follower
from worker.web.console.index import Index
from worker.web.console.operator import Nobody
from worker.web.console.queries import Filter, Reader

ROUNDS = 3
ASKED = 40
"""Requests of each page."""
KINDS, EVENTS, OWED_EACH = 400, 4, 10
READ_AT_ONCE = 2_000
MIB = 2**20

INDEX = Row(
    "console-index",
    f"orders indexed by the console, Kafka, {ORDERS:,} orders of 3 lines",
    "orders/s",
    "the goal",
    1.0,
)
LIST = Row(
    "console-list",
    f"a list page of {ORDERS:,} orders over HTTP, the slowest of 95 %",
    "ms",
    "the goal",
    1.0,
    is_cost=True,
)
DETAIL = Row(
    "console-detail",
    "an order's page over HTTP, its record read from Kafka, the slowest of 95 %",
    "ms",
    "the goal",
    1.0,
    is_cost=True,
)
MEMORY = Row(
    "console-memory",
    f"the console's process after {ORDERS:,} orders",
    "MiB",
    "the goal",
    1.0,
    is_cost=True,
)
ROWS = (INDEX, LIST, DETAIL, MEMORY)
GOALS = {"console-index": 50_000.0, "console-list": 200.0, "console-detail": 100.0, "console-memory": 300.0}
LISTS = (
    "/orders",
    "/orders?status=owed&sort=age",
    "/orders?sort=shipped",
    "/orders?q=A14-10",
    "/orders?status=settled&older=1h",
    "/orders?reason=nothing+has+this",
    "/",
)


async def measure(brokers: Brokers, tell: Tell) -> list[Figure]:
    """A console that builds its index each round, and is then asked for its pages."""
    tell(f"writing {ORDERS:,} orders")
    settings = await brokers.topics()
    await run("restoring:fill", {"settings": settings})
    figures = {row.name: Figure(row) for row in ROWS}

    def add(name: str, value: float, by_cpu: float | None = None) -> None:
        figures[name].add(value, GOALS[name], None if by_cpu is None else by_cpu / GOALS[name])

    for number in range(ROUNDS):
        tell(f"round {number + 1} of {ROUNDS}: the index")
        # On all cores: while the index is built, a second process helps.
        async with Process("console:ours", {"settings": settings}, on=os.sched_getaffinity(0)) as process:
            seconds, cpu_s, url = await process.hear(within_s=600)
            add("console-index", ORDERS / seconds, ORDERS / cpu_s)
            tell(f"round {number + 1} of {ROUNDS}: its pages")
            add("console-list", *await _asked([url + path for path in LISTS], process.pid))
            subjects = [subject_of(number * 4_999).replace("/", "%2F") for number in range(8)]
            add("console-detail", *await _asked([f"{url}/orders/{subject}" for subject in subjects], process.pid))
            process.go()
            add("console-memory", await process.hear() / MIB)
    return list(figures.values())


async def ours(line: Line, settings: dict[str, Any]) -> None:
    """Builds its index, serves until it is told, and says how large it is."""
    calm()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        began, cpu_began_s = time.monotonic(), cpu_s()
        nobody = Nobody()
        opened = await open_console(
            stack,
            ConsoleSection(port=0),
            records=KafkaRecords(KafkaSettings(**settings)),
            operator=nobody,
            workers=nobody,
            rules=DeliveryPolicy(),
            providers={"acme": "sequra"},
            index=Path(folder) / "index.sqlite",
        )
        await until(lambda: opened.index.is_complete, 0.01)
        line.say([time.monotonic() - began, cpu_s() - cpu_began_s, opened.url])
        await line.wait()
        line.say(resident_bytes())


async def _asked(urls: list[str], pid: int) -> tuple[float, float]:
    """Milliseconds, of those that took the longest but one in twenty, and the mean of the CPU time that they took."""

    def ask(url: str) -> float:
        began = time.perf_counter()
        request = urllib.request.Request(url, headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
        return 1000 * (time.perf_counter() - began)

    def ask_all() -> list[float]:
        return [ask(urls[number % len(urls)]) for number in range(ASKED)]

    before_ms = _cpu_ms(pid)
    taken = sorted(await asyncio.to_thread(ask_all))
    return taken[round(0.95 * len(taken)) - 1], (_cpu_ms(pid) - before_ms) / ASKED


def _cpu_ms(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_s() -> float:
    """Of this process so far, and of its helper, once that has ended."""
    return sum(os.times()[:4])


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- many orders, without Kafka ---------------------------------------------------------------------------------------


class Given:
    """`ports.Records`: a state topic of so many orders, read as from Kafka that takes no time."""

    def __init__(self, orders: int) -> None:
        self._orders = orders
        self._values = []
        for number, record in records_of(KINDS, EVENTS, account_at("http://127.0.0.1")):
            owed = number % OWED_EACH == 0
            self._values.append(state.encode(record if owed else acknowledge(record, b"0123456789abcdef")))
        self._next = 0

    async def start(self) -> None:
        pass

    async def topics(self) -> Mapping[TopicName, TopicFound]:
        return {"state": TopicFound("s", "", {0: (0, self._orders)})}

    def seek(self, positions: Mapping[Place, int]) -> None:
        self._next = positions["state", 0]

    async def read(self, within_s: float) -> list[Chunk]:
        begin, end = self._next, min(self._next + READ_AT_ONCE, self._orders)
        if begin == end:
            await asyncio.sleep(within_s)
            return []
        self._next = end
        records = [
            StoredRecord(number, 0, f"{state.ORDER_PREFIX}{subject_of(number)}".encode(), self._values[number % KINDS])
            for number in range(begin, end)
        ]
        return [Chunk("state", 0, records, end)]

    async def record(self, place: Place, offset: int) -> StoredRecord | None:
        raise NotImplementedError

    async def picked(self, place: Place, offsets: Sequence[int]) -> list[StoredRecord]:
        raise NotImplementedError

    async def input_ends(self) -> Mapping[int, int]:
        return {}

    async def stop(self) -> None:
        pass


async def build(index: Index, records: Given, orders: int) -> float:
    """As the console does, with its helper; seconds."""
    began = said_at = time.monotonic()
    follower = Follower(records, index, assistance(DeliveryPolicy(), {"acme": "sequra"}, wall_ms))
    following = asyncio.create_task(follower.run())
    while not index.is_complete:
        await asyncio.sleep(0.01)
        if time.monotonic() - said_at > 5:
            said_at = time.monotonic()
            sys.stderr.write(f"{orders - follower.progress()[0]:,} of {orders:,}\n")
        if following.done():
            await following
    seconds = time.monotonic() - began
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return seconds


def say(text: str) -> None:
    """A line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Builds an index of many orders, and says what it costs to build, to ask and to keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=int, default=1_000_000)
    orders = parser.parse_args().orders
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder) / "index.sqlite", DeliveryPolicy(), lambda _account, _remote: None, wall_ms)
        cpu_began_s = cpu_s()
        seconds = uvloop.run(build(index, Given(orders), orders))
        cpu_us = 1e6 * (cpu_s() - cpu_began_s) / orders
        say(
            f"{orders:,} orders indexed in {seconds:.1f} s: {orders / seconds:,.0f} orders/s,"
            f" {cpu_us:.1f} µs of CPU for each"
        )
        reader = Reader(index.connect(), {"acme": "sequra"})
        owed, now_ms = Filter(status=("owed",)), wall_ms()
        questions = {
            "first page": lambda: reader.orders(Filter(), "changed", now_ms=now_ms),
            "owed by age": lambda: reader.orders(owed, "age", now_ms=now_ms),
            "prefix": lambda: reader.orders(Filter(prefix="A14-10001"), "reference", now_ms=now_ms),
            "reason": lambda: reader.orders(Filter(words="nothing has this"), "changed", now_ms=now_ms),
            "by amount": lambda: reader.orders(Filter(), "shipped", now_ms=now_ms),
            "counts by account": reader.by_account,
        }
        for name, question in questions.items():
            taken = []
            for _ in range(5):
                watch = Watch()
                question()
                taken.append(1000 * watch.read()[0])
            say(f"  {name}: {median(taken):.1f} ms")
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        say(f"  file {size / MIB:.0f} MiB, process {resident_bytes() / MIB:.0f} MiB")
        reader.close()
        index.close()


if __name__ == "__main__":
    main()
