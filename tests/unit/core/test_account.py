"""Whose turn it is at an account, and when: shares, pauses, probes, waves of refusals, pace, and after an outage."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.account import DOWN_S, NEVER, SLOW_MAX_S, AccountQueue, Turn
from worker.core.policy import DeliveryPolicy
from worker.model.exchange import Outcome, OutcomeKind, Refusal

RULES = DeliveryPolicy()
TAKEN = Outcome(OutcomeKind.APPLIED, "", 204)
UNANSWERED = Outcome(OutcomeKind.UNKNOWN, "timeout")
BROKEN = Outcome(OutcomeKind.REJECTED, "500", 500)
REFUSED = Outcome(OutcomeKind.PERMANENT, "302: /maintenance", 302)
UNAUTHORIZED = Outcome(OutcomeKind.CREDENTIALS, "401: no", 401)
FORBIDDEN = Outcome(OutcomeKind.FORBIDDEN, "403: no", 403)
CONFLICT = Outcome(OutcomeKind.CONFLICT, "409", 409, refusal=Refusal.CONTENT)
BUSY = Outcome(OutcomeKind.REJECTED, "503", 503, throttles_account=True)


class Desk:
    """A queue, and a clock that is set by hand."""

    def __init__(self, slots: int = 32, rules: DeliveryPolicy = RULES) -> None:
        self.queue: AccountQueue[object] = AccountQueue(slots, rules)
        self.now = 1_000.0
        self.owner = object()

    def offer(self, *subjects: str, has_failed: bool = False, since_ms: int = 0, in_s: float = 0.0) -> None:
        """Offers orders, in this order."""
        for subject in subjects:
            self.queue.offer(subject, since_ms, self.owner, self.now, has_failed=has_failed, not_before=self.now + in_s)

    def begin(self) -> Turn[object]:
        """The next attempt begins; there must be one."""
        turn = self.queue.next(self.now)
        assert turn is not None
        self.queue.begin(turn, self.now)
        return turn

    def end(self, turn: Turn[object], outcome: Outcome = TAKEN, took_s: float = 0.0) -> Outcome:
        """It ends, `took_s` from now."""
        self.now += took_s
        return self.queue.end(turn, outcome, self.now, 0.5)

    def tell(self, outcome: Outcome = TAKEN, took_s: float = 0.0) -> tuple[str, Outcome]:
        """One attempt from beginning to end: whose it was, and what is left of the outcome for it."""
        turn = self.begin()
        return turn.subject, self.end(turn, outcome, took_s)

    def told(self, outcome: Outcome = TAKEN) -> list[str]:
        """One attempt after the other, as long as one may begin now."""
        found = []
        while self.is_open():
            found.append(self.tell(outcome)[0])
        return found

    def is_open(self) -> bool:
        """Whether an attempt may begin now; the two ways to ask must agree."""
        is_open = self.queue.opens_at(self.now) <= self.now
        if not is_open:
            assert self.queue.next(self.now) is None
        return is_open

    def paused_by(self, outcome: Outcome, subject: str = "bad") -> None:
        """An order pauses the account."""
        self.offer(subject)
        assert self.tell(outcome) == (subject, Outcome(OutcomeKind.CREDENTIALS, outcome.reason, outcome.status))
        assert self.queue.pause is not None


# --- turns ---------------------------------------------------------------------------------------------------------


def test_longest_owed_first() -> None:
    """Whatever the order of the offers; among equals the first to come."""
    desk = Desk()
    desk.offer("b", "c", since_ms=20)
    desk.offer("a", since_ms=10)
    assert desk.told() == ["a", "b", "c"]
    assert desk.queue.opens_at(desk.now) == NEVER


def test_slots() -> None:
    """So many attempts at once, and no more."""
    desk = Desk(slots=2)
    desk.offer("a", "b", "c")
    first, _ = desk.begin(), desk.begin()
    assert not desk.is_open()
    desk.end(first)
    assert desk.begin().subject == "c"


@pytest.mark.parametrize(("slots", "share"), [(2, 1), (3, 1), (4, 2), (32, 16)])
def test_orders_that_failed_take_at_most_half_of_the_slots(slots: int, share: int) -> None:
    """Though they have been owed for longer; the others get what is left."""
    desk = Desk(slots)
    desk.offer(*(f"bad{number}" for number in range(40)), has_failed=True)
    desk.offer(*(f"good{number}" for number in range(40)), since_ms=9)
    turns = [desk.begin() for _ in range(slots)]
    assert sum(turn.has_failed for turn in turns) == share
    desk.end(turns[-1])
    assert not desk.begin().has_failed
    desk.end(turns[0], UNANSWERED)
    assert desk.begin().has_failed


def test_orders_that_failed_take_everything_when_nobody_else_waits() -> None:
    """A share is not a quota."""
    desk = Desk(4)
    desk.offer("a", "b", "c", "d", has_failed=True)
    assert [desk.begin().has_failed for _ in range(4)] == [True] * 4


def test_younger_order_that_failed_does_not_overtake() -> None:
    """Half is the most that they get, not what is theirs."""
    desk = Desk()
    desk.offer("bad", has_failed=True, since_ms=5)
    desk.offer("good", since_ms=4)
    assert desk.told() == ["good", "bad"]


def test_every_other_turn_where_there_is_one_slot() -> None:
    """Turns that take no time alternate."""
    desk = Desk(slots=1)
    desk.offer("bad0", "bad1", "bad2", has_failed=True)
    desk.offer("good0", "good1", "good2", since_ms=9)
    assert desk.told() == ["bad0", "good0", "bad1", "good1", "bad2", "good2"]


def test_half_of_the_time_where_there_is_one_slot() -> None:
    """200 hopeless orders take 8 s each and 100 good ones 50 ms: these are told within seconds, and those go on."""
    desk = Desk(slots=1)
    desk.offer(*(f"bad{number}" for number in range(200)), has_failed=True)
    desk.offer(*(f"good{number}" for number in range(200)), since_ms=9)
    began = desk.now
    order: list[tuple[float, str]] = []
    while len(order) < 250:
        turn = desk.begin()
        order.append((desk.now - began, turn.subject))
        desk.end(turn, *((UNANSWERED, 8.0) if turn.has_failed else (TAKEN, 0.05)))
    good = [at for at, subject in order if subject.startswith("good")]
    assert good[99] < 16
    assert [subject for _, subject in order if subject.startswith("bad")][:2] == ["bad0", "bad1"]


def test_withdraw_forgets_the_offers_of_one_owner() -> None:
    """Wherever they are: fresh, failed, later or aside."""
    desk, other = Desk(), Desk()
    desk.paused_by(UNAUTHORIZED)
    other.queue, other.owner = desk.queue, object()
    for each, name in ((desk, "mine"), (other, "theirs")):
        each.offer(f"{name} fresh", "bad")
        each.offer(f"{name} failed", has_failed=True)
        each.offer(f"{name} later", in_s=5.0)
    desk.queue.withdraw(desk.owner)
    desk.queue.withdraw(desk.owner)
    assert len(desk.queue) == 3
    desk.queue.resume()
    assert desk.told() == ["theirs fresh", "bad", "theirs failed"]
    desk.now += 5.0
    assert desk.told() == ["theirs later"]


# --- pauses and probes ---------------------------------------------------------------------------------------------


def test_unauthorized_pauses_and_is_probed_at_growing_intervals() -> None:
    """After 1, 2, 5 and then every 15 minutes one attempt, one at a time."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.offer("a", "b", "c", "d", "e", "f", "g")
    began, times = desk.now, []
    for _ in range(6):
        assert not desk.is_open()
        desk.now = desk.queue.opens_at(desk.now)
        times.append(desk.now - began)
        turn = desk.begin()
        assert desk.queue.opens_at(desk.now) == NEVER
        desk.end(turn, UNAUTHORIZED)
    assert [later - earlier for earlier, later in pairwise([0.0, *times])] == [60, 120, 300, 900, 900, 900]


def test_probe_that_is_taken_ends_the_pause() -> None:
    """At once, for everybody; the order that brought it about goes last."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.offer("bad", "a", "b", since_ms=3)
    desk.now += 60
    assert desk.tell()[0] == "a"
    assert desk.queue.pause is None
    assert set(desk.told()) == {"b", "bad"}


@pytest.mark.parametrize("outcome", [UNAUTHORIZED, FORBIDDEN, BUSY, UNANSWERED, REFUSED])
def test_probe_that_is_not_taken_leaves_the_pause(outcome: Outcome) -> None:
    """It waits for the next one, and that is made with another order."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.offer("bad", "a", "b")
    for expected in ("a", "b", "bad"):
        desk.now = desk.queue.opens_at(desk.now)
        assert desk.tell(outcome)[0] == expected
        desk.offer(expected)
    assert desk.queue.pause is not None
    assert desk.queue.pause.probes == 3
    desk.now += 10_000
    assert desk.tell(outcome)[0] == "a"


def test_unauthorized_probe_says_nothing_of_its_order() -> None:
    """It waits as it is: neither delayed nor parked, whatever of the account was refused."""
    for pausing, answer in ((UNAUTHORIZED, FORBIDDEN), (UNAUTHORIZED, UNAUTHORIZED)):
        desk = Desk()
        desk.paused_by(pausing)
        desk.offer("a")
        desk.now += 60
        assert desk.tell(answer)[1].kind is OutcomeKind.CREDENTIALS


@pytest.mark.parametrize("answer", [CONFLICT, Outcome(OutcomeKind.PERMANENT, "422", 422, refusal=Refusal.CONTENT)])
def test_probe_refused_for_what_is_in_it_has_been_let_in(answer: Outcome) -> None:
    """The credentials are right then: the account goes on, and the order has its own outcome."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.offer("a")
    desk.now += 60
    assert desk.tell(answer) == ("a", answer)
    assert desk.queue.pause is None


def test_nothing_probes_when_there_are_no_intervals() -> None:
    """An operator resumes it; that there is nothing to resume is told."""
    desk = Desk(rules=DeliveryPolicy(account_probe_s=()))
    desk.paused_by(UNAUTHORIZED)
    desk.offer("a")
    assert desk.queue.opens_at(desk.now) == NEVER
    assert desk.queue.resume()
    assert not desk.queue.resume()
    assert desk.told() == ["a"]


def test_probe_waits_for_an_order() -> None:
    """When there is none at its time, the next that comes is it."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.now += 3600
    assert desk.queue.opens_at(desk.now) == NEVER
    desk.offer("a")
    assert desk.told() == ["a"]


def test_resume_begins_with_another_order_but_not_for_ever() -> None:
    """The order that paused it waits for one other, if there is one, and then is one of those that failed."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.offer("bad")
    desk.offer("a", "b", since_ms=9)
    desk.queue.resume()
    assert desk.told() == ["a", "bad", "b"]
    desk.paused_by(UNAUTHORIZED, "other")
    desk.offer("other")
    desk.queue.resume()
    assert desk.told() == ["other"]


def test_operator_ends_a_pause_that_is_being_probed() -> None:
    """What then becomes of the probe says nothing about a later pause."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.offer("a", "b")
    desk.now += 60
    probe = desk.begin()
    desk.queue.resume()
    turn = desk.begin()
    desk.end(turn, UNAUTHORIZED)
    pause = desk.queue.pause
    assert pause is not None
    desk.end(probe)
    assert desk.queue.pause is pause
    assert (pause.probes, pause.is_probing) == (0, False)


def test_what_was_under_way_when_it_paused_neither_ends_nor_renews_the_pause() -> None:
    """Only a probe does."""
    desk = Desk()
    desk.offer("a", "b", "c")
    turns = [desk.begin() for _ in range(3)]
    desk.end(turns[0], UNAUTHORIZED)
    pause = desk.queue.pause
    assert desk.end(turns[1], UNAUTHORIZED).kind is OutcomeKind.CREDENTIALS
    desk.end(turns[2])
    assert desk.queue.pause is pause
    assert pause is not None
    assert (pause.subject, pause.status, pause.reason) == ("a", 401, "401: no")


# --- one order is not the account ----------------------------------------------------------------------------------


def test_one_forbidden_order_is_its_own_affair() -> None:
    """However often it is refused: it is delayed, and the others go on."""
    desk = Desk()
    for number in range(20):
        desk.offer("bad")
        assert desk.tell(FORBIDDEN) == ("bad", FORBIDDEN)
        desk.offer(f"good{number}")
        assert desk.told() == [f"good{number}"]
    for _ in range(20):
        desk.offer("bad")
        desk.tell(FORBIDDEN)
    assert desk.queue.pause is None


@pytest.mark.parametrize("between", [TAKEN, CONFLICT, REFUSED, Outcome(OutcomeKind.NOT_FOUND, "404", 404)])
def test_different_forbidden_orders_in_a_row_pause_the_account(between: Outcome) -> None:
    """The third one; an answer of another kind in between begins a new row."""
    desk = Desk()
    desk.offer("a", "b")
    desk.tell(FORBIDDEN)
    desk.tell(FORBIDDEN)
    desk.offer("x")
    desk.tell(between)
    desk.offer("c", "d", "e")
    assert desk.tell(FORBIDDEN)[1].kind is OutcomeKind.FORBIDDEN
    assert desk.tell(FORBIDDEN)[1].kind is OutcomeKind.FORBIDDEN
    assert desk.tell(FORBIDDEN)[1].kind is OutcomeKind.CREDENTIALS
    assert desk.queue.pause is not None
    assert desk.queue.pause.subject == "e"


@pytest.mark.parametrize("between", [BROKEN, UNANSWERED, Outcome(OutcomeKind.NOT_SENT)])
def test_no_answer_does_not_end_a_row(between: Outcome) -> None:
    """It says nothing about what the provider lets in."""
    desk = Desk(rules=DeliveryPolicy(forbidden_orders=2))
    desk.offer("a", "x", "b")
    desk.tell(FORBIDDEN)
    desk.tell(between)
    desk.tell(FORBIDDEN)
    assert desk.queue.pause is not None


def test_unauthorized_order_while_others_are_taken_is_its_own_affair() -> None:
    """It pauses the account once; when others were taken since, it is delayed like a forbidden one."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.queue.resume()
    desk.offer("good")
    assert desk.told() == ["good"]
    desk.offer("bad")
    assert desk.tell(UNAUTHORIZED)[1].kind is OutcomeKind.FORBIDDEN
    assert desk.queue.pause is None
    desk.paused_by(UNAUTHORIZED, "other")


def test_unauthorized_again_pauses_again_when_nothing_was_taken() -> None:
    """Then it may well be the account."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.queue.resume()
    desk.paused_by(UNAUTHORIZED)


def test_suspicion_ends_when_the_order_is_taken_and_is_bounded() -> None:
    """An order that was let in may pause the account as any other; nothing grows without end."""
    desk = Desk()
    desk.paused_by(UNAUTHORIZED)
    desk.queue.resume()
    desk.offer("bad", "good")
    assert desk.told() == ["good", "bad"]
    desk.paused_by(UNAUTHORIZED)
    desk.queue.resume()
    for number in range(1_000):
        desk.paused_by(UNAUTHORIZED, f"bad{number}")
        desk.queue.resume()
    desk.offer("good")
    desk.told()
    desk.paused_by(UNAUTHORIZED)


# --- waves of refusals ---------------------------------------------------------------------------------------------


def _refused(desk: Desk, count: int, name: str = "r") -> list[OutcomeKind]:
    kinds = []
    for number in range(count):
        desk.offer(f"{name}{number}")
        kinds.append(desk.tell(REFUSED)[1].kind)
    return kinds


def test_wave_of_refusals_pauses_instead_of_parking() -> None:
    """Fifty are parked; from the next on, orders wait as they are, those under way as well."""
    desk = Desk()
    desk.offer("under way", since_ms=-1)
    under_way = desk.begin()
    assert _refused(desk, 51) == [OutcomeKind.PERMANENT] * 50 + [OutcomeKind.CREDENTIALS]
    assert desk.end(under_way, REFUSED).kind is OutcomeKind.CREDENTIALS
    pause = desk.queue.pause
    assert pause is not None
    assert pause.reason == (
        "more than 50 orders were refused for good within 600 s, the last one with 302: /maintenance"
    )
    desk.offer("a", "b")
    desk.now += 60
    assert desk.tell(REFUSED) == ("a", Outcome(OutcomeKind.CREDENTIALS, REFUSED.reason, 302))
    desk.now += 120
    assert desk.tell() == ("b", TAKEN)
    assert desk.queue.pause is None
    assert _refused(desk, 50) == [OutcomeKind.PERMANENT] * 50


@pytest.mark.parametrize("answer", [CONFLICT, Outcome(OutcomeKind.PERMANENT, "422", 422, refusal=Refusal.CONTENT)])
def test_wave_ends_with_an_order_that_is_taken(answer: Outcome) -> None:
    """Any other answer may be a part of it."""
    desk = Desk(rules=DeliveryPolicy(park_limit=1))
    _refused(desk, 2)
    desk.offer("a")
    desk.now += 60
    desk.tell(answer)
    assert desk.queue.pause is not None


def test_refusals_that_come_slowly_are_no_wave() -> None:
    """So many within the time."""
    desk = Desk(rules=DeliveryPolicy(park_limit=2, park_within_s=10.0))
    for number in range(20):
        assert _refused(desk, 1, f"{number} ") == [OutcomeKind.PERMANENT]
        desk.now += 5.0
    desk.now -= 0.1
    assert _refused(desk, 1) == [OutcomeKind.CREDENTIALS]


@pytest.mark.parametrize(("taken_between", "is_wave"), [(0, True), (1, True), (2, False)])
def test_refusals_among_orders_that_are_taken(taken_between: int, is_wave: bool) -> None:
    """Fifty broken orders of a large shop do not stop the thousands of others; when most are refused, it is a wave."""
    desk = Desk(rules=DeliveryPolicy(park_limit=4))
    for number in range(20):
        for one in range(taken_between):
            desk.offer(f"good {number} {one}")
            desk.tell()
        _refused(desk, 1, f"{number} ")
        if desk.queue.pause is not None:
            break
    assert (desk.queue.pause is not None) == is_wave


def test_wave_after_a_good_hour() -> None:
    """What was taken before it does not count."""
    desk = Desk(rules=DeliveryPolicy(park_limit=4))
    for number in range(100):
        desk.offer(f"good {number}")
        desk.tell()
        if number % 10 == 0:
            assert _refused(desk, 1, f"{number} ") == [OutcomeKind.PERMANENT]
    assert _refused(desk, 5)[-1] is OutcomeKind.CREDENTIALS


def test_one_order_refused_again_and_again_is_no_wave() -> None:
    """An order whose payload changes every second counts once."""
    desk = Desk(rules=DeliveryPolicy(park_limit=2))
    for _ in range(20):
        assert _refused(desk, 1) == [OutcomeKind.PERMANENT]


def test_refusal_while_the_credentials_are_refused() -> None:
    """It is its order's affair, and counts; it does not probe."""
    desk = Desk(rules=DeliveryPolicy(park_limit=1))
    desk.offer("a", "b", "c")
    turns = [desk.begin() for _ in range(3)]
    desk.end(turns[0], UNAUTHORIZED)
    assert desk.end(turns[1], REFUSED).kind is OutcomeKind.PERMANENT
    assert desk.end(turns[2], REFUSED).kind is OutcomeKind.CREDENTIALS


@pytest.mark.parametrize("outcome", [UNAUTHORIZED, FORBIDDEN])
def test_answer_to_outdated_credentials(outcome: Outcome) -> None:
    """It pauses nothing, counts for nothing, and the order waits as it is; any other answer is taken as ever."""
    desk = Desk(rules=DeliveryPolicy(forbidden_orders=1))
    desk.offer("a", "b")
    turns = [desk.begin(), desk.begin()]
    left = desk.queue.end(turns[0], outcome, desk.now, 0.5, is_outdated=True)
    assert left == Outcome(OutcomeKind.CREDENTIALS, outcome.reason, outcome.status)
    assert desk.queue.pause is None
    assert desk.queue.end(turns[1], CONFLICT, desk.now, 0.5, is_outdated=True) == CONFLICT
    desk.paused_by(outcome)


# --- pace ----------------------------------------------------------------------------------------------------------


def test_retry_after_holds_the_account() -> None:
    """For just so long, and the longer one counts; a pause ends no hold."""
    desk = Desk()
    for wait_s in (60.0, 5.0):
        desk.offer("a")
        turn = Turn("a", desk.owner, has_failed=False)
        desk.queue.begin(turn, desk.now)
        desk.end(turn, Outcome(OutcomeKind.REJECTED, "429", 429, wait_s, throttles_account=True))
    assert desk.queue.opens_at(desk.now) == desk.now + 60.0
    assert not desk.queue.is_slow


def test_busy_provider_slows_the_account_down() -> None:
    """It waits, longer each time, never for long; half of the slots are left each time."""
    desk = Desk()
    waits, slots = [], []
    for _ in range(12):
        desk.offer(*(f"o{number}" for number in range(40)))
        turns = []
        while desk.is_open():
            turns.append(desk.begin())
        slots.append(len(turns))
        for turn in turns:
            desk.end(turn, BUSY)
        waits.append(desk.queue.throttled_until - desk.now)
        desk.now = desk.queue.throttled_until
    assert slots[:6] == [32, 16, 8, 4, 2, 1]
    assert waits[:3] == pytest.approx([0.3, 0.5, 0.9])
    assert waits == sorted(waits)
    assert max(waits) == SLOW_MAX_S
    assert desk.queue.is_slow


def test_slots_come_back_while_orders_are_taken() -> None:
    """By a second's step at most with each order, all of them within half a minute."""
    desk = Desk()
    desk.offer(*(f"o{number}" for number in range(1_000)))
    for _ in range(6):
        desk.tell(BUSY)
        desk.now = max(desk.now, desk.queue.throttled_until)
    slots: list[int] = []
    seconds = 0
    while not slots or slots[-1] < 32:
        turns = []
        while desk.is_open():
            turns.append(desk.begin())
        slots.append(len(turns))
        desk.now += 1.0
        seconds += 1
        for turn in turns:
            desk.end(turn)
    assert slots[:5] == [1, 2, 3, 4, 6]
    assert seconds < 30


def test_busy_provider_is_tried_evenly() -> None:
    """A provider that takes 20 a second, and at most 20 at once: most of what it can take, few refusals."""
    desk = Desk()
    desk.offer(*(f"o{number}" for number in range(3_000)))
    tokens, at, taken, refused = 20.0, desk.now, 0, 0
    began = desk.now
    while desk.now < began + 60.0:
        desk.now = max(desk.now, desk.queue.opens_at(desk.now))
        turns = []
        while desk.is_open():
            turns.append(desk.begin())
        desk.now += 0.05
        tokens, at = min(20.0, tokens + 20.0 * (desk.now - at)), desk.now
        for turn in turns:
            is_taken = tokens >= 1.0
            tokens -= is_taken
            taken, refused = taken + is_taken, refused + (not is_taken)
            desk.end(turn, TAKEN if is_taken else BUSY)
            if not is_taken:
                desk.offer(turn.subject, has_failed=True, in_s=0.3)
    assert taken > 0.8 * 20 * 60
    assert refused < 0.25 * taken


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.01, 0.9, 1.0), (0.03, 0.85, 1.0), (0.1, 0.7, 1.0), (1.0, 0.0, 0.05)]
)
def test_a_busy_answer_now_and_then(share: float, least: float, most: float) -> None:
    """A provider that answers some requests by chance with 503 is asked nearly as often as one that does not; one that
    answers all of them so, hardly ever.
    """
    desk = Desk(16)
    desk.offer(*(f"o{number}" for number in range(2_000)))
    chance, began, asked = Random(1), desk.now, 0
    while desk.now < began + 60.0:
        desk.now = max(desk.now, desk.queue.opens_at(desk.now))
        turns = []
        while desk.is_open():
            turns.append(desk.begin())
        asked += len(turns)
        desk.now += 0.5
        for turn in turns:
            desk.end(turn, BUSY if chance.random() < share else TAKEN)
    assert least < asked / (16 * 60 / 0.5) < most


# --- after an outage -----------------------------------------------------------------------------------------------


def _after_an_outage(slots: int = 32) -> Desk:
    """Orders wait for the end of their backoffs, minutes away; the first that is tried is taken."""
    desk = Desk(slots)
    desk.offer("x0", "x1", "x2", "x3")
    desk.tell()
    for _ in range(3):
        desk.tell(BROKEN)
    desk.now += DOWN_S
    desk.offer(*(f"late{number:02}" for number in range(60)), has_failed=True, in_s=250.0)
    desk.now += 1.0
    assert not desk.is_open()
    desk.offer("first")
    desk.tell()
    return desk


def _waves(desk: Desk, outcome: Callable[[str], Outcome] = lambda _: TAKEN) -> list[int]:
    """How many go at once, one wave after the other."""
    sizes = []
    while desk.is_open():
        turns = []
        while desk.is_open():
            turns.append(desk.begin())
        sizes.append(len(turns))
        for turn in turns:
            desk.end(turn, outcome(turn.subject))
    return sizes


def test_what_only_waits_for_a_backoff_goes_once_the_account_takes_orders_again() -> None:
    """Two, then twice as many each time: everything within a few round trips instead of minutes."""
    assert _waves(_after_an_outage()) == [2, 4, 8, 16, 30]


def test_backoffs_stay_when_the_first_that_goes_early_is_not_taken() -> None:
    """What was taken was no sign then."""
    desk = _after_an_outage()
    assert _waves(desk, lambda _: BROKEN) == [2]
    assert desk.queue.opens_at(desk.now) > desk.now + 200.0


def test_backoffs_stay_while_others_are_taken_all_the_time() -> None:
    """Orders that never get an answer are not tried more often because others do."""
    desk = Desk()
    desk.offer("hopeless", has_failed=True, in_s=100.0)
    desk.offer("first")
    desk.tell()
    desk.now += 1.0
    assert desk.tell(UNANSWERED)[0] == "hopeless"
    desk.offer("hopeless", has_failed=True, in_s=100.0)
    for number in range(200):
        desk.offer(f"good{number}")
        desk.offer(f"bad{number}")
        assert desk.tell()[0].startswith("good")
        desk.tell(UNANSWERED, 0.4)
    assert not desk.is_open()
    desk.now += 20.0
    assert desk.told() == ["hopeless"]


def test_early_is_not_before_the_shortest_backoff() -> None:
    """As early as chance might have had it."""
    desk = _after_an_outage()
    _waves(desk)
    desk.offer("again", has_failed=True, in_s=250.0)
    assert desk.queue.opens_at(desk.now) == pytest.approx(desk.now + RULES.retry_initial_s)


def test_pause_and_hold_keep_what_would_go_early() -> None:
    """Early is still after those."""
    desk = _after_an_outage()
    desk.offer("busy")
    desk.tell(Outcome(OutcomeKind.REJECTED, "503", 503, 30.0, throttles_account=True))
    assert desk.queue.opens_at(desk.now) == desk.now + 30.0
    desk.now += 30.0
    desk.offer("bad")
    desk.tell(UNAUTHORIZED)
    assert desk.queue.opens_at(desk.now) > desk.now + 200.0


# --- of all of it --------------------------------------------------------------------------------------------------

OUTCOMES = [TAKEN, UNANSWERED, BROKEN, REFUSED, UNAUTHORIZED, FORBIDDEN, CONFLICT, BUSY]


@given(
    slots=st.integers(1, 5),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.booleans(), st.sampled_from([0.0, 0.5, 60.0])),
            st.tuples(st.just("begin")),
            st.tuples(st.just("end"), st.sampled_from(OUTCOMES), st.integers(0, 4)),
            st.tuples(st.just("wait"), st.sampled_from([0.1, 5.0, 400.0])),
            st.tuples(st.just("resume")),
        ),
        max_size=80,
    ),
)
def test_every_offer_gets_its_turn(slots: int, steps: list[tuple[object, ...]]) -> None:
    """Whatever happens: never more at once than there are slots, one probe at a time, and once providers take orders
    again, all that was offered goes out within bounded time, each once.
    """
    desk = Desk(slots, DeliveryPolicy(park_limit=2, forbidden_orders=2))
    offered: list[str] = []
    gone: list[str] = []
    turns: list[Turn[object]] = []

    def begin() -> None:
        turn = desk.begin()
        gone.append(turn.subject)
        turns.append(turn)

    for step in steps:
        match step:
            case ("offer", bool(has_failed), float(in_s)):
                offered.append(f"o{len(offered)}")
                desk.offer(offered[-1], has_failed=has_failed, in_s=in_s)
            case ("begin",) if desk.is_open():
                begin()
            case ("end", Outcome() as outcome, int(which)) if turns:
                desk.end(turns.pop(which % len(turns)), outcome)
            case ("wait", float(seconds)):
                desk.now += seconds
            case ("resume",):
                desk.queue.resume()
            case _:
                pass
        assert desk.queue.in_flight == len(turns) <= slots
        assert sum(turn.probes is not None and turn.probes is desk.queue.pause for turn in turns) <= 1
    for turn in turns:
        desk.end(turn)
    turns.clear()
    end = desk.now + 2_000.0
    while (at := desk.queue.opens_at(desk.now)) != NEVER:
        desk.now = max(at, desk.now)
        begin()
        desk.end(turns.pop())
    assert desk.now <= end
    assert sorted(gone) == sorted(offered)
    assert len(desk.queue) == desk.queue.in_flight == 0
