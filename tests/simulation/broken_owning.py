"""Breaks of the rules of owning a partition: handing over, transactions."""

from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from schemas import state
from schemas.state import NextRecord
from tests.simulation.breaks import Breaks
from worker.core.outbox import Outbox
from worker.errors import LogError
from worker.model.exchange import Outcome
from worker.orders import telling
from worker.orders.batch import Batch
from worker.orders.history import History
from worker.orders.workload import OrderWorkload
from worker.ownership import owner
from worker.ownership.assignment import Assignment
from worker.ownership.owner import Owner
from worker.ownership.workload import Inherited
from worker.ports import Attempt, StateEntry

breaks = Breaks()


# --- handing over ---


@breaks(OrderWorkload, "restored")
def inherited_uncertainty_not_held(real: Any) -> Any:
    """After a clean revoke only the flag tells the next owner to hold."""

    async def restored(self: Any, inherited: Inherited) -> Any:
        self.outbox.is_trusting = inherited.was_clean
        entries = await real(self, inherited)
        self.outbox.is_trusting = False
        return entries

    return restored


@breaks(Outbox, "restored")  # type: ignore[no-redef]
def inherited_uncertainty_not_held(real: Any) -> Any:  # noqa: F811
    """Without its hold."""

    def restored(self: Any, *args: Any, hold_until: float, **named: Any) -> None:
        real(self, *args, hold_until=0.0 if getattr(self, "is_trusting", False) else hold_until, **named)

    return restored


@breaks(OrderWorkload, "held_until")
def hold_not_told_to_the_successor(_real: Any) -> Any:
    """Step 20: nothing is left of it, says who leaves in order."""
    return lambda _self: 0.0


@breaks(OrderWorkload, "held_until")
def inherited_hold_not_passed_on(_real: Any) -> Any:
    """Step 20: only that of its own attempts."""
    return lambda self: self.outbox.held_until


@breaks(Owner, "_first_offset")
def activation_keeps_the_clean_flag(real: Any) -> Any:
    """Step 7."""

    async def first_offset(self: Any, found: Any) -> Any:
        self.found_next = found.next
        return await real(self, found)

    return first_offset


@breaks(Owner, "write")  # type: ignore[no-redef]
def activation_keeps_the_clean_flag(_real: Any) -> Any:  # noqa: F811
    """As the predecessor has left it."""

    async def write(self: Any, entries: Any) -> None:
        clean = self.found_next is not None and self.found_next.clean
        await self._write(entries, self._next(self.position.next_offset, clean=clean))

    return write


@breaks(Batch, "outcome")
def cut_attempts_not_marked(real: Any) -> Any:
    """Step 19: what is abandoned at a revoke is marked."""

    def outcome(self: Batch, attempt: Attempt, outcome: Outcome, ended_at: float) -> None:
        if outcome.reason.startswith("abandoned"):
            self.holds[attempt.subject] = 0.0
            self.keep(attempt.subject)
        else:
            real(self, attempt, outcome, ended_at)

    return outcome


@breaks(OrderWorkload, "unwritten")
def inherited_flags_not_persisted(_real: Any) -> Any:
    """Step 6: clean=true only in the transaction that persists them."""
    return lambda _self: [[]]


@breaks(owner, "restore")
def warm_state_trusted_without_reading(real: Any) -> Any:
    """Step 5: the barrier has to be read back, also from a warm position."""

    class Unread:
        def __init__(self, hold: Any) -> None:
            self.hold = hold

        def __getattr__(self, name: str) -> Any:
            return getattr(self.hold, name)

        async def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
            if position == 0:
                async for entries in self.hold.read(position, until):
                    yield entries

    return lambda hold, *others: real(Unread(hold), *others)


@breaks(owner, "restore")
def restore_stops_early(real: Any) -> Any:
    """I3: the newest transaction before the barrier is not seen."""

    class Hasty:
        def __init__(self, hold: Any) -> None:
            self.hold = hold

        def __getattr__(self, name: str) -> Any:
            return getattr(self.hold, name)

        async def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
            async for entries in self.hold.read(position, until):
                yield [entry for entry in entries if entry.offset < until - 6]

    return lambda hold, *others: real(Hasty(hold), *others)


@breaks(Assignment, "__init__")
def old_batch_into_a_new_actor(real: Any) -> Any:
    """Step 10: each batch belongs to one incarnation."""

    class Ageless(dict[int, int]):
        def __getitem__(self, key: int) -> int:
            return 0

    def init(self: Any, *args: Any) -> None:
        real(self, *args)
        self._owner_generation = Ageless()

    return init


# --- transactions ---


@breaks(Owner, "_write")
def applied_before_it_is_committed(real: Any) -> Any:
    """I1."""

    async def write(self: Owner[Any], entries: Any, *others: Any) -> None:
        now, now_ms = self._context.clock.now(), self._context.clock.wall_ms()
        for key, value in entries:
            if key.startswith(b"o:"):
                self.workload.orders.put(key[2:].decode(), value)
                self.workload.outbox.committed(key[2:].decode(), state.decode_order(value), now=now, now_ms=now_ms)
        await real(self, entries, *others)

    return write


@breaks(OrderWorkload, "work_ahead")
def batch_ahead_counts_before_its_commit(real: Any) -> Any:
    """Step 12: what is worked out during a commit is a guess."""

    async def work_ahead(self: OrderWorkload, *args: Any) -> None:
        await real(self, *args)
        if self._taking.ahead is not None:
            self.applied(self._taking.ahead)

    return work_ahead


@breaks(OrderWorkload, "make_batch")
def batch_ahead_over_what_was_committed_before(real: Any) -> Any:
    """Step 12: it is worked out over what is being committed."""
    return lambda self, next_offset, **_under: real(self, next_offset)


@breaks(OrderWorkload, "work_ahead")
def batch_ahead_moves_the_position(real: Any) -> Any:
    """Step 12, I4: its events are in the inbox until it is committed."""

    async def work_ahead(self: OrderWorkload, batch: Batch, *args: Any) -> None:
        await real(self, batch, *args)
        if self._taking.ahead is not None:
            batch.next_offset = self._taking.ahead.next_offset

    return work_ahead


@breaks(Owner, "_write")
def failed_commit_taken_for_a_success(real: Any) -> Any:
    """Step 13."""

    async def write(self: Owner[Any], *args: Any) -> None:
        try:
            await real(self, *args)
        except LogError:
            self.lease.renew(self._context.clock.now())

    return write


@breaks(Owner, "_write")
def offset_in_a_transaction_of_its_own(real: Any) -> Any:
    """I4."""

    async def write(self: Owner[Any], entries: Any, *others: Any) -> None:
        if entries:
            await self._writer.write(entries)
        await real(self, [], *others)

    return write


@breaks(Owner, "_first_offset")
def restart_skips_a_record(real: Any) -> Any:
    """Step 8."""

    async def first_offset(self: Owner[Any], found: Any) -> int:
        return int(await real(self, found)) + (found.next is not None)

    return first_offset


@breaks(Owner, "_next")
def restart_repeats_a_record(real: Any) -> Any:
    """I4: each event once."""
    return lambda self, offset, *, clean: real(self, max(0, offset - clean), clean=clean)


@breaks(Owner, "_write")
def results_in_a_transaction_of_their_own(real: Any) -> Any:
    """I12."""

    async def write(
        self: Owner[Any], entries: Any, following: NextRecord, letters: Any = (), told: Any = (), *others: Any
    ) -> None:
        if told and self._last_next is not None:
            await self._writer.write([(state.NEXT_KEY, state.encode(self._last_next))], (), told)
        await real(self, entries, following, letters, (), *others)

    return write


@breaks(Owner, "_write")
def history_in_a_transaction_of_its_own(real: Any) -> Any:
    """I12."""

    async def write(
        self: Owner[Any], entries: Any, following: NextRecord, letters: Any = (), told: Any = (), history: Any = ()
    ) -> None:
        if history and self._last_next is not None:
            await self._writer.write([(state.NEXT_KEY, state.encode(self._last_next))], (), (), history)
        await real(self, entries, following, letters, told)

    return write


@breaks(History, "of_attempt")
def attempt_not_told_in_a_history(_real: Any) -> Any:
    """I12."""
    return lambda *_args, **_members: None


@breaks(History, "of_event")
def event_told_twice_in_a_history(real: Any) -> Any:
    """I12."""

    def of_event(self: History, event: Any, *args: Any) -> Any:
        self.keep(real(self, event, *args))
        return real(self, event, *args)

    return of_event


@breaks(Batch, "_report")
def results_dropped(_real: Any) -> Any:
    """I12."""
    return lambda _self, _subject, _value: None


@breaks(telling, "tell")
def what_was_told_not_kept(real: Any) -> Any:
    """I12: told again and again."""

    def tell(record: Any, *args: Any, **members: Any) -> bytes | None:
        before = record.told
        value: bytes | None = real(record, *args, **members)
        record.told = before
        return value

    return tell


@breaks(telling, "find_ready")
def settled_before_it_is_known(real: Any) -> Any:
    """I12: a result is true of what is committed with it."""
    return lambda *args: replace(real(*args), status="settled")


@breaks(Batch, "_refuse")
def poison_dropped(_real: Any) -> Any:
    """Step 11."""
    return lambda _self, _record, _error: None


@breaks(Batch, "_refuse")
def poison_dead_lettered_twice(real: Any) -> Any:
    """Step 11."""

    def refuse(self: Batch, *args: Any) -> None:
        real(self, *args)
        real(self, *args)

    return refuse
