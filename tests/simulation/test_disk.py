"""Workers with their orders on disks that are slow, full, broken, lose what was written last, or are put back."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.simulation.breaks import broken
from tests.simulation.broken_disk import breaks
from tests.simulation.disk import DiskFaults
from tests.simulation.faults import Plan
from tests.simulation.simulation import simulate
from tests.simulation.stage import Stage, play
from tests.simulation.trace import ViolationError
from worker.app import Worker
from worker.errors import ConfigError, StoreError
from worker.ports import Files
from worker.sim.files import Disk, DiskPartition, MemoryFiles
from worker.store.disk import DiskOrders
from worker.store.tables import DiskTables

SEEDS = {
    "rows_written_after_their_checkpoint": 0,
    "failed_write_forgotten": 0,
    "owed_orders_not_marked": 0,
    "unreadable_order_taken_for_none": 22,
    "unreadable_orders_fetched_for_none": 1,
    "position_beyond_the_copy": 0,
    "old_order_left_in_the_cache": 0,
}
"""A seed that shows the break soon."""
OTHERS = range(200)
"""In case that the code has changed so much that it does no more."""


def test_orders_are_told_whatever_goes_wrong_with_disks(seed: int) -> None:
    """As without them; and in the end, what is on a disk is what the state topic says."""
    simulate(seed, on_disk=True)


def test_seed_repeats() -> None:
    """Disks are drawn from the seed, too."""
    assert simulate(3, on_disk=True).hash == simulate(3, on_disk=True).hash


def test_breaks_are_listed() -> None:
    """Each has a seed."""
    assert SEEDS.keys() == breaks.keys()


@pytest.mark.parametrize("name", SEEDS)
def test_break_is_noticed(name: str) -> None:
    """Otherwise a rule would be there that nothing holds."""
    for seed in (SEEDS[name], *OTHERS):
        try:
            with broken(breaks[name]):
                simulate(seed, on_disk=True, adjust=_harsh)
        except ViolationError:
            return
    pytest.fail(f"no seed shows {name}")


def _harsh(plan: Plan) -> None:
    """Everything goes wrong with disks, and often."""
    plan.disk = DiskFaults(slowness_s=0.05, refusals=0.05, damages=0.01, full=0.01, losses=1.0, older=0.3)
    plan.weights |= {"crash": 3.0, "restart": 3.0}
    plan.gap_s = 10.0


# --- step by step ----------------------------------------------------------------------------------------------------


class CrashError(Exception):
    """The process ends here."""


def files_that_crash(disk: Disk, process: str, at: int, on_crash: Callable[[], None]) -> Files:
    """From this step of the disk on nothing happens any more."""
    steps = 0

    async def step(_what: str) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            on_crash()
        if steps >= at:
            raise StoreError("the process is gone")
        await asyncio.sleep(0.01)

    return MemoryFiles(disk, process, step)


def worker_on(stage: Stage, name: str, files: Files) -> Worker:
    """With a cache that holds next to nothing."""
    return stage.worker(name, tables=DiskTables(files, stage.clock, 2))


def orders_of(worker: Worker) -> dict[str, bytes]:
    """Of partition 0, as the worker has them."""
    return dict(worker._assignment.owners[0].workload.orders.items())


def orders_in_topic(stage: Stage) -> dict[str, bytes]:
    """Of partition 0."""
    found = {entry.key: entry.value for entry in stage.log.entries(0) if entry.key.startswith(b"o:")}
    return {key[2:].decode(): value for key, value in found.items() if value is not None}


async def never(_what: str) -> None:
    """A disk on which nothing goes wrong."""
    await asyncio.sleep(0)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_crash_at_every_step_of_the_disk(lost: int) -> None:
    """Whatever it was at, and whatever of the last writes is lost: the next process has what the topic says, and reads no
    more of it than it has to.
    """
    reached, continued = 0, 0

    async def story(stage: Stage, at: int) -> bool:
        nonlocal continued
        disk, crashed = Disk(), asyncio.Event()
        worker = worker_on(stage, "w1", files_that_crash(disk, "w1", at, crashed.set))
        await worker.start()
        for number in range(4):
            stage.tell_shipped(f"A{number}")
            with suppress(TimeoutError):
                await asyncio.wait_for(crashed.wait(), 1.0)
        has_crashed = crashed.is_set()
        stage.log.crash("w1")
        await worker.kill()
        stage.log.expel("w1")
        disk.owner = ""
        for number, here in disk.partitions.items():
            disk.partitions[number] = DiskPartition(here.batches[: len(here.batches) - lost])
        stage.tell_shipped("A4")
        again = worker_on(stage, "w2", MemoryFiles(disk, "w2", never))
        await again.start()
        await again.serving()
        table = again._assignment.owners[0].workload.orders
        assert isinstance(table, DiskOrders)
        continued += table._is_continued
        await asyncio.sleep(120.0)
        assert orders_of(again) == orders_in_topic(stage)
        assert len(table) == len(orders_in_topic(stage)) == 5
        assert again.is_idle()
        await again.stop()
        return has_crashed

    for at in range(1, 200):
        outcome: list[bool] = []

        async def one(stage: Stage, at: int = at, outcome: list[bool] = outcome) -> None:
            outcome.append(await story(stage, at))

        play(one)
        if not outcome[0]:
            break
        reached = at
    assert reached > 15
    assert continued > 5


def test_two_workers_on_one_folder() -> None:
    """The second one does not start, and the first one does not notice."""

    async def story(stage: Stage) -> None:
        disk = Disk()
        first = worker_on(stage, "w1", MemoryFiles(disk, "w1", never))
        await first.start()
        await first.serving()
        with pytest.raises(ConfigError, match="used by another worker"):
            await worker_on(stage, "w2", MemoryFiles(disk, "w2", never)).start()
        stage.tell_shipped("A1")
        await asyncio.sleep(1.0)
        assert orders_of(first) == orders_in_topic(stage)
        await first.stop()
        second = worker_on(stage, "w2", MemoryFiles(disk, "w2", never))
        await second.start()
        await second.serving()
        assert orders_of(second) == orders_in_topic(stage)
        await second.stop()

    play(story)


def test_older_copy_that_is_put_back() -> None:
    """It is continued from where it was: the topic has the rest."""

    async def story(stage: Stage) -> None:
        disk, copies = Disk(), dict[int, DiskPartition]()
        for name in ("w1", "w2", "w3"):
            if name == "w3":
                disk.partitions = copies
            worker = worker_on(stage, name, MemoryFiles(disk, name, never))
            await worker.start()
            await worker.serving()
            stage.tell_shipped(name)
            await asyncio.sleep(1.0)
            assert orders_of(worker) == orders_in_topic(stage)
            await worker.stop()
            if name == "w1":
                copies = {number: DiskPartition(list(here.batches)) for number, here in disk.partitions.items()}

    play(story)


def test_copy_of_a_topic_that_was_made_again() -> None:
    """Orders of the past must not come back."""

    async def story(stage: Stage) -> None:
        disk = Disk()
        first = worker_on(stage, "w1", MemoryFiles(disk, "w1", never))
        await first.start()
        await first.serving()
        stage.tell_shipped("A1")
        await asyncio.sleep(1.0)
        await first.kill()
        stage.log.crash("w1")
        stage.log.expel("w1")
        disk.owner = ""
        stage.log.remake_states()
        stage.log.broker.state_topic_id += "again"
        second = worker_on(stage, "w2", MemoryFiles(disk, "w2", never))
        with suppress(Exception):
            await second.start()
            await second.serving()
        assert not any(len(owner.workload.orders) for owner in second._assignment.owners.values())
        await second.kill()

    play(story)


@pytest.mark.parametrize("how", ["damaged", "ahead"])
def test_disk_that_fails_while_it_is_served(how: str) -> None:
    """The partition is restored from Kafka, and goes on."""

    async def story(stage: Stage) -> None:
        disk = Disk()
        worker = worker_on(stage, "w1", MemoryFiles(disk, "w1", never))
        await worker.start()
        await worker.serving()
        for number in range(20):
            stage.tell_shipped(f"A{number}")
        await asyncio.sleep(30.0)
        assert worker.is_idle()
        before = worker._assignment.owners[0]
        if how == "damaged":
            disk.partitions[0].is_damaged = True
        else:
            before.workload.orders.distrust = StoreError  # type: ignore[method-assign, assignment]
            before.fail(StoreError("as if it had been found out"))
        for number in range(20):
            stage.tell_shipped(f"A{number}", units=1)
        stage.tell_shipped("B")
        await asyncio.sleep(60.0)
        assert worker._assignment.owners[0] is not before
        assert orders_of(worker) == orders_in_topic(stage)
        assert len(orders_of(worker)) == 21
        await worker.stop()

    play(story)
