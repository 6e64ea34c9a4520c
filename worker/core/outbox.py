"""What is owed to a provider, and when it may be told.

Theory of operation. An order's record holds two revisions: `revision`, of its facts, and `acked`, the newest that the
provider is known to have taken. While they differ the order is *owed*, so the state topic itself is the outbox and
nothing can be forgotten: who reads the topic knows what is owed. A revision is not a message waiting in a queue. When
an order's turn comes, its payload is rendered from the facts as they are then; whatever happened meanwhile is in it,
and what was overtaken is never sent.

Four rules keep the provider from ending up with something old, though it would take any request at any time:

1. one attempt in flight per order, from the moment it is taken until its outcome is committed;
2. after an attempt whose outcome is unknown the order is *held*: its request may still land, so nothing is sent until
   it must have (`settle`); `may_land_late` in the record tells the next owner to do the same by its own clock;
3. while the provider may have something else than we last knew (`remote_unknown`), nothing is skipped as unchanged;
4. an owner that took over from one that did not leave in order holds everything that was owed (`inherit`).

What is told apart is the *digest*: of what comes from the order's facts. Counts, parking and suppression go by it, so
a new release or a changed setting makes no order of the past owed. A payload that was refused for good is *parked*
until its digest changes or an operator releases it.

Everything here is a value or a function of values; `Outbox` is an index of what is owed in memory, made anew from the
records at every restore. `now` is seconds on the monotonic clock, `now_ms` UTC; the first is never stored.
"""

import heapq
from collections.abc import Container

from msgspec import Struct

from schemas.state import OrderHeader
from worker.core.plan import Send
from worker.core.status import is_parked
from worker.model.order import account_of

NEVER = float("inf")


class Entry(Struct):
    """What the outbox knows of an order that is owed."""

    revision: int
    owed_since_ms: int
    due: float
    """When to look at it; infinity: when something happens."""
    hold_until: float = 0.0
    """Until then the last request may still land."""
    not_before: float = 0.0
    """When it may be sent: its delay and its hold are over."""
    not_before_ms: int = 0
    """The end of its delay, as its record has it; 0: there is none."""
    has_failed: bool = False
    """Its last attempt has failed: those that have not go first."""
    awaits_change: bool = False
    """A job tells it, or a change of it makes it another matter."""
    delay_until: float = 0.0
    """The same, by our clock."""
    may_go_early: bool = False
    """Its account may decide that the delay has become pointless; never the hold."""
    in_flight: bool = False
    queued: bool = False
    """Offered to the publisher, which will take it when its turn comes."""
    waiting: str = ""
    """Why nothing can be sent, for the figures; empty: it can."""
    is_overdue: bool = False
    """Unconfirmed or inconsistent for longer than it may."""
    waiting_since_ms: int = 0
    """Since when it waits for that, as its record has it; 0: it was not looked at yet."""
    overdue_at: float = 0.0
    """When it does so for too long, by our clock: the one that told the moment may have been wrong."""
    has_news: bool = False
    """Its record says more than that it is owed, or it was offered without a look: it is read at the next one."""
    prepared: Send | None = None
    """The plan for `revision`, kept so that it need not be made twice when the order is taken at once."""
    tell_at: float = NEVER
    """When others are to be told that it is owed, should it still be so then."""


_HEAP_SLACK = 1_000

NOT_OWED = frozenset({"unconfirmed", "on_hold", "refused", "inconsistent", "parked"})
"""What an order waits for that nobody can be told of."""


class Figures(Struct):
    """How many orders wait, and for what."""

    owed: int = 0
    held: int = 0
    parked: int = 0
    """Those included that are inconsistent for longer than they may be."""
    unconfirmed: int = 0
    inconsistent: int = 0
    overdue: int = 0
    """Of the two, those for longer than they may be."""
    owed_since_ms: int = 0
    """Since when the one is owed that is owed longest; 0: none is, or nobody would be told of it."""

    def add(self, other: "Figures") -> None:
        """Counts the others, too."""
        self.owed += other.owed
        self.held += other.held
        self.parked += other.parked
        self.unconfirmed += other.unconfirmed
        self.inconsistent += other.inconsistent
        self.overdue += other.overdue
        self.note_owed_since(other.owed_since_ms)

    def note_owed_since(self, since_ms: int) -> None:
        """One is owed since then; 0: that is not known."""
        if since_ms and not 0 < self.owed_since_ms <= since_ms:
            self.owed_since_ms = since_ms

    def oldest_s(self, now_ms: int) -> float:
        """For how long the one is owed that is owed longest."""
        return max(0.0, (now_ms - self.owed_since_ms) / 1000) if self.owed_since_ms else 0.0


UNCONFIGURED = ""
"""Stands for all accounts that nobody has configured: they may have any name."""


class Outbox:
    """The orders of one partition that are owed, and when each is to be looked at."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0

    def put(
        self,
        subject: str,
        header: OrderHeader,
        *,
        now: float,
        now_ms: int,
        hold_until: float = 0.0,
        delay_max_s: float,
        may_go_early: bool = False,
        has_failed: bool = False,
        awaits_change: bool = False,
    ) -> None:
        """Follows a committed record: it is to be looked at now, and if it is owed, sent not before its delay and
        hold are over.

        `delay_max_s` bounds a delay that was stored by a clock that was wrong. `may_go_early`: its account may end it.
        """
        entry = self.entries.get(subject)
        if entry is not None:
            hold_until = max(hold_until, entry.hold_until)
        if header.revision == header.acked and hold_until <= now:
            if entry is not None and not entry.in_flight:
                del self.entries[subject]
            elif entry is not None:
                entry.revision = header.revision
                entry.has_news = True
            return
        if entry is None:
            entry = self.entries[subject] = Entry(header.revision, header.owed_since_ms, NEVER)
            is_inconsistent = header.inconsistent_since_ms > 0
        else:
            is_inconsistent = False  # not known before it is looked at
        entry.revision = header.revision
        entry.owed_since_ms = header.owed_since_ms
        entry.prepared = None
        entry.has_news = header.revision == header.acked or header.inconsistent_since_ms > 0 or header.park is not None
        entry.hold_until = hold_until
        entry.is_overdue = False
        entry.waiting = "parked" if is_parked(header) else "unconfirmed" if header.unconfirmed_since_ms else ""
        if is_inconsistent:
            entry.waiting = "inconsistent"
        if header.not_before_ms != entry.not_before_ms:  # an event must not begin a bounded delay anew
            entry.not_before_ms = header.not_before_ms
            entry.delay_until = now + min(max(0, header.not_before_ms - now_ms) / 1000, delay_max_s)
        entry.may_go_early = may_go_early
        entry.has_failed = has_failed
        entry.awaits_change = awaits_change
        entry.not_before = max(now, entry.delay_until, entry.hold_until)
        self.schedule(subject, NEVER if entry.waiting == "parked" else now)

    def figures(self, accounts: Container[str], now: float) -> dict[str, Figures]:
        """By account of those configured, and `UNCONFIGURED`. What is owed to nobody has no age."""
        found: dict[str, Figures] = {}
        for subject, entry in self.entries.items():
            account = account_of(subject)
            if (count := found.get(account)) is None:
                account = account if account in accounts else UNCONFIGURED
                count = found.setdefault(account, Figures())
            waiting = entry.waiting
            if waiting not in NOT_OWED:
                count.owed += 1
                count.held += entry.hold_until > now
                if account and not entry.awaits_change:
                    count.note_owed_since(entry.owed_since_ms)
            elif waiting == "parked":
                count.parked += 1
            elif waiting == "unconfirmed":
                count.unconfirmed += 1
                count.overdue += entry.is_overdue
            elif waiting == "inconsistent":
                count.inconsistent += 1
                count.overdue += entry.is_overdue
                count.parked += entry.is_overdue
        return found

    def schedule(self, subject: str, due: float) -> None:
        """Looks at the order again at `due`; an earlier appointment is void."""
        entry = self.entries[subject]
        if due == entry.due:
            return
        entry.due = due
        if due != NEVER:
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, subject))
        if len(self._heap) > 2 * len(self.entries) + _HEAP_SLACK:
            self._purge()

    def _purge(self) -> None:
        """Forgets void appointments: there must not be more of them than there are orders, however many events come."""
        kept = [item for item in self._heap if (entry := self.entries.get(item[2])) and entry.due == item[0]]
        heapq.heapify(kept)
        self._heap = kept

    def next_due(self) -> float:
        """When there is something to look at; infinity: not before something happens."""
        while self._heap:
            due, _, subject = self._heap[0]
            entry = self.entries.get(subject)
            if entry is not None and entry.due == due:
                if not entry.in_flight:
                    return due
                entry.due = NEVER  # its outcome will make another one
            heapq.heappop(self._heap)
        return NEVER

    def pop_due(self, now: float) -> str | None:
        """The next order to look at, if any is due."""
        if self.next_due() > now:
            return None
        _, _, subject = heapq.heappop(self._heap)
        self.entries[subject].due = NEVER
        return subject
