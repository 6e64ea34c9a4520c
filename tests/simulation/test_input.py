"""A hostile or broken producer, in virtual time: what cannot be taken is put aside, a position can always be moved."""

import asyncio
import json
from typing import Any

import pytest

from schemas import state
from schemas.facts import SealedFacts
from tests.simulation.stage import Stage, order_event, play
from worker import logs
from worker.app import Worker
from worker.core.commands import COMMANDS
from worker.errors import UsageError
from worker.ports import DeadLetter
from worker.sim.scripted import Answer

LINE = {"reference": "a", "name": "A", "quantity": 2, "unit_price_minor": 100, "total_minor": 200}
MIB = 2**20


def ship(stage: Stage, reference: str, partition: int = 0) -> None:
    """An order is confirmed and a unit of it leaves: the provider is to be told."""
    confirmed = {"currency": "EUR", "lines": [LINE]}
    shipped = {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": 1}]}
    for kind, data in (("confirmed", confirmed), ("items_shipped", shipped)):
        stage.log.append(reference.encode(), order_event(reference, kind, data), partition=partition)


def told(stage: Stage, reference: str) -> bool:
    """Whether the provider holds the order."""
    return stage.provider.held(f"acme/{reference}") is not None


def said(letter: DeadLetter) -> dict[str, str]:
    """What is said of a dead letter."""
    return {name[6:]: text.decode() for name, text in letter.headers if name.startswith("x-dlq-")}


def lines(written: list[str], name: str) -> list[Any]:
    """The lines of one log event."""
    return [line for line in map(json.loads, written) if line["event"] == name]


def detail(worker: Worker, partition: int = 0) -> str:
    """What the status says of a partition."""
    return next(view.detail for view in worker.status().partitions if view.partition == partition)


# --- what cannot be decoded ---


def test_undecodable_record_is_put_aside() -> None:
    """A header name that is not UTF-8: the record is a dead letter with all that it holds, those behind it are taken."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        headers = [("a\ufffd", b"x"), ("good", b"y")]
        offset = stage.log.append_undecodable(
            0, "headers: not UTF-8", key=b"k", value=b"{}", headers=headers, names=[b"a\xff"]
        )
        ship(stage, "1")
        await asyncio.sleep(1.0)
        assert told(stage, "1")
        [letter] = stage.log.dead_letters
        assert (letter.key, letter.value, letter.headers[:2]) == (b"k", b"{}", headers)
        assert ("x-dlq-header-name", b"a\\xff") in letter.headers
        of = dict(letter.headers)
        assert of["x-dlq-reason"] == b"undecodable"
        assert of["x-dlq-detail"] == b"headers: not UTF-8"
        assert of["x-dlq-offset"] == b"%d" % offset
        assert worker.metrics.value("cartsync_dlq_total", reason="undecodable") == 1
        assert worker.readyz() == (True, "ok")
        await worker.stop()

    play(story)


def test_undecodable_batch_is_passed() -> None:
    """One letter names all offsets of a batch; what comes behind the batch is taken, also after a restart."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        first = stage.log.append_undecodable(0, "batch: too large", count=500, value=b"raw")
        await asyncio.sleep(1.0)
        assert worker.status().partitions[0].next_offset == first + 500
        await worker.stop()
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        assert told(stage, "1")
        [letter] = stage.log.dead_letters
        about = said(letter)
        assert (letter.value, about["offset"], about["last-offset"], about["content"]) == (b"raw", "0", "499", "batch")
        await worker.stop()

    play(story)


def test_batch_that_was_damaged_after_a_part_of_it_was_taken() -> None:
    """The next owner cannot read again what was taken last: that is no other topic, and the rest is put aside."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.stop()
        stage.log.damage_last(0, 3)
        worker = await stage.serving("w2")
        ship(stage, "2")
        await asyncio.sleep(1.0)
        assert worker.readyz() == (True, "ok")
        assert told(stage, "2")
        [letter] = stage.log.dead_letters
        assert (said(letter)["offset"], said(letter)["last-offset"]) == ("1", "3")
        await worker.stop()

    play(story)


@pytest.mark.parametrize(
    ("key", "size", "reason"), [(b"k", MIB + 1, "too_large"), (b"", 2, "no_key"), (b"k", 2, "undecodable")]
)
def test_first_reason_is_given(key: bytes, size: int, reason: str) -> None:
    """Of several reasons the first in the contract's order."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.log.append_undecodable(0, "headers: no", key=key, value=b"x" * size)
        await asyncio.sleep(1.0)
        assert [said(letter)["reason"] for letter in stage.log.dead_letters] == [reason]
        await worker.stop()

    play(story)


# --- letters that are too large ---


def test_letter_is_cut_to_what_its_topic_takes() -> None:
    """A value beyond the topic's limit is cut, and the letter says how large everything was; a smaller one is whole."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.log.limit_letters(1_000_000)  # just what its settings say
        stage.log.append(b"k", b"y" * 900_000, [("h", b"v")], partition=0)
        stage.log.append(b"key", b"x" * (3 * MIB), [("h", b"v")], partition=0)
        stage.log.append(b"k" * MIB, b"{", [("h", b"v" * MIB)], partition=0)
        written: list[str] = []
        with logs.capture(written):
            await asyncio.sleep(1.0)
        assert lines(written, "partition_lost") == []
        whole, value_cut, all_cut = stage.log.dead_letters
        assert len(whole.value or b"") == 900_000
        assert "truncated" not in said(whole)
        assert said(value_cut)["truncated"] == f"value {3 * MIB} bytes, key 3 bytes, 1 headers of 2 bytes"
        assert 990_000 < len(value_cut.value or b"") < 1_000_000
        assert (value_cut.key, value_cut.headers[0]) == (b"key", ("h", b"v"))
        assert said(all_cut)["truncated"] == f"value 1 bytes, key {MIB} bytes, 1 headers of {MIB + 1} bytes"
        assert (all_cut.key, all_cut.value, said(all_cut)["offset"]) == (b"k" * 1024, b"{", "2")
        await worker.stop()

    play(story)


def test_header_names_are_no_way_around_the_limit() -> None:
    """What is said of a record is bounded, however long its header names are."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        names = [b"\xff" * MIB] * 30
        headers = [("\ufffd" * MIB, b"")] * 30
        stage.log.append_undecodable(0, "headers: no", key=b"k", value=b"v", headers=headers, names=names)
        written: list[str] = []
        with logs.capture(written):
            await asyncio.sleep(1.0)
        assert lines(written, "partition_lost") == []
        [letter] = stage.log.dead_letters
        assert (letter.key, letter.value, len(letter.headers)) == (b"k", b"v", 8 + 10)
        assert sum(len(name.encode()) + len(content) for name, content in letter.headers) < 20_000
        await worker.stop()

    play(story)


def test_letter_that_kafka_refuses_is_written_without_its_value() -> None:
    """What is in front of the brokers may take less than they say: once is enough to learn it."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        stage.log.limit_letters(10_000)
        stage.log.append(b"k", b"x" * 50_000, [("h", b"v" * 50_000)], partition=0)
        ship(stage, "1")
        written: list[str] = []
        with logs.capture(written):
            await asyncio.sleep(5.0)
        assert told(stage, "1")
        assert len(lines(written, "partition_lost")) == 1
        [letter] = stage.log.dead_letters
        assert (letter.key, letter.value) == (b"k", None)
        assert said(letter)["truncated"] == "value 50000 bytes, key 1 bytes, 1 headers of 50001 bytes"
        stage.log.append(b"k", b"{", [("h", b"v")], partition=0)
        await asyncio.sleep(1.0)
        assert stage.log.dead_letters[1].value == b"{"  # it holds for those that were refused
        await worker.stop()

    play(story)


# --- a position that leads nowhere ---


def test_gap_halts_and_a_skip_serves_again() -> None:
    """A gap halts its partition: not ready, and why. A skip over it is committed, and events are taken again at once,
    without a restart; also by the next owner.
    """

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.stop()
        for number in range(5):
            stage.log.append(b"k", b"lost %d" % number, partition=0)
        stage.log.truncate(0, 6)
        worker = await stage.serving("w1")
        await asyncio.sleep(2.0)
        assert stage.roles(worker) == {0: "halted", 1: "serving"}
        ok, why = worker.readyz()
        assert not ok
        assert why.startswith("partition 0 is halted: offsets outside the topic")
        assert "input skip" in why
        ship(stage, "2")
        await asyncio.sleep(2.0)
        assert not told(stage, "2")
        assert await worker.skip(0, 6) == 2
        await asyncio.sleep(2.0)
        assert told(stage, "2")
        assert (stage.roles(worker), worker.readyz(), detail(worker)) == (
            {0: "serving", 1: "serving"},
            (True, "ok"),
            "",
        )
        await worker.stop()
        worker = await stage.serving("w2")
        ship(stage, "3")
        await asyncio.sleep(2.0)
        assert told(stage, "3")
        assert worker.readyz() == (True, "ok")
        await worker.stop()

    play(story)


def test_skip_of_a_partition_that_serves() -> None:
    """What lies between is never taken, what had been fetched of it included."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        blocked = asyncio.Event()

        async def gate(op: str, _process: str, partition: int) -> None:
            if op == "write" and partition == 0 and not blocked.is_set():
                await blocked.wait()

        stage.log.gate = gate
        ship(stage, "0")
        await asyncio.sleep(0.5)
        for reference in ("1", "2", "3"):
            ship(stage, reference)
        await asyncio.sleep(0.5)
        skipping = asyncio.create_task(worker.skip(0, 6))
        await asyncio.sleep(0.5)
        blocked.set()
        await skipping
        await asyncio.sleep(2.0)
        assert [told(stage, reference) for reference in "0123"] == [True, False, False, True]
        assert worker.status().partitions[0].next_offset == 8
        await worker.stop()

    play(story)


@pytest.mark.parametrize(
    ("offset", "why"),
    [
        (1, "holds offsets 2 to 4, not 1"),
        (5, "holds offsets 2 to 4, not 5"),
        (4, "at offset 4 already"),
        (2, "back to 2"),
    ],
)
def test_skip_that_is_refused(offset: int, why: str) -> None:
    """Not to where the topic holds nothing, not to nowhere, and not back: revisions would go back."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        ship(stage, "2")
        await asyncio.sleep(1.0)
        stage.log.truncate(0, 2)
        with pytest.raises(UsageError, match=why):
            await worker.skip(0, offset)
        with pytest.raises(UsageError, match="not served by this worker"):
            await worker.skip(7, 1)
        await worker.stop()

    play(story)


def test_skip_back_after_the_epoch_was_raised() -> None:
    """With a new epoch every revision is newer than all before it: events are read again, and change nothing."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.stop()
        worker = stage.worker("w1", {"topic_epoch": 1})
        await worker.start()
        await worker.serving()
        assert await worker.skip(0, 0) == 2
        await asyncio.sleep(1.0)
        assert worker.status().partitions[0].next_offset == 2
        assert len(stage.provider.exchanges) == 1
        await worker.stop()

    play(story)


def _gated(stage: Stage) -> asyncio.Event:
    """Transactions of partition 0 wait until it is set."""
    opened = asyncio.Event()

    async def gate(op: str, _process: str, partition: int) -> None:
        if op == "write" and partition == 0:
            await opened.wait()

    stage.log.gate = gate
    return opened


def test_skip_that_nobody_waits_for_any_more() -> None:
    """Who asked has given up before it was committed: it is made all the same, and the worker goes on."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        opened = _gated(stage)
        ship(stage, "1")
        await asyncio.sleep(0.5)
        skipping = asyncio.create_task(worker.skip(0, 2))
        await asyncio.sleep(0.5)
        skipping.cancel()
        opened.set()
        ship(stage, "2")
        await asyncio.sleep(2.0)
        assert not worker.failed.done()
        assert told(stage, "2")
        await worker.stop()

    play(story)


@pytest.mark.parametrize("offset", [0, 3])
def test_skip_over_what_is_being_taken(offset: int) -> None:
    """When events are committed between the look and the move, over which it would go back, it is refused."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.stop()
        worker = stage.worker("w1", {"topic_epoch": 1})
        await worker.start()
        await worker.serving()
        opened = _gated(stage)
        ship(stage, "2")
        await asyncio.sleep(0.5)
        skipping = asyncio.create_task(worker.skip(0, offset))
        await asyncio.sleep(0.5)
        opened.set()
        with pytest.raises(UsageError, match="has come to offset 4 meanwhile; ask again"):
            await skipping
        await asyncio.sleep(1.0)
        assert worker.status().partitions[0].next_offset == 4
        assert told(stage, "2")
        await worker.stop()

    play(story)


# --- foreign records in the state topic ---

FOREIGN = {
    "garbage at an order": (b"o:acme/1", b"x"),
    "nothing at an order": (b"o:acme/1", b""),
    "a key that is not UTF-8": (b"o:acme/\xff", b"x"),
    "the position": (state.NEXT_KEY, b"x"),
    "the owner": (state.OWNER_KEY, b"x"),
    "the facts of an order": (b"o:acme/1", state.encode(state.OrderRecord(sealed="x"))),  # type: ignore[arg-type]
    "a map of facts that is cut short": (
        b"o:acme/1",
        state.encode(state.OrderRecord(sealed=SealedFacts(deliveries=b"\xdf\x00"))),
    ),
    "a map of facts that is none": (
        b"o:acme/1",
        state.encode(state.OrderRecord(sealed=SealedFacts(deliveries=b"hello world"))),
    ),
    "a text that is not UTF-8": (
        b"o:acme/1",
        state.encode(state.OrderRecord(trace="x\u00e9")).replace("\u00e9".encode(), b"\xff\xfe"),
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_record_halts_its_partition_only(kind: str) -> None:
    """It is named, its partition halts, others serve on, no worker ends; mended, the partition is served again."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.stop()
        mended = {entry.key: entry.value for entry in stage.log.entries(0)}
        key, value = FOREIGN[kind]
        offset = stage.log.write_foreign(0, key, value)
        worker = await stage.serving("w2")
        ship(stage, "good", partition=1)
        stage.log.append(
            b"k",
            order_event("1", "items_delivered", {"shipment_id": "s1", "delivered_at": "2026-01-01T00:00:00Z"}),
            partition=0,
        )
        await asyncio.sleep(30.0)
        assert told(stage, "good")
        assert stage.roles(worker) == {0: "halted", 1: "serving"}
        ok, why = worker.readyz()
        assert not ok
        what = "of an order" if key.startswith(b"o:") else f"with the key {key.decode()}"
        assert f"partition 0 of the state topic: the record at offset {offset}, {what}, is not one that" in why
        assert not worker.failed.done()
        if kind != "the position":
            with pytest.raises(UsageError, match="partition 0 is halted"):
                await worker.skip(0, 1)
        if kind != "the owner":  # that one our own barrier mends
            stage.log.write_foreign(0, key, mended.get(key))
        await asyncio.sleep(60.0)
        assert stage.roles(worker) == {0: "serving", 1: "serving"}
        assert worker.readyz() == (True, "ok")
        await worker.stop()

    play(story)


def test_foreign_record_that_was_written_over_is_none() -> None:
    """What stands under a key counts, not what stood there."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        for key in (b"o:acme/1", state.NEXT_KEY):
            stage.log.write_foreign(0, key, b"x")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.kill()
        stage.log.crash("w1")
        stage.log.expel("w1")
        worker = await stage.serving("w2")
        assert stage.roles(worker) == {0: "serving", 1: "serving"}
        await worker.stop()

    play(story)


@pytest.mark.parametrize("orders", [10, 400], ids=["read before it is offered", "offered without being read"])
def test_damaged_order_that_is_owed(orders: int) -> None:
    """Whoever comes upon it, the owner or an account whose turn it is: its partition alone is out of service."""

    async def story(stage: Stage) -> None:
        shadow = await stage.serving("w1", settings={"sending": False})
        for number in range(orders):
            ship(stage, str(number))
        await asyncio.sleep(5.0)
        await shadow.stop()
        key = f"{state.ORDER_PREFIX}acme/{orders - 1}".encode()
        value = next(entry.value for entry in stage.log.entries(0) if entry.key == key)
        assert value is not None
        record = state.decode_order(value)
        record.sealed.content = b"\xc1"
        offset = stage.log.write_foreign(0, key, state.encode(record))
        worker = await stage.serving("w2")
        ship(stage, "other", 1)
        await asyncio.sleep(10.0)
        assert not worker.failed.done()
        assert stage.roles(worker) == {0: "halted", 1: "serving"}
        assert f"offset {offset}" in detail(worker)
        assert told(stage, "other")
        stage.log.write_foreign(0, key, None)
        await asyncio.sleep(200.0)
        assert worker.readyz() == (True, "ok")
        assert all(told(stage, str(number)) for number in range(orders - 1))
        await worker.stop()

    play(story)


def test_damaged_position_is_said_by_an_operator() -> None:
    """Nobody knows how far the input was taken: a skip says it, but for what the orders have taken; then it is served."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        await worker.stop()
        stage.log.write_foreign(0, state.NEXT_KEY, b"x")
        ship(stage, "2")
        worker = await stage.serving("w2")
        assert stage.roles(worker) == {0: "halted", 1: "serving"}
        assert "`cartsync input skip 0 OFFSET" in worker.readyz()[1]
        with pytest.raises(UsageError, match="holds offsets 0 to 4, not 9"):
            await worker.skip(0, 9)
        with pytest.raises(UsageError, match="events from offset 1 on were taken already"):
            await worker.skip(0, 1)
        assert stage.roles(worker) == {0: "halted", 1: "serving"}
        await asyncio.sleep(100.0)
        await worker.skip(0, 2)
        await asyncio.sleep(1.0)
        assert told(stage, "2")
        assert worker.readyz() == (True, "ok")
        await worker.stop()
        worker = await stage.serving("w3")
        assert [view.next_offset for view in worker.status().partitions] == [4, 0]
        await worker.stop()

    play(story)


def test_halted_partition_may_leave() -> None:
    """A worker whose partition waits to be mended leaves without delay."""

    async def story(stage: Stage) -> None:
        stage.log.write_foreign(0, b"o:acme/\xff", b"x")
        worker = await stage.serving("w1")
        await asyncio.sleep(5.0)
        assert stage.roles(worker)[0] == "halted"
        began = stage.clock.now()
        await worker.stop()
        assert stage.clock.now() - began < 1.0

    play(story)


def test_orders_beyond_a_lowered_limit_are_set_aside() -> None:
    """The state topic takes less than an order's record has: named once, not sent again and again, others are told."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        large = order_event(
            "1", "confirmed", {"currency": "EUR", "lines": [LINE | {"reference": f"a{n}"} for n in range(900)]}
        )
        stage.provider.answer_for("1", [])
        stage.log.append(b"k", large, partition=0)
        await asyncio.sleep(1.0)
        stage.log.settings.value_max_bytes = 20_000
        shipped = {"shipment_id": "s1", "lines": [{"line_id": "a1", "quantity": 1}]}
        stage.log.append(b"k", order_event("1", "items_shipped", shipped), partition=0)
        ship(stage, "2")
        await asyncio.sleep(1.0)
        assert [said(letter)["reason"] for letter in stage.log.dead_letters] == ["order_too_large"]
        await worker.stop()
        written: list[str] = []
        with logs.capture(written):
            worker = await stage.serving("w2")
            ship(stage, "3")
            await asyncio.sleep(600.0)
        assert told(stage, "2")
        assert told(stage, "3")
        [line] = lines(written, "order_beyond_limit")
        assert (line["order"], line["limit"]) == ("acme/1", 20_000)
        assert lines(written, "partition_lost") == []
        assert "1 orders are not sent" in detail(worker)
        assert "acme/1" not in detail(worker)  # everybody may see it
        with pytest.raises(UsageError, match=r"raise its max\.message\.bytes"):
            await worker.operate(COMMANDS["resend"], "acme/1")
        await worker.stop()

    play(story)


def test_owed_order_beyond_a_lowered_limit_is_not_told_for_ever() -> None:
    """An order that was owed when the limit fell: its outcome could not be kept, so it is not sent."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        lines_ = [LINE | {"reference": f"a{n}"} for n in range(900)]
        shipped = {"shipment_id": "s1", "lines": [{"line_id": "a1", "quantity": 1}]}
        worker.suspend_sending(True)
        stage.log.append(b"k", order_event("1", "confirmed", {"currency": "EUR", "lines": lines_}), partition=0)
        stage.log.append(b"k", order_event("1", "items_shipped", shipped), partition=0)
        await asyncio.sleep(1.0)
        stage.log.settings.value_max_bytes = 20_000
        written: list[str] = []
        with logs.capture(written):
            worker.suspend_sending(False)
            ship(stage, "2")
            await asyncio.sleep(600.0)
        assert len(lines(written, "partition_lost")) <= 1
        assert len([each for each in stage.provider.exchanges if each.url.endswith("/1")]) <= 1
        assert told(stage, "2")
        await worker.stop()
        assert stage.left_in_order() == [False, True]

    play(story)


# --- how much at once, and what waits ---


def test_inbox_is_bounded_in_bytes() -> None:
    """A partition whose transactions hang takes in some megabytes and not its whole input; afterwards all of it."""

    async def story(stage: Stage) -> None:
        worker = stage.worker("w1", {"max_poll_records": 10})
        await worker.start()
        await worker.serving()
        blocked = asyncio.Event()

        async def gate(op: str, _process: str, partition: int) -> None:
            if op == "write" and partition == 0 and not blocked.is_set():
                await blocked.wait()

        stage.log.gate = gate
        for _ in range(100):
            stage.log.append(b"k", b"x" * MIB, partition=0)
        await asyncio.sleep(5.0)
        [owner] = [owner for owner in worker._assignment.owners.values() if owner.partition == 0]
        assert 32 * MIB < owner.position.inbox.bytes < 43 * MIB
        blocked.set()
        await asyncio.sleep(10.0)
        assert len(stage.log.dead_letters) == 100
        assert (owner.position.inbox.bytes, len(owner.position.inbox)) == (0, 0)
        await worker.stop()

    play(story)


def test_transaction_is_bounded_in_bytes() -> None:
    """Large records go into several transactions."""

    async def story(stage: Stage) -> None:
        sizes = []
        stage.log.watch(
            lambda _partition, _entries, letters, *_others: sizes.append(sum(len(x.value or b"") for x in letters))
        )
        worker = await stage.serving("w1")
        for _ in range(40):
            stage.log.append(b"k", b"x" * 900_000, partition=0)
        await asyncio.sleep(5.0)
        assert sum(sizes) == 40 * 900_000
        assert max(sizes) <= 9 * MIB
        await worker.stop()

    play(story)


def ship_large(stage: Stage, count: int) -> list[str]:
    """Orders whose records have half a MiB each."""
    large = [LINE | {"reference": f"a{n}", "name": f"{n}".rjust(700)} for n in range(700)]
    shipped = {"shipment_id": "s1", "lines": [{"line_id": "a1", "quantity": 1}]}
    references = [f"large{number}" for number in range(count)]
    for reference in references:
        for kind, data in (("confirmed", {"currency": "EUR", "lines": large}), ("items_shipped", shipped)):
            stage.log.append(b"k", order_event(reference, kind, data), partition=0)
    return references


def test_transactions_of_all_kinds_are_bounded_in_bytes() -> None:
    """Those of answers that come all at once, of releases, and of what an owner that leaves has inherited."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        worker.suspend_sending(True)
        orders = ship_large(stage, 25)
        await asyncio.sleep(5.0)
        stage.provider.answer([Answer(422, times=None)])
        opened = _gated(stage)
        ship(stage, "small")
        await asyncio.sleep(0.5)
        sizes: list[int] = []
        stage.log.watch(lambda _partition, entries, *_: sizes.append(sum(len(x.value or b"") for x in entries)))
        worker.suspend_sending(False)
        await asyncio.sleep(1.0)
        opened.set()
        await asyncio.sleep(5.0)
        assert {order.status for order in worker.shown()} == {"parked"}
        assert len(sizes) >= 2
        assert max(sizes) <= 9 * MIB
        sizes.clear()
        assert await worker.operate_parked(COMMANDS["release"], "acme") == len(orders) + 1
        assert max(sizes) <= 4 * MIB
        stage.log.crash("w1")
        await worker.kill()
        stage.log.expel("w1")
        worker = await stage.serving("w2")
        sizes.clear()
        await worker.stop()
        assert stage.left_in_order() == [True, True]
        assert len(sizes) >= 3
        assert max(sizes) <= 9 * MIB

    play(story)


def test_open_transaction_on_the_input_is_seen() -> None:
    """Records behind somebody's open transaction count as lag; after a minute it is said what to do, and again."""

    async def story(stage: Stage) -> None:
        worker = await stage.serving("w1")
        ship(stage, "1")
        await asyncio.sleep(1.0)
        stage.log.hang_input(0)
        for reference in ("2", "3"):
            ship(stage, reference)
        written: list[str] = []
        with logs.capture(written):
            await asyncio.sleep(50.0)
            view = worker.status().partitions[0]
            assert (view.lag, view.blocked, view.next_offset) == (5, 5, 2)
            worker.metrics_page()
            assert worker.metrics.value("cartsync_consumer_lag_records", partition="0") == 5
            assert worker.metrics.value("cartsync_consumer_blocked_records", partition="0") == 5
            assert lines(written, "input_blocked") == []
            await asyncio.sleep(30.0)
            [line] = lines(written, "input_blocked")
            assert (line["partition"], line["offset"], line["records"]) == (0, 2, 5)
            assert "kafka-transactions.sh describe-producers --topic orders.events --partition 0" in line["do"]
            await asyncio.sleep(60.0)
            assert len(lines(written, "input_blocked")) == 2
            stage.log.end_input(0)
            await asyncio.sleep(120.0)
            assert len(lines(written, "input_blocked")) == 2
        assert told(stage, "2")
        assert told(stage, "3")
        view = worker.status().partitions[0]
        assert (view.lag, view.blocked) == (0, 0)
        await worker.stop()

    play(story)
