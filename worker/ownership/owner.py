"""The owner of one partition: acquires it, restores it, commits what its workload writes, and drains it."""

import asyncio
from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import Any, Generic

import structlog
from msgspec import MsgspecError, Struct

from schemas import state
from schemas.state import NextRecord
from worker.errors import DamagedStateError, InvariantError, SizeRefusedError, TopicError, UsageError
from worker.ownership.belonging import reads_other_input
from worker.ownership.context import Context, Warm
from worker.ownership.lease import Lease
from worker.ownership.phase import Phase, follow
from worker.ownership.position import AnotherTopicError, Position
from worker.ownership.restore import Restored, damaged, remade, restore, write_barrier
from worker.ownership.workload import Entries, Host, Inherited, Sizes, WorkloadT
from worker.ports import DeadLetter, InputRecord, PartitionWriter, Result

log = structlog.get_logger(__name__)

_DRAINING_LOOK_S = 0.05
"""How often an owner looks whether it is drained when nothing wakes it."""
HANDED_OVER = "the partition is being handed over; check the order and retry"


class Lean(Struct, frozen=True):
    """What was refused for its size under an earlier owner, though topics should take it."""

    letters_below: int = 0
    results: bool = False


class Skip(Struct, eq=False):
    """Where an operator moves the position to; `done` is resolved once it is committed."""

    offset: int
    looked_at: int
    """Where the position was when it was found that it may be moved there."""
    done: asyncio.Future[None]


class Owner(Generic[WorkloadT]):
    """Owns one partition from its fence to its end. A new ownership is a new owner."""

    def __init__(
        self,
        partition: int,
        writer: PartitionWriter,
        context: Context,
        make_workload: Callable[[Host, Any], WorkloadT],
        warm: Warm | None = None,
        *,
        on_phase_change: Callable[[], None] = lambda: None,
        on_competing_owner: Callable[[tuple[str, int] | None], None] | None = None,
        start_at: int | None = None,
        lean: Lean = Lean(),  # noqa: B008 - frozen
    ) -> None:
        """`make_workload` gets this owner, and what `warm` has kept of the workload before. `on_competing_owner` is
        called with the owner, and the offset of its barrier, that was found to have come between this one and what
        `warm` remembers; `None`: there was none. `start_at`: how far the input was taken, by an operator's word.
        """
        self.partition = partition
        self.lease = Lease(context.rules)
        self.position = Position(context.limits)
        self.detail = ""
        """What people are to see with the partition."""
        self.has_served = False
        self.lean = lean
        self.ticked_at = context.clock.now()
        self._phase = Phase.RESTORING
        self._writer = writer
        self._context = context
        self._warm = warm
        self._on_phase_change = on_phase_change
        self._on_competing_owner = on_competing_owner
        self._start_at = start_at
        self._log_end = 0
        """The state partition is in memory up to here."""
        self._last_next: NextRecord | None = None
        self._skip: Skip | None = None
        self._wake = asyncio.Event()
        self._lease_wanted = self._committing = self._has_drained = False
        self._committed_at = 0.0
        self._drain_until: float | None = None
        self._failed: Exception | None = None
        self.workload: WorkloadT = make_workload(self, None if warm is None else warm.kept)

    # --- phases ---

    @property
    def phase(self) -> Phase:
        """`Host`, and for people."""
        return self._phase

    def _enter(self, phase: Phase) -> None:
        self._phase = follow(self._phase, phase, self.partition)

    async def run(self, restoring: asyncio.Semaphore) -> None:
        """From the fence to the end; `restoring` bounds how many restore at once.

        Raises `LogError` when the ownership is lost: the partition may be acquired again; `DamagedStateError` when its
        state holds what we did not write; `InvariantError` for a bug.
        """
        try:
            async with restoring:
                await self._acquire()
            await self._serve()
        except MsgspecError as error:
            if self._phase.is_working:  # to find out where it lies may take long: nothing is to begin meanwhile
                self._enter(Phase.DRAINING)
                self.workload.drain()
            raise await self._damage(error) from error
        finally:
            self._close()
            await self._writer.close()

    def drain(self, drain_s: float) -> None:
        """Asks it to end in order: attempts in flight get `drain_s` seconds, then they are abandoned and marked."""
        self._drain_until = self._context.clock.now() + drain_s
        if self._phase.is_working:
            self._enter(Phase.DRAINING)
            self.workload.drain()
        self._wake.set()

    def halt(self, reason: str, order: str = "") -> None:
        """Takes no events any more; what is owed is still sent. `order`: that it is about one.

        Without effect while nothing is taken anyway: if the gap is still there later, it is found again.
        """
        if not self._phase.is_working:
            return
        self._enter(Phase.HALTED)
        self._say_halted(reason, order)

    def mark_damaged(self, reason: str, order: str = "") -> None:
        """It has ended, and is shown until somebody mends its state."""
        self._enter(Phase.DAMAGED)
        self._say_halted(reason, order)

    def _say_halted(self, reason: str, order: str) -> None:
        self.detail = reason
        self._on_phase_change()
        log.critical("partition_halted", partition=self.partition, reason=reason, **({"order": order} if order else {}))

    def warm(self) -> Warm | None:
        """What a later owner in this process can start from; `None` when there is nothing."""
        if self._last_next is None:
            return self._warm
        return Warm(self.workload.keep(), self._log_end, self._last_next, self._context.clock.now())

    def _close(self) -> None:
        self._enter(Phase.CLOSED)
        # In this order: nothing may begin between the end of the lease and the end of the attempts under it.
        self.lease.revoke()
        error = UsageError(HANDED_OVER)
        self.workload.close(error)
        if self._skip is not None and not self._skip.done.done():
            self._skip.done.set_exception(error)
        log.info(
            "partition_released",
            partition=self.partition,
            clean=self._has_drained,
            next_offset=self.position.next_offset,
        )

    # --- acquiring (steps 3 to 9) ---

    async def _acquire(self) -> None:
        context, position = self._context, self.position
        began = context.clock.now()
        found = await restore(self._writer, context, self._warm, self.partition, self.workload, self._start_at)
        if self._warm is not None and self._on_competing_owner is not None:
            self._on_competing_owner(found.competing_owner)
        self._log_end = found.position
        position.next_offset = await self._first_offset(found)
        if self._start_at is not None and not await self._may_go_back(self._start_at):
            raise DamagedStateError(
                f"partition {self.partition}: events from offset {self._start_at} on were taken already, by the "
                "revisions of its orders; `cartsync input skip` has to name a later offset",
                is_position=True,
            )
        # In between and after a crash it counts as not clean: only the activation below takes the flag away.
        last = found.next
        clean = last is not None and last.clean
        hold_s = context.rules.inherited_hold_s(last.hold_ms if last is not None and clean else -1)
        entries = await self.workload.restored(Inherited(clean, last is None, found.fenced_at + hold_s))
        await self.write(entries)
        self.workload.activated()
        self.workload.persist(entries, self._log_end)
        context.events.seek(self.partition, position.begin())
        context.events.resume(self.partition)
        self._enter(Phase.SERVING)
        self.has_served = True
        self._on_phase_change()
        seconds = context.clock.now() - began
        context.metrics.restored(seconds)
        log.info(
            "partition_serving",
            partition=self.partition,
            clean=clean,
            next_offset=position.next_offset,
            records=found.records,
            seconds=round(seconds, 3),
            **self.workload.summary(),
        )

    async def _first_offset(self, found: Restored) -> int:
        context = self._context
        if found.next is not None:
            if not reads_other_input(context.deployment, found.next.deployment):
                self.position.taken = found.next.taken
                return found.next.offset
            log.warning("input_restarted", partition=self.partition, former_offset=found.next.offset)
            return await context.events.start_offset(self.partition, context.start_latest)
        group_offset = await context.events.group_offset(self.partition)
        if group_offset:
            await write_barrier(self._writer, context)  # a successor that read on explains it, too: then we go
            raise TopicError(
                f"partition {self.partition}: the group has read up to offset {group_offset}, but the state topic is "
                "empty: it was lost or is the wrong one. Restore it, or reset the group to start anew"
            )
        return await context.events.start_offset(self.partition, context.start_latest)

    async def _may_go_back(self, offset: int) -> bool:
        """Whether what is read from there on makes newer revisions than all that there are."""
        revision = self._context.topic_epoch << state.TOPIC_EPOCH_BITS | (offset + 1)
        return await self.workload.may_replay_from(revision)

    async def _damage(self, error: MsgspecError) -> Exception:
        """What cannot be decoded, and where it is; the error itself when it was no record of the state."""
        key = await self.workload.find_undecodable(error)
        if key is None:
            return error
        if (unbelieved := self.workload.distrust(f"{key!r} cannot be decoded")) is not None:
            return unbelieved
        offset = -1
        async for entries in self._writer.read(0, self._log_end - 1):
            offset = max([offset, *(entry.offset for entry in entries if entry.key == key)])
        return damaged(self.partition, offset, key, error)

    # --- input ---

    def feed(self, records: Sequence[InputRecord]) -> None:
        """Events, in the order of their offsets."""
        try:
            if self.position.feed(records):
                self._wake.set()
        except AnotherTopicError as error:
            self._context.events.pause(self.partition)
            self.halt(str(error))

    def pass_to(self, position: int) -> None:
        """The input was read up to there, markers included."""
        self.position.passed(position)
        if not self._committing:
            self.position.skip_markers()

    def require_working(self) -> None:
        """`Host`: raises `UsageError` unless operators may change something."""
        if not self._phase.is_working:
            phase = self._phase.shown_as
            raise UsageError(f"partition {self.partition} is {phase}; try again shortly")

    async def skip(self, offset: int) -> None:
        """Moves the position, over what cannot be read or shall not be; returns once that is committed.

        Raises `UsageError` when the topic does not hold the offset, or when orders could go back by it.
        """
        self.require_working()
        if self._skip is not None:
            raise UsageError(f"partition {self.partition} is being moved already")
        begin, end = [await self._context.events.start_offset(self.partition, latest) for latest in (False, True)]
        if not begin <= offset <= end:
            raise UsageError(f"partition {self.partition} of the input holds offsets {begin} to {end}, not {offset}")
        looked_at = self.position.next_offset
        if offset == looked_at and self._phase is Phase.SERVING:
            raise UsageError(f"partition {self.partition} is at offset {offset} already")
        if offset < looked_at and not await self._may_go_back(offset):
            raise UsageError(
                f"partition {self.partition} is at offset {looked_at}; back to {offset} its orders would get "
                "older revisions than they have, so only after [worker] topic_epoch was raised"
            )
        self.require_working()
        self._skip = skip = Skip(offset, looked_at, asyncio.get_running_loop().create_future())
        self._wake.set()
        await skip.done

    def _skip_now(self) -> Skip | None:
        """The move that is to be made, unless events were taken meanwhile over which it would go back."""
        skip, offset = self._skip, self.position.next_offset
        if skip is None or skip.offset >= offset or skip.looked_at == offset:
            return skip
        self._skip = None
        if not skip.done.done():
            error = UsageError(f"partition {self.partition} has come to offset {offset} meanwhile; ask again")
            skip.done.set_exception(error)
        return None

    def _moved(self, skip: Skip) -> None:
        """The partition is served from the new position on."""
        self._skip = None
        if self._phase is Phase.HALTED:
            self._enter(Phase.SERVING)
            self.detail = ""
        if not skip.done.done():
            skip.done.set_result(None)
        if self._phase is Phase.SERVING:
            # Once more, together with the seek: while the transaction was announced, records from the former position
            # on may have been fed, and would hide those that are wanted now.
            self.position.move(skip.offset)
            self._context.events.seek(self.partition, skip.offset)
            self._context.events.resume(self.partition)
        self._on_phase_change()

    # --- serving (steps 10 to 13) and draining (18 to 20) ---

    async def _serve(self) -> None:
        clock, workload = self._context.clock, self.workload
        while not (self._is_draining and workload.is_drained()):
            self.ticked_at = now = clock.now()
            if self._failed is not None:
                raise self._failed
            if self._is_draining:
                self._go_on_draining(now)
            await workload.work()
            if self._has_mail() or self._lease_wanted:
                self._committing = True
                await self._pace()
                await self._commit()
                self._committing = False
            elif self._is_draining and workload.is_drained():
                # Asked once more: `work` awaits, so `drain` may have come since the top of the loop, and `_sleep` would
                # clear its wake-up.
                break
            else:
                await self._sleep(self._next_due())
        # Only the last transaction may be clean: a successor that trusts the flag holds nothing but what is marked.
        *portions, last = workload.unwritten()
        for portion in portions:
            await self._commit(keeping=portion)
        await self._commit(keeping=last, clean=workload.is_writable())
        self._has_drained = True

    @property
    def _is_draining(self) -> bool:
        return self._drain_until is not None

    def _go_on_draining(self, now: float) -> None:
        assert self._drain_until is not None
        self.position.drop_inbox()
        if now >= self._drain_until:
            self.workload.abandon()  # whatever is in flight; its outcome, unknown, is written like any other

    def _has_mail(self) -> bool:
        has_events = bool(self.position.inbox) and self._phase is Phase.SERVING
        return has_events or self._skip is not None or self.workload.has_mail()

    def _next_due(self) -> float:
        if self._drain_until is not None:
            return max(self._drain_until, self._context.clock.now() + _DRAINING_LOOK_S)
        return min(self.workload.next_due(), self._committed_at + self._context.limits.idle_commit_s)

    async def _sleep(self, until: float) -> None:
        """Until there is mail or the clock says `until`."""
        self._wake.clear()
        if self._failed is not None or self._has_mail() or self.workload.has_urgent_work():
            return  # it came while the loop was at something else
        alarm = None
        if until != inf:
            delay_s = max(0.0, until - self._context.clock.now())
            alarm = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        await self._wake.wait()
        if alarm is not None:
            alarm.cancel()
        if self._context.clock.now() >= self._committed_at + self._context.limits.idle_commit_s:
            self._lease_wanted = True  # brokers forget a producer that is idle for a day

    async def _pace(self) -> None:
        """Lets a busy partition's batch grow, until it is full; an idle one commits at once."""
        context, clock = self._context, self._context.clock
        until = self._committed_at + context.commit_interval_s()
        while (wait_s := until - clock.now()) > 0:
            if self._is_draining or self._lease_wanted or self.position.fills_batch():
                return
            await asyncio.sleep(min(wait_s, context.limits.commit_interval_s))

    async def _commit(self, *, keeping: Sequence[str] = (), clean: bool = False) -> None:
        """Everything in the mailbox becomes one transaction, or so much of it as fits into one; then it is so."""
        position, workload = self.position, self.workload
        # 1. Fill it.
        skip = self._skip_now()
        takes_events = skip is None and self._phase is Phase.SERVING
        inbox = position.inbox if takes_events else None
        transaction = await workload.fill(position.next_offset, inbox, keeping)
        if skip is None:
            position.note_taken(transaction.last_record)
        else:
            position.forget_taken()
            transaction.next_offset = skip.offset
        # 2. Write it. A lease that is wanted from here on is one of the next transaction.
        self._lease_wanted = False
        entries, letters, results = transaction.entries(), transaction.dead_letters, transaction.results
        ahead = asyncio.create_task(workload.work_ahead(transaction, inbox), name="work ahead") if inbox else None
        try:
            following = self._next(transaction.next_offset, clean=clean)
            await self._write(entries, following, letters, results, transaction.history)
        except SizeRefusedError:
            # Whichever it was: the next owner makes both small, for the broker does not say.
            below = transaction.next_offset if letters else self.lean.letters_below
            self.lean = Lean(below, self.lean.results or bool(results))
            raise
        finally:
            if ahead is not None:
                ahead.cancel()  # not awaited: what is committed has to be in memory before anything else happens
        # 3. Apply it to memory.
        if skip is None:
            position.next_offset = transaction.next_offset
            position.skip_markers()
        else:
            position.move(skip.offset)
        workload.applied(transaction)
        workload.persist(entries, self._log_end)
        # 4. Say so.
        await workload.announce(transaction)
        if skip is not None:
            self._moved(skip)

    async def _write(
        self,
        entries: Entries,
        following: NextRecord,
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
        history: Sequence[tuple[bytes, bytes | None]] = (),
    ) -> None:
        """One transaction with `m:next` in it; extends the lease from the moment it began."""
        clock = self._context.clock
        began = clock.now()
        entries.append((state.NEXT_KEY, state.encode(following)))
        last = await self._writer.write(entries, dead_letters, results, history)
        if last < self._log_end:
            raise TopicError(remade(self._log_end, last))
        self._committed_at = began
        self.lease.renew(began)
        self._log_end, self._last_next = last + 1, following
        count = len(entries) + len(dead_letters) + len(results) + len(history)
        self._context.metrics.committed(clock.now() - began, count)

    def _next(self, offset: int, *, clean: bool) -> NextRecord:
        context = self._context
        hold_ms = -1
        if clean:  # taken before it is written: whoever reads it counts from a later moment
            hold_ms = ceil(1000 * max(0.0, self.workload.held_until() - context.clock.now()))
        return NextRecord(
            state.SCHEMA,
            offset,
            context.topic_epoch,
            clean,
            context.version,
            self.position.taken,
            context.deployment,
            hold_ms=hold_ms,
        )

    # --- for the workload (`Host`) ---

    @property
    def sizes(self) -> Sizes:
        """`Host`."""
        writer, lean = self._writer, self.lean
        return Sizes(
            writer.value_max_bytes, writer.letter_max_bytes, writer.result_max_bytes, lean.letters_below, lean.results
        )

    def may_send(self) -> bool:
        """`Host`."""
        return self.lease.permits_attempt(self._context.clock.now())

    def input_end(self) -> int | None:
        """`Host`."""
        position, lag = self._context.events.position(self.partition), self._context.events.lag(self.partition)
        return None if position is None or lag is None else position + lag

    def has_taken(self, offset: int) -> bool:
        """`Host`."""
        return self.position.next_offset >= offset

    def wake(self) -> None:
        """`Host`."""
        self._wake.set()

    def want_lease(self) -> None:
        """`Host`."""
        self._lease_wanted = True
        self._wake.set()

    def complain(self, detail: str) -> None:
        """`Host`."""
        self.detail = detail

    def fail(self, error: Exception) -> None:
        """`Host`."""
        self._failed = self._failed or error
        self._wake.set()

    async def write(self, entries: Entries) -> None:
        """`Host`. A crash after it leaves a state that is not clean."""
        if self._phase is not Phase.RESTORING:
            raise InvariantError(f"partition {self.partition} is written to by its workload while it is served")
        await self._write(entries, self._next(self.position.next_offset, clean=False))

    # --- for people ---

    def is_quiet(self) -> bool:
        """No mail, nothing in flight, nothing being committed."""
        is_busy = self._committing or self._has_mail() or self.workload.awaits_outcomes()
        return self._phase.is_served and not is_busy

    def busy_s(self, now: float) -> float:
        """For how long it has been at one batch; 0 when it waits for mail."""
        return now - self.ticked_at if self._committing else 0.0
