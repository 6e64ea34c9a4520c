"""One transaction in the making: decisions count only for the record that they were made on."""

import asyncio

from schemas import state
from schemas.state import OrderRecord
from schemas.updates import Account
from worker.core import outbox as core
from worker.core.outbox import Addressee, ParkIt, Same
from worker.core.rules import Rules
from worker.metrics import Metrics
from worker.partition.batch import Batch, Change
from worker.partition.context import Context, Pace
from worker.providers.sequra import Sequra
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, run

SUBJECT = "acme/1"


def batch_of(record: OrderRecord) -> tuple[Batch, dict[str, bytes]]:
    """A batch over one committed order."""
    clock = VirtualClock(asyncio.get_running_loop())
    log = MemoryLog(1, clock)
    account = Account("acme", "sequra", "acme", "https://x", "u", "p")
    context = Context(
        owner_id="w",
        version="0",
        rules=Rules(),
        pace=Pace(),
        clock=clock,
        events=log.events("w"),
        dispatcher=None,  # type: ignore[arg-type]
        addressees={"acme": Addressee(account, Sequra())},
        metrics=Metrics(),
    )
    orders = {SUBJECT: state.encode(record)}
    return Batch(0, orders, context, 0, 1_000_000), orders


def committed(batch: Batch) -> OrderRecord:
    """The order as the transaction would write it."""
    [(_, value)] = batch.entries()
    assert value is not None
    return state.decode_order(value)


def test_a_decision_before_a_resend_does_not_acknowledge() -> None:
    """Decided on the record before an operator's resend: the resend stands, nothing is taken for told."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        stale = Change(SUBJECT, orders[SUBJECT], Same(b"digest"))
        resent = OrderRecord(revision=7, acked=5)
        core.resend(resent, 1)
        orders[SUBJECT] = state.encode(resent)
        batch.change(stale)
        assert batch.entries() == []

    run(main())


def test_a_decision_beside_an_operators_command_is_dropped() -> None:
    """In one batch what was asked of the order comes first, whatever was decided before."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        batch.command(SUBJECT, core.resend)
        batch.change(Change(SUBJECT, orders[SUBJECT], ParkIt("no", b"digest")))
        assert committed(batch).park is None

    run(main())


def test_a_decision_on_the_committed_record_counts() -> None:
    """The usual case: what the provider holds already is acknowledged without a call."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        batch.change(Change(SUBJECT, orders[SUBJECT], Same(b"digest")))
        after = committed(batch)
        assert (after.acked, after.acked_digest) == (7, b"digest")

    run(main())


class Record:
    """A record of the input."""

    offset = 3
    key = b"k"
    value = b"{}"
    headers = (("ce_specversion", b"1.0"), ("ce_id", None))
    timestamp = 0


def test_a_null_header_is_refused_like_a_missing_one() -> None:
    """Kafka allows headers without a value: such a record is a dead letter, not the end of its partition."""

    async def main() -> None:
        batch, _ = batch_of(OrderRecord(revision=7, acked=7))
        batch.event(Record(), lambda _subject: False)  # type: ignore[arg-type]
        [letter] = batch.dead_letters
        assert ("x-dlq-reason", b"not_cloudevents") in letter.headers
        assert "ce_id" in dict(letter.headers)
        assert batch.next_offset == 4

    run(main())
