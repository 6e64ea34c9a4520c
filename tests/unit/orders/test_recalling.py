"""What an owner of orders starts from."""

import asyncio
from typing import Any, cast

import pytest

from schemas import state
from schemas.state import Deployment, NextRecord, Target, TargetsRecord
from tests.contract.tables import SetClock, at_once
from worker.core.policy import DeliveryPolicy
from worker.metrics import Metrics
from worker.orders.context import OrderContext
from worker.orders.loading import Kept
from worker.orders.recalling import Recalling
from worker.ownership.context import BatchLimits, Warm
from worker.sim.files import Disk, MemoryFiles
from worker.store.disk import DiskOrders
from worker.store.memory import MemoryOrders
from worker.store.tables import DiskTables

NEXT = NextRecord(state.SCHEMA, 7, 0, clean=True, version="0")
TARGETS = {"acme": Target("sequra", "https://provider.example", "acme")}


def context() -> OrderContext:
    """Of a worker that knows its topics."""
    nobody = cast(Any, None)
    return OrderContext(
        owner_id="w",
        version="0",
        rules=DeliveryPolicy(),
        limits=BatchLimits(),
        clock=SetClock(),
        events=nobody,
        dispatcher=nobody,
        destinations={},
        metrics=Metrics(),
        make_table=lambda _partition: MemoryOrders(),
        deployment=Deployment(cluster="cluster", state_topic_id="topic"),
    )


def tables_on(disk: Disk) -> DiskTables:
    """Those of one process."""
    return DiskTables(MemoryFiles(disk, "w", at_once), SetClock(), 10_000)


async def leave(tables: DiskTables, *, following: bytes = state.encode(NEXT)) -> None:
    """A process has served partition 0, and is gone."""
    warm = await Recalling(context(), tables).recall(0, None)
    assert warm is not None
    assert (warm.position, warm.next, len(warm.kept.table)) == (0, None, 0)
    table = warm.kept.table
    table.put("acme/1", b"order")
    for key, value in (
        (state.NEXT_KEY, following),
        (state.TARGETS_KEY, state.encode(TargetsRecord(state.SCHEMA, TARGETS))),
        (b"j:acme:report", b"job"),
        (b"c:1.1", b"closed"),
    ):
        table.note(key, value)
    table.checkpoint(12)
    await tables.stop()


async def test_memory_is_all_there_is() -> None:
    """Without a disk: what is left in this process, or nothing."""
    recalling = Recalling(context(), None)
    warm = Warm(Kept(MemoryOrders()), 1, None, 0.0)
    assert await recalling.recall(0, warm) is warm
    assert await recalling.recall(0, None) is None
    recalling.forget(warm.kept)


async def test_what_an_earlier_process_has_left() -> None:
    """Orders, whom the accounts told, jobs, what was closed, and how far the input was taken."""
    disk = Disk()
    await leave(tables_on(disk))
    warm = await Recalling(context(), tables_on(disk)).recall(0, None)
    assert warm is not None
    assert (warm.position, warm.next) == (12, NEXT)
    kept = warm.kept
    assert (kept.targets, kept.jobs, kept.closed) == (TARGETS, {"j:acme:report": b"job"}, {"c:1.1": b"closed"})
    assert dict(kept.table.items()) == {"acme/1": b"order"}


@pytest.mark.parametrize("following", [b"\xc1", b"\x91", b""])
async def test_record_that_is_none_of_ours(following: bytes) -> None:
    """The copy is not believed at all."""
    disk = Disk()
    await leave(tables_on(disk), following=following)
    warm = await Recalling(context(), tables_on(disk)).recall(0, None)
    assert warm is not None
    assert (warm.position, warm.next, len(warm.kept.table)) == (0, None, 0)
    assert isinstance(warm.kept.table, DiskOrders)


async def test_what_is_left_in_this_process_goes_first() -> None:
    """Unless its table is of no use any more."""
    recalling = Recalling(context(), tables_on(Disk()))
    warm = await recalling.recall(0, None)
    assert warm is not None
    assert await recalling.recall(0, warm) is warm
    await warm.kept.table.close()
    again = await recalling.recall(0, warm)
    assert again is not None
    assert again is not warm


async def test_what_is_forgotten_is_closed() -> None:
    """A partition that left long ago takes no memory."""
    tables = tables_on(Disk())
    recalling = Recalling(context(), tables)
    warm = await recalling.recall(0, None)
    assert warm is not None
    assert tables.on_disk() == 1
    recalling.forget(warm.kept)
    await asyncio.sleep(0.01)
    assert tables.on_disk() == 0
