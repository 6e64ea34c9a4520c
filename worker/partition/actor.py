"""The actor of one partition: restore, process, commit, hand out what is owed, leave."""

import asyncio
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import structlog
from msgspec import MsgspecError, Raw, Struct

from schemas import state
from schemas.state import NextRecord, OrderHeader, OrderRecord, Taken, Target, TargetsRecord
from worker.core import record as records
from worker.core.outbox import NEVER, Entry, Figures, Outbox
from worker.core.plan import Acknowledge, Park, Send, Wait, plan_unconfigured
from worker.core.plan import plan as plan_order
from worker.core.results import LEAN_BYTES, find_ready, find_waiting, is_news
from worker.core.retention import ClosedOrders, DueOrder, Hand, find_due, look_every_s
from worker.core.retry import awaits_change, awaits_result, delay_max_s, is_transient
from worker.core.targets import changed_targets, needs_choice, target_of
from worker.errors import DamagedStateError, InvariantError, SizeRefusedError, TopicError, UsageError
from worker.model.account import Account
from worker.model.exchange import AwaitResult, Outcome
from worker.model.order import account_of, reference_of
from worker.model.provider import Destination, Question, Update
from worker.partition.batch import EVENTS_AT_ONCE, EVENTS_AT_ONCE_BYTES, Batch, Change, is_too_large
from worker.partition.belonging import reads_anew
from worker.partition.context import Context, Slice, Warm
from worker.partition.inbox import Inbox
from worker.partition.restore import Restored, damaged, remade, restore, write_barrier
from worker.ports import (
    Attempt,
    DeadLetter,
    InputRecord,
    JobChange,
    PartitionWriter,
    Result,
    UndecodableRecord,
    after,
)

log = structlog.get_logger(__name__)

Role = Literal["restoring", "serving", "halted", "closing", "closed"]
_AT_ONCE_MAX = 500
_AT_ONCE_MAX_BYTES = 2**20
"""Of the orders that are made owed again in one transaction: some 10 ms of work."""
_SMALL_EVENTS = 16
"""So many orders are looked through without a look at the clock."""
_JUDGE_AFTER_S = 60.0
"""When an order is looked at that was offered without, should it still wait then."""


_NOTHING_TOLD = Update(b"", None, Raw(b"null"))


def taken(record: InputRecord) -> Taken:
    """What a record is known by."""
    return Taken(record.offset, record.timestamp, zlib.crc32(record.key or b""))


class Command(Struct, eq=False):
    """What an operator asks of some orders; `done` is resolved once it is committed."""

    subjects: Sequence[str]
    change: Callable[[OrderRecord, int], OrderRecord]
    done: asyncio.Future[int]
    changed: int = 0
    """Orders that it changed anything about."""


class Skip(Struct, eq=False):
    """Where an operator moves the position to; `done` is resolved once it is committed."""

    offset: int
    looked_at: int
    """Where the position was when it was found that it may be moved there."""
    done: asyncio.Future[None]


class PartitionActor:
    """Owns one partition from its fence to its end. A new ownership is a new actor."""

    def __init__(  # noqa: PLR0915 - one line for each thing that it holds
        self,
        partition: int,
        hold: PartitionWriter,
        context: Context,
        warm: Warm | None,
        changed: Callable[[], None] = lambda: None,
        rivalled: Callable[[tuple[str, int] | None], None] | None = None,
        lean_below: int = 0,
        start_at: int | None = None,
        lean_results: bool = False,
    ) -> None:
        """`changed` is called when the role has changed, `rivalled` with the owner, and the offset of its barrier,
        that was found to have come between this actor and what `warm` remembers; `None`: there was none. `lean_below`:
        dead letters of records before this offset were refused for their size. `start_at`: how far the input was taken,
        by an operator's word. `lean_results`: results were refused for their size.
        """
        self.partition = partition
        self.role: Role = "restoring"
        self.detail = ""
        self.has_served = False
        self.is_over = False
        """It has ended; a halted one is shown for as long as the partition is ours."""
        self.lean_below, self.lean_results = lean_below, lean_results
        self._start_at = start_at
        self.orders: dict[str, bytes] = {}
        self.outbox = Outbox()
        self.unconfigured = 0
        """Orders of accounts that nobody has configured."""
        self.next_offset = 0
        """The next input offset that is not committed; what is no record is passed without a commit of its own."""
        self.wanted_offset = 0
        """The next input offset that was not fed."""
        self.ticked_at = context.clock.now()
        self.lease_until = 0.0
        self._hold = hold
        self._context = context
        self._warm = warm
        self._changed = changed
        self._rivalled = rivalled
        self._position = 0
        self._last_next: NextRecord | None = None
        self._targets: dict[str, Target] = {}
        self._taken: Taken | None = None
        """Of the last record in the state."""
        self._expected: Taken | None = None
        """What the input is to begin with: the record that was taken last. `None`: that was seen, or cannot be."""
        self.inbox = Inbox()
        self._outcomes: deque[tuple[Attempt, Outcome, float]] = deque()
        self._changes: deque[Change] = deque()
        self._commands: deque[Command] = deque()
        self._skip: Skip | None = None
        self._committed_with: list[Command] = []
        """Commands in the transaction under way."""
        self._beyond: set[str] = set()
        """Orders whose record is larger than the state topic takes now: nothing that becomes of them could be kept."""
        self._inherited: dict[str, None] = {}
        """Orders whose inherited doubt stands in memory only; in order, so that a simulation repeats."""
        self._awaiting_lease: list[str] = []
        self._untold: deque[tuple[float, str]] = deque()
        """When others are to be told that an order is owed, should it be so for so long: all wait equally long, so in
        their order. Most are settled by then."""
        self._prepared = self._in_flight = 0
        self._wake = asyncio.Event()
        self._lease_wanted = self._committing = self._left_in_order = False
        self._committed_at = 0.0
        self._leave_at: float | None = None
        self.job_records: dict[str, bytes] = {}
        self.jobs = None if context.make_jobs is None or not context.sending else context.make_jobs(self)
        self._job_work = Slice(context)
        self.closed = ClosedOrders()
        self._hand = Hand(context.clock.chance())
        self._hand_at = context.clock.now()
        """When orders are looked at that may have to be closed."""
        self._due: list[DueOrder] = []
        """Found since the last transaction."""
        self._failed: InvariantError | None = None
        self._jobs_in: list[JobChange] = []
        """What jobs have in the transaction under way."""

    # --- its life ---

    async def run(self, restoring: asyncio.Semaphore) -> None:
        """From the fence to the end; `restoring` bounds how many restore at once.

        Raises `LogError` when the hold is lost: the partition may be taken anew; `DamagedStateError` when its state
        holds what we did not write.
        """
        try:
            async with restoring:
                await self._take_over()
            await self._serve()
        except MsgspecError as error:
            raise await self._damage(error) from error
        finally:
            self._let_go()
            await self._hold.close()

    def leave(self, drain_s: float) -> None:
        """Asks it to end in order: attempts under way get `drain_s` seconds, then they are given up and marked."""
        self._leave_at = self._context.clock.now() + drain_s
        if self.role in ("serving", "halted"):
            self.role = "closing"
            self._context.dispatcher.withdraw(self)
        self._wake.set()

    def warm(self) -> Warm | None:
        """What a later owner in this process can start from; `None` when there is nothing."""
        if self._last_next is None:
            return self._warm
        now = self._context.clock.now()
        return Warm(
            self.orders, self._position, self._last_next, now, self._targets, self.job_records, self.closed.chunks
        )

    def _let_go(self) -> None:
        self.role = "closed"
        self.is_over = True
        self.lease_until = 0.0
        self._context.dispatcher.withdraw(self)
        self._context.dispatcher.abandon(self)
        if self.jobs is not None:
            self.jobs.close()
        asked: list[asyncio.Future[Any]] = [command.done for command in (*self._committed_with, *self._commands)]
        for done in asked if self._skip is None else [*asked, self._skip.done]:
            if not done.done():
                done.set_exception(UsageError("the partition is changing hands; look, and ask again"))
        log.info(
            "partition_released", partition=self.partition, clean=self._left_in_order, next_offset=self.next_offset
        )

    # --- restore (steps 3 to 9) ---

    async def _take_over(self) -> None:
        context = self._context
        began = context.clock.now()
        found = await restore(self._hold, context, self._warm, self.partition, self._start_at)
        if self._warm is not None and self._rivalled is not None:
            self._rivalled(found.rival)
        self.orders, self._position, self._targets = found.orders, found.position, found.targets
        self.job_records = found.jobs
        self.closed = ClosedOrders(found.closed)
        self.next_offset = await self._first_offset(found)
        if self._start_at is not None and not await self._may_go_back(self._start_at):
            raise DamagedStateError(
                f"partition {self.partition}: events from offset {self._start_at} on were taken already, by the "
                "revisions of its orders; `cartsync input skip` has to name a later offset",
                is_position=True,
            )
        clean = found.next is not None and found.next.clean
        anew = await self._changed_targets(found)
        await self._inherit(found, clean)
        changed_jobs = self._restore_jobs(found, clean)
        for account in anew:
            await self._tell_anew(account)
        await self._write(changed_jobs + self._targets_entry(found), self._next(self.next_offset, clean=False))
        self.wanted_offset = self.next_offset
        if self._taken is not None and self._taken.offset < self.next_offset:
            self._expected = self._taken
            self.wanted_offset = self._taken.offset
        context.events.seek(self.partition, self.wanted_offset)
        context.events.resume(self.partition)
        self.role, self.has_served = "serving", True
        self._changed()
        context.metrics.restored(context.clock.now() - began)
        log.info(
            "partition_serving",
            partition=self.partition,
            orders=len(self.orders),
            owed=self.figures().owed,
            clean=clean,
            next_offset=self.next_offset,
            records=found.records,
            seconds=round(context.clock.now() - began, 3),
        )

    def figures(self) -> Figures:
        """How many of its orders wait, and for what."""
        total = Figures()
        for count in self.outbox.figures(self._context.destinations, self._context.clock.now()).values():
            total.add(count)
        return total

    async def _first_offset(self, found: Restored) -> int:
        context = self._context
        if found.next is not None:
            if not reads_anew(context.deployment, found.next.deployment):
                self._taken = found.next.taken
                return found.next.offset
            log.warning("input_begins_anew", partition=self.partition, former_offset=found.next.offset)
            return await context.events.start_offset(self.partition, context.start_latest)
        group_offset = await self._context.events.group_offset(self.partition)
        if group_offset:
            await write_barrier(self._hold, self._context)  # a successor that read on explains it, too: then we go
            raise TopicError(
                f"partition {self.partition}: the group has read up to offset {group_offset}, but the state topic is "
                "empty: it was lost or is the wrong one. Restore it, or reset the group to start anew"
            )
        return await self._context.events.start_offset(self.partition, self._context.start_latest)

    async def _inherit(self, found: Restored, clean: bool) -> None:
        """Orders that a predecessor may have under way are held; all that is owed gets its turn."""
        context = self._context
        now, now_ms = context.clock.now(), context.clock.wall_ms()
        hold_until = found.fenced_at + context.rules.takeover_hold_s
        work, value_max_bytes = Slice(context), self._hold.value_max_bytes
        for count, (subject, value) in enumerate(self.orders.items()):
            if count % _SMALL_EVENTS == 0 and work.is_over():
                await work.pause()
            header = state.decode_header(value)
            account = account_of(subject)
            if account not in context.destinations:
                self.unconfigured += 1
                context.tell_unconfigured(account, self.partition)
            if size := is_too_large(subject, value, value_max_bytes):
                self._set_aside(subject, header.revision, size)
                continue
            held = header.may_land_late or (not clean and records.must_inherit(header))
            if held and not clean:
                record = records.inherit(state.decode_order(value))
                self.orders[subject] = state.encode(record)
                self._inherited[subject] = None
                header = record
            elif header.not_before_ms:
                header = state.decode_order(value)  # what kind of delay it is
            if context.sending and (held or header.revision != header.acked):
                self._put(subject, header, now, now_ms, hold_until if held else 0.0)
                self._note_payment(subject, value)

    def _restore_jobs(self, found: Restored, clean: bool) -> list[tuple[bytes, bytes | None]]:
        """What has to be written before anything is sent: a page that may be under way is in doubt from now on."""
        if self.jobs is None:
            return []
        hold_until = found.fenced_at + self._context.rules.takeover_hold_s
        is_clean = clean or found.next is None  # or nobody was there before
        return self._changed_jobs(self.jobs.restore(found.jobs, is_clean=is_clean, hold_until=hold_until))

    def _changed_jobs(self, changed: dict[str, bytes]) -> list[tuple[bytes, bytes | None]]:
        self.job_records |= changed
        return [(key.encode(), value) for key, value in changed.items()]

    def _note_payment(self, subject: str, value: bytes) -> None:
        """What waits for its payment is not owed, as far as anybody is told before it is looked at."""
        entry = self.outbox.entries.get(subject)
        if entry is None or entry.waiting:
            return
        if (
            payment := records.payment_now(state.decode_order(value).sealed)
        ) is not None and payment.state != "approved":
            entry.waiting = payment.state

    async def _changed_targets(self, found: Restored) -> list[str]:
        """Accounts whose orders have to be told anew, as others are told now. Raises `TargetChange`."""
        context, anew = self._context, []
        changes = list(changed_targets(found.targets, self._accounts()))
        if not changes:
            return []
        counts: Counter[str] = Counter()
        work = Slice(context)
        for count, subject in enumerate(self.orders):
            if count % _SMALL_EVENTS == 0 and work.is_over():
                await work.pause()
            counts[account_of(subject)] += 1
        for name, old, new in changes:
            orders = counts[name]
            choice = context.accepted_targets.get(name)
            if choice is None and orders:
                raise needs_choice(name, old, new, orders, self.partition)
            if choice == "send":
                anew.append(name)
            fields = {"old": str(old), "new": str(new), "choice": choice, "orders": orders}
            log.warning("account_target_changed", partition=self.partition, account=name, **fields)
        return anew

    def _accounts(self) -> list[Account]:
        """Those that are told: in shadow mode nobody is."""
        return [each.account for each in self._context.destinations.values()] if self._context.sending else []

    def _targets_entry(self, found: Restored) -> list[tuple[bytes, bytes | None]]:
        """Whom the accounts tell from now on, where that is news; accounts that are gone may come back."""
        self._targets = found.targets | {account.name: target_of(account) for account in self._accounts()}
        if self._targets == found.targets:
            return []
        return [(state.TARGETS_KEY, state.encode(TargetsRecord(state.SCHEMA, self._targets)))]

    async def _tell_anew(self, account: str) -> None:
        """Makes all orders of an account owed again, in transactions of bounded size.

        Whom they are told is written after the last of them: after a crash in between it is begun anew, which does no
        harm. Raises `TopicError` when one of them cannot be written.
        """
        if beyond := [subject for subject in self._beyond if account_of(subject) == account]:
            raise TopicError(
                f"partition {self.partition}: all orders of account {account} are to be told anew, and the state topic "
                f"does not take {len(beyond)} of them any more: raise its max.message.bytes first"
            )
        if self.jobs is not None and (forgotten := self._changed_jobs(self.jobs.forget(account))):
            await self._write(forgotten, self._next(self.next_offset, clean=False))
        clock, work = self._context.clock, Slice(self._context)
        made: list[tuple[str, OrderRecord, bytes]] = []
        size = 0
        for subject in list(self.orders):
            if work.is_over():
                await work.pause()
            if account_of(subject) != account:
                continue
            record = state.decode_order(self.orders[subject])
            record = records.resend(record, clock.wall_ms())
            record.remote = b""  # it was about another one
            made.append((subject, record, state.encode(record)))
            size += len(made[-1][2])
            if len(made) >= _AT_ONCE_MAX or size >= _AT_ONCE_MAX_BYTES:
                await self._write_anew(made)
                made, size = [], 0
        if made:
            await self._write_anew(made)

    async def _write_anew(self, made: list[tuple[str, OrderRecord, bytes]]) -> None:
        clock = self._context.clock
        entries: list[tuple[bytes, bytes | None]] = [
            ((state.ORDER_PREFIX + subject).encode(), value) for subject, _, value in made
        ]
        await self._write(entries, self._next(self.next_offset, clean=False))
        for subject, record, value in made:
            self.orders[subject] = value
            self._inherited.pop(subject, None)
            self._put(subject, record, clock.now(), clock.wall_ms(), 0.0)

    def _set_aside(self, subject: str, revision: int, size: int) -> None:
        """An order that the state topic does not take any more: to send it would be to send it for ever."""
        limit = self._hold.value_max_bytes
        self._beyond.add(subject)
        self.detail = (
            f"{len(self._beyond)} orders are not sent, for the state topic does not take their records any more (the "
            f"last one has {size} bytes, it takes {limit}): raise its max.message.bytes, then restart the worker"
        )
        fields = {"order": subject, "revision": revision, "bytes": size, "limit": limit}
        log.error("order_beyond_limit", partition=self.partition, **fields)

    async def _damage(self, error: MsgspecError) -> Exception:
        """What cannot be decoded, and where it is; the error itself when it was not an order of ours."""
        work = Slice(self._context)
        for subject, value in self.orders.items():
            if work.is_over():
                await work.pause()
            try:
                state.decode_whole(value)
            except MsgspecError:
                key, offset = (state.ORDER_PREFIX + subject).encode(), -1
                async for entries in self._hold.read(0, self._position - 1):
                    offset = max([offset, *(entry.offset for entry in entries if entry.key == key)])
                return damaged(self.partition, offset, key, error)
        return error

    # --- mail ---

    def feed(self, records: Sequence[InputRecord]) -> None:
        """Events, in the order of their offsets."""
        if self._expected is not None and not (records := self._checked(records, self._expected)):
            return
        self.inbox.put(records)
        self.wanted_offset = after(records[-1])
        self._wake.set()

    def _checked(self, records: Sequence[InputRecord], expected: Taken) -> Sequence[InputRecord]:
        """What is to be taken of the first records, once the one that was taken last is found among them again."""
        self._expected = None
        self.wanted_offset = self.next_offset
        first = records[0]
        is_legible = type(first) is not UndecodableRecord  # what is damaged now tells nothing of what it was
        if is_legible and first.offset == expected.offset and taken(first) != expected:
            self._context.events.pause(self.partition)
            self.halt(
                f"the event topic is another one: offset {expected.offset} does not hold the record that was taken "
                "there. It was deleted and made again, or copied. `input skip` goes on with it from any offset"
            )
            return []
        return [record for record in records if after(record) > self.next_offset]

    def give_up_check(self) -> bool:
        """Retention has removed the record that was to be seen again (false: none was): the input goes on behind it."""
        was_expected, self._expected = self._expected is not None, None
        if was_expected:
            self.wanted_offset = self.next_offset
        return was_expected

    def pass_to(self, position: int) -> None:
        """Below this offset the input has no record that was not fed: only markers of the shop's transactions, and what
        was aborted. Left behind, they would be taken for a gap once retention has removed them.
        """
        self.wanted_offset = max(self.wanted_offset, position)
        if not self._committing:
            self._pass()

    def _pass(self) -> None:
        if not self.inbox:
            self.next_offset = max(self.next_offset, self.wanted_offset)

    def fills(self, part: float) -> bool:
        """Whether the inbox holds more than this part of what it may."""
        pace = self._context.pace
        return len(self.inbox) > pace.inbox_records_max * part or self.inbox.bytes > pace.inbox_bytes_max * part

    def done(self, attempt: Attempt, outcome: Outcome) -> None:
        """`ports.AttemptSource`: what became of an attempt."""
        self._in_flight -= 1
        if attempt.errand is not None:
            assert self.jobs is not None  # it was theirs
            self.jobs.done(attempt.subject, outcome)
            self._wake.set()
            return
        self._outcomes.append((attempt, outcome, self._context.clock.now()))
        self._wake.set()

    async def command(self, subjects: Sequence[str], change: Callable[[OrderRecord, int], OrderRecord]) -> int:
        """Changes orders' records as an operator asks, in one transaction; returns how many it changed once that is
        committed. Raises `UsageError`.
        """
        self._require_working()
        for subject in subjects:
            if subject not in self.orders:
                raise UsageError(f"no order {subject} is known")
            if subject in self._beyond:
                raise UsageError(self.detail)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._commands.append(Command(subjects, change, done))
        self._wake.set()
        return await done

    async def release_all(self, account: str, reason_contains: str) -> int:
        """Releases the parked orders of an account, or those whose reason contains a text, in transactions of bounded
        size; returns how many once that is committed. Raises `UsageError`.
        """
        prefix, work, released = f"{account}/", Slice(self._context), 0
        chosen: list[str] = []
        size = 0
        for subject, entry in list(self.outbox.entries.items()):
            if work.is_over():
                await work.pause()
            if entry.waiting != "parked" or not subject.startswith(prefix):
                continue
            value = self.orders[subject]
            park = state.decode_header(value).park
            if park is None or reason_contains not in park.reason:
                continue
            chosen.append(subject)
            size += len(value)
            if len(chosen) >= _AT_ONCE_MAX or size >= _AT_ONCE_MAX_BYTES:
                released += await self.command(chosen, records.release_by_operator)
                chosen, size = [], 0
        return released + (await self.command(chosen, records.release_by_operator) if chosen else 0)

    def _require_working(self) -> None:
        if self.is_over or self.role not in ("serving", "halted"):
            raise UsageError(f"partition {self.partition} is {self.role}; ask again in a while")

    async def skip(self, offset: int) -> None:
        """Moves the position, over what cannot be read or shall not be; returns once that is committed.

        Raises `UsageError` when the topic does not hold the offset, or when orders could go back by it.
        """
        self._require_working()
        if self._skip is not None:
            raise UsageError(f"partition {self.partition} is being moved already")
        begin, end = [await self._context.events.start_offset(self.partition, latest) for latest in (False, True)]
        if not begin <= offset <= end:
            raise UsageError(f"partition {self.partition} of the input holds offsets {begin} to {end}, not {offset}")
        if offset == self.next_offset and self.role == "serving":
            raise UsageError(f"partition {self.partition} is at offset {offset} already")
        looked_at = self.next_offset
        if offset < looked_at and not await self._may_go_back(offset):
            raise UsageError(
                f"partition {self.partition} is at offset {looked_at}; back to {offset} its orders would get "
                "older revisions than they have, so only after [worker] topic_epoch was raised"
            )
        self._require_working()
        self._skip = skip = Skip(offset, looked_at, asyncio.get_running_loop().create_future())
        self._wake.set()
        await skip.done

    async def _may_go_back(self, offset: int) -> bool:
        """Whether what is read from there on makes newer revisions than all that there are."""
        work, revision = Slice(self._context), self._context.topic_epoch << state.TOPIC_EPOCH_BITS | (offset + 1)
        for value in list(self.orders.values()):
            if work.is_over():
                await work.pause()
            if state.decode_header(value).revision >= revision:
                return False
        return True

    def halt(self, reason: str, order: str = "") -> None:
        """Takes no events any more; what is owed is still sent. `order`: that it is about one."""
        self.role, self.detail = "halted", reason
        self._changed()
        log.critical("partition_halted", partition=self.partition, reason=reason, **({"order": order} if order else {}))

    # --- process (steps 10 to 13) ---

    async def _serve(self) -> None:
        clock = self._context.clock
        while not (self._leave_at is not None and self._in_flight == 0 and not self._outcomes and not self._jobs_owe()):
            self.ticked_at = now = clock.now()
            if self._failed is not None:
                raise self._failed
            if self._leave_at is not None:
                self._closing(now)
            else:
                await self._look(now)
            if self.jobs is not None and self._has_jobs_due(now):
                await self.jobs.look(is_leaving=self._leave_at is not None)
            self._look_for_due(now)
            if self._has_mail() or self._lease_wanted:
                self._committing = True
                await self._pace()
                await self._commit(clean=False)
                self._committing = False
            elif self._leave_at is not None and self._in_flight == 0:
                break
            else:
                await self._sleep(self._next_look())
        await self._keep_inherited()
        await self._commit(clean=True)
        self._left_in_order = True

    async def _keep_inherited(self) -> None:
        """Writes what stands in memory only, in transactions of bounded size; the last ones go with what follows."""
        kept: list[str] = []
        size = 0
        for subject in list(self._inherited):
            kept.append(subject)
            size += len(self.orders[subject])
            if size >= self._context.pace.batch_bytes_max:
                await self._commit(clean=False, keeping=kept)
                kept, size = [], 0

    def _closing(self, now: float) -> None:
        self.role = "closing"
        if self.inbox:
            self.wanted_offset = self.inbox.next_offset  # dropped: the next owner takes them
            self.inbox.clear()
        assert self._leave_at is not None
        if now >= self._leave_at and self._in_flight:
            self._context.dispatcher.abandon(self)

    def _has_mail(self) -> bool:
        events = bool(self.inbox) and self.role == "serving"
        jobs = self.jobs is not None and self.jobs.has_mail()
        return events or jobs or bool(self._due or self._outcomes or self._changes or self._commands or self._skip)

    def _has_jobs_due(self, now: float) -> bool:
        if self.jobs is None:
            return False
        return self.jobs.owes() if self._leave_at is not None else self.jobs.next_due() <= now

    def _jobs_owe(self) -> bool:
        return self.jobs is not None and self.jobs.owes()

    def is_quiet(self) -> bool:
        """No mail, nothing under way, nothing being committed."""
        busy = self._committing or self._has_mail() or self._in_flight > 0
        return self.role in ("serving", "halted") and not busy

    def busy_s(self, now: float) -> float:
        """For how long it has been at one batch; 0 when it waits for mail."""
        return now - self.ticked_at if self._committing else 0.0

    def _next_look(self) -> float:
        if self._leave_at is not None:
            return max(self._leave_at, self._context.clock.now() + 0.05)
        due = min(self.outbox.next_due(), self._committed_at + self._context.pace.idle_commit_s)
        if self._untold:
            due = min(due, self._untold[0][0])
        if self.role == "serving":
            due = min(due, self._hand_at)
        return due if self.jobs is None else min(due, self.jobs.next_due())

    async def _sleep(self, until: float) -> None:
        """Until there is mail or the clock says `until`."""
        self._wake.clear()
        if self._has_mail() or self._has_jobs_due(self._context.clock.now()):
            return
        alarm = None
        if until != NEVER:
            delay_s = max(0.0, until - self._context.clock.now())
            alarm = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        await self._wake.wait()
        if alarm is not None:
            alarm.cancel()
        if self._context.clock.now() >= self._committed_at + self._context.pace.idle_commit_s:
            self._lease_wanted = True

    async def _pace(self) -> None:
        """Lets a busy partition's batch grow; an idle one commits at once."""
        if self._leave_at is not None or self._lease_wanted:
            return
        wait_s = self._committed_at + self._context.commit_interval_s() - self._context.clock.now()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _commit(self, *, clean: bool, keeping: Sequence[str] = ()) -> None:
        """Everything in the mailbox becomes one transaction, or so much of it as fits into one; then, and only then, it
        is so. `keeping`: orders that are written as they stand in memory; with `clean` all that stand there only.
        """
        context = self._context
        hold = self._hold
        batch = Batch(
            self.partition,
            self.orders,
            context,
            self.next_offset,
            hold.value_max_bytes,
            hold.letter_max_bytes,
            self.lean_below,
            min(hold.result_max_bytes, LEAN_BYTES) if self.lean_results else hold.result_max_bytes,
            self.closed,
        )
        skip = self._skip_now()
        await self._fill(batch, takes_events=skip is None)
        for subject in self._inherited if clean else keeping:
            batch.keep(subject)
        if skip is not None:
            batch.next_offset = skip.offset
            self._taken = self._expected = None  # another record will be the last one
        self._lease_wanted = False
        # What an order beyond the limit is not sure of cannot be marked in it, so the next owner has to hold it.
        following = self._next(batch.next_offset, clean=clean and not self._beyond)
        try:
            await self._write(batch.entries(), following, batch.dead_letters, batch.results)
        except SizeRefusedError:
            if batch.dead_letters:
                self.lean_below = batch.next_offset
            self.lean_results = self.lean_results or bool(batch.results)
            raise
        self.next_offset = batch.next_offset
        if skip is None:
            self._pass()
        self._apply(batch)
        await batch.announce()
        if skip is not None:
            self._moved(skip)
        for command in self._committed_with:
            if not command.done.done():
                command.done.set_result(command.changed)
        self._committed_with = []
        written, self._jobs_in = self._jobs_in, []
        for change in written:
            change.done()

    def _skip_now(self) -> Skip | None:
        """The move that is to be made, unless events were taken meanwhile over which it would go back."""
        skip = self._skip
        if skip is None or skip.offset >= self.next_offset or skip.looked_at == self.next_offset:
            return skip
        self._skip = None
        if not skip.done.done():
            error = UsageError(f"partition {self.partition} has come to offset {self.next_offset} meanwhile; ask again")
            skip.done.set_exception(error)
        return None

    def _moved(self, skip: Skip) -> None:
        """What was fed from the old position is nothing any more; the partition is served from the new one on."""
        events = self._context.events
        self._skip = None
        self.inbox.clear()
        self.wanted_offset = skip.offset
        if self.role == "halted":
            self.role, self.detail = "serving", ""
        if not skip.done.done():
            skip.done.set_result(None)
        if self.role == "serving":
            events.seek(self.partition, skip.offset)
            events.resume(self.partition)
        self._changed()

    async def _fill(self, batch: Batch, *, takes_events: bool) -> None:
        work, bytes_max = Slice(self._context), self._context.pace.batch_bytes_max
        self._jobs_in = [] if self.jobs is None else self.jobs.changes()
        for change in self._jobs_in:
            await batch.job(change, work)
        while self._outcomes and batch.bytes < bytes_max:
            if work.is_over():
                await work.pause()
            attempt, outcome, ended_at = self._outcomes.popleft()
            batch.outcome(attempt, outcome, ended_at)
        while self._changes and batch.bytes < bytes_max:
            if work.is_over():
                await work.pause()
            batch.change(self._changes.popleft())
        while self._commands and batch.bytes < bytes_max:
            if work.is_over():
                await work.pause()
            command = self._commands.popleft()
            self._committed_with.append(command)
            command.changed = sum([batch.command(subject, command.change) for subject in command.subjects])
        if takes_events and self.role == "serving":
            await self._take_events(batch, work)
        due, self._due = self._due, []
        batch.close(due)

    def _look_for_due(self, now: float) -> None:
        """The next few orders: whether they are to be closed. Of accounts that nobody has configured nothing is."""
        context = self._context
        if now < self._hand_at or self.role != "serving":
            return
        self._hand_at = now + look_every_s(len(self.orders))
        if not context.sending:
            return
        at_rest = [
            subject
            for subject in self._hand.next(self.orders)
            if subject not in self.outbox.entries and account_of(subject) in context.destinations
        ]
        self._due = list(find_due(at_rest, self.orders, context.clock.wall_ms(), context.keep_settled_ms))

    async def _take_events(self, batch: Batch, work: Slice) -> None:
        """As many as one transaction is to have, by their number, their bytes and the time that they take."""
        context, inbox, pace = self._context, self.inbox, self._context.pace
        count, began = 0, context.clock.now()
        while inbox and count < pace.batch_records_max and batch.bytes < pace.batch_bytes_max:
            records = inbox.first(min(EVENTS_AT_ONCE, pace.batch_records_max - count), EVENTS_AT_ONCE_BYTES)
            bytes_max = min(batch.bytes + EVENTS_AT_ONCE_BYTES, pace.batch_bytes_max)
            done = batch.events(records, self._is_in_flight, bytes_max)
            inbox.drop(done)
            count += done
            if work.is_over():
                if context.clock.now() - began > pace.batch_s:
                    break
                await work.pause()
        if batch.last_record is not None:
            self._taken = taken(batch.last_record)

    def _is_in_flight(self, subject: str) -> bool:
        entry = self.outbox.entries.get(subject)
        return entry is not None and entry.in_flight

    async def _write(
        self,
        entries: list[tuple[bytes, bytes | None]],
        following: NextRecord,
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
    ) -> None:
        """One transaction with `m:next` in it; extends the lease from the moment it began."""
        clock = self._context.clock
        began = clock.now()
        entries.append((state.NEXT_KEY, state.encode(following)))
        last = await self._hold.write(entries, dead_letters, results)
        if last < self._position:
            raise TopicError(remade(self._position, last))
        self._committed_at = began
        self.lease_until = began + self._context.rules.lease_s
        self._position, self._last_next = last + 1, following
        self._context.metrics.committed(clock.now() - began, len(entries) + len(dead_letters) + len(results))

    def _apply(self, batch: Batch) -> None:
        context = self._context
        now, now_ms = context.clock.now(), context.clock.wall_ms()
        self.unconfigured += len(batch.unconfigured)
        self.job_records |= batch.jobs
        for subject in batch.gone:
            del self.orders[subject]
            self._beyond.discard(subject)
            self._inherited.pop(subject, None)
        for key, kept in batch.closed.items():
            if kept is None:
                del self.closed.chunks[key]
            else:
                self.closed.chunks[key] = kept
        for subject, header, value in batch.changed():
            self.orders[subject] = value
            self._beyond.discard(subject)
            self._inherited.pop(subject, None)
            entry = self.outbox.entries.get(subject)
            if entry is not None:
                entry.in_flight = entry.in_flight and subject not in batch.holds
                self._prepared -= entry.prepared is not None
            if context.sending:
                self._put(subject, header, now, now_ms, batch.holds.get(subject, 0.0))
        waiting, self._awaiting_lease = self._awaiting_lease, []
        for subject in waiting:
            if subject in self.outbox.entries:
                self.outbox.schedule(subject, now)

    def _put(self, subject: str, header: OrderHeader, now: float, now_ms: int, hold_until: float) -> None:
        delay_s, may_go_early, has_failed, waits = 0.0, False, False, False
        if header.not_before_ms and isinstance(header, OrderRecord):
            delay_s, may_go_early = delay_max_s(header, self._context.rules), is_transient(header)
            has_failed = not awaits_result(header)
            waits = awaits_change(header)
        self.outbox.put(
            subject,
            header,
            now=now,
            now_ms=now_ms,
            hold_until=hold_until,
            delay_max_s=delay_s,
            may_go_early=may_go_early,
            has_failed=has_failed,
            awaits_change=waits,
        )

    def _next(self, offset: int, *, clean: bool) -> NextRecord:
        context = self._context
        return NextRecord(
            state.SCHEMA, offset, context.topic_epoch, clean, context.version, self._taken, context.deployment
        )

    # --- publish (steps 14 and 15) ---

    def _may_send(self) -> bool:
        return self._context.clock.now() + self._context.rules.attempt_deadline_s <= self.lease_until

    async def _look(self, now: float) -> None:
        """Decides about the orders that are due: offered to the publisher, acknowledged, parked, or left to wait.

        The mail has to wait meanwhile, so not for long; but a transaction may be followed by more than one slice.
        """
        work, until, untold = Slice(self._context), now + self._context.pace.look_s, self._untold
        while untold and untold[0][0] <= now:
            tell_at, waiting = untold.popleft()
            entry = self.outbox.entries.get(waiting)
            if entry is not None and entry.tell_at == tell_at and not entry.in_flight:  # else its outcome tells
                self.outbox.schedule(waiting, now)
        while self._leave_at is None and now < until and (subject := self.outbox.pop_due(now)) is not None:
            self._look_at(subject, now)
            if work.is_over():
                await work.pause()
                now = self._context.clock.now()

    def _look_at(self, subject: str, now: float) -> None:
        entry = self.outbox.entries[subject]
        destination = self._context.destinations.get(account_of(subject))
        if destination is not None and not entry.has_news and self._has_enough(entry, now, destination.account.name):
            self._offer(subject, None, now)
            # Its turn may be hours away, and what is wrong with it is to be seen before.
            entry.has_news = True
            self.outbox.schedule(subject, now + _JUDGE_AFTER_S)
            return
        record = state.decode_order(self.orders[subject])
        if record.revision == record.acked:
            if entry.hold_until > now:  # the next change has to wait for it
                self.outbox.schedule(subject, entry.hold_until)
            else:
                del self.outbox.entries[subject]
            return
        if destination is None:
            self._wait(subject, record, plan_unconfigured(record, subject), now)
            return
        plan = plan_order(record, subject, destination)
        if isinstance(plan, Send):
            if entry.awaits_change and not self._still_waits(subject, plan, destination):
                entry.not_before, entry.awaits_change = now, False
            tells = self._context.reporting is not None and self._tells_owed(subject, record, plan, destination, now)
            if tells or record.inconsistent_since_ms or record.park is not None:
                self._changes.append(Change(subject, self.orders[subject], plan))
            self._offer(subject, plan, now)
        else:
            self._wait(subject, record, plan, now)

    def _still_waits(self, subject: str, plan: Send, destination: Destination) -> bool:
        """Whether its adapter would still have it wait for a job or for a change: its account may be another one now,
        and what a job kept of it. One that can be read has to be asked, which a change brings about.
        """
        if destination.provider.can_read:
            return True
        asked = Question(
            reference_of(subject),
            destination.account,
            plan.update,
            plan.remote,
            plan.may_land_late,
            plan.remote_unknown,
            now_ms=self._context.clock.wall_ms(),
        )
        step = destination.provider.next_step(asked)
        return isinstance(step, AwaitResult) and step.poll_s is None

    def look_anew(self) -> None:
        """Accounts were read again: what waits for a job may not have to any more."""
        now = self._context.clock.now()
        for subject, entry in self.outbox.entries.items():
            if entry.awaits_change and not entry.in_flight:
                self.outbox.schedule(subject, now)
        if self.jobs is not None:
            self.jobs.look_anew()
        self._wake.set()

    def _tells_owed(self, subject: str, record: OrderRecord, plan: Send, destination: Destination, now: float) -> bool:
        """Whether others are to be told now that it is owed. Not at once: usually it is settled soon."""
        reporting, entry = self._context.reporting, self.outbox.entries[subject]
        assert reporting is not None  # who calls has looked
        was_owed = record.told is not None and record.told.status == "owed"
        if was_owed and not is_news(record, find_ready(record, plan.shown, destination), reporting):
            entry.tell_at = NEVER
            return False
        if entry.tell_at == NEVER:
            entry.tell_at = now + self._context.pace.tell_owed_after_s
            self._untold.append((entry.tell_at, subject))
        if now < entry.tell_at:
            return False
        entry.tell_at = NEVER
        return True

    def _has_enough(self, entry: Entry, now: float, account: str) -> bool:
        """So many are prepared that this one is judged when its turn comes: now and then would be twice the work."""
        may_come_soon = entry.not_before <= now and not self._context.dispatcher.waits(account)
        return may_come_soon and self._prepared >= self._context.pace.prepared_max

    def _offer(self, subject: str, plan: Send | None, now: float) -> None:
        entry = self.outbox.entries[subject]
        entry.waiting = ""
        is_delayed = entry.not_before > now
        if is_delayed and not entry.may_go_early:
            self.outbox.schedule(subject, entry.not_before)
            return
        if entry.hold_until > now:
            self.outbox.schedule(subject, entry.hold_until)
            return
        if not is_delayed and not self._may_send():
            self._await_lease(subject)
            return
        has_room = not is_delayed and self._prepared < self._context.pace.prepared_max
        if plan is not None and has_room and entry.prepared is None:
            entry.prepared = plan
            self._prepared += 1
        if entry.queued:
            return  # its offer still stands
        entry.queued = True
        self._context.dispatcher.offer(
            account_of(subject),
            entry.owed_since_ms,
            subject,
            self,
            has_failed=entry.has_failed,
            not_before=entry.not_before,
        )

    def _await_lease(self, subject: str) -> None:
        self._context.metrics.lease_refused()
        self._awaiting_lease.append(subject)
        self._lease_wanted = True
        self._wake.set()

    def _wait(self, subject: str, record: OrderRecord, plan: Acknowledge | Park | Wait, now: float) -> None:
        context, entry = self._context, self.outbox.entries[subject]
        if not isinstance(plan, Wait):
            self._changes.append(Change(subject, self.orders[subject], plan))
            return
        entry.waiting, entry.is_overdue = plan.state, False
        now_ms = context.clock.wall_ms()
        since_ms, after_s = 0, 0.0
        if plan.state == "unconfirmed":
            since_ms, after_s = record.unconfirmed_since_ms, context.rules.unconfirmed_after_s
        elif plan.state == "inconsistent":
            since_ms, after_s = record.inconsistent_since_ms or now_ms, context.rules.inconsistent_after_s
        if since_ms:
            if since_ms != entry.waiting_since_ms:
                left_s = after_s - max(0, now_ms - since_ms) / 1000
                entry.waiting_since_ms, entry.overdue_at = since_ms, now + max(0.0, left_s)
            entry.is_overdue = now >= entry.overdue_at
            if not entry.is_overdue:
                self.outbox.schedule(subject, entry.overdue_at)
        reporting = context.reporting
        destination = context.destinations.get(account_of(subject))
        tells = reporting is not None and is_news(
            record, find_waiting(record, subject, plan, destination, is_overdue=entry.is_overdue), reporting
        )
        if tells or plan.contradicts != bool(record.inconsistent_since_ms):
            self._changes.append(Change(subject, self.orders[subject], plan, entry.is_overdue))
        elif entry.is_overdue:  # else it is looked at again once that is committed
            log.warning(
                "order_unresolved",
                order=subject,
                revision=record.revision,
                event_id=records.newest_event(record),
                partition=self.partition,
                status=plan.state,
            )

    def take(self, subject: str) -> Attempt | None:
        """`ports.AttemptSource`: what is owed for the order as of now."""
        if "/" not in subject:
            return self._take_job(subject)
        entry = self.outbox.entries.get(subject)
        if entry is None or not entry.queued or self.role not in ("serving", "halted"):
            return None
        entry.queued = False
        now = self._context.clock.now()
        prepared, entry.prepared = entry.prepared, None
        if prepared is not None:
            self._prepared -= 1
        if entry.hold_until > now or (entry.not_before > now and not entry.may_go_early):
            self.outbox.schedule(subject, entry.not_before)
            return None
        if self.jobs is not None and self.jobs.is_reserved(subject):
            return None  # it is looked at again once the page that it stands in is committed
        if not self._may_send():
            self._await_lease(subject)
            return None
        if self.lease_until - now - self._context.rules.attempt_deadline_s < self._context.rules.keep_alive_s:
            self._lease_wanted = True
            self._wake.set()
        destination = self._context.destinations[account_of(subject)]
        is_usable = prepared is not None and prepared.account is destination.account
        plan = prepared if is_usable else self._plan_again(subject, destination, now)
        if plan is None:
            return None
        entry.in_flight = True
        self._in_flight += 1
        return Attempt(
            subject,
            entry.revision,
            plan.update,
            now,
            self._may_send,
            plan.trace,
            plan.generation,
            plan.event_id,
            plan.remote,
            plan.may_land_late,
            plan.remote_unknown,
            plan.shown,
        )

    # --- ports.JobHost ---

    @property
    def value_max_bytes(self) -> int:
        return self._hold.value_max_bytes

    def destination(self, account: str) -> Destination | None:
        return self._context.destinations.get(account)

    def offer_job(self, account: str, name: str, since_ms: int) -> None:
        self._context.dispatcher.offer(account, since_ms, name, self)

    def is_beyond(self, subject: str) -> bool:
        return subject in self._beyond

    def wake(self) -> None:
        self._wake.set()

    def fail(self, what: str, error: BaseException) -> None:
        self._failed = self._failed or InvariantError(f"{what} failed: {type(error).__name__}")
        log.critical("job_failed", partition=self.partition, job=what, exc_info=error)
        self._wake.set()

    async def pause(self) -> None:
        if self._job_work.is_over():
            await self._job_work.pause()

    def _take_job(self, name: str) -> Attempt | None:
        """What a job has to send, under the same lease as orders."""
        if self.jobs is None or self.role not in ("serving", "halted"):
            return None
        if not self._may_send():
            self._context.metrics.lease_refused()
            self._lease_wanted = True
            self.jobs.postpone(name)
            return None
        errand = self.jobs.take(name)
        if errand is None:
            return None
        self._in_flight += 1
        return Attempt(name, 0, _NOTHING_TOLD, self._context.clock.now(), self._may_send, errand=errand)

    def _plan_again(self, subject: str, destination: Destination, now: float) -> Send | None:
        """The order was offered when there were enough plans to keep, or its account has changed since."""
        record = state.decode_order(self.orders[subject])
        plan = plan_order(record, subject, destination)
        if isinstance(plan, Send):
            return plan
        self._wait(subject, record, plan, now)
        self._wake.set()
        return None
