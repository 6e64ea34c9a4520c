"""The orders that an outbox has in hand, and when each is to be evaluated."""

import heapq
from collections.abc import Mapping

from msgspec import Struct

from worker.core.plan import Send

NEVER = float("inf")
_HEAP_SLACK = 1_000


class Entry(Struct):
    """An order that is owed, held, or in flight."""

    revision: int
    owed_since_ms: int
    due: float
    """When to evaluate it; infinity: when something happens."""
    hold_until: float = 0.0
    """Until then the last request may still land."""
    not_before: float = 0.0
    """When it may be sent: its delay and its hold are over."""
    not_before_ms: int = 0
    """The end of its delay, as its record has it; 0: there is none."""
    delay_until: float = 0.0
    """The same, by our clock."""
    has_failed: bool = False
    """Its last attempt has failed: those that have not go first."""
    awaits_change: bool = False
    """A job sends it, or a change of it makes it another matter."""
    may_go_early: bool = False
    """Its account may decide that the delay has become pointless; never the hold."""
    in_flight: bool = False
    claimed: int = 0
    """The revision of its last attempt; 0: there was none under this owner."""
    has_ended: bool = False
    """The outcome of its attempt is what is committed next."""
    was_tried: bool = False
    """The newest that was committed of it is the outcome of an attempt with this revision."""
    is_only_heard_of: bool = False
    """There is nothing to tell: it is to be asked about."""
    queued: bool = False
    """Offered to the publisher, which will claim it when its turn comes."""
    is_queued_behind: bool = False
    """It was offered behind those that have something to tell."""
    waiting: str = ""
    """Why nothing can be sent, for the figures; empty: it can."""
    is_overdue: bool = False
    """Unconfirmed or inconsistent for longer than it may."""
    waiting_since_ms: int = 0
    """Since when it waits for that, as its record has it; 0: it was not evaluated yet."""
    overdue_at: float = 0.0
    """When it does so for too long, by our clock: the one that set the moment may have been wrong."""
    needs_reading: bool = False
    """Its record says more than that it is owed, or it was offered without being read: the next evaluation reads it."""
    prepared: Send | None = None
    """The plan for `revision`, kept so that it need not be made twice when the order is claimed at once."""
    announce_at: float = NEVER
    """When it is announced as owed, should it still be so then."""


class Appointments:
    """When entries are to be evaluated: each has one appointment at most, and it is in `due`. Making one costs
    O(log n).
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        """`entries`: by subject, as they are at any time. Whoever takes one out of them leaves its appointment void."""
        self._entries = entries
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        """Appointments that are kept, void ones included."""
        return len(self._heap)

    def make(self, subject: str, entry: Entry, due: float) -> None:
        """Evaluates the order again at `due`; an earlier appointment is void."""
        if due == entry.due:
            return
        entry.due = due
        if due != NEVER:
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, subject))
        if len(self._heap) > 2 * len(self._entries) + _HEAP_SLACK:
            self._purge()

    def _purge(self) -> None:
        """Forgets void appointments: there must not be more of them than there are orders, however many events come."""
        kept = [item for item in self._heap if (entry := self._entries.get(item[2])) and entry.due == item[0]]
        heapq.heapify(kept)
        self._heap = kept

    def next_due(self) -> float:
        """When the next order is to be evaluated; void appointments before it are dropped."""
        while self._heap:
            due, _, subject = self._heap[0]
            entry = self._entries.get(subject)
            if entry is not None and entry.due == due:
                if not entry.in_flight:
                    return due
                entry.due = NEVER  # its outcome will make another one
            heapq.heappop(self._heap)
        return NEVER

    def pop(self) -> tuple[str, Entry]:
        """Takes out the appointment that `next_due` has found."""
        _, _, subject = heapq.heappop(self._heap)
        entry = self._entries[subject]
        entry.due = NEVER
        return subject, entry
