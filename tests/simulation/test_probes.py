"""What the probes say while partitions come and go, in virtual time."""

import asyncio
import io

from tests.simulation.stage import Stage, play
from worker import logs
from worker.errors import LogError


def test_ready_while_restoring_within_the_budget() -> None:
    """A restore gates nothing while it is within its budget; past it the worker says that it is not ready, and why."""

    async def story(stage: Stage) -> None:
        broker_answers = asyncio.Event()

        async def gate(op: str, _process: str, partition: int) -> None:
            if op == "read" and partition == 1:
                await broker_answers.wait()

        stage.log.gate = gate
        worker = stage.worker("w1", {"restore_budget": "30s"})
        assert worker.readyz() == (False, "not assigned any partitions yet")
        await worker.start()
        await asyncio.sleep(25.0)
        assert stage.roles(worker) == {0: "serving", 1: "restoring"}
        assert worker.readyz() == (True, "ok")
        await asyncio.sleep(10.0)
        ok, why = worker.readyz()
        assert not ok
        assert "partition has been restoring for 35 s" in why
        broker_answers.set()
        await worker.serving()
        assert worker.readyz() == (True, "ok")
        await worker.stop()

    play(story)


def test_not_ready_when_a_lost_partition_does_not_come_back() -> None:
    """The time counts from when it was lost, over all attempts to take it anew."""

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {"restore_budget": "30s"})
        await worker.start()
        await worker.serving()
        await asyncio.sleep(100.0)

        async def gate(op: str, _process: str, _partition: int) -> None:
            if op in ("write", "fence"):
                raise LogError("no broker")

        stage.log.gate = gate
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(25.0)
        assert worker.readyz() == (True, "ok")
        await asyncio.sleep(10.0)
        assert not worker.readyz()[0]
        stage.log.gate = None
        await worker.serving()
        assert worker.readyz() == (True, "ok")
        await worker.stop()

    play(story)


def test_not_alive_when_nobody_serves_a_partition() -> None:
    """A partition of ours whose owner has ended, however that came, is a reason for a restart."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        assert worker.livez() == (True, "ok")
        (owner,) = (task for task in asyncio.all_tasks() if task.get_name() == "partition 1")
        owner.cancel()
        await asyncio.sleep(1.0)
        assert worker.livez() == (False, "nobody serves partition 1 any more")
        await worker.kill()

    play(story)


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_full_disk_of_the_logs_stops_nothing() -> None:
    """Events are taken and refused, partitions served and left in order, while not one line can be written."""

    async def story(stage: Stage) -> None:
        logs.configure("json", "debug", stream=Full())
        worker = await stage.serving("w1")
        for partition in (0, 1):
            stage.log.append(b"k", b"no event", partition=partition)
        await asyncio.sleep(1.0)
        assert [view.next_offset for view in worker.status().partitions] == [1, 1]
        assert worker.livez() == (True, "ok")
        await worker.stop()
        assert stage.left_in_order() == [True, True]
        assert logs.flush()
        assert b"cartsync_log_lines_dropped_total 0.0" not in worker.metrics_page()

    with logs.capture([]):  # where lines go ends with the test
        play(story)
