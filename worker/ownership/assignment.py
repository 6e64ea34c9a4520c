"""The partitions of ours: which they are, what they are fed, and what happens when one is lost."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Generic

import structlog

from worker.errors import (
    CartsyncError,
    ConfigError,
    DamagedStateError,
    FencedError,
    GapError,
    InvariantError,
    LogError,
    SizeRefusedError,
    TopicError,
    UsageError,
)
from worker.ownership.belonging import identified, repartitioned, require_all
from worker.ownership.brokers import BrokerWatch
from worker.ownership.competing import CompetingOwners
from worker.ownership.context import Context, Warm
from worker.ownership.owner import HANDED_OVER, Lean, Owner
from worker.ownership.phase import Phase
from worker.ownership.settings import AssignmentSettings
from worker.ownership.workload import Host, WorkloadT
from worker.ports import StateLog

log = structlog.get_logger(__name__)


_SILENT_S = 5.0
"""Heartbeats are answered more often: who asks brokers that are silent for longer waits for nothing."""
_STABLE_AFTER_S = 60.0
"""After an ownership that lasted so long, the next attempt to acquire the partition is made soon again."""
_CANCELLED_AT_ONCE = frozenset({Phase.RESTORING, Phase.CLOSED, Phase.DAMAGED})
"""Owners in these phases have nothing to drain."""


Recall = Callable[[int, Warm | None], Awaitable[Warm | None]]


async def _as_kept(_partition: int, warm: Warm | None) -> Warm | None:
    return warm


class Assignment(Generic[WorkloadT]):
    """`ports.AssignmentListener`: keeps an owner for each partition that the group gives us."""

    def __init__(
        self,
        states: StateLog,
        context: Context,
        settings: AssignmentSettings,
        make_workload: Callable[[Host, Any], WorkloadT],
        fatal: Callable[[CartsyncError], None],
        recall: Recall = _as_kept,
        forget: Callable[[Any], None] = lambda _kept: None,
    ) -> None:
        """`make_workload` gets its owner, and what the last one in this process has kept, or `None`. `fatal` is called
        with what the worker cannot go on from. `recall`: what an owner of a partition starts from, given what is left
        of it in this process; never raises. `forget` is called with what a workload has kept and nobody starts from.
        """
        self.owners: dict[int, Owner[WorkloadT]] = {}
        self.polled_at = context.clock.now()
        self.was_assigned = False
        self._is_ending = False
        self._states = states
        self._context = context
        self._settings = settings
        self._make_workload = make_workload
        self._fatal = fatal
        self._recall = recall
        self._forget = forget
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """By partition of ours, what owns it, again and again if it must be."""
        self._releasing: set[asyncio.Task[None]] = set()
        """Owners that are draining: a stop also waits for those that a revoke has asked to."""
        self._warm: dict[int, Warm] = {}
        self._competing = CompetingOwners(context, settings, fatal)
        self._brokers = BrokerWatch(context, settings, fatal)
        self._unserved_since: dict[int, float] = {}
        """When a partition of ours came to us, or was last lost."""
        self._lost_since: dict[int, float] = {}
        """When the first of the attempts failed that have failed in a row."""
        self._full: set[int] = set()
        self._awaiting_position: dict[int, asyncio.Future[int]] = {}
        """Partitions whose position is damaged: resolved with the one that an operator says."""
        self._blocked: dict[int, tuple[int, float]] = {}
        """By partition whose input a transaction of somebody holds up: at which offset, and when that was last said."""
        self._restoring = asyncio.Semaphore(settings.restores_max)
        self._generation = 0
        self._owner_generation: dict[int, int] = {}
        self._committed_offsets: dict[int, int] = {}
        self._group_committed_at = 0.0
        self._group_commit: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._change = asyncio.Event()

    # --- its life ---

    async def start(self) -> None:
        """Joins the group and begins to poll. Raises `TopicError`."""
        await self._require_belonging()
        await self._context.events.start(self)
        self._polling = asyncio.create_task(self._poll(), name="poll")
        self._watching = asyncio.create_task(self._brokers.run(), name="watch brokers")
        for task in (self._polling, self._watching):
            task.add_done_callback(self._ended)

    async def _require_belonging(self) -> None:
        """Before anybody is fenced: another deployment than the one that the state belongs to must not disturb it."""
        context = self._context
        seen = await context.events.describe_topics()
        context.deployment = identified(context.deployment, seen)
        context.former = require_all(
            context.deployment,
            await self._states.newest(),
            adopt=context.adopt_state,
            topic_epoch=context.topic_epoch,
        )
        for deployment in context.former:
            if members := await context.events.members_of(deployment.group):
                raise TopicError(
                    f"the state cannot be adopted while group {deployment.group} has members ({members}): stop all "
                    "workers that use it, then start one with --adopt-state, and the others when it serves"
                )
            log.warning("state_adopted", group=deployment.group, prefix=deployment.prefix, topic=deployment.event_topic)

    async def stop(self, drain_s: float | None = None) -> None:
        """Leaves all partitions in order, then the group; attempts under way get `drain_s` seconds. With brokers away
        it takes that and 16 s.
        """
        await self._end_polling()
        settings = self._settings
        leave_s = min(settings.leave_s, settings.stop_leave_s)
        await self._release(list(self._tasks), settings.drain_s if drain_s is None else drain_s, leave_s)
        await self._context.events.stop()

    async def kill(self) -> None:
        """Drops everything as it is: nothing is written, nobody is told."""
        await self._end_polling()
        tasks = [*self._tasks.values(), *self._releasing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def all_served(self) -> bool:
        """Whether every partition of ours is served (or halted)."""
        return not self._unserved()

    def restoring_s(self) -> float:
        """For how long the slowest partition of ours has not been served; 0: all of them are (or are halted)."""
        now = self._context.clock.now()
        return max((now - self._unserved_since.get(p, now) for p in self._unserved()), default=0.0)

    def lost_s(self) -> float:
        """For how long attempts to acquire a partition of ours have failed in a row; 0: all are served."""
        now = self._context.clock.now()
        return max((now - self._lost_since.get(p, now) for p in self._unserved()), default=0.0)

    def unserved_count(self) -> int:
        """Partitions of ours that are neither served nor halted."""
        return len(self._unserved())

    def _unserved(self) -> list[int]:
        """Partitions of ours that are neither served nor halted."""
        return [p for p in self._tasks if (owner := self.owners.get(p)) is None or not owner.phase.is_served]

    async def skip(self, partition: int, offset: int) -> int:
        """Moves the position of a partition of ours; returns where it was, once that is committed.

        Raises `UsageError`, `LogError`.
        """
        owner = self.owners.get(partition)
        if owner is None:
            raise UsageError(f"partition {partition} is not served by this worker")
        placeless = self._awaiting_position.get(partition)
        if placeless is not None and not placeless.done():
            await self._set_position(owner, placeless, offset)
            return offset
        before = owner.position.next_offset
        await owner.skip(offset)
        return before

    async def _set_position(self, damaged: Owner[WorkloadT], placeless: asyncio.Future[int], offset: int) -> None:
        """Waits until the partition is served from this position on. Raises `UsageError` when it is not taken."""
        partition, events = damaged.partition, self._context.events
        begin, end = [await events.start_offset(partition, latest) for latest in (False, True)]
        if not begin <= offset <= end:
            raise UsageError(f"partition {partition} of the input holds offsets {begin} to {end}, not {offset}")
        if placeless.done():
            raise UsageError(f"partition {partition} is being moved already")
        placeless.set_result(offset)
        while True:
            owner = self.owners.get(partition)
            if partition not in self._tasks:
                raise UsageError(HANDED_OVER)
            if owner is not None and owner is not damaged and owner.phase.is_served:
                break
            await self.wait_for_change()
        if owner.phase.is_halted:
            raise UsageError(owner.detail)

    async def wait_for_change(self) -> None:
        """Until some partition may have changed its phase."""
        self._change.clear()
        await self._change.wait()

    async def _end_polling(self) -> None:
        self._is_ending = True
        # A cancelled poll upsets the client's idle check; that is of no matter to a client that is about to stop.
        tasks = [task for task in (self._polling, self._group_commit, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(task.get_name(), error)

    def _changed(self, _what: object = None) -> None:
        self._change.set()

    def _fail(self, what: str, error: BaseException) -> None:
        if isinstance(error, CartsyncError):
            self._fatal(error)
        else:
            self._fatal(InvariantError(f"{what} failed: {type(error).__name__}"))
        self._changed()
        log.critical("task_failed", task=what, exc_info=error)

    def abandoned(self) -> list[int]:
        """Partitions of ours that nobody serves, and nobody will."""
        return sorted(partition for partition, task in self._tasks.items() if task.done())

    # --- ports.AssignmentListener ---

    def assigned(self, partitions: set[int]) -> None:
        """Starts an owner for each; it restores while others are fed."""
        if self._is_ending:
            return  # or whoever gets them once we have left would wait for the hold of an owner that was cut off
        self.was_assigned = True
        self._generation += 1
        self._competing.forget()
        self._changed()
        self._drop_expired_keep_warm_states()
        beyond = [partition for partition in partitions if partition >= self._states.partitions]
        if beyond:
            self._fatal(TopicError(repartitioned(max(beyond) + 1, self._states.partitions)))
            return
        self._warn_if_commit_rate_too_low(len(partitions))
        for partition in sorted(partitions):
            task = asyncio.create_task(self._own(partition), name=f"partition {partition}")
            self._tasks[partition] = task
            task.add_done_callback(self._ended)
        self._context.partitions = max(1, len(self._tasks))
        self._context.metrics.rebalanced()
        log.info("partitions_assigned", partitions=sorted(partitions))

    def _warn_if_commit_rate_too_low(self, partitions: int) -> None:
        """So many partitions that commits come too rarely to keep a lease: sending would stop and go."""
        rules, limits = self._context.rules, self._context.limits
        between_s = partitions / limits.commits_per_s
        if between_s > (rules.lease_s - rules.attempt_deadline_s) / 2:
            log.warning("commit_rate_too_low", partitions=partitions, seconds=round(between_s, 1), do="more workers")

    async def revoked(self, partitions: set[int]) -> None:
        """Lets them go in order; late, they are dropped: the fence and the hold keep that safe."""
        self._generation += 1
        if partitions:
            log.info("partitions_revoked", partitions=sorted(partitions))
            began = self._context.clock.now()
            await self._release(partitions, self._settings.drain_s, self._settings.leave_s)
            self._context.metrics.rebalanced(self._context.clock.now() - began)

    async def _release(self, partitions: Iterable[int], drain_s: float, leave_s: float) -> None:
        partitions = list(partitions)
        for partition in partitions:
            task = self._tasks.pop(partition, None)
            if task is None:
                continue
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)
            owner = self.owners.get(partition)
            if owner is None or owner.phase in _CANCELLED_AT_ONCE:
                task.cancel()
            else:
                owner.drain(drain_s)
        if self._releasing:
            _, late = await asyncio.wait(self._releasing, timeout=drain_s + leave_s)
            for task in late:
                log.warning("partition_release_timed_out", task=task.get_name())
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await self._commit_group_offsets_of(partitions)
        self._context.partitions = max(1, len(self._tasks))

    async def _commit_group_offsets_of(self, partitions: Iterable[int]) -> None:
        """Commits where we stopped to the group: for lag tools, and to notice that a state topic was lost."""
        left = {p: warm.next.offset for p in partitions if (warm := self._warm.get(p)) and warm.next is not None}
        if left and self._context.events.silent_s() < _SILENT_S:
            await self._context.events.commit_group(left)

    def _drop_expired_keep_warm_states(self) -> None:
        now = self._context.clock.now()
        if self._warm:
            for partition, warm in list(self._warm.items()):
                if now - warm.left_at >= self._settings.keep_warm_s:
                    self._forget(self._warm.pop(partition).kept)

    # --- one partition ---

    async def _own(self, partition: int) -> None:
        """Owns a partition until it is revoked; when it is lost meanwhile, acquires it again."""
        delay_s = self._settings.retry_s
        self._unserved_since[partition] = self._context.clock.now()
        self._lost_since.pop(partition, None)
        # What others did before the group gave the partition to us is no competition; only what comes while it is ours.
        on_competing_owner: Callable[[tuple[str, int] | None], None] | None = None
        lean = Lean()
        start_at: int | None = None
        while True:
            self._drop_expired_keep_warm_states()  # a frozen process may have slept through its tombstones
            warm = await self._recall(partition, self._warm.pop(partition, None))
            owner = Owner(
                partition,
                self._states.partition(partition),
                self._context,
                self._make_workload,
                warm,
                on_phase_change=self._changed,
                on_competing_owner=on_competing_owner,
                start_at=start_at,
                lean=lean,
            )
            on_competing_owner = start_at = None
            self._generation += 1
            self._owner_generation[partition] = self._generation
            self.owners[partition] = owner
            began = self._context.clock.now()
            try:
                await owner.run(self._restoring)
                return
            except (ConfigError, TopicError) as error:
                self._fatal(error)
                log.critical("partition_unusable", partition=partition, error=str(error))
                return
            except DamagedStateError as error:
                if self._tasks.get(partition) is not asyncio.current_task():
                    return
                owner.mark_damaged(str(error), error.order)
                start_at = await self._wait_for_mending(partition, error)
                continue
            except LogError as error:
                self._lost(partition, owner, error)
                on_competing_owner = self._competing.after_loss(partition, was_fenced=isinstance(error, FencedError))
                if isinstance(error, SizeRefusedError):
                    lean = owner.lean
                if self._tasks.get(partition) is not asyncio.current_task():
                    return  # it was leaving: the next owner starts from what is committed
                if self._context.clock.now() - began > _STABLE_AFTER_S:
                    delay_s = self._settings.retry_s
            finally:
                self._changed()
                warm = owner.warm()
                if warm is not None:
                    self._warm[partition] = warm
                if self.owners.get(partition) is owner:
                    del self.owners[partition]
            with suppress(LogError):  # it may have gone meanwhile; then this task is about to be cancelled
                self._context.events.pause(partition)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._settings.retry_s * 10)
            await self._wait_until_group_member()

    def _lost(self, partition: int, owner: Owner[WorkloadT], error: LogError) -> None:
        """Says so, and remembers since when."""
        is_fenced = isinstance(error, FencedError)
        log.warning("partition_lost", partition=partition, error=str(error), fenced=is_fenced)
        self._context.metrics.commit_failed("fenced" if is_fenced else "failed")
        if owner.has_served:
            self._unserved_since[partition] = self._context.clock.now()
            self._lost_since.pop(partition, None)
        self._lost_since.setdefault(partition, self._context.clock.now())

    async def _wait_for_mending(self, partition: int, error: DamagedStateError) -> int | None:
        """Others go on meanwhile, and this one is shown as halted. The position, when an operator says it."""
        with suppress(LogError):
            self._context.events.pause(partition)
        said: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if error.is_position:
            self._awaiting_position[partition] = said
        try:
            await asyncio.wait({said}, timeout=self._settings.damaged_retry_s)
        finally:
            self._awaiting_position.pop(partition, None)
        await self._wait_until_group_member()
        return said.result() if said.done() else None

    async def _wait_until_group_member(self) -> None:
        """A black-holed old owner must not fence its successor: only a member of the group acquires again."""
        while not await self._context.events.commit_group(self._offsets()):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(self._settings.retry_s * 2)

    # --- feeding ---

    async def _poll(self) -> None:
        context, settings = self._context, self._settings
        while True:
            self.polled_at = context.clock.now()
            generation = self._generation
            timeout_s = min(settings.poll_timeout_s, 0.05) if self._full else settings.poll_timeout_s
            try:
                batches = await context.events.poll(timeout_s, settings.poll_records_max)
            except GapError as error:
                self._halt(error)
                continue
            for partition, records in batches.items():
                owner = self.owners.get(partition)
                if owner is None or owner.phase is not Phase.SERVING:
                    continue
                if self._owner_generation[partition] > generation:
                    # Fetched for an owner before this one: beyond what this one has taken, it would leave a gap.
                    context.events.seek(partition, owner.position.wanted_offset)
                    continue
                owner.feed(records)
                if owner.position.fills(1):
                    context.events.pause(partition)
                    self._full.add(partition)
            self._pass(generation)
            self._resume_emptied()
            self._drop_expired_keep_warm_states()
            self._commit_group_when_due()
            self._warn_if_blocked()

    def _pass(self, generation: int) -> None:
        """Tells each owner how far its input was read: beyond the last record, where markers follow it."""
        for partition, owner in self.owners.items():
            if owner.phase is Phase.SERVING and self._owner_generation[partition] <= generation:
                position = self._context.events.position(partition)
                if position is not None:
                    owner.pass_to(position)

    def _halt(self, error: GapError) -> None:
        for partition in error.partitions:
            self._context.events.pause(partition)
            owner = self.owners.get(partition)
            if owner is not None and owner.position.give_up_check():
                self._context.events.seek(partition, owner.position.wanted_offset)
                self._context.events.resume(partition)
            elif owner is not None:
                owner.halt(
                    f"{error}; find out what is missing, then go on at an offset that there is with "
                    f"`cartsync input skip {partition} OFFSET --why …`"
                )

    def _resume_emptied(self) -> None:
        """Feeds a partition again once its inbox is half empty."""
        for partition in list(self._full):
            owner = self.owners.get(partition)
            if owner is None or owner.phase is not Phase.SERVING:
                self._full.discard(partition)
            elif not owner.position.fills(0.5):
                self._full.discard(partition)
                self._context.events.resume(partition)

    def _warn_if_blocked(self) -> None:
        """Says which partitions wait for the end of somebody's transaction: nothing else would show it."""
        events, now = self._context.events, self._context.clock.now()
        for partition, owner in self.owners.items():
            position = owner.position
            is_read = owner.phase is Phase.SERVING and not position.inbox
            if not is_read or not (records := events.behind_open(partition)):
                self._blocked.pop(partition, None)
                continue
            offset, since = self._blocked.setdefault(partition, (position.wanted_offset, now))
            if offset != position.wanted_offset:
                self._blocked[partition] = position.wanted_offset, now
            elif now - since >= self._settings.blocked_s:
                self._blocked[partition] = offset, now
                where = f"--topic {self._context.event_topic} --partition {partition}"
                log.warning(
                    "input_blocked",
                    partition=partition,
                    offset=offset,
                    records=records,
                    do=f"`kafka-transactions.sh describe-producers {where}` says where the transaction began that "
                    f"nobody ends, `kafka-transactions.sh abort {where} --start-offset OFFSET` ends it",
                )

    def _commit_group_when_due(self) -> None:
        """Commits our offsets to the group every few seconds, apart from the polling: for lag tools only."""
        now = self._context.clock.now()
        is_idle = self._group_commit is None or self._group_commit.done()
        is_due = now - self._group_committed_at >= self._settings.group_commit_s
        if is_idle and is_due and self._offsets() != self._committed_offsets:
            self._group_committed_at = now
            self._group_commit = asyncio.create_task(self._commit_group_offsets(), name="commit group offsets")

    def _offsets(self) -> dict[int, int]:
        return {p: owner.position.next_offset for p, owner in self.owners.items() if owner.phase is Phase.SERVING}

    async def _commit_group_offsets(self) -> None:
        offsets = self._offsets()
        if offsets and await self._context.events.commit_group(offsets):
            self._committed_offsets = offsets
