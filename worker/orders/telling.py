"""What one transaction tells other systems of its orders; nothing where no results are wanted."""

from schemas.base import time_text
from schemas.events import OrderEvent
from schemas.state import Operated, OrderRecord
from schemas.views import Status
from worker.core.intake import shown_id
from worker.core.order import Shown
from worker.core.plan import Wait
from worker.core.provider_facts import TYPES
from worker.core.record import may_change
from worker.core.results import (
    LEAN_BYTES,
    Found,
    find,
    find_ready,
    find_waiting,
    pass_over,
    tell,
    tell_fact,
    tell_operated,
)
from worker.core.status import is_only_shown, is_parked
from worker.model.order import account_of
from worker.model.provider import Destination
from worker.orders.context import OrderContext
from worker.ownership.workload import Sizes


class Telling:
    """Results, each if it is news; then the order's record says that it was told. They change the record itself, and
    are `None` when there is nothing to tell.
    """

    def __init__(self, context: OrderContext, sizes: Sizes, now_ms: int) -> None:
        self.max_bytes = min(sizes.result, LEAN_BYTES) if sizes.lean_results else sizes.result
        self._context = context
        self.set_time(now_ms)

    def set_time(self, now_ms: int) -> None:
        """What is told from here on happens then."""
        self._now_ms = now_ms
        self._time = ""
        """The same, as results have it."""

    def of_event(self, event: OrderEvent, before: OrderRecord, after: OrderRecord) -> list[bytes | None]:
        """What others are told because of an event after which nobody looks at the order: how it stands. And what its
        provider says, in any case.
        """
        reporting = self._context.reporting
        if reporting is None or not (after.acked == after.revision or type(event.data) in TYPES):
            return []
        if type(event.data) not in TYPES and not may_change(event):
            pass_over(before, after)
            return []
        told = [tell_fact(event, after.revision, reporting, max_bytes=self.max_bytes)]
        if after.acked == after.revision or is_parked(after):
            told.append(self.of(event.subject, after))
        return told

    def of(self, subject: str, record: OrderRecord, found: Found | None = None) -> bytes | None:
        """As its facts say that it stands; of one that was only observed, or paid for, nobody is told. `found`: that,
        where it is known already.
        """
        if self._context.reporting is None or is_only_shown(record):
            return None
        return self._tell(subject, record, found or self.find(subject, record))

    def find(self, subject: str, record: OrderRecord) -> Found:
        """How it stands, by its facts."""
        return find(record, subject, self._destination(subject), now_ms=self._now_ms, rules=self._context.rules)

    def of_operated(
        self,
        event: OrderEvent,
        deed: Operated,
        *,
        partition: int,
        position: int,
        record: OrderRecord | None,
        status: Status | None,
    ) -> bytes | None:
        """What an operator did, and how it stands since. `record`: `None` for an account, and for an unknown order."""
        reporting = self._context.reporting
        if reporting is None:
            return None
        self._time = self._time or time_text(self._now_ms * 1000)
        return tell_operated(
            event,
            deed,
            reporting,
            partition=partition,
            position=position,
            time=self._time,
            event_id=shown_id(event.id, event.uid),
            record=record,
            status=status,
        )

    def of_ready(self, subject: str, record: OrderRecord, shown: Shown | None) -> bytes | None:
        """Of one that is known to be ready."""
        if self._context.reporting is None:
            return None
        return self._tell(subject, record, find_ready(record, shown, self._destination(subject)))

    def of_waiting(self, subject: str, record: OrderRecord, plan: Wait, *, is_overdue: bool) -> bytes | None:
        """Of one that was looked at, and waits. `is_overdue`: for too long."""
        if self._context.reporting is None:
            return None
        found = find_waiting(record, subject, plan, self._destination(subject), is_overdue=is_overdue)
        return self._tell(subject, record, found)

    def _destination(self, subject: str) -> Destination | None:
        return self._context.destinations.get(account_of(subject))

    def _tell(self, subject: str, record: OrderRecord, found: Found) -> bytes | None:
        reporting = self._context.reporting
        assert reporting is not None  # who calls has looked
        self._time = self._time or time_text(self._now_ms * 1000)
        return tell(record, subject, found, reporting, time=self._time, max_bytes=self.max_bytes)
