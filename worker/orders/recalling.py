"""What an owner of orders starts from: what this process has kept, or else what an earlier one has left on the disk."""

import asyncio

from msgspec import MsgspecError

from schemas import state
from worker.orders.context import OrderContext
from worker.orders.loading import Kept, kept_of
from worker.ownership.context import Warm
from worker.ports import OrderTables, Origin, Recalled


class Recalling:
    """Of all partitions of a worker."""

    def __init__(self, context: OrderContext, tables: OrderTables | None) -> None:
        """`tables`: on the disk; `None`: there is none."""
        self._context = context
        self._tables = tables
        self._closing: set[asyncio.Task[None]] = set()

    async def recall(self, partition: int, warm: Warm | None) -> Warm | None:
        """`warm`: what is left of the partition in this process; `None`: nothing."""
        if self._tables is None or (warm is not None and warm.kept.table.is_usable()):
            return warm
        context = self._context
        ours = context.deployment
        origin = Origin(partition, ours.cluster, ours.state_topic_id, context.topic_epoch)
        found = await self._tables.recall(origin)
        try:
            return _warm(found, context.clock.now())
        except MsgspecError as error:
            found.table.distrust(f"a record is none of ours: {error}")
        return _warm(await self._tables.recall(origin), context.clock.now())

    def forget(self, kept: Kept) -> None:
        """Nobody starts from this any more."""
        if self._tables is None:
            return
        closing = asyncio.create_task(kept.table.close(), name="close orders on disk")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _warm(found: Recalled, now: float) -> Warm:
    """Raises `MsgspecError`."""
    notes = found.notes
    following = state.decode_next(notes[state.NEXT_KEY]) if state.NEXT_KEY in notes else None
    return Warm(kept_of(found.table, notes), found.position, following, now)
