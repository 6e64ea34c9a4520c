"""Breaks of the rules of sending: holds, the lease, doubt, attempts and what becomes of them."""

from copy import copy
from typing import Any

from schemas.state import OrderHeader, OrderRecord
from tests.simulation.breaks import Breaks
from worker.core import outbox
from worker.core import record as records
from worker.core.account import AccountQueue
from worker.core.outbox import Outbox
from worker.core.outbox_effects import Claim, Effects
from worker.core.policy import DeliveryPolicy
from worker.model.exchange import Outcome, OutcomeKind
from worker.orders import batch
from worker.orders.batch import Batch
from worker.orders.workload import OrderWorkload
from worker.ownership.lease import Lease
from worker.ownership.owner import Owner
from worker.ports import Attempt
from worker.providers import responses
from worker.publisher.publisher import Publisher

breaks = Breaks()


# --- holds, the lease, doubt ---


@breaks(batch, "settle")
def no_hold_after_an_unknown_outcome(real: Any) -> Any:
    """Rule 2 of the outbox."""
    return lambda *args, **named: (real(*args, **named)[0], 0.0)


@breaks(Batch, "outcome")
def hold_counted_from_the_beginning_of_the_attempt(real: Any) -> Any:
    """`settle` begins when an attempt is given up."""
    return lambda self, attempt, outcome, _ended_at: real(self, attempt, outcome, attempt.taken_at)


@breaks(responses, "kind_of_status")
def bad_gateway_taken_for_a_refusal(real: Any) -> Any:
    """The origin behind a gateway may still apply it."""
    return lambda status: OutcomeKind.REJECTED if status >= 500 else real(status)


@breaks(DeliveryPolicy, "takeover_hold_s")
def no_takeover_hold(_real: Any) -> Any:
    """I7."""
    return property(lambda _self: 0.0)


@breaks(DeliveryPolicy, "takeover_hold_s")
def takeover_hold_without_the_lease(_real: Any) -> Any:
    """H is L + G: the predecessor may begin an attempt until its lease is over."""
    return property(lambda self: self.settle_s + 1.0)


@breaks(DeliveryPolicy, "permits_attempt")
def no_lease_check(_real: Any) -> Any:
    """I6."""
    return lambda _self, _now, _lease_until: True


@breaks(DeliveryPolicy, "permits_attempt")
def attempt_outlasts_the_lease(_real: Any) -> Any:
    """I6: t + D <= lease_until, not t <= lease_until."""
    return lambda _self, now, lease_until: now <= lease_until


@breaks(Owner, "_write")
def lease_counted_from_the_end_of_the_commit(real: Any) -> Any:
    """A successor's fence may come right after a commit began."""

    async def write(self: Owner[Any], *args: Any) -> None:
        await real(self, *args)
        self.lease.renew(self._context.clock.now())

    return write


@breaks(Owner, "drain")
def leaves_without_waiting_for_attempts(real: Any) -> Any:
    """Step 19."""

    def drain(self: Owner[Any], drain_s: float) -> None:
        real(self, drain_s)
        self.workload._in_flight = 0

    return drain


@breaks(Lease, "revoke")
def lease_not_cut_when_the_partition_is_lost(_real: Any) -> Any:
    """Step 13: neither its lease nor its attempts end."""
    return lambda _self: None


@breaks(Publisher, "abandon")  # type: ignore[no-redef]
def lease_not_cut_when_the_partition_is_lost(real: Any) -> Any:  # noqa: F811
    """They go on."""

    def abandon(self: Publisher, outlet: Any) -> None:
        if outlet.role != "closed":
            real(self, outlet)

    return abandon


@breaks(outbox, "plan")
def equal_payload_suppressed_while_in_doubt(real: Any) -> Any:
    """Rule 3 of the outbox."""

    def plan(record: OrderRecord, *args: Any) -> Any:
        trusting = copy(record)
        trusting.remote_unknown = trusting.may_land_late = False
        return real(trusting, *args)

    return plan


@breaks(batch, "settle")
def server_error_leaves_no_doubt(real: Any) -> Any:
    """What was answered 500 may have been applied."""

    def settle(record: OrderRecord, revision: int, digest: bytes, outcome: Outcome, **named: Any) -> Any:
        after, hold_s = real(record, revision, digest, outcome, **named)
        if outcome.kind is OutcomeKind.REJECTED:
            after.remote_unknown = record.remote_unknown
        return after, hold_s

    return settle


# --- attempts and what becomes of them ---


@breaks(Outbox, "claim")
def two_attempts_in_flight(real: Any) -> Any:
    """I5."""

    def claim(self: Any, subject: str, now: float, *args: Any, **named: Any) -> Claim | Effects:
        claimed: Claim | Effects = real(self, subject, now, *args, **named)
        if isinstance(claimed, Claim):
            entry = self._entries[subject]
            entry.in_flight = False
            self._schedule(subject, entry, now)
        return claimed

    return claim


@breaks(OrderWorkload, "claim")  # type: ignore[no-redef]
def two_attempts_in_flight(real: Any) -> Any:  # noqa: F811
    """Looked at again at once."""

    def claim(self: OrderWorkload, subject: str) -> Attempt | None:
        self.wake()
        return real(self, subject)  # type: ignore[no-any-return]

    return claim


@breaks(OrderWorkload, "claim")
def old_payload_retried(real: Any) -> Any:
    """Step 14: the record as of now."""

    def claim(self: Any, subject: str) -> Attempt | None:
        attempt: Attempt | None = real(self, subject)
        if attempt is not None:
            kept = self.__dict__.setdefault("kept", {})
            attempt.update = kept.setdefault(subject, attempt.update)
        return attempt

    return claim


@breaks(OrderWorkload, "done")  # type: ignore[no-redef]
def old_payload_retried(real: Any) -> Any:  # noqa: F811
    """Until it is taken."""

    def done(self: Any, attempt: Attempt, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.APPLIED:
            del self.kept[attempt.subject]
        real(self, attempt, outcome)

    return done


@breaks(batch, "settle")
def newest_revision_acknowledged(real: Any) -> Any:
    """Acknowledged is what was sent."""
    return lambda record, _revision, *args, **named: real(record, record.revision, *args, **named)


@breaks(Batch, "outcome")
def outcome_of_another_order(real: Any) -> Any:
    """An outcome belongs to the order of its attempt."""

    def outcome(self: Batch, attempt: Attempt, *args: Any) -> None:
        other = copy(attempt)
        other.subject = min(self._orders.subjects())
        self.holds[attempt.subject] = 0.0
        self.keep(attempt.subject)
        real(self, other, *args)

    return outcome


@breaks(outbox, "is_parked")
def parked_order_not_looked_at_again(_real: Any) -> Any:
    """A changed payload releases a parked order."""
    return lambda header: header.park is not None


@breaks(Outbox, "committed")
def delay_lost(real: Any) -> Any:
    """Retry-After and backoff."""

    def committed(self: Any, subject: str, header: OrderHeader, **named: Any) -> None:
        prompt = copy(header)
        prompt.not_before_ms = 0
        real(self, subject, prompt, **named)

    return committed


@breaks(AccountQueue, "_follow_probe")
def probe_never_ends_a_pause(real: Any) -> Any:
    """Who is paused finds out by himself."""

    def follow(self: Any, pause: Any, subject: str, outcome: Outcome, _answer: OutcomeKind, now: float) -> None:
        real(self, pause, subject, outcome, OutcomeKind.UNKNOWN, now)

    return follow


@breaks(records, "apply_event")
def revision_is_a_counter(real: Any) -> Any:
    """Section 2: a revision is an offset; a counter would restart."""

    def apply_event(record: OrderRecord, event: Any, **named: Any) -> OrderRecord:
        return real(record, event, **named | {"revision": record.revision + 1})  # type: ignore[no-any-return]

    return apply_event
