"""What the probes say while partitions come and go, in virtual time."""

import asyncio
import io

import pytest

from tests.simulation.stage import Stage, play
from worker import logs
from worker.errors import LogError
from worker.sim.scripted import Answer


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


def test_brokers_that_are_away_are_seen_and_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """Not ready after a minute, a gauge, one line at the beginning and one at the end; the lag is not known meanwhile,
    and afterwards everything goes on.
    """

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        await asyncio.sleep(15.0)
        stage.log.broker.is_away = True
        stage.tell_shipped("1")
        await asyncio.sleep(55.0)
        assert worker.readyz() == (True, "ok")
        await asyncio.sleep(10.0)
        ready, why = worker.readyz()
        assert not ready
        assert "no Kafka broker has responded for 65 s" in why
        worker.metrics_page()
        assert worker.metrics.value("cartsync_kafka_unreachable_seconds") == pytest.approx(65.0, abs=0.1)
        assert worker.metrics.value("cartsync_ready") == 0
        assert worker.metrics.value("cartsync_consumer_lag_records", partition="0") is None
        stage.log.broker.is_away = False
        await asyncio.sleep(15.0)
        assert worker.readyz() == (True, "ok")
        assert worker.livez() == (True, "ok")
        view = worker.show("acme/1")
        assert view is not None
        assert view.status == "settled"
        await worker.stop()

    play(story)
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "kafka_" in line]
    assert [word in line for line, word in zip(lines, ("kafka_unreachable", "kafka_reached_again"), strict=True)]


def test_brokers_that_stay_away_end_the_worker() -> None:
    """75 after `unreachable_exit`: a new start may find them where they are now."""

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {"unreachable_exit": "5m"})
        await worker.start()
        await worker.serving()
        stage.log.broker.is_away = True
        await asyncio.sleep(295.0)
        assert not worker.failed.done()
        await asyncio.sleep(20.0)
        assert worker.failed.result().exit_code == 75
        assert "no Kafka broker has answered" in str(worker.failed.result())
        await worker.stop()

    play(story)


def test_halted_partition_is_not_ready() -> None:
    """It says which, and why; gauges count it, and the partitions that there are."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.log.append(b"k", b"no event", partition=1)
        await asyncio.sleep(5.0)
        await worker.stop()
        for _ in range(3):
            stage.log.append(b"k", b"no event", partition=1)
        stage.log.truncate(1, 3)
        heir = await stage.serving("w2")
        await asyncio.sleep(5.0)
        ready, why = heir.readyz()
        assert not ready
        assert why.startswith("partition 1 is halted: ")
        assert heir.status().why == why
        heir.metrics_page()
        assert heir.metrics.value("cartsync_partitions_halted") == 1
        assert heir.metrics.value("cartsync_partitions_unserved") == 0
        assert heir.metrics.value("cartsync_event_partitions") == 2
        await heir.stop()

    play(story)


def test_lost_partition_is_not_ready_after_a_minute() -> None:
    """What is tried again and again is no restore under way, for which there would be minutes."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")

        async def gate(op: str, _process: str, partition: int) -> None:
            if op in ("write", "fence") and partition == 0:
                raise LogError("no broker")

        stage.log.gate = gate
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(50.0)
        assert worker.readyz() == (True, "ok")
        await asyncio.sleep(15.0)
        ready, why = worker.readyz()
        assert not ready
        assert "could not be acquired again for 65 s" in why
        worker.metrics_page()
        assert worker.metrics.value("cartsync_partitions_unserved") == 1
        await worker.stop()

    play(story)


def test_surplus_worker_is_ready() -> None:
    """The group has no partition for it: it stands by."""

    async def story(stage: Stage) -> None:
        workers = [await stage.serving(f"w{number}") for number in range(3)]
        await asyncio.sleep(5.0)
        assert sorted(len(stage.roles(worker)) for worker in workers) == [0, 1, 1]
        assert [worker.readyz() for worker in workers] == [(True, "ok")] * 3
        for worker in workers:
            await worker.stop()

    play(story)


def test_stop_while_brokers_are_away_ends_in_time() -> None:
    """Twenty-five seconds in all, with an attempt that the provider does not answer and a hold that closes slowly."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.provider.answer([Answer(fault="timeout_lost", times=None)])
        stage.tell_shipped("1")
        await asyncio.sleep(0.5)
        stage.log.broker.is_away = True

        async def gate(op: str, _process: str, _partition: int) -> None:
            waits_s = {"write": 3600.0, "close": 5.0, "commit_group": 5.0, "stop": 4.0}
            await asyncio.sleep(waits_s.get(op, 0.0))

        stage.log.gate = gate
        began = stage.clock.now()
        await worker.stop()
        assert stage.clock.now() - began <= 25.0

    play(story)


def test_not_alive_when_nobody_serves_a_partition() -> None:
    """A partition of ours whose owner has ended, however that came, is a reason for a restart."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        assert worker.livez() == (True, "ok")
        (owner,) = (task for task in asyncio.all_tasks() if task.get_name() == "partition 1")
        owner.cancel()
        await asyncio.sleep(1.0)
        assert worker.livez() == (False, "partition 1 is not served any more")
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
