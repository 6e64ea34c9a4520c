"""Details that were removed or replaced: gone from the record, and yet what was confirmed is still known as such."""

from base64 import b64decode
from itertools import permutations

import msgspec
import pytest
from msgspec.structs import replace

from schemas.events import OrderEvent
from schemas.facts import NIL
from schemas.state import OrderRecord, Parking, decode_order, encode
from tests.shops.events import SUBJECT, EventSpec, confirmed, details, goods, log, payment, shipped, time_text
from worker.core.plan import Acknowledge, Plan, Send, Wait, plan, plan_unconfigured
from worker.core.record import acknowledge, record_for
from worker.core.record import apply_event as take
from worker.model.provider import Destination
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

TO = Destination(SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "user", "secret"), Sequra())
ADA = {"given_names": "Ada", "surnames": "Lovelace", "email": "ada@example.com"}
BOB = {"given_names": "Bob", "surnames": "Babbage", "email": "bob@example.com"}
EVA = {"given_names": "Eva", "surnames": "Noether", "email": "eva@example.com"}
CONFIRMED = confirmed(goods("A", 2, 200), customer=ADA)
NAMES = [text.encode() for who in (ADA, BOB, EVA) for text in who.values()]


def written(events: list[OrderEvent], destination: Destination | None = TO, value: bytes | None = None) -> bytes:
    """The record after these events as it stands in the topic, each taken as a batch takes it."""
    for position, event in enumerate(events, start=0 if value is None else 100):
        before, matters = record_for(event, value)
        value = encode(
            take(
                before,
                event,
                position=position,
                revision=position + 1,
                now_ms=1,
                destination=destination if matters else None,
            )
        )
    assert value is not None
    return value


def planned(value: bytes) -> Plan:
    """What is to be done about the order."""
    return plan(decode_order(value), SUBJECT, TO)


def names_in(value: bytes) -> set[bytes]:
    """Whose words are in the bytes."""
    return {name for name in NAMES if name in value}


@pytest.mark.parametrize("destination", [TO, None])
def test_removed_details_leave_no_trace(destination: Destination | None) -> None:
    """Removed with null, they are nowhere in the record, whatever the order of arrival and whoever is configured."""
    spec = log(CONFIRMED, payment("approved"), details(customer=None), shipped("s1", A=1))
    for arrivals in permutations(spec):
        assert names_in(written(list(arrivals), destination)) == set()


@pytest.mark.parametrize("destination", [TO, None])
def test_replaced_details_leave_no_trace(destination: Destination | None) -> None:
    """Of several customers the newest alone is in the record."""
    spec = log(CONFIRMED, details(customer=BOB), confirmed(goods("A", 1, 100), customer=EVA))
    for arrivals in permutations(spec):
        assert names_in(written(list(arrivals), destination)) == {text.encode() for text in EVA.values()}


CHANGES: list[tuple[list[EventSpec], type]] = [
    ([details(customer=None)], Send),
    ([details(customer=BOB)], Send),
    ([details(customer=BOB), details(customer=ADA)], Acknowledge),
    ([details(customer=None), details(customer=ADA), details(gift=None)], Acknowledge),
    ([details(references={"provider": "P1"})], Acknowledge),
    ([details(references={"provider": "P1"}), details(references={"provider": "P2"})], Acknowledge),
    ([details(references={"secondary": "P1"})], Send),
    ([confirmed(goods("A", 2, 200), customer=BOB)], Send),
    ([confirmed(goods("A", 2, 200), customer=ADA)], Acknowledge),
]


@pytest.mark.parametrize(("changes", "expected"), CHANGES)
def test_what_was_confirmed_is_known_as_such(changes: list[EventSpec], expected: type) -> None:
    """Only what differs in the payload from what was confirmed is sent, in any order of arrival."""
    for arrivals in permutations(log(CONFIRMED, *changes)):
        assert type(planned(written(list(arrivals)))) is expected


@pytest.mark.parametrize(
    ("back", "expected"),
    [
        ([details(gift=True), details(customer=ADA)], Acknowledge),
        ([details(gift=True, customer=ADA)], Acknowledge),
        ([details(customer=ADA)], Send),
    ],
)
def test_all_details_have_to_be_as_they_were(back: list[EventSpec], expected: type) -> None:
    """Of several that were replaced, one after the other, each counts."""
    one = confirmed(goods("A", 2, 200), customer=ADA, gift=True)
    value = written(log(one, details(customer=BOB), details(gift=False), *back))
    assert type(planned(value)) is expected


def test_older_confirmation_is_the_one_that_counts() -> None:
    """It may come last, its customer replaced by then: compared is with what it alone gives."""
    older = CONFIRMED.but(time=time_text(-9), id="older")
    for again, expected in ((ADA, Acknowledge), (BOB, Send)):
        spec = log(confirmed(goods("A", 2, 200), customer=EVA), details(customer=BOB), details(customer=again), older)
        for arrivals in permutations(spec):
            assert type(planned(written(list(arrivals)))) is expected


def test_confirmation_that_contradicts_itself_is_no_measure() -> None:
    """The provider's cart is not known then, so nothing is taken for told."""
    bad = confirmed({"type": "discount", "reference": "D", "name": "D", "total_minor": -5}, goods("A", 1, 1), gift=True)
    good = confirmed(goods("A", 1, 1), gift=True)
    value = written(log(bad, details(gift=False), good))
    assert not isinstance(planned(value), Acknowledge)


def test_without_an_account_replaced_details_wait_for_one() -> None:
    """No adapter can tell whether they make a difference."""
    value = written(log(CONFIRMED, details(customer=BOB)), None)
    waits = plan_unconfigured(decode_order(value), SUBJECT)
    assert isinstance(waits, Wait)
    assert waits.state == "no_account"
    assert isinstance(planned(value), Send)


HELD = b64decode(
    "3AAdAwIAwsLAAAEAAMQAlMQAAAAAoMLCzwAAAZymsePQwNwAE8QQgUU+eB5oztvwvjP36TkCOZWT/88ABkvrJtKiQACjRVVSzMjEAcCBqGN1"
    "c3RvbWVyxDmDq2dpdmVuX25hbWVzo0FkYahzdXJuYW1lc6hMb3ZlbGFjZaVlbWFpbK9hZGFAZXhhbXBsZS5jb22Vk//PAAZL6ybSokAAwKNF"
    "VVLMyMQYkZuhQadwcm9kdWN0oUGhQQJkzMjAwsDAzMiAwIGoY3VzdG9tZXKSk//PAAZL6ybh5IABxDiDq2dpdmVuX25hbWVzo0JvYqhzdXJu"
    "YW1lc6dCYWJiYWdlpWVtYWlsr2JvYkBleGFtcGxlLmNvbYCAgICAwJDAgIDAwADCwAAAoMAAxAAAwA=="
)
"""As the oldest versions wrote it: the confirmation keeps the customer that was replaced."""
NOTED = b64decode(
    "3AAdAwIAwsLAAAEAAMQAlMQAAAAAoMLCzwAAAZymsePQwNwAE8QQgUU+eB5oztvwvjP36TkCOZWT/88ABkvrJtKiQACjRVVSzMjEAcCBqGN1"
    "c3RvbWVyxAHAlZP/zwAGS+sm0qJAAMCjRVVSzMjEGJGboUGncHJvZHVjdKFBoUECZMzIwMLAwMzIgMCBqGN1c3RvbWVykpP/zwAGS+sm4eSA"
    "AcQ4g6tnaXZlbl9uYW1lc6NCb2Koc3VybmFtZXOnQmFiYmFnZaVlbWFpbK9ib2JAZXhhbXBsZS5jb22AgICAgMCQwICAwMAAwsAAAKJlMpOm"
    "c2VxdXJhk//PAAZL6ybSokAAxBCGvm5B77OwtKHPP95baaJqAMQAAMA="
)
"""As versions up to schema 3 wrote it: the adapter's digest of what was confirmed stands beside the facts."""


@pytest.mark.parametrize("old", [HELD, NOTED], ids=["held", "noted"])
@pytest.mark.parametrize(
    ("news", "expected"),
    [
        (shipped("s1", A=1), Send),
        (payment("approved"), Send),
        (details(gift=True), Send),
        (details(customer=ADA), Acknowledge),
        (CONFIRMED.but(id="again"), Acknowledge),
    ],
)
def test_old_record_knows_what_was_confirmed(old: bytes, news: EventSpec, expected: type) -> None:
    """Whatever the event is, what was replaced is gone with it, and still what was confirmed is known."""
    assert ({b"Ada", b"Bob"} <= names_in(old)) == (old is HELD)
    assert isinstance(planned(old), Send)
    after = written(log(*[news] * 9)[-1:], value=old)
    names = {name for name in names_in(after) if name in {text.encode() for text in ADA.values()}}
    assert bool(names) == (expected is Acknowledge)
    assert type(planned(after)) is expected


def test_another_provider_knows_nothing_of_what_was_noted() -> None:
    """What one adapter has noted says nothing to another one."""
    record = decode_order(written(log(*[details(customer=ADA)] * 9)[-1:], value=NOTED))
    assert record.confirmed_as is not None
    assert isinstance(plan(record, SUBJECT, TO), Acknowledge)
    record.confirmed_as = replace(record.confirmed_as, provider="other")
    assert isinstance(plan(record, SUBJECT, TO), Send)


def test_of_an_old_record_that_lost_a_part_nothing_is_known() -> None:
    """One replaced detail was removed, the other one still held: both are gone now, and it is told."""
    held = msgspec.msgpack.decode(HELD)
    held[FACTS_AT][1][4] |= {"gift": NIL}
    record = decode_order(msgspec.msgpack.encode(held))
    assert record.facts.confirmation is not None
    assert record.facts.confirmation.details == {"customer": NIL, "gift": NIL}
    after = written(log(*[details(customer=ADA)] * 9)[-1:], value=encode(record))
    assert isinstance(planned(after), Send)


FACTS_AT = OrderRecord.__struct_fields__.index("sealed")


@pytest.mark.parametrize("by_check", [False, True])
def test_what_a_provider_said_goes_with_removed_details(by_check: bool) -> None:
    """It may repeat them; what our own checks say never does."""
    record = decode_order(written(log(CONFIRMED, shipped("s1", A=1))))
    record.reason = "422 ada@example.com is no address"
    record.park = Parking(record.reason, b"digest", record.revision, 1, by_check)
    changed, removed = log(shipped("s1", A=1), shipped("s1", A=1), details(gift=True), details(customer=None))[2:]
    kept = written([changed], value=encode(record))
    assert kept.count(b"422") == 2
    assert written([removed], value=kept).count(b"422") == by_check
    without = OrderRecord(sealed=record.sealed, reason="422 ada@example.com is no address")
    assert b"422" not in written([removed], value=encode(without))


def test_acknowledged_payload_counts_more() -> None:
    """Once something was taken by the provider, what was confirmed is no measure any more."""
    record = decode_order(written(log(CONFIRMED, details(customer=BOB))))
    found = plan(record, SUBJECT, TO)
    assert isinstance(found, Send)
    told = encode(acknowledge(record, found.update.digest))
    back = written(log(CONFIRMED, CONFIRMED, details(customer=ADA))[2:], value=told)
    assert isinstance(planned(back), Send)
