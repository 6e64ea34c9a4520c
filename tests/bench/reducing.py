"""Events decoded and reduced, without any I/O: the work of a partition's actor on a batch, beside decoding alone."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from schemas import events
from tests.bench.measuring import Figure, Row, Tell
from tests.bench.processes import Line, Process, Watch, calm
from tests.shops.load import ACCOUNT, BenchEvent, in_log_order, subject_of
from worker.app import SystemClock
from worker.core.policy import DeliveryPolicy
from worker.metrics import Metrics
from worker.model.provider import Destination
from worker.partition.batch import Batch
from worker.partition.context import BatchLimits, Context
from worker.providers.registry import PROVIDERS
from worker.providers.sequra.options import SequraAccount

ROUNDS = 5
ORDERS = 4_000

REDUCE = Row(
    "reduce",
    "events decoded, reduced, and encoded into their orders' records; no I/O",
    "events/s",
    "the typed decoder alone",
    0.30,
)


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


async def rounds(line: Line, orders: int, rounds: int) -> None:
    """Reads the same events again and again, into no orders at first each time."""
    made = in_log_order(1, orders)
    records = [BenchEvent(offset, subject_of(number).encode(), value) for offset, (number, value) in enumerate(made)]
    calm()
    for _ in range(rounds):
        line.say([len(records), _reduce(records), _decode(records)])


def _reduce(records: list[BenchEvent]) -> tuple[float, float]:
    context = _context()
    known: dict[str, bytes] = {}
    watch = Watch()
    for batch_records in _batches(records, context.pace.batch_records_max):
        batch = Batch(0, known, context, batch_records[0].offset, 1_000_000)
        for record in batch_records:
            batch.event(record, _never)
        batch.entries()
        known.update((subject, value) for subject, _, value in batch.changed())
    return watch.read()


def _decode(records: list[BenchEvent]) -> tuple[float, float]:
    decode = msgspec.json.Decoder(events.Event).decode
    watch = Watch()
    for record in records:
        decode(record.value)
    return watch.read()


def _batches(records: list[BenchEvent], size: int) -> Iterator[list[BenchEvent]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]


def _never(_subject: str) -> bool:
    return False


def _context() -> Context:
    account = SequraAccount(ACCOUNT, "sequra", "http://127.0.0.1", "acme", "user", "secret")
    nobody = cast(Any, None)  # a batch asks neither the log nor the dispatcher
    return Context(
        "bench",
        "bench",
        DeliveryPolicy(),
        BatchLimits(),
        SystemClock(),
        nobody,
        nobody,
        {ACCOUNT: Destination(account, PROVIDERS["sequra"])},
        Metrics(),
    )
