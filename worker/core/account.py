"""Whose turn it is at one merchant account, and when anything of it may go out at all.

Theory of operation. Partitions *offer* orders. There are so many slots (the account's concurrency); whoever has a free
one asks for the next *turn*, and tells how it ended. Six rules, so that no order and no bad hour costs the others more
than it must:

1. the longest owed goes first, but orders that failed before take at most half of the slots while others wait; where
   there is one slot, at most every other turn and at most half of the time;
2. `Retry-After` of a 429 or 503 throttles the account; without it the account slows down: a short break that grows, and
   half of the slots, which come back bit by bit while requests are taken; both times the share of the last answers
   that were such ones (as in DCTCP, RFC 8257), for one 503 among a hundred is noise;
3. a 401, or a 403 for different orders in a row, pauses it, and so does a wave of refusals for good, of which the last
   one is not parked. One order alone is not the account: its 403 delays it, and so does its 401 when others were taken
   since it paused the account;
4. a pause probes with one attempt after growing intervals; it ends when that is taken, or when an operator says so;
5. neither a probe nor a resume begins with an order that the pause is about, when there are others: these are *aside*;
6. when an account that took nothing takes an order again, those that only wait for the end of a backoff need not:
   first two at once, then one more with each that is taken, none after one that was not.

Values only: time and chance are arguments, `now` is seconds on the monotonic clock. A turn costs O(log n) of what is
offered, `withdraw` alone is linear.
"""

import heapq
from collections import deque
from typing import Generic, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from worker.core.policy import DeliveryPolicy
from worker.core.retry import backoff_s
from worker.model.exchange import Outcome, OutcomeKind, Refusal

NEVER = float("inf")
SLOW_MAX_S = 15.0
"""The longest break without `Retry-After`: after an outage the account must not stay idle for long."""
DOWN_AFTER = 3
"""Attempts in a row that came to nothing, for so long that backoffs have grown: the account took nothing."""
DOWN_S = 10.0
_SUSPECTS_MAX = 1_000
_SHARE_OF = 32
"""Of about so many last answers it counts those that slow the account down."""

_TRANSIENT = frozenset({OutcomeKind.REJECTED, OutcomeKind.NOT_SENT, OutcomeKind.UNKNOWN})
_TAKEN = frozenset({OutcomeKind.APPLIED, OutcomeKind.PENDING, OutcomeKind.UNSUPPORTED})
"""The provider has answered as it should, where it was asked."""
_REFUSES_US = frozenset({OutcomeKind.CREDENTIALS, OutcomeKind.FORBIDDEN})

Cause = Literal["credentials", "refusals"]
_Owner = TypeVar("_Owner")
_Offer = tuple[int, int, str, _Owner]
"""Owed since, a number that makes it unique, subject, who offers it."""


class Turn(Struct, Generic[_Owner], eq=False):
    """One order whose turn it is."""

    subject: str
    owner: _Owner
    has_failed: bool
    is_early: bool = False
    """Before the end of its backoff."""
    probes: "Pause | None" = None
    """The pause that it is to end."""
    began_at: float = 0.0


class Pause(Struct, eq=False):
    """Why an account sends nothing, and when it is tried again."""

    cause: Cause
    reason: str
    """May hold the provider's words: not for logs."""
    subject: str
    """The order that brought it about."""
    status: int | None
    probe_at: float
    """Infinity: nobody tries but an operator."""
    probes: int = 0
    """That came to nothing."""
    is_probing: bool = False


class AccountQueue(Generic[_Owner]):
    """The offers of one account, and what holds it up."""

    def __init__(self, slots: int, rules: DeliveryPolicy) -> None:
        self.in_flight = 0
        self.pause: Pause | None = None
        self.throttled_until = 0.0
        self.is_slow = False
        """What throttles it is not `Retry-After` but ours, for want of it."""
        self._slots = slots
        self._rules = rules
        self._count = 0
        self._fresh: list[_Offer[_Owner]] = []
        self._failed: list[_Offer[_Owner]] = []
        self._later: list[tuple[float, int, float, _Offer[_Owner]]] = []
        """When its backoff is over, a unique number, when it may go early, the offer."""
        self._aside: deque[_Offer[_Owner]] = deque()
        self._blamed: set[str] = set()
        """Orders that the pause is about, until after a resume another one, or nobody else, has gone first."""
        self._failed_in_flight = 0
        self._is_next_fresh = False
        """One slot: the last turn was that of an order that had failed."""
        self._debt_s = 0.0
        """One slot: for how long the others may go yet until they have had as much time."""
        self._open_slots = float(slots)
        self._slowed_at = self._opened_at = -NEVER
        self._slow_in_a_row = 0
        self._slow_share = 0.0
        """Of its last answers, those that slow it down."""
        self._answers = 0
        """At most `_SHARE_OF`: the first ones are worth more, for there are no others."""
        self._forbidden: dict[str, None] = {}
        self._refused: dict[str, tuple[float, int]] = {}
        """Orders refused for good last, at most one more than `park_limit`: when, and how many it had taken by then."""
        self._taken = 0
        self._taken_at = -NEVER
        self._suspects: dict[str, int] = {}
        """Orders whose 401 paused the account, and how many orders it had taken then."""
        self._came_to_nothing = DOWN_AFTER
        """Attempts since one was taken; before the first one nobody knows what was."""
        self._early_slots = 0
        self._early_until = -NEVER
        self._early_in_flight = 0

    def __len__(self) -> int:
        """Orders that wait for their turn and for nothing else."""
        return len(self._fresh) + len(self._failed) + len(self._aside)

    # --- offers ---

    def offer(
        self,
        subject: str,
        owed_since_ms: int,
        owner: _Owner,
        now: float,
        *,
        has_failed: bool = False,
        not_before: float = 0.0,
    ) -> None:
        """Takes an order in that may be sent from `not_before` on, or earlier when rule 6 says so."""
        self._count += 1
        offer = (owed_since_ms, self._count, subject, owner)
        if subject in self._blamed:
            self._aside.append(offer)
        elif not_before > now:
            # As early as its backoff might have ended by chance, not earlier.
            heapq.heappush(self._later, (not_before, self._count, now + self._rules.retry_initial_s, offer))
        else:
            heapq.heappush(self._failed if has_failed else self._fresh, offer)

    def withdraw(self, owner: _Owner) -> None:
        """Forgets all offers of this owner."""
        for offers in (self._fresh, self._failed):
            kept = [offer for offer in offers if offer[3] is not owner]
            if len(kept) < len(offers):
                heapq.heapify(kept)
                offers[:] = kept
        later = [item for item in self._later if item[3][3] is not owner]
        if len(later) < len(self._later):
            heapq.heapify(later)
            self._later = later
        self._aside = deque(offer for offer in self._aside if offer[3] is not owner)

    # --- turns ---

    def opens_at(self, now: float) -> float:
        """When the next turn may begin; now or earlier: at once. Infinity: not before something happens."""
        if self.in_flight >= int(self._open_slots):
            return NEVER
        at = self.throttled_until
        pause = self.pause
        if pause is not None:
            if pause.is_probing:
                return NEVER
            at = max(at, pause.probe_at)
        if self._fresh or self._failed or self._aside:
            return at
        if not self._later:
            return NEVER
        not_before, _, early_at, _ = self._later[0]
        return max(at, early_at if self._may_go_early(now) else not_before)

    def _may_go_early(self, now: float) -> bool:
        return self._early_in_flight < self._early_slots and now < self._early_until and self.pause is None

    def next(self, now: float) -> Turn[_Owner] | None:
        """Takes the next offer out; `None` when nothing may go now. Costs nothing until `begin`."""
        if self.opens_at(now) > now:
            return None
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._failed, heapq.heappop(self._later)[3])
        if self._fresh or self._failed:
            has_failed = not self._fresh or (bool(self._failed) and self._failed_goes_first())
            _, _, subject, owner = heapq.heappop(self._failed if has_failed else self._fresh)
            return Turn(subject, owner, has_failed)
        if self._aside:
            _, _, subject, owner = self._aside.popleft()
            return Turn(subject, owner, has_failed=True)
        _, _, subject, owner = heapq.heappop(self._later)[3]
        return Turn(subject, owner, has_failed=True, is_early=True)

    def _failed_goes_first(self) -> bool:
        """Of an order that has failed and one that has not: the failed one has been owed for longer, and its like do
        not have their share yet.
        """
        if self.pause is not None or self._failed[0] > self._fresh[0]:
            return False
        slots = int(self._open_slots)
        if slots > 1:
            return self._failed_in_flight < slots // 2
        return not self._is_next_fresh and self._debt_s <= 0.0

    def begin(self, turn: Turn[_Owner], now: float) -> None:
        """An attempt begins; `end` must follow."""
        turn.began_at = now
        self.in_flight += 1
        self._failed_in_flight += turn.has_failed
        self._early_in_flight += turn.is_early
        self._is_next_fresh = turn.has_failed
        if self.pause is not None:
            turn.probes = self.pause
            self.pause.is_probing = True
        elif self._blamed:
            self._blamed.clear()
            for offer in self._aside:
                heapq.heappush(self._failed, offer)
            self._aside.clear()

    def end(
        self, turn: Turn[_Owner], outcome: Outcome, now: float, chance: float, *, is_outdated: bool = False
    ) -> Outcome:
        """An attempt has ended. What it means for the order: an outcome that pauses the account is none of its own.
        `is_outdated`: it was made with credentials that have changed since.
        """
        self.in_flight -= 1
        self._failed_in_flight -= turn.has_failed
        self._early_in_flight -= turn.is_early
        took_s = now - turn.began_at
        self._debt_s = took_s if turn.has_failed else max(0.0, self._debt_s - took_s)
        if turn.probes is not None:
            turn.probes.is_probing = False
        answer = outcome.kind
        if is_outdated and answer in _REFUSES_US:
            outcome = replace(outcome, kind=OutcomeKind.CREDENTIALS)  # it is tried with the new ones
        else:
            outcome = self._judge(turn.subject, outcome, now)
        was_asked = outcome.has_response or answer not in _TAKEN
        is_taken = answer in _TAKEN and was_asked
        if is_taken:
            self._take(turn, now)
        elif answer in _TRANSIENT:
            self._came_to_nothing += 1
        if self._came_to_nothing >= DOWN_AFTER or (turn.is_early and was_asked and not is_taken):
            self._early_slots = 0
        if outcome.has_response:
            self._answers = min(self._answers + 1, _SHARE_OF)
            self._slow_share += (outcome.throttles_account - self._slow_share) / self._answers
        if outcome.throttles_account:
            self._slow_down(turn, outcome, now, chance)
        if turn.probes is not None and turn.probes is self.pause and was_asked:
            self._follow_probe(turn.probes, turn.subject, outcome, answer, now)
        return outcome

    # --- pauses ---

    def resume(self) -> bool:
        """Ends a pause, but not what throttles it; the account's counts start anew. False: there was none."""
        if self.pause is None:
            return False
        self.pause = None
        self._forbidden.clear()
        self._refused.clear()
        return True

    def _judge(self, subject: str, outcome: Outcome, now: float) -> Outcome:
        """What an answer says of the account, and what is left of it for the order."""
        if outcome.kind is OutcomeKind.APPLIED:
            return outcome
        match outcome.kind:
            case OutcomeKind.CREDENTIALS:
                if self.pause is None and self._suspects.get(subject, self._taken) < self._taken:
                    return self._judge_forbidden(subject, replace(outcome, kind=OutcomeKind.FORBIDDEN), now)
                if self.pause is None:
                    self._suspects[subject] = self._taken
                    if len(self._suspects) > _SUSPECTS_MAX:
                        del self._suspects[next(iter(self._suspects))]
                return self._pause("credentials", subject, outcome, outcome.reason, now)
            case OutcomeKind.FORBIDDEN:
                return self._judge_forbidden(subject, outcome, now)
            case OutcomeKind.PERMANENT:
                self._forbidden.clear()
                return self._judge_refusal(subject, outcome, now)
            case OutcomeKind.CONFLICT | OutcomeKind.NOT_FOUND:
                self._forbidden.clear()
            case _:
                pass
        return outcome

    def _judge_forbidden(self, subject: str, outcome: Outcome, now: float) -> Outcome:
        self._forbidden[subject] = None
        if self.pause is None and len(self._forbidden) < self._rules.forbidden_orders:
            return outcome
        return self._pause("credentials", subject, outcome, outcome.reason, now)

    def _judge_refusal(self, subject: str, outcome: Outcome, now: float) -> Outcome:
        rules, refused = self._rules, self._refused
        if self.pause is None or self.pause.cause != "refusals":
            refused.pop(subject, None)
            refused[subject] = now, self._taken
            if len(refused) > rules.park_limit + 1:
                del refused[next(iter(refused))]
            first_at, taken = next(iter(refused.values()))
            # Where more are taken than refused meanwhile, it is about the orders: the others must not wait for them.
            is_wave = first_at > now - rules.park_within_s and self._taken - taken <= rules.park_limit
            if len(refused) <= rules.park_limit or not is_wave:
                return outcome
        limits = f"more than {rules.park_limit} orders were refused for good within {rules.park_within_s:g} s"
        return self._pause("refusals", subject, outcome, f"{limits}, the last one with {outcome.reason}", now)

    def _pause(self, cause: Cause, subject: str, outcome: Outcome, reason: str, now: float) -> Outcome:
        """The account pauses, or is paused already; the order waits as it is."""
        self._blamed.add(subject)
        if self.pause is None:
            self._forbidden.clear()
            self.pause = Pause(cause, reason, subject, outcome.status, now + self._interval_s(0))
        return replace(outcome, kind=OutcomeKind.CREDENTIALS)

    def _interval_s(self, probes: int) -> float:
        intervals = self._rules.account_probe_s
        return intervals[min(probes, len(intervals) - 1)] if intervals else NEVER

    def _follow_probe(self, pause: Pause, subject: str, outcome: Outcome, answer: OutcomeKind, now: float) -> None:
        # Who refuses an order for what is in it has let us in.
        has_let_in = pause.cause == "credentials" and outcome.refusal is Refusal.CONTENT
        if answer in _TAKEN or has_let_in:
            self.resume()
            return
        self._blamed.add(subject)
        pause.probes += 1
        pause.probe_at = now + self._interval_s(pause.probes)

    # --- pace ---

    def _slow_down(self, turn: Turn[_Owner], outcome: Outcome, now: float, chance: float) -> None:
        """Rule 2."""
        if outcome.retry_after_s:
            self._throttle(now + outcome.retry_after_s, is_slow=False)
        elif turn.began_at > self._slowed_at:  # those that were under way then say nothing new
            self._slow_in_a_row += 1
            half = min(self._open_slots, self.in_flight + 1) / 2
            self._open_slots = max(1.0, self._open_slots - (self._open_slots - half) * self._slow_share)
            self._slowed_at = self._opened_at = now
            wait_s = min(backoff_s(self._slow_in_a_row, chance, self._rules), SLOW_MAX_S)
            self._throttle(now + wait_s * self._slow_share, is_slow=True)

    def _throttle(self, until: float, *, is_slow: bool) -> None:
        if until > self.throttled_until:
            self.throttled_until, self.is_slow = until, is_slow

    def _take(self, turn: Turn[_Owner], now: float) -> None:
        """An order was taken: things may go faster."""
        was_down = self._came_to_nothing >= DOWN_AFTER and now - self._taken_at >= DOWN_S
        self._taken += 1
        self._taken_at = now
        self._came_to_nothing = self._slow_in_a_row = 0
        self._forbidden.clear()
        self._suspects.pop(turn.subject, None)
        if was_down:
            self._early_slots, self._early_until = 2, now + self._rules.retry_max_s
        elif turn.is_early and self._early_slots:
            self._early_slots = min(self._early_slots + 1, self._slots)
        if self._open_slots < self._slots:
            step = max(1.0, self._open_slots / 2) * min(1.0, now - self._opened_at)
            self._open_slots = min(float(self._slots), self._open_slots + step)
            self._opened_at = now
