"""Orders in the state of one worker."""

import asyncio
from collections.abc import Iterator
from typing import Any

from tests.bench.processes import Line, Process, calm, run, until
from tests.scale.joining import kafka_worker, visible_at_once
from tests.scale.measuring import Axis, Bench, Point
from tests.scale.metering import Meter
from tests.scale.settling import WITHIN_S, point
from tests.shops.load import PARTITIONS, history

EVENTS = 20_000
"""That are taken once all is restored."""
_STEP = 7_919
"""From one event's order to the next one's: all over the state, and as many in each partition."""


async def measure(bench: Bench, x: float) -> list[Point]:
    """Restores, and then takes events: a point of each."""
    settings = await bench.brokers.topics()
    await run("restoring:fill", {"settings": settings, "orders": int(x)}, WITHIN_S)
    async with Process("tests.scale.orders:worker", {"settings": settings}) as process:
        restored = await process.hear(WITHIN_S)
        async with visible_at_once(settings, _events(int(x)), PARTITIONS):
            process.go()
        taken = await process.hear(WITHIN_S)
    taken |= {"memory_mb": restored["memory_mb"]}
    return [point(x, int(x), restored, series="restored"), point(x, EVENTS, taken, series="events taken then")]


def _events(orders: int) -> Iterator[tuple[int, bytes]]:
    """A changed address each."""
    for count in range(EVENTS):
        number = count * _STEP % orders
        yield number, list(history(2, number, 2))[1]


async def worker(line: Line, settings: dict[str, Any]) -> None:
    """Sends nothing. Says what it took to restore, and then to take all events."""
    serving = kafka_worker(settings, "http://127.0.0.1", "bench", sending=False)
    calm()
    meter = Meter()
    await serving.start()
    await serving.serving()
    line.say(meter.read())
    await line.wait()
    meter = Meter()
    each = EVENTS // PARTITIONS
    await until(lambda: min(view.next_offset for view in serving.status().partitions) >= each, every_s=0.02)
    line.say(meter.read())
    await asyncio.Event().wait()


AXIS = Axis(
    name="orders",
    title="Orders in the state of one worker",
    unit="orders",
    item="order restored, or event taken then",
    what=f"orders of three lines in the state topic of a worker that was killed, {PARTITIONS} partitions, restored by a new "
    f"one that sends nothing; then {EVENTS:,} events of them, visible at one moment",
    points=(10_000, 100_000, 1_000_000),
    quick=(2_000, 20_000),
    measure=measure,
    bends="what bends first is memory, at about as many bytes as the records have: give the process that much, or "
    '`[store] kind = "disk"`; a restart takes as long as reading the state does, and more workers share it',
    rounds=1,
)
