"""Histories: what an entry says, that it says nothing of a person, and that it is small."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import history, state
from schemas.events import EVENT_TYPES, event_type
from schemas.examples import EXAMPLES
from schemas.history import ENTRY_MAX_BYTES, KEPT, HistoryEntry
from schemas.state import Erased, Operated, OrderRecord, Parking
from tests.shops.events import EventSpec, confirmed, event, goods, log, shipped
from tests.unit.orders.test_batch import CONFIRMED, REFUNDED_THERE, SIZES, SUBJECT, batch_of, committed, take, written
from worker.core.commands import COMMANDS
from worker.core.order import Shown
from worker.core.outbox_effects import Decide
from worker.core.plan import Acknowledge, Park, Plan, Send, Wait
from worker.core.record import apply_event
from worker.core.retention import DueOrder
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.jobs import Fate
from worker.model.provider import Update
from worker.orders.batch import Batch
from worker.orders.history import Held, History
from worker.ports import Attempt, JobChange
from worker.sim.loop import run

NOW_MS = 1_800_000_000_000
UPDATE = Update(b"digest", None, msgspec.Raw(b"null"))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def entries_of(kept: History | Batch) -> list[HistoryEntry | None]:
    """What was written, in its order; `None`: removed."""
    records = kept.records if isinstance(kept, History) else kept.history
    return [None if value is None else history.decode(value) for _, value in records]


def one_of(kept: History | Batch) -> dict[str, Any]:
    """The members of the only entry, apart from those that all have."""
    [entry] = entries_of(kept)
    assert entry is not None
    members = msgspec.to_builtins(entry)
    return {name: members[name] for name in members if name not in {"schema", "n", "at_ms"}}


def of_event(spec: EventSpec, *before: EventSpec) -> dict[str, Any]:
    """The entry of an event that follows others."""
    record = OrderRecord()
    for number, each in enumerate(log(*before)):
        record = apply_event(record, each, position=number, revision=number + 1, now_ms=NOW_MS, destination=None)
    number = len(before) + 1
    told = event(spec, number)
    after = apply_event(record, told, position=number, revision=number + 1, now_ms=NOW_MS, destination=None)
    kept = History(NOW_MS, is_kept=True)
    kept.keep(kept.of_event(told, record, after, number))
    assert after.entries == 1
    return one_of(kept)


def test_event() -> None:
    """Its type, id, time and place, and how much it is about."""
    spec = shipped("s", A=1).but(traceparent=TRACE, origin="sequra")
    told = of_event(spec, confirmed(goods("A", 2, 100)))
    assert told == {
        "kind": "event",
        "what": "order.items_shipped",
        "revision": 3,
        "event_id": "e2",
        "offset": 2,
        "time_ms": told["time_ms"],
        "origin": "sequra",
        "units": 1,
        "trace": "0af7651916cd43dd8448eb211c80319c",
    }


def test_event_that_comes_too_late_changes_nothing() -> None:
    """It was taken, and something newer was known: nothing that follows from it changes."""
    older = EventSpec("order.cart_updated", EXAMPLES["order.cart_updated"])
    newer = EventSpec("order.cart_updated", {**EXAMPLES["order.cart_updated"], "cart_version": 3})
    assert "superseded" not in of_event(newer, confirmed(goods("A", 1, 100)))
    assert of_event(older, confirmed(goods("A", 1, 100)), newer)["superseded"]


SAYS: Mapping[str, dict[str, Any]] = {
    "order.confirmed": {"amount_minor": 9595, "currency": "EUR"},
    "order.payment_state_changed": {"word": "on_hold"},
    "order.cart_updated": {"amount_minor": 2995, "currency": "EUR"},
    "order.items_shipped": {"units": 1},
    "order.items_returned": {"units": 1},
    "order.items_cancelled": {"units": 1},
    "order.refunded": {"amount_minor": 1000},
    "order.fee_charged": {"amount_minor": 300},
    "order.cancelled": {"word": "merchant"},
    "order.carts_stated": {"currency": "EUR", "shipped_minor": 2500, "unshipped_minor": 495},
    "order.details_changed": {"word": "gift, cart_ref"},
    "order.retracted": {"word": "shipment_id"},
    "order.observed": {"currency": "EUR", "amount_minor": 9095},
}


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if not kind.startswith("operator.")])
def test_what_events_say(kind: str) -> None:
    """In few words, each by its kind; nothing that is not a number, or one of a few words, is repeated."""
    told = of_event(EventSpec(kind, EXAMPLES[kind]))
    says = {name: told[name] for name in ("word", "units", "amount_minor", "currency") if name in told}
    if kind in SAYS:
        assert told.items() >= SAYS[kind].items()
    assert len(says) <= 3
    assert told["what"] == kind
    for text in ("Shirt", "shirt1234", "Correos", "PQ1234", "cart-77", "Standard", "Goodwill", "454213", "67890"):
        assert text not in str(told)


def test_every_type_is_looked_at() -> None:
    """The examples are of all types: what each says was seen above."""
    names = {event_type(each) for each in EVENT_TYPES}
    assert EXAMPLES.keys() == names
    assert {name for name in names if name.startswith("order.")} - SAYS.keys() == {"order.items_delivered"}


def test_words_of_a_provider_are_masked() -> None:
    """They may be anything: what may be of a person is left out, and they are cut."""
    data = {"kind": "capture ana@example.org", "status": "x" * 200, "transaction_id": "1", "amount_minor": -5}
    told = of_event(EventSpec("provider.transaction", data | {"currency": "EUR"}))
    assert told["word"].startswith("capture … xxx")
    assert (len(told["word"]), told["amount_minor"]) == (100, -5)


def test_change_that_was_made_there_says_so() -> None:
    """Otherwise nobody would see why nothing was sent."""

    async def main() -> None:
        batch, orders = kept_batch(OrderRecord())
        orders.clear()
        take(batch, CONFIRMED, REFUNDED_THERE)
        first, second = entries_of(batch)
        assert first is not None
        assert second is not None
        assert (first.n, first.reason, second.n, second.origin) == (1, "", 2, "sequra")
        assert second.reason == "made at the provider: not told again"
        assert [key for key, _ in batch.history] == [b"1:acme/1", b"2:acme/1"]
        [(_, value)] = batch.entries()
        assert value is not None
        assert state.decode_order(value).entries == 2
        assert batch.size > sum(len(key) + len(content or b"") for key, content in batch.history) > 0

    run(main())


def kept_batch(record: OrderRecord) -> tuple[Batch, Any]:
    """A batch over one committed order, with a topic for histories."""
    batch, orders = batch_of(record)
    context = batch._context
    context.keeps_history = True
    return Batch(0, orders, context, 0, SIZES), orders


def test_events_that_are_not_taken_are_not_told() -> None:
    """One that was seen before, and one that is refused."""

    async def main() -> None:
        batch, orders = kept_batch(OrderRecord())
        orders.clear()
        take(batch, CONFIRMED, replace(CONFIRMED, offset=2), written(3, "order.cancelled", {"no": 1}))
        assert len(batch.history) == 1

    run(main())


SHOWN = Shown("EUR", 100, 250)


def test_attempt() -> None:
    """What was sent, what came of it, how long it took, and when it is tried again."""

    async def main() -> None:
        batch, _ = kept_batch(OrderRecord(revision=7, acked=5, entries=49))
        attempt = Attempt(SUBJECT, 7, UPDATE, 0.5, lambda: True, trace=TRACE, event_id="e9", shown=SHOWN)
        batch.outcome(attempt, Outcome(OutcomeKind.REJECTED, "503: Ana García is away", 503, 30.0), 1.75)
        told = one_of(batch)
        assert told == {
            "kind": "attempt",
            "what": "rejected",
            "revision": 7,
            "event_id": "e9",
            "currency": "EUR",
            "shipped_minor": 100,
            "unshipped_minor": 250,
            "status": "owed",
            "http_status": 503,
            "took_ms": 1250,
            "wait_ms": told["wait_ms"],
            "reason": "503: Ana … is away",
            "trace": TRACE[3:35],
        }
        assert 30_000 <= told["wait_ms"] <= 30_100
        assert batch.history[0][0] == b"0:acme/1"

    run(main())


def test_attempt_whose_outcome_is_unknown() -> None:
    """The hold is told; an older revision's attempt says nothing about how the order stands."""

    async def main() -> None:
        batch, _ = kept_batch(OrderRecord(revision=8, acked=5))
        attempt = Attempt(SUBJECT, 7, UPDATE, 0.0, lambda: True)
        batch.outcome(attempt, Outcome(OutcomeKind.UNKNOWN, "no response"), 8.0)
        told = one_of(batch)
        assert (told["what"], told["hold_ms"], told["took_ms"]) == ("unknown", 30_000, 8_000)
        assert told.keys().isdisjoint({"status", "http_status", "shipped_minor", "trace"})

    run(main())


DECISIONS: list[tuple[Plan, dict[str, Any]]] = [
    (Acknowledge(b"d", SHOWN), {"what": "not_needed", "status": "settled", "shipped_minor": 100}),
    (Acknowledge(b"d", is_approved=False), {"what": "not_needed"}),
    (Park("line 471133 is too long", b"e"), {"what": "parked", "status": "parked", "reason": "line … is too long"}),
    (
        Wait("inconsistent", ["line A: 2 shipped of 1 ordered"], contradicts=True),
        {"what": "waiting", "status": "inconsistent", "reason": "line A: 2 shipped of 1 ordered"},
    ),
    (Send(UPDATE, shown=SHOWN), {"what": "released", "status": "owed", "unshipped_minor": 250}),
]


@pytest.mark.parametrize(("plan", "expected"), DECISIONS)
def test_decision(plan: Plan, expected: dict[str, Any]) -> None:
    """What follows without a request."""

    async def main() -> None:
        parking = Parking("no", b"other", 7, 1) if isinstance(plan, Send) else None
        batch, orders = kept_batch(OrderRecord(revision=7, acked=5, park=parking))
        batch.decide(Decide(SUBJECT, orders[SUBJECT], plan))
        told = one_of(batch)
        assert {name: value for name, value in told.items() if name in expected | {"status": 0}} == expected
        assert (told["kind"], told["revision"]) == ("decision", 7)

    run(main())


@pytest.mark.parametrize(
    ("plan", "record"),
    [
        (Send(UPDATE), OrderRecord(revision=7, acked=5)),
        (Park("no", b"d"), OrderRecord(revision=7, acked=5, park=Parking("no", b"d", 6, 1))),
        (Wait("on_hold", ["on hold"]), OrderRecord(revision=7, acked=5)),
    ],
)
def test_decision_that_is_no_news(plan: Plan, record: OrderRecord) -> None:
    """It would only fill the history."""

    async def main() -> None:
        batch, orders = kept_batch(record)
        batch.decide(Decide(SUBJECT, orders[SUBJECT], plan))
        assert batch.history == []

    run(main())


def test_report() -> None:
    """That an order was put on a page, and what that has come to for it."""

    async def main() -> None:
        batch, orders = kept_batch(OrderRecord(revision=7, acked=5))
        work: Any = asyncio.get_running_loop()
        work.is_over = lambda: False
        await batch.job(JobChange("j:acme:report", b"", {SUBJECT: b"memory"}, page="a1"), work)
        fate = Fate(7, b"digest", Outcome(OutcomeKind.APPLIED, status=204))
        orders[SUBJECT] = batch.changed[SUBJECT][1]  # it is committed before the page is sent
        await batch.job(JobChange("j:acme:report", b"", fates={SUBJECT: fate}, page="a1"), work)
        put, told = entries_of(batch)
        assert put is not None
        assert (put.kind, put.what, put.word, put.revision, put.n) == ("report", "on_page", "page a1", 7, 1)
        assert told is not None
        assert (told.kind, told.what, told.word, told.status, told.http_status, told.n) == (
            *("report", "applied", "page a1", "settled", 204, 2),
        )

    run(main())


def deed(command: str) -> Operated:
    """What somebody did."""
    return Operated(command, "jane", "Ana García called", 1, True, "released", b"u")


def test_operator() -> None:
    """Who did what, and what came of it; why may name the shopper, and is not repeated."""
    kept, record = History(NOW_MS, is_kept=True), OrderRecord(revision=7)
    kept.keep(kept.of_operator(SUBJECT, deed("release"), record, "e5", 12))
    assert one_of(kept) == {
        "kind": "operator",
        "what": "release",
        "revision": 7,
        "event_id": "e5",
        "offset": 12,
        "reason": "released",
        "by": "jane",
        "done": True,
    }


def test_forget_says_what_it_erased() -> None:
    """Names, not what was in there; and that the history went, too."""
    kept = History(NOW_MS, is_kept=True)
    record = OrderRecord(revision=7, erased=Erased(1, ["customer"]), entries=3)
    kept.keep(kept.of_operator(SUBJECT, deed("forget"), record, "e5", 12))
    [entry] = entries_of(kept)
    assert entry is not None
    assert (entry.erased, entry.n, record.entries) == (("customer",), 4, 4)
    assert entry.reason == "released; its history before this was erased, too"


def test_forget_of_an_order_without_details() -> None:
    """There was nothing to erase."""
    kept = History(NOW_MS, is_kept=True)
    kept.keep(kept.of_operator(SUBJECT, deed("forget"), OrderRecord(revision=7), "e5", 12))
    [entry] = entries_of(kept)
    assert entry is not None
    assert entry.erased == ()


HELD = Held({SUBJECT}, NOW_MS - 5_000, 40_000)


def test_hold_of_a_takeover() -> None:
    """Told once, before what becomes of the order next, with when it began; of an order that is not held it is not."""

    async def main() -> None:
        batch, orders = kept_batch(OrderRecord(revision=7, acked=5, may_land_late=True))
        batch = Batch(0, orders, batch._context, 0, SIZES, held=HELD)
        batch.command(SUBJECT, COMMANDS["resend"])
        batch.command(SUBJECT, COMMANDS["resend"])
        found = [entry for entry in entries_of(batch) if entry is not None]
        assert [(entry.n, entry.what) for entry in found] == [(1, "held"), (2, "resend"), (3, "resend")]
        assert (found[0].kind, found[0].at_ms, found[0].hold_ms) == ("decision", NOW_MS - 5_000, 40_000)
        take(batch, CONFIRMED)
        assert committed(batch).entries == 4

    run(main())


def test_hold_of_a_takeover_before_an_event() -> None:
    """Both are counted, in their order; of another order only the event."""
    told = event(shipped("s", A=1), 2)
    for subject, entries in (
        (told.subject, [(1, "held"), (2, "order.items_shipped")]),
        ("acme/2", [(1, "order.items_shipped")]),
    ):
        kept = History(NOW_MS, Held({subject}, NOW_MS, 1), is_kept=True)
        after = OrderRecord(revision=3)
        kept.keep(kept.of_event(told, OrderRecord(revision=2), after, 2))
        found = [entry for entry in entries_of(kept) if entry is not None]
        assert [(entry.n, entry.what) for entry in found] == entries
        assert after.entries == len(entries)


def test_hold_that_is_being_told() -> None:
    """By the transaction that is committed meanwhile: not once more by the batch ahead."""
    told = event(shipped("s", A=1), 2)
    kept = History(NOW_MS, Held({told.subject}, NOW_MS, 1), {told.subject}, is_kept=True)
    kept.keep(kept.of_event(told, OrderRecord(revision=2, entries=4), OrderRecord(revision=3, entries=4), 2))
    assert [entry.what for entry in entries_of(kept) if entry is not None] == ["order.items_shipped"]


def test_command_without_an_event() -> None:
    """What it was; nobody knows who."""

    async def main() -> None:
        batch, _ = kept_batch(OrderRecord(revision=7, acked=5, park=Parking("no", b"d", 7, 1)))
        assert batch.command(SUBJECT, COMMANDS["release"])
        assert one_of(batch) == {"kind": "operator", "what": "release", "revision": 7, "done": True}

    run(main())


def test_order_that_is_closed_takes_its_history_along() -> None:
    """Just the entries that it has."""

    async def main() -> None:
        batch, orders = kept_batch(OrderRecord(revision=7, acked=7))
        batch.close([DueOrder(SUBJECT, orders[SUBJECT], False, 2)])
        assert batch.history == [(b"1:acme/1", None), (b"2:acme/1", None)]
        assert history.keys_of(SUBJECT, 0) == []
        assert len({*history.keys_of(SUBJECT, 70)}) == KEPT

    run(main())


def test_nothing_is_kept_without_a_topic() -> None:
    """Nor counted: the record stays as it was."""

    async def main() -> None:
        batch, orders = batch_of(OrderRecord(revision=7, acked=5))
        batch.decide(Decide(SUBJECT, orders[SUBJECT], Acknowledge(b"digest")))
        take(batch, CONFIRMED)
        batch.close([DueOrder("acme/2", b"", False, 2)])
        assert batch.history == []
        [(_, value)] = batch.entries()
        assert value is not None
        assert state.decode_order(value).entries == 0

    run(main())


TEXTS = st.text("aé€😀", min_size=1, max_size=300)


@given(TEXTS, TEXTS, TEXTS)
def test_entries_are_bounded(event_id: str, by: str, reason: str) -> None:
    """Whatever the letters: texts are cut, and stay texts."""
    kept = History(NOW_MS, is_kept=True)
    told = replace(deed("note"), by=by[:100], words=reason[:240])
    kept.keep(kept.of_operator(SUBJECT, told, OrderRecord(revision=2**53 - 1), event_id[:100], 2**53))
    [(key, value)] = kept.records
    assert value is not None
    assert len(value) <= ENTRY_MAX_BYTES
    entry = history.decode(value)
    assert entry is not None
    assert told.words.startswith(entry.reason)
    assert kept.bytes == len(key) + len(value)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (b"7:acme/a:b", (7, "acme/a:b")),
        (b"49:acme/\xff", (49, "acme/\\xff")),
        (b"50:acme/1", None),
        (b"x:acme/1", None),
        (b":acme/1", None),
        (b"007:acme/1", None),
        (b"7", None),
    ],
)
def test_keys(key: bytes, place: tuple[int, str] | None) -> None:
    """Those of others are none."""
    assert history.place_of(key) == place


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", history.pack({"schema": 1}), history.pack(["x"]), history.pack([1, 2])]
)
def test_what_others_wrote_is_no_entry(value: bytes) -> None:
    """It is passed over."""
    assert history.decode(value) is None


def test_entry_of_a_newer_schema() -> None:
    """What is known of it is read."""
    entry = HistoryEntry(schema=9, n=1, at_ms=2, kind="event", what="x", revision=1)
    assert history.decode(history.pack([*msgspec.structs.astuple(entry), {"more": 1}])) == entry
