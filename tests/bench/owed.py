"""A worker that finds orders owed, from ready until all are acknowledged: for the rows that measure that."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas import state
from schemas.state import NextRecord, OrderRecord
from tests.bench.processes import Line, Watch, calm, until
from tests.shops.load import PARTITIONS, partition_of
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.core.intake import decode
from worker.core.record import apply_event
from worker.core.results import Reporting
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.provider import Destination
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog


def record_of(events: Iterable[bytes], destination: Destination) -> OrderRecord:
    """An order's record after these events, of which nothing was sent."""
    record = OrderRecord()
    for offset, value in enumerate(events):
        event = decode(b"key", value, {}, 2**42)
        assert event is not None
        record = apply_event(record, event, position=offset, revision=offset + 1, now_ms=1, destination=destination)
    return record


async def bring_to_rest(line: Line, account: Account, owed: Iterator[tuple[int, str, OrderRecord]]) -> None:
    """Says what it takes a whole worker until all is acknowledged and that is committed. `owed`: as of `worker_with`."""
    worker = await worker_with({account.name: account}, owed)
    calm()
    watch = Watch()
    await worker.start()
    await worker.serving()
    await until(worker.is_idle, every_s=0.005)
    line.say(watch.read())


async def worker_with(
    accounts: Mapping[str, Account], owed: Iterable[tuple[int, str, OrderRecord]], settings: Mapping[str, Any] = {}
) -> Worker:
    """A whole worker on an embedded log that is yet to start. `owed`: number, subject and record of each order, as an
    owner left them that was not allowed to send. `settings`: of `[worker]`.
    """
    clock = SystemClock()
    log = MemoryLog(PARTITIONS, clock)
    entries: list[list[tuple[bytes, bytes | None]]] = [[] for _ in range(PARTITIONS)]
    for number, subject, record in owed:
        entries[partition_of(number)].append(((state.ORDER_PREFIX + subject).encode(), state.encode(record)))
    states = log.states("predecessor")
    for partition in range(PARTITIONS):
        writer = states.partition(partition)
        await writer.fence()
        left = NextRecord(state.SCHEMA, 0, 0, clean=True, version="bench")
        await writer.write([*entries[partition], (state.NEXT_KEY, state.encode(left))])
        await writer.close()
    sender = HttpSender(deadline_s=8.0, user_agent="bench")
    return Worker(
        worker_settings_from(dict(settings)),
        accounts,
        Ports(clock, log.events("bench"), log.states("bench"), sender),
        owner_id="bench",
        metrics=Metrics(),
        reporting=Reporting("/cartsync/bench"),
        keeps_history=True,
    )
