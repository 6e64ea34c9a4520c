"""Partitions of one worker."""

from tests.scale.joining import EVENTS, ORDERS, measure_group
from tests.scale.measuring import Axis, Bench, Point


async def measure(bench: Bench, x: float) -> list[Point]:
    """The same orders in more partitions."""
    return [await measure_group(bench, x, 1, int(x))]


AXIS = Axis(
    name="partitions",
    title="Partitions of one worker",
    unit="partitions",
    item="event",
    what=f"{EVENTS} events of each of {ORDERS:,} orders, all visible in Kafka at one moment, until each order is told; one "
    "worker",
    points=(1, 2, 4, 16),
    quick=(1, 4),
    measure=measure,
    bends="what bends first is a worker with a single partition, which stands still while it commits: have at least two "
    "per worker, and raise `[worker] max_batch_records` where one has to do",
)
