"""Operators' events from who writes them to what comes of them: the private port's way, and that of the command line and
the console, which ask no worker.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from schemas import state
from schemas.console import ActionLine
from tests.simulation.callbacks import TRUST
from tests.simulation.stage import Stage, play
from worker.app import Worker
from worker.core.commands import COMMANDS
from worker.core.results import Reporting
from worker.core.trust import Trust
from worker.errors import LogError, UsageError
from worker.sim.producer import MemoryEventProducer
from worker.sim.records import MemoryRecords
from worker.sim.scripted import Answer
from worker.tools import operating
from worker.tools.console.events import ByEvents
from worker.tools.operating import PER_S, Acts, Came, Target, pick
from worker.tools.operating_kafka import parked
from worker.web.console.operator import STOPPED, ActionProgress

RESEND, RELEASE, NOTE = COMMANDS["resend"], COMMANDS["release"], COMMANDS["note"]
PAUSE, RESUME = COMMANDS["pause"], COMMANDS["resume"]
REPORTING = Reporting("/cartsync/stage")
WITHIN_S = 10.0
ORDER = Target("acme/1", [0])


async def serving(stage: Stage, name: str = "w1", **members: Any) -> Worker:
    """A worker that believes operators, and tells."""
    return await stage.serving(name, trust=TRUST, reporting=REPORTING, **members)


async def told(stage: Stage, name: str = "w1") -> Worker:
    """… with an order that was told."""
    worker = await serving(stage, name)
    stage.tell_shipped("1")
    await asyncio.sleep(1.0)
    assert len(stage.provider.exchanges) == 1
    return worker


def acts_on(
    stage: Stage, trust: Trust = TRUST, producer: MemoryEventProducer | None = None, per_s: float = PER_S
) -> Acts:
    """As the command line acts."""
    return Acts(
        lambda: MemoryRecords(stage.log, stage.clock),
        lambda: producer or stage.producer(),
        None,
        trust,
        stage.clock.wall_ms,
        taken_within_s=WITHIN_S,
        per_s=per_s,
    )


def deeds(stage: Stage) -> list[tuple[str, str, str, bool]]:
    """What others were told of operators."""
    bodies = [json.loads(each.value) for each in stage.log.results]
    data = [(body["subject"], body["data"]) for body in bodies if body["type"] == "cartsync.operated"]
    return [(subject, each["command"], each["by"], each["done"]) for subject, each in data]


# --- through a worker --------------------------------------------------------------------------------------------------


def test_a_worker_writes_what_it_is_asked() -> None:
    """It answers once it has taken its own event; the event names who asked, or nobody."""

    async def story(stage: Stage) -> None:
        worker = await told(stage)
        came = await worker.operate(RESEND, "acme/1", "ana", "ticket 4711")
        assert (came.done, came.words, came.everywhere) == (True, "will be sent again", False)
        await asyncio.sleep(1.0)
        assert len(stage.provider.exchanges) == 2
        assert not (await worker.operate(RELEASE, "acme/1")).done
        assert deeds(stage) == [("acme/1", "resend", "ana", True), ("acme/1", "release", "unknown", False)]
        with pytest.raises(UsageError, match="acme/2 is unknown to this worker"):
            await worker.operate(NOTE, "acme/2", "ana", "?")
        with pytest.raises(UsageError, match="expected a member why"):
            await worker.operate(NOTE, "acme/1", "ana")
        await worker.stop()

    play(story)


def test_a_worker_pauses_an_account_everywhere() -> None:
    """Whoever is asked: workers that are there, and those that start later."""

    async def story(stage: Stage) -> None:
        one, other = await asyncio.gather(serving(stage, "w1"), serving(stage, "w2"))
        came = await one.operate(PAUSE, "acme", "ana", "maintenance")
        assert (came.done, came.words) == (True, "paused; written to all 2 partitions")
        assert came.everywhere
        await asyncio.sleep(1.0)
        for worker in (one, other):
            assert [view.paused for view in worker.status().accounts] == ["account acme paused by an operator"]
        stage.tell_shipped("1")
        await asyncio.sleep(60.0)
        await asyncio.gather(one.stop(), other.stop())
        third = await serving(stage, "w3")
        await asyncio.sleep(60.0)
        assert stage.provider.exchanges == []
        assert third.is_blocked()
        read: list[str] = []

        async def reread() -> None:
            read.append("again")

        third.reread = reread
        await third.operate(RESUME, "acme", "ana")
        await asyncio.sleep(1.0)
        assert len(stage.provider.exchanges) == 1
        assert read == ["again"]  # once, though the event is in each of its partitions
        await third.stop()

    play(story)


def test_resume_ends_a_pause_of_every_worker() -> None:
    """Also one that the account has brought upon itself."""

    async def story(stage: Stage) -> None:
        worker = await serving(stage)
        stage.provider.answer([Answer(401)])
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        assert worker.is_blocked()
        assert (await worker.operate(RESUME, "acme", "ana")).done
        await asyncio.sleep(1.0)
        assert len(stage.provider.exchanges) == 2
        await worker.stop()

    play(story)


def test_all_parked_orders_by_events() -> None:
    """One for each that matches."""

    async def story(stage: Stage) -> None:
        worker = await serving(stage)
        stage.provider.answer([Answer(422, times=3)])
        for reference in "123":
            stage.tell_shipped(reference)
        await asyncio.sleep(2.0)
        assert await worker.operate_parked(RELEASE, "acme", "no such reason", "ana") == 0
        assert await worker.operate_parked(RELEASE, "acme", "422", "ana", "mended") == 3
        assert {(name, by) for _, name, by, _ in deeds(stage)} == {("release", "ana")}
        await asyncio.sleep(5.0)
        assert len(stage.provider.exchanges) == 6
        await worker.stop()

    play(story)


def test_without_secrets_a_worker_acts_in_its_own_partitions() -> None:
    """As far as it can: what only an event does needs them."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        came = await worker.operate(RESEND, "acme/1", "ana")
        assert (came.done, came.words, came.everywhere) == (True, "", False)
        assert not (await worker.operate(RESUME, "acme")).done
        for command, target in ((NOTE, "acme/1"), (PAUSE, "acme")):
            with pytest.raises(UsageError, match=r"\[callbacks\] record_secrets"):
                await worker.operate(command, target, "ana", "?")
        await worker.stop()

    play(story)


def test_what_is_not_acknowledged_is_said() -> None:
    """Nobody is told that it was done."""

    async def story(stage: Stage) -> None:
        producer = stage.producer()
        stage.producer = lambda: producer  # type: ignore[method-assign]
        worker = await told(stage)
        producer.is_failing = True
        with pytest.raises(LogError, match="not acknowledged"):
            await worker.operate(RESEND, "acme/1", "ana")
        await worker.stop()

    play(story)


# --- without a worker that is asked --------------------------------------------------------------------------------------


def test_acts_wait_until_it_is_taken() -> None:
    """What came of it is read from the state topic, whoever took it; in the order of the orders."""

    async def story(stage: Stage) -> None:
        worker = await told(stage)
        stage.tell_shipped("2")
        await asyncio.sleep(1.0)
        acts = acts_on(stage)
        targets = [Target("acme/2", [0]), Target("acme/9", [0]), ORDER]
        came = await acts.on_orders(RESEND, targets, "ana", "")
        assert [each.line for each in came] == [
            ActionLine("acme/2", True, "will be sent again"),
            ActionLine("acme/9", False, "nothing is known of acme/9 in partition 0"),
            ActionLine("acme/1", True, "will be sent again"),
        ]
        assert all(each.is_taken for each in came)
        [came_of_release] = await acts.on_orders(RELEASE, [ORDER], "ana", "")
        assert came_of_release.line.done is False
        paused = await acts.on_account(PAUSE, "acme", "ana", "maintenance")
        assert paused.line == ActionLine("acme", True, "paused; taken in 2 of 2 partitions")
        await worker.stop()

    play(story)


def test_acts_say_that_nobody_serves_the_partition() -> None:
    """After a while; the event counts once somebody does."""

    async def story(stage: Stage) -> None:
        worker = await told(stage)
        await worker.stop()
        [came] = await acts_on(stage).on_orders(RESEND, [ORDER], "ana", "")
        assert not came.is_taken
        assert came.line == ActionLine(
            "acme/1",
            False,
            "it is written, and nobody took it in partition 0 within 10 s: it counts once a worker serves that",
        )
        account = await acts_on(stage).on_account(PAUSE, "acme", "ana", "")
        assert "in partitions 0, 1 within" in account.line.detail
        again = await serving(stage, "w2")
        await asyncio.sleep(1.0)
        assert sorted(name for _, name, _, _ in deeds(stage)) == ["pause", "pause", "resend"]
        await again.stop()

    play(story)


def test_acts_say_that_it_was_not_written() -> None:
    """Whatever stands in the way."""

    async def story(stage: Stage) -> None:
        worker = await told(stage)
        failing, away = stage.producer(), stage.producer()
        failing.is_failing = away.is_away = True
        [came] = await acts_on(stage, producer=failing).on_orders(RESEND, [ORDER], "ana", "")
        assert came.line.detail == "it was not written: writing an event: the brokers rejected it"
        [came] = await acts_on(stage, producer=away).on_orders(RESEND, [ORDER], "ana", "")
        assert came.line.detail.startswith("the brokers did not acknowledge it within 30 s")
        assert not came.is_taken
        with pytest.raises(UsageError, match="record_secrets"):
            await acts_on(stage, Trust()).on_orders(RESEND, [ORDER], "ana", "")
        await worker.stop()

    play(story)


def test_many_orders_go_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that follow wait for those before them to be taken, and for the rate."""
    monkeypatch.setattr(operating, "AT_ONCE_MAX", 10)

    async def story(stage: Stage) -> None:
        worker = await serving(stage)
        stage.provider.answer([Answer(422, times=25)])
        for number in range(25):
            stage.tell_shipped(f"{number}")
        await asyncio.sleep(5.0)
        orders = await parked(stage.log.scan(lambda subject: subject.startswith("acme/")), "422")
        assert len(orders) == 25
        assert await parked(stage.log.scan(lambda _subject: True), "no such reason") == []
        done, began = list[tuple[int, int]](), stage.clock.now()

        def note(some: Sequence[Came]) -> None:
            done.append((len(some), sum(name == "release" for _, name, _, _ in deeds(stage))))

        came = await acts_on(stage, per_s=5.0).on_orders(RELEASE, orders, "ana", "mended", progress=note)
        assert done == [(10, 10), (10, 20), (5, 25)]
        assert stage.clock.now() - began >= 4.0
        assert [each.line.subject for each in came] == [order.subject for order in orders]
        assert all(each.line.done for each in came)
        await worker.stop()

    play(story)


def test_many_orders_are_given_up_when_nobody_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first of them are written; of the others it is said that they are not."""
    monkeypatch.setattr(operating, "AT_ONCE_MAX", 10)

    async def story(stage: Stage) -> None:
        worker = await told(stage)
        await worker.stop()
        orders = [Target(f"acme/{number}", [0]) for number in range(25)]
        came = await acts_on(stage).on_orders(RESEND, orders, "ana", "")
        assert [each.line.detail.split(",")[0] for each in came] == ["it is written"] * 10 + ["it was not written"] * 15
        assert not any(each.is_taken for each in came)
        again = await serving(stage, "w2")
        await asyncio.sleep(1.0)
        assert len(deeds(stage)) == 10
        await again.stop()

    play(story)


def test_console_stops_between_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is waited for; the rest is not written, and that is said. Progress is told as it comes."""
    monkeypatch.setattr(operating, "AT_ONCE_MAX", 10)

    async def story(stage: Stage) -> None:
        worker = await serving(stage)
        subjects = [f"acme/{number}" for number in range(25)]
        for number in range(25):
            stage.tell_shipped(f"{number}")
        await asyncio.sleep(5.0)

        async def places(subjects: Sequence[str]) -> dict[str, list[int]]:
            return {subject: [0] for subject in subjects}

        progress = ActionProgress()

        def stop() -> None:
            progress.is_stopped = len(progress.lines) == 20

        progress.told = stop
        lines = await ByEvents(acts_on(stage), places).submit(RESEND, subjects, by="ana", why="", progress=progress)
        assert [line.subject for line in lines] == subjects
        assert [line.detail for line in lines] == ["will be sent again"] * 20 + [STOPPED] * 5
        assert progress.lines == lines[:20]
        assert len(deeds(stage)) == 20
        await worker.stop()

    play(story)


def test_console_acts_by_events() -> None:
    """Each order where the index has it; what is not known there is said, and so is what cannot be done."""

    async def story(stage: Stage) -> None:
        worker = await told(stage)

        async def places(subjects: Sequence[str]) -> dict[str, list[int]]:
            return {subject: [0] if subject == "acme/1" else [] for subject in subjects}

        console = ByEvents(acts_on(stage), places)
        assert console.why_not() == ""
        assert await console.submit(RESEND, ["acme/2", "acme/1"], by="ana", why="", progress=ActionProgress()) == [
            ActionLine("acme/2", False, "no such order is known"),
            ActionLine("acme/1", True, "will be sent again"),
        ]
        assert await console.submit(RESEND, ["acme/2"], by="ana", why="", progress=ActionProgress()) == [
            ActionLine("acme/2", False, "no such order is known")
        ]
        [line] = await console.submit(PAUSE, ["acme"], by="ana", why="", progress=ActionProgress())
        assert line.done
        [line] = await console.submit(NOTE, ["acme/1"], by="ana", why="", progress=ActionProgress())
        assert (line.done, line.detail) == (False, "data: expected a member why")
        await worker.stop()

    play(story)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("acme/1", Target("acme/1", [0, 3])),
        ("2", Target("acme/2", [1])),
    ],
)
def test_pick(ref: str, expected: Target) -> None:
    """By its whole name, or by a reference that only one account has."""
    found = {"acme/1": [(0, "acme/1"), (3, "acme/1")], "2": [(1, "acme/2")]}[ref]
    assert pick(ref, found) == expected


def test_pick_refuses() -> None:
    """None, or several."""
    with pytest.raises(UsageError, match="no order 1"):
        pick("1", [])
    with pytest.raises(UsageError, match="use acme/1 or hats/1"):
        pick("1", [(0, "hats/1"), (0, "acme/1")])


def test_damaged_record_of_an_account_halts_its_partition() -> None:
    """Nobody knows whether it is paused: the partition says which record it is, the other one goes on."""

    async def story(stage: Stage) -> None:
        stage.log.write_foreign(0, b"a:acme", b"\xc1")
        worker = stage.worker("w1", trust=TRUST)
        await worker.start()
        await asyncio.sleep(30.0)
        by_partition = {view.partition: view for view in worker.status().partitions}
        assert by_partition[0].role == "halted"
        assert "a:acme" in by_partition[0].detail
        assert by_partition[1].role == "serving"
        await worker.stop()

    play(story)


# --- what stays --------------------------------------------------------------------------------------------------------


def test_forgotten_order_leaves_the_state() -> None:
    """Its personal details at once, its record within a day; what is left is a digest that says that it was there."""

    async def story(stage: Stage) -> None:
        worker = await told(stage)
        [came] = await acts_on(stage).on_orders(COMMANDS["forget"], [ORDER], "ana", "erasure request")
        assert came.line.done
        await asyncio.sleep(100_000.0)
        assert worker.show("acme/1") is None
        newest = {entry.key: entry.value for entry in stage.log.entries(0)}
        keys = {key for key, value in newest.items() if value is not None}
        assert b"o:acme/1" not in keys
        assert [key for key in keys if key.startswith(state.CLOSED_PREFIX.encode())]
        assert len(stage.provider.exchanges) == 1
        await worker.stop()

    play(story)


def test_adopted_order_is_not_sent() -> None:
    """Until it changes."""

    async def story(stage: Stage) -> None:
        worker = await serving(stage)
        stage.provider.answer([Answer(422)])
        stage.tell_shipped("1")
        await asyncio.sleep(1.0)
        [came] = await acts_on(stage).on_orders(COMMANDS["adopt"], [ORDER], "ana", "by hand")
        assert came.line == ActionLine("acme/1", True, "what the provider has counts as sent")
        await asyncio.sleep(3_600.0)
        assert len(stage.provider.exchanges) == 1
        assert worker.is_idle()
        await worker.stop()

    play(story)
