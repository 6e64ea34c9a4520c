"""Events decoded and reduced, without any I/O: the work of a partition's actor on a batch, beside decoding alone."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from schemas import events
from tests.bench.measuring import Figure, Row, Tell
from tests.bench.processes import Line, Process, Watch, calm
from tests.shops.load import ACCOUNT, BenchEvent, in_log_order, parcels, subject_of
from worker.app import SystemClock
from worker.core.policy import DeliveryPolicy
from worker.metrics import Metrics
from worker.model.provider import Destination
from worker.orders.batch import EVENTS_AT_ONCE, EVENTS_AT_ONCE_BYTES, Batch
from worker.orders.context import OrderContext
from worker.ownership.context import BatchLimits
from worker.ownership.workload import Sizes
from worker.providers.registry import PROVIDERS
from worker.providers.sequra.options import SequraAccount
from worker.store.memory import MemoryOrders

ROUNDS = 5
ORDERS = 4_000

REDUCE = Row(
    "reduce",
    "events decoded, reduced, and encoded into their orders' records; no I/O",
    "events/s",
    "the typed decoder alone",
    0.36,
)

PARCELS = 300
SHIPMENT = Row(
    "shipment",
    f"a shipment event on an order of {PARCELS} shipments, decoded, reduced, and encoded into its record; no I/O",
    "µs",
    "the same on an order of one shipment",
    4.0,
    is_cost=True,
    decimals=1,
)
TIMES = 50
"""That each of the events is taken, in a round."""


async def measure(_brokers: object, tell: Tell) -> list[Figure]:
    """Both sides in one process, by turns."""
    figure = Figure(REDUCE)
    async with Process("reducing:rounds", {"orders": ORDERS, "rounds": ROUNDS}) as process:
        tell("making events")
        for number in range(ROUNDS):
            count, (ours_s, ours_cpu_s), (bare_s, bare_cpu_s) = await process.hear()
            tell(f"round {number + 1} of {ROUNDS}")
            figure.add(count / ours_s, count / bare_s, bare_cpu_s / ours_cpu_s)
    return [figure]


async def measure_shipment(_brokers: object, tell: Tell) -> list[Figure]:
    """Both orders in one process, by turns."""
    figure = Figure(SHIPMENT)
    async with Process("reducing:shipments", {"rounds": ROUNDS}) as process:
        for number in range(ROUNDS):
            tell(f"round {number + 1} of {ROUNDS}")
            (many_s, many_cpu_s), (one_s, one_cpu_s) = await process.hear()
            figure.add(many_s * 1e6, one_s * 1e6, many_cpu_s / one_cpu_s)
    return [figure]


async def shipments(line: Line, rounds: int) -> None:
    """Says how many seconds it takes for one event, of orders of many shipments and of one."""
    many, one = _shipped(PARCELS), _shipped(1)
    calm()
    for _ in range(rounds):
        line.say([_take_again(*many), _take_again(*one)])


def _shipped(count: int) -> tuple[MemoryOrders, list[BenchEvent]]:
    """Orders that have so many shipments, and one shipment more of each."""
    known = MemoryOrders()
    following: list[BenchEvent] = []
    for number in range(EVENTS_AT_ONCE):
        key = subject_of(number).encode()
        told = [BenchEvent(offset, key, value) for offset, value in enumerate(parcels(number, count + 1))]
        _take(known, told[:-1])
        following.append(BenchEvent(count + 2 + number, key, told[-1].value))
    return known, following


def _take_again(known: MemoryOrders, records: list[BenchEvent]) -> tuple[float, float]:
    watch = Watch()
    for _ in range(TIMES):
        _take(MemoryOrders(known), records)
    return cast(tuple[float, float], tuple(took_s / TIMES / len(records) for took_s in watch.read()))


async def rounds(line: Line, orders: int, rounds: int) -> None:
    """Reads the same events again and again, into no orders at first each time."""
    made = in_log_order(1, orders)
    records = [BenchEvent(offset, subject_of(number).encode(), value) for offset, (number, value) in enumerate(made)]
    calm()
    for _ in range(rounds):
        line.say([len(records), _reduce(records), _decode(records)])


def _reduce(records: list[BenchEvent]) -> tuple[float, float]:
    known = MemoryOrders()
    watch = Watch()
    _take(known, records)
    return watch.read()


def _take(known: MemoryOrders, records: list[BenchEvent]) -> None:
    """As a partition's owner does."""
    context = context_of()
    for batch_records in _batches(records, context.limits.batch_records_max):
        batch = Batch(0, known, context, batch_records[0].offset, Sizes(1_000_000, 1_000_000, 0))
        left = batch_records
        while left:
            left = left[batch.events(left[:EVENTS_AT_ONCE], never, batch.size + EVENTS_AT_ONCE_BYTES) :]
        batch.entries()
        known.update((subject, value) for subject, (_, value) in batch.changed.items())


def _decode(records: list[BenchEvent]) -> tuple[float, float]:
    decode = msgspec.json.Decoder(events.Event).decode
    watch = Watch()
    for record in records:
        decode(record.value)
    return watch.read()


def _batches(records: list[BenchEvent], size: int) -> Iterator[list[BenchEvent]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]


def never(_subject: str) -> bool:
    """No attempt is in flight."""
    return False


def context_of() -> OrderContext:
    """What a batch asks of a worker."""
    account = SequraAccount(ACCOUNT, "sequra", "http://127.0.0.1", "acme", "user", "secret")
    nobody = cast(Any, None)  # a batch asks neither the log nor the dispatcher
    return OrderContext(
        owner_id="bench",
        version="bench",
        rules=DeliveryPolicy(),
        limits=BatchLimits(),
        clock=SystemClock(),
        events=nobody,
        dispatcher=nobody,
        destinations={ACCOUNT: Destination(account, PROVIDERS["sequra"])},
        metrics=Metrics(),
        make_table=lambda _partition: MemoryOrders(),
    )
