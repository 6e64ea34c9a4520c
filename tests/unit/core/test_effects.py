"""What operators' events do to an order and to an account: once, without a new revision, and said."""

import json

import pytest
from msgspec.structs import replace

from schemas import state
from schemas.events import OrderEvent
from schemas.facts import PROVIDER
from schemas.state import OPERATED_MAX, AccountRecord, Attempts, OrderRecord
from tests.shops.events import (
    REFERENCE,
    START_MS,
    START_US,
    SUBJECT,
    TRUST,
    EventSpec,
    confirmed,
    delivered,
    details,
    event,
    goods,
    payment,
    shipped,
)
from tests.unit.core.samples import DETAILS
from tests.unit.core.test_outbox_events import TO, OrderUnderTest
from worker.core import record as records
from worker.core.commands import COMMANDS
from worker.core.effects import Asked, is_repeat, newest, operate, operate_account, operated
from worker.core.intake import decode
from worker.core.operator_event import SOURCE, operator_event
from worker.core.order import assess
from worker.core.placing import Placing
from worker.core.plan import Acknowledge, Park, Send, Wait
from worker.core.policy import DeliveryPolicy
from worker.core.record import newest_event, settle
from worker.core.results import Reporting, tell_operated
from worker.core.retention import may_close
from worker.core.trust import Trust
from worker.core.view import view_order
from worker.errors import UsageError
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.provider import Destination

RULES = DeliveryPolicy()
NOW_MS = START_MS + 60_000
DETAILED = confirmed(goods("A", 2, 200))._replace(data=confirmed(goods("A", 2, 200)).data | DETAILS)


def said(name: str, why: str = "ticket 4711", number: int = 100) -> OrderEvent:
    """An operator's event."""
    of_account = COMMANDS[name].about == "account"
    spec = EventSpec(f"operator.{name}", {"by": "ana"} | ({"why": why} if why else {}), {"source": SOURCE})
    return event(spec.but(subject="acme") if of_account else spec, number)


def done_to(
    order: OrderUnderTest, name: str, *, number: int = 100, destination: Destination | None = TO
) -> tuple[OrderRecord, bool]:
    """The order after a command, and whether there was anything to do."""
    one = said(name, number=number)
    asked = Asked(SUBJECT, NOW_MS, destination, (-1, one.time_us, number))
    order.record, done = operate(order.record, one, asked)
    return order.record, done


def owed() -> OrderUnderTest:
    """An order of which a shipment is owed."""
    return OrderUnderTest(DETAILED, shipped("s1", A=1))


def settled() -> OrderUnderTest:
    """One that its provider has."""
    order = owed()
    order.send()
    return order


def parked() -> OrderUnderTest:
    """One that its provider refuses."""
    order = owed()
    digest = send_of(order).update.digest
    after, _ = settle(order.record, 2, digest, REFUSED, now_ms=NOW_MS, chance=0.5, rules=RULES)
    order.record = replace(after, attempts=Attempts(digest, conflict=2))
    return order


REFUSED = Outcome(OutcomeKind.PERMANENT, "422: Ana Garcia is not known", 422)


def send_of(order: OrderUnderTest) -> Send:
    """What is to be sent."""
    plan = order.plan()
    assert isinstance(plan, Send)
    return plan


# --- once, and without a revision -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.about == "order"])
def test_revision_stays_and_a_repeat_is_seen(name: str) -> None:
    """An operator changes no fact: the revision and its event stay; the event again is known as such."""
    order = parked()
    before = order.record
    assert not is_repeat(before, said(name))
    after, done = done_to(order, name)
    assert done
    assert (after.revision, newest_event(after)) == (before.revision, newest_event(before))
    assert is_repeat(after, said(name))
    assert not is_repeat(after, said(name, number=101))
    assert after.touched_day == NOW_MS // 86_400_000


def test_of_an_order_without_events_that_are_remembered() -> None:
    """The event is then the only one."""
    order = OrderUnderTest()
    done_to(order, "note")
    assert order.record.sealed.seen == said("note").uid


def test_newest_of_what_was_done_are_kept() -> None:
    """A bounded number of them, the oldest first."""
    kept = newest((), operated(said("note", number=0), NOW_MS, "owed", done=True))
    for number in range(1, OPERATED_MAX + 3):
        kept = newest(kept, operated(said("note", number=number), NOW_MS, "owed", done=True))
    assert [one.uid for one in kept] == [said("note", number=number).uid for number in range(3, OPERATED_MAX + 3)]
    assert (kept[0].command, kept[0].by, kept[0].why, kept[0].words) == ("note", "ana", "ticket 4711", "noted")
    assert operated(said("release", why=""), NOW_MS, None, done=False).why == ""


def test_view_says_what_was_done() -> None:
    """With the order: who, what, why, and what came of it; and that something was erased."""
    order = settled()
    done_to(order, "forget")
    deeds = (
        operated(said("note"), NOW_MS, "settled", done=True),
        operated(said("release", why=""), NOW_MS, "settled", done=False),
    )
    view = view_order(SUBJECT, replace(order.record, operated=deeds), partition=0, rules=RULES, now_ms=NOW_MS)
    assert view.notes == [
        "its personal details were erased on 2026-03-01; its record is removed once nothing is owed",
        "2026-03-01T00:01:00Z ana: note (ticket 4711): noted",
        "2026-03-01T00:01:00Z ana: release: nothing to release: it is settled",
    ]


# --- release, resend ---------------------------------------------------------------------------------------------------


def test_release_and_resend_do_what_they_do_without_an_event() -> None:
    """A parked order is owed again; one that was acknowledged, too."""
    order = parked()
    after, _ = done_to(order, "release")
    assert (after.park, after.generation) == (None, 1)
    order = settled()
    assert done_to(order, "release")[1] is False
    assert not order.is_owed
    done_to(order, "resend", number=101)
    assert order.is_owed


# --- adopt ---------------------------------------------------------------------------------------------------------------


def test_adopt_takes_what_is_there_as_told() -> None:
    """Nothing is owed, no parking or delay is left, and what changes nothing is not sent either."""
    order = parked()
    order.record = replace(
        order.record, not_before_ms=NOW_MS + 1, delay_ms=1, not_found_delay=True, remote_unknown=True
    )
    after, done = done_to(order, "adopt")
    assert done
    assert not order.is_owed
    assert (after.park, after.not_before_ms, after.delay_ms, after.remote_unknown) == (None, 0, 0, False)
    order.tell(payment("approved"))
    assert isinstance(order.plan(), Acknowledge)


def test_adopt_does_not_trust_what_may_still_land() -> None:
    """A request on its way may undo what was looked at: the next change is sent, whatever it is."""
    order = owed()
    order.record = replace(order.record, may_land_late=True, remote_unknown=True)
    after, _ = done_to(order, "adopt")
    assert after.remote_unknown
    order.tell(payment("approved"))
    assert isinstance(order.plan(), Send)


def test_nothing_to_adopt() -> None:
    """Of an order that is told already, one that cannot be told, and one of an account that nobody has configured."""
    assert done_to(settled(), "adopt")[1] is False
    assert done_to(OrderUnderTest(shipped("s1", A=1)), "adopt")[1] is False
    order = owed()
    assert done_to(order, "adopt", destination=None)[1] is False
    assert order.is_owed


# --- forget --------------------------------------------------------------------------------------------------------------


def text_of(record: OrderRecord) -> str:
    """All that a record holds."""
    return repr(record.facts) + repr(record)


PERSONAL = ("Calle Mayor", "ana@example.org", "12345678Z", "Ana Garcia")


def test_forget_erases_at_once_and_owes_nothing() -> None:
    """Persons and addresses are gone, the money stays; an event that changes nothing of the carts sends nothing."""
    order = settled()
    shown = assess(order.record.facts, REFERENCE).order
    assert shown is not None
    assert all(text in text_of(order.record) for text in PERSONAL[:3])
    after, _ = done_to(order, "forget")
    assert not any(text in text_of(after) for text in PERSONAL)
    left = assess(after.facts, REFERENCE).order
    assert left is not None
    assert (left.shipped, left.unshipped) == (shown.shipped, shown.unshipped)
    assert left.details.delivery_method == shown.details.delivery_method
    assert after.erased is not None
    assert (after.erased.at_ms, after.erased.members) == (NOW_MS, ["customer", "delivery_address", "invoice_address"])
    assert not order.is_owed
    order.tell(payment("approved"))
    assert isinstance(order.plan(), Acknowledge)


def test_forget_before_anything_was_sent() -> None:
    """What the provider knows from checkout alone counts as told without those details, too."""
    order = OrderUnderTest(DETAILED)
    assert isinstance(order.plan(), Acknowledge)
    done_to(order, "forget")
    assert isinstance(order.plan(), Acknowledge)


def test_forget_of_an_order_that_is_owed() -> None:
    """It stays so, and is told without those details."""
    order = owed()
    done_to(order, "forget")
    assert order.is_owed
    assert not any(text in repr(send_of(order).update) for text in PERSONAL)


def test_forget_leaves_a_parked_order_parked() -> None:
    """What was refused is not tried again because a name is gone from it; its counts go on."""
    order = parked()
    attempts = order.record.attempts
    after, _ = done_to(order, "forget")
    plan = order.plan()
    assert isinstance(plan, Park | Wait)
    assert after.park is not None
    assert not any(text in text_of(after) for text in PERSONAL)
    assert after.attempts == replace(attempts, digest=after.park.digest)
    assert after.attempts.digest != attempts.digest


def test_forget_leaves_other_parkings_and_counts_alone() -> None:
    """Those of a payload that is not the order's any more."""
    order = parked()
    order.tell(shipped("s2", A=1))
    park, attempts = order.record.park, order.record.attempts
    assert park is not None
    after, _ = done_to(order, "forget")
    assert after.park is not None
    assert (after.park.digest, after.attempts) == (park.digest, attempts)


def test_forget_while_a_request_is_on_its_way() -> None:
    """It has those details in it; once it was taken, nothing is owed."""
    order = owed()
    digest = send_of(order).update.digest
    done_to(order, "forget")
    applied = Outcome(OutcomeKind.APPLIED, "", 204)
    order.record, _ = settle(order.record, 2, digest, applied, now_ms=NOW_MS, chance=0.5, rules=RULES)
    assert not order.is_owed
    order.tell(payment("approved"))
    assert isinstance(order.plan(), Acknowledge)


def test_forget_again_leaves_the_first_time_standing() -> None:
    """Nothing more was there; what was on its way the first time still counts."""
    order = owed()
    digest = send_of(order).update.digest
    done_to(order, "forget")
    first = order.record.erased
    done_to(order, "forget", number=101)
    assert order.record.erased == first
    order.tell(details(customer=DETAILS["customer"]).but(sequence="7"))
    done_to(order, "forget", number=102)
    again = order.record.erased
    assert again is not None
    assert again.members == ["customer"]
    assert digest != again.before


@pytest.mark.parametrize("late", [DETAILED, details(customer=DETAILS["customer"])])
def test_what_comes_late_stays_erased(late: EventSpec) -> None:
    """However the shop numbers its events: what it told before is not told anew by coming late. What is newer is."""
    order = OrderUnderTest(confirmed(goods("A", 2, 200)).but(sequence="5"))
    order.tell(details(customer=DETAILS["customer"]).but(sequence="6"))
    done_to(order, "forget")
    order.tell(late.but(sequence="3"))
    assert not any(text in repr(order.record.facts.details["customer"]) for text in PERSONAL)
    order.tell(details(customer=DETAILS["customer"]).but(sequence="7"))
    assert "ana@example.org" in repr(order.record.facts.details["customer"])


def test_words_are_erased() -> None:
    """Those of the provider, and why operators did what they did."""
    order = owed()
    order.tell(EventSpec("provider.unmapped", {"kind": "risk", "word": "Ana Garcia"}))
    record = replace(order.record, reason="422: Ana Garcia")
    order.record = replace(
        record, operated=(operated(said("note", why="Ana Garcia called"), NOW_MS, "owed", done=True),)
    )
    after, _ = done_to(order, "forget")
    assert after.reason == ""
    assert [(one.command, one.by, one.why) for one in after.operated] == [("note", "ana", "")]
    assert "Garcia" not in repr(PROVIDER.open(after.sealed.provider))


@pytest.mark.parametrize("destination", [TO, None])
def test_forget_of_what_cannot_be_told(destination: Destination | None) -> None:
    """An order that is not confirmed, or whose account nobody has configured, is erased all the same."""
    for order in (OrderUnderTest(details(customer=DETAILS["customer"])), OrderUnderTest(DETAILED, destination=None)):
        after, done = done_to(order, "forget", destination=destination)
        assert done
        assert not any(text in text_of(after) for text in PERSONAL)


def test_forgotten_order_is_closed_once_nothing_is_owed() -> None:
    """At once, and whatever `keep_settled` says; not before."""
    order = owed()
    done_to(order, "forget")
    assert not may_close(order.record, SUBJECT, NOW_MS, 0)
    order.send()
    assert may_close(order.record, SUBJECT, NOW_MS, 0)
    assert not may_close(settled().record, SUBJECT, NOW_MS, 0)


# --- accounts ------------------------------------------------------------------------------------------------------------


def after_account(
    record: AccountRecord, name: str, number: int, *, is_paused: bool = False
) -> tuple[AccountRecord, bool]:
    """The account after a command, and whether there was anything to do."""
    after, one = operate_account(record, said(name, number=number), NOW_MS, is_paused=is_paused)
    assert one.words
    assert after.operated[-1] == one
    return after, one.done


def test_pause_lasts_until_a_resume() -> None:
    """In the order of the log; who paused it first stays named."""
    account, done = after_account(AccountRecord(4), "pause", 1)
    assert done
    assert account.paused is not None
    assert account.paused.uid == said("pause", number=1).uid
    again, done = after_account(account, "pause", 2)
    assert (again.paused, done) == (account.paused, False)
    account, done = after_account(again, "resume", 3)
    assert (account.paused, done) == (None, True)
    assert after_account(account, "resume", 4)[1] is False
    assert after_account(account, "resume", 4, is_paused=True)[1] is True
    assert is_repeat(account, said("pause", number=1))
    assert not is_repeat(account, said("pause", number=5))


def test_account_remembers_a_bounded_number() -> None:
    """The newest of them."""
    account = AccountRecord(4)
    for number in range(150):
        account, _ = after_account(account, "pause" if number % 2 else "resume", number)
    assert len(account.seen) == 800
    assert len(account.operated) == OPERATED_MAX
    assert is_repeat(account, said("pause", number=149))
    assert state.decode_account(state.encode(account)) == account


# --- the event itself ----------------------------------------------------------------------------------------------------


def test_written_event_is_the_one_that_is_taken() -> None:
    """By its key, its MAC and its uid; an order's key as the shop's partitioner has it, an account's is its name."""
    placing = Placing("crc32", "reference")
    for name, target, key in (("note", SUBJECT, REFERENCE), ("pause", "acme", "acme")):
        written = operator_event(
            COMMANDS[name], target, event_id="1", by="ana", why="?", now_ms=START_MS, trust=TRUST, placing=placing
        )
        assert written.key == key.encode()
        taken = decode(written.key, written.value, dict(written.headers), START_MS, trust=TRUST)
        assert taken is not None
        assert (taken.subject, taken.uid, taken.time_us) == (target, written.uid, START_US)
    plain = operator_event(
        COMMANDS["release"], SUBJECT, event_id="1", by="ana", why="", now_ms=0, trust=TRUST, placing=None
    )
    assert plain.key == SUBJECT.encode()
    assert json.loads(plain.value)["data"] == {"by": "ana"}


@pytest.mark.parametrize(
    ("name", "why", "trust", "expected"),
    [
        ("release", "", Trust(), r"\[callbacks\] record_secrets"),
        ("forget", "", TRUST, "expected a member why"),
        ("note", "x" * 501, TRUST, "why: expected a text of 1 to 500 characters"),
    ],
)
def test_event_that_nobody_would_take_is_not_written(name: str, why: str, trust: Trust, expected: str) -> None:
    """Who asks is told what is missing."""
    with pytest.raises(UsageError, match=expected):
        operator_event(COMMANDS[name], SUBJECT, event_id="1", by="ana", why=why, now_ms=0, trust=trust, placing=None)


def test_result_says_who_did_what() -> None:
    """Of an order that is known, and of one that is not."""
    deed = operated(said("adopt"), NOW_MS, "settled", done=True)
    record = OrderRecord(revision=7, acked=7)
    told = {"partition": 3, "position": 12, "time": "2026-03-01T00:00:00Z", "event_id": "e1"}
    body = json.loads(
        tell_operated(said("adopt"), deed, Reporting("/cartsync/x"), record=record, status="settled", **told)  # type: ignore[arg-type]
    )
    assert body["type"] == "cartsync.operated"
    assert body["id"] == f"{SUBJECT}:12:operated:3"
    assert body["data"] == {
        "command": "adopt",
        "by": "ana",
        "why": "ticket 4711",
        "done": True,
        "outcome": "what the provider has counts as sent",
        "event_id": "e1",
        "partition": 3,
        "status": "settled",
        "revision": 7,
        "acked": 7,
    }
    bare = json.loads(tell_operated(said("release", ""), replace(deed, why=""), Reporting("/x"), **told))  # type: ignore[arg-type]
    assert bare["data"].keys() == {"command", "by", "done", "outcome", "event_id", "partition"}


def test_known_digest_needs_no_rendering_of_what_was_erased() -> None:
    """After an erasure what the provider holds is known by its digest alone."""
    order = OrderUnderTest(DETAILED)
    done_to(order, "forget")
    left = assess(order.record.facts, REFERENCE).order
    assert left is not None
    assert records.known_digest(order.record, left, REFERENCE, TO) == TO.provider.digest(left)


def test_delivery_event_of_a_forgotten_order() -> None:
    """What comes afterwards is taken and told as ever."""
    order = settled()
    done_to(order, "forget")
    order.tell(delivered("s1", "2026-03-05T10:00:00Z"), shipped("s2", A=1))
    assert not any(text in repr(send_of(order).update) for text in PERSONAL)
