"""All axes, in the order of the page."""

from tests.scale import accounts, latency, lines, orders, owed, partitions, shipments, workers

AXES = (
    workers.AXIS,
    partitions.AXIS,
    orders.AXIS,
    owed.AXIS,
    accounts.AXIS,
    lines.AXIS,
    shipments.AXIS,
    latency.AXIS,
)
