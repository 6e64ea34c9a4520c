"""One transaction in the making: decisions count only for the record that they were made on."""

import asyncio
import json

import msgspec
from msgspec import Struct

from schemas import state
from schemas.state import OrderRecord
from schemas.updates import Account
from worker import logs
from worker.core import outbox as core
from worker.core.outbox import Addressee, ParkIt, Same
from worker.core.placing import Placing
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


class Written(Struct):
    """A record of the input."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0


def written(number: int, kind: str, data: dict[str, object], key: bytes = b"k", **attributes: str) -> Written:
    """An event of the order."""
    event = {"specversion": "1.0", "id": f"{number}", "source": "/s", "type": kind, "subject": SUBJECT, "data": data}
    event |= {"time": f"2026-01-01T00:00:{number:02}Z", **attributes}
    return Written(number, key, msgspec.json.encode(event))


LINE = {"reference": "a", "name": "A", "quantity": 2, "unit_price_minor": 100, "total_minor": 200}
CONFIRMED = written(1, "order.confirmed", {"currency": "EUR", "lines": [LINE]})
REFUNDED_THERE = written(2, "order.refunded", {"refund_id": "f", "amount_minor": 5}, b"other", origin="sequra")


def said(*records: Written) -> tuple[list[dict[str, object]], Metrics]:
    """What is logged, and counted, of a batch with these records."""

    async def main() -> Metrics:
        batch, orders = batch_of(OrderRecord())
        orders.clear()
        for record in records:
            batch.event(record, lambda _subject: False)
        await batch.announce()
        return batch._context.metrics

    lines: list[str] = []
    with logs.capture(lines, "info"):
        metrics = run(main())
    return [json.loads(line) for line in lines], metrics


def test_change_that_is_not_sent_says_so() -> None:
    """What is acknowledged because of its origin is logged with the provider's name, and counted by account."""
    lines, metrics = said(CONFIRMED, REFUNDED_THERE)
    [settled] = [line for line in lines if line["event"] == "order_settled"]
    assert (settled["order"], settled["made_at"], settled["revision"]) == (SUBJECT, "sequra", 3)
    assert metrics.value("cartsync_origin_acknowledged_total", account="acme") == 1


def test_changed_key_says_so() -> None:
    """The first event under another key is logged and counted, without the key; further ones are not."""
    lines, metrics = said(CONFIRMED, REFUNDED_THERE, written(3, "order.cancelled", {}, b"third"))
    assert [line["order"] for line in lines if line["event"] == "order_key_changed"] == [SUBJECT]
    assert metrics.value("cartsync_order_keys_changed_total") == 1


def test_types_that_look_like_ours_are_told_of_once() -> None:
    """They are counted apart; one line says how many and, of a name, which."""
    foreign = [written(number, "com.acme.order.confirmed", {}) for number in range(5)]
    lines, metrics = said(*foreign, written(9, "stock.counted", {}))
    assert [(line["event"], line["count"], line["type"]) for line in lines] == [
        ("events_skipped", 5, "com.acme.order.confirmed")
    ]
    assert metrics.value("cartsync_events_total", result="lookalike") == 5
    assert metrics.value("cartsync_events_total", result="skipped") == 1


def test_such_a_line_comes_once_in_a_while() -> None:
    """Not with every transaction."""

    async def main() -> None:
        batch, _ = batch_of(OrderRecord())
        context = batch._context
        for number in range(3):
            following = Batch(0, {}, context, number, 1_000_000)
            following.event(written(number, "com.acme.order.confirmed", {}), lambda _subject: False)
            await following.announce()
            await asyncio.sleep(40.0)

    lines: list[str] = []
    with logs.capture(lines, "info"):
        run(main())
    assert len(lines) == 2


def test_key_and_partition_are_checked_when_they_are_told() -> None:
    """A record that does not lie where the shop's partitioner puts it is refused like any other."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord())
        orders.clear()
        context = batch._context
        context.placing, context.topic_partitions = Placing("crc32"), 1
        batch.event(CONFIRMED, lambda _subject: False)
        [letter] = batch.dead_letters
        assert dict(letter.headers)["x-dlq-reason"] == b"wrong_partition"
        batch.event(written(3, "order.cancelled", {}, SUBJECT.encode()), lambda _subject: False)
        assert len(batch.dead_letters) == 1

    run(main())
