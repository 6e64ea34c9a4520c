"""What is to be done about an order that is owed: sent, suppressed, parked, or left to wait."""

from typing import Any

import pytest
from msgspec.structs import replace

from schemas.state import Attempts, OrderRecord, Parking
from tests.asking import totals_told
from tests.shops.events import (
    START_MS,
    SUBJECT,
    EventSpec,
    cancelled,
    cart_updated,
    confirmed,
    details,
    goods,
    items_cancelled,
    log,
    other,
    payment,
    refunded,
    retracted,
    returned,
    shipped,
    time_text,
)
from worker.core.order import Assessment, Shown, assess
from worker.core.plan import Acknowledge, Park, Plan, Send, Wait, plan, plan_unconfigured
from worker.core.policy import DeliveryPolicy
from worker.core.record import acknowledge, apply_event, inherit, mark_waiting, must_inherit, park, release, resend
from worker.core.status import is_parked, status
from worker.model.order import account_of, reference_of
from worker.model.provider import Destination
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "user", "secret")
TO = Destination(ACCOUNT, Sequra())
CONFIRMED = confirmed(goods("A", 2, 200), goods("B", 1, 100))
NOW_MS = START_MS


def record_of(*specs: EventSpec, destination: Destination | None = TO) -> OrderRecord:
    """The record after these specs, none of which was sent; revisions are 1, 2, …"""
    record = OrderRecord()
    for position, event in enumerate(log(*specs)):
        record = apply_event(
            record, event, position=position, revision=position + 1, now_ms=NOW_MS + position, destination=destination
        )
    return record


def plan_of(record: OrderRecord, destination: Destination = TO) -> Plan:
    """The plan for the order of the tests."""
    return plan(record, SUBJECT, destination)


def sent(record: OrderRecord) -> OrderRecord:
    """The record once the provider has taken what is planned."""
    found = plan_of(record)
    assert isinstance(found, Send)
    return acknowledge(record, found.update.digest)


def told_more(record: OrderRecord, *specs: EventSpec, **arguments: Any) -> OrderRecord:
    """The record after further specs, a second apart from 100 s on."""
    for number, one in enumerate(specs):
        position = 100 + number
        event = log(*[one] * (position + 1))[-1]
        record = apply_event(
            record,
            event,
            position=position,
            revision=record.revision + 1,
            now_ms=NOW_MS + position,
            destination=arguments.get("destination", TO),
            in_flight=arguments.get("in_flight", False),
        )
    return record


def test_subject_is_account_and_reference() -> None:
    """The account stands before the first slash, the reference after it."""
    assert (account_of("acme/A14/12345"), reference_of("acme/A14/12345")) == ("acme", "A14/12345")


# --- sent, or the same ---------------------------------------------------------------------------------------------


def test_shipment_is_sent() -> None:
    """What differs from what the provider knows is sent, with the carts as they are now."""
    found = plan_of(record_of(CONFIRMED, shipped("s1", A=1)))
    assert isinstance(found, Send)
    assert totals_told(found.update) == (100, 200)
    assert found.update.problem is None


def test_confirmation_alone_is_known() -> None:
    """A provider approved the content at checkout: nothing is sent until something differs from it."""
    assert isinstance(plan_of(record_of(CONFIRMED)), Acknowledge)
    assert isinstance(plan_of(record_of(CONFIRMED, payment("approved"))), Acknowledge)


def test_confirmation_is_sent_on_demand() -> None:
    """`send_on_confirm` sends it all the same, once."""
    eager = Destination(replace(ACCOUNT, send_on_confirm=True), Sequra())
    record = record_of(CONFIRMED, destination=eager)
    found = plan_of(record, eager)
    assert isinstance(found, Send)
    assert isinstance(plan_of(acknowledge(record, found.update.digest), eager), Acknowledge)


DIFFERENT = [
    shipped("s1", A=1),
    items_cancelled("c1", A=1),
    returned("r1", origin="unshipped", A=1),
    refunded("f1", 5),
    cancelled(),
    cart_updated(goods("A", 2, 200)),
    details(cart_ref="x"),
    details(customer={"email": "a@b.c"}),
    details(store_ref="7"),
    details(references={"secondary": "S"}),
]


@pytest.mark.parametrize("spec", DIFFERENT)
def test_whatever_differs_is_sent(spec: EventSpec) -> None:
    """Carts, references and details: each alone makes the order owed."""
    record = record_of(CONFIRMED, spec)
    assert isinstance(plan_of(record), Send)
    assert isinstance(plan_of(sent(record)), Acknowledge)


def test_change_and_change_back_is_known() -> None:
    """A revision whose payload equals the last acknowledged one needs no call: the confirmed one at first."""
    back = cart_updated(goods("A", 2, 200), goods("B", 1, 100))
    assert isinstance(plan_of(record_of(CONFIRMED, cart_updated(goods("A", 1, 100)), back)), Acknowledge)


def test_once_acknowledged_the_confirmed_state_is_news() -> None:
    """After something was told, going back to the confirmed state has to be told."""
    record = sent(record_of(CONFIRMED, cart_updated(goods("A", 1, 100))))
    record = told_more(record, cart_updated(goods("A", 2, 200), goods("B", 1, 100)))
    assert isinstance(plan_of(record), Send)


@pytest.mark.parametrize("mark", ["remote_unknown", "may_land_late"])
def test_nothing_is_suppressed_in_doubt(mark: str) -> None:
    """While the provider may hold something else, the same payload is sent again."""
    record = record_of(CONFIRMED, shipped("s1", A=1))
    record = sent(record)
    assert isinstance(plan_of(record), Acknowledge)
    setattr(record, mark, True)
    assert isinstance(plan_of(record), Send)


def test_configuration_makes_nothing_owed() -> None:
    """A new release or a changed setting makes no order of the past owed."""
    record = sent(record_of(CONFIRMED, shipped("s1", A=1)))
    changed = replace(ACCOUNT, merchant_id="m2", platform={"name": "other"}, store_ref="9", base_url="https://other")
    assert isinstance(plan_of(record, Destination(changed, Sequra())), Acknowledge)


def test_cancellation_reason_alone_makes_nothing_owed() -> None:
    """A reason that is told later changes no cart."""
    record = sent(record_of(CONFIRMED, cancelled()))
    assert isinstance(plan_of(told_more(record, cancelled(reason="late"))), Acknowledge)


def test_contradictory_confirmation_leaves_nothing_known() -> None:
    """When the confirmation alone has no carts, the repaired order is sent."""
    bad = confirmed(goods("A", 1, 10), other("discount", "D", -20))
    record = record_of(bad, cart_updated(goods("A", 1, 10)))
    found = plan_of(record)
    assert isinstance(found, Park)  # 10 is more than 115 % of −10
    assert "confirmed -10" in found.reason


# --- parked ----------------------------------------------------------------------------------------------------------


def test_problem_is_parked_with_its_arithmetic() -> None:
    """What must not be sent is parked, and says why."""
    found = plan_of(record_of(CONFIRMED, cart_updated(goods("A", 1, 346))))
    assert isinstance(found, Park)
    assert found.reason == "carts 346, confirmed 300: seQura rejects an increase above 15 %"


def test_parked_order_waits_until_its_payload_changes() -> None:
    """The same payload stays parked, at newer revisions too; another one is sent."""
    record = record_of(CONFIRMED, shipped("s1", A=1))
    found = plan_of(record)
    assert isinstance(found, Send)
    assert found.shown == Shown("EUR", 100, 200)
    parked = park(record, "409: no", found.update.digest, NOW_MS, by_check=False)
    assert plan_of(parked) == Wait("parked", ["409: no"], shown=found.shown)
    same_again = told_more(parked, payment("on_hold"), payment("on_hold"))
    assert plan_of(same_again).__class__ is Wait
    newer = told_more(parked, shipped("s1", A=1))
    assert plan_of(newer) == Park("409: no", found.update.digest, by_check=False, shown=found.shown)
    assert isinstance(plan_of(told_more(parked, shipped("s2", B=1))), Send)


def test_check_is_made_anew_with_every_change() -> None:
    """Growth is measured against the oldest confirmation: one that comes late may make the same payload right."""
    grown = (CONFIRMED.but(time=time_text(50)), cart_updated(goods("A", 1, 346)).but(time=time_text(60)))
    record = record_of(*grown)
    found = plan_of(record)
    assert isinstance(found, Park)
    parked = park(record, found.reason, found.digest, NOW_MS, by_check=found.by_check)
    assert plan_of(parked) == Wait("parked", [found.reason], shown=found.shown)
    assert plan_of(told_more(parked, payment("approved"))) == found
    smaller = confirmed(goods("A", 1, 290)).but(time=time_text(1))
    assert plan_of(told_more(parked, smaller)) == replace(found, reason=found.reason.replace("300", "290"))
    larger = confirmed(goods("A", 1, 320)).but(time=time_text(1))
    assert isinstance(plan_of(told_more(parked, larger)), Send)
    the_same = confirmed(goods("A", 1, 346)).but(time=time_text(1))
    assert plan_of(told_more(parked, the_same)) == Acknowledge(b"", Shown("EUR", 0, 346))


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([shipped("s1", A=1)], Wait("unconfirmed", ["no order.confirmed yet"])),
        ([CONFIRMED], Acknowledge(b"", Shown("EUR", 0, 300))),
        ([CONFIRMED, shipped("s1", A=1)], Wait("no_account", [], shown=Shown("EUR", 100, 200))),
        ([CONFIRMED, shipped("s1", A=1), retracted(shipment_id="s1")], Acknowledge(b"", Shown("EUR", 0, 300))),
    ],
)
def test_order_whose_account_is_not_configured(specs: list[EventSpec], expected: Plan) -> None:
    """It waits for the account; what is just as it was confirmed needs none."""
    assert plan_unconfigured(record_of(*specs, destination=None), SUBJECT) == expected


@pytest.mark.parametrize("member", ["remote_unknown", "may_land_late", "acked_digest"])
def test_order_of_an_account_that_is_gone(member: str) -> None:
    """Whoever was told something may hold something else than what was confirmed."""
    record = record_of(CONFIRMED, destination=None)
    setattr(record, member, b"d" if member == "acked_digest" else True)
    assert plan_unconfigured(record, SUBJECT) == Wait("no_account", [], shown=Shown("EUR", 0, 300))


def test_park_keeps_reason_and_moment() -> None:
    """Parking notes reason, digest, revision and time, and ends the inconsistency's clock."""
    record = record_of(CONFIRMED, shipped("s1", A=1))
    record.inconsistent_since_ms = 5
    found = park(record, "why", b"d", 77, by_check=True)
    assert (found.park, found.reason, found.inconsistent_since_ms) == (Parking("why", b"d", 2, 77, True), "why", 0)
    assert (record.park, record.inconsistent_since_ms) == (None, 5)
    assert is_parked(found)
    assert not is_parked(record)
    assert not is_parked(replace(found, revision=3))


@pytest.mark.parametrize(
    ("specs", "state"),
    [
        ([shipped("s1", A=1)], "unconfirmed"),
        ([CONFIRMED, payment("on_hold")], "on_hold"),
        ([CONFIRMED, payment("refused")], "refused"),
        ([CONFIRMED, shipped("s1", A=9)], "inconsistent"),
    ],
)
def test_order_that_is_not_ready_waits(specs: list[EventSpec], state: str) -> None:
    """Nothing is sent of an order that is unconfirmed, on hold, refused or inconsistent."""
    found = plan_of(record_of(*specs))
    assert isinstance(found, Wait)
    assert found.state == state


# --- released, resent, inherited -------------------------------------------------------------------------------------


def parked_record() -> OrderRecord:
    """An order that is parked, delayed and counted."""
    record = record_of(CONFIRMED, shipped("s1", A=1))
    found = plan_of(record)
    assert isinstance(found, Send)
    record = park(record, "404", found.update.digest, NOW_MS, by_check=False)
    record.attempts = Attempts(found.update.digest, 1, 2, 3)
    record.not_before_ms = 12345
    return record


def test_release_starts_anew_but_shortens_no_delay() -> None:
    """Parking and counts are gone, a running delay and uncertainty stay."""
    record = parked_record()
    record.may_land_late = record.remote_unknown = True
    record = release(record)
    assert (record.park, record.attempts) == (None, Attempts())
    assert (record.not_before_ms, record.may_land_late, record.remote_unknown) == (12345, True, True)
    assert isinstance(plan_of(record), Send)


def test_resend_makes_the_newest_revision_owed_again() -> None:
    """Whatever was acknowledged, the newest state is sent; it is owed since now, or since it was before."""
    record = sent(record_of(CONFIRMED, shipped("s1", A=1)))
    assert isinstance(plan_of(record), Acknowledge)
    record.echo = True
    record = resend(record, 777)
    assert (record.acked, record.owed_since_ms, record.revision, record.echo) == (0, 777, 2, False)
    assert isinstance(plan_of(record), Send)
    assert resend(record, 999).owed_since_ms == 777


def test_inherited_order_is_in_doubt() -> None:
    """An owner that took over from one that stopped hard trusts nothing that was owed."""
    record = sent(record_of(CONFIRMED, shipped("s1", A=1)))
    found = inherit(record)
    assert (found.may_land_late, found.remote_unknown) == (True, True)
    assert (record.may_land_late, record.remote_unknown) == (False, False)
    assert isinstance(plan_of(found), Send)


@pytest.mark.parametrize(
    ("record", "was_clean", "expected"),
    [
        (OrderRecord(revision=2, acked=2), False, False),
        (OrderRecord(revision=3, acked=2), False, True),
        (OrderRecord(revision=2, acked=2, may_land_late=True), False, True),
        (OrderRecord(revision=2, acked=2, remote_unknown=True), False, False),
        (OrderRecord(revision=3, acked=2), True, False),
        (OrderRecord(revision=3, acked=2, may_land_late=True), True, True),
    ],
)
def test_what_has_to_be_inherited(record: OrderRecord, was_clean: bool, expected: bool) -> None:
    """What was owed, or uncertain: a request of it may be under way. A clean predecessor has marked all of it."""
    assert must_inherit(record, was_clean=was_clean) is expected


def test_beginning_of_an_inconsistency_is_noted_once() -> None:
    """The record notes when its facts began to contradict each other, and forgets it when they no longer do."""
    record = OrderRecord()
    assert mark_waiting(record, False, 5) is record
    began = mark_waiting(record, True, 5)
    assert (began.inconsistent_since_ms, record.inconsistent_since_ms) == (5, 0)
    assert mark_waiting(began, True, 9) is began
    assert mark_waiting(began, False, 9).inconsistent_since_ms == 0


# --- status ------------------------------------------------------------------------------------------------------------

RULES = DeliveryPolicy()


def status_of(record: OrderRecord, now_ms: int = NOW_MS) -> str:
    """What people see of the order of the tests."""
    return status(record, assess(record.facts, reference_of(SUBJECT)), now_ms=now_ms, rules=RULES)


def test_status_is_the_first_that_holds() -> None:
    """Unconfirmed, refused or on hold, inconsistent (then parked), settled, parked, owed."""
    assert status_of(record_of(shipped("s1", A=1))) == "unconfirmed"
    assert status_of(record_of(CONFIRMED, payment("on_hold"), shipped("s1", A=9))) == "on_hold"
    assert status_of(record_of(CONFIRMED, payment("refused"))) == "refused"
    assert status_of(record_of(CONFIRMED, shipped("s1", A=9))) == "inconsistent"
    assert status_of(record_of(CONFIRMED, shipped("s1", A=1))) == "owed"
    assert status_of(parked_record()) == "parked"
    assert status_of(sent(record_of(CONFIRMED, shipped("s1", A=1)))) == "settled"
    assert status_of(acknowledge(parked_record(), b"d")) == "settled"


def test_inconsistent_order_is_parked_after_a_while() -> None:
    """After `inconsistent_after` (15 min), not a millisecond sooner."""
    record = mark_waiting(record_of(CONFIRMED, shipped("s1", A=9)), True, NOW_MS)
    assert status_of(record, NOW_MS + 899_999) == "inconsistent"
    assert status_of(record, NOW_MS + 900_000) == "parked"


def test_status_needs_no_record_to_be_told() -> None:
    """A assessment without a record's marks is just inconsistent."""
    assert status(OrderRecord(), Assessment("inconsistent", ["x"]), now_ms=10**15, rules=RULES) == "inconsistent"


@pytest.mark.parametrize("unsupported", [False, True])
def test_parked_again_for_the_same(unsupported: bool) -> None:
    """A newer revision with the same payload stays what it was: what is heard at the provider may release the one, but
    not the other.
    """
    record = record_of(CONFIRMED, shipped("s1", A=1))
    found = plan_of(record)
    assert isinstance(found, Send)
    record.park = Parking("why", found.update.digest, record.revision - 1, 1, unsupported=unsupported)
    again = plan_of(record)
    assert isinstance(again, Park)
    after = park(record, again.reason, again.digest, 2, by_check=again.by_check)
    assert after.park == Parking("why", found.update.digest, record.revision, 2, unsupported=unsupported)
    other = park(record, "another", b"other", 2, by_check=False)
    assert other.park is not None
    assert not other.park.unsupported
