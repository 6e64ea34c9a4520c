"""What one transaction of orders has brought, for the log and the metrics."""

from typing import TYPE_CHECKING

import structlog
from msgspec import Struct, field

from schemas.base import DeadLetterReason
from schemas.state import OrderRecord
from worker.core.record import newest_event
from worker.metrics import EventResult
from worker.model.order import account_of
from worker.orders.context import OrderContext
from worker.ownership.context import Slice

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = structlog.get_logger(__name__)

_LOOKALIKE_EVERY_S = 60.0
_AT_ONCE = 16
"""So many lines are written without a look at the clock."""
_WARNINGS = frozenset(
    (
        *("order_parked", "order_held", "order_key_changed", "order_overdue_at_provider", "order_was_closed"),
        *("event_refused", "result_dropped"),
    )
)


class Happened(Struct):
    """Counted and noted while the transaction is made, said once it is committed."""

    events: dict[EventResult, int] = field(default_factory=lambda: {"changed": 0, "unchanged": 0, "skipped": 0})
    lookalikes: list[str] = []
    """Types of events that were skipped, where somebody may believe that we read them."""
    refused: list[DeadLetterReason] = []
    """Why records were, each of them."""
    coalesced: int = 0
    key_changes: int = 0
    by_origin: list[str] = []
    """Accounts of the orders that need not be told, because of where the change was made."""
    unconfigured: list[str] = []
    """New orders of accounts that nobody has configured."""
    notes: list[tuple[str, dict[str, object]]] = []
    """Lines of the log: the event's name, and its fields."""
    tracing: "Tracing | None" = None

    def note(self, name: str, subject: str, revision: int, event_id: str, **fields: object) -> None:
        """One line of the log."""
        self.notes.append((name, {"order": subject, "revision": revision, "event_id": event_id, **fields}))

    def note_of(self, name: str, subject: str, record: OrderRecord, **fields: object) -> None:
        """One about a record that still has its facts."""
        self.notes.append(self.line_of(name, subject, record, **fields))

    def line_of(self, name: str, subject: str, record: OrderRecord, **fields: object) -> tuple[str, dict[str, object]]:
        """The same, of something that is not certain yet."""
        about = {"order": subject, "revision": record.revision, "event_id": newest_event(record)}
        return name, {**about, **fields, **self.trace(record.trace)}

    def trace(self, traceparent: str | None) -> dict[str, object]:
        """What a line of the log says of the trace that an order's newest event belongs to."""
        trace_id = "" if self.tracing is None else self.tracing.id_of(traceparent)
        return {"trace_id": trace_id} if trace_id else {}

    async def announce(self, context: OrderContext, partition: int, *, results: int, gone: int) -> None:
        """Says what has changed, now that it is so: one line per change of an order, no personal datum in it."""
        metrics = context.metrics
        self.events["skipped"] -= len(self.lookalikes)
        self.events["lookalike"] = len(self.lookalikes)
        for result, count in self.events.items():
            metrics.event(result, count)
        for reason in self.refused:
            metrics.dead_letter(reason)
        metrics.coalesced(self.coalesced)
        metrics.keys_changed(self.key_changes)
        for account in self.by_origin:
            metrics.acknowledged_by_origin(account)
        self._announce_lookalikes(context, partition)
        for subject in self.unconfigured:
            context.warn_unconfigured(account_of(subject), partition)
        metrics.results(results)
        metrics.orders_closed(gone)
        work = Slice(context)
        bound = log.bind()  # once: `log` looks up what it stands for with every line
        for count, (name, fields) in enumerate(self.notes):
            if count % _AT_ONCE == 0 and work.is_over():
                await work.pause()
            needs_somebody = name in _WARNINGS or fields.get("status") == "inconsistent"
            (bound.warning if needs_somebody else bound.info)(name, partition=partition, **fields)

    def _announce_lookalikes(self, context: OrderContext, partition: int) -> None:
        """Somebody may believe that these are read; once in a while is enough."""
        count, now = len(self.lookalikes), context.clock.now()
        if count and now - context.lookalikes_logged_at >= _LOOKALIKE_EVERY_S:
            context.lookalikes_logged_at = now
            log.warning(
                "events_skipped", partition=partition, count=count, type=self.lookalikes[-1], expected="order.*"
            )
