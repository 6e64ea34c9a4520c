"""Operators' events in a transaction: what they leave behind, and that one which is refused leaves nothing."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import history, state
from schemas.facts import seal_facts
from schemas.history import KEPT
from schemas.state import OrderRecord, Parking
from tests.shops.events import TRUST, confirmed, fold, goods, log, shipped
from tests.unit.orders.test_batch import SUBJECT, Written, batch_of, committed, take
from worker.core.commands import COMMANDS
from worker.core.operator_event import operator_event
from worker.core.results import Reporting
from worker.orders.batch import Batch
from worker.orders.encoding import OVERHEAD_BYTES
from worker.ownership.workload import Sizes
from worker.sim.loop import run

LARGEST = 1_000_000


def parked(reason: str = "no") -> OrderRecord:
    """An order that its provider refuses."""
    facts = fold(log(confirmed(goods("A", 1, 100)), shipped("s1", A=1)))
    return OrderRecord(revision=7, acked=5, sealed=seal_facts(facts), park=Parking(reason, b"d", 7, 1), entries=3)


def batch_over(record: OrderRecord, value_max: int = LARGEST) -> Batch:
    """One that keeps histories and tells results."""
    batch, orders = batch_of(record)
    context = batch._context
    context.keeps_history, context.reporting = True, Reporting("/cartsync")
    return Batch(0, orders, context, 0, Sizes(value_max, LARGEST, LARGEST))


def asked(command: str, number: int = 9) -> Written:
    """An operator's event."""
    made = operator_event(
        COMMANDS[command],
        SUBJECT,
        event_id=f"e{number}",
        by="ana",
        why="ticket 4711",
        now_ms=1_800_000_000_000,
        trust=TRUST,
        placing=None,
    )
    return Written(number, made.key, made.value, tuple(made.headers))


def names_of(batch: Batch) -> list[str]:
    """The lines of the log."""
    return [name for name, _ in batch.happened.notes]


def types_of(batch: Batch) -> list[str]:
    """The results."""
    return [json.loads(result.value)["type"] for result in batch.results]


def test_order_is_written_once_with_all_that_is_noted_in_it() -> None:
    """Its entry is counted, its result is remembered, and who did it is: all in the value that was judged."""

    async def main() -> None:
        batch = batch_over(parked())
        take(batch, asked("release"))
        after = committed(batch)
        assert (after.park, after.entries, [deed.by for deed in after.operated]) == (None, 4, ["ana"])
        assert after.told is not None
        assert after.told.status == "owed"
        assert types_of(batch) == ["cartsync.operated", "cartsync.order_changed"]
        assert [subject for subject, _ in batch.operated] == [SUBJECT]
        assert names_of(batch) == ["order_changed_by_operator"]
        take(batch, replace(asked("release"), offset=10))
        assert after.entries == committed(batch).entries

    run(main())


def test_forget_erases_the_history() -> None:
    """All of it, whatever its length, before what it says itself is written."""

    async def main() -> None:
        batch = batch_over(parked())
        take(batch, asked("forget"))
        left = dict(batch.history)
        assert len(left) == KEPT
        assert [key for key, value in left.items() if value is not None] == [history.key_of(SUBJECT, 4)]

    run(main())


def test_event_that_would_make_its_order_too_large_leaves_a_dead_letter_alone() -> None:
    """Nothing is written, told or noted of it, and nobody who waits for it hears that it is done."""

    async def main() -> None:
        record = parked()
        batch = batch_over(record, len(state.encode(record)) + OVERHEAD_BYTES + len(SUBJECT) + 50)
        take(batch, asked("forget"))
        assert len(batch.dead_letters) == 1
        assert (batch.entries(), batch.history, batch.results, batch.operated) == ([], [], [], [])
        assert names_of(batch) == ["event_refused"]

    run(main())


@pytest.mark.parametrize("command", ["release", "resend"])
def test_command_without_an_event(command: str) -> None:
    """The log and the history say which it was."""

    async def main() -> None:
        batch = batch_over(parked())
        assert batch.command(SUBJECT, COMMANDS[command])
        fields: dict[str, Any] = dict(batch.happened.notes)["order_changed_by_operator"]
        assert fields["command"] == command
        [(_, value)] = batch.history
        assert value is not None
        entry = history.decode(value)
        assert entry is not None
        assert (entry.kind, entry.what, entry.by) == ("operator", command, "")

    run(main())
