"""Shipments of an order."""

from typing import Any

from tests.scale.measuring import Axis, Bench, Point
from tests.scale.sizes import measure_sizes
from tests.shops.load import parcels


async def measure(_bench: Bench, x: float) -> list[Point]:
    """Fewer orders, the larger they are."""
    return [await measure_sizes("shipments", x)]


def events(number: int, size: int) -> Any:
    """Confirmed, and sent in so many parcels."""
    return parcels(number, size)


AXIS = Axis(
    name="shipments",
    title="Shipments of an order",
    unit="shipments",
    item="update",
    what="owed orders on an embedded log: one line that was sent in so many parcels",
    points=(1, 3, 10, 30, 100, 300),
    quick=(1, 30),
    measure=measure,
    bends="what bends first is the event, for an order's record is read and written whole with each, so an order costs "
    "the square of its shipments: harmless below 100; beyond, have the shop report several parcels as one shipment",
    own="µs of CPU for the order's last event",
)
