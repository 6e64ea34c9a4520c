"""The sending life of an order: when it is evaluated, offered, claimed, and evaluated again."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import state
from schemas.state import Attempts, Delay, OrderRecord, Told
from tests.shops.events import START_MS, cart_updated, confirmed, goods, payment, shipped
from tests.unit.core.test_outbox_events import ACCOUNT, TO, OrderUnderTest
from worker.core.appointments import NEVER
from worker.core.figures import UNCONFIGURED, Figures, figures_of
from worker.core.outbox import ASK_AFTER_MS, RECHECK_AFTER_S, Outbox
from worker.core.outbox_effects import Claim, Decide, Effects, NeedLease, Offer, Overdue
from worker.core.plan import Acknowledge, Park, Send, Wait
from worker.core.plan import plan as plan_order
from worker.core.policy import DeliveryPolicy
from worker.core.record import acknowledge, mark_waiting, park
from worker.core.results import Reporting
from worker.core.view import Outlook
from worker.model.exchange import AwaitResult, Step
from worker.model.provider import Destination, Question
from worker.providers.sequra import Sequra

ORDER = "acme/1"
NOW = 1_000.0
RULES = DeliveryPolicy(lease_s=20.0, attempt_deadline_s=8.0, inconsistent_after_s=900.0, unconfirmed_after_s=3600.0)

CONFIRMED = confirmed(goods("A", 2, 200), goods("B", 1, 100))


def record_of(*specs: Any, **members: Any) -> OrderRecord:
    """The record after these specs, none of which was sent."""
    return replace(OrderUnderTest(*specs).record, **members)


OWED = record_of(CONFIRMED, shipped("s1", A=1))
SAME = record_of(CONFIRMED)
UNCONFIRMED = replace(record_of(shipped("s1", A=1)), unconfirmed_since_ms=START_MS)
ON_HOLD = record_of(CONFIRMED, payment("on_hold"), shipped("s1", A=1))
INCONSISTENT = record_of(CONFIRMED, shipped("s1", A=3))
MARKED = mark_waiting(INCONSISTENT, True, START_MS)
TOO_LARGE = record_of(CONFIRMED, cart_updated(goods("A", 1, 346)))
RESOLVED = replace(OWED, inconsistent_since_ms=START_MS)
SETTLED = acknowledge(OWED, b"digest")


def parked(record: OrderRecord = OWED) -> OrderRecord:
    """It, once its provider has refused it for good."""
    found = plan_order(record, ORDER, TO)
    assert isinstance(found, Send)
    return park(record, "422: no", found.update.digest, START_MS, by_check=False)


RELEASED = replace(parked(), sealed=record_of(CONFIRMED, shipped("s1", A=2)).sealed, revision=3)


def delayed(
    delay_s: float, delay: Delay = Delay.OWN, record: OrderRecord = OWED, longest_s: float = 0.0
) -> OrderRecord:
    """It, not to be sent for so long."""
    ms = int(delay_s * 1000)
    return replace(record, not_before_ms=START_MS + ms, delay_ms=int(longest_s * 1000) or max(ms, 1), delay=delay)


class Waits(Sequra):
    """An adapter that has every order wait for a job."""

    def next_step(self, asked: Question) -> Step:  # noqa: ARG002
        return AwaitResult(None, "a job sends it")


class Reads(Waits):
    """One that can be read."""

    can_read = True


class Scene:
    """An outbox, the committed records, and the time."""

    def __init__(self, destination: Destination | None = TO, lease_s: float = 10**9, **options: Any) -> None:
        self.orders: dict[str, bytes] = {}
        self.destinations = {"acme": destination} if destination else {}
        self.throttled: set[str] = set()
        self.at = 0.0
        self.lease_until = NOW + lease_s
        self.outbox = Outbox(
            self.orders.__getitem__, self.destinations, RULES, is_throttled=self.throttled.__contains__, **options
        )

    @property
    def now(self) -> float:
        """By the clock that only grows."""
        return NOW + self.at

    @property
    def now_ms(self) -> int:
        """By the wall clock."""
        return START_MS + int(self.at * 1000)

    def commit(self, record: OrderRecord = OWED, order: str = ORDER, hold_s: float | None = None) -> None:
        """Its record is committed; `hold_s`: with the outcome of its attempt, after which it is held so long."""
        if hold_s is not None:
            self.outbox.ended(order, self.now + hold_s if hold_s else 0.0)
        self.orders[order] = state.encode(record)
        self.outbox.committed(order, record, now=self.now, now_ms=self.now_ms)

    def hold(self, record: OrderRecord, hold_s: float, order: str = ORDER) -> None:
        """Its record is taken over, from an owner that may have it in flight, or that has left in order."""
        value = self.orders[order] = state.encode(record)
        hold_until = self.now + hold_s if hold_s else 0.0
        header = record if hold_s or record.not_before_ms else state.decode_header(value)
        self.outbox.restored(order, header, value, now=self.now, now_ms=self.now_ms, hold_until=hold_until)

    def evaluate(self, at: float | None = None) -> Effects:
        """All that is due, at once or at so many seconds."""
        self.at = self.at if at is None else at
        found: Effects = ()
        while (effects := self.outbox.evaluate(self.now, self.now_ms, self.lease_until)) is not None:
            found += effects
        return found

    def claim(self, order: str = ORDER, *, is_reserved: bool = False) -> Claim | Effects:
        """Its account's turn has come."""
        return self.outbox.claim(order, self.now, self.now_ms, self.lease_until, is_reserved=is_reserved)

    def send(self, record: OrderRecord = OWED) -> None:
        """It is committed, offered, and claimed."""
        self.commit(record)
        self.evaluate()
        assert isinstance(self.claim(), Claim)

    @property
    def due_s(self) -> float:
        """When something is due next, from the beginning on."""
        return self.outbox.next_due() - NOW

    @property
    def outlook(self) -> Outlook:
        """Of the order."""
        found = self.outbox.outlook(ORDER)
        assert found is not None
        return found


def said(effects: Claim | Effects) -> list[str]:
    """Effects in a word or two each."""
    if isinstance(effects, Claim):
        return ["claim"]
    words = {Offer: "offer", NeedLease: "need lease", Overdue: "overdue"}
    plans = {Send: "send", Acknowledge: "acknowledge", Park: "park", Wait: "wait"}
    return [f"decide: {plans[type(e.plan)]}" if isinstance(e, Decide) else words[type(e)] for e in effects]


# --- evaluating ------------------------------------------------------------------------------------------------------

EVALUATED = [
    # What is committed, what follows at once, when it is evaluated again (seconds).
    pytest.param(OWED, ["offer"], NEVER, id="owed"),
    pytest.param(SAME, ["decide: acknowledge"], NEVER, id="the provider has just this"),
    pytest.param(TOO_LARGE, ["decide: park"], NEVER, id="fails a check"),
    pytest.param(parked(), [], NEVER, id="parked"),
    pytest.param(ON_HOLD, [], NEVER, id="its payment is on hold"),
    pytest.param(UNCONFIRMED, [], 3600.0, id="unconfirmed"),
    pytest.param(replace(UNCONFIRMED, unconfirmed_since_ms=START_MS - 3_600_000), ["overdue"], NEVER, id="too long so"),
    pytest.param(INCONSISTENT, ["decide: wait"], 900.0, id="inconsistent"),
    pytest.param(MARKED, [], 900.0, id="inconsistent, and marked"),
    pytest.param(replace(MARKED, inconsistent_since_ms=START_MS - 900_000), ["overdue"], NEVER, id="for too long"),
    pytest.param(RESOLVED, ["decide: send", "offer"], NEVER, id="not inconsistent any more"),
    pytest.param(RELEASED, ["decide: send", "offer"], NEVER, id="was parked, and is another payload"),
    pytest.param(delayed(5.0), [], 5.0, id="delayed"),
    pytest.param(delayed(5.0, Delay.TRANSIENT), ["offer"], NEVER, id="delayed, its account may end that"),
    pytest.param(delayed(-5.0), ["offer"], NEVER, id="its delay is over"),
    pytest.param(delayed(5.0, Delay.RESULT), [], 5.0, id="awaits its result"),
]


@pytest.mark.parametrize(("record", "effects", "due_s"), EVALUATED)
def test_what_follows_from_a_committed_record(record: OrderRecord, effects: list[str], due_s: float) -> None:
    """It is evaluated at once, and then when time alone may change the answer."""
    scene = Scene()
    scene.commit(record)
    assert scene.due_s == (NEVER if scene.outlook.waiting == "parked" else 0.0)
    assert said(scene.evaluate()) == effects
    assert scene.due_s == due_s


@pytest.mark.parametrize(
    ("record", "effects"),
    [
        pytest.param(OWED, [], id="waits for its account"),
        pytest.param(SAME, ["decide: acknowledge"], id="is as it was confirmed"),
        pytest.param(UNCONFIRMED, [], id="unconfirmed"),
    ],
)
def test_what_follows_without_an_account(record: OrderRecord, effects: list[str]) -> None:
    """An order of an account that is not configured is never offered."""
    scene = Scene(destination=None)
    scene.commit(record)
    assert said(scene.evaluate()) == effects


def test_settled_order_is_no_entry() -> None:
    """What is acknowledged is not in the outbox, and leaves it."""
    scene = Scene()
    scene.commit(SETTLED)
    assert ORDER not in scene.outbox
    scene.commit()
    assert ORDER in scene.outbox
    scene.commit(SETTLED)
    assert (ORDER in scene.outbox, scene.due_s, scene.outbox.outlook(ORDER)) == (False, NEVER, None)


def test_offer_says_what_the_publisher_needs() -> None:
    """Since when it is owed, whether it failed before, and from when on it may be sent."""
    scene = Scene()
    scene.commit(replace(delayed(5.0, Delay.TRANSIENT), owed_since_ms=77))
    assert scene.evaluate() == (Offer(ORDER, "acme", 77, has_failed=True, not_before=NOW + 5.0),)


def test_due_orders_come_by_time_then_in_their_order() -> None:
    """Fair: the earliest first, and among equals the one that was committed first, so that none starves."""
    scene = Scene()
    for order, delay_s in (("acme/z", 0.0), ("acme/late", 3.0), ("acme/a", 0.0), ("acme/soon", 1.0)):
        scene.commit(delayed(delay_s) if delay_s else OWED, order)
    offered = [effect.subject for at in (0.0, 1.0, 3.0) for effect in scene.evaluate(at) if isinstance(effect, Offer)]
    assert offered == ["acme/z", "acme/a", "acme/soon", "acme/late"]


def test_offer_stands_while_newer_revisions_come() -> None:
    """Stingy: it is offered once, however often it changes before its turn comes, and sent as it is then."""
    scene = Scene()
    scene.commit()
    assert said(scene.evaluate()) == ["offer"]
    for revision in (3, 4):
        scene.commit(replace(OWED, revision=revision))
        assert scene.evaluate() == ()
    claim = scene.claim()
    assert isinstance(claim, Claim)
    assert claim.revision == 4
    assert scene.claim() == ()


HEARD_OF = replace(OWED, revision=5, acked=4, to_tell=4, owed_since_ms=START_MS)
"""It was settled; since then it was heard of at its provider."""


def test_what_is_only_heard_of_is_behind() -> None:
    """Where more is owed than can be sent, what is to be told goes first; a change gets it forward again, once."""
    scene = Scene()
    scene.commit(HEARD_OF)
    behind = Offer(ORDER, "acme", START_MS + ASK_AFTER_MS, has_failed=False, not_before=NOW)
    assert scene.evaluate() == (behind,)
    scene.commit(replace(HEARD_OF, revision=6))
    assert scene.evaluate() == ()
    for revision, offers in ((7, (replace(behind, owed_since_ms=START_MS),)), (8, ())):
        scene.commit(replace(HEARD_OF, revision=revision, to_tell=0))
        assert scene.evaluate() == offers
    assert isinstance(scene.claim(), Claim)
    assert scene.claim() == ()  # the older offer, in its turn
    scene.commit(replace(HEARD_OF, revision=9), hold_s=0.0)
    assert scene.evaluate() == (behind,)


@pytest.mark.parametrize("is_held", [True, False])
def test_what_is_taken_over_and_only_heard_of_is_behind(*, is_held: bool) -> None:
    """As it would be where it was."""
    scene = Scene()
    scene.hold(HEARD_OF, 1.0 if is_held else 0.0)
    (offer,) = scene.evaluate(2.0)
    assert isinstance(offer, Offer)
    assert offer.owed_since_ms == START_MS + ASK_AFTER_MS


# --- holds and delays ------------------------------------------------------------------------------------------------

HELD = [
    pytest.param(0.0, 0.0, 0.0, id="neither"),
    pytest.param(30.0, 0.0, 30.0, id="hold"),
    pytest.param(0.0, 5.0, 5.0, id="delay"),
    pytest.param(2.0, 5.0, 5.0, id="delay ends later"),
    pytest.param(30.0, 5.0, 30.0, id="hold ends later"),
]


@pytest.mark.parametrize(("hold_s", "delay_s", "offered_s"), HELD)
def test_delay_and_hold_both_count(hold_s: float, delay_s: float, offered_s: float) -> None:
    """Patient: it is offered once its delay and its hold are over, whichever is later."""
    scene = Scene()
    scene.hold(delayed(delay_s) if delay_s else OWED, hold_s)
    if offered_s:
        assert scene.evaluate() == ()
        assert scene.due_s == offered_s
        assert scene.evaluate(offered_s - 0.001) == ()
    assert said(scene.evaluate(offered_s)) == ["offer"]


def test_no_account_ends_a_hold_early() -> None:
    """A delay may have become pointless; a hold never has, for the request that it is for may still land."""
    scene = Scene()
    scene.hold(delayed(60.0, Delay.TRANSIENT), 30.0)
    assert scene.evaluate() == ()
    assert said(scene.evaluate(30.0)) == ["offer"]


def test_hold_outlives_whatever_is_committed() -> None:
    """A newer revision does not shorten it, nor does an acknowledgement: the next change has to wait for it."""
    scene = Scene()
    scene.send()
    scene.commit(hold_s=30.0)
    scene.evaluate()
    for at, record in ((1.0, replace(OWED, revision=3)), (2.0, replace(SETTLED, revision=4, acked=4))):
        scene.at = at
        scene.commit(record)
        assert scene.evaluate() == ()
        assert (scene.due_s, scene.outlook.hold_until) == (30.0, NOW + 30.0)
    scene.commit(replace(OWED, revision=5))
    assert scene.evaluate(29.999) == ()
    assert said(scene.evaluate(30.0)) == ["offer"]


def test_longer_hold_replaces_a_shorter_one() -> None:
    """The later end counts."""
    scene = Scene()
    scene.hold(OWED, 30.0)
    scene.hold(OWED, 60.0)
    scene.hold(OWED, 10.0)
    assert scene.outlook.hold_until == NOW + 60.0


def test_end_of_the_latest_hold() -> None:
    """Of all that began with an attempt here, also once its order is gone; of others the owner knows."""
    scene = Scene()
    scene.hold(OWED, 5.0)
    assert scene.outbox.held_until == 0.0
    scene.at = 5.0
    for hold_s, expected in ((30.0, 35.0), (10.0, 45.0), (0.0, 45.0)):
        scene.send()
        scene.commit(SETTLED, hold_s=hold_s)
        assert scene.outbox.held_until == NOW + expected
        scene.evaluate(expected)
    assert ORDER not in scene.outbox


@pytest.mark.parametrize("at", [30.0, 31.0])
def test_acknowledged_order_leaves_when_its_hold_ends(at: float) -> None:
    """By being evaluated, or because it is committed again."""
    scene = Scene()
    scene.hold(SETTLED, 30.0)
    assert scene.evaluate() == ()
    assert scene.due_s == 30.0
    scene.at = at
    if at > 30.0:
        scene.commit(SETTLED)
    assert scene.evaluate() == ()
    assert ORDER not in scene.outbox


def test_delay_of_a_wrong_clock_is_bounded() -> None:
    """One that was stored by a clock far ahead lasts no longer than the longest of its kind, whatever comes meanwhile."""
    scene = Scene()
    for revision in range(2, 9):
        scene.at = 10.0 * (revision - 2)
        scene.commit(replace(delayed(10**6, longest_s=300.0), revision=revision))
        scene.evaluate()
        assert scene.due_s == 300.0
    scene.commit(replace(delayed(100.0, longest_s=300.0), revision=9))
    scene.evaluate()
    assert scene.due_s == 100.0
    scene.commit(replace(OWED, revision=9))
    assert said(scene.evaluate()) == ["offer"]


# --- the lease -------------------------------------------------------------------------------------------------------


def test_nothing_is_offered_without_a_lease() -> None:
    """An attempt could outlast it: the order says so, and is evaluated again once it was renewed."""
    scene = Scene(lease_s=7.9)
    scene.commit()
    assert said(scene.evaluate()) == ["need lease"]
    assert scene.due_s == NEVER
    scene.lease_until = NOW + 8.0
    scene.outbox.lease_renewed(scene.now)
    assert said(scene.evaluate()) == ["offer"]
    scene.outbox.lease_renewed(scene.now)
    assert scene.evaluate() == ()


def test_delayed_order_needs_no_lease_yet() -> None:
    """By the end of its delay there may be one."""
    scene = Scene(lease_s=0.0)
    scene.commit(delayed(5.0, Delay.TRANSIENT))
    assert said(scene.evaluate()) == ["offer"]


def test_order_that_is_settled_needs_no_lease() -> None:
    """It waited for the lease, and is not owed any more."""
    scene = Scene(lease_s=0.0)
    scene.commit()
    scene.evaluate()
    scene.commit(SETTLED)
    scene.outbox.lease_renewed(scene.now)
    assert scene.due_s == NEVER


# --- claiming --------------------------------------------------------------------------------------------------------


def test_claim_is_what_was_planned() -> None:
    """The newest revision, as it was rendered for the offer."""
    scene = Scene()
    scene.commit()
    scene.evaluate()
    scene.orders.clear()  # it is not read again
    claim = scene.claim()
    assert isinstance(claim, Claim)
    assert (claim.revision, claim.plan.account) == (OWED.revision, ACCOUNT)
    assert scene.outlook.in_flight


def lease_runs_out(scene: Scene) -> None:
    """Between the offer and its turn."""
    scene.lease_until = NOW + 7.9


def is_settled(scene: Scene) -> None:
    """What was offered is not owed any more."""
    scene.commit(SETTLED)


def payment_goes_on_hold(scene: Scene) -> None:
    """And it is evaluated before its turn comes."""
    scene.commit(ON_HOLD)


def gets_a_delay(scene: Scene) -> None:
    """One that its account may not end."""
    scene.commit(delayed(9.0))


NOT_CLAIMED: list[Any] = [
    pytest.param(lease_runs_out, ["need lease"], id="the lease could end first"),
    pytest.param(is_settled, [], id="settled meanwhile"),
    pytest.param(payment_goes_on_hold, [], id="waits for its payment"),
    pytest.param(gets_a_delay, [], id="delayed meanwhile"),
]


@pytest.mark.parametrize(("change", "effects"), NOT_CLAIMED)
def test_turn_that_comes_too_late(change: Callable[[Scene], None], effects: list[str]) -> None:
    """An offer is no promise: what may not be sent as of now is not claimed."""
    scene = Scene()
    scene.commit()
    scene.evaluate()
    change(scene)
    claim = scene.claim()
    assert said(claim) == effects
    assert not scene.outbox.is_in_flight(ORDER)


def test_order_that_was_not_offered_is_not_claimed() -> None:
    """Nor one that nobody knows."""
    scene = Scene()
    scene.commit()
    assert (scene.claim(), scene.claim("acme/unknown")) == ((), ())


def test_delay_that_came_meanwhile_is_kept() -> None:
    """It is evaluated when the delay ends, not before."""
    scene = Scene()
    scene.commit()
    scene.evaluate()
    scene.commit(delayed(9.0))
    assert scene.claim() == ()
    assert (scene.evaluate(), scene.due_s) == ((), 9.0)


def test_early_turn_is_for_delays_that_may_end_early() -> None:
    """Its account has found that delays have become pointless."""
    scene = Scene()
    scene.commit(delayed(60.0, Delay.TRANSIENT))
    scene.evaluate()
    assert said(scene.claim()) == ["claim"]


def test_order_that_a_job_sends_is_not_claimed() -> None:
    """It stands in a page; it is evaluated again when that is committed."""
    scene = Scene()
    scene.commit()
    scene.evaluate()
    assert scene.claim(is_reserved=True) == ()
    assert scene.claim() == ()
    scene.commit()
    assert said(scene.evaluate()) == ["offer"]


def test_changed_account_is_planned_again() -> None:
    """Credentials and what is sent may have changed since the offer."""
    scene = Scene()
    scene.commit()
    scene.evaluate()
    other = replace(ACCOUNT, base_url="https://elsewhere.example")
    scene.destinations["acme"] = Destination(other, Sequra())
    claim = scene.claim()
    assert isinstance(claim, Claim)
    assert claim.plan.account is other


def test_what_must_not_be_sent_is_seen_when_it_is_claimed() -> None:
    """Planned again, it may have to be parked, or wait."""
    scene = Scene(prepared_max=0)
    for order, record in ((ORDER, TOO_LARGE), ("acme/2", ON_HOLD)):
        scene.commit(record, order)
        assert said(scene.evaluate()) == ["offer"]
        assert said(scene.claim(order)) == (["decide: park"] if order == ORDER else [])
        assert not scene.outbox.is_in_flight(order)


# --- in flight -------------------------------------------------------------------------------------------------------


def test_order_in_flight_is_not_evaluated() -> None:
    """Rule 1: whatever is committed meanwhile has to wait for the outcome."""
    scene = Scene()
    scene.send()
    scene.commit(replace(OWED, revision=3))
    assert (scene.evaluate(), scene.claim(), scene.due_s) == ((), (), NEVER)
    scene.commit(replace(OWED, revision=3), hold_s=0.0)
    assert said(scene.evaluate()) == ["offer"]


def test_order_in_flight_stays_when_it_is_acknowledged() -> None:
    """Its provider made the change itself: the attempt goes on all the same, and the next event must not overtake it."""
    scene = Scene()
    scene.send()
    scene.commit(replace(SETTLED, revision=3, acked=3))
    scene.commit(replace(OWED, revision=4))
    assert (scene.evaluate(), scene.outbox.is_in_flight(ORDER)) == ((), True)
    scene.commit(replace(SETTLED, revision=4, acked=4), hold_s=0.0)
    assert ORDER not in scene.outbox


def test_settled_while_in_flight_is_read_again() -> None:
    """Nothing that was prepared, or known of it, counts any more."""
    scene = Scene()
    scene.send()
    scene.commit(replace(SETTLED, revision=3, acked=3))
    scene.outbox.ended(ORDER)
    scene.outbox.lease_renewed(scene.now)
    assert scene.evaluate() == ()
    assert scene.outlook == Outlook(not_before=NOW)


# --- plans that are kept ---------------------------------------------------------------------------------------------


def test_plans_are_kept_while_there_is_room() -> None:
    """Beyond, an order is offered without being read, rendered when it is claimed, and read after a while if not."""
    scene = Scene(prepared_max=1)
    for order in (ORDER, "acme/2"):
        scene.commit(OWED, order)
    read = scene.orders.pop("acme/2")
    assert said(scene.evaluate()) == ["offer", "offer"]
    scene.orders["acme/2"] = read
    assert said(scene.claim("acme/2")) == ["claim"]
    assert scene.due_s == NEVER


def test_order_that_was_not_read_is_read_after_a_while() -> None:
    """Its turn may be hours away, and what is wrong with it is to be seen before."""
    scene = Scene(prepared_max=0)
    scene.commit(TOO_LARGE)
    assert said(scene.evaluate()) == ["offer"]
    assert scene.due_s == RECHECK_AFTER_S
    assert said(scene.evaluate(RECHECK_AFTER_S)) == ["decide: park"]


@pytest.mark.parametrize(
    ("record", "is_throttled"),
    [
        pytest.param(TOO_LARGE, True, id="its account sends nothing now"),
        pytest.param(delayed(60.0, Delay.TRANSIENT, TOO_LARGE), False, id="delayed"),
        pytest.param(replace(TOO_LARGE, inconsistent_since_ms=1), False, id="its record may have to change"),
    ],
)
def test_order_whose_turn_is_far_is_read_at_once(record: OrderRecord, is_throttled: bool) -> None:
    """There is no room for its plan, but somebody has to see what is wrong with it."""
    scene = Scene(prepared_max=0)
    scene.throttled |= {"acme"} if is_throttled else set()
    scene.commit(record)
    assert said(scene.evaluate()) == ["decide: park"]


def test_newer_revision_makes_room() -> None:
    """A plan is for one revision: what was prepared is dropped, and its room is free again."""
    scene = Scene(prepared_max=1)
    scene.commit()
    scene.evaluate()
    scene.commit(SETTLED)
    scene.commit(OWED, "acme/2")
    scene.evaluate()
    scene.orders.clear()
    assert said(scene.claim("acme/2")) == ["claim"]


# --- after an attempt that failed ------------------------------------------------------------------------------------


def failed(scene: Scene, record: OrderRecord, hold_s: float = 0.0) -> None:
    """Its attempt has ended so; from then on every reading of a record raises `KeyError`."""
    scene.send()
    scene.commit(record, hold_s=hold_s)
    scene.orders.clear()


@pytest.mark.parametrize(
    ("record", "hold_s", "effects", "due_s"),
    [
        pytest.param(delayed(60.0, Delay.TRANSIENT), 0.0, ["offer"], NEVER, id="its account decides when"),
        pytest.param(delayed(60.0), 0.0, [], 60.0, id="it waits for the end of its delay"),
        pytest.param(delayed(60.0, Delay.TRANSIENT), 30.0, [], 30.0, id="its request may still land"),
        pytest.param(delayed(60.0, Delay.ASKED), 0.0, [], 60.0, id="its provider has said when"),
    ],
)
def test_order_that_was_just_tried_is_not_planned_again(
    record: OrderRecord, hold_s: float, effects: list[str], due_s: float
) -> None:
    """It could be sent a moment ago, so nothing is found by reading it before it may be sent again."""
    scene = Scene(reporting=REPORTING)
    failed(scene, replace(record, told=ANNOUNCED), hold_s)
    assert said(scene.evaluate()) == effects
    assert scene.outbox._appointments.next_due() - NOW == due_s
    assert scene.outlook.waiting == ""


def test_order_that_was_tried_is_planned_when_it_may_be_sent() -> None:
    """Once, at the end of its delay; the plan is kept for its turn."""
    scene = Scene()
    failed(scene, delayed(60.0))
    scene.evaluate()
    scene.orders[ORDER] = state.encode(delayed(60.0))
    assert said(scene.evaluate(60.0)) == ["offer"]
    scene.orders.clear()
    assert said(scene.claim()) == ["claim"]


@pytest.mark.parametrize(
    ("record", "effects"),
    [
        pytest.param(delayed(60.0, Delay.OWN, replace(TOO_LARGE, revision=9)), ["decide: park"], id="newer"),
        pytest.param(delayed(60.0, Delay.OWN, RESOLVED), ["decide: send"], id="its record has to change"),
        pytest.param(delayed(60.0, Delay.RESULT, TOO_LARGE), ["decide: park"], id="nothing has failed"),
        pytest.param(TOO_LARGE, ["decide: park"], id="it may be sent at once"),
    ],
)
def test_order_that_was_tried_is_planned_where_something_may_follow(record: OrderRecord, effects: list[str]) -> None:
    """Something may be wrong with it that was not when it was claimed."""
    scene = Scene()
    scene.send(replace(OWED, revision=record.revision if record.revision < 9 else 2))
    scene.commit(record, hold_s=0.0)
    assert said(scene.evaluate()) == effects


@pytest.mark.parametrize("is_taken_over", [True, False])
def test_order_that_was_not_tried_here_is_planned(is_taken_over: bool) -> None:
    """Whoever takes over reads everything; and so does who commits something of an order after its outcome."""
    scene = Scene()
    record = delayed(60.0, Delay.OWN, TOO_LARGE)
    if is_taken_over:
        scene.hold(record, 0.0)
    else:
        scene.send(replace(OWED, revision=record.revision))
        scene.commit(replace(delayed(60.0), revision=record.revision), hold_s=0.0)
        scene.evaluate()
        scene.commit(record)
    assert said(scene.evaluate()) == ["decide: park"]


def test_order_that_was_tried_is_announced_in_its_time() -> None:
    """To be announced it has to be read, however long its delay is."""
    scene = Scene(reporting=REPORTING, announce_after_s=5.0)
    scene.send()
    scene.commit(delayed(60.0), hold_s=0.0)
    assert said(scene.evaluate()) == []
    assert said(scene.evaluate(5.0)) == ["decide: send"]


# --- waiting for a job -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "effects"),
    [
        pytest.param(Waits(), [], id="a job sends it"),
        pytest.param(Reads(), [], id="it has to be asked, which a change brings about"),
        pytest.param(Sequra(), ["offer"], id="it does not have to wait any more"),
    ],
)
def test_accounts_that_changed_end_a_wait(adapter: Sequra, effects: list[str]) -> None:
    """What waits for a job or a change may not have to once the accounts were read again."""
    scene = Scene(Destination(ACCOUNT, Waits()))
    scene.commit(delayed(10**6, Delay.CHANGE))
    assert scene.evaluate() == ()
    scene.at = 7.0
    scene.destinations["acme"] = Destination(ACCOUNT, adapter)
    scene.outbox.accounts_changed(scene.now)
    assert said(scene.evaluate()) == effects


def test_accounts_that_changed_do_not_concern_the_others() -> None:
    """Nothing is due that does not wait for a job, nor what is in flight."""
    scene = Scene(Destination(ACCOUNT, Sequra()))
    scene.send(delayed(-1.0, Delay.CHANGE))
    scene.commit(delayed(5.0), "acme/2")
    scene.evaluate()
    scene.outbox.accounts_changed(scene.now)
    assert scene.due_s == 5.0


# --- announcing ------------------------------------------------------------------------------------------------------

REPORTING = Reporting("/cartsync/g")
ANNOUNCED = Told("owed", 0, 1, 0)


def test_owed_is_announced_late() -> None:
    """Most orders are settled by then, and nobody has to hear of it twice."""
    scene = Scene(reporting=REPORTING, announce_after_s=5.0)
    scene.commit()
    assert said(scene.evaluate()) == ["offer"]
    assert scene.due_s == 5.0
    assert said(scene.evaluate(5.0)) == ["decide: send"]
    scene.commit(replace(OWED, told=ANNOUNCED))
    assert (scene.evaluate(), scene.due_s) == ((), NEVER)


def test_newer_revision_does_not_put_it_off() -> None:
    """It is owed since the first one, and announced after as long."""
    scene = Scene(reporting=REPORTING, announce_after_s=5.0)
    scene.commit()
    scene.evaluate()
    scene.at = 4.0
    scene.commit(replace(OWED, revision=3))
    assert (scene.evaluate(), scene.due_s) == ((), 5.0)


@pytest.mark.parametrize("is_settled", [True, False])
def test_what_is_settled_or_in_flight_is_not_announced(is_settled: bool) -> None:
    """The outcome of the attempt is announced instead."""
    scene = Scene(reporting=REPORTING, announce_after_s=5.0)
    scene.send()
    if is_settled:
        scene.commit(SETTLED, hold_s=0.0)
    assert scene.evaluate(5.0) == ()
    assert scene.due_s == NEVER


def test_old_announcement_is_void() -> None:
    """The order was announced, settled, and is owed again: that is to be announced in its own time."""
    scene = Scene(reporting=REPORTING, announce_after_s=5.0)
    scene.commit()
    scene.evaluate()
    scene.at = 1.0
    scene.commit(SETTLED)
    scene.at = 3.0
    scene.commit(replace(OWED, revision=9))
    scene.evaluate()
    assert scene.evaluate(5.0) == ()
    assert said(scene.evaluate(8.0)) == ["decide: send"]


@pytest.mark.parametrize(
    ("told", "effects"),
    [
        pytest.param(None, ["decide: wait"], id="news"),
        pytest.param(Told("unconfirmed", 0, 1, 0), [], id="known"),
    ],
)
def test_waiting_is_announced_once(told: Told | None, effects: list[str]) -> None:
    """With the transaction of the decision that it waits."""
    scene = Scene(reporting=REPORTING)
    scene.commit(replace(UNCONFIRMED, told=told))
    assert said(scene.evaluate()) == effects


# --- waiting for too long --------------------------------------------------------------------------------------------


def test_overdue_by_our_clock() -> None:
    """The moment since when it waits is taken once: a wall clock that is set meanwhile changes nothing."""
    scene = Scene()
    scene.commit(MARKED)
    assert scene.evaluate() == ()
    for revision in (3, 4):
        scene.at = 100.0 * revision
        scene.commit(replace(MARKED, revision=revision))
        assert (scene.evaluate(), scene.due_s) == ((), 900.0)
    [overdue] = scene.evaluate(900.0)
    assert isinstance(overdue, Overdue)
    assert (overdue.subject, overdue.revision, overdue.status) == (ORDER, 4, "inconsistent")
    assert scene.outlook.is_overdue


def test_order_in_flight_that_becomes_parked_is_not_due() -> None:
    """Parked: nothing but a newer revision or an operator makes it due."""
    scene = Scene()
    scene.send()
    scene.commit(parked(), hold_s=0.0)
    assert (scene.evaluate(), scene.due_s, scene.outlook.waiting) == ((), NEVER, "parked")
    scene.commit(replace(parked(), revision=3))
    assert said(scene.evaluate()) == ["decide: park"]


def test_parked_order_is_not_due_any_more() -> None:
    """It was to be evaluated, and an operator's other command, or its outcome, came first."""
    scene = Scene()
    scene.commit()
    scene.commit(parked())
    assert (scene.due_s, scene.evaluate()) == (NEVER, ())


# --- the index -------------------------------------------------------------------------------------------------------


def test_empty_outbox_has_nothing_due() -> None:
    """Nothing is due before something happens."""
    scene = Scene()
    assert (scene.due_s, scene.evaluate(10**9)) == (NEVER, ())


def test_void_appointments_do_not_pile_up() -> None:
    """However many events an order gets while it waits, the index stays of the size of the orders."""
    scene = Scene()
    for number in range(10_000):
        scene.at = float(number)
        scene.commit(replace(OWED, revision=number + 2))
    assert len(scene.outbox._appointments) <= 1_003
    assert scene.due_s == 9_999.0


class Promise(Scene):
    """What the outbox promises, whatever happens in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.revisions: dict[str, int] = {}
        self.holds: dict[str, float] = {}
        self.in_flight: dict[str, int] = {}
        self.offers: list[str] = []

    def change(self, order: str, _number: int) -> None:
        """A newer revision is committed."""
        self.revisions[order] = self.revisions.get(order, 1) + 1
        self.commit(replace(OWED, revision=self.revisions[order]), order)

    def look(self, _order: str = "", _number: int = 0) -> None:
        """What is due is evaluated."""
        self.offers += [effect.subject for effect in self.evaluate() if isinstance(effect, Offer)]

    def turn(self, _order: str = "", _number: int = 0) -> None:
        """The publisher claims what was offered first."""
        if not self.offers:
            return
        order = self.offers.pop(0)
        claimed = self.claim(order)
        if isinstance(claimed, Claim):
            assert order not in self.in_flight
            assert self.now >= self.holds.get(order, 0.0)
            assert claimed.revision == self.revisions[order]
            self.in_flight[order] = claimed.revision

    def end(self, order: str, hold_s: int) -> None:
        """Its attempt ends: applied, or to be held for so long."""
        if order not in self.in_flight:
            return
        sent = self.in_flight.pop(order)
        self.holds[order] = max(self.holds.get(order, 0.0), self.now + hold_s)
        after = replace(OWED, revision=self.revisions[order], acked=0 if hold_s else sent)
        self.commit(after, order, hold_s=hold_s)

    def later(self, _order: str, number: int) -> None:
        """Time passes."""
        self.at += number / 4


STEPS = [Promise.change, Promise.look, Promise.turn, Promise.end, Promise.later]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STEPS), st.integers(0, 20)), max_size=40))
def test_promise(steps: list[tuple[str, Callable[[Promise, str, int], None], int]]) -> None:
    """Never two attempts in flight, none while it is held, always the newest revision; and all is sent in the end."""
    scene = Promise()
    for name, step, number in steps:
        step(scene, f"acme/{name}", number)
    for _ in range(2):
        for order in scene.revisions:
            scene.end(order, 0)
        scene.at += 100.0
        scene.look()
        while scene.offers:
            scene.turn()
    for order in scene.revisions:
        scene.end(order, 0)
    assert scene.outbox.subjects() == []


# --- what others may know --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "waiting"),
    [
        pytest.param(OWED, "", id="owed"),
        pytest.param(UNCONFIRMED, "unconfirmed", id="unconfirmed"),
        pytest.param(MARKED, "inconsistent", id="inconsistent"),
        pytest.param(parked(), "parked", id="parked"),
        pytest.param(ON_HOLD, "on_hold", id="its payment is on hold"),
        pytest.param(record_of(CONFIRMED, payment("refused"), shipped("s1", A=1)), "refused", id="refused"),
        pytest.param(record_of(CONFIRMED, payment("approved"), shipped("s1", A=1)), "", id="approved"),
    ],
)
def test_what_a_restored_order_waits_for_is_known_at_once(record: OrderRecord, waiting: str) -> None:
    """Before it is evaluated: there may be very many of them, and none is to be taken for owed that waits."""
    scene = Scene()
    scene.hold(record, 0.0)
    assert scene.outlook.waiting == waiting


def test_restored_order_that_is_settled_is_no_entry() -> None:
    """It needs nothing."""
    scene = Scene()
    scene.hold(SETTLED, 0.0)
    assert ORDER not in scene.outbox


def test_newer_revision_may_be_consistent() -> None:
    """What is inconsistent is known of a record that was taken over, not of one that has changed since."""
    scene = Scene()
    scene.hold(MARKED, 0.0)
    scene.commit(replace(MARKED, revision=9))
    assert scene.outlook.waiting == ""


def test_outlook_is_what_people_see() -> None:
    """When it may be sent, and whether it is in flight."""
    scene = Scene()
    scene.hold(OWED, 30.0)
    assert scene.outlook == Outlook(hold_until=NOW + 30.0, not_before=NOW + 30.0)


def test_owed_orders_and_what_keeps_them() -> None:
    """Offered: its account's turn. Without an account: nothing else. What waits for events is not owed."""
    scene = Scene()
    for order, record in ((ORDER, OWED), ("acme/2", delayed(5.0)), ("other/3", OWED), ("acme/4", ON_HOLD)):
        scene.commit(record, order)
    scene.evaluate()
    assert list(scene.outbox.owed()) == [(ORDER, True), ("acme/2", False), ("other/3", True)]


def test_parked_orders_of_an_account() -> None:
    """Those of others are not among them, though their names begin alike."""
    scene = Scene()
    for order, record in ((ORDER, parked()), ("acme/2", OWED), ("acme2/3", parked())):
        scene.commit(record, order)
    assert scene.outbox.parked("acme") == [ORDER]


def test_figures_by_account() -> None:
    """What is owed, since when, and what waits for something else; accounts that nobody configured are one."""
    scene = Scene()
    scene.destinations |= {"beta": TO, "jobs": Destination(ACCOUNT, Waits())}
    late = {"inconsistent_since_ms": START_MS - 900_000}
    records = {
        "acme/1": replace(OWED, owed_since_ms=99),
        "acme/3": replace(parked(), owed_since_ms=1),
        "acme/4": replace(ON_HOLD, owed_since_ms=1),
        "acme/5": UNCONFIRMED,
        "acme/6": replace(UNCONFIRMED, unconfirmed_since_ms=START_MS - 3_600_000),
        "acme/7": replace(MARKED, owed_since_ms=1),
        "acme/8": replace(MARKED, **late),
        "jobs/1": delayed(10**6, Delay.CHANGE, replace(OWED, owed_since_ms=2)),
        "beta/1": replace(OWED, owed_since_ms=92),
        "x/1": replace(OWED, owed_since_ms=1),
        "y/1": replace(OWED, owed_since_ms=1),
    }
    scene.hold(replace(OWED, owed_since_ms=100), 9.0, "acme/2")
    for order, record in records.items():
        scene.commit(record, order)
    scene.evaluate()
    found = scene.outbox.figures(scene.destinations, NOW)
    assert len(list(scene.outbox.owed())) == sum(each.owed for each in found.values())
    subjects, entries = scene.outbox.entries()
    assert figures_of(zip(subjects, entries, strict=True), scene.destinations, NOW) == found
    assert found == {
        "acme": Figures(owed=2, held=1, parked=2, unconfirmed=2, inconsistent=2, overdue=2, owed_since_ms=99),
        "beta": Figures(owed=1, owed_since_ms=92),
        "jobs": Figures(owed=1),
        UNCONFIGURED: Figures(owed=2),
    }
    total = Figures()
    for count in found.values():
        total.add(count)
    assert total == Figures(owed=6, held=1, parked=2, unconfirmed=2, inconsistent=2, overdue=2, owed_since_ms=92)
    assert (total.oldest_s(5_092), total.oldest_s(1), Figures().oldest_s(5_092)) == (5.0, 0.0, 0.0)


def test_oldest_of_a_change_without_a_moment() -> None:
    """A record that does not say since when it is owed has no age."""
    count = Figures()
    for since_ms in (0, 7, 0, 9):
        count.note_owed_since(since_ms)
    assert count.owed_since_ms == 7


def test_figures_of_what_failed_before() -> None:
    """Failed attempts change nothing about what is owed."""
    scene = Scene()
    scene.commit(replace(delayed(5.0), attempts=Attempts(b"d", transient=3)))
    assert scene.outbox.figures({"acme"}, NOW)["acme"].owed == 1
