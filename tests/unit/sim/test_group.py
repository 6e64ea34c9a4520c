"""The consumer group in memory, with its bad habits, and the event topic."""

import asyncio

import pytest

from tests.unit.sim.scene import Member, hold, join, now, play, raising
from worker.errors import GapError, LogError
from worker.sim.log import MemoryLog
from worker.sim.loop import START_WALL_MS


def test_shares_are_ranges() -> None:
    """Partitions are dealt in ranges that differ by one at most; who is too many gets none and keeps polling."""

    async def scene(log: MemoryLog) -> list[set[int]]:
        members = [await join(log, f"w{number}") for number in range(6)]
        assert await members[5].offsets() == {}
        await asyncio.sleep(1)
        return [member.told[-1][2] for member in members]

    assert play(scene, partitions=5) == [{0}, {1}, {2}, {3}, {4}, set()]
    assert play(scene, partitions=8) == [{0, 1}, {2, 3}, {4}, {5}, {6}, {7}]


def test_rebalance_waits_for_revocations() -> None:
    """Nobody is assigned anything before everybody has revoked all; meanwhile nothing is delivered."""

    async def scene(log: MemoryLog) -> None:
        first = await join(log, "w1", revoke_s=7)
        joining = asyncio.create_task(join(log, "w2"))
        await asyncio.sleep(1)
        log.append(b"k", b"v", partition=0)
        assert await first.offsets(2) == {}
        assert not joining.done()
        second = await joining
        assert first.told[2:] == [(0, "revoked", {0, 1, 2, 3}), (7, "assigned", {0, 1})]
        assert second.told == [(0, "revoked", set()), (7, "assigned", {2, 3})]
        assert await first.offsets() == {0: [0]}

    play(scene)


def test_slow_revocation_is_left_behind() -> None:
    """Whoever revokes for longer than the rebalance timeout loses its place; it joins again when it polls."""

    async def scene(log: MemoryLog) -> None:
        first = await join(log, "w1", revoke_s=100)
        second = await join(log, "w2")
        assert second.told[-1] == (pytest.approx(45, abs=0.01), "assigned", {0, 1, 2, 3})
        assert not await first.events.commit_group({0: 1})
        await asyncio.sleep(100)
        await asyncio.gather(first.offsets(), second.offsets())
        await asyncio.sleep(1)
        assert first.told[-1][2] | second.told[-1][2] == {0, 1, 2, 3}
        assert len(first.told[-1][2]) == 2

    play(scene)


def test_expelled_while_it_waits() -> None:
    """A member that is expelled while it waits for the others joins the same rebalance again."""

    async def scene(log: MemoryLog) -> None:
        first = await join(log, "w1", revoke_s=7)
        joining = asyncio.create_task(join(log, "w2"))
        await asyncio.sleep(1)
        log.expel("w2")
        second = await joining
        await asyncio.sleep(20)
        assert first.told[2:] == [(0, "revoked", {0, 1, 2, 3}), (7, "assigned", {0, 1})]
        assert second.told[1:] == [(7, "assigned", {2, 3})]

    play(scene)


def test_commits_of_the_past() -> None:
    """Neither an expelled member can commit while the others share anew, nor one that knows the old share."""

    async def scene(log: MemoryLog) -> None:
        first = await join(log, "w1")
        second = await join(log, "w2", revoke_s=10)
        await asyncio.sleep(1)
        log.expel("w1")
        await asyncio.sleep(1)
        assert await second.events.commit_group({2: 1})
        assert not await first.events.commit_group({0: 1})

        async def slow(op: str, member: str, _: int) -> None:
            await asyncio.sleep(5 if (op, member) == ("join:done", "w2") else 0)

        log.gate = slow
        await asyncio.sleep(11)
        assert second.told[-1][1] == "revoked"
        assert not await second.events.commit_group({2: 2})
        await asyncio.sleep(5)
        assert await second.events.commit_group({2: 2})

    play(scene)


def test_no_position_before_seek() -> None:
    """A partition that was only resumed delivers nothing, whatever its position was before the rebalance."""

    async def scene(log: MemoryLog) -> None:
        class Resuming(Member):
            def assigned(self, partitions: set[int]) -> None:
                for partition in partitions:
                    self.events.resume(partition)

        member = Resuming(log.events("w1"))
        await member.events.start(member)
        log.append(b"k", b"v", partition=0)
        assert await member.offsets() == {}
        assert member.events.lag(0) is None
        member.events.seek(0, 0)
        assert await member.offsets() == {0: [0]}
        await join(log, "w2")
        log.append(b"k", b"v", partition=0)
        assert await member.offsets() == {}

    play(scene)


def test_expelled_reads_on_until_it_polls() -> None:
    """An expelled member hears nothing, delivers once more, and only then revokes and joins again."""

    async def scene(log: MemoryLog) -> None:
        first, second = await join(log, "w1"), await join(log, "w2")
        await asyncio.sleep(1)
        log.expel("w1")
        await asyncio.sleep(10)
        assert second.told[-1] == (1, "assigned", {0, 1, 2, 3})
        assert first.told[-1] == (0, "assigned", {0, 1})
        assert not await first.events.commit_group({0: 1})
        assert await second.events.commit_group({0: 2})
        log.append(b"k", b"v", partition=0)
        assert await first.offsets() == await second.offsets() == {0: [0]}
        await asyncio.sleep(1)
        assert first.told[-2:] == [(11, "revoked", {0, 1}), (11, "assigned", {2, 3})]
        assert await first.events.commit_group({2: 1})

    play(scene)


def test_expelled_in_the_dark() -> None:
    """A member whose coordinator is a black hole reads on for long, and learns of its expulsion when that ends."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        log.expel("w1", unaware_s=50)
        for second in range(49):
            log.append(b"k", b"v", partition=0)
            assert await member.offsets(1) == {0: [second]}
            await asyncio.sleep(1)
        assert len(member.told) == 2
        await asyncio.sleep(1)
        await member.offsets(1)
        await asyncio.sleep(1)
        assert [what for _, what, _ in member.told[2:]] == ["revoked", "assigned"]

    play(scene)


def test_frozen_member_is_expelled() -> None:
    """A member that was frozen and expelled gives its old records when it thaws, before its listener is called."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        polling = asyncio.create_task(member.offsets(1))
        await asyncio.sleep(0.5)
        log.freeze("w1")
        log.append(b"k", b"v", partition=3)
        log.expel("w1")
        other = await join(log, "w2")
        await asyncio.sleep(30)
        assert other.told[-1][2] == {0, 1, 2, 3}
        assert len(member.told) == 2
        log.thaw("w1")
        assert await polling == {3: [0]}
        await asyncio.sleep(1)
        assert [what for _, what, _ in member.told[2:]] == ["revoked", "assigned"]
        assert {0, 1, 2, 3} == member.told[-1][2] | other.told[-1][2]

    play(scene)


def test_frozen_member_holds_up_the_others() -> None:
    """A frozen member that nobody expels delays a rebalance until the timeout drops it."""

    async def scene(log: MemoryLog) -> None:
        await join(log, "w1")
        log.freeze("w1")
        other = await join(log, "w2")
        assert other.told[-1] == (pytest.approx(45, abs=0.01), "assigned", {0, 1, 2, 3})
        log.thaw("w1")

    play(scene)


def test_members_come_and_go_at_once() -> None:
    """However members join, leave, freeze and are expelled: in the end all partitions are shared, none twice."""

    async def scene(log: MemoryLog) -> None:
        async def jitter(_op: str, member: str, _partition: int) -> None:
            await asyncio.sleep(len(member) * 0.01)

        log.gate = jitter
        members = await asyncio.gather(*(join(log, "w" * number, revoke_s=number) for number in range(1, 7)))
        log.expel("www")
        log.freeze("wwww")
        joining = asyncio.create_task(join(log, "late"))
        await asyncio.gather(*(member.events.stop() for member in members[:2]))
        late = await joining
        log.thaw("wwww")
        left = [*members[2:], late]
        for _ in range(200):
            await asyncio.gather(*(member.offsets() for member in left))
            await asyncio.sleep(0.5)
        shares = [member.told[-1][2] for member in left]
        assert sorted(partition for share in shares for partition in share) == list(range(12))
        assert {len(share) for share in shares} == {2, 3}

    for seed in range(10):
        play(scene, partitions=12, seed=seed)


def test_commit_group_swallows_faults() -> None:
    """A group commit that fails is a no; the offsets may have been taken all the same."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        for op, expected in (("commit_group", None), ("commit_group:done", 7)):
            log.gate = raising(op)
            assert not await member.events.commit_group({0: 7})
            log.gate = None
            assert await member.events.group_offset(0) == expected

    play(scene)


def test_foreign_partitions() -> None:
    """What is not assigned cannot be sought, and is not committed."""

    async def scene(log: MemoryLog) -> None:
        first, second = await join(log, "w1"), await join(log, "w2")
        await asyncio.sleep(1)
        for use in (first.events.pause, first.events.resume, lambda partition: first.events.seek(partition, 0)):
            with pytest.raises(LogError, match="not assigned"):
                use(3)
        assert await first.events.commit_group({3: 7})  # it is a member all the same
        assert await second.events.group_offset(3) is None
        assert await second.events.commit_group({3: 1})

    play(scene)


def test_failing_listener_is_told() -> None:
    """An error of the listener comes out of the next poll, not into nowhere."""

    async def scene(log: MemoryLog) -> None:
        class Failing(Member):
            async def revoked(self, partitions: set[int]) -> None:
                if partitions:
                    raise ValueError("listener")

        member = Failing(log.events("w1"))
        await member.events.start(member)
        polling = asyncio.create_task(member.offsets(1e6))
        await asyncio.sleep(1)
        joining = asyncio.create_task(join(log, "w2"))
        with pytest.raises(ValueError, match="listener"):
            await polling
        assert now() == 1
        await joining
        assert now() == pytest.approx(46, abs=0.01)

    play(scene)


def test_poll_after_stop() -> None:
    """A poll that waits when its member stops ends, with the error that a later one gets."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        polling = asyncio.create_task(member.offsets(1e6))
        await asyncio.sleep(1)
        await member.events.stop()
        for poll in (polling, member.offsets()):
            with pytest.raises(LogError, match="stopped"):
                await poll
        assert now() == 1

    play(scene)


def test_poll_waits_for_its_time() -> None:
    """A poll without records takes its time and no longer; one with a record takes none."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        assert await member.offsets(2.5) == {}
        assert now() == 2.5
        polling = asyncio.create_task(member.offsets(100))
        await asyncio.sleep(1)
        partition, offset = log.append(b"k", b"v")
        assert await polling == {partition: [offset]}
        assert now() == 3.5
        member.events.pause(partition)
        log.append(b"k", b"v")
        polling = asyncio.create_task(member.offsets(100))
        await asyncio.sleep(1)
        member.events.resume(partition)
        assert await polling == {partition: [offset + 1]}
        polling = asyncio.create_task(member.offsets(100))
        await asyncio.sleep(1)
        member.events.seek(partition, offset)
        assert await polling == {partition: [offset, offset + 1]}
        assert now() == 5.5

    play(scene)


def test_partitions_take_turns() -> None:
    """A partition with many records does not keep others from being delivered."""

    async def scene(log: MemoryLog) -> set[int]:
        member = await join(log, "w1")
        for partition in range(4):
            for _ in range(100):
                log.append(b"k", b"v", partition=partition)
        served: set[int] = set()
        for _ in range(4):
            served |= (await member.events.poll(1, 10)).keys()
        return served

    assert play(scene) == {0, 1, 2, 3}


# The event topic


def test_partition_of_a_key() -> None:
    """A key's partition is its CRC-32; without a key it is the first one, and it can be named."""

    async def scene(log: MemoryLog) -> list[tuple[int, int]]:
        return [log.append(b"123456789", b""), log.append(None, b""), log.append(b"k", b"", partition=3)]

    assert play(scene) == [(0xCBF43926 % 4, 0), (0, 0), (3, 0)]


def test_timestamps() -> None:
    """An event has the clock's time unless it brings one."""

    async def scene(log: MemoryLog) -> list[int]:
        await asyncio.sleep(2)
        log.append(None, b"")
        log.append(None, b"", timestamp_ms=7)
        return [record.timestamp for record in log.records(0)]

    assert play(scene) == [START_WALL_MS + 2_000, 7]


def test_offsets_without_records() -> None:
    """Offsets that were used up by something else are passed over, in the middle and at the end."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        log.skip(0, 3)
        log.append(None, b"")
        log.skip(0, 2)
        log.append(None, b"")
        log.skip(0, 1)
        assert log.end_offset(0) == 8
        assert await member.offsets() == {0: [3, 6]}
        await member.offsets()
        assert member.events.lag(0) == 0
        member.events.seek(0, 5)
        assert await member.offsets() == {0: [6]}
        log.truncate(0, 5)
        assert [record.offset for record in log.records(0)] == [6]
        member.events.seek(0, 4)
        with pytest.raises(GapError):
            await member.offsets()
        log.append(None, b"")
        log.append(None, b"")
        log.skip(0, 5)
        log.append(None, b"")
        member.events.seek(0, 9)
        assert await member.offsets() == {0: [9, 15]}
        member.events.seek(0, 8)
        assert await member.offsets() == {0: [8, 9, 15]}

    play(scene)


def test_truncation_stops_at_end() -> None:
    """Retention can take everything, and the next offset stays what it was."""

    async def scene(log: MemoryLog) -> None:
        member = await join(log, "w1")
        log.append(None, b"")
        log.truncate(0, 100)
        assert await member.events.start_offset(0, latest=False) == 1
        assert log.append(None, b"") == (0, 1)
        log.truncate(0, 0)
        assert await member.events.start_offset(0, latest=False) == 1
        assert [record.offset for record in log.records(0)] == [1]

    play(scene)


def test_same_seed_same_run() -> None:
    """Members, writers and readers under one seed do the same things in the same order each time."""

    async def scene(log: MemoryLog) -> list[tuple[str, str, int]]:
        steps: list[tuple[str, str, int]] = []

        async def gate(op: str, member: str, partition: int) -> None:
            steps.append((op, member, partition))
            await asyncio.sleep(0)

        async def work(name: str) -> None:
            member = await join(log, name)
            owner = await hold(log, name, 1)
            for _ in range(5):
                await member.offsets()
                try:
                    await owner.write([(b"a", name.encode())])
                except LogError:
                    owner = await hold(log, name, 1)

        log.gate = gate
        await asyncio.gather(*(work(f"w{number}") for number in range(4)))
        return steps

    runs = [play(scene, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_named_member_takes_its_place_again() -> None:
    """A process that crashed and joins under its name has its share at once; nobody else notices."""

    async def scene(log: MemoryLog) -> None:
        first, second = await join(log, "w1"), await join(log, "w2", name="two")
        await asyncio.sleep(1)
        log.crash("w2")
        again = await join(log, "w2'", name="two")
        assert again.told == [(1, "revoked", set()), (1, "assigned", {2, 3})]
        log.expel("w2")  # its session would have ended now
        await asyncio.sleep(1)
        assert first.told[-1] == (0, "assigned", {0, 1})
        assert second.told[-1] == (0, "assigned", {2, 3})
        assert await again.events.commit_group({2: 1})

    play(scene)


def test_named_member_comes_back_while_others_share_anew() -> None:
    """It takes part in the rebalance in place of the dead one, for which nobody waits."""

    async def scene(log: MemoryLog) -> None:
        await join(log, "w1", name="one", revoke_s=7)
        joining = asyncio.create_task(join(log, "w2"))
        await asyncio.sleep(1)
        log.crash("w1")
        again = await join(log, "w1'", name="one")
        second = await joining
        assert again.told[-1] == (1, "assigned", {0, 1})
        assert second.told[-1] == (1, "assigned", {2, 3})

    play(scene)


def test_two_members_of_one_name() -> None:
    """Each takes the place from the other, until the one that has lost it twice goes on without a name."""

    async def scene(log: MemoryLog) -> None:
        first = await join(log, "w1", name="one")
        second = await join(log, "w2", name="one")
        assert second.told[-1] == (0, "assigned", {0, 1, 2, 3})
        for _ in range(4):
            await asyncio.gather(first.offsets(), second.offsets())
            await asyncio.sleep(1)
        assert [first.told[-1][2], second.told[-1][2]] in ([{0, 1}, {2, 3}], [{2, 3}, {0, 1}])
        told = [len(first.told), len(second.told)]
        await asyncio.gather(first.offsets(), second.offsets())
        await asyncio.sleep(1)
        assert [len(first.told), len(second.told)] == told

    play(scene)
