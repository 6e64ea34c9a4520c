"""Tables that outlive their process: what is continued, what is thrown away, and what follows when a disk fails."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import state
from schemas.state import OrderRecord
from tests.contract.tables import FILES, OPENED, ORIGIN, SetClock, at_once, closed, memory_files
from worker.errors import ConfigError, StoreError
from worker.ports import Files, Recalled
from worker.sim.files import Disk, MemoryFiles
from worker.store import disk, tables
from worker.store.disk import CHECKPOINT, DiskOrders
from worker.store.memory import MemoryOrders
from worker.store.rocks import RocksFiles
from worker.store.tables import DiskTables

__all__ = ["closed"]  # a fixture

Make = Callable[[], Files]
each_disk = pytest.mark.parametrize("make", FILES)

SETTLED = state.encode(OrderRecord(revision=1, acked=1))
OWED = state.encode(OrderRecord(revision=2, acked=1))


def tables_on(files: Files, clock: SetClock | None = None, failures: list[str] | None = None) -> DiskTables:
    """Those of one process."""
    counted = [] if failures is None else failures
    return DiskTables(files, clock or SetClock(), 2_000, counted.append)


async def filled(files: Files, clock: SetClock | None = None, position: int | None = 100) -> None:
    """A process has left 200 orders, every tenth of them owed, as of offset 100; `None`: it did not come to that."""
    left = tables_on(files, clock)
    table = (await left.recall(ORIGIN)).table
    for number in range(200):
        table.put(f"acme/{number}", OWED)
    for number in range(200):
        table.put(f"acme/{number}", OWED if number % 10 == 0 else SETTLED)
    table.delete("acme/199")
    table.note(b"m:next", b"next")
    table.note(b"j:acme:report", b"old")
    table.note(b"j:acme:report", b"new")
    table.note(b"c:1.1", b"gone")
    table.note(b"c:1.1", None)
    if position is not None:
        table.checkpoint(position)
    await table.close()


async def recalled(files: Files, **members: Any) -> Recalled:
    """What another process finds."""
    return await tables_on(files).recall(msgspec.structs.replace(ORIGIN, **members))


@each_disk
async def test_table_is_continued(make: Make) -> None:
    """With its orders, their marks, their counts and all other records, from its position on."""
    files = make()
    await filled(files)
    found = await recalled(files)
    table = found.table
    assert found.position == 100
    assert found.notes == {b"m:next": b"next", b"j:acme:report": b"new"}
    assert len(table) == 199
    assert sorted(dict(table.items())) == sorted(f"acme/{number}" for number in range(199))
    assert dict(table.unsettled(900_000)) == {f"acme/{number}": OWED for number in range(0, 200, 10)}
    assert list(table.accounts()) == [("acme", 199)]
    assert (table["acme/10"], table["acme/11"], table.get("acme/199")) == (OWED, SETTLED, None)


@each_disk
async def test_what_comes_after_a_checkpoint_may_be_in_it(make: Make) -> None:
    """Rows may be newer than the checkpoint says: what is applied again comes to the same, counts included."""
    files = make()
    await filled(files)
    after = [("acme/10", SETTLED), ("acme/new", OWED), ("acme/11", None), ("acme/11", OWED)]

    def apply(table: Any) -> None:
        for subject, value in after:
            if value is None:
                table.delete(subject)
            else:
                table.put(subject, value)

    ahead = await recalled(files)
    apply(ahead.table)
    await ahead.table.close()  # without a checkpoint
    found = await recalled(files)
    assert (found.position, len(found.table)) == (100, 200)
    apply(found.table)
    assert len(found.table) == len(list(found.table.subjects())) == 200
    assert {"acme/new", "acme/11"} <= set(dict(found.table.unsettled(900_000)))
    assert "acme/10" not in dict(found.table.unsettled(900_000))


@each_disk
async def test_table_without_a_checkpoint_is_thrown_away(make: Make) -> None:
    """A restore that did not come to its end."""
    files = make()
    await filled(files, position=None)
    found = await recalled(files)
    assert (found.position, len(found.table), found.notes, list(found.table.items())) == (0, 0, {}, [])


@each_disk
@pytest.mark.parametrize(
    "members",
    [{"topic_id": "topic-2"}, {"cluster": "other"}, {"topic_epoch": 1}, {"topic_id": ""}],
    ids=lambda members: next(iter(members)),
)
async def test_copy_of_something_else_is_thrown_away(make: Make, members: dict[str, Any]) -> None:
    """Another topic or epoch, or nobody knows which."""
    files = make()
    await filled(files)
    found = await recalled(files, **members)
    assert (found.position, len(found.table), list(found.table.subjects())) == (0, 0, [])


async def test_copy_of_another_partition_is_thrown_away() -> None:
    """Somebody has moved folders."""
    machine = Disk()
    await filled(MemoryFiles(machine, "w", at_once))
    machine.partitions[4] = machine.partitions.pop(3)
    found = await recalled(MemoryFiles(machine, "w", at_once), partition=4)
    assert (found.position, len(found.table)) == (0, 0)


@each_disk
@pytest.mark.parametrize(("module", "name"), [(disk, "FORMAT"), (state, "SCHEMA")])
async def test_copy_of_another_version_is_thrown_away(
    make: Make, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may mean something else."""
    files = make()
    with monkeypatch.context() as patch:
        patch.setattr(module, name, 99)
        await filled(files)
    assert (await recalled(files)).position == 0


@pytest.mark.parametrize(
    ("later_s", "is_continued"),
    [(0, True), (23 * 3600, True), (25 * 3600, False), (-200, True), (-3600, False)],
)
async def test_old_copy_is_thrown_away(later_s: float, is_continued: bool) -> None:
    """What was deleted since might be missed; by a clock that may have been set."""
    files, clock = memory_files(), SetClock()
    await filled(files)
    clock.seconds = later_s
    found = await tables_on(files, clock).recall(ORIGIN)
    assert (found.position == 100) is is_continued


async def test_checkpoint_that_is_none_is_thrown_away() -> None:
    """Whoever wrote it."""
    files = memory_files()
    await filled(files)
    files.open(3).write([(CHECKPOINT, b"\xc1")])
    assert (await recalled(files)).position == 0


@pytest.mark.parametrize("part", ["*.sst", "*.log", "MANIFEST-*", "CURRENT"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
async def test_damaged_files(part: str, how: str) -> None:
    """Whatever is wrong with a file: the copy is thrown away, or it is continued with what it had up to some point, or
    reading raises. It never says what was not written.
    """
    folder = OPENED.folder()
    written: set[bytes | None] = {SETTLED, OWED, None}
    files = RocksFiles(folder)
    await filled(files)
    (await recalled(files)).table.put("acme/after", OWED)
    files.unlock()
    found = list((folder / "partition-3").glob(part))
    assert found
    for file in found:
        _damage(file, how)
    files = RocksFiles(folder)
    OPENED.stack.callback(files.unlock)
    again = await recalled(files)
    with suppress(StoreError):
        assert {again.table.get(f"acme/{number}") for number in range(200)} <= written
        assert again.position in (0, 100)
        assert len(again.table) == len(list(again.table.items())) == (199 if again.position else 0)
    assert (await tables_on(files).recall(ORIGIN)).table is not None
    await again.table.close()


def _damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    middle = len(content) // 2
    match how:
        case "flipped":
            file.write_bytes(
                content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :] if content else b"x"
            )
        case "cut":
            file.write_bytes(content[:middle])
        case "gone":
            file.unlink()


@each_disk
async def test_table_of_the_same_process_is_closed_first(make: Make) -> None:
    """A partition that comes back after long: what was put is not lost, and the database is not open twice."""
    mine = tables_on(make())
    before = (await mine.recall(ORIGIN)).table
    before.put("acme/1", OWED)
    before.checkpoint(7)
    found = await mine.recall(ORIGIN)
    assert (found.position, found.table["acme/1"]) == (7, OWED)
    with pytest.raises(StoreError):
        before.get("acme/2")
    await mine.stop()


@each_disk
async def test_second_worker_is_refused(make: Make) -> None:
    """With the number of the process that is there."""
    folder = OPENED.folder()
    machine = Disk()
    is_rocks = isinstance(make(), RocksFiles)

    def worker(name: str) -> Files:
        files = RocksFiles(folder) if is_rocks else MemoryFiles(machine, name, at_once)
        OPENED.stack.callback(files.unlock)
        return files

    first, second = worker("w1"), worker("w2")
    tables_on(first).start()
    with pytest.raises(ConfigError, match="used by another worker"):
        tables_on(second).start()
    first.unlock()
    tables_on(worker("w3")).start()


def test_folder_that_cannot_be_used() -> None:
    """It says so at the start."""
    file = OPENED.folder() / "file"
    file.touch()
    files = RocksFiles(file)
    OPENED.stack.callback(files.unlock)
    with pytest.raises(ConfigError, match="cannot be used"):
        files.lock()


async def test_full_disk_stops_nothing() -> None:
    """What changes stays in memory, and is written once the disk takes it."""
    machine, clock, failures = Disk(), SetClock(), list[str]()
    files = MemoryFiles(machine, "w", at_once)
    await filled(files)
    table = (await tables_on(files, clock, failures).recall(ORIGIN)).table
    machine.is_full = True
    for number in range(100):
        table.put(f"acme/{number}", OWED)
        table.checkpoint(101 + number)
        await asyncio.sleep(0)
    assert failures == ["write"]  # it is not tried each time
    assert all(table.get(f"acme/{number}") == OWED for number in range(100))
    assert dict(table.items())["acme/150"] == OWED
    machine.is_full = False
    clock.seconds += disk.RETRY_S
    table.checkpoint(300)
    await table.close()
    found = await recalled(files)
    assert (found.position, found.table["acme/99"], len(found.table)) == (300, OWED, 199)


async def test_disk_that_cannot_be_read() -> None:
    """Who watches is told once, the table is of no use, and the next one begins anew; after another failure in memory."""
    machine, failures, told = Disk(), list[str](), list[Exception]()
    files = MemoryFiles(machine, "w", at_once)
    await filled(files)
    mine = tables_on(files, None, failures)
    for _ in range(tables.FAILURES_MAX):
        table = (await mine.recall(ORIGIN)).table
        assert isinstance(table, DiskOrders)
        table.watch(told.append)
        machine.partitions[3].is_damaged = True
        for _ in range(2):
            with pytest.raises(StoreError):
                table.get("acme/1")
            with pytest.raises(StoreError):
                await table.fetch(["acme/2"])
            with pytest.raises(StoreError):
                list(table.subjects(0.5))
    assert (failures, len(told)) == (["read", "read"], 2)
    found = await mine.recall(ORIGIN)
    assert isinstance(found.table, MemoryOrders)
    assert found.position == 0


async def test_copy_that_contradicts_the_topic() -> None:
    """It is of no use if an earlier process filled it; if we did, the disk is not to blame."""
    files = memory_files()
    await filled(files)
    mine = tables_on(files)
    table = (await mine.recall(ORIGIN)).table
    assert isinstance(table.distrust("as tested"), StoreError)
    with pytest.raises(StoreError):
        table.get("acme/1")
    found = await mine.recall(ORIGIN)
    assert (found.position, found.table.get("acme/1")) == (0, None)
    assert found.table.distrust("as tested") is None


@each_disk
async def test_writing_keeps_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be written is bounded while very much is put."""
    monkeypatch.setattr(disk, "_WAITING_MAX_BYTES", 1_000)
    table = (await tables_on(make()).recall(ORIGIN)).table
    assert isinstance(table, DiskOrders)
    most = 0
    for number in range(500):
        table.put(f"acme/{number}", SETTLED)
        await table.keep_up()
        most = max(most, table._waiting.size)
    assert most < 100_000
    await table.close()


async def test_memory_has_nothing_to_keep() -> None:
    """All that is for the disk does nothing."""
    table = MemoryOrders()
    table.note(b"m:next", b"")
    table.checkpoint(7)
    await table.keep_up()
    table.watch(lambda _error: None)
    assert (table.distrust("as tested"), table.is_usable()) == (None, True)
    await table.close()


@each_disk
async def test_cache_is_shared_by_partitions(make: Make) -> None:
    """It is for all of them together, however many there are now."""
    mine = DiskTables(make(), SetClock(), 2**20)
    found = [(await mine.recall(msgspec.structs.replace(ORIGIN, partition=number))).table for number in range(4)]
    assert mine.on_disk() == 4
    for table in found:
        for number in range(2_000):
            table.put(f"acme/{number}", b"x" * 1_000)
        assert isinstance(table, DiskOrders)
        assert table._young_bytes < 2**20 / 4 / 2 + 2_000
    await found[0].close()
    assert mine.on_disk() == 3
    await mine.stop()
    assert mine.on_disk() == 0
