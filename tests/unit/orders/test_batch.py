"""One transaction in the making: decisions count only for the record that they were made on."""

import asyncio
import json
from hashlib import blake2b
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from schemas import state
from schemas.events import CancelledData
from schemas.facts import SHIPMENTS, Shipment, seal_facts
from schemas.state import OrderRecord
from tests.shops.events import TRUST, confirmed, fold, goods, items_cancelled, log, shipped
from worker import logs
from worker.core import record as records
from worker.core.commands import COMMANDS
from worker.core.intake import decode
from worker.core.order import assess
from worker.core.outbox_effects import Decide
from worker.core.placing import Placing
from worker.core.plan import Acknowledge, Park, Wait
from worker.core.policy import DeliveryPolicy
from worker.core.trust import HEADER
from worker.metrics import Metrics
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.provider import Destination, Update
from worker.orders.batch import Batch
from worker.orders.context import OrderContext
from worker.ownership.context import BatchLimits
from worker.ownership.workload import Sizes
from worker.ports import Attempt, InputRecord, UndecodableRecord
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, run
from worker.store.memory import MemoryOrders

SUBJECT = "acme/1"


SIZES = Sizes(1_000_000, 1_000_000, 1_000_000)


def take(batch: Batch, *records: InputRecord) -> int:
    """How many of the records it takes, of orders of which no attempt is in flight."""
    return batch.events(records, lambda _subject: False, 1_000_000)


def batch_of(record: OrderRecord) -> tuple[Batch, MemoryOrders]:
    """A batch over one committed order."""
    clock = VirtualClock(asyncio.get_running_loop())
    log = MemoryLog(1, clock)
    account = SequraAccount("acme", "sequra", "https://x", "acme", "u", "p")
    context = OrderContext(
        owner_id="w",
        version="0",
        rules=DeliveryPolicy(),
        limits=BatchLimits(),
        clock=clock,
        events=log.events("w"),
        dispatcher=None,  # type: ignore[arg-type]
        destinations={"acme": Destination(account, Sequra())},
        metrics=Metrics(),
        trust=TRUST,
        make_table=lambda _partition: MemoryOrders(),
    )
    orders = MemoryOrders({SUBJECT: state.encode(record)})
    return Batch(0, orders, context, 0, SIZES), orders


def committed(batch: Batch) -> OrderRecord:
    """The order as the transaction would write it."""
    [(_, value)] = batch.entries()
    assert value is not None
    return state.decode_order(value)


def test_a_decision_before_a_resend_does_not_acknowledge() -> None:
    """Decided on the record before an operator's resend: the resend stands, nothing is taken for told."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        stale = Decide(SUBJECT, orders[SUBJECT], Acknowledge(b"digest"))
        orders[SUBJECT] = state.encode(records.resend(OrderRecord(revision=7, acked=5), 1))
        batch.decide(stale)
        assert batch.entries() == []

    run(main())


def test_a_decision_beside_an_operators_command_is_dropped() -> None:
    """In one batch what was asked of the order comes first, whatever was decided before."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        batch.command(SUBJECT, COMMANDS["resend"])
        batch.decide(Decide(SUBJECT, orders[SUBJECT], Park("no", b"digest")))
        assert committed(batch).park is None

    run(main())


def test_a_decision_on_the_committed_record_counts() -> None:
    """The usual case: what the provider holds already is acknowledged without a call."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        batch.decide(Decide(SUBJECT, orders[SUBJECT], Acknowledge(b"digest")))
        after = committed(batch)
        assert (after.acked, after.acked_digest) == (7, b"digest")

    run(main())


def test_what_reading_has_found_becomes_a_fact() -> None:
    """A cancellation that was made at the provider: the carts follow in the transaction of the outcome."""

    async def main() -> None:
        facts = fold(log(confirmed(goods("A", 1, 100))))
        batch, _ = batch_of(OrderRecord(revision=7, acked=5, sealed=seal_facts(facts)))
        attempt = Attempt(SUBJECT, 7, Update(b"digest", None, msgspec.Raw(b"null")), 0.0, lambda: True)
        found = Outcome(OutcomeKind.APPLIED, "", 200, found=CancelledData(by="provider"))
        batch.outcome(attempt, found, 1.0)
        after = committed(batch)
        assert (after.acked, after.facts.confirmation) == (7, facts.confirmation)
        assert after.facts.cancellation_now is not None
        assert after.facts.cancellation_now.by == "provider"
        order = assess(after.facts, "1").order
        assert order is not None
        assert (order.shipped.items, order.unshipped.items) == ([], [])

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
        take(batch, Record())  # type: ignore[arg-type]
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
            take(batch, record)
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
    assert settled["event_id"] == "2"
    assert metrics.value("cartsync_origin_acknowledged_total", account="acme") == 1


def test_what_a_provider_says_is_no_change_that_is_not_sent() -> None:
    """It is acknowledged as it comes, and nobody is told that it was not sent; a cancellation there is such a change."""

    def told(number: int, kind: str, data: dict[str, object]) -> Written:
        value = written(number, f"provider.{kind}", data).value or b""
        return Written(number, b"k", value, ((HEADER, TRUST.sign(b"k", value)),))

    refund, risk, end = REFUNDED_THERE, told(5, "risk", {"level": "x"}), told(6, "cancelled", {"by": "provider"})
    lines, metrics = said(CONFIRMED, refund, risk, end)
    assert [line["event_id"] for line in lines if line["event"] == "order_settled"] == ["2", "6"]
    assert metrics.value("cartsync_origin_acknowledged_total", account="acme") == 2
    assert metrics.value("cartsync_events_total", result="changed") == 4


def test_who_is_not_believed_is_counted() -> None:
    """As any record that is refused; one of an operator, too."""
    forged = (written(number, kind, {}) for number, kind in enumerate(("provider.cancel_asked", "operator.release"), 2))
    lines, metrics = said(CONFIRMED, *forged)
    assert [line["reason"] for line in lines if line["event"] == "event_refused"] == ["not_trusted"] * 2
    assert metrics.value("cartsync_dlq_total", reason="not_trusted") == 2


def test_changed_key_says_so() -> None:
    """The first event under another key is logged and counted, without the key; further ones are not."""
    lines, metrics = said(CONFIRMED, REFUNDED_THERE, written(3, "order.cancelled", {}, b"third"))
    assert [line["order"] for line in lines if line["event"] == "order_key_changed"] == [SUBJECT]
    assert metrics.value("cartsync_order_keys_changed_total") == 1


def refused(*records: Written) -> list[dict[str, object]]:
    """What is logged of records that are refused."""
    lines, _ = said(*records)
    return [line for line in lines if line["event"] == "event_refused"]


SURPLUS: dict[str, object] = {"currency": "EUR", "lines": [LINE], "mail": "ada@example.com"}


def test_refused_event_can_be_found_again() -> None:
    """Where it lies, its id and its order, in both modes; never anything else of it."""
    bad = written(4, "order.confirmed", SURPLUS, id="shop:7c1f")
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"b-1"), ("ce_source", b"/s"), ("ce_subject", b"acme/9"))
    found = refused(bad, Written(5, b"k", b"{}", (*headers, ("ce_type", b"order.cancelled"))))
    assert [(line["partition"], line["offset"], line["event_id"], line["order"]) for line in found] == [
        (0, 4, "shop:7c1f", "acme/1"),
        (0, 5, "b-1", "acme/9"),
    ]
    assert "ada" not in str(found)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"id": "Ada Lovelace <ada@example.com>"}, {"event_id": "HEX", "order": "acme/1"}),
        ({"id": "x" * 300}, {"event_id": "x" * 100, "order": "acme/1"}),
        ({"id": ""}, {"order": "acme/1"}),
        ({"subject": "acme/../1"}, {"event_id": "4"}),
        ({"subject": "Ada Lovelace"}, {"event_id": "4"}),
        ({"subject": 7, "id": 8}, {}),
        ({"id": "\ud800"}, {}),
    ],
)
def test_what_is_said_of_a_refused_event(attributes: dict[str, object], expected: dict[str, str]) -> None:
    """An id that looks like one, else digits that stand for it; a subject only if it is a valid one."""
    event = json.loads(written(4, "order.confirmed", SURPLUS).value or b"") | attributes
    [line] = refused(Written(4, b"k", json.dumps(event).encode()))
    if expected.get("event_id") == "HEX":
        expected = expected | {"event_id": blake2b(b"2 /s" + str(attributes["id"]).encode(), digest_size=8).hexdigest()}
    assert {name: line[name] for name in ("event_id", "order") if name in line} == expected


@pytest.mark.parametrize("value", [b"[", b"no json", b"[" * 100_000, b"7", b"\xff", b" " * (1 << 20 | 1)])
def test_what_cannot_be_read_is_refused_without_a_name(value: bytes) -> None:
    """Nothing is made up, and nothing large is looked into."""
    [line] = refused(Written(4, b"k", value))
    assert (line["offset"], "event_id" in line, "order" in line) == (4, False, False)


def test_members_that_are_not_utf8_are_not_read() -> None:
    """Each is looked at for itself: the others are."""
    value = (written(4, "order.confirmed", SURPLUS).value or b"").replace(b'"/s"', b'"/\xf1"')
    assert [(line["reason"], line["event_id"], line["order"]) for line in refused(Written(4, b"k", value))] == [
        ("not_utf8", "4", "acme/1")
    ]
    value = value.replace(b'"4"', b'"\xf1"').replace(b'"acme/1"', b'"acme/\xf1"')
    [line] = refused(Written(4, b"k", value))
    assert (line["reason"], "event_id" in line, "order" in line) == ("not_utf8", False, False)


def test_unreadable_header_leaves_the_rest_readable() -> None:
    """A record that no client decodes whole, and a batch of such."""
    value = written(4, "order.confirmed", SURPLUS).value
    one = UndecodableRecord(4, 4, 0, "a header", b"k", value, names=(b"\xff",))
    many = UndecodableRecord(5, 9, 0, "a batch", value=value, is_batch=True)
    found = refused(one, many)  # type: ignore[arg-type]
    assert [line.get("event_id") for line in found] == ["4", None]


def test_account_that_nobody_configured_is_named_at_its_first_event() -> None:
    """Once, and with nothing of the order."""
    records = [written(n, "order.cancelled", {}, subject=f"{'other' if n < 4 else 'acme'}/{n % 2}") for n in range(6)]
    lines, _ = said(*records)
    assert [(line["event"], line["account"], line["level"]) for line in lines if "account" in line] == [
        ("account_not_configured", "other", "warning")
    ]


def test_accounts_that_events_make_up_flood_no_log() -> None:
    """So many lines, and a count of the others; so many names are remembered."""
    lines, _ = said(*(written(n, "order.cancelled", {}, subject=f"made-up-{n}/1") for n in range(1_500)))
    assert len([line for line in lines if line["event"] == "account_not_configured"]) == logs.SAMPLE_FIRST


WAITS = [("inconsistent", True, "warning"), ("on_hold", False, "info")]


@pytest.mark.parametrize(("status", "contradicts", "level"), WAITS)
def test_order_that_waits_says_for_what(status: Any, contradicts: bool, level: str) -> None:
    """One name for all of them, and the event that it is about."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord())
        event = decode(b"k", CONFIRMED.value, {}, 0)
        assert event is not None
        record = records.apply_event(OrderRecord(), event, position=1, revision=2, now_ms=1, destination=None)
        record.inconsistent_since_ms = int(not contradicts)
        orders[SUBJECT] = state.encode(record)
        batch.decide(Decide(SUBJECT, orders[SUBJECT], Wait(status, [], contradicts)))
        await batch.announce()

    lines: list[str] = []
    with logs.capture(lines, "info"):
        run(main())
    [line] = [json.loads(line) for line in lines]
    assert (line["event"], line["status"], line["level"]) == ("order_waiting", status, level)
    assert (line["order"], line["revision"], line["event_id"]) == (SUBJECT, 2, "1")


def test_types_that_look_like_ours_are_told_of_once() -> None:
    """They are counted apart; one line says how many and, of a name, which."""
    foreign = [written(number, "com.acme.order.confirmed", {}) for number in range(5)]
    lines, metrics = said(*foreign, written(9, "stock.counted", {}))
    assert [(line["event"], line["count"], line["type"]) for line in lines] == [
        ("events_skipped", 5, "com.acme.order.confirmed")
    ]
    assert metrics.value("cartsync_events_total", result="lookalike") == 5
    assert metrics.value("cartsync_events_total", result="skipped") == 1


def shipment(number: int, name: str) -> Written:
    """One more of the order's shipments."""
    return written(number, "order.items_shipped", {"shipment_id": name, "lines": [{"line_id": "a", "quantity": 1}]})


def test_records_that_a_full_batch_leaves_come_first_the_next_time() -> None:
    """It takes one at least; what it has decoded and not taken is taken then, and none twice."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord())
        orders.clear()
        log = [CONFIRMED, shipment(2, "s1"), written(3, "com.acme.x", {}), shipment(4, "s2"), Written(5, b"k", b"x")]
        taken = []
        while log:
            taken.append(batch.events(log, lambda _subject: False, 1))
            log = log[taken[-1] :]
        assert taken == [1] * 5
        assert [*batch.record(SUBJECT).facts.shipments] == ["s1", "s2"]
        assert (len(batch.dead_letters), batch.next_offset) == (1, 6)
        assert batch.last_record is not None
        assert batch.last_record.offset == 5

    run(main())


def test_other_records_than_were_left_are_decoded_themselves() -> None:
    """The inbox may hold others by then: what was decoded of those that are gone plays no part."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord())
        orders.clear()
        assert batch.events([CONFIRMED, shipment(2, "s1")], lambda _subject: False, 1) == 1
        assert take(batch, shipment(7, "s7"), shipment(6, "s6")) == 2
        assert [*batch.record(SUBJECT).facts.shipments] == ["s7"], "6 lies before the position by then"
        assert batch.next_offset == 8

    run(main())


def test_such_a_line_comes_once_in_a_while() -> None:
    """Not with every transaction."""

    async def main() -> None:
        batch, _ = batch_of(OrderRecord())
        context = batch._context
        for number in range(3):
            following = Batch(0, MemoryOrders(), context, number, SIZES)
            take(following, written(number, "com.acme.order.confirmed", {}))
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
        take(batch, CONFIRMED)
        [letter] = batch.dead_letters
        assert dict(letter.headers)["x-dlq-reason"] == b"wrong_partition"
        take(batch, written(3, "order.cancelled", {}, SUBJECT.encode()))
        assert len(batch.dead_letters) == 1

    run(main())


def test_what_is_found_against_the_facts_is_looked_at() -> None:
    """Cancelled there, while the shopper has the goods: it stays owed, so that somebody is told of the contradiction."""

    async def main() -> None:
        facts = fold(log(confirmed(goods("A", 1, 100)), shipped("s1", A=1)))
        batch, _ = batch_of(OrderRecord(revision=7, acked=5, sealed=seal_facts(facts)))
        attempt = Attempt(SUBJECT, 7, Update(b"digest", None, msgspec.Raw(b"null")), 0.0, lambda: True)
        batch.outcome(attempt, Outcome(OutcomeKind.APPLIED, "", 200, found=CancelledData(by="provider")), 1.0)
        after = committed(batch)
        assert (after.acked, after.park) == (5, None)

    run(main())


def test_what_cannot_be_told_is_looked_at_anew_once_it_was_found_cancelled() -> None:
    """Other facts, another payload: nothing is parked for the one of before. But only the first time: a shop whose
    clock is ahead may take it back for good.
    """

    async def main() -> None:
        facts = fold(log(confirmed(goods("A", 2, 200)), items_cancelled("c1", A=1)))
        batch, _ = batch_of(OrderRecord(revision=7, acked=5, sealed=seal_facts(facts)))
        attempt = Attempt(SUBJECT, 7, Update(b"digest", None, msgspec.Raw(b"null")), 0.0, lambda: True)
        found = Outcome(OutcomeKind.UNSUPPORTED, "no word for it", 200, found=CancelledData(by="provider"))
        batch.outcome(attempt, found, 1.0)
        after = committed(batch)
        assert (after.acked, after.park) == (5, None)
        assert after.not_before_ms <= batch._now_ms + 1
        batch.outcome(attempt, found, 2.0)
        parked = committed(batch).park
        assert parked is not None
        assert parked.unsupported

    run(main())


@pytest.mark.parametrize("size", [1_000_000, 998_900])
def test_what_an_adapter_keeps_is_bounded(size: int) -> None:
    """More than the topic takes, if only with the rest of the record: what it kept before stays, and the order is
    parked.
    """

    async def main() -> None:
        facts = fold(log(confirmed(goods("A", 1, 100)), shipped("s1", A=1)))
        batch, _ = batch_of(OrderRecord(revision=7, acked=5, sealed=seal_facts(facts), remote=b"before"))
        attempt = Attempt(SUBJECT, 7, Update(b"digest", None, msgspec.Raw(b"null")), 0.0, lambda: True)
        batch.outcome(attempt, Outcome(OutcomeKind.PENDING, "a capture", 200, 60.0, remote=b"x" * size), 1.0)
        after = committed(batch)
        assert (after.remote, after.may_land_late, after.remote_unknown) == (b"before", True, True)
        assert after.park is not None
        assert "the state topic takes 1000000" in after.park.reason

    run(main())


def test_events_of_an_order_at_the_limit_are_taken_a_few_at_a_time() -> None:
    """Each is refused, for its order would become too large; to find out takes as long as to take it, and others wait
    meanwhile. The transaction hardly grows by it.
    """

    async def main() -> None:
        full = OrderRecord(revision=7, acked=7)
        full.sealed.shipments = SHIPMENTS.seal(
            {f"s{number}": Shipment((-1, 1, number), None) for number in range(60_000)}
        )
        batch, _ = batch_of(full)
        size = len(state.encode(full))
        assert size > SIZES.value - 16_384
        sent = {"lines": [{"line_id": "A", "quantity": 1}]}
        left = [written(number, "order.items_shipped", sent | {"shipment_id": f"n{number}"}) for number in range(8, 40)]
        while left:
            count = take(batch, *left)
            assert count == 1
            left = left[count:]
        assert len(batch.dead_letters) == 32
        assert batch.size < size / 4

    run(main())
