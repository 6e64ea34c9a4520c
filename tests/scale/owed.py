"""Orders that are owed when a worker takes over from one that was killed."""

import asyncio
from typing import Any

from tests.bench.processes import Line, Process, calm, run, until
from tests.scale.joining import kafka_worker
from tests.scale.measuring import Axis, Bench, Point
from tests.scale.metering import Meter
from tests.scale.settling import WITHIN_S, point
from tests.shops.load import PARTITIONS

SETTINGS = {"attempt_deadline": "2s", "lease": "8s", "settle": "20s"}
"""A hold of 29 s after the takeover instead of 51 s."""
_JUDGED_FOR_S = 1.0
"""All that is owed was evaluated when nothing more is due for so long."""


async def measure(bench: Bench, x: float) -> list[Point]:
    """Restores and evaluates; then, the hold being over, sends: a point of each."""
    settings = await bench.brokers.topics()
    async with Process("sending:server", {}, measured=False) as server:
        base_url = await server.hear()
        arguments = {"settings": settings, "orders": int(x), "owed_each": 1, "base_url": base_url}
        await run("restoring:fill", arguments, WITHIN_S)
        async with Process("tests.scale.owed:worker", {"settings": settings, "base_url": base_url}) as process:
            restored, sent = await process.hear(WITHIN_S), await process.hear(WITHIN_S)
    return [point(x, int(x), restored, series="restored and judged"), point(x, int(x), sent, series="then sent")]


async def worker(line: Line, settings: dict[str, Any], base_url: str) -> None:
    """Says what it took until all is evaluated, and from the end of the hold until all is acknowledged."""
    serving = kafka_worker(settings, base_url, "bench", **SETTINGS)
    clock = asyncio.get_running_loop().time
    calm()
    meter = Meter()
    await serving.start()
    await serving.serving()
    outboxes = [workload.outbox for workload in serving._workloads()]

    def next_due() -> float:
        return min(outbox.next_due() for outbox in outboxes)

    await until(lambda: next_due() > clock() + _JUDGED_FOR_S, every_s=0.01)
    line.say(meter.read())
    # A machine that is busy with other work may have outlived the hold, and sent what it judged.
    await until(lambda: next_due() <= clock() or serving.is_idle(), every_s=0.01)
    meter = Meter()
    await until(serving.is_idle, every_s=0.01)
    line.say(meter.read())
    await asyncio.Event().wait()


AXIS = Axis(
    name="owed",
    title="Orders owed at a takeover",
    unit="orders",
    item="order",
    what=f"orders in the state topic of a worker that was killed, all of them owed, {PARTITIONS} partitions: restored and "
    "evaluated, though they have to be held; then sent to a local server (the hold itself is not counted)",
    points=(2_000, 20_000, 200_000),
    quick=(1_000, 4_000),
    measure=measure,
    bends="nothing bends, for all of it is done in slices between which the loop is free; what turns is how long the "
    "provider is behind: more slots (`concurrency`) and more workers",
    rounds=1,
)
