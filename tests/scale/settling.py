"""A worker that finds orders owed on an embedded log, from its start until all are acknowledged: what several axes
measure, each with other orders, accounts or providers.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from schemas.state import OrderRecord
from tests.bench.owed import worker_with
from tests.bench.processes import Process, calm, run, until
from tests.scale.measuring import Point
from tests.scale.metering import Meter, Reading
from worker.model.account import Account

WITHIN_S = 900.0
"""For one answer of a measured process: a machine that is busy with other work takes ten times as long."""


async def settle(accounts: Mapping[str, Account], owed: Iterable[tuple[int, str, OrderRecord]]) -> Reading:
    """The child's side: what it took."""
    worker = await worker_with(accounts, owed)
    calm()
    meter = Meter()
    await worker.start()
    await worker.serving()
    await until(worker.is_idle, every_s=0.02)
    return meter.read()


async def settled(target: str, arguments: dict[str, Any], after_s: float = 0.0) -> Reading:
    """What a child took that tells a server of its own, which answers after so long."""
    async with Process("sending:server", {"after_s": after_s}, measured=False) as server:
        reading: Reading = await run(target, {"base_url": await server.hear(), **arguments}, WITHIN_S)
    return reading


def point(x: float, items: int, reading: Reading, *, series: str = "", own: float = 0.0) -> Point:
    """A reading over so many items."""
    return Point(
        x,
        series,
        rate=items / reading["clock_s"],
        cpu_us=1e6 * reading["cpu_s"] / items,
        settle_s=reading["clock_s"],
        memory_mb=reading["memory_mb"],
        lag_ms=reading["lag_ms"],
        own=own,
    )
