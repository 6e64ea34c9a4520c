"""What the owner of an order partition does with its records (`ownership.Workload`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, assert_never

import structlog
from msgspec import MsgspecError, Raw

from schemas import state
from schemas.state import Operated
from worker.core.commands import Command
from worker.core.figures import Figures, figures_of
from worker.core.outbox import Outbox
from worker.core.outbox_effects import Claim, Decide, Effects, NeedLease, Offer, Overdue
from worker.core.retention import ClosedOrders
from worker.errors import InvariantError, StoreError, UsageError
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.provider import Destination, Update
from worker.orders.batch import Batch
from worker.orders.closing import Closing
from worker.orders.context import OrderContext
from worker.orders.loading import Kept, Loading
from worker.orders.mailbox import Mailbox
from worker.orders.takeover import AT_ONCE_MAX, AT_ONCE_MAX_BYTES, PartitionState, Takeover
from worker.orders.taking import Taking
from worker.ownership.context import Slice
from worker.ownership.inbox import Inbox
from worker.ownership.workload import Entries, Host, Inherited
from worker.ports import Attempt, JobChange, StateEntry

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = structlog.get_logger(__name__)

_ORDER_PREFIX = state.ORDER_PREFIX.encode()
_NOTHING_SENT = Update(b"", None, Raw(b"null"))
_COUNTED_AT_ONCE = 500
"""Orders between two looks at the clock."""


class OrderWorkload:
    """`ownership.Workload`, `ports.AttemptSource`, `ports.JobHost`: the orders of one partition."""

    def __init__(self, host: Host, context: OrderContext, kept: Kept | None) -> None:
        self.partition = host.partition
        self.is_loaded = False
        """Before, `orders` are those of the past, or some."""
        kept = kept or Kept(context.make_table(host.partition))
        self.orders = kept.table
        self.orders.watch(host.fail)
        self.outbox = Outbox(
            self.orders.__getitem__,
            context.destinations,
            context.rules,
            is_throttled=context.dispatcher.waits,
            reporting=context.reporting,
            prepared_max=context.limits.prepared_max,
            announce_after_s=context.limits.announce_after_s,
        )
        self._host = host
        self._context = context
        self._loading = Loading(host.partition, kept)
        self._state = PartitionState()
        self._takeover: Takeover | None = None
        self._mailbox = Mailbox()
        self._taking = Taking(context, self.orders, self.outbox, self.make_batch)
        self._span: Span | None = None
        """Of the transaction in the making."""
        self._in_flight = 0
        """Attempts, of orders and of jobs, whose outcome has not come. Of an order in flight it may have, and not be
        committed yet.
        """
        self.jobs = None if context.make_jobs is None or not context.sending else context.make_jobs(self)
        self._closing = Closing(context.clock.chance(), context.clock.now())
        self._job_work = Slice(context)
        self._job_changes: list[JobChange] = []
        """What jobs have in the transaction under way."""

    # --- restoring ---

    def load(self, entry: StateEntry) -> bool:
        return self._loading.load(entry)

    async def keep_up(self) -> None:
        await self.orders.keep_up()

    def loaded(self) -> None:
        self._state.targets = self._loading.targets()
        self._state.job_records = self._loading.jobs
        self._state.closed = ClosedOrders(self._loading.closed)
        self._state.accounts = self._loading.accounts
        self.is_loaded = True

    async def may_replay_from(self, revision: int) -> bool:
        work = Slice(self._context)
        for _, header in self.orders.headers():
            if work.is_over():
                await work.pause()
            if header.revision >= revision:
                return False
        return True

    async def restored(self, inherited: Inherited) -> Entries:
        self._tell_pauses()
        self._takeover = Takeover(self._context, self._host, self.orders, self.outbox, self._state, self.jobs)
        return await self._takeover.run(inherited)

    def activated(self) -> None:
        assert self._takeover is not None  # it was restored
        self._takeover.committed()
        self._takeover = None

    def distrust(self, why: str) -> Exception | None:
        return self.orders.distrust(why)

    async def find_undecodable(self, error: MsgspecError) -> bytes | None:  # noqa: ARG002 - it does not say which
        work = Slice(self._context)
        for subject, value in self.orders.items():
            if work.is_over():
                await work.pause()
            try:
                state.decode_whole(value)
            except MsgspecError:
                return (state.ORDER_PREFIX + subject).encode()
        for key, value in self._state.accounts.items():
            try:
                state.decode_account(value)
            except MsgspecError:
                return key.encode()
        return None

    def summary(self) -> dict[str, Any]:
        return {"orders": len(self.orders), "owed": sum(1 for _ in self.outbox.owed())}

    # --- serving ---

    def next_due(self) -> float:
        due = min(self.outbox.next_due(), self._closing.look_at)
        return due if self.jobs is None else min(due, self.jobs.next_due())

    async def work(self) -> None:
        if not self._is_draining:
            await self._evaluate()
            self._closing.look(self.orders, self.outbox, self._context)
        if self.jobs is not None and self.has_urgent_work():
            await self.jobs.look(is_leaving=self._is_draining)

    @property
    def _is_draining(self) -> bool:
        return not self._host.phase.is_working

    def has_mail(self) -> bool:
        return bool(self._mailbox or self._closing.due) or (self.jobs is not None and self.jobs.has_mail())

    def has_urgent_work(self) -> bool:
        if self.jobs is None:
            return False
        return self.jobs.owes() if self._is_draining else self.jobs.next_due() <= self._context.clock.now()

    async def _evaluate(self) -> None:
        """Obeys what the outbox decides about the orders that are due.

        The mail has to wait meanwhile, so not for long; but a transaction may be followed by more than one slice.
        """
        clock, work = self._context.clock, Slice(self._context)
        now = clock.now()
        until = now + self._context.limits.evaluate_s
        while now < until and not self._is_draining:  # which may begin in a pause
            effects = self.outbox.evaluate(now, clock.wall_ms(), self._host.lease.until)
            if effects is None:
                return
            self._obey(effects)
            if work.is_over():
                await work.pause()
                now = clock.now()

    def _obey(self, effects: Effects) -> None:
        for effect in effects:
            match effect:
                case Offer(subject, account, owed_since_ms, has_failed, not_before):
                    self._context.dispatcher.offer(
                        account, owed_since_ms, subject, self, has_failed=has_failed, not_before=not_before
                    )
                case Decide():
                    self._mailbox.decisions.append(effect)
                case NeedLease():
                    self._context.metrics.lease_refused()
                    self._host.want_lease()
                case Overdue(subject, revision, event_id, status):
                    log.warning(
                        "order_unresolved",
                        order=subject,
                        revision=revision,
                        event_id=event_id,
                        partition=self.partition,
                        status=status,
                    )
                case unknown:
                    assert_never(unknown)

    async def fill(self, next_offset: int, inbox: Inbox | None, keeping: Sequence[str]) -> Batch:
        tracing = self._context.tracing
        if tracing is not None:
            group = self._context.deployment.group
            self._span = tracing.begin_processing(self._context.event_topic, self.partition, group)
        work = Slice(self._context)
        self._job_changes = [] if self.jobs is None else self.jobs.changes()
        # What jobs have was made up of the orders as they are now, so it goes first, or what is ahead does.
        batch = self._taking.begin(next_offset, None if self._job_changes else inbox)
        for change in self._job_changes:
            await batch.job(change, work)
        # However large the batch is that is ahead: outcomes must not wait until the input is caught up with.
        await self._mailbox.fill(batch, work, batch.size + self._context.limits.batch_bytes_max)
        if inbox:
            await self._taking.take(batch, inbox, work)
        for subject in keeping:
            batch.keep(subject)
        batch.close(self._closing.take())
        return batch

    def make_batch(self, next_offset: int, **members: Any) -> Batch:
        """One that takes what follows this offset; `members`: of `Batch`."""
        known, sizes = self._state, self._host.sizes
        return Batch(
            self.partition,
            self.orders,
            self._context,
            next_offset,
            sizes,
            known.closed,
            known.accounts,
            known.held,
            **members,
        )

    async def work_ahead(self, batch: Batch, inbox: Inbox) -> None:
        await self._taking.take_ahead(batch, inbox)

    def applied(self, batch: Batch) -> None:
        context, known = self._context, self._state
        now, now_ms = context.clock.now(), context.clock.wall_ms()
        if context.tracing is not None:
            context.tracing.remember(batch.traces)
        known.unconfigured += len(batch.happened.unconfigured)
        known.job_records |= batch.jobs
        if batch.accounts:
            known.accounts |= batch.accounts
            self._tell_pauses()
        for subject in batch.gone:
            self.orders.delete(subject)
            known.unwritten.pop(subject, None)
        known.closed.apply(batch.closed)
        # Only of orders whose attempt has ended in it: the attempts of all others go on, whatever else changed.
        for subject, hold_until in batch.holds.items():
            self.outbox.ended(subject, hold_until)
        for subject, (header, value) in batch.changed.items():
            self.orders.put(subject, value)
            known.unwritten.pop(subject, None)
            hold_until = 0.0
            if subject in known.beyond:  # so the outbox does not know it
                known.beyond.discard(subject)
                hold_until = known.hold_until
            if context.sending:
                self.outbox.committed(subject, header, now=now, now_ms=now_ms, hold_until=hold_until)
        self.outbox.lease_renewed(now)

    def persist(self, entries: Entries, position: int) -> None:
        for key, value in entries:
            if not key.startswith(_ORDER_PREFIX):
                self.orders.note(key, value)
        self.orders.checkpoint(position)

    async def announce(self, batch: Batch) -> None:
        tracing, span, self._span = self._context.tracing, self._span, None
        if tracing is None or span is None:
            await batch.announce()
        else:
            with tracing.processed(span, sum(batch.happened.events.values()), batch.traces):
                await batch.announce()
        self._mailbox.answer()
        for subject, deed in batch.operated:
            self._context.operated(subject, deed)
        written, self._job_changes = self._job_changes, []
        for change in written:
            change.done()

    # --- draining ---

    def drain(self) -> None:
        self._context.dispatcher.withdraw(self)

    def awaits_outcomes(self) -> bool:
        return self._in_flight > 0

    def is_drained(self) -> bool:
        owes = self.jobs is not None and self.jobs.owes()
        return self._in_flight == 0 and not self._mailbox.outcomes and not owes

    def abandon(self) -> None:
        if self._in_flight:
            self._context.dispatcher.abandon(self)

    def unwritten(self) -> list[list[str]]:
        portions: list[list[str]] = [[]]
        size = 0
        for subject in self._state.unwritten:
            if size >= self._context.limits.batch_bytes_max:
                portions.append([])
                size = 0
            portions[-1].append(subject)
            size += len(self.orders[subject])
        return portions

    def held_until(self) -> float:
        # Also of the holds before this owner: in shadow mode the outbox has none of them.
        jobs = 0.0 if self.jobs is None else self.jobs.held_until()
        return max(self._state.hold_until, self.outbox.held_until, jobs)

    def is_writable(self) -> bool:
        # What an order beyond the limit is not sure of cannot be marked in it, so the next owner has to hold it.
        return not self._state.beyond

    def close(self, error: Exception) -> None:
        self._context.dispatcher.withdraw(self)
        self._context.dispatcher.abandon(self)
        self._context.dispatcher.pause_accounts(self, {})
        if self.jobs is not None:
            self.jobs.close()
        self._mailbox.close(error)
        if self._span is not None and self._context.tracing is not None:
            self._context.tracing.fail_processing(self._span)

    def keep(self) -> Kept:
        known = self._state
        return Kept(self.orders, known.targets, known.job_records, known.closed.chunks, known.accounts)

    # --- attempts (`ports.AttemptSource`, steps 14 to 17) ---

    def claim(self, subject: str) -> Attempt | None:
        """What is owed for the order as of now."""
        if self._context.tracing is not None:
            self._context.tracing.takes_turn(subject)
        if not self._host.phase.is_working:
            return None
        if "/" not in subject:
            return self._claim_job(subject)
        clock, lease = self._context.clock, self._host.lease
        now = clock.now()
        is_reserved = self.jobs is not None and self.jobs.is_reserved(subject)
        try:
            claim = self.outbox.claim(subject, now, clock.wall_ms(), lease.until, is_reserved=is_reserved)
        except MsgspecError as error:  # offered without being read: it concerns the partition, not the account
            self._host.fail(error)
            return None
        except StoreError:
            return None  # the owner is told, and ends
        if not isinstance(claim, Claim):
            self._obey(claim)
            self._host.wake()  # it may be due at another time than the owner sleeps until
            return None
        if lease.is_short(now):
            self._host.want_lease()
        self._in_flight += 1
        plan = claim.plan
        return Attempt(
            subject,
            claim.revision,
            plan.update,
            now,
            self._host.may_send,
            plan.trace,
            plan.generation,
            plan.event_id,
            plan.remote,
            plan.may_land_late,
            plan.remote_unknown,
            plan.shown,
        )

    def _claim_job(self, name: str) -> Attempt | None:
        """What a job has to send, under the same lease as orders."""
        if self.jobs is None:
            return None
        if not self._host.may_send():
            self._context.metrics.lease_refused()
            self.jobs.postpone(name)
            self._host.want_lease()
            return None
        errand = self.jobs.claim(name)
        if errand is None:
            return None
        self._in_flight += 1
        return Attempt(name, 0, _NOTHING_SENT, self._context.clock.now(), self._host.may_send, errand=errand)

    def done(self, attempt: Attempt, outcome: Outcome) -> None:
        """What became of an attempt."""
        self._in_flight -= 1
        if self._context.tracing is not None and outcome.kind is OutcomeKind.APPLIED:
            self._context.tracing.told(attempt.subject)
        if attempt.errand is None:
            self._mailbox.outcomes.append((attempt, outcome, self._context.clock.now()))
        else:
            assert self.jobs is not None  # it was theirs
            self.jobs.done(attempt.subject, outcome)
        self._host.wake()

    # --- operators ---

    async def command(self, subjects: Sequence[str], command: Command) -> int:
        """Changes orders' records as an operator asks, in one transaction; returns how many it changed once that is
        committed. Raises `UsageError`.
        """
        for subject in subjects:
            self.require_writable(subject)
        done = self._mailbox.command(subjects, command)
        self._host.wake()
        return await done

    def require_writable(self, subject: str) -> None:
        """Raises `UsageError` when nothing of an order can be written now."""
        self._host.require_working()
        if subject not in self.orders:
            raise UsageError(f"no order {subject} is known")
        if subject in self._state.beyond:
            raise UsageError(self._state.beyond_detail)

    async def parked(self, account: str, reason_contains: str) -> list[str]:
        """The parked orders of an account, or those whose reason contains a text."""
        work = Slice(self._context)
        found: list[str] = []
        for subject in self.outbox.parked(account):
            if work.is_over():
                await work.pause()
            park = state.decode_header(self.orders[subject]).park
            if park is not None and reason_contains in park.reason:
                found.append(subject)
        return found

    async def command_parked(self, account: str, reason_contains: str, command: Command) -> int:
        """Changes the parked orders of an account, or those whose reason contains a text, in transactions of bounded
        size; returns how many once that is committed. Raises `UsageError`.
        """
        changed = 0
        chosen: list[str] = []
        size = 0
        for subject in await self.parked(account, reason_contains):
            chosen.append(subject)
            size += len(self.orders[subject])
            if len(chosen) >= AT_ONCE_MAX or size >= AT_ONCE_MAX_BYTES:
                changed += await self.command(chosen, command)
                chosen, size = [], 0
        return changed + (await self.command(chosen, command) if chosen else 0)

    def _tell_pauses(self) -> None:
        """The accounts that operators have paused, as far as this partition knows: none of their orders is sent."""
        paused: dict[str, Operated] = {}
        for key, value in self._state.accounts.items():
            if (deed := state.decode_account(value).paused) is not None:
                paused[key.removeprefix(state.ACCOUNT_PREFIX)] = deed
        self._context.dispatcher.pause_accounts(self, paused)

    def accounts_changed(self) -> None:
        """Accounts were read again."""
        self.outbox.accounts_changed(self._context.clock.now())
        if self.jobs is not None:
            self.jobs.look_anew()
        self._host.wake()

    # --- people ---

    @property
    def unconfigured(self) -> int:
        """Orders of accounts that nobody has configured."""
        return self._state.unconfigured

    def figures(self) -> dict[str, Figures]:
        """How many of its orders wait, and for what, by account."""
        return self.outbox.figures(self._context.destinations, self._context.clock.now())

    async def count(self, work: Slice) -> dict[str, Figures]:
        """The same in slices: they may be hundreds of thousands, and change meanwhile."""
        context, found = self._context, dict[str, Figures]()
        subjects, entries = self.outbox.entries()
        for begin in range(0, len(entries), _COUNTED_AT_ONCE):
            if work.is_over():
                await work.pause()
            end = begin + _COUNTED_AT_ONCE
            part = zip(subjects[begin:end], entries[begin:end], strict=True)
            for account, count in figures_of(part, context.destinations, context.clock.now()).items():
                found.setdefault(account, Figures()).add(count)
        return found

    # --- jobs (`ports.JobHost`) ---

    @property
    def value_max_bytes(self) -> int:
        return self._host.sizes.value

    def destination(self, account: str) -> Destination | None:
        return self._context.destinations.get(account)

    def offer_job(self, account: str, name: str, since_ms: int) -> None:
        self._context.dispatcher.offer(account, since_ms, name, self)

    def is_beyond(self, subject: str) -> bool:
        return subject in self._state.beyond

    def input_end(self) -> int | None:
        return self._host.input_end()

    def has_taken(self, offset: int) -> bool:
        return self._host.has_taken(offset)

    def wake(self) -> None:
        self._host.wake()

    def fail(self, what: str, error: BaseException) -> None:
        log.critical("job_failed", partition=self.partition, job=what, exc_info=error)
        self._host.fail(InvariantError(f"{what} failed: {type(error).__name__}"))

    async def pause(self) -> None:
        if self._job_work.is_over():
            await self._job_work.pause()
