"""What an owner that takes a partition over does about its orders before it serves them (steps 6 and 7)."""

from collections import Counter
from contextlib import suppress

import structlog
from msgspec import MsgspecError, Struct, field
from msgspec.structs import replace

from schemas import state
from schemas.state import OrderRecord, Target, TargetsRecord
from worker.core import record as records
from worker.core.outbox import Outbox
from worker.core.retention import ClosedOrders
from worker.core.targets import changed_targets, needs_choice, target_of
from worker.errors import TopicError
from worker.model.account import Account
from worker.model.order import account_of
from worker.orders.context import OrderContext
from worker.orders.encoding import is_too_large, smallest_too_large
from worker.orders.history import Held
from worker.ownership.context import Slice
from worker.ownership.workload import Entries, Host, Inherited
from worker.ports import JobDesk, OrderTable

log = structlog.get_logger(__name__)

AT_ONCE_MAX = 500
AT_ONCE_MAX_BYTES = 2**20
"""Of the orders that are made owed again in one transaction: some 10 ms of work."""
SMALL = 16
"""So many orders are looked at without a look at the clock."""


class PartitionState(Struct):
    """What is known of the orders of a partition besides their records."""

    unwritten: dict[str, None] = field(default_factory=dict)
    """Orders whose inherited doubt stands in memory only; in order, so that a simulation repeats."""
    held: Held = Held()
    """Those of them, and since when they are held."""
    hold_until: float = 0.0
    """Until then a request of owners before this one may still land, by the monotonic clock."""
    beyond: set[str] = field(default_factory=set)
    """Orders whose record is larger than the state topic takes now: nothing that becomes of them could be kept."""
    beyond_detail: str = ""
    unconfigured: int = 0
    """Orders of accounts that nobody has configured."""
    targets: dict[str, Target] = field(default_factory=dict)
    """Whom the accounts send to."""
    job_records: dict[str, bytes] = field(default_factory=dict)
    closed: ClosedOrders = field(default_factory=ClosedOrders)
    """What is remembered of closed orders."""
    accounts: dict[str, bytes] = field(default_factory=dict)
    """What operators did to accounts, by key."""


class Takeover:
    """One takeover."""

    def __init__(
        self,
        context: OrderContext,
        host: Host,
        orders: OrderTable,
        outbox: Outbox,
        known: PartitionState,
        jobs: JobDesk | None,
    ) -> None:
        self._context = context
        self._host = host
        self._orders = orders
        self._outbox = outbox
        self._state = known
        self._jobs = jobs
        self._targets = known.targets
        self._job_records: dict[str, bytes] = {}
        """Of jobs, as they are to be written with the targets."""

    async def run(self, inherited: Inherited) -> Entries:
        """Returns what has to be written before anything is sent; it counts once it is `committed`. Raises
        `TargetChange`, `TopicError`, `LogError`.
        """
        before = self._state.targets
        again = await self._changed_targets(before)
        await self._hold(inherited)
        self._restore_jobs(inherited)
        for account in again:
            await self._send_again(account)
        return _entries(self._job_records) + self._targets_entry(before)

    def committed(self) -> None:
        """What `run` has returned is written."""
        self._state.targets = self._targets
        self._state.job_records |= self._job_records

    async def _counts(self) -> Counter[str]:
        """How many orders each account has."""
        counts: Counter[str] = Counter()
        work = Slice(self._context)
        for number, (account, orders) in enumerate(self._orders.accounts()):
            if number % SMALL == 0 and work.is_over():
                await work.pause()
            counts[account] += orders
        return counts

    async def _hold(self, inherited: Inherited) -> None:
        """Orders that a predecessor may have in flight are held; all that is owed gets its turn."""
        context, known, host = self._context, self._state, self._host
        for account, orders in (await self._counts()).items():
            if account not in context.destinations:
                known.unconfigured += orders
                context.warn_unconfigured(account, host.partition)
        now, now_ms = context.clock.now(), context.clock.wall_ms()
        known.hold_until = inherited.hold_until
        known.held = Held(known.unwritten, now_ms, round(1000 * max(0.0, inherited.hold_until - now)))
        work, value_max_bytes = Slice(context), host.sizes.value
        for count, (subject, value) in enumerate(self._orders.unsettled(smallest_too_large(value_max_bytes))):
            if count % SMALL == 0 and work.is_over():
                await work.pause()
            header = state.decode_header(value)
            if size := is_too_large(subject, value, value_max_bytes):
                self._set_aside(subject, header.revision, size)
                if not inherited.was_clean:
                    self._inherit(subject, value)  # for the case that it becomes smaller
                continue
            held = records.must_inherit(header, was_clean=inherited.was_clean)
            if held and not inherited.was_clean:
                record = self._inherit(subject, value)
                # In memory only: to write all of them would delay the first attempt. It is, at the latest, before
                # this owner may call itself clean.
                known.unwritten[subject] = None
                header = record
            elif header.not_before_ms:
                header = state.decode_order(value)  # what kind of delay it is
            if context.sending and (held or header.revision != header.acked):
                hold_until = inherited.hold_until if held else 0.0
                self._outbox.restored(subject, header, value, now=now, now_ms=now_ms, hold_until=hold_until)

    def _inherit(self, subject: str, value: bytes) -> OrderRecord:
        record = records.inherit(state.decode_order(value))
        self._orders.put(subject, state.encode(record))
        return record

    def _set_aside(self, subject: str, revision: int, size: int) -> None:
        """An order that the state topic does not take any more: to send it would be to send it for ever."""
        known, limit = self._state, self._host.sizes.value
        known.beyond.add(subject)
        known.beyond_detail = (
            f"{len(known.beyond)} orders are not sent, for the state topic does not take their records any more (the"
            f" last one has {size} bytes, it takes {limit}): raise its max.message.bytes, then restart the worker"
        )
        self._host.complain(known.beyond_detail)
        fields = {"order": subject, "revision": revision, "bytes": size, "limit": limit}
        log.error("order_beyond_limit", partition=self._host.partition, **fields)

    # --- jobs ---

    def _restore_jobs(self, inherited: Inherited) -> None:
        """A page that may be in flight is in doubt from now on, also where its job is not one of this owner's."""
        is_clean, jobs = inherited.was_clean or inherited.is_first, self._jobs
        known, ours = self._state.job_records, frozenset[str]()
        if jobs is not None:
            self._job_records = jobs.restore(known, is_clean=is_clean, hold_until=inherited.hold_until)
            ours = jobs.keys
        if is_clean:
            return
        for key in known.keys() - ours:
            with suppress(MsgspecError):  # whoever has the job says so
                record = state.decode_job(known[key])
                if not record.in_doubt:
                    self._job_records[key] = state.encode(replace(record, in_doubt=True))

    # --- targets: whom the accounts send to ---

    async def _changed_targets(self, before: dict[str, Target]) -> list[str]:
        """Accounts whose orders have to be sent again, for they go somewhere else now. Raises `TargetChange`."""
        context, again = self._context, []
        changes = list(changed_targets(before, self._accounts()))
        if not changes:
            return []
        counts = await self._counts()
        for name, old, new in changes:
            orders = counts[name]
            choice = context.accepted_targets.get(name)
            if choice is None and orders:
                raise needs_choice(name, old, new, orders, self._host.partition)
            if choice == "send":
                again.append(name)
            fields = {"old": str(old), "new": str(new), "choice": choice, "orders": orders}
            log.warning("account_target_changed", partition=self._host.partition, account=name, **fields)
        return again

    def _accounts(self) -> list[Account]:
        """Those that send: in shadow mode none does."""
        return [each.account for each in self._context.destinations.values()] if self._context.sending else []

    def _targets_entry(self, before: dict[str, Target]) -> Entries:
        """Whom the accounts send to from now on, where that is news; accounts that are gone may come back."""
        targets = before | {account.name: target_of(account) for account in self._accounts()}
        self._targets = targets
        return [] if targets == before else [(state.TARGETS_KEY, state.encode(TargetsRecord(state.SCHEMA, targets)))]

    async def _send_again(self, account: str) -> None:
        """Makes all orders of an account owed again, in transactions of bounded size.

        Whom they are sent to is written after the last of them: after a crash in between it starts over, which does no
        harm. Raises `TopicError` when one of them cannot be written.
        """
        if beyond := [subject for subject in self._state.beyond if account_of(subject) == account]:
            raise TopicError(
                f"partition {self._host.partition}: all orders of account {account} are to be sent again, and the state"
                f" topic does not take {len(beyond)} of them any more: raise its max.message.bytes first"
            )
        if self._jobs is not None and (forgotten := self._jobs.forget(account)):
            entries = _entries(forgotten)
            await self._host.write(entries)
            for key, value in entries:
                self._orders.note(key, value)
            self._state.job_records |= forgotten
            self._job_records = {key: value for key, value in self._job_records.items() if key not in forgotten}
        clock, work = self._context.clock, Slice(self._context)
        made: list[tuple[str, OrderRecord, bytes]] = []
        size = 0
        for subject in self._orders.subjects():
            if work.is_over():
                await work.pause()
            if account_of(subject) != account:
                continue
            record = records.resend(state.decode_order(self._orders[subject]), clock.wall_ms())
            record.remote = b""  # it was about another one
            made.append((subject, record, state.encode(record)))
            size += len(made[-1][2])
            if len(made) >= AT_ONCE_MAX or size >= AT_ONCE_MAX_BYTES:
                await self._write(made)
                made, size = [], 0
        if made:
            await self._write(made)

    async def _write(self, made: list[tuple[str, OrderRecord, bytes]]) -> None:
        clock = self._context.clock
        await self._host.write([((state.ORDER_PREFIX + subject).encode(), value) for subject, _, value in made])
        for subject, record, value in made:
            self._orders.put(subject, value)
            self._state.unwritten.pop(subject, None)
            self._outbox.committed(subject, record, now=clock.now(), now_ms=clock.wall_ms())


def _entries(jobs: dict[str, bytes]) -> Entries:
    return [(key.encode(), value) for key, value in jobs.items()]
