"""How a record follows an event: revisions, moments, approval, and changes made at the provider itself."""

import pytest
from msgspec.structs import replace

from schemas.state import Attempts, Delay, MadeAt, OrderRecord, Parking
from tests.asking import totals_told
from tests.shops.events import (
    START_MS,
    SUBJECT,
    EventSpec,
    cancelled,
    cart_updated,
    confirmed,
    details,
    event,
    goods,
    payment,
    refunded,
    retracted,
    returned,
    shipped,
)
from worker.core.plan import Acknowledge, Send, Wait, plan
from worker.core.record import acknowledge, apply_event, release_by_operator, resend
from worker.model.provider import Destination
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "user", "secret")
TO = Destination(ACCOUNT, Sequra())
EAGER = Destination(replace(ACCOUNT, send_on_confirm=True), Sequra())
CONFIRMED = confirmed(goods("A", 2, 200))


class OrderUnderTest:
    """An order that is told step by step; events are a second apart, revisions 1, 2, …"""

    def __init__(self, *specs: EventSpec, destination: Destination | None = TO) -> None:
        self.record = OrderRecord()
        self.destination = destination
        self.count = 0
        self.tell(*specs)

    def tell(self, *specs: EventSpec, in_flight: bool = False) -> OrderRecord:
        """Takes these events and gives the record after them."""
        for told in specs:
            self.count += 1
            self.record = apply_event(
                self.record,
                event(told, self.count),
                position=self.count,
                revision=self.count,
                now_ms=START_MS + self.count,
                destination=self.destination,
                in_flight=in_flight,
            )
        return self.record

    def send(self) -> None:
        """The provider takes what is planned."""
        found = self.plan()
        assert isinstance(found, Send | Acknowledge)
        self.record = acknowledge(self.record, found.update.digest if isinstance(found, Send) else found.digest)

    def plan(self) -> object:
        """What is to be done now."""
        return plan(self.record, SUBJECT, self.destination or TO)

    @property
    def is_owed(self) -> bool:
        """Whether the newest revision is not acknowledged."""
        return self.record.revision != self.record.acked


# --- moments and revisions ---------------------------------------------------------------------------------------------


def test_event_moves_the_revision() -> None:
    """The record gets the revision, the newest event time and the newest traceparent."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    order = OrderUnderTest(CONFIRMED.but(traceparent=trace), shipped("s1", A=1).but(time="2026-02-01T00:00:00Z"))
    assert order.record.revision == 2
    assert order.record.event_ms == START_MS + 1000
    assert order.record.trace == trace


def test_known_event_gives_the_very_same_record() -> None:
    """A duplicate changes nothing at all, not even the revision."""
    order = OrderUnderTest(CONFIRMED)
    again = apply_event(
        order.record, event(CONFIRMED, 1), position=50, revision=50, now_ms=START_MS + 50, destination=TO
    )
    assert again is order.record


def test_owed_since_the_oldest_change() -> None:
    """An order is owed since the oldest change that is not acknowledged, and anew after an acknowledgement."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1))
    assert order.record.owed_since_ms == START_MS + 1
    order.send()
    assert order.record.owed_since_ms == 0
    order.tell(details(gift=True), details(gift=False))
    assert order.record.owed_since_ms == START_MS + 3


def test_unconfirmed_since_its_first_event() -> None:
    """The clock of an unconfirmed order starts with its first event and stops with the confirmation."""
    order = OrderUnderTest(shipped("s1", A=1), details(gift=True))
    assert order.record.unconfirmed_since_ms == START_MS + 1
    assert order.tell(CONFIRMED).unconfirmed_since_ms == 0


def test_events_of_an_unknown_account_are_kept() -> None:
    """Without an destination there is nobody to tell, but the facts are kept and owed."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1).but(origin="sequra"), destination=None)
    assert order.is_owed
    assert order.record.facts.shipments["s1"].units == [("A", 1)]


# --- approval ------------------------------------------------------------------------------------------------------------


def parked(order: OrderUnderTest) -> OrderUnderTest:
    """The same, parked and counted after a 404."""
    order.record.park = Parking("404", b"d", order.record.revision, 1)
    order.record.attempts = Attempts(b"d", 1, 2, 3)
    order.record.not_before_ms = START_MS + 10**6
    order.record.not_found_delay = True
    return order


@pytest.mark.parametrize(
    "approval",
    [payment("approved"), confirmed(goods("A", 2, 200), payment_state="approved")],
)
def test_approval_releases_and_ends_the_delay_of_a_404(approval: EventSpec) -> None:
    """A newer written `approved`, also over the unwritten default, starts the order anew."""
    record = parked(OrderUnderTest(CONFIRMED, shipped("s1", A=1))).tell(approval)
    assert (record.park, record.attempts, record.not_before_ms, record.not_found_delay) == (None, Attempts(), 0, False)


def test_approval_shortens_no_other_delay() -> None:
    """A delay that is no 404's goes on."""
    order = parked(OrderUnderTest(CONFIRMED, shipped("s1", A=1)))
    order.record.not_found_delay = False
    record = order.tell(payment("approved"))
    assert (record.park, record.attempts, record.not_before_ms) == (None, Attempts(), START_MS + 10**6)


@pytest.mark.parametrize(
    "other",
    [
        payment("on_hold"),
        details(gift=True),
        CONFIRMED,
        payment("approved").but(time="2026-02-01T00:00:00Z"),
        shipped("s2", A=1),
    ],
)
def test_other_events_release_nothing(other: EventSpec) -> None:
    """Only a newer approval does: not another state, nor an old approval, nor a confirmation that writes none."""
    order = OrderUnderTest(CONFIRMED, payment("approved"), shipped("s1", A=1))
    record = parked(order).tell(other)
    assert (record.park, record.not_found_delay) == (Parking("404", b"d", 3, 1), True)


def test_approval_after_approval_releases_again() -> None:
    """An operator of the shop may say it twice: the newer one releases."""
    order = parked(OrderUnderTest(CONFIRMED, payment("approved"), shipped("s1", A=1)))
    assert order.tell(payment("approved")).park is None


# --- what operators do -------------------------------------------------------------------------------------------------


def test_operator_releases_under_a_new_key() -> None:
    """Parking and counts end, delays and holds stay; the next request has another key."""
    order = parked(OrderUnderTest(CONFIRMED, shipped("s1", A=1)))
    order.record = record = release_by_operator(order.record, START_MS)
    assert (record.park, record.attempts, record.generation) == (None, Attempts(), 1)
    assert (record.not_before_ms, record.not_found_delay, record.remote_unknown) == (START_MS + 10**6, True, False)
    found = order.plan()
    assert isinstance(found, Send)
    assert found.generation == 1


@pytest.mark.parametrize("attempts", [Attempts(), Attempts(b"d")])
def test_operator_finds_nothing_to_release(attempts: Attempts) -> None:
    """Neither parked nor counted: the record stays as it is, and so does its key."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1))
    order.record.attempts = attempts
    assert release_by_operator(order.record, START_MS) is order.record
    assert (order.record.generation, order.record.attempts) == (0, attempts)


def test_resend_has_a_new_key_each_time() -> None:
    """A provider that honours keys would answer the old one from memory."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1))
    order.send()
    for generation in (1, 2):
        order.record = resend(order.record, START_MS)
        assert (order.is_owed, order.record.remote_unknown, order.record.generation) == (True, True, generation)
        order.send()


@pytest.mark.parametrize("delay", [Delay.CHANGE, Delay.RESULT])
def test_a_change_ends_the_wait_for_one(delay: Delay) -> None:
    """And so does an operator; a wait for the provider's result goes on."""
    waiting = {"delay": delay, "not_before_ms": START_MS + 10**9, "delay_ms": 10**9}
    ended = (0, Delay.OWN, 0) if delay is Delay.CHANGE else (START_MS + 10**9, Delay.RESULT, 10**9)
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1))
    order.record = replace(order.record, **waiting)
    again = replace(order.record)
    changed = order.tell(shipped("s2", A=1))
    assert (changed.not_before_ms, changed.delay, changed.delay_ms) == ended
    again = resend(again, START_MS)
    assert (again.not_before_ms, again.delay, again.delay_ms) == ended


# --- changes made at the provider ----------------------------------------------------------------------------------------

AT_SEQURA = [
    cancelled(by="provider"),
    cancelled().but(origin="sequra"),
    cart_updated(goods("A", 1, 100)).but(origin="sequra"),
    refunded("f1", 5).but(origin="sequra"),
]


@pytest.mark.parametrize("change", AT_SEQURA)
def test_change_made_at_the_provider_is_not_told_back(change: EventSpec) -> None:
    """When nothing else is owed, it moves what counts as acknowledged along with it."""
    order = OrderUnderTest(CONFIRMED)
    order.tell(change)
    assert not order.is_owed
    assert isinstance(order.plan(), Acknowledge)
    order.tell(payment("approved"))
    assert isinstance(order.plan(), Acknowledge)


@pytest.mark.parametrize("change", AT_SEQURA)
def test_change_made_at_the_provider_after_an_acknowledgement(change: EventSpec) -> None:
    """The same once something was sent and acknowledged."""
    order = OrderUnderTest(CONFIRMED, details(cart_ref="x"))
    order.send()
    order.tell(change)
    assert not order.is_owed


@pytest.mark.parametrize("origin", ["qliro", "erp", "", "Sequra"])
def test_change_made_elsewhere_is_told(origin: str) -> None:
    """Another system's change is news for the provider."""
    order = OrderUnderTest(CONFIRMED, refunded("f1", 5).but(origin=origin))
    assert order.is_owed
    assert isinstance(order.plan(), Send)


def test_newest_state_is_sent_when_something_else_is_owed() -> None:
    """When something is owed already, the change goes out with it as usual."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1), refunded("f1", 5).but(origin="sequra"))
    found = order.plan()
    assert order.is_owed
    assert isinstance(found, Send)
    assert totals_told(found.update)[0] == 95


def test_change_made_there_while_something_was_owed_is_told_even_when_all_is_undone() -> None:
    """What was acknowledged is not what it holds any more: its own change is in between."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1), refunded("f1", 5).but(origin="sequra"))
    order.tell(retracted(shipment_id="s1"), retracted(refund_id="f1"))
    assert isinstance(order.plan(), Send)


@pytest.mark.parametrize("news", [CONFIRMED, payment("approved")])
def test_what_a_provider_tells_of_itself_leaves_no_doubt(news: EventSpec) -> None:
    """A confirmation or a payment state from there changes no carts."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1), news.but(origin="sequra"))
    order.tell(retracted(shipment_id="s1"))
    assert isinstance(order.plan(), Acknowledge)


@pytest.mark.parametrize("by", ["merchant", "shopper", "provider"])
def test_cancelled_there_is_cancelled_by_the_provider(by: str) -> None:
    """Whoever asked for it: units that the shopper keeps contradict it."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1), cancelled(by=by).but(origin="sequra"))
    found = order.plan()
    assert isinstance(found, Wait)
    assert "cancelled by the provider" in found.reasons[0]


def test_nothing_is_taken_as_known_while_an_attempt_is_under_way() -> None:
    """What the attempt under way will do there is not known yet."""
    order = OrderUnderTest(CONFIRMED)
    order.send()
    order.tell(refunded("f1", 5).but(origin="sequra"), in_flight=True)
    assert order.is_owed
    assert isinstance(order.plan(), Send)


@pytest.mark.parametrize("mark", ["remote_unknown", "may_land_late"])
def test_nothing_is_taken_as_known_in_doubt(mark: str) -> None:
    """An owed revision of the same payload is something owed while there is doubt."""
    order = OrderUnderTest(CONFIRMED)
    setattr(order.record, mark, True)
    order.tell(refunded("f1", 5).but(origin="sequra"))
    assert order.is_owed


def test_parked_order_is_owed() -> None:
    """A change made at the provider does not acknowledge what is parked."""
    order = OrderUnderTest(CONFIRMED, cart_updated(goods("A", 9, 900)), refunded("f1", 5).but(origin="sequra"))
    assert order.is_owed


def test_acknowledged_echo_clears_what_stood_in_the_way() -> None:
    """It ends parking, counts, reason and the clocks of the order."""
    order = OrderUnderTest(CONFIRMED)
    order.send()
    order.record.reason = "old"
    order.record.attempts = Attempts(b"d", 1)
    record = order.tell(refunded("f1", 5).but(origin="sequra"))
    assert (record.reason, record.attempts, record.owed_since_ms, record.echo) == ("", Attempts(), 0, False)
    assert record.acked == record.revision == 2


def test_inconsistent_echo_waits_for_what_resolves_it() -> None:
    """A contradictory change at the provider is acknowledged once the provider's next change resolves it."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=2))
    order.send()
    order.tell(cancelled(by="provider"))
    assert (order.record.echo, order.is_owed) == (True, True)
    assert isinstance(order.plan(), Wait)
    order.tell(returned("r1", A=2).but(origin="sequra"))
    assert (order.record.echo, order.is_owed) == (False, False)


def test_shop_resolves_an_inconsistent_echo() -> None:
    """When the shop resolves it, the provider has to be told how."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=2))
    order.send()
    order.tell(cancelled(by="provider"), returned("r1", A=2))
    assert not order.record.echo
    assert order.is_owed
    assert isinstance(order.plan(), Send)


def test_echo_before_the_confirmation() -> None:
    """What was made at the provider before the shop's confirmation arrives is not told back, unless asked for."""
    order = OrderUnderTest(cancelled(by="provider"))
    assert order.record.echo
    order.tell(CONFIRMED)
    assert not order.is_owed
    eager = OrderUnderTest(cancelled(by="provider"), CONFIRMED, destination=EAGER)
    assert eager.is_owed
    assert isinstance(eager.plan(), Send)


def test_other_event_before_the_confirmation_ends_the_echo() -> None:
    """A change of the shop's own among them has to be told."""
    order = OrderUnderTest(cancelled(by="provider"), details(gift=True), CONFIRMED)
    assert order.is_owed
    assert isinstance(order.plan(), Send)


def test_confirmation_from_the_provider_is_known() -> None:
    """A confirmation made at the provider is what it holds, also when confirmations are sent."""
    order = OrderUnderTest(CONFIRMED.but(origin="sequra"), destination=EAGER)
    assert not order.is_owed


def test_change_made_at_the_provider_on_an_inconsistent_order_is_told_once_it_is_consistent() -> None:
    """Nobody can say what an order owes whose facts contradict each other: it is told rather than forgotten."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=3))
    order.tell(refunded("f1", 5).but(origin="sequra"), shipped("s1", A=1))
    assert order.is_owed
    assert isinstance(order.plan(), Send)


# --- changes that are not sent, and accounts that do not believe it ----------------------------------------------------

WARY = Destination(replace(ACCOUNT, trust_origin=False), Sequra())


def test_what_was_not_sent_is_remembered_with_its_revision() -> None:
    """The record says of which provider's making the acknowledged revision is, until a resend asks for it all the same."""
    order = OrderUnderTest(CONFIRMED, refunded("f1", 5).but(origin="sequra"))
    assert order.record.made_at == MadeAt("sequra", 2)
    order.tell(shipped("s1", A=1))
    assert order.record.made_at == MadeAt("sequra", 2)
    assert order.record.revision == 3
    assert resend(order.record, START_MS).made_at is None


def test_sent_changes_are_of_nobodys_making() -> None:
    """A change that is owed, and one that was made elsewhere, leave no such note."""
    assert OrderUnderTest(CONFIRMED, refunded("f1", 5).but(origin="erp")).record.made_at is None
    assert OrderUnderTest(CONFIRMED, shipped("s1", A=1), refunded("f1", 5).but(origin="sequra")).record.made_at is None


@pytest.mark.parametrize("change", [refunded("f1", 5).but(origin="sequra"), cancelled(by="provider")])
def test_origin_that_is_not_trusted_only_leaves_doubt(change: EventSpec) -> None:
    """The state is sent, also when it comes to what was acknowledged: the provider may hold something else."""
    order = OrderUnderTest(CONFIRMED, change, destination=WARY)
    assert (order.record.acked, order.record.remote_unknown, order.record.echo) == (0, True, False)
    assert isinstance(order.plan(), Send)


@pytest.mark.parametrize("news", [payment("approved"), CONFIRMED])
def test_news_that_are_never_told_leave_no_doubt(news: EventSpec) -> None:
    """A payment state, and a confirmation, are the provider's to give, whoever is believed."""
    order = OrderUnderTest(CONFIRMED, news.but(origin="sequra"), destination=WARY)
    assert not order.record.remote_unknown
    assert isinstance(order.plan(), Acknowledge)


def test_origin_that_is_not_trusted_changes_no_fact() -> None:
    """A cancellation stays the shop's own when only its origin says otherwise."""
    trusting = OrderUnderTest(CONFIRMED, cancelled().but(origin="sequra"))
    wary = OrderUnderTest(CONFIRMED, cancelled().but(origin="sequra"), destination=WARY)
    found = [order.record.facts.cancellation for order in (trusting, wary)]
    assert [each.by for each in found if each is not None and each.by is not None] == ["provider", "merchant"]


def test_doubt_that_was_there_stays() -> None:
    """News from the provider take no doubt away."""
    order = OrderUnderTest(CONFIRMED, destination=WARY)
    order.record.remote_unknown = True
    assert order.tell(payment("approved").but(origin="sequra")).remote_unknown


# --- record keys -------------------------------------------------------------------------------------------------------


def test_changed_key_is_noticed_once() -> None:
    """The first key is noted; the first other one is news; after that nothing is."""
    record, several = OrderRecord(), []
    for number, digest in enumerate((7, 7, 9, 0, 7), 1):
        told = event(shipped(f"s{number}", A=1), number)
        record = apply_event(
            record,
            told,
            position=number,
            revision=number,
            now_ms=START_MS,
            destination=None,
            key_digest=digest,
        )
        several.append(record.has_several_keys)
    assert several == [False, False, True, True, True]
    assert record.key_digest == 7


@pytest.mark.parametrize("unsupported", [False, True])
def test_reason_that_is_not_the_providers_stays(unsupported: bool) -> None:
    """Details that are removed take a provider's words with them, but not what an adapter said cannot be told."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1))
    said = Parking("unsupported: a part return", b"", order.record.revision, START_MS, unsupported=unsupported)
    order.record = replace(order.record, park=said)
    park = order.tell(details(customer=None)).park
    assert park is not None
    assert (park.reason == said.reason) is unsupported


def test_release_ends_a_wait_for_a_change() -> None:
    """An operator may know what the worker cannot."""
    order = OrderUnderTest(CONFIRMED, shipped("s1", A=1))
    order.record = replace(order.record, delay=Delay.CHANGE, not_before_ms=START_MS + 10**9, delay_ms=10**9)
    released = release_by_operator(order.record, START_MS)
    assert (released.not_before_ms, released.delay) == (0, Delay.OWN)
