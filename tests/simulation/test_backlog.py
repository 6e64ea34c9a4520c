"""An account with a long backlog, in virtual time: nobody's assessment waits for its turn."""

import asyncio

import pytest

from tests.simulation.stage import Stage, play
from worker.app.worker import Worker
from worker.orders import workload
from worker.ownership.context import Slice
from worker.providers.sequra.options import SequraAccount

SLOW = SequraAccount("acme", "sequra", "https://provider.example", "acme", "u", "p", rate_per_s=0.01)


def test_contradiction_in_a_long_backlog_is_announced_in_time() -> None:
    """Four hundred orders are ahead of it, more than are prepared, and hours: it is parked after `inconsistent_after`
    and counted as such all the same.
    """

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {"inconsistent_after": "15m"}, accounts={"acme": SLOW})
        await worker.start()
        await worker.serving()
        for number in range(400):
            stage.tell_shipped(f"{number:03}")
        stage.tell_shipped("wrong", units=9)
        await asyncio.sleep(18 * 60.0)
        view = worker.show("acme/wrong")
        assert view is not None
        assert view.status == "parked"
        assert [partition.parked for partition in worker.status().partitions] == [1, 0]
        assert sum(partition.owed for partition in worker.status().partitions) > 300
        await worker.stop(0.0)

    play(story)


def test_a_long_backlog_is_counted_in_slices() -> None:
    """Others get the loop meanwhile; what was counted is shown for a moment, then what is so."""

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {}, accounts={"acme": SLOW})
        await worker.start()
        await worker.serving()
        for number in range(40):
            stage.tell_shipped(f"{number:03}")
        await asyncio.sleep(5.0)
        before = owed(worker)
        assert before > 30
        pauses = 0

        async def pause(_slice: Slice) -> None:
            nonlocal pauses
            pauses += 1
            stage.tell_shipped(f"later-{pauses}")
            await asyncio.sleep(0.2)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(workload, "_COUNTED_AT_ONCE", 10)
            patched.setattr(Slice, "is_over", lambda _slice: True)
            patched.setattr(Slice, "pause", pause)
            await worker.count_waiting()
        assert pauses >= before // 10
        assert owed(worker) == before
        await asyncio.sleep(1.1)
        assert owed(worker) > before
        await worker.stop(0.0)

    play(story)


def owed(worker: Worker) -> int:
    """Over all partitions."""
    return sum(partition.owed for partition in worker.status().partitions)
