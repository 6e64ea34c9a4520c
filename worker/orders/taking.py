"""Events go from the inbox into batches: into that of the transaction in the making, and ahead of it into the next one.

Rule: a batch ahead is a guess. It is begun while a transaction is committed, over what that one has changed, and its
events stay in the inbox. Nobody knows of it but this file, so it may be dropped at any time: whatever comes in between
(a failed commit, a drain, a halt, an operator who moves the position), its events are taken anew, or by the next owner.
"""

from collections.abc import Callable

from worker.core.outbox import Outbox
from worker.orders.batch import EVENTS_AT_ONCE, EVENTS_AT_ONCE_BYTES, Batch
from worker.orders.context import OrderContext
from worker.ownership.context import Slice
from worker.ownership.inbox import Inbox, Peek
from worker.ports import OrderTable


class Taking:
    """Of one partition."""

    def __init__(
        self, context: OrderContext, orders: OrderTable, outbox: Outbox, make_batch: Callable[..., Batch]
    ) -> None:
        """`make_batch`: as `OrderWorkload.make_batch`."""
        self.ahead: Batch | None = None
        """What the next transaction may begin with."""
        self._ahead_of: Peek | None = None
        """The inbox behind what is in it."""
        self._context = context
        self._orders = orders
        self._outbox = outbox
        self._make_batch = make_batch
        self._left = 0
        """Events that still go into the transaction in the making."""

    def begin(self, next_offset: int, inbox: Inbox | None) -> Batch:
        """The next transaction: what is ahead, if that is of this inbox (`None`: it is not wanted), or nothing yet."""
        ahead, events = self.ahead, self._ahead_of
        self.ahead = self._ahead_of = None
        self._left = self._context.limits.batch_records_max
        if inbox is None or ahead is None or events is None:
            return self._make_batch(next_offset)
        ahead.go_on()
        inbox.drop(events.taken)
        self._left -= events.taken
        return ahead

    async def take(self, batch: Batch, inbox: Inbox, work: Slice) -> None:
        """As many as one transaction is to have."""
        await self._take(batch, inbox, work, self._outbox.is_in_flight, self._left)

    async def take_ahead(self, batch: Batch, inbox: Inbox) -> None:
        """As `Workload.work_ahead`: as many as one transaction is to have."""
        if batch.gone or batch.accounts:
            return  # rare, and read from elsewhere than from the orders' records

        def in_flight(subject: str) -> bool:
            return subject not in batch.holds and self._outbox.is_in_flight(subject)

        limits = self._context.limits
        self.ahead = ahead = self._make_batch(batch.next_offset, under=batch.changed)
        self._ahead_of = events = Peek(inbox)
        work = Slice(self._context, limits.ahead_slice_s)
        try:
            await self._take(ahead, events, work, in_flight, limits.batch_records_max)
        except Exception:  # noqa: BLE001 - whatever it is, it comes up again when they are taken
            self.ahead = None

    async def _take(
        self, batch: Batch, inbox: Inbox | Peek, work: Slice, in_flight: Callable[[str], bool], left: int
    ) -> None:
        """So many, until the batch is large enough, and no longer than `batch_s`."""
        context, limits = self._context, self._context.limits
        began, bytes_max = context.clock.now(), limits.batch_bytes_max
        while inbox and left > 0 and batch.size < bytes_max:
            records = inbox.first(min(EVENTS_AT_ONCE, left), EVENTS_AT_ONCE_BYTES)
            await self._orders.fetch(batch.look_ahead(records))
            done = batch.events(records, in_flight, min(batch.size + EVENTS_AT_ONCE_BYTES, bytes_max))
            inbox.drop(done)
            left -= done
            if work.is_over():
                if context.clock.now() - began > limits.batch_s:
                    break
                await work.pause()
