"""Workers of one group, all on this machine."""

from tests.scale.joining import EVENTS, ORDERS, measure_group
from tests.scale.measuring import Axis, Bench, Point

PARTITIONS = 4


async def measure(bench: Bench, x: float) -> list[Point]:
    """Each worker on a core of its own, as far as there are cores."""
    return [await measure_group(bench, x, int(x), PARTITIONS)]


AXIS = Axis(
    name="workers",
    title="Workers of one group",
    unit="workers",
    item="event",
    what=f"{EVENTS} events of each of {ORDERS:,} orders, all visible in Kafka at one moment, until each order is told; "
    f"{PARTITIONS} partitions; the last worker's core is also the broker's, the provider's and the shop's",
    points=(1, 2, 4),
    quick=(1, 2),
    measure=measure,
    bends="what bends first are the cores: more workers than cores share them, and the broker's; give each worker one, and "
    "the topics a multiple of as many partitions as there are workers",
    own="1,000 events/s with a core for each",
)
