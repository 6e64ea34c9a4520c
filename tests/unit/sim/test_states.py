"""The state topic in memory: offsets, fencing, open transactions, unknown outcomes, compaction."""

import asyncio
from typing import Any

import pytest

from tests.unit.sim.scene import LETTER, hold, now, play, raising, read, seen
from worker.errors import FencedError, InvariantError, LogError
from worker.ports import PartitionWriter, StateEntry
from worker.sim.log import MemoryLog


def test_marker_takes_offset() -> None:
    """Each transaction takes one offset more than it has records, also an aborted one."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        assert await owner.write([(b"a", b"1"), (b"b", b"2")]) == 1
        assert await owner.write([(b"a", b"3")]) == 3
        log.gate = raising("write:open")
        with pytest.raises(LogError):
            await owner.write([(b"x", b"")])
        log.gate = None
        assert await (await hold(log)).write([(b"a", b"4")]) == 7
        assert seen(log) == [(0, b"a", b"1"), (1, b"b", b"2"), (3, b"a", b"3"), (7, b"a", b"4")]

    play(scene)


def test_open_transaction_blocks_readers() -> None:
    """Readers see nothing beyond the first record of an open transaction, and all of it once it is committed."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        await owner.write([(b"a", b"1")])

        async def slow(op: str, *_: object) -> None:
            await asyncio.sleep(5 if op == "write:open" else 0)

        log.gate = slow
        writing = asyncio.create_task(owner.write([(b"b", b"2"), (b"c", b"3")], [LETTER]))
        await asyncio.sleep(1)
        assert seen(log) == [(0, b"a", b"1")]
        assert log.dead_letters == []
        entries = await read(log.states("w2").partition(0), 0, 3)
        assert now() == 5
        assert [entry.key for entry in entries] == [b"a", b"b", b"c"]
        assert await writing == 3
        assert log.dead_letters == [LETTER]

    play(scene)


def test_fence_aborts_open_transaction() -> None:
    """A new owner's fence aborts what the old one has open: it is fenced when it goes on, and nothing is seen."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        log.freeze("w1")
        writing = asyncio.create_task(owner.write([(b"a", b"stale")], [LETTER]))
        await asyncio.sleep(1)
        new = await hold(log, "w2")
        barrier = await new.write([(b"m:owner", b"w2")])
        log.thaw("w1")
        with pytest.raises(FencedError):
            await writing
        assert await read(new, 0, barrier) == [StateEntry(barrier, b"m:owner", b"w2")]
        assert log.dead_letters == []

    play(scene)


def test_frozen_in_open_transaction() -> None:
    """A process that freezes between its records and its commit is fenced when it thaws."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)

        async def freezing(op: str, *_: object) -> None:
            if op == "write:open":
                log.freeze("w1")

        log.gate = freezing
        writing = asyncio.create_task(owner.write([(b"a", b"stale")]))
        await asyncio.sleep(1)
        log.gate = None
        await hold(log, "w2")
        log.thaw("w1")
        with pytest.raises(FencedError):
            await writing
        assert seen(log) == []

    play(scene)


def test_transaction_that_takes_too_long() -> None:
    """A transaction older than its timeout is aborted and its owner fenced, without anybody else."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)

        async def slow(op: str, *_: object) -> None:
            await asyncio.sleep(60 if op == "write:open" else 0)

        log.gate = slow
        with pytest.raises(FencedError):
            await owner.write([(b"a", b"late")])
        assert seen(log) == []

    play(scene)


def test_left_open_until_timeout() -> None:
    """What a failed write left open holds up readers until it is too old, and then is nothing."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        log.gate = raising("write:open")
        with pytest.raises(LogError):
            await owner.write([(b"a", b"left")])
        assert await read(log.states("w2").partition(0), 0, 1) == []
        assert now() == pytest.approx(60, abs=0.01)

    play(scene)


def test_foreign_transaction_hangs() -> None:
    """A transaction of somebody else is not ended by a fence: the barrier is read when it is over."""

    async def scene(log: MemoryLog) -> None:
        log.hang(0, 22.0)
        owner = await hold(log)
        barrier = await owner.write([(b"m:owner", b"w1")])
        assert seen(log) == []
        assert await read(owner, 0, barrier) == [StateEntry(barrier, b"m:owner", b"w1")]
        assert now() == pytest.approx(22, abs=0.01)

    play(scene)


def test_reader_gives_up() -> None:
    """A reader that gets nowhere for longer than a transaction may last raises."""

    async def scene(log: MemoryLog) -> None:
        log.hang(0, 1e6)
        owner = await hold(log)
        barrier = await owner.write([(b"m:owner", b"w1")])
        with pytest.raises(LogError, match="offset 0 for 75 s"):
            await read(owner, 0, barrier)
        assert now() == pytest.approx(75, abs=0.01)

    play(scene)


def test_reader_is_patient_while_it_gets_on() -> None:
    """Each step forward, also over what was aborted, gives a reader its whole patience again."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        reading = asyncio.create_task(read(log.states("w2").partition(0), 0, 7))
        for _ in range(3):
            await asyncio.sleep(50)
            log.hang(0, 1)
        await asyncio.sleep(50)
        assert await owner.write([(b"a", b"1"), (b"b", b"2")]) == 7
        assert [entry.offset for entry in await reading] == [6, 7]
        assert now() == 200

    play(scene)


def test_read_after_close() -> None:
    """A reader stops when its hold is closed, rather than to wait for what it will not use."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        await owner.write([(b"a", b"1")])
        await owner.close()
        with pytest.raises(LogError, match="close"):
            await read(owner, 0, 0)

    play(scene)


def test_unknown_outcome() -> None:
    """When a write fails after its commit, the records are there, and the hold is over all the same."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        log.gate = raising("write:done")
        with pytest.raises(LogError):
            await owner.write([(b"a", b"1")], [LETTER])
        log.gate = None
        assert seen(log) == [(0, b"a", b"1")]
        assert log.dead_letters == [LETTER]
        with pytest.raises(LogError, match="busy"):
            await owner.write([(b"a", b"2")])

    play(scene)


def test_late_commit() -> None:
    """A commit may still arrive after its writer gave up, but not after the next fence."""

    async def scene(log: MemoryLog) -> None:
        log.gate = raising("write:open")
        for late, expected in ((True, [(0, b"a", b"0")]), (False, [(0, b"a", b"0")])):
            owner = await hold(log)
            assert not log.commit_late(0)
            with pytest.raises(LogError):
                await owner.write([(b"a", str(len(seen(log))).encode())])
            if late:
                assert log.commit_late(0)
            await hold(log)
            assert not log.commit_late(0)
            assert seen(log) == expected

    play(scene)


def test_commit_that_came_through_on_its_own() -> None:
    """A write whose transaction was committed while it waited for the answer succeeds, once."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)

        async def slow(op: str, *_: object) -> None:
            await asyncio.sleep(5 if op == "write:open" else 0)

        log.gate = slow
        writing = asyncio.create_task(owner.write([(b"a", b"1")], [LETTER]))
        await asyncio.sleep(1)
        assert log.commit_late(0)
        assert seen(log) == [(0, b"a", b"1")]
        assert await writing == 0
        assert log.dead_letters == [LETTER]
        assert await owner.write([(b"a", b"2")]) == 2

    play(scene)


def test_failed_before_it_began() -> None:
    """A write or a fence that fails at its gate has no effect, and the hold is over."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        log.gate = raising("write", "fence")
        with pytest.raises(LogError):
            await owner.write([(b"a", b"1")])
        with pytest.raises(LogError):
            await hold(log, "w2")
        other = await _unfenced_by_gate(log)
        assert await other.write([(b"a", b"2")]) == 0

    async def _unfenced_by_gate(log: MemoryLog) -> PartitionWriter:
        log.gate = None
        return await hold(log)

    play(scene)


def test_failed_fence_does_not_fence() -> None:
    """A fence that fails at its gate leaves the owner in place; one whose answer was lost does not."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        for op in ("fence", "fence:done"):
            await owner.write([(b"a", op.encode())])
            log.gate = raising(op)
            with pytest.raises(LogError):
                await hold(log, "w2")
            log.gate = None
        with pytest.raises(FencedError):
            await owner.write([(b"a", b"stale")])

    play(scene)


def test_cancelled_write_ends_hold() -> None:
    """A write that was cancelled on its way leaves its transaction open and the hold over."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)

        async def slow(op: str, *_: object) -> None:
            await asyncio.sleep(5 if op == "write:open" else 0)

        log.gate = slow
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await owner.write([(b"a", b"1")])
        with pytest.raises(LogError):
            await owner.write([(b"a", b"2")])
        assert log.commit_late(0)

    play(scene)


def test_one_write_at_a_time() -> None:
    """A hold has one user: a second write at the same time is refused and harms nothing."""

    async def scene(log: MemoryLog) -> Any:
        owner = await hold(log)
        return await asyncio.gather(owner.write([(b"a", b"1")]), owner.write([(b"b", b"2")]), return_exceptions=True)

    first, second = play(scene)
    assert first == 0
    assert isinstance(second, LogError)


def test_close_during_write() -> None:
    """A write whose hold is closed meanwhile does not pretend to have succeeded."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        writing = asyncio.create_task(owner.write([(b"a", b"1")]))
        await asyncio.sleep(0)
        await owner.close()
        with pytest.raises(LogError, match="closed"):
            await writing

    play(scene)


def test_write_without_entries() -> None:
    """A transaction without entries has no offset to return: the caller has a defect."""

    async def scene(log: MemoryLog) -> None:
        with pytest.raises(InvariantError):
            await (await hold(log)).write([], [LETTER])

    play(scene)


def test_too_large_value_leaves_open() -> None:
    """Records before one that is too large are in the log, unseen, and hold up readers until the next fence."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        assert await owner.write([(b"a", b"x" * 10)]) == 0
        with pytest.raises(LogError, match="above 10 bytes"):
            await owner.write([(b"a", b"2"), (b"b", b"x" * 11), (b"c", b"3")], [LETTER])
        assert seen(log) == [(0, b"a", b"x" * 10)]
        barrier = await (await hold(log)).write([(b"m:owner", b"")])
        assert barrier == 4
        assert log.dead_letters == []

    play(scene, value_max_bytes=10)


# Compaction


def test_compaction_keeps_newest() -> None:
    """Of each key the newest committed entry stays at its offset; aborted ones go, and offsets keep their gaps."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        await owner.write([(b"a", b"1"), (b"b", b"1"), (b"a", b"2")])
        await owner.write([(b"b", None), (b"c", b"1")])
        log.gate = raising("write:open")
        with pytest.raises(LogError):
            await owner.write([(b"c", b"aborted")])
        log.gate = None
        owner = await hold(log)
        log.compact(0)
        assert seen(log) == [(2, b"a", b"2"), (4, b"b", None), (5, b"c", b"1")]
        assert await owner.write([(b"a", b"3")]) == 9
        assert [entry.offset for entry in await read(owner, 0, 9)] == [2, 4, 5, 9]
        assert [entry.offset for entry in await read(owner, 3, 8)] == [4, 5]

    play(scene)


def test_compaction_stays_below_limits() -> None:
    """Compaction touches nothing from an offset on, and nothing beyond the last stable offset."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        for value in (b"0", b"1", b"2"):
            await owner.write([(b"a", value)])
        log.compact(0, before=4)
        assert seen(log) == [(2, b"a", b"1"), (4, b"a", b"2")]
        log.hang(0, 10)
        await owner.write([(b"a", b"3")])
        log.compact(0, before=100)
        log.compact(0)
        await asyncio.sleep(10)
        assert seen(log) == [(4, b"a", b"2"), (7, b"a", b"3")]

    play(scene)


def test_compaction_drops_old_tombstones() -> None:
    """A tombstone goes when it was met by compaction for the first time long enough ago, not before."""

    async def scene(log: MemoryLog) -> None:
        owner = await hold(log)
        await owner.write([(b"a", b"1")])
        await owner.write([(b"a", None)])
        await asyncio.sleep(1_000)
        for waits_s, expected in ((99, [(2, b"a", None)]), (1, [(2, b"a", None)]), (0, [])):
            log.compact(0)
            assert seen(log) == expected
            await asyncio.sleep(waits_s)
        last = await owner.write([(b"b", b"1")])
        assert [entry.key for entry in await read(owner, 0, last)] == [b"b"]

    play(scene, tombstone_s=100)


def test_compaction_under_a_reader() -> None:
    """A reader that is on its way while the log is compacted still ends with the newest of each key."""

    async def scene(log: MemoryLog) -> None:
        owner, last = await hold(log), -1
        for round_ in range(4):
            last = await owner.write([(str(key).encode(), str(round_).encode()) for key in range(700)])
        newest: dict[bytes, bytes | None] = {}
        async for entries in owner.read(0, last):
            newest.update({entry.key: entry.value for entry in entries})
            log.compact(0)
        assert newest == {str(key).encode(): b"3" for key in range(700)}

    play(scene)
