"""What a provider says, in an order's record: what makes it look again, and what changes nothing about what is owed."""

from typing import Any

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from schemas.state import Attempts, Delay, MadeAt, Parking
from tests.shops.events import (
    START_MS,
    EventSpec,
    cancelled,
    confirmed,
    details,
    event,
    goods,
    items_cancelled,
    observed,
    payment,
    refunded,
    retracted,
    said,
    shipped,
    time_text,
)
from tests.unit.core.samples import FULL, MINIMAL
from tests.unit.core.test_outbox_events import ACCOUNT, CONFIRMED, TO, WARY, OrderUnderTest
from worker.core.order import assess
from worker.core.plan import Acknowledge, Send, Wait
from worker.core.policy import DeliveryPolicy
from worker.core.record import inherit, may_change, park, resend, settle
from worker.core.status import status
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.provider import Destination
from worker.providers.sequra import Sequra


class Asked(Sequra):
    """Like seQura, if that could be asked."""

    name = "asked"
    can_read = True


READS = Destination(replace(ACCOUNT, provider="asked"), Asked())
CANNOT = TO
KNOWN = {"provider_order": "67890"}
NAMED = confirmed(goods("A", 2, 200), references={"provider": "67890"})


def told(kind: str, by: str = "notification", **members: Any) -> EventSpec:
    """A good `provider.<kind>`, about the order that it is known as."""
    return EventSpec(f"provider.{kind}", FULL[f"provider.{kind}"] | KNOWN | members).but(source=f"/cartsync/acme/{by}")


def by_type(each: EventSpec) -> str:
    """What a test's case is called."""
    return each.type


UNDER_EVALUATION = told("payment_state", state="under_evaluation")
HINTS = [told("transaction"), told("upsell"), told("delivery"), told("cancelled")]
SHOWN = [
    UNDER_EVALUATION,
    told("cancel_asked"),
    told("risk"),
    told("disbursed"),
    told("shipping"),
    told("card_saved"),
    told("unmapped"),
    observed(),
]


def settled(destination: Destination = READS) -> OrderUnderTest:
    """An order of which nothing is owed, and something was sent."""
    order = OrderUnderTest(NAMED, shipped("s1", A=1), destination=destination)
    order.send()
    assert not order.is_owed
    return order


def owed(destination: Destination = READS) -> OrderUnderTest:
    """An order of which something is owed."""
    return OrderUnderTest(NAMED, shipped("s1", A=1), destination=destination)


def status_of(order: OrderUnderTest) -> str:
    """What people see."""
    assessment = assess(order.record.facts, "A14/12345")
    return status(order.record, assessment, now_ms=START_MS, rules=DeliveryPolicy())


# --- hints -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", HINTS, ids=by_type)
def test_hint_has_the_order_asked_about(hint: EventSpec) -> None:
    """Nothing is left out as known, though nothing that is owed has changed."""
    order = settled()
    before = order.record
    after = order.tell(hint)
    assert (after.revision, after.acked, after.heard) == (3, 2, 3)
    assert after.remote_unknown
    assert after.owed_since_ms == START_MS + 3
    assert isinstance(order.plan(), Send)
    assert before.acked_digest == after.acked_digest


@pytest.mark.parametrize("hint", HINTS, ids=by_type)
def test_hint_that_is_older_is_one_all_the_same(hint: EventSpec) -> None:
    """What it says is known better, but something may have moved since it was asked."""
    order = settled()
    order.tell(hint.but(id="new", time=time_text(900)))
    order.send()
    assert order.tell(hint.but(time=time_text(1))).heard == order.record.revision
    assert order.is_owed


@pytest.mark.parametrize("hint", HINTS, ids=by_type)
def test_hint_ends_a_wait(hint: EventSpec) -> None:
    """What was waited for may have come, be it a result, the end of a 404, or of what was the matter."""
    for delay in (Delay.RESULT, Delay.OWN, Delay.TRANSIENT):
        order = owed()
        order.record.not_before_ms, order.record.delay_ms, order.record.delay = START_MS + 10**6, 10**6, delay
        order.record.not_found_delay = True
        after = order.tell(hint)
        assert (after.not_before_ms, after.delay_ms, after.not_found_delay) == (0, 0, False)


def test_hint_does_not_overrule_retry_after() -> None:
    """The provider has asked not to be asked."""
    order = owed()
    order.record.not_before_ms, order.record.delay_ms, order.record.delay = START_MS + 10**6, 10**6, Delay.ASKED
    after = order.tell(HINTS[0])
    assert (after.not_before_ms, after.delay_ms, after.heard) == (START_MS + 10**6, 10**6, 3)


def test_hint_releases_what_could_not_be_told() -> None:
    """It may be possible now; what the provider has refused, or a check of ours, stays parked."""
    order = owed()
    order.record.park = Parking("unsupported: x", b"d", order.record.revision, START_MS, unsupported=True)
    order.record.attempts = Attempts(b"d", 1)
    after = order.tell(HINTS[0])
    assert (after.park, after.attempts) == (None, Attempts())
    for by_check in (True, False):
        order = owed()
        order.record.park = parked = Parking("400", b"d", order.record.revision, START_MS, by_check=by_check)
        assert order.tell(HINTS[0]).park == parked


@pytest.mark.parametrize("hint", [*HINTS[:2], told("delivery", state="accepted"), HINTS[3]], ids=by_type)
def test_settled_order_that_is_heard_of_has_nothing_to_tell(hint: EventSpec) -> None:
    """However often, and whatever else that is never told is said of it, until there is a change again."""
    again, shown, change = hint.but(id="again", time=time_text(900)), SHOWN[1], shipped("s2", A=1)
    order = settled()
    assert [order.tell(each).is_only_heard_of for each in (hint, shown, again)] == [True] * 3
    assert [order.tell(each).is_only_heard_of for each in (change, hint.but(id="late"), again.but(id="later"))] == [
        False
    ] * 3
    order.send()
    assert order.tell(hint.but(id="at last", time=time_text(950))).is_only_heard_of


def test_second_attempt_that_was_agreed_on_is_something_to_tell() -> None:
    """A delivery may have been told already that the provider takes a word for now."""
    order = settled()
    assert not order.tell(told("delivery", state="second_attempt")).is_only_heard_of
    order.send()
    assert order.tell(told("delivery", state="accepted").but(id="2", time=time_text(900))).is_only_heard_of


def test_heard_of_while_it_is_told() -> None:
    """Once the provider has taken what there was to tell, it is only to be asked about."""
    order = owed()
    revision = order.record.revision
    assert not order.tell(HINTS[0]).is_only_heard_of
    applied = Outcome(OutcomeKind.APPLIED, "", 200)
    after, _ = settle(order.record, revision, b"d", applied, now_ms=START_MS, chance=0.5, rules=DeliveryPolicy())
    assert (after.revision != after.acked, after.is_only_heard_of) == (True, True)


def test_resend_of_an_order_that_was_heard_of() -> None:
    """An operator's word makes everything untold."""
    order = settled()
    assert order.tell(HINTS[0]).is_only_heard_of
    again = resend(order.record, START_MS)
    assert (again.is_only_heard_of, again.to_tell) == (False, 0)


@pytest.mark.parametrize("shown", SHOWN[:-1], ids=by_type)
def test_new_name_of_the_order_is_a_hint(shown: EventSpec) -> None:
    """Whatever brings it: who asks under it may hear something else."""
    order = settled()
    named = EventSpec(shown.type, shown.data | {"provider_order": "2"}, shown.attributes)
    assert order.tell(named).heard == order.record.revision
    order.send()
    known_by_now, older_name = named.but(id="again"), shown.but(id="old", time=time_text(0))
    for each in (known_by_now, older_name):
        order.tell(each)
        assert not order.is_owed, each


def test_first_name_is_new_unless_the_shop_has_said_it() -> None:
    """`references.provider` of the shop's is the same thing."""
    other = confirmed(goods("A", 2, 200), references={"secondary": "x"})
    for first, is_new in ((NAMED, False), (CONFIRMED, True), (other, True)):
        order = OrderUnderTest(first, shipped("s1", A=1), destination=READS)
        order.send()
        order.tell(told("risk"))
        assert order.is_owed == is_new
    order = OrderUnderTest(CONFIRMED, destination=READS)
    order.send()
    order.tell(said("risk", level="x"))
    assert not order.is_owed, "it names none"


@pytest.mark.parametrize("hint", HINTS[:-1], ids=by_type)
def test_hint_means_nothing_where_nobody_can_ask(hint: EventSpec) -> None:
    """It is shown, and that is all: also when it names the order anew."""
    order = settled(CANNOT)
    before = order.record
    after = order.tell(EventSpec(hint.type, hint.data | {"provider_order": "2"}))
    assert (after.revision, after.acked, after.heard, after.remote_unknown) == (3, 3, 0, False)
    assert after.acked_digest == before.acked_digest
    assert after.facts.provider is not None


def test_hint_for_nobody_is_kept() -> None:
    """While an account is not configured nobody knows whether its provider can be asked, unless the source says so."""
    order = OrderUnderTest(CONFIRMED, HINTS[0], destination=None)
    assert (order.record.heard, order.record.remote_unknown) == (2, True)
    order = OrderUnderTest(
        CONFIRMED, said("transaction", by="webhook", **MINIMAL["provider.transaction"]), destination=None
    )
    assert (order.record.heard, order.record.remote_unknown) == (0, False)


def test_account_decides_who_can_ask_and_not_the_source() -> None:
    """A shop may forward what it receives under any name."""
    order = settled()
    order.tell(HINTS[0].but(source="/cartsync/acme/webhook"))
    assert order.is_owed
    order = settled(CANNOT)
    order.tell(HINTS[0].but(source="/shops/acme"))
    assert not order.is_owed


def test_hint_before_the_confirmation() -> None:
    """Somebody does not tell us its orders: that is announced like any order that is not confirmed."""
    order = OrderUnderTest(HINTS[0], destination=READS)
    assert (order.record.unconfirmed_since_ms, order.is_owed) == (START_MS + 1, True)
    assert isinstance(order.plan(), Wait)
    order.tell(NAMED)
    assert isinstance(order.plan(), Send)


# --- what is only shown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", [READS, CANNOT, None])
@pytest.mark.parametrize("shown", SHOWN, ids=by_type)
def test_shown_changes_nothing_about_what_is_owed(shown: EventSpec, destination: Destination | None) -> None:
    """What was settled is settled, what was owed is owed since when it was, with its delay and its counts."""
    order = settled()
    order.destination = destination
    before = order.record
    after = order.tell(shown)
    assert (after.revision, after.acked, after.owed_since_ms) == (3, 3, 0)
    assert after.facts != before.facts
    assert status_of(order) == "settled"
    assert isinstance(order.plan(), Acknowledge)
    order = owed()
    order.destination = destination
    before = order.record
    before.not_before_ms, before.attempts, before.delay = START_MS + 5, Attempts(b"d", 1), Delay.RESULT
    after = order.tell(shown)
    assert after == replace(before, sealed=after.sealed, revision=3, event_id="e3")


@pytest.mark.parametrize("shown", SHOWN, ids=by_type)
def test_shown_leaves_parked_what_is_parked(shown: EventSpec) -> None:
    """Nobody looks at it again for that; what is parked for an older revision stays as it was."""
    order = owed()
    order.record = park(order.record, "400", b"d", START_MS, by_check=False)
    before = order.record.park
    assert before is not None
    after = order.tell(shown)
    assert after.park == replace(before, revision=3)
    assert status_of(order) == "parked"
    order.tell(details(gift=True))
    assert order.tell(shown.but(id="again")).park == after.park


@pytest.mark.parametrize("shown", SHOWN, ids=by_type)
def test_shown_leaves_what_was_made_there(shown: EventSpec) -> None:
    """Why the order was not sent is still true."""
    order = OrderUnderTest(CONFIRMED, refunded("f1", 5).but(origin="sequra"), shown)
    assert order.record.made_at == MadeAt("sequra", 3)
    order.tell(shipped("s1", A=1), shown.but(id="again"))
    assert order.record.made_at == MadeAt("sequra", 3)


@pytest.mark.parametrize("shown", SHOWN, ids=by_type)
def test_shown_leaves_an_echo_one(shown: EventSpec) -> None:
    """Whatever was made there alone, before the confirmation came, is still not told back."""
    order = OrderUnderTest(cancelled(by="provider"), shown)
    assert order.record.echo
    order.tell(CONFIRMED)
    assert not order.is_owed


@pytest.mark.parametrize("shown", SHOWN, ids=by_type)
def test_nobody_waits_for_the_confirmation_of_what_is_only_shown(shown: EventSpec) -> None:
    """Not owed, not waited for, nothing to send again; and an order like any other once the shop tells it."""
    order = OrderUnderTest(shown.but(time=time_text(1)), destination=CANNOT)
    assert not order.is_owed
    assert (order.record.unconfirmed_since_ms, order.record.owed_since_ms) == (0, 0)
    assert status_of(order) == ("settled" if shown.type == "order.observed" else "unconfirmed")
    assert resend(order.record, START_MS) is order.record
    assert not order.is_owed
    order.tell(CONFIRMED)
    assert isinstance(order.plan(), Acknowledge)
    order.tell(shipped("s1", A=1))
    assert isinstance(order.plan(), Send)
    assert resend(order.record, START_MS) is not order.record


def test_observed_order_that_ships_waits_for_its_confirmation() -> None:
    """Once anything else is told of it, it is an order of ours."""
    order = OrderUnderTest(observed(), shipped("s1", A=1))
    assert (order.record.unconfirmed_since_ms, status_of(order)) == (START_MS + 2, "unconfirmed")
    assert order.is_owed


def test_which_events_may_change_what_is_owed() -> None:
    """All of the shop's, and a cancellation there; who acknowledges without a call asks."""
    assert [each.type for each in SHOWN + HINTS if may_change(event(each))] == ["provider.cancelled"]
    assert may_change(event(CONFIRMED))
    assert may_change(event(items_cancelled("c1", A=1)))


# --- payment -----------------------------------------------------------------------------------------------------------


def paid(state: str) -> EventSpec:
    """`provider.payment_state`."""
    return told("payment_state", state=state)


def test_payment_there_releases_like_the_shops() -> None:
    """A newer approval that counts starts the order anew, and ends the delay of a 404."""
    order = owed(CANNOT)
    order.record.park = Parking("404", b"d", order.record.revision, 1)
    order.record.not_before_ms, order.record.not_found_delay = START_MS + 10**6, True
    after = order.tell(paid("approved"))
    assert (after.park, after.not_before_ms) == (None, 0)
    assert isinstance(order.plan(), Send)


def test_payment_that_does_not_count_releases_nothing() -> None:
    """An approval older than the shop's, or after a refusal that nobody can ask about."""
    order = OrderUnderTest(NAMED, payment("approved").but(time=time_text(500)), shipped("s1", A=1))
    order.record.park = parked = Parking("404", b"d", order.record.revision, 1)
    assert order.tell(paid("approved")).park == replace(parked, revision=4)
    order = OrderUnderTest(NAMED, shipped("s1", A=1), paid("refused"))
    order.record.park = parked = Parking("404", b"d", order.record.revision, 1)
    assert order.tell(paid("approved")).park == replace(parked, revision=4)
    assert status_of(order) == "refused"


def test_order_is_held_and_approved_there() -> None:
    """The states of a payment are never told, and what waits for them goes on."""
    order = OrderUnderTest(NAMED, paid("on_hold"), shipped("s1", A=1))
    found = order.plan()
    assert isinstance(found, Wait)
    assert (found.state, status_of(order)) == ("on_hold", "on_hold")
    order.tell(paid("approved"))
    assert isinstance(order.plan(), Send)
    order.send()
    order.tell(paid("on_hold").but(id="late"))
    assert not order.is_owed
    order.tell(paid("refused"))
    assert status_of(order) == "refused"


@pytest.mark.parametrize("state", ["on_hold", "refused"])
@pytest.mark.parametrize("by", [cancelled(by="provider"), said("cancelled", by="webhook")], ids=lambda each: each.type)
def test_cancelled_there_before_it_was_approved(by: EventSpec, state: str) -> None:
    """Nothing will be told, so nothing is waited for, whatever the provider may hold by a request of ours; should it be
    approved after all, that doubt counts.
    """
    order = OrderUnderTest(NAMED, paid(state))
    order.record = inherit(order.record)
    assert isinstance(order.plan(), Wait)
    order.tell(by.but(data={"by": "provider"}))
    assert order.is_owed
    assert isinstance(order.plan(), Acknowledge)
    order.send()
    assert (order.is_owed, status_of(order), order.record.remote_unknown) == (False, state, True)
    order.tell(payment("approved"))
    assert isinstance(order.plan(), Send)


@pytest.mark.parametrize(
    "specs",
    [
        [cancelled()],
        [cancelled(by="provider"), retracted(cancelled=True)],
        [shipped("s1", A=1), cancelled(by="provider")],
    ],
    ids=["by the shop", "taken back", "shipped and kept"],
)
def test_cancelled_otherwise_it_still_waits(specs: list[EventSpec]) -> None:
    """For its payment, or for what resolves a contradiction."""
    order = OrderUnderTest(NAMED, paid("on_hold"))
    order.record = inherit(order.record)
    order.tell(*specs)
    assert isinstance(order.plan(), Wait)


def test_payment_before_the_confirmation_is_waited_with() -> None:
    """The provider knows an order that the shop has not confirmed."""
    order = OrderUnderTest(paid("approved"))
    assert order.record.unconfirmed_since_ms == START_MS + 1
    order.tell(NAMED)
    assert isinstance(order.plan(), Acknowledge)


def test_payment_there_leaves_an_echo_one() -> None:
    """As the shop's payment states do."""
    order = OrderUnderTest(cancelled(by="provider"), paid("approved"), CONFIRMED)
    assert not order.is_owed


# --- cancelled there ---------------------------------------------------------------------------------------------------


def test_cancellation_there_is_not_sent_back() -> None:
    """Where nobody can ask, it counts as it was said, whatever callback brought it."""
    for by in ("webhook", "x"):
        order = OrderUnderTest(CONFIRMED)
        order.send()
        after = order.tell(told("cancelled", by))
        assert not order.is_owed
        assert after.made_at == MadeAt("sequra", 2)
        assessment = assess(after.facts, "A14/12345")
        assert assessment.order is not None
        assert assessment.order.unshipped.items == []
        order.tell(cancelled(by="provider"))
        assert not order.is_owed


def test_cancellation_there_goes_out_with_what_is_owed() -> None:
    """As an `order.cancelled` from there would."""
    order = OrderUnderTest(CONFIRMED, details(gift=True), told("cancelled"))
    assert order.is_owed
    assert order.record.remote_unknown
    assert isinstance(order.plan(), Send)


def test_cancellation_there_of_what_has_shipped() -> None:
    """Contradicts what the shopper keeps."""
    order = settled(CANNOT)
    order.tell(told("cancelled"))
    found = order.plan()
    assert isinstance(found, Wait)
    assert found.reasons == ["cancelled by the provider, but 1 × A is not returned"]


def test_cancellation_there_before_the_confirmation() -> None:
    """It is not told back either."""
    order = OrderUnderTest(told("cancelled"))
    assert order.record.echo
    order.tell(CONFIRMED)
    assert not order.is_owed
    order = OrderUnderTest(paid("refused"), told("cancelled"), CONFIRMED)
    assert not order.is_owed


def test_account_that_does_not_trust_origin_sends_all_the_same() -> None:
    """What the provider holds is not known for sure."""
    order = OrderUnderTest(CONFIRMED, told("cancelled"), destination=WARY)
    assert (order.is_owed, order.record.remote_unknown) == (True, True)
    assert isinstance(order.plan(), Send)


def test_cancellation_of_nobodys_order() -> None:
    """Without an account its source says whether it counts."""
    for by, is_final in (("webhook", True), ("notification", False)):
        order = OrderUnderTest(CONFIRMED, told("cancelled", by), destination=None)
        facts = order.record.facts.provider
        assert facts is not None
        assert (facts.cancelled is not None) == is_final
        assert order.is_owed


# --- what is removed ---------------------------------------------------------------------------------------------------


def test_words_go_with_details_that_are_removed() -> None:
    """A provider's words may repeat them."""
    order = OrderUnderTest(
        confirmed(goods("A", 1, 1), customer={"email": "a@b.c"}), told("transaction"), told("shipping")
    )

    def said_of(kind: str) -> Any:
        facts = order.record.facts.provider
        assert facts is not None
        return msgpack.decode(facts.said[kind][1])

    order.tell(details(gift=True))
    assert said_of("transaction")["error"] == "Declined"
    order.tell(details(customer=None))
    for kind in ("transaction", "shipping"):
        assert "error" not in said_of(kind)
    assert OrderUnderTest(CONFIRMED, details(customer=None)).record.facts.provider is None


def test_what_may_be_personal_goes_with_details_that_are_removed() -> None:
    """A word that nobody knows, and the card, too."""
    order = OrderUnderTest(
        CONFIRMED, told("unmapped", word="Anna Svensson"), told("card_saved"), details(customer=None)
    )
    provider = order.record.facts.provider
    assert provider is not None
    assert b"Svensson" not in provider.said["unmapped"][1]
    assert "card_saved" not in provider.said
