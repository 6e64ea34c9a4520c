"""Orders on the disk beside orders in memory: events on orders used last and on any, a restart, what stays in memory.

So many orders that the cache holds a small part of them; `DISK_ORDERS=5000000` for as many as the target speaks of. What
grows with their number is the time to fill the disk and its size; a restart reads what is owed, of which there are as
many more.

The first two rows are a whole worker on a real Kafka; in the others events go through everything that an owner does with
a batch but Kafka's transaction, which would bring the ratios nearer to 1, and RocksDB's own threads share the one core.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from schemas import state
from tests.bench import consuming
from tests.bench.brokers import Brokers, write_events
from tests.bench.measuring import Figure, Row, Tell, take_turns
from tests.bench.processes import Line, Process, Watch, calm, run
from tests.bench.reducing import context_of, never
from tests.bench.sending import account_at, records_of
from tests.shops.load import EVENTS_PER_ORDER, BenchEvent, history, in_log_order, subject_of
from worker.app import SystemClock
from worker.core.outbox import Outbox
from worker.core.record import acknowledge
from worker.orders.batch import EVENTS_AT_ONCE, EVENTS_AT_ONCE_BYTES, Batch
from worker.orders.takeover import PartitionState, Takeover
from worker.ownership.workload import Host, Inherited, Sizes
from worker.ports import OrderTable, Origin
from worker.store.memory import MemoryOrders
from worker.store.rocks import RocksFiles
from worker.store.tables import DiskTables

ORDERS = int(os.environ.get("DISK_ORDERS", "300000"))
TARGET_ORDERS = 5_000_000
KINDS = 1_000
"""Orders that differ."""
TAKEN = 4
"""Events of each that were taken before."""
HOT = 5_000
"""Orders used last."""
COLD = 20_000
ROUNDS = 3
OWED_EACH = 100
"""One order of so many is owed."""
CACHE_BYTES = 64 * 2**20
BATCH = 2_000
WITHIN_S = 60.0 + ORDERS / 2_000
_ORIGIN = Origin(0, "bench", "bench", 0)
_SIZES = Sizes(1_000_000, 1_000_000, 0)

_AS_CONSUME = "events consumed and committed as in the row `consume`, orders on the disk"
CONSUME_ROW = Row(
    "disk-consume",
    f"{_AS_CONSUME} and in a cache that holds them all",
    "events/s",
    "the same worker, all orders in memory",
    0.85,
)
CONSUME_COLD_ROW = Row(
    "disk-consume-cold",
    f"{_AS_CONSUME}, hardly any in its cache of 1 MiB",
    "events/s",
    "the same worker, all orders in memory",
    0.40,
)
HOT_ROW = Row(
    "disk-hot",
    f"events on {HOT:,} orders of {ORDERS:,} on the disk, used last, taken into batches and their table, without Kafka",
    "events/s",
    "the same, all orders in memory",
    0.75,
)
COLD_ROW = Row(
    "disk-cold",
    f"events on any of {ORDERS:,} orders on the disk, the system's cache empty at first, without Kafka",
    "events/s",
    "the same, all orders in memory",
    0.40,
)
RESTART_ROW = Row(
    "disk-restart",
    f"from nothing to an outbox of all that is owed of {ORDERS:,} orders on the disk, one of {OWED_EACH} owed",
    "s",
    f"10 s, for {TARGET_ORDERS:,} orders; as much less as there are fewer",
    1.0,
    is_cost=True,
    decimals=2,
)
MEMORY_ROW = Row(
    "disk-memory",
    f"growth of a process by {ORDERS:,} orders on the disk, after all of the above",
    "MiB",
    "1 GiB, for however many orders",
    1.0,
    is_cost=True,
)
ROWS = (HOT_ROW, COLD_ROW, RESTART_ROW, MEMORY_ROW)


async def measure_consume(brokers: Brokers, tell: Tell) -> list[Figure]:
    """Orders that are used last."""
    return [await _consume(CONSUME_ROW, consuming.CACHE_BYTES, brokers, tell)]


async def measure_consume_cold(brokers: Brokers, tell: Tell) -> list[Figure]:
    """Any orders."""
    return [await _consume(CONSUME_COLD_ROW, 2**20, brokers, tell)]


async def _consume(row: Row, cache_bytes: int, brokers: Brokers, tell: Tell) -> Figure:
    """The same events for all rounds; a new group, a new state topic and an empty folder for each."""
    tell("starting Kafka, writing events")
    settings = await brokers.topics()
    total = await write_events(settings, in_log_order(2, consuming.ORDERS))
    figure = Figure(row)
    with tempfile.TemporaryDirectory(dir=os.environ.get("DISK_FOLDER")) as folder:

        async def half(place: str) -> Any:
            fresh = await brokers.topics(settings["event_topic"])
            arguments = {"settings": fresh, "total": total, "folder": place, "cache_bytes": cache_bytes}
            return await run("consuming:ours", arguments)

        rounds = await take_turns(ROUNDS, lambda n: half(f"{folder}/{n}"), lambda _: half(""), tell)
    for (ours_count, ours_s, ours_cpu_s), (bare_count, bare_s, bare_cpu_s) in rounds:
        figure.add(ours_count / ours_s, bare_count / bare_s, bare_cpu_s / bare_count * ours_count / ours_cpu_s)
    return figure


async def measure(_brokers: object, tell: Tell) -> list[Figure]:
    """Two processes, one with each kind of table, that take turns."""
    hot, cold, restart, memory = figures = [Figure(row) for row in ROWS]
    with tempfile.TemporaryDirectory(dir=os.environ.get("DISK_FOLDER")) as folder:
        arguments = {"folder": folder, "orders": ORDERS}
        async with Process("disk:ours", arguments) as ours, Process("disk:bare", arguments | {"folder": ""}) as bare:
            tell(f"filling two tables with {ORDERS:,} orders")
            for process in (ours, bare):
                await process.hear(WITHIN_S)
            for figure in (hot, cold):
                for number in range(ROUNDS):
                    tell(f"{figure.row.name}, round {number + 1} of {ROUNDS}")
                    halves = []
                    for process in (ours, bare):
                        process.go()
                        halves.append(await process.hear(WITHIN_S))
                    (count, took_s, cpu_s), (_, bare_s, bare_cpu_s) = halves
                    figure.add(count / took_s, count / bare_s, bare_cpu_s / cpu_s)
            ours.go()
            memory.add(await ours.hear(WITHIN_S) / 2**20, 1024)
        tell("restarting")
        async with Process("disk:again", arguments) as again:
            took_s, cpu_s = await again.hear(WITHIN_S)
            limit_s = 10 * ORDERS / TARGET_ORDERS
            restart.add(took_s, limit_s, cpu_s / limit_s)
    return figures


async def ours(line: Line, folder: str, orders: int) -> None:
    """On the disk."""
    before_bytes = _resident_bytes()
    tables = _tables(folder)
    table = (await tables.recall(_ORIGIN)).table
    await _rounds(line, table, orders, Path(folder))
    await line.wait()
    grown_bytes = _resident_bytes() - before_bytes
    await _fill(table, orders, only=_touched(orders))  # told again, as most orders are
    await tables.stop()
    line.say(grown_bytes)


async def bare(line: Line, folder: str, orders: int) -> None:
    """In memory."""
    await _rounds(line, MemoryOrders(), orders, None)
    await line.wait()


async def again(line: Line, folder: str, orders: int) -> None:
    """A process that starts: it opens what was left, and takes it over as one that was killed."""
    context = context_of()
    calm()
    watch = Watch()
    found = await _tables(folder).recall(_ORIGIN)
    outbox = Outbox(found.table.__getitem__, context.destinations, context.rules)
    host = cast(Host, _Host())
    await Takeover(context, host, found.table, outbox, PartitionState(), None)._hold(Inherited(False, False, 0.0))
    line.say(watch.read())
    assert (len(found.table), len(outbox.subjects())) == (orders, -(-orders // OWED_EACH))


class _Host:
    sizes = _SIZES
    partition = 0


def _tables(folder: str) -> DiskTables:
    tables = DiskTables(RocksFiles(Path(folder)), SystemClock(), CACHE_BYTES)
    tables.start()
    return tables


async def _rounds(line: Line, table: OrderTable, orders: int, folder: Path | None) -> None:
    """Says when the table is full; then, each time that it is told to, how long events took."""
    await _fill(table, orders)
    made = {kind: list(history(3, kind)) for kind in range(KINDS)}
    hot = _touched(orders)[:HOT]
    steps = iter(range(TAKEN, EVENTS_PER_ORDER))
    await _take(table, _events(made, hot, next(steps)))  # so that they are those used last
    calm()
    line.say("filled")
    for _ in range(ROUNDS):
        events = _events(made, hot, next(steps))
        await line.wait()
        line.say([len(events), *await _take(table, events)])
    any_of_them = _touched(orders)[HOT:]
    for number in range(ROUNDS):
        events = _events(made, any_of_them[number * COLD : (number + 1) * COLD], TAKEN)
        if folder is not None:
            _forget_pages(folder)
        await line.wait()
        line.say([len(events), *await _take(table, events)])


def _touched(orders: int) -> list[int]:
    """The orders that events are of: the last ones, and any others."""
    return [*range(orders - HOT, orders), *random.Random(7).sample(range(orders - HOT), ROUNDS * COLD)]


async def _fill(table: OrderTable, orders: int, only: Sequence[int] | None = None) -> None:
    account = account_at("http://127.0.0.1")
    owed = [record for _, record in records_of(KINDS, TAKEN, account)]
    told = [state.encode(acknowledge(record, b"0123456789abcdef")) for _, record in records_of(KINDS, TAKEN, account)]
    values = [state.encode(record) for record in owed]
    for number in range(orders) if only is None else only:
        of_its_kind = values if number % OWED_EACH == 0 else told
        table.put(subject_of(number), of_its_kind[number % KINDS])
        if number % BATCH == 0:
            await table.keep_up()
    table.checkpoint(10**12)


def _events(made: dict[int, list[bytes]], numbers: Sequence[int], step: int) -> list[BenchEvent]:
    """The next event of each of these orders."""
    found = []
    for offset, number in enumerate(numbers):
        subject, kind = subject_of(number), number % KINDS
        value = made[kind][step].replace(f'"{subject_of(kind)}"'.encode(), f'"{subject}"'.encode())
        found.append(BenchEvent(step * 10**9 + offset, subject.encode(), value))
    return found


async def _take(table: OrderTable, records: list[BenchEvent]) -> tuple[float, float]:
    """As a partition's owner does."""
    context = context_of()
    watch = Watch()
    for start in range(0, len(records), BATCH):
        left: Sequence[Any] = records[start : start + BATCH]
        batch = Batch(0, table, context, left[0].offset, _SIZES)
        while left:
            portion = left[:EVENTS_AT_ONCE]
            await table.fetch(batch.look_ahead(portion))
            left = left[batch.events(portion, never, batch.size + EVENTS_AT_ONCE_BYTES) :]
        entries = batch.entries()
        assert len(batch.changed) == len(entries) > 0
        for subject, (_, value) in batch.changed.items():
            table.put(subject, value)
        table.checkpoint(left[-1].offset if left else batch.next_offset)
        await asyncio.sleep(0)
    return watch.read()


def _forget_pages(folder: Path) -> None:
    """Has the system forget what it keeps of these files."""
    os.sync()
    for file in _files(folder):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
