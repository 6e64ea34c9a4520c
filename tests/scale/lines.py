"""Lines of an order."""

from typing import Any

from tests.scale.measuring import Axis, Bench, Point
from tests.scale.sizes import measure_sizes
from tests.shops.load import wide


async def measure(_bench: Bench, x: float) -> list[Point]:
    """Fewer orders, the larger they are."""
    return [await measure_sizes("lines", x)]


def events(number: int, size: int) -> Any:
    """Confirmed with so many lines, changed, and half of them sent."""
    return wide(number, size)


AXIS = Axis(
    name="lines",
    title="Lines of an order",
    unit="lines",
    item="update",
    what="owed orders on an embedded log: confirmed with so many lines, changed once, the first half of them sent",
    points=(3, 10, 30, 100, 300),
    quick=(3, 30),
    measure=measure,
    bends="it grows with the lines, and nothing bends: where orders are that large, `[worker] max_batch_records` keeps "
    "transactions short, and more workers share the CPU",
    own="µs of CPU for the order's last event",
)
