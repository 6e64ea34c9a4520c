"""What is taken from the inbox while a transaction is committed, in virtual time: nothing of it counts before its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas import state
from schemas.state import OrderRecord
from tests.simulation.callbacks import TRUST
from tests.simulation.stage import LINE, Stage, order_event, play
from worker.app import Worker
from worker.core.commands import COMMANDS
from worker.core.retention import DueOrder
from worker.errors import LogError
from worker.orders.batch import Batch
from worker.orders.workload import OrderWorkload
from worker.ports import JobChange
from worker.sim.scripted import Answer

MIB = 2**20
BATCH = {"max_batch_records": 4}
CONFIRMED = {"currency": "EUR", "lines": [LINE]}
SHIPPED = {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": 1}]}


class Held:
    """Holds transactions of partition 0 until they are let go, or fails one."""

    def __init__(self, stage: Stage, step: str = "write") -> None:
        self.fails = False
        self._step = step
        self._is_open = False
        self._permits = asyncio.Semaphore(0)
        stage.log.gate = self._gate

    def let_one(self) -> None:
        """The one that is held, or the next one."""
        self._permits.release()

    def open(self) -> None:
        """All from now on."""
        self._is_open = True
        self._permits.release()

    async def _gate(self, step: str, _process: str, partition: int) -> None:
        if step == self._step and partition == 0 and not self._is_open:
            await self._permits.acquire()
            if self.fails:
                self.fails = False
                raise LogError("it fails")


def append(stage: Stage, reference: str, kind: str, data: object, **members: object) -> None:
    """One event of an order, in partition 0."""
    event = msgspec.json.decode(order_event(reference, kind, data)) | members
    stage.log.append(b"k", msgspec.json.encode(event), partition=0)


def confirm(stage: Stage, *references: str) -> None:
    """Orders that nobody has to be told of yet."""
    for reference in references:
        append(stage, reference, "confirmed", CONFIRMED)


def workload(worker: Worker) -> OrderWorkload:
    """Of partition 0."""
    found: OrderWorkload = worker._assignment.owners[0].workload
    return found


def ahead(worker: Worker) -> list[str]:
    """The orders that are changed ahead."""
    found = workload(worker)._taking.ahead
    return [] if found is None else list(found.changed)


def record(stage: Stage, reference: str) -> OrderRecord:
    """As the state topic has it."""
    found = {entry.key: entry.value for entry in stage.log.entries(0)}[f"o:acme/{reference}".encode()]
    assert found is not None
    return state.decode_order(found)


def events(worker: Worker) -> float | None:
    """Events that were counted as changes of an order."""
    return worker.metrics.value("cartsync_events_total", result="changed")


def told(stage: Stage) -> list[str]:
    """The orders that the provider was told of, one for each request."""
    return [each.url.rpartition("/")[2] for each in stage.provider.exchanges]


def tell(story: Callable[[Stage, Held, Worker], Awaitable[None]], **settings: Any) -> None:
    """A worker serves, its next transaction is held, and the story goes on from there."""

    async def whole(stage: Stage) -> None:
        worker = await stage.serving("w1", settings=BATCH | settings)
        await story(stage, Held(stage), worker)
        await worker.stop()

    play(whole)


# --- nothing counts before its own transaction ---


def test_batch_ahead_is_seen_by_nobody() -> None:
    """While the first transaction is committed the next is begun: no metric, no page and no provider knows, nothing is
    written. Then both are committed, one after the other.
    """

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        written: list[int] = []
        stage.log.watch(lambda _partition, entries, *_others: written.append(len(entries) - 1))
        confirm(stage, "1", "2", "3", "4", "5")
        append(stage, "5", "items_shipped", SHIPPED)
        await asyncio.sleep(0.5)
        assert ahead(worker) == ["acme/5"]
        assert (events(worker), written, told(stage), worker.show("acme/5")) == (0, [], [], None)
        assert len(worker._assignment.owners[0].position.inbox) == 2
        held.open()
        await asyncio.sleep(1.0)
        acknowledged = 4  # nothing has to be sent of what was only confirmed
        assert (events(worker), written[:2], told(stage)) == (6, [4, acknowledged + 1], ["5"])
        assert stage.next_offset(0) == 6

    tell(story)


def test_changed_and_new_orders_are_read_as_they_are_being_committed() -> None:
    """An order that the first transaction makes goes on in the next one from there, and not from nothing."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        confirm(stage, "1", "2", "3", "4")
        append(stage, "1", "items_shipped", SHIPPED)
        await asyncio.sleep(0.5)
        assert ahead(worker) == ["acme/1"]
        held.open()
        await asyncio.sleep(1.0)
        facts = record(stage, "1").facts
        assert (facts.confirmation is not None, len(facts.shipments)) == (True, 1)
        assert told(stage) == ["1"]

    tell(story)


@pytest.mark.parametrize("step", ["write", "write:done"])
def test_failed_commit_discards_both(step: str) -> None:
    """Whether it has failed or nobody knows: the next owner takes all events that are not committed, each once."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", settings=BATCH)
        held = Held(stage, step)
        confirm(stage, "1", "2", "3", "4", "5", "6")
        await asyncio.sleep(0.5)
        assert ahead(worker) == ["acme/5", "acme/6"]
        held.fails = True
        held.open()
        await asyncio.sleep(0.1)
        assert stage.next_offset(0) == (4 if step == "write:done" else 0)
        await asyncio.sleep(60.0)
        assert stage.next_offset(0) == 6
        assert [record(stage, name).revision for name in "123456"] == [1, 2, 3, 4, 5, 6]
        assert events(worker) == (2 if step == "write:done" else 6)
        await worker.stop()

    play(story)


# --- what comes in between ---


def test_drain_leaves_what_is_ahead_to_the_next_owner() -> None:
    """It is asked to while it commits: that is committed and the position is left behind it."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", settings=BATCH)
        held = Held(stage)
        confirm(stage, "1", "2", "3", "4", "5", "6")
        await asyncio.sleep(0.5)
        assert ahead(worker)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.1)
        held.open()
        await stopping
        assert (stage.next_offset(0), stage.left_in_order()) == (4, [True, True])
        worker = await stage.serving("w2", settings=BATCH)
        await asyncio.sleep(1.0)
        assert (stage.next_offset(0), events(worker)) == (6, 2)
        await worker.stop()

    play(story)


def test_skip_drops_what_is_ahead() -> None:
    """The position is moved while it commits: over what was begun already, which is not taken."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        confirm(stage, "1", "2", "3", "4", "5", "6", "7", "8")
        await asyncio.sleep(0.5)
        assert ahead(worker) == ["acme/5", "acme/6", "acme/7", "acme/8"]
        skipping = asyncio.create_task(worker._assignment.skip(0, 7))
        await asyncio.sleep(0.1)
        held.open()
        assert await skipping == 0
        await asyncio.sleep(1.0)
        assert (stage.next_offset(0), events(worker)) == (8, 5)
        assert [subject for subject in workload(worker).orders.subjects() if subject > "acme/4"] == ["acme/8"]

    tell(story)


def test_halted_partition_takes_nothing_of_what_is_ahead() -> None:
    """What it writes then is about its orders, and its position stays."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        confirm(stage, "1", "2", "3", "4", "5", "6")
        await asyncio.sleep(0.5)
        worker._assignment.owners[0].halt("a gap")
        held.open()
        await asyncio.sleep(0.5)
        await worker.operate(COMMANDS["resend"], "acme/1")
        assert (stage.next_offset(0), events(worker)) == (4, 4)

    tell(story)


def test_outcome_that_comes_meanwhile_is_of_the_order_as_it_is_ahead() -> None:
    """An attempt ends while a transaction is committed, and an event of its order is in the batch ahead: both are in the
    next transaction, the request that may still land is waited for, and then the newest carts are told.
    """

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        held.open()
        stage.provider.answer([Answer(fault="timeout_lost")])
        stage.tell_shipped("0")
        await asyncio.sleep(7.5)
        held = Held(stage)
        confirm(stage, "1", "2", "3", "4")
        append(stage, "0", "refunded", {"refund_id": "r1", "amount_minor": 10})
        await asyncio.sleep(0.1)
        assert ahead(worker) == ["acme/0"]
        await asyncio.sleep(0.5)
        assert workload(worker)._mailbox.outcomes
        held.let_one()
        held.let_one()
        await asyncio.sleep(0.1)
        after = record(stage, "0")
        assert (after.revision, after.acked, after.may_land_late) == (7, 0, True)
        held.open()
        await asyncio.sleep(29.0)
        assert told(stage) == ["0"]
        await asyncio.sleep(10.0)
        assert told(stage) == ["0", "0"]
        assert record(stage, "0").acked == 7

    tell(story)


def test_event_of_an_order_whose_attempt_ends_with_what_is_committed() -> None:
    """For the batch ahead that attempt is over: a change that the provider made itself is not told again."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        stage.tell_shipped("0")
        confirm(stage, *"123456789")
        append(stage, "a", "confirmed", CONFIRMED)
        append(stage, "0", "refunded", {"refund_id": "r1", "amount_minor": 10}, origin="sequra")
        await asyncio.sleep(0.5)
        held.let_one()
        await asyncio.sleep(0.5)
        assert told(stage) == ["0"]
        assert ahead(worker) == ["acme/7", "acme/8", "acme/9", "acme/a"]
        held.let_one()
        await asyncio.sleep(0.5)
        assert ahead(worker) == ["acme/0"]
        held.open()
        await asyncio.sleep(1.0)
        assert told(stage) == ["0"]
        after = record(stage, "0")
        assert (after.revision, after.acked, after.made_at is not None) == (13, 13, True)

    tell(story)


# --- what is not begun ahead, or thrown away ---


def test_closed_orders_are_waited_for() -> None:
    """What is remembered of them is not in the orders' records: an event of one comes after they are closed."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        held.open()
        confirm(stage, "0")
        await asyncio.sleep(0.5)
        held, here = Held(stage), workload(worker)
        here._closing.due.append(DueOrder("acme/0", here.orders["acme/0"], is_shown_alone=False))
        confirm(stage, "1", "2", "3", "4")
        append(stage, "0", "items_shipped", SHIPPED)
        await asyncio.sleep(0.5)
        assert here._taking.ahead is None
        held.open()
        await asyncio.sleep(0.5)
        after = record(stage, "0")
        assert after.closed_day > 0
        assert not after.sealed.confirmation

    tell(story)


def test_accounts_changes_are_waited_for() -> None:
    """An operator's event that stands behind another one about the same account is worked into that one's record."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", settings=BATCH, trust=TRUST)
        held = Held(stage)
        confirm(stage, "0")
        await asyncio.sleep(0.5)
        pausing = asyncio.create_task(worker.operate(COMMANDS["pause"], "acme", "ann", "why"))
        await asyncio.sleep(0.1)
        confirm(stage, "1", "2", "3", "4", "5", "6")
        await asyncio.sleep(0.5)
        held.let_one()
        await asyncio.sleep(0.5)
        assert workload(worker)._taking.ahead is None
        held.open()
        await pausing
        await asyncio.sleep(0.5)
        assert stage.next_offset(0) == 8
        await worker.stop()

    play(story)


def test_what_jobs_have_is_of_orders_as_they_are_committed() -> None:
    """It is written before any event that its orders get ahead, and neither is lost."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        held.open()
        confirm(stage, "0")
        await asyncio.sleep(0.5)
        held, jobs = Held(stage), workload(worker).jobs
        assert jobs is not None
        confirm(stage, "1", "2", "3", "4")
        append(stage, "0", "items_shipped", SHIPPED)
        await asyncio.sleep(0.5)
        assert ahead(worker) == ["acme/0"]
        changes = [JobChange("j:acme:report", b"", {"acme/0": b"memory"})]
        jobs.changes = lambda: [changes.pop()] if changes else []  # type: ignore[method-assign]
        held.open()
        await asyncio.sleep(0.5)
        after = record(stage, "0")
        assert (bytes(after.remote), len(after.facts.shipments), after.revision) == (b"memory", 1, 6)

    tell(story)


def test_what_is_worked_into_the_batch_ahead_later_happens_later() -> None:
    """However long a commit takes: the delay of an attempt that failed begins when that is written."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        held.open()
        stage.provider.answer([Answer(429, {"Retry-After": "60"})])
        stage.tell_shipped("0")
        held = Held(stage)
        held.let_one()
        confirm(stage, "1", "2", "3", "4", "5", "6", "7", "8")
        await asyncio.sleep(0.5)
        assert told(stage) == ["0"]
        assert ahead(worker)
        await asyncio.sleep(15.0)
        held.open()
        await asyncio.sleep(0.5)
        assert record(stage, "0").not_before_ms >= stage.clock.wall_ms() + 59_000

    tell(story)


def test_broken_record_is_found_when_its_event_is_taken() -> None:
    """To have met it ahead does nothing to what is committed meanwhile."""

    async def story(stage: Stage, held: Held, worker: Worker) -> None:
        held.open()
        confirm(stage, "0")
        await asyncio.sleep(0.5)
        held, here = Held(stage), workload(worker)
        here.orders.put("acme/0", b"broken")
        confirm(stage, "1", "2", "3", "4", "5")
        append(stage, "0", "items_shipped", SHIPPED)
        await asyncio.sleep(0.5)
        assert here._taking.ahead is None
        held.open()
        await asyncio.sleep(0.5)
        assert (stage.next_offset(0), events(worker), stage.roles(worker)) == (5, 5, {0: "halted", 1: "serving"})

    tell(story)


# --- how much ---


def test_batch_ahead_is_bounded_in_bytes() -> None:
    """As any batch, for it takes memory; the mail does not have to wait until the input is caught up with."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        confirm(stage, "1")
        await asyncio.sleep(0.5)
        held = Held(stage)
        for _ in range(40):
            stage.log.append(b"k", b"x" * 900_000, partition=0)
        await asyncio.sleep(0.5)
        found = workload(worker)._taking.ahead
        assert found is not None
        assert 8 * MIB <= found.size < 9 * MIB
        resending = asyncio.create_task(worker.operate(COMMANDS["resend"], "acme/1"))
        await asyncio.sleep(0.1)
        held.let_one()
        held.let_one()
        await asyncio.sleep(0.1)
        assert resending.done()
        held.open()
        await asyncio.sleep(1.0)
        assert len(stage.log.dead_letters) == 40
        await worker.stop()

    play(story)


def test_what_is_ahead_is_cut_off_where_the_commit_ends() -> None:
    """The next transaction goes on behind it, and takes what is behind that: each event once, in its order."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1", settings={"max_batch_records": 500})
        worker._context.limits = replace(worker._context.limits, ahead_slice_s=0.0)
        goes_on: list[tuple[int, int]] = []
        here = workload(worker)
        fill = here.fill

        async def fill_and_tell(*args: Any) -> Batch:
            begun = ahead(worker)
            batch = await fill(*args)
            goes_on.append((len(begun), len(batch.changed)))
            return batch

        here.fill = fill_and_tell  # type: ignore[assignment, method-assign]
        confirm(stage, *map(str, range(2_000)))
        await asyncio.sleep(5.0)
        assert [0 < begun < 500 for begun, _ in goes_on[:4]] == [False, True, True, True]
        assert all(changed >= 500 for _, changed in goes_on[:4])
        assert [record(stage, str(number)).revision for number in range(2_000)] == list(range(1, 2_001))
        assert events(worker) == 2_000
        await worker.stop()

    play(story)
