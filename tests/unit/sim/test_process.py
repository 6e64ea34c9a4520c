"""Processes at the in-memory log: frozen, crashed, alive again, stopped at every step."""

import asyncio

import pytest

from tests.unit.sim.scene import Member, hold, join, now, play, read, seen
from worker.errors import LogError
from worker.sim.log import MemoryLog
from worker.sim.loop import run
from worker.sim.process import Broadcast


def test_frozen_process_does_nothing() -> None:
    """Every operation of a frozen process waits for its thaw, those of others do not."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        owner = await hold(log, "w1", 1)
        assert await owner.write([(b"a", b"0")]) == 0
        log.freeze("w1")
        passed: list[str] = []

        async def gate(op: str, member: str, _: int) -> None:
            passed.append(f"{member} {op}")

        log.gate = gate
        waiting = [
            asyncio.create_task(operation)
            for operation in (
                *(owner.write([(b"a", b"1")]), log.states("w1").partition(0).fence(), read(owner, 0, 0)),
                *(member.offsets(), member.events.commit_group({0: 1}), member.events.start_offset(0, latest=True)),
                *(member.events.group_offset(0), log.states("w1").start()),
            )
        ]
        await asyncio.sleep(100)
        assert passed == []
        assert not any(task.done() for task in waiting)
        assert seen(log, 1) == [(0, b"a", b"0")]
        await (await hold(log, "w2")).write([(b"b", b"2")])
        log.thaw("w1")
        await asyncio.wait(waiting)
        assert waiting[0].result() == 2

    play(scene)


def test_crashed_process_has_no_effect() -> None:
    """Nothing that a crashed process still does has an effect, and its end is silent."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        owner = await hold(log, "w1")
        log.freeze("w1")
        writing = asyncio.create_task(owner.write([(b"a", b"1")]))
        await asyncio.sleep(1)
        log.crash("w1")
        log.freeze("w1")
        for attempt in (writing, owner.write([(b"a", b"1")]), read(owner, 0, 0), member.offsets()):
            with pytest.raises(LogError):
                await attempt
        assert not await member.events.commit_group({0: 1})
        await owner.close()
        await member.events.stop()
        assert seen(log) == []
        other = await join(log, "w2")
        assert now() == pytest.approx(1 + 45, abs=0.01), "it has not left the group"
        assert other.told[-1][2] == {0, 1, 2, 3}
        assert await other.events.group_offset(0) is None

    play(scene)


def test_crash_in_open_transaction() -> None:
    """What a process had open when it crashed is aborted by its successor, or by time."""

    async def scene(log: MemoryLog) -> None:
        async def crashing(op: str, *_: object) -> None:
            if op == "write:open":
                log.crash("w1")

        owner = await hold(log)
        log.gate = crashing
        with pytest.raises(LogError, match="crashed"):
            await owner.write([(b"a", b"1")])
        log.gate = None
        new = await hold(log, "w1")
        assert await new.write([(b"b", b"2")]) == 2
        assert seen(log) == [(2, b"b", b"2")]

    play(scene)


def test_crash_ends_the_listener() -> None:
    """A listener that is in the middle of a revocation when its process crashes does not come to its end."""

    async def scene(log: MemoryLog) -> list[str]:
        done: list[str] = []

        class Slow(Member):
            async def revoked(self, partitions: set[int]) -> None:
                await super().revoked(partitions)
                done.extend("revoked" for _ in partitions)

        member = Slow(log.events("w1"), revoke_s=5)
        await member.events.start(member)
        joining = asyncio.create_task(join(log, "w2"))
        await asyncio.sleep(1)
        log.crash("w1")
        await joining
        return done

    assert play(scene) == []


def test_next_life_of_a_process() -> None:
    """A process lives again under its name; expelled is then its former life."""

    async def scene(log: MemoryLog) -> None:
        await join(log, "w1")
        log.crash("w1")
        joining = asyncio.create_task(join(log, "w1"))
        await asyncio.sleep(10)
        assert not joining.done()
        log.expel("w1")
        again = await joining
        assert again.told[-1] == (10, "assigned", {0, 1, 2, 3})
        assert await again.events.commit_group({0: 0})
        log.expel("w1")
        assert not await again.events.commit_group({0: 0})

    play(scene)


def test_gate_sees_every_step() -> None:
    """The gate is asked before and after each operation, with the process and the partition."""

    async def scene(log: MemoryLog) -> list[tuple[str, str, int]]:
        steps: list[tuple[str, str, int]] = []

        async def gate(op: str, member: str, partition: int) -> None:
            steps.append((op, member, partition))

        log.gate = gate
        owner = await hold(log, "w1", 2)
        await owner.write([(b"a", b"1")])
        await read(owner, 0, 0)
        await owner.close()
        member = await join(log, "w2")
        await member.offsets()
        await member.events.commit_group({0: 0})
        await member.events.stop()
        return steps

    steps = play(scene)
    assert steps[:7] == [
        *(("fence", "w1", 2), ("fence:done", "w1", 2), ("write", "w1", 2), ("write:open", "w1", 2)),
        *(("write:done", "w1", 2), ("read", "w1", 2), ("close", "w1", 2)),
    ]
    assert [op for op, member, partition in steps[7:] if (member, partition) == ("w2", -1)] == [
        *("start", "revoke", "join", "join:done", "poll", "poll:done"),
        *("commit_group", "commit_group:done", "stop"),
    ]


def test_bell_lets_time_pass() -> None:
    """Waiting for no time takes some: whoever waits for the rest of a time comes to its end."""

    async def main() -> float:
        for _ in range(10):
            await Broadcast().wait(-1)
        return now()

    assert 0 < run(main()) < 1
