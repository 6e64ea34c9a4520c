"""The next step: what is told unasked, when Order Status is asked first, and what follows from its answer."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.events import CancelledData
from schemas.facts import Moment
from tests.shops.events import (
    EventSpec,
    cancelled,
    cart_updated,
    delivered,
    details,
    items_cancelled,
    order,
    refunded,
    retracted,
    returned,
    shipped,
)
from tests.unit.providers.atarapay.reported import (
    ALL_DELIVERED,
    ALL_SHIPPED,
    ATARAPAY,
    HAT,
    NUMBER,
    SHOE,
    asked,
    call_of,
    confirmation,
    heard,
    seen,
    step_of,
)
from worker.model.exchange import AwaitResult, Exchange, OutcomeKind, Settled, Step, Unsendable
from worker.model.order import Order
from worker.providers.atarapay import known as memory
from worker.providers.atarapay.known import Known, decode, describe
from worker.providers.atarapay.wire import Seen, State

SAID = confirmation()
CANCELLED = (SAID, cancelled())
DELIVERED_AT = (-1, 1772323203000000, 2)
"""The stamp of the delivery in `ALL_DELIVERED`."""
AGAIN = (*ALL_DELIVERED, delivered("s1", "2026-03-08T10:00:00Z"))
AGAIN_AT = (-1, 1772323204000000, 3)
TAKEN = Known(number=NUMBER, word="delivered", delivery=DELIVERED_AT, accepted="delivered", accepted_for=DELIVERED_AT)
OPEN = Known(number=NUMBER, word="delivered", delivery=DELIVERED_AT, is_open=True)
CANCEL_OPEN = Known(number=NUMBER, word="cancelled", is_open=True)
CANCEL_TAKEN = Known(number=NUMBER, word="cancelled", accepted="cancelled")
FOUND = CancelledData(by="provider")


def kind_of(step: Step) -> str:
    """The step in a word: the word of a call, or what it is instead."""
    match step:
        case Exchange(is_read=is_read):
            word = call_of(step)["status"]
            assert is_read is (word == "order")
            return word
        case Settled():
            return "settled"
        case Unsendable():
            return "unsendable"
        case _:
            return "waits"


def kept(step: Step) -> Known:
    """What is kept of it."""
    assert step.remote is not None
    return decode(step.remote)


# --- without an answer of Order Status ---------------------------------------------------------------------------

LATE = {"may_land_late": True, "remote_unknown": True}
FIRST: dict[str, tuple[str, Sequence[EventSpec], Known, dict[str, Any]]] = {
    "nothing yet": ("settled", [SAID], Known(), {}),
    "first word": ("delivered", ALL_DELIVERED, Known(), {}),
    "first word after doubt": ("order", ALL_DELIVERED, Known(), {"remote_unknown": True}),
    "nothing to tell after doubt": ("settled", [SAID], Known(), {"remote_unknown": True}),
    "an unclean stop": ("order", ALL_DELIVERED, Known(), {"may_land_late": True}),
    "an unclean stop, nothing to tell": ("settled", [SAID], Known(), {"may_land_late": True}),
    "an unclean stop, a word taken back": ("order", [*CANCELLED, retracted(cancelled=True)], Known(), LATE),
    "an unclean stop, units taken back": (
        "order",
        [confirmation(), items_cancelled("c1", hat=2, shoe=1), cart_updated(HAT, SHOE, currency="NGN")],
        Known(),
        LATE,
    ),
    "an unclean stop, no word for it": ("order", [SAID, refunded("f1", 1)], Known(), {"may_land_late": True}),
    "a word in doubt": ("order", ALL_DELIVERED, OPEN, {}),
    "a word in doubt, nothing to tell now": ("order", [SAID], OPEN, {}),
    "a word that was refused": ("order", ALL_DELIVERED, replace(OPEN, is_open=False), {}),
    "read for a notification before": ("order", ALL_DELIVERED, Known(number=NUMBER, state="Pending"), {}),
    "a word that was taken": ("settled", ALL_DELIVERED, TAKEN, {}),
    "taken, and asked for anew": ("order", ALL_DELIVERED, TAKEN, {"remote_unknown": True}),
    "taken, then nothing to tell, and asked for anew": ("order", [SAID], TAKEN, {"remote_unknown": True}),
    "a state that was read, and asked for anew": ("order", [SAID], Known(state="Pending"), {"remote_unknown": True}),
    "a newer delivery": ("order", AGAIN, TAKEN, {}),
    "cancelled after delivered": ("order", CANCELLED, TAKEN, {}),
    "another cancellation was taken": ("settled", [SAID, cancelled(by="shopper")], CANCEL_TAKEN, {}),
    "cancelled, then reopened": ("unsendable", [*CANCELLED, retracted(cancelled=True)], CANCEL_TAKEN, {}),
    "cancelled, then delivered": (
        "order",
        [*CANCELLED, retracted(cancelled=True), ALL_SHIPPED, delivered("s1")],
        CANCEL_TAKEN,
        {},
    ),
    "cancelled here and there": ("settled", [SAID, cancelled(by="provider")], CANCEL_TAKEN, {}),
    "no word for it": ("unsendable", [*ALL_DELIVERED, refunded("f1", 1)], TAKEN, {}),
    "another number": ("order", [*ALL_DELIVERED, details(references={"provider": "9"})], TAKEN, {}),
    "remote that cannot be read": ("order", ALL_DELIVERED, Known(version=-1), {}),
}


@pytest.mark.parametrize(("expected", "specs", "known", "members"), FIRST.values(), ids=FIRST)
def test_first_step(expected: str, specs: Sequence[EventSpec], known: Known, members: dict[str, Any]) -> None:
    """A word goes out unasked only when nothing is known that speaks against it."""
    remote = b"\xff" if known.version < 0 else memory.encode(known)
    assert kind_of(step_of(*specs, known=remote, **members)) == expected


def test_doubt_of_takeover_lasts_until_first_word() -> None:
    """An order that has nothing to tell yet is not read; before its first word it is, however long after."""
    then = step_of(SAID, known=b"", may_land_late=True, remote_unknown=True)
    assert isinstance(then, Settled)
    assert kept(then).is_open
    assert kind_of(step_of(*ALL_DELIVERED, known=kept(then))) == "order"


def test_remote_stays() -> None:
    """A step that tells nothing keeps what is known."""
    assert kept(step_of(*ALL_DELIVERED, known=TAKEN)) == TAKEN
    assert kept(step_of(*ALL_DELIVERED, refunded("f1", 1), known=TAKEN)) == TAKEN


def test_remote_of_a_word() -> None:
    """While it is on its way, nobody knows whether it was taken."""
    assert kept(step_of(*ALL_DELIVERED)) == OPEN
    accepted_for = replace(CANCEL_OPEN, checked=b"1")
    assert kept(step_of(*CANCELLED, known=Known(checked=b"1"), seen=seen(State.PENDING))) == replace(
        accepted_for, before="Pending", state="Pending", checked=b""
    )


# --- what is missing ---------------------------------------------------------------------------------------------


def test_no_phone() -> None:
    """Parked before any call, Order Status included, and the reason says what to give."""
    untold = (confirmation(phone=""), *ALL_DELIVERED[1:])
    for known in (Known(), OPEN):
        for is_late, is_unknown in ((False, False), (True, False), (False, True)):
            step = step_of(*untold, known=known, may_land_late=is_late, remote_unknown=is_unknown)
            assert isinstance(step, Unsendable)
            assert "phone" in step.why
    assert kept(step_of(*untold, may_land_late=True)).is_open  # so that it is asked once there is a number
    for count in range(1, len(untold)):  # nor is it asked about while there is no word for it, whatever was in flight
        assert kind_of(step_of(*untold[:count], may_land_late=True, remote_unknown=True)) == "settled"


def test_no_phone_once_it_was_told() -> None:
    """It is not missed then, and asked for only for a second attempt."""
    gone = details(delivery_address=None)
    assert kind_of(step_of(*ALL_DELIVERED, gone, known=TAKEN)) == "settled"
    again = (*AGAIN, gone)
    assert kind_of(step_of(*again, known=TAKEN)) == "order"
    step = step_of(*again, known=TAKEN, seen=seen(State.SECOND))
    assert isinstance(step, Unsendable)
    assert "phone" in step.why
    assert kind_of(step_of(confirmation(phone=""), cancelled())) == "cancelled"


def test_no_number() -> None:
    """The order waits for it, without a call; what can be judged without it is."""
    untold = confirmation(number=None)
    for is_late, is_unknown in ((False, False), (True, False), (False, True)):
        step = step_of(untold, *ALL_DELIVERED[1:], may_land_late=is_late, remote_unknown=is_unknown)
        assert isinstance(step, AwaitResult)
        assert "references.provider" in step.why
        assert step.poll_s is None  # an event or a notification brings the number
        assert not step.is_overdue
    assert kind_of(step_of(untold)) == "settled"
    assert kind_of(step_of(untold, refunded("f1", 1))) == "unsendable"
    assert kept(step_of(untold, may_land_late=True)).is_open


def hearsay(*specs: EventSpec, **said: Moment) -> Order:
    """An order whose number only a notification has told."""
    return heard(order(confirmation(number=None), *specs), "77", **said)


def test_number_of_a_notification() -> None:
    """Believed once Order Status names the order's reference, and remembered."""
    found = hearsay(*ALL_DELIVERED[1:])
    assert call_of(ATARAPAY.next_step(asked(found))) == {"order": "77", "status": "order"}
    step = ATARAPAY.next_step(asked(found, seen=seen(State.PENDING, product_id=found.reference)))
    assert call_of(step)["order"] == "77"
    assert kept(step).is_confirmed
    later = ATARAPAY.next_step(asked(found, replace(kept(step), word="", state="", is_open=False)))
    assert kind_of(later) == "delivered"


def test_number_of_another_order() -> None:
    """Not believed: the order waits, and is not asked about again."""
    found = hearsay(*ALL_DELIVERED[1:])
    step = ATARAPAY.next_step(asked(found, seen=seen(State.CANCELLED, product_id="other")))
    assert isinstance(step, AwaitResult)
    assert "references.provider" in step.why
    assert kept(step).state == ""
    assert kind_of(ATARAPAY.next_step(asked(found, kept(step)))) == "waits"
    assert kind_of(ATARAPAY.next_step(asked(hearsay(), seen=seen(State.CANCELLED)))) == "settled"


# --- after an answer of Order Status -----------------------------------------------------------------------------

ALL = frozenset(State)
PAST = ALL - {State.PENDING, State.SECOND, State.CANCELLED}
UNTRIED = Known(number=NUMBER)
NOBODY = replace(UNTRIED, is_open=True)
SECOND_OPEN = replace(TAKEN, delivery=AGAIN_AT, before="Pending II", is_open=True)
LACKING = (*ALL_DELIVERED, refunded("f1", 1))

READ: list[tuple[str, Sequence[EventSpec], Known, dict[str, frozenset[State]]]] = [
    (
        "delivered, never tried",
        ALL_DELIVERED,
        UNTRIED,
        {
            "delivered": frozenset({State.PENDING, State.SECOND}),
            "settled": PAST,
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "delivered, in doubt: Pending II means that it was taken",
        ALL_DELIVERED,
        OPEN,
        {
            "delivered": frozenset({State.PENDING}),
            "settled": PAST | {State.SECOND},
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "delivered, in doubt after Pending: the same",
        ALL_DELIVERED,
        replace(OPEN, before="Pending"),
        {
            "delivered": frozenset({State.PENDING}),
            "settled": PAST | {State.SECOND},
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "delivered by a worker that was killed: the same",
        ALL_DELIVERED,
        NOBODY,
        {
            "delivered": frozenset({State.PENDING}),
            "settled": PAST | {State.SECOND},
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "delivered, refused before",
        ALL_DELIVERED,
        replace(OPEN, is_open=False),
        {
            "delivered": frozenset({State.PENDING, State.SECOND}),
            "settled": PAST,
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "taken, no newer delivery",
        ALL_DELIVERED,
        TAKEN,
        {"settled": ALL - {State.CANCELLED}, "unsendable": frozenset({State.CANCELLED})},
    ),
    (
        "taken, a newer delivery",
        AGAIN,
        TAKEN,
        {
            "delivered": frozenset({State.PENDING, State.SECOND}),
            "settled": PAST,
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "second word in doubt: Pending II, which it said before, means that it was not taken",
        AGAIN,
        SECOND_OPEN,
        {
            "delivered": frozenset({State.PENDING, State.SECOND}),
            "settled": PAST,
            "unsendable": frozenset({State.CANCELLED}),
        },
    ),
    (
        "cancelled, never tried",
        CANCELLED,
        UNTRIED,
        {
            "cancelled": frozenset({State.PENDING, State.SECOND}),
            "settled": frozenset({State.CANCELLED}),
            "unsendable": PAST,
        },
    ),
    (
        "cancelled, in doubt",
        CANCELLED,
        CANCEL_OPEN,
        {
            "cancelled": frozenset({State.PENDING, State.SECOND}),
            "settled": frozenset({State.CANCELLED}),
            "unsendable": PAST,
        },
    ),
    (
        "cancelled after delivered was taken",
        CANCELLED,
        TAKEN,
        {
            "cancelled": frozenset({State.PENDING, State.SECOND}),
            "settled": frozenset({State.CANCELLED}),
            "unsendable": PAST,
        },
    ),
    ("nothing to tell", [SAID], UNTRIED, {"settled": ALL}),
    (
        "nothing to tell any more, cancelled in doubt",
        [*CANCELLED, retracted(cancelled=True)],
        CANCEL_OPEN,
        {"settled": ALL - {State.CANCELLED}, "unsendable": frozenset({State.CANCELLED})},
    ),
    ("no word for it", LACKING, UNTRIED, {"unsendable": ALL}),
    ("known to be cancelled there", [SAID, cancelled(by="provider")], UNTRIED, {"settled": ALL}),
]


@pytest.mark.parametrize(
    ("expected", "specs", "known", "state"),
    [
        pytest.param(expected, specs, known, state, id=f"{name}-{state}")
        for name, specs, known, steps in READ
        for expected, states in steps.items()
        for state in sorted(states)
    ],
)
def test_after_reading(expected: str, specs: Sequence[EventSpec], known: Known, state: State) -> None:
    """What AtaraPay holds decides, not what is remembered."""
    assert kind_of(step_of(*specs, known=known, may_land_late=known.is_open, seen=seen(state))) == expected


def test_every_state_is_decided() -> None:
    """No row of the table leaves out a state."""
    for name, _, _, steps in READ:
        assert frozenset().union(*steps.values()) == ALL, name


@pytest.mark.parametrize("specs", [ALL_DELIVERED, CANCELLED])
def test_state_that_nobody_knows(specs: Sequence[EventSpec]) -> None:
    """Nothing is told on a guess, and the doubt stays; the reason has AtaraPay's own text."""
    step = step_of(*specs, known=OPEN, seen=seen(None, "Frozen"))
    assert isinstance(step, Unsendable)
    assert "Frozen" in step.why
    assert kept(step).is_open
    assert kind_of(step_of(SAID, seen=seen(None, "Frozen"))) == "settled"


def test_ended_otherwise() -> None:
    """The reason has the state."""
    step = step_of(*CANCELLED, seen=seen(State.ACCEPTED))
    assert isinstance(step, Unsendable)
    assert step.why == "cancelled cannot be sent: at AtaraPay the order is Accepted"
    step = step_of(*ALL_DELIVERED, known=OPEN, seen=seen(State.CANCELLED))
    assert isinstance(step, Unsendable)
    assert "Cancelled" in step.why


# --- claims of notifications -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "specs", [[SAID], ALL_DELIVERED, CANCELLED, LACKING, [SAID, cancelled(by="provider")]], ids=str
)
def test_claim_is_checked(specs: Sequence[EventSpec]) -> None:
    """C51, C49: whatever the order means, Order Status is asked before anything moves, once for each claim."""
    found = heard(order(*specs), cancelled=(1, 0))
    assert kind_of(ATARAPAY.next_step(asked(found, TAKEN))) == "order"
    checked = kept(ATARAPAY.next_step(asked(found, TAKEN, seen=seen(State.AWAITING))))
    assert kind_of(ATARAPAY.next_step(asked(found, replace(checked, accepted="", word="", state="")))) != "order"
    more = heard(order(*specs), cancelled=(1, 0), delivery=(0, 0))
    assert kind_of(ATARAPAY.next_step(asked(more, checked))) == "order"


@pytest.mark.parametrize(
    ("found", "specs", "known"),
    [
        pytest.param(FOUND, [SAID], UNTRIED, id="C51-nothing was told"),
        pytest.param(FOUND, ALL_DELIVERED, TAKEN, id="after delivered"),
        pytest.param(FOUND, ALL_DELIVERED, OPEN, id="delivered in doubt"),
        pytest.param(FOUND, LACKING, UNTRIED, id="no word for it"),
        pytest.param(FOUND, [SAID], replace(CANCEL_OPEN, is_open=False), id="ours was refused"),
        pytest.param(None, CANCELLED, UNTRIED, id="the shop cancels, too"),
        pytest.param(None, [SAID, cancelled(by="provider")], UNTRIED, id="known"),
        pytest.param(None, [SAID], CANCEL_OPEN, id="by our own word"),
        pytest.param(None, [SAID], CANCEL_TAKEN, id="by our own word, taken"),
    ],
)
def test_cancelled_there(found: CancelledData | None, specs: Sequence[EventSpec], known: Known) -> None:
    """What Order Status says of a cancellation becomes a fact of the order, unless it was ours or is one already."""
    step = step_of(*specs, known=known, seen=seen(State.CANCELLED))
    assert isinstance(step, Settled | Unsendable)
    assert step.found == found
    assert kept(step).state == "Cancelled"


@pytest.mark.parametrize("state", sorted(ALL - {State.CANCELLED}))
def test_replayed_notification(state: State) -> None:
    """What Order Status does not confirm moves nothing."""
    found = heard(order(SAID), cancelled=(1, 0))
    step = ATARAPAY.next_step(asked(found, UNTRIED, seen=seen(state)))
    assert isinstance(step, Settled)
    assert step.found is None


# --- second attempts ---------------------------------------------------------------------------------------------


def test_what_was_taken_is_remembered() -> None:
    """With the delivery that the word was for, so that only a newer one is told again."""
    known = kept(step_of(*ALL_DELIVERED, known=OPEN, seen=seen(State.SECOND)))
    assert (known.accepted, known.accepted_for, known.is_open, known.by_others) == (
        "delivered",
        DELIVERED_AT,
        False,
        False,
    )
    assert kind_of(step_of(*AGAIN, known=known)) == "order"
    second = step_of(*AGAIN, known=known, seen=seen(State.SECOND))
    assert kind_of(second) == "delivered"
    assert (kept(second).before, kept(second).delivery, kept(second).accepted_for) == (
        "Pending II",
        AGAIN_AT,
        DELIVERED_AT,
    )


def test_second_word_that_was_taken() -> None:
    """Any state beyond says so."""
    known = kept(step_of(*AGAIN, known=SECOND_OPEN, seen=seen(State.AWAITING)))
    assert (known.accepted, known.accepted_for) == ("delivered", AGAIN_AT)
    assert kind_of(step_of(*AGAIN, known=known)) == "settled"


def test_doubt_after_a_word_that_was_taken() -> None:
    """A stop that was not clean does not undo what is known."""
    known = kept(step_of(*AGAIN, known=TAKEN, may_land_late=True, seen=seen(State.REJECTED)))
    assert (known.accepted, known.accepted_for) == ("delivered", DELIVERED_AT)


@pytest.mark.parametrize(
    ("agreed_us", "expected"), [(0, "settled"), (1772323203500000, "delivered"), (1 << 60, "settled")]
)
def test_word_of_somebody_else(agreed_us: int, expected: str) -> None:
    """Of a worker that was killed, or of a person: it was not for a delivery that was told after the second attempt
    was agreed on.
    """
    found = heard(order(*AGAIN), second_attempt=(agreed_us, 0)) if agreed_us else order(*AGAIN)
    step = ATARAPAY.next_step(asked(found, NOBODY, seen=seen(State.SECOND)))
    assert kind_of(step) == expected
    assert kept(step).by_others
    assert not memory.accepted(kept(step)).by_others


def test_cancelled_between() -> None:
    """What came back and was sent again is nothing to tell until it has arrived."""
    back = (*ALL_DELIVERED, returned("r1", hat=2, shoe=1))
    assert kind_of(step_of(*back, known=TAKEN)) == "unsendable"
    assert kind_of(step_of(*back, shipped("s2", hat=2, shoe=1), known=TAKEN)) == "settled"
    assert kind_of(step_of(*back, shipped("s2", hat=2, shoe=1), delivered("s2"), known=TAKEN)) == "order"


def test_reached_without_a_word() -> None:
    """EventSpec in AtaraPay's own pages, before the shop knew: the word for a newer delivery is still owed after Pending II."""
    known = kept(step_of(SAID, known=NOBODY, seen=seen(State.AWAITING)))
    assert (known.accepted, known.accepted_for) == ("delivered", None)
    assert kind_of(step_of(*ALL_DELIVERED, known=known)) == "order"
    assert kind_of(step_of(*ALL_DELIVERED, known=known, seen=seen(State.AWAITING))) == "settled"


# --- what people see, and what was kept --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        (Known(), {}),
        (OPEN, {"order": NUMBER, "tried": "delivered", "in_doubt": True}),
        (replace(TAKEN, state="Pending II"), {"order": NUMBER, "state": "Pending II", "told": "delivered"}),
        (replace(TAKEN, word="cancelled"), {"order": NUMBER, "told": "delivered", "tried": "cancelled"}),
    ],
)
def test_describe(known: Known, shown: dict[str, Any]) -> None:
    """Words, state and number; nothing personal."""
    assert describe(memory.encode(known)) == shown
    assert ATARAPAY.describe(memory.encode(known)) == shown


def test_describe_what_cannot_be_read() -> None:
    """In doubt, then."""
    assert ATARAPAY.describe(b"") == {}
    assert ATARAPAY.describe(b"\xc1") == {"in_doubt": True}


def test_members_of_newer_versions() -> None:
    """What a newer version has added at the end is passed over; what an older one lacks is filled in."""
    assert decode(b"\x9f" + memory.encode(TAKEN)[1:] + b"\x01\x02\x03") == TAKEN
    assert decode(b"\x93\x01\xa13\xc3") == Known(1, "3", True)


@given(st.binary(max_size=40), st.booleans(), st.sampled_from([None, *State]))
def test_total(remote: bytes, may_land_late: bool, state: State | None) -> None:
    """Whatever was kept, there is a step."""
    found: Seen | None = seen(state, "x") if state else None
    for specs in (ALL_DELIVERED, CANCELLED, [SAID]):
        assert kind_of(step_of(*specs, known=remote, may_land_late=may_land_late, seen=found))
    assert OutcomeKind.UNSUPPORTED  # what an `Unsendable` becomes
