"""Breaks of the protocol, each a line or two, put into the production code for the length of a run.

A break wraps or replaces one function of the code under test, by name: when that name is gone, the test says so. They
are what the simulation is measured by: one that no run notices is a rule that nothing holds.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from schemas import state
from schemas.state import NextRecord, OrderHeader, OrderRecord
from schemas.updates import Outcome, OutcomeKind
from worker.core import outbox
from worker.core.rules import Rules
from worker.errors import LogError
from worker.partition import actor, batch
from worker.partition.actor import PartitionActor
from worker.partition.assignment import Assignment
from worker.partition.batch import Batch
from worker.ports import Attempt, StateEntry
from worker.providers.sequra import updates
from worker.publisher.publisher import Publisher


@dataclass(frozen=True)
class Break:
    """What one function of the production code becomes; `make` gets the real one."""

    owner: Any
    name: str
    make: Callable[[Any], Any]


@contextmanager
def broken(breaks: Sequence[Break]) -> Iterator[None]:
    """The production code with these breaks in it, until the end of the `with` block."""
    originals = [(each, vars(each.owner)[each.name]) for each in breaks]
    try:
        for each, original in originals:
            setattr(each.owner, each.name, each.make(original))
        yield
    finally:
        for each, original in originals:
            setattr(each.owner, each.name, original)


MUTATIONS: dict[str, tuple[Break, ...]] = {}
"""By name."""


def mutation(owner: Any, name: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Adds a break, under the name of the function that makes it."""

    def add(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        mutated = make.__name__
        MUTATIONS[mutated] = (*MUTATIONS.get(mutated, ()), Break(owner, name, make))
        return make

    return add


# --- holds, the lease, doubt ---


@mutation(batch, "settle")
def no_hold_after_an_unknown_outcome(real: Any) -> Any:
    """Rule 2 of the outbox."""
    return lambda *args, **named: (real(*args, **named)[0], 0.0)


@mutation(Batch, "outcome")
def hold_counted_from_the_beginning_of_the_attempt(real: Any) -> Any:
    """`settle` begins when an attempt is given up."""
    return lambda self, attempt, outcome, _ended_at: real(self, attempt, outcome, attempt.taken_at)


@mutation(updates, "kind_of_status")
def bad_gateway_taken_for_a_refusal(real: Any) -> Any:
    """The origin behind a gateway may still apply it."""
    return lambda status: OutcomeKind.REJECTED if status >= 500 else real(status)


@mutation(Rules, "takeover_hold_s")
def no_takeover_hold(_real: Any) -> Any:
    """I7."""
    return property(lambda _self: 0.0)


@mutation(Rules, "takeover_hold_s")
def takeover_hold_without_the_lease(_real: Any) -> Any:
    """H is L + G: the predecessor may begin an attempt until its lease is over."""
    return property(lambda self: self.settle_s + 1.0)


@mutation(PartitionActor, "_may_send")
def no_lease_check(_real: Any) -> Any:
    """I6."""
    return lambda _self: True


@mutation(PartitionActor, "_may_send")
def attempt_outlasts_the_lease(_real: Any) -> Any:
    """I6: t + D <= lease_until, not t <= lease_until."""
    return lambda self: self._context.clock.now() <= self.lease_until


@mutation(PartitionActor, "_write")
def lease_counted_from_the_end_of_the_commit(real: Any) -> Any:
    """A successor's fence may come right after a commit began."""

    async def write(self: PartitionActor, *args: Any) -> None:
        await real(self, *args)
        self.lease_until = self._context.clock.now() + self._context.rules.lease_s

    return write


@mutation(PartitionActor, "leave")
def leaves_without_waiting_for_attempts(real: Any) -> Any:
    """Step 19."""

    def leave(self: PartitionActor, drain_s: float) -> None:
        real(self, drain_s)
        self._in_flight = 0

    return leave


@mutation(PartitionActor, "_let_go")
def lease_not_cut_when_the_partition_is_lost(real: Any) -> Any:
    """Step 13: neither its lease nor its attempts end."""

    def let_go(self: PartitionActor, clean: bool) -> None:
        lease_until = self.lease_until
        real(self, clean)
        self.lease_until = lease_until

    return let_go


@mutation(Publisher, "cut")  # type: ignore[no-redef]
def lease_not_cut_when_the_partition_is_lost(real: Any) -> Any:  # noqa: F811
    """They go on."""

    def cut(self: Publisher, outlet: Any) -> None:
        if outlet.role != "closed":
            real(self, outlet)

    return cut


@mutation(outbox, "plan")
def equal_payload_suppressed_while_in_doubt(real: Any) -> Any:
    """Rule 3 of the outbox."""

    def plan(record: OrderRecord, *args: Any) -> Any:
        trusting = copy(record)
        trusting.doubt = trusting.uncertain = False
        return real(trusting, *args)

    return plan


@mutation(batch, "settle")
def server_error_leaves_no_doubt(real: Any) -> Any:
    """What was answered 500 may have been applied."""

    def settle(record: OrderRecord, revision: int, digest: bytes, outcome: Outcome, **named: Any) -> Any:
        after, hold_s = real(record, revision, digest, outcome, **named)
        if outcome.kind is OutcomeKind.REJECTED:
            after.doubt = record.doubt
        return after, hold_s

    return settle


# --- handing over ---


@mutation(PartitionActor, "_inherit")
def inherited_uncertainty_not_held(real: Any) -> Any:
    """After a clean revoke only the flag tells the next owner to hold."""

    async def inherit(self: Any, found: Any, clean: bool) -> None:
        self.is_trusting = clean
        await real(self, found, clean)
        self.is_trusting = False

    return inherit


@mutation(PartitionActor, "_put")  # type: ignore[no-redef]
def inherited_uncertainty_not_held(real: Any) -> Any:  # noqa: F811
    """Without its hold."""

    def put(self: Any, subject: str, header: OrderHeader, now: float, now_ms: int, hold_until: float) -> None:
        real(self, subject, header, now, now_ms, 0.0 if getattr(self, "is_trusting", False) else hold_until)

    return put


@mutation(PartitionActor, "_take_over")
def activation_keeps_the_clean_flag(real: Any) -> Any:
    """Step 7."""

    async def take_over(self: Any) -> None:
        self.is_activating = True
        await real(self)
        self.is_activating = False

    return take_over


@mutation(PartitionActor, "_write")  # type: ignore[no-redef]
def activation_keeps_the_clean_flag(real: Any) -> Any:  # noqa: F811
    """As the predecessor has left it."""

    async def write(self: Any, entries: Any, following: NextRecord, letters: Any) -> None:
        before = self.found_next if getattr(self, "is_activating", False) else None
        await real(self, entries, following if before is None else replace(following, clean=before.clean), letters)

    return write


@mutation(PartitionActor, "_first_offset")  # type: ignore[no-redef]
def activation_keeps_the_clean_flag(real: Any) -> Any:  # noqa: F811
    """Looks at what was found."""

    async def first_offset(self: Any, found: Any) -> Any:
        self.found_next = found.next
        return await real(self, found)

    return first_offset


@mutation(Batch, "outcome")
def cut_attempts_not_marked(real: Any) -> Any:
    """Step 19: what is given up at a revoke is uncertain."""

    def outcome(self: Batch, attempt: Attempt, outcome: Outcome, ended_at: float) -> None:
        if outcome.reason.startswith("given up"):
            self.holds[attempt.subject] = 0.0
            self.keep(attempt.subject)
        else:
            real(self, attempt, outcome, ended_at)

    return outcome


@mutation(PartitionActor, "_commit")
def inherited_flags_not_persisted(real: Any) -> Any:
    """Step 6: clean=true only in the transaction that persists them."""

    async def commit(self: PartitionActor, *, clean: bool) -> None:
        if clean:
            self._inherited.clear()
        await real(self, clean=clean)

    return commit


@mutation(actor, "restore")
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

    return lambda hold, context, warm: real(Unread(hold), context, warm)


@mutation(actor, "restore")
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

    return lambda hold, context, warm: real(Hasty(hold), context, warm)


@mutation(Assignment, "__init__")
def old_batch_into_a_new_actor(real: Any) -> Any:
    """Step 10: each batch belongs to one incarnation."""

    class Ageless(dict[int, int]):
        def __getitem__(self, key: int) -> int:
            return 0

    def init(self: Any, *args: Any) -> None:
        real(self, *args)
        self._born = Ageless()

    return init


# --- transactions ---


@mutation(PartitionActor, "_write")
def applied_before_it_is_committed(real: Any) -> Any:
    """I1."""

    async def write(self: PartitionActor, entries: Any, *others: Any) -> None:
        now, now_ms = self._context.clock.now(), self._context.clock.wall_ms()
        for key, value in entries:
            if key.startswith(b"o:"):
                self.orders[key[2:].decode()] = value
                self._put(key[2:].decode(), state.decode_header(value), now, now_ms, 0.0)
        await real(self, entries, *others)

    return write


@mutation(PartitionActor, "_write")
def failed_commit_taken_for_a_success(real: Any) -> Any:
    """Step 13."""

    async def write(self: PartitionActor, *args: Any) -> None:
        try:
            await real(self, *args)
        except LogError:
            self.lease_until = self._context.clock.now() + self._context.rules.lease_s

    return write


@mutation(PartitionActor, "_write")
def offset_in_a_transaction_of_its_own(real: Any) -> Any:
    """I4."""

    async def write(self: PartitionActor, entries: Any, *others: Any) -> None:
        if entries:
            await self._hold.write(entries)
        await real(self, [], *others)

    return write


@mutation(PartitionActor, "_first_offset")
def restart_skips_a_record(real: Any) -> Any:
    """Step 8."""

    async def first_offset(self: PartitionActor, found: Any) -> int:
        return int(await real(self, found)) + (found.next is not None)

    return first_offset


@mutation(PartitionActor, "_next")
def restart_repeats_a_record(real: Any) -> Any:
    """I4: each event once."""
    return lambda self, offset, *, clean: real(self, max(0, offset - clean), clean=clean)


@mutation(Batch, "_refuse")
def poison_dropped(_real: Any) -> Any:
    """Step 11."""
    return lambda _self, _record, _error: None


@mutation(Batch, "_refuse")
def poison_dead_lettered_twice(real: Any) -> Any:
    """Step 11."""

    def refuse(self: Batch, *args: Any) -> None:
        real(self, *args)
        real(self, *args)

    return refuse


# --- attempts and what becomes of them ---


@mutation(PartitionActor, "take")
def two_attempts_in_flight(real: Any) -> Any:
    """I5."""

    def take(self: PartitionActor, subject: str) -> Attempt | None:
        attempt: Attempt | None = real(self, subject)
        if attempt is not None:
            self.outbox.entries[subject].in_flight = False
            self.outbox.schedule(subject, self._context.clock.now())
            self._wake.set()
        return attempt

    return take


@mutation(PartitionActor, "take")
def old_payload_retried(real: Any) -> Any:
    """Step 14: the record as of now."""

    def take(self: Any, subject: str) -> Attempt | None:
        attempt: Attempt | None = real(self, subject)
        if attempt is not None:
            kept = self.__dict__.setdefault("kept", {})
            attempt.order, attempt.update = kept.setdefault(subject, (attempt.order, attempt.update))
        return attempt

    return take


@mutation(PartitionActor, "done")  # type: ignore[no-redef]
def old_payload_retried(real: Any) -> Any:  # noqa: F811
    """Until it is taken."""

    def done(self: Any, attempt: Attempt, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.APPLIED:
            del self.kept[attempt.subject]
        real(self, attempt, outcome)

    return done


@mutation(batch, "settle")
def newest_revision_acknowledged(real: Any) -> Any:
    """Acknowledged is what was sent."""
    return lambda record, _revision, *args, **named: real(record, record.revision, *args, **named)


@mutation(Batch, "outcome")
def outcome_of_another_order(real: Any) -> Any:
    """An outcome belongs to the order of its attempt."""

    def outcome(self: Batch, attempt: Attempt, *args: Any) -> None:
        other = copy(attempt)
        other.subject = min(self._orders)
        self.holds[attempt.subject] = 0.0
        self.keep(attempt.subject)
        real(self, other, *args)

    return outcome


@mutation(outbox, "is_parked")
def parked_order_not_looked_at_again(_real: Any) -> Any:
    """A changed payload releases a parked order."""
    return lambda header: header.park is not None


@mutation(outbox.Outbox, "put")
def delay_lost(real: Any) -> Any:
    """Retry-After and backoff."""

    def put(self: Any, subject: str, header: OrderHeader, **named: Any) -> None:
        prompt = copy(header)
        prompt.not_before_ms = 0
        real(self, subject, prompt, **named)

    return put


@mutation(outbox, "take_event")
def revision_is_a_counter(real: Any) -> Any:
    """Section 2: a revision is an offset; a counter would restart."""

    def take_event(record: OrderRecord, event: Any, **named: Any) -> OrderRecord:
        return real(record, event, **named | {"revision": record.revision + 1})  # type: ignore[no-any-return]

    return take_event


