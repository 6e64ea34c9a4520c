"""What all owners of a worker share."""

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from schemas.state import Deployment, NextRecord
from worker.core.policy import DeliveryPolicy
from worker.metrics import Metrics
from worker.ports import Clock, EventLog


class BatchLimits(Struct, frozen=True):
    """How much is done at once, and how often."""

    commit_interval_s: float = 0.05
    """A busy partition commits at most this often, unless a whole batch waits; an idle one at once."""
    commits_per_s: float = 40.0
    """Over all partitions of a worker: transactions cost the brokers, so batches grow with the load instead."""
    batch_records_max: int = 5_000
    """Events in one transaction."""
    batch_bytes_max: int = 8 * 2**20
    """What the records of one transaction may come to before the next one is begun; the mail has as much besides, where
    events were worked out ahead.
    """
    batch_s: float = 1.0
    """For how long events are taken into one transaction."""
    inbox_records_max: int = 10_000
    """Events waiting in one partition before its input is paused."""
    inbox_bytes_max: int = 32 * 2**20
    """The same in bytes."""
    prepared_max: int = 256
    """Rendered updates kept until a lane takes them; beyond, they are rendered again."""
    slice_s: float = 0.003
    """For how long anything is worked at before others get the loop. All that is worked at in slices shares it."""
    ahead_slice_s: float = 0.002
    """The same of what is done while a transaction is committed: that takes many turns of the loop."""
    evaluate_s: float = 0.1
    """For how long orders are evaluated between two transactions; the next turn goes on with the rest."""
    announce_after_s: float = 5.0
    """An order that is settled within this time is not told to others as owed: they would hear twice as much."""
    idle_commit_s: float = 6 * 3600.0
    """Brokers forget a producer that is idle for a day."""


class Context(Struct, kw_only=True):
    """The worker, as an owner sees it."""

    owner_id: str
    version: str
    rules: DeliveryPolicy
    limits: BatchLimits
    clock: Clock
    events: EventLog
    metrics: Metrics
    event_topic: str = "orders.events"
    topic_epoch: int = 0
    start_latest: bool = False
    deployment: Deployment = Deployment()
    """Ours, with what the brokers said of the topics when the worker started."""
    adopt_state: bool = False
    """Goes on with a state that another deployment has written."""
    former: Sequence[Deployment] = ()
    """Those that the state was taken over from: their owners are fenced, too."""
    partitions: int = 1
    """Partitions of ours, now: they share `commits_per_s`."""
    pausing: int = 0
    """Works in slices that let others have the loop just now."""

    def commit_interval_s(self) -> float:
        """The shortest time between two transactions of one busy partition."""
        return max(self.limits.commit_interval_s, self.partitions / self.limits.commits_per_s)


class Slice:
    """What one may do at a time: `if work.is_over(): await work.pause()` between two pieces of it.

    All that is worked at in slices goes on within one turn of the loop, one after the other: so each gets its share of
    a slice, or four partitions that are restored together would hold the loop for four.
    """

    def __init__(self, context: Context, slice_s: float | None = None) -> None:
        self._context = context
        self._now = context.clock.now
        self._slice_s = context.limits.slice_s if slice_s is None else slice_s
        self._until = self._now() + self._slice_s

    def is_over(self) -> bool:
        """Whether others are to get the loop."""
        return self._now() >= self._until

    async def pause(self) -> None:
        """Lets them have it."""
        context = self._context
        context.pausing += 1
        try:
            await asyncio.sleep(0)
        finally:
            sharing, context.pausing = context.pausing, context.pausing - 1
        self._until = self._now() + self._slice_s / sharing


class Warm(Struct):
    """What is left of a partition that was ours: a restore starts from here."""

    kept: Any
    """By its workload."""
    position: int
    """Up to here the state partition is in `kept`."""
    next: NextRecord | None
    left_at: float
    """*now*."""
