"""What the simulation has found, each as the shortest story that shows it."""

import asyncio

from tests.simulation.stage import Stage, play
from worker.errors import LogError


def test_leave_whose_last_commit_fails_is_over() -> None:
    """Who cannot write that he left is gone all the same: he does not take the partition anew until he is thrown out."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")

        async def gate(op: str, _process: str, _partition: int) -> None:
            if op == "write":
                raise LogError("no broker")

        stage.log.gate = gate
        began = stage.clock.now()
        await worker.stop()
        assert stage.clock.now() - began < 1.0

    play(story)


def test_stop_waits_for_partitions_that_a_rebalance_has_told_to_leave() -> None:
    """A stop in the middle of a revoke does not end the process under the last commits."""

    async def story(stage: Stage) -> None:
        first = await stage.serving("w1")

        async def gate(op: str, process: str, _partition: int) -> None:
            if op == "write" and process == "w1":
                await asyncio.sleep(5.0)

        stage.log.gate = gate
        second = stage.worker("w2")
        joining = asyncio.create_task(second.start())
        await asyncio.sleep(1.0)
        assert set(stage.roles(first).values()) == {"closing"}
        await first.stop()
        assert stage.left_in_order() == [True, True]
        await joining
        await second.stop()

    play(story)


def test_partition_lost_right_after_a_rebalance_is_taken_anew() -> None:
    """A member proves that it is one although what it told the group last was of partitions that have gone since."""

    async def story(stage: Stage) -> None:
        first = await stage.serving("w1")
        for partition in range(2):
            stage.log.append(b"k", b"no event", partition=partition)
        await asyncio.sleep(10.0)
        failures = 1

        async def gate(op: str, process: str, _partition: int) -> None:
            nonlocal failures
            if op == "fence" and process == "w1" and failures:
                failures -= 1
                raise LogError("no broker")

        stage.log.gate = gate
        second = await stage.serving("w2")
        await asyncio.sleep(10.0)
        assert failures == 0
        assert list(stage.roles(first).values()) == ["serving"]
        await first.stop()
        await second.stop()

    play(story)


def test_successor_of_a_slow_first_start_is_no_lost_state_topic() -> None:
    """An owner that stalls in its very first restore finds a group that has read on, for another one has taken over
    meanwhile: it is fenced, and does not call the state topic lost.
    """

    async def story(stage: Stage) -> None:
        async def gate(op: str, process: str, _partition: int) -> None:
            if op == "group_offset" and process == "w1":
                await asyncio.sleep(30.0)

        stage.log.gate = gate
        slow = stage.worker("w1")
        await slow.start()
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.expel("w1", unaware_s=60.0)
        second = await stage.serving("w2")
        await asyncio.sleep(40.0)
        assert stage.roles(second) != {}
        assert not slow.failed.done()
        await second.stop()
        await slow.kill()

    play(story)
