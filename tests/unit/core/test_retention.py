"""Which orders are closed, when, and what is remembered of them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import state
from schemas.state import OrderRecord, Parking
from tests.shops.events import SUBJECT, EventSpec, confirmed, event, goods, observed, said, shipped
from worker.core.record import apply_event
from worker.core.retention import (
    AROUND_S,
    CHUNK_BYTES,
    DAY_MS,
    DIGEST_BYTES,
    LOOK_EVERY_MAX_S,
    LOOK_EVERY_MIN_S,
    LOOKS_AT_ONCE,
    ClosedOrders,
    Hand,
    digest_of,
    find_due,
    jitter_ms,
    look_every_s,
)

KEEP_MS = 800 * DAY_MS
NOW_MS = 20_600 * DAY_MS
"""May 2026."""
TOO_LATE_MS = NOW_MS + DAY_MS + KEEP_MS + KEEP_MS // 20


def record(*specs: EventSpec, now_ms: int = NOW_MS) -> OrderRecord:
    """The record after these events, taken now and all told."""
    found = OrderRecord()
    for number, spec in enumerate(specs, start=1):
        found = apply_event(
            found, event(spec, number), position=number, revision=number, now_ms=now_ms, destination=None
        )
    found.acked = found.revision
    return found


SETTLED = record(confirmed(goods("A", 1, 100)), shipped("s1", A=1))


def due(found: OrderRecord, now_ms: int, keep_ms: int = KEEP_MS) -> bool:
    """Whether it is to be closed."""
    return bool(list(find_due([SUBJECT], {SUBJECT: state.encode(found)}.get, now_ms, keep_ms)))


def test_settled_order() -> None:
    """It is kept for so long after its newest event was taken, whatever its shop's clock says, and a little longer."""
    at_ms = NOW_MS + DAY_MS + KEEP_MS + jitter_ms(SUBJECT, KEEP_MS)
    assert not due(SETTLED, at_ms - 1)
    assert due(SETTLED, at_ms)
    assert not due(SETTLED, 2 * TOO_LATE_MS, keep_ms=0)
    assert 0 < jitter_ms(SUBJECT, KEEP_MS) < KEEP_MS // 20


def test_record_of_an_older_version() -> None:
    """It did not note when the event was taken: the time that the shop gave it counts."""
    old = replace(SETTLED, touched_day=0)
    assert not due(old, old.event_ms + KEEP_MS - 1)
    assert due(old, old.event_ms + KEEP_MS + KEEP_MS // 20)


@pytest.mark.parametrize(
    "members",
    [
        {"acked": 1},
        {"park": Parking("409", b"d", 2, NOW_MS)},
        {"may_land_late": True},
        {"remote_unknown": True},
        {"not_before_ms": 1},
        {"unconfirmed_since_ms": 1},
        {"inconsistent_since_ms": 1},
    ],
    ids=lambda members: next(iter(members)),
)
def test_order_of_which_something_is_pending(members: dict[str, Any]) -> None:
    """It is kept, however long that takes."""
    assert not due(replace(SETTLED, **members), 9 * TOO_LATE_MS)


def test_order_that_was_only_observed() -> None:
    """It is forgotten 8 days after it was completed, however long others are kept."""
    found = record(observed(completed_at="2026-05-01T00:00:00Z"))
    completed_ms = 20_574 * DAY_MS
    assert not due(found, completed_ms + 8 * DAY_MS - 1, keep_ms=0)
    assert due(found, completed_ms + 8 * DAY_MS, keep_ms=0)


def test_order_that_only_its_provider_tells_of() -> None:
    """Money was paid for it: it is kept as long as one that is settled."""
    paid = said("disbursed", "disbursements", disbursement="/1", amount_minor=5, issued_on="2026-05-01")
    for specs in ([paid], [paid, observed(completed_at="2026-05-01T00:00:00Z")]):
        found = record(*specs)
        assert not due(found, NOW_MS + 30 * DAY_MS)
        assert due(found, TOO_LATE_MS)
        assert not due(found, TOO_LATE_MS, keep_ms=0)


def test_order_that_was_observed_and_confirmed() -> None:
    """It is one of ours."""
    found = record(confirmed(goods("A", 1, 100)), observed(completed_at="2026-05-01T00:00:00Z"))
    assert not due(found, NOW_MS + 30 * DAY_MS)
    assert due(found, TOO_LATE_MS)


def test_order_that_is_gone() -> None:
    """Between two looks it may have been closed."""
    assert list(find_due(["acme/gone"], lambda _: None, TOO_LATE_MS, KEEP_MS)) == []


def test_what_is_due_says_by_which_record() -> None:
    """So that an event that comes meanwhile keeps it."""
    orders = {SUBJECT: state.encode(SETTLED), "acme/O": state.encode(record(observed()))}
    first, second = find_due(list(orders), orders.get, TOO_LATE_MS, KEEP_MS)
    assert (first.basis, first.is_shown_alone) == (orders[SUBJECT], False)
    assert (second.subject, second.is_shown_alone) == ("acme/O", True)


# --- the hand ---------------------------------------------------------------------------------------------------------


def test_hand_comes_to_all_orders() -> None:
    """Each once a round, also when it began somewhere, and orders come and go."""
    orders = {f"acme/{number}": b"" for number in range(10)}
    hand = Hand(0.45)

    def subjects(skipping: float) -> Iterator[str]:
        return islice(list(orders), int(skipping * len(orders)), None)

    first = [subject for _ in range(2) for subject in hand.next(subjects, 3)]
    assert first == [f"acme/{number}" for number in range(4, 10)]
    orders |= {"acme/new": b""}
    del orders["acme/9"]
    whole = [subject for _ in range(4) for subject in hand.next(subjects, 3)]
    assert sorted(whole) == sorted(orders)
    assert Hand(0.5).next(lambda _skipping: iter(())) == []


def test_how_often_the_hand_moves() -> None:
    """So that it goes around in a day, neither all the time nor once in a while."""
    assert look_every_s(0) == LOOK_EVERY_MAX_S
    assert look_every_s(100_000) * 100_000 / LOOKS_AT_ONCE == pytest.approx(AROUND_S)
    assert look_every_s(10**9) == LOOK_EVERY_MIN_S


# --- what is remembered ---------------------------------------------------------------------------------------------


def test_what_is_remembered_of_closed_orders() -> None:
    """On which day, for as long as others are kept; nothing of those that were not closed."""
    closed = ClosedOrders({})
    key, value = closed.with_more(NOW_MS, ["acme/1", "acme/2"])
    closed.chunks[key] = value
    later_key, later = closed.with_more(NOW_MS + 1, ["acme/3"])
    assert (key, later_key, later) == ("c:20600.0", key, value + digest_of("acme/3"))
    closed.chunks[key] = later
    again = closed.with_more(NOW_MS + DAY_MS, ["acme/1"])
    closed.chunks[again[0]] = again[1]
    assert [closed.closed_on(f"acme/{number}") for number in range(5)] == [0, 20_601, 20_600, 20_600, 0]
    assert closed.outdated(NOW_MS + KEEP_MS, KEEP_MS) == []
    assert closed.outdated(NOW_MS + KEEP_MS + 2 * DAY_MS, KEEP_MS) == [key]
    assert closed.outdated(NOW_MS + 9 * KEEP_MS, 0) == []


def test_chunks_are_bounded() -> None:
    """Each transaction that closes orders writes one of them."""
    closed = ClosedOrders({})
    for number in range(40):
        key, value = closed.with_more(NOW_MS, [f"acme/{number}.{each}" for each in range(LOOKS_AT_ONCE)])
        assert len(value) <= CHUNK_BYTES
        closed.chunks[key] = value
    assert list(closed.chunks) == ["c:20600.0", "c:20600.1", "c:20600.2"]
    assert sum(map(len, closed.chunks.values())) == 40 * LOOKS_AT_ONCE * DIGEST_BYTES
    assert closed.closed_on("acme/0.0") == closed.closed_on("acme/39.63") == 20_600


def test_digest_across_two_others() -> None:
    """Bytes that only come together from two digests are none."""
    two = digest_of("acme/1") + digest_of("acme/2")
    closed = ClosedOrders({"c:1.0": two})
    torn = ClosedOrders({"c:1.0": two[4:12] + two})
    assert closed.closed_on("acme/1") == torn.closed_on("acme/1") == 1
    shifted = ClosedOrders({"c:1.0": b"1234" + digest_of("acme/1") + b"5678"})
    assert shifted.closed_on("acme/1") == 0


def test_what_is_remembered_follows_what_is_committed() -> None:
    """Of closed orders the newest day counts; what nobody needs any more is dropped."""
    closed = ClosedOrders()
    first, kept = closed.with_more(NOW_MS, [SUBJECT])
    closed.apply({first: kept})
    assert closed.closed_on(SUBJECT) == NOW_MS // DAY_MS
    second, kept = closed.with_more(NOW_MS + 3 * DAY_MS, [SUBJECT])
    closed.apply({second: kept})
    assert closed.closed_on(SUBJECT) == NOW_MS // DAY_MS + 3
    closed.apply({first: None, second: None})
    assert (closed.chunks, closed.closed_on(SUBJECT)) == ({}, 0)
