"""The partitions of ours: which they are, what they are fed, and what happens when one is lost."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import structlog
from msgspec import Struct

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
    TwoOwnersError,
    UsageError,
)
from worker.partition.actor import PartitionActor
from worker.partition.belonging import changed, identified, repartitioned, require_all
from worker.partition.context import Context, Warm
from worker.ports import StateLog, TopicsSeen

log = structlog.get_logger(__name__)


_SILENT_S = 5.0
"""Heartbeats are answered more often: who asks brokers that are silent for longer waits for nothing."""


class Holding(Struct, frozen=True):
    """How partitions are taken, fed and left."""

    poll_records_max: int = 2_000
    poll_timeout_s: float = 1.0
    drain_s: float = 8.0
    """What attempts under way get when a partition leaves; then they are given up and marked."""
    leave_s: float = 20.0
    """What the last transaction may take after that, before it is given up: safe, but the next owner has to hold.
    Together they stay below the rebalance timeout.
    """
    stop_leave_s: float = 7.0
    """The same when the whole worker stops, which has to end before its supervisor kills it (30 s are usual): with
    brokers away, all that can be done is to end.
    """
    warm_s: float = 900.0
    """For how long a partition that left is remembered."""
    restores_max: int = 4
    """Restores at the same time."""
    group_commit_s: float = 5.0
    look_s: float = 10.0
    """How often it is looked whether brokers answer, and topics are what they were."""
    look_again_s: float = 1.0
    """When they are not: a broker that has just come up may not know all topics yet."""
    unreachable_s: float = 30.0
    """After so long without an answer brokers count as away: heartbeats and looks ask more often than that."""
    unreachable_exit_s: float = 600.0
    retry_s: float = 0.5
    """Before a lost partition is taken anew; doubles up to ten times this."""
    damaged_retry_s: float = 60.0
    """Before a partition whose state is damaged is tried again: somebody may have mended it."""
    blocked_s: float = 60.0
    """For how long an open transaction of somebody may hold up the input before that is said, again and again."""
    rivals_s: float = 60.0
    """So often within this time a partition of ours was taken over by somebody else: we are not alone."""
    rivals_max: int = 6
    """Twice for a worker that has just come, once more for each `rivals_s` that it has been there: the one that came
    later goes first, and production stays.
    """


class Assignment:
    """`ports.AssignmentListener`: keeps an actor for each partition that the group gives us."""

    def __init__(
        self, states: StateLog, context: Context, holding: Holding, fatal: Callable[[CartsyncError], None]
    ) -> None:
        self.actors: dict[int, PartitionActor] = {}
        self.polled_at = context.clock.now()
        self.was_assigned = False
        self._is_ending = False
        self._states = states
        self._context = context
        self._holding = holding
        self._fatal = fatal
        self._owners: dict[int, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        """Owners that were told to leave: a stop waits also for those that a revoke has told."""
        self._warm: dict[int, Warm] = {}
        self._rivals: dict[int, list[tuple[int, float]]] = {}
        """By partition of this assignment, owners that it had meanwhile: their barriers, and when they were found."""
        self._began_at = context.clock.now()
        self._unserved_since: dict[int, float] = {}
        """When a partition of ours came to us, or was last lost."""
        self._lost_since: dict[int, float] = {}
        """When the first of the attempts failed that have failed in a row."""
        self._full: set[int] = set()
        self._placeless: dict[int, asyncio.Future[int]] = {}
        """Partitions whose position is damaged: resolved with the one that an operator says."""
        self._blocked: dict[int, tuple[int, float]] = {}
        """By partition whose input a transaction of somebody holds up: at which offset, and when that was last said."""
        self._restoring = asyncio.Semaphore(holding.restores_max)
        self._generation = 0
        self._born: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._told_at = 0.0
        self._telling: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._unreachable_since: float | None = None
        self._change = asyncio.Event()

    # --- its life ---

    async def start(self) -> None:
        """Joins the group and begins to poll. Raises `TopicError`."""
        await self._require_belonging()
        await self._context.events.start(self)
        self._polling = asyncio.create_task(self._poll(), name="poll")
        self._watching = asyncio.create_task(self._watch(), name="watch brokers")
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
        holding = self._holding
        leave_s = min(holding.leave_s, holding.stop_leave_s)
        await self._leave(list(self._owners), holding.drain_s if drain_s is None else drain_s, leave_s)
        await self._context.events.stop()

    async def kill(self) -> None:
        """Drops everything as it is: nothing is written, nobody is told."""
        await self._end_polling()
        owners = [*self._owners.values(), *self._leaving]
        for owner in owners:
            owner.cancel()
        await asyncio.gather(*owners, return_exceptions=True)

    def is_settled(self) -> bool:
        """Whether every partition of ours is served (or halted)."""
        return not self._unserved()

    def restoring_s(self) -> float:
        """For how long the slowest partition of ours has not been served; 0: all of them are (or are halted)."""
        now = self._context.clock.now()
        return max((now - self._unserved_since.get(p, now) for p in self._unserved()), default=0.0)

    def lost_s(self) -> float:
        """For how long one has been tried in vain to be taken (anew) that is not served; 0: there is none."""
        now = self._context.clock.now()
        return max((now - self._lost_since.get(p, now) for p in self._unserved()), default=0.0)

    def unserved_count(self) -> int:
        """Partitions of ours that are neither served nor halted."""
        return len(self._unserved())

    def _unserved(self) -> list[int]:
        """Partitions of ours that are neither served nor halted."""
        return [p for p in self._owners if (a := self.actors.get(p)) is None or a.role not in ("serving", "halted")]

    async def skip(self, partition: int, offset: int) -> int:
        """Moves the position of a partition of ours; returns where it was, once that is committed.

        Raises `UsageError`, `LogError`.
        """
        actor = self.actors.get(partition)
        if actor is None:
            raise UsageError(f"partition {partition} is not served by this worker")
        placeless = self._placeless.get(partition)
        if placeless is not None and not placeless.done():
            await self._say_position(actor, placeless, offset)
            return offset
        before = actor.next_offset
        await actor.skip(offset)
        return before

    async def _say_position(self, halted: PartitionActor, placeless: asyncio.Future[int], offset: int) -> None:
        """Waits until the partition is served from this position on. Raises `UsageError` when it is not taken."""
        begin, end = [await self._context.events.start_offset(halted.partition, latest) for latest in (False, True)]
        if not begin <= offset <= end:
            raise UsageError(f"partition {halted.partition} of the input holds offsets {begin} to {end}, not {offset}")
        if placeless.done():
            raise UsageError(f"partition {halted.partition} is being moved already")
        placeless.set_result(offset)
        while True:
            actor = self.actors.get(halted.partition)
            if halted.partition not in self._owners:
                raise UsageError("the partition is changing hands; look, and ask again")
            if actor is not None and actor is not halted and actor.role in ("serving", "halted"):
                break
            await self.changed()
        if actor.role == "halted":
            raise UsageError(actor.detail)

    async def changed(self) -> None:
        """Until some partition may have changed its role."""
        self._change.clear()
        await self._change.wait()

    async def _end_polling(self) -> None:
        self._is_ending = True
        # A cancelled poll upsets the client's idle check; that is of no matter to a client that is about to stop.
        tasks = [task for task in (self._polling, self._telling, self._watching) if task is not None]
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
        return sorted(partition for partition, owner in self._owners.items() if owner.done())

    # --- ports.AssignmentListener ---

    def assigned(self, partitions: set[int]) -> None:
        """Starts an owner for each; it restores while others are fed."""
        if self._is_ending:
            return  # who gets them as soon as we have left need not wait for the hold of an owner that was cut off
        self.was_assigned = True
        self._generation += 1
        self._rivals.clear()
        self._changed()
        self._forget_cold()
        beyond = [partition for partition in partitions if partition >= self._states.partitions]
        if beyond:
            self._fatal(TopicError(repartitioned(max(beyond) + 1, self._states.partitions)))
            return
        self._warn_of_dark_times(len(partitions))
        for partition in sorted(partitions):
            owner = asyncio.create_task(self._own(partition), name=f"partition {partition}")
            self._owners[partition] = owner
            owner.add_done_callback(self._ended)
        self._context.partitions = max(1, len(self._owners))
        self._context.metrics.rebalanced()
        log.info("partitions_assigned", partitions=sorted(partitions))

    def _warn_of_dark_times(self, partitions: int) -> None:
        """So many partitions that commits come too rarely to keep a lease: sending would stop and go."""
        rules, pace = self._context.rules, self._context.pace
        between_s = partitions / pace.commits_per_s
        if between_s > (rules.lease_s - rules.attempt_deadline_s) / 2:
            log.warning("commit_rate_too_low", partitions=partitions, seconds=round(between_s, 1), do="more workers")

    async def revoked(self, partitions: set[int]) -> None:
        """Lets them go in order; late, they are dropped: the fence and the hold keep that safe."""
        self._generation += 1
        if partitions:
            log.info("partitions_revoked", partitions=sorted(partitions))
            began = self._context.clock.now()
            await self._leave(partitions, self._holding.drain_s, self._holding.leave_s)
            self._context.metrics.rebalanced(self._context.clock.now() - began)

    async def _leave(self, partitions: Iterable[int], drain_s: float, leave_s: float) -> None:
        partitions = list(partitions)
        for partition in partitions:
            owner = self._owners.pop(partition, None)
            if owner is None:
                continue
            self._leaving.add(owner)
            owner.add_done_callback(self._leaving.discard)
            actor = self.actors.get(partition)
            if actor is None or actor.is_over or actor.role == "restoring":
                owner.cancel()
            else:
                actor.leave(drain_s)
        if self._leaving:
            _, late = await asyncio.wait(self._leaving, timeout=drain_s + leave_s)
            for owner in late:
                log.warning("partition_release_timed_out", task=owner.get_name())
                owner.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await self._tell_left(partitions)
        self._context.partitions = max(1, len(self._owners))

    async def _tell_left(self, partitions: Iterable[int]) -> None:
        """Tells the group where we left: for lag tools, and for who looks whether a state topic was lost."""
        left = {p: warm.next.offset for p in partitions if (warm := self._warm.get(p)) and warm.next is not None}
        if left and self._context.events.silent_s() < _SILENT_S:
            await self._context.events.commit_group(left)

    def _forget_cold(self) -> None:
        now = self._context.clock.now()
        if self._warm:
            self._warm = {p: warm for p, warm in self._warm.items() if now - warm.left_at < self._holding.warm_s}

    # --- one partition ---

    async def _own(self, partition: int) -> None:
        """Owns a partition until it is revoked; when it is lost meanwhile, takes it anew."""
        delay_s = self._holding.retry_s
        self._unserved_since[partition] = self._context.clock.now()
        self._lost_since.pop(partition, None)
        # What others did before the group gave the partition to us is no rivalry; only what comes while it is ours.
        rivalled: Callable[[tuple[str, int] | None], None] | None = None
        lean_below, lean_results = 0, False
        start_at: int | None = None
        while True:
            self._forget_cold()  # a frozen process may have slept through its tombstones
            warm = self._warm.pop(partition, None)
            hold = self._states.partition(partition)
            actor = PartitionActor(
                partition, hold, self._context, warm, self._changed, rivalled, lean_below, start_at, lean_results
            )
            rivalled = start_at = None
            self._generation += 1
            self._born[partition] = self._generation
            self.actors[partition] = actor
            began = self._context.clock.now()
            try:
                await actor.run(self._restoring)
                return
            except (ConfigError, TopicError) as error:
                self._fatal(error)
                log.critical("partition_unusable", partition=partition, error=str(error))
                return
            except DamagedStateError as error:
                if self._owners.get(partition) is not asyncio.current_task():
                    return
                actor.halt(str(error), error.order)
                start_at = await self._wait_for_mending(partition, error)
                continue
            except LogError as error:
                self._lost(partition, actor, error)
                rivalled = partial(self._found, partition, isinstance(error, FencedError))
                if isinstance(error, SizeRefusedError):
                    lean_below, lean_results = actor.lean_below, actor.lean_results
                if self._owners.get(partition) is not asyncio.current_task():
                    return  # it was leaving: the next owner starts from what is committed
                if self._context.clock.now() - began > 60:
                    delay_s = self._holding.retry_s
            finally:
                self._changed()
                warm = actor.warm()
                if warm is not None:
                    self._warm[partition] = warm
                if self.actors.get(partition) is actor:
                    del self.actors[partition]
            with suppress(LogError):  # it may have gone meanwhile; then this task is about to be cancelled
                self._context.events.pause(partition)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._holding.retry_s * 10)
            await self._prove_membership()

    def _lost(self, partition: int, actor: PartitionActor, error: LogError) -> None:
        """Says so, and remembers since when."""
        is_fenced = isinstance(error, FencedError)
        log.warning("partition_lost", partition=partition, error=str(error), fenced=is_fenced)
        self._context.metrics.commit_failed("fenced" if is_fenced else "failed")
        if actor.has_served:
            self._unserved_since[partition] = self._context.clock.now()
            self._lost_since.pop(partition, None)
        self._lost_since.setdefault(partition, self._context.clock.now())

    async def _wait_for_mending(self, partition: int, error: DamagedStateError) -> int | None:
        """Others go on meanwhile, and this one is shown as halted. The position, when an operator says it."""
        with suppress(LogError):
            self._context.events.pause(partition)
        said: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if error.is_position:
            self._placeless[partition] = said
        try:
            await asyncio.wait({said}, timeout=self._holding.damaged_retry_s)
        finally:
            self._placeless.pop(partition, None)
        await self._prove_membership()
        return said.result() if said.done() else None

    def _found(self, partition: int, was_fenced: bool, rival: tuple[str, int] | None) -> None:
        if rival is not None or was_fenced:
            self._rivalled(partition, rival)

    def _rivalled(self, partition: int, rival: tuple[str, int] | None) -> None:
        """Somebody took over a partition that the group has left with us: once may be a rebalance under way. `rival`:
        who, and the offset of its barrier; `None`: somebody who uses our ids, but not our state topic.
        """
        now, holding = self._context.clock.now(), self._holding
        before = self._rivals.get(partition, [])
        if rival is not None and any(barrier == rival[1] for barrier, _ in before):
            return  # read again
        recent = [(barrier, at) for barrier, at in before if now - at < holding.rivals_s]
        self._rivals[partition] = [*recent, (-1 if rival is None else rival[1], now)]
        owner = "unknown" if rival is None else rival[0]
        log.error("partition_taken_by_another_owner", partition=partition, owner=owner, again=bool(recent))
        age_s = now - self._began_at
        if len(recent) + 1 < min(holding.rivals_max, 2 + int(age_s / holding.rivals_s)):
            return
        ours = self._context.deployment
        self._fatal(
            TwoOwnersError(
                f"partition {partition} is ours by the group, but worker {owner} takes it over again and again: "
                "another deployment writes to the same state topic under the same transactional_id_prefix. Stop "
                "one of them, or give it a state topic, a prefix and a group of its own"
                if rival is not None
                else f"partition {partition} is ours by the group, but somebody with another state topic fences us "
                f"again and again: another deployment has the same transactional_id_prefix ({ours.prefix}) for the "
                f"same event topic ({ours.event_topic}). Give this one a transactional_id_prefix of its own"
            )
        )

    async def _prove_membership(self) -> None:
        """A black-holed old owner must not fence its successor: only a member of the group takes over anew."""
        while not await self._context.events.commit_group(self._offsets()):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(self._holding.retry_s * 2)

    # --- feeding ---

    async def _poll(self) -> None:
        context, holding = self._context, self._holding
        while True:
            self.polled_at = context.clock.now()
            generation = self._generation
            timeout_s = min(holding.poll_timeout_s, 0.05) if self._full else holding.poll_timeout_s
            try:
                batches = await context.events.poll(timeout_s, holding.poll_records_max)
            except GapError as error:
                self._halt(error)
                continue
            for partition, records in batches.items():
                actor = self.actors.get(partition)
                if actor is None or actor.role != "serving":
                    continue
                if self._born[partition] > generation:
                    # Fetched for an owner before this one: beyond what this one has taken, it would leave a gap.
                    context.events.seek(partition, actor.wanted_offset)
                    continue
                actor.feed(records)
                if actor.fills(1):
                    context.events.pause(partition)
                    self._full.add(partition)
            self._pass(generation)
            self._reopen()
            self._forget_cold()
            self._tell()
            self._look_for_blocked()

    def _pass(self, generation: int) -> None:
        """Tells each actor how far its input was read: beyond the last record, where markers follow it."""
        for partition, actor in self.actors.items():
            if actor.role == "serving" and self._born[partition] <= generation:
                position = self._context.events.position(partition)
                if position is not None:
                    actor.pass_to(position)

    def _halt(self, error: GapError) -> None:
        for partition in error.partitions:
            self._context.events.pause(partition)
            actor = self.actors.get(partition)
            if actor is not None and actor.give_up_check():
                self._context.events.seek(partition, actor.wanted_offset)
                self._context.events.resume(partition)
            elif actor is not None:
                actor.halt(
                    f"{error}; find out what is missing, then go on at an offset that there is with "
                    f"`cartsync input skip {partition} OFFSET --why …`"
                )

    # --- brokers and topics ---

    async def _watch(self) -> None:
        """Looks again and again whether brokers answer, and whether the topics are still what they were."""
        context, holding = self._context, self._holding
        strange: TopicsSeen | None = None
        while True:
            await asyncio.sleep(holding.look_s if strange is None else holding.look_again_s)
            self._heed_silence()
            try:
                seen = await context.events.describe_topics()
            except LogError as error:
                log.debug("topics_not_seen", error=str(error))
                continue
            what = changed(context.deployment, seen)
            if what and strange == seen:
                self._fatal(TopicError(what))
                return
            strange = seen if what else None

    def _heed_silence(self) -> None:
        silent_s = self._context.events.silent_s()
        now = self._context.clock.now()
        if silent_s > self._holding.unreachable_s:
            if self._unreachable_since is None:
                self._unreachable_since = now - silent_s
                log.error("kafka_unreachable", seconds=round(silent_s), exit_after_s=self._holding.unreachable_exit_s)
            if silent_s > self._holding.unreachable_exit_s:
                self._fatal(LogError(f"no Kafka broker has answered for {silent_s:.0f} s: a new start may find them"))
        elif self._unreachable_since is not None:
            log.warning("kafka_reached_again", seconds=round(now - silent_s - self._unreachable_since))
            self._unreachable_since = None

    def _reopen(self) -> None:
        """Feeds a partition again once its inbox is half empty."""
        for partition in list(self._full):
            actor = self.actors.get(partition)
            if actor is None or actor.role != "serving":
                self._full.discard(partition)
            elif not actor.fills(0.5):
                self._full.discard(partition)
                self._context.events.resume(partition)

    def _look_for_blocked(self) -> None:
        """Says which partitions wait for the end of somebody's transaction: nothing else would show it."""
        events, now = self._context.events, self._context.clock.now()
        for partition, actor in self.actors.items():
            if actor.role != "serving" or not (records := events.behind_open(partition)) or actor.inbox:
                self._blocked.pop(partition, None)
                continue
            offset, since = self._blocked.setdefault(partition, (actor.wanted_offset, now))
            if offset != actor.wanted_offset:
                self._blocked[partition] = actor.wanted_offset, now
            elif now - since >= self._holding.blocked_s:
                self._blocked[partition] = offset, now
                where = f"--topic {self._context.event_topic} --partition {partition}"
                log.warning(
                    "input_blocked",
                    partition=partition,
                    offset=offset,
                    records=records,
                    do=f"a transaction that nobody ends holds them up: `kafka-transactions.sh find-hanging {where}`, "
                    "then `kafka-transactions.sh abort`",
                )

    def _tell(self) -> None:
        """Tells the group how far we are, at most every few seconds and beside the polling: for lag tools only."""
        now = self._context.clock.now()
        idle = self._telling is None or self._telling.done()
        if idle and now - self._told_at >= self._holding.group_commit_s and self._offsets() != self._told:
            self._told_at = now
            self._telling = asyncio.create_task(self._tell_group(), name="tell group")

    def _offsets(self) -> dict[int, int]:
        return {p: actor.next_offset for p, actor in self.actors.items() if actor.role == "serving"}

    async def _tell_group(self) -> None:
        offsets = self._offsets()
        if offsets and await self._context.events.commit_group(offsets):
            self._told = offsets
