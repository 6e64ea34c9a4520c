"""Topics that are not what they were: what is noticed, what is said, and what is none of it."""

import asyncio

import pytest
from msgspec.structs import replace

from tests.simulation.stage import DEPLOYMENT, Stage, play
from worker.app import Worker
from worker.errors import CartsyncError, LogError, TopicError
from worker.sim.scripted import Answer

LOOKS_S = 12.0
"""Within which what has become of topics is noticed."""


def test_markers_of_a_quiet_partition_are_no_gap() -> None:
    """A shop's transactions leave markers behind its last event; once retention has removed all, nothing is missing."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.skip(0, 3)
        await asyncio.sleep(10.0)
        assert {view.partition: view.next_offset for view in worker.status().partitions} == {0: 4, 1: 0}
        assert stage.log.group_offset(0) == 4
        stage.log.truncate(0, 4)
        await worker.stop()
        heir = await stage.serving("w2")
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(3.0)
        assert stage.roles(heir) == {0: "serving", 1: "serving"}
        assert {view.partition: view.next_offset for view in heir.status().partitions} == {0: 5, 1: 0}
        await heir.stop()

    play(story)


def test_events_that_were_dropped_at_the_end_are_not_passed() -> None:
    """Markers behind an event that a leaving worker did not take do not make it pass the event."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.provider.answer([Answer(fault="timeout_lost")])
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)  # the attempt is under way, and a stop waits for it
        taken = stage.log.end_offset(0)
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.skip(0, 1)

        async def gate(op: str, _process: str, partition: int) -> None:
            if op == "write" and partition == 0:
                await asyncio.sleep(3.0)

        stage.log.gate = gate
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(1.0)  # the first is being committed
        stage.log.append(b"k", b"no event", partition=0)
        stage.log.skip(0, 1)
        await asyncio.sleep(1.5)
        await worker.stop()
        assert stage.next_offset(0) < stage.log.end_offset(0) - 1
        assert stage.next_offset(0) > taken
        heir = await stage.serving("w2")
        await asyncio.sleep(10.0)
        await heir.stop()
        assert stage.next_offset(0) == stage.log.end_offset(0)
        assert len(stage.log.dead_letters) == 3

    play(story)


async def refused(worker: Worker, *words: str) -> CartsyncError:
    """The worker does not start, or ends right after: 72, and says why."""

    async def serves() -> None:
        await worker.start()
        await worker.serving()

    with pytest.raises(TopicError) as caught:
        await serves()
    await worker.stop(0.0)
    for word in words:
        assert word in str(caught.value)
    return caught.value


async def failed(worker: Worker, *words: str, within_s: float = LOOKS_S) -> None:
    """The worker ends by itself: 72, and says why."""
    async with asyncio.timeout(within_s):
        error = await asyncio.shield(worker.failed)
    assert error.exit_code == 72
    for word in words:
        assert word in str(error)
    await worker.stop(0.0)


def test_state_topic_remade_while_a_worker_runs() -> None:
    """The first commit of whichever partition shows it, while the orders are still in memory; and no later start takes
    what was written into the new topic for the state.
    """

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        for number in range(5):
            stage.tell_shipped(str(number))
            await asyncio.sleep(1.0)
        stage.log.remake_states()
        stage.tell_shipped("late")
        await failed(worker, "state topic was deleted and made again", within_s=1.0)
        await refused(stage.worker("w2"), "orders are missing", "backup", "--adopt-state")

    play(story)


def test_state_topic_remade_under_a_quiet_worker() -> None:
    """Nothing is committed, and it is noticed all the same; and the leaver's last word does not make it a state."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.tell_shipped("1")
        await asyncio.sleep(5.0)
        stage.log.remake_states()
        await failed(worker, "state topic was deleted and made again")
        await refused(stage.worker("w2"), "orders are missing")

    play(story)


def test_state_topic_remade_between_two_assignments() -> None:
    """A partition that comes back to a worker is remembered; the offset of its barrier shows that the topic is another."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        for _ in range(3):
            stage.log.append(b"k", b"no event", partition=0)
            await asyncio.sleep(1.0)

        async def gate(op: str, _process: str, _partition: int) -> None:
            if op == "write":
                stage.log.gate = None
                raise LogError("the topic is gone")

        stage.log.gate = gate
        stage.log.append(b"k", b"no event", partition=0)
        await asyncio.sleep(0.2)  # lost, and about to be taken anew
        stage.log.remake_states()
        await failed(worker, "state topic was deleted and made again", within_s=5.0)

    play(story)


def test_event_topic_remade_while_a_worker_runs() -> None:
    """It is noticed although the shop is past the old position already; the next start refuses, and with a higher
    topic_epoch takes all events of the new topic on top of the state.
    """

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        for number in range(3):
            stage.tell_shipped(str(number))
        await asyncio.sleep(5.0)
        stage.log.remake_events()
        for number in range(10, 20):
            stage.tell_shipped(str(number))
        await failed(worker, "event topic was deleted and made again")
        await refused(stage.worker("w2"), "offsets begin anew", "topic_epoch to 1")
        heir = stage.worker("w3", {"topic_epoch": 1})
        await heir.start()
        await heir.serving()
        await asyncio.sleep(5.0)
        told = [heir.show(f"acme/{number}") for number in (*range(3), *range(10, 20))]
        assert [view.status if view else None for view in told] == ["settled"] * 13
        await heir.stop()
        again = stage.worker("w4", {"topic_epoch": 1})
        await again.start()
        await again.serving()
        await again.stop()

    play(story)


def test_event_topic_remade_where_brokers_tell_no_ids() -> None:
    """The record that was taken last is read again at takeover; another one in its place halts the partition."""

    async def story(stage: Stage) -> None:
        stage.log.broker.event_topic_id = ""
        worker = await stage.serving("w1")
        stage.tell_shipped("1")
        await asyncio.sleep(5.0)
        await worker.stop()
        stage.log.remake_events()
        stage.log.broker.event_topic_id = ""
        await asyncio.sleep(1.0)
        for number in range(10, 20):
            stage.tell_shipped(str(number))
        heir = await stage.serving("w2")
        await asyncio.sleep(5.0)
        assert stage.roles(heir) == {0: "halted", 1: "serving"}
        view = heir.status().partitions[0]
        assert "the event topic is another one" in view.detail
        assert (view.next_offset, view.orders) == (2, 1)
        await heir.stop()
        third = await stage.serving("w3")
        await asyncio.sleep(5.0)
        assert stage.roles(third) == {0: "halted", 1: "serving"}
        await third.stop()

    play(story)


@pytest.mark.parametrize("before", [1, 2], ids=["one of two", "all"])
def test_retention_may_remove_the_record_that_was_taken_last(before: int) -> None:
    """What was taken already need not be there any more: no gap, and what comes next is taken once."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.tell_shipped("1")
        await asyncio.sleep(5.0)
        await worker.stop()
        stage.log.truncate(0, before)
        heir = await stage.serving("w2")
        await asyncio.sleep(2.0)
        stage.tell_shipped("2")
        await asyncio.sleep(2.0)
        assert stage.roles(heir) == {0: "serving", 1: "serving"}
        assert heir.metrics.value("cartsync_events_total", result="changed") == 2
        assert heir.metrics.value("cartsync_events_total", result="unchanged") == 0
        await heir.stop()

    play(story)


@pytest.mark.parametrize(
    "member", [{"group": "other"}, {"prefix": "other"}, {"event_topic": "other"}], ids=lambda member: next(iter(member))
)
def test_state_topic_of_another_deployment_is_refused(member: dict[str, str]) -> None:
    """The one that comes later does not start, whatever ids it uses, and the first one does not even notice."""

    async def story(stage: Stage) -> None:
        ours = await stage.serving("ours")
        later = stage.worker("later", elsewhere=True, deployment=replace(DEPLOYMENT, **member))
        await refused(later, "belongs to another deployment", "(here other)", "--adopt-state")
        stage.tell_shipped("1")
        await asyncio.sleep(5.0)
        assert ours.metrics.value("cartsync_fenced_total") == 0
        assert not ours.failed.done()
        await ours.stop()

    play(story)


def test_two_deployments_that_begin_at_once_with_one_state_topic() -> None:
    """Neither finds a state yet; who reads that the other one was there before it stops, so at most one goes on."""

    async def story(stage: Stage) -> None:
        ours = stage.worker("ours")
        later = stage.worker("later", elsewhere=True, deployment=replace(DEPLOYMENT, group="other", prefix="other"))
        await asyncio.gather(ours.start(), later.start())
        await asyncio.sleep(10.0)
        assert ours.failed.done() or later.failed.done()
        for worker in (ours, later):
            if worker.failed.done():
                assert worker.failed.result().exit_code == 72
                assert "state topic" in str(worker.failed.result())
        await ours.kill()
        await later.kill()

    play(story)


def test_state_is_adopted_on_purpose_once_the_former_deployment_is_gone() -> None:
    """Refused while its group has members; afterwards orders and position go on, and the former one is refused."""

    async def story(stage: Stage) -> None:
        ours = await stage.serving("ours")
        stage.tell_shipped("1")
        await asyncio.sleep(5.0)
        changed = replace(DEPLOYMENT, group="new", prefix="new")
        stage.log.broker.members["cartsync"] = 1
        await refused(stage.worker("new 1", {"adopt_state": True}, deployment=changed), "while group cartsync has")
        await ours.stop()
        stage.log.broker.members["cartsync"] = 0
        heir = stage.worker("new 2", {"adopt_state": True}, deployment=changed)
        await heir.start()
        await heir.serving()
        assert heir.show("acme/1")
        await heir.stop()
        await refused(stage.worker("old"), "belongs to another deployment")
        again = stage.worker("new 3", deployment=changed)
        await again.start()
        await again.serving()
        await again.stop()

    play(story)


def test_more_partitions_of_the_event_topic_stop_the_worker() -> None:
    """Within half a minute; and the state topic grown to match does not mend it."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.tell_shipped("1")
        await asyncio.sleep(5.0)
        stage.log.grow_events()
        await failed(worker, "has 3 partitions, and the state was written with 2", "new event topic with 2")
        stage.log.grow_states()
        await refused(stage.worker("w2"), "has 3 partitions, and the state was written with 2")

    play(story)
