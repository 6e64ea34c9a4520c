"""One transaction in the making: what the mailbox held, worked into the records of the orders it touches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from zlib import crc32

import structlog
from msgspec import Struct
from msgspec.structs import replace

from schemas import state
from schemas.base import time_text
from schemas.events import ConfirmedData, ObservedData, OrderEvent
from schemas.facts import PROVIDER, SealedFacts
from schemas.state import OrderRecord, Parking
from worker.core import record as records
from worker.core.intake import decode, identify, shown_id
from worker.core.order import assess
from worker.core.outbox import Decide
from worker.core.plan import Acknowledge, Park, Send, Wait
from worker.core.record import settle
from worker.core.results import (
    LEAN_BYTES,
    PROVIDER_KINDS,
    Found,
    find,
    find_ready,
    find_waiting,
    pass_over,
    tell,
    tell_fact,
)
from worker.core.retention import ClosedOrders, DueOrder
from worker.core.retry import awaits_change
from worker.core.status import is_only_shown, is_parked
from worker.core.trust import Trust
from worker.errors import MalformedEventError
from worker.metrics import EventResult
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.jobs import Fate
from worker.model.order import account_of, reference_of
from worker.model.provider import Destination
from worker.orders.context import OrderContext
from worker.orders.letters import letter_bytes, letter_of
from worker.ownership.context import Slice
from worker.ownership.workload import Sizes
from worker.ports import Attempt, DeadLetter, InputRecord, JobChange, OrderTable, Result, UndecodableRecord, after

log = structlog.get_logger(__name__)

_RECORD_OVERHEAD_BYTES = 8 * 1024
"""Key, framing, and what attempts may still add: two reasons of 510 characters, of four bytes each."""
_SUBJECT_MAX_BYTES = 8 * 1024


EVENTS_AT_ONCE, EVENTS_AT_ONCE_BYTES = 64, 256 * 1024
"""What `Batch.events` is best given, about a millisecond's work: fewer of those that are large, or of large orders."""
_FRAMING = 1_024
_LOOKALIKE_EVERY_S = 60.0
_FIRST_REASONS = frozenset({"too_large", "no_key"})
"""Of `CONTRACT.md` section 4: they go before `undecodable`."""


def is_too_large(subject: str, value: bytes, value_max_bytes: int) -> int:
    """The bytes that an order's record may come to, when that is more than the state topic takes; else 0."""
    size = len(value) + len(subject.encode()) + _RECORD_OVERHEAD_BYTES
    return size if size > value_max_bytes else 0


def smallest_too_large(value_max_bytes: int) -> int:
    """Records of so many bytes are never too large, whatever the subject."""
    return value_max_bytes - _RECORD_OVERHEAD_BYTES - _SUBJECT_MAX_BYTES


class Skipped(Struct, frozen=True, gc=False):
    """Of a record: nobody here reads it."""

    lookalikes: list[str]
    """Its type, where somebody may believe that we do."""


class Batch:
    """Reads the committed records, keeps the changed ones; nothing of it counts before it is committed."""

    def __init__(
        self,
        partition: int,
        orders: OrderTable,
        context: OrderContext,
        next_offset: int,
        sizes: Sizes,
        closed: ClosedOrders | None = None,
    ) -> None:
        """`closed`: what is remembered of closed orders."""
        self._partition = partition
        self.next_offset = next_offset
        self.dead_letters: list[DeadLetter] = []
        self.results: list[Result] = []
        self.holds: dict[str, float] = {}
        """By order whose attempt has ended: until when (*now*) it is held."""
        self._orders = orders
        self._context = context
        self._value_max_bytes = sizes.value
        self._value_near_max_bytes = sizes.value - 2 * _RECORD_OVERHEAD_BYTES
        self._letter_max_bytes = sizes.letter
        self._lean_below = sizes.lean_below
        self._result_max_bytes = min(sizes.result, LEAN_BYTES) if sizes.lean_results else sizes.result
        self._time = ""
        """The present, as results have it."""
        self.bytes = 0
        """What entries, letters and events without either come to; an order that changes twice counts twice."""
        self._now_ms = context.clock.wall_ms()
        # Encoded at once, while a record is at hand: thousands of decoded ones cost more than to decode one twice.
        self._changed: dict[str, tuple[OrderRecord, bytes]] = {}
        self._jobs: dict[str, bytes] = {}
        self._closed = closed or ClosedOrders()
        self.gone: list[str] = []
        """Orders that are closed."""
        self.closed: dict[str, bytes | None] = {}
        """What is remembered of closed orders, by key, where that changes; `None`: it is not any more."""
        self._events: dict[EventResult, int] = {"changed": 0, "unchanged": 0, "skipped": 0}
        self._lookalikes: list[str] = []
        self._coalesced = 0
        self._key_changes = 0
        self._by_origin: list[str] = []
        """Accounts of the orders that need not be told, because of where the change was made."""
        self.unconfigured: list[str] = []
        """New orders of accounts that nobody has configured."""
        self._notes: list[tuple[str, dict[str, object]]] = []
        self._epoch = context.topic_epoch << state.TOPIC_EPOCH_BITS
        self.last_record: InputRecord | None = None
        """Of the input, that could be read and was taken; `None`: there was none."""
        self._ahead: list[tuple[InputRecord, OrderEvent | Skipped | MalformedEventError]] = []
        """Records that are decoded and not taken yet."""

    def record(self, subject: str) -> OrderRecord:
        """The order as it stands in this batch; a new one when nothing is known of it."""
        value = self._value(subject)
        return OrderRecord() if value is None else state.decode_order(value)

    def _value(self, subject: str) -> bytes | None:
        changed = self._changed.get(subject)
        return self._orders.get(subject) if changed is None else changed[1]

    def keep(self, subject: str) -> None:
        """Writes the order as it stands in memory."""
        value = self._orders.get(subject)
        if value is not None and subject not in self._changed:
            self._changed[subject] = state.decode_order(value), value

    def _put(self, subject: str, record: OrderRecord) -> None:
        self._changed[subject] = changed = _encoded(record)
        self.bytes += len(changed[1])

    # --- events ---

    def events(self, records: Sequence[InputRecord], in_flight: Callable[[str], bool], bytes_max: int) -> int:
        """Takes records of the input, each an event, something to skip, or something to refuse, until it comes to
        `bytes_max`. How many it took, one at least: the others come first the next time.

        All are decoded before the first one is taken, so that the processor's caches hold what the one work needs, and
        then what the other needs: of 64 events that saves the twelfth part.
        """
        self.look_ahead(records)
        ahead, count = self._ahead, 0
        for record, decoded in ahead:
            count += 1
            offset = record.offset
            if offset < self.next_offset and after(record) <= self.next_offset:
                continue  # fed before an operator moved the position
            if isinstance(decoded, OrderEvent):
                self.next_offset, self.last_record = offset + 1, record
                self._event(record, decoded, in_flight)
            else:
                self._pass_over(record, decoded)
            if self.bytes >= bytes_max:
                break
        self._ahead = ahead[count:]
        return count

    def look_ahead(self, records: Sequence[InputRecord]) -> list[str]:
        """Decodes records that are taken next; the orders that they are about."""
        if not self._ahead or self._ahead[0][0] is not records[0]:
            self._ahead = []
        trust = self._context.trust
        self._ahead += [(record, _decoded(record, trust)) for record in records[len(self._ahead) :]]
        return [decoded.subject for _, decoded in self._ahead if isinstance(decoded, OrderEvent)]

    def _pass_over(self, record: InputRecord, decoded: MalformedEventError | Skipped) -> None:
        """A record that is no event of ours."""
        self.next_offset = after(record)
        if type(record) is not UndecodableRecord:
            self.last_record = record
        if isinstance(decoded, MalformedEventError):
            self._refuse(record, decoded)
            return
        self._events["skipped"] += 1
        self._lookalikes += decoded.lookalikes
        self.bytes += len(record.value or b"")

    def _event(self, record: InputRecord, event: OrderEvent, in_flight: Callable[[str], bool]) -> None:
        offset, subject = record.offset, event.subject
        try:
            placing = self._context.placing
            if placing is not None:
                placing.check(record.key or b"", subject, self._partition, self._context.topic_partitions)
            before, matters = self._known(event, self._epoch | (offset + 1))
            changed = records.apply_event(
                before,
                event,
                position=offset,
                revision=self._epoch | (offset + 1),
                now_ms=self._now_ms,
                destination=self._context.destinations.get(account_of(subject)) if matters else None,
                # An attempt whose outcome is in this very transaction is over, though the outbox is not told yet.
                in_flight=matters and subject not in self.holds and in_flight(subject),
                key_digest=crc32(record.key or b""),
            )
            if changed is before:
                self._events["unchanged"] += 1
                self.bytes += len(record.value or b"")
                return
            key_changed = changed.has_several_keys and not before.has_several_keys
            told: Sequence[bytes | None] = ()
            if self._context.reporting is not None and (
                changed.acked == changed.revision or type(event.data) in PROVIDER_KINDS
            ):
                told = self._results_of_event(event, before, changed)
            encoded = _encoded(changed)
            if len(encoded[1]) > self._value_near_max_bytes and (
                size := is_too_large(subject, encoded[1], self._value_max_bytes)
            ):
                raise self._too_large(size)
        except MalformedEventError as error:
            self._refuse(record, error)
            return
        self._events["changed"] += 1
        self._coalesced += before.acked < before.revision
        if not before.revision and account_of(subject) not in self._context.destinations:
            self.unconfigured.append(subject)
        if key_changed:
            self._key_changes += 1
            self._note("order_key_changed", subject, changed.revision, shown_id(event.id, event.uid))
        if changed.acked == changed.revision and records.may_change(event):
            self._by_origin.append(account_of(subject))
            made_at = changed.made_at and changed.made_at.provider
            self._note("order_settled", subject, changed.revision, shown_id(event.id, event.uid), made_at=made_at)
        for result in told:
            self._report(subject, result)
        self._changed[subject] = encoded
        self.bytes += len(encoded[1])

    def _known(self, event: OrderEvent, revision: int) -> tuple[OrderRecord, bool]:
        """What `record_for` says; of an order of which nothing is known, whether it was closed, too."""
        before, matters = records.record_for(event, self._value(event.subject))
        if not before.revision and type(event.data) not in _FIRST_KINDS:
            before.closed_day = self._closed.closed_on(event.subject)
            if before.closed_day:
                self._note("order_was_closed", event.subject, revision, shown_id(event.id, event.uid))
        return before, matters

    def _too_large(self, size: int) -> MalformedEventError:
        return MalformedEventError(
            "order_too_large",
            f"$: expected an order's record of at most {self._value_max_bytes} bytes, got {size}",
        )

    def _refuse(self, record: InputRecord, error: MalformedEventError) -> None:
        said = {
            "reason": error.reason,
            "detail": error.detail,
            "topic": self._context.event_topic,
            "partition": str(self._partition),
            "offset": str(record.offset),
            "timestamp": str(record.timestamp),
            "version": self._context.version,
        }
        letter = letter_of(record, said, self._letter_max_bytes, lean=record.offset < self._lean_below)
        self.dead_letters.append(letter)
        self.bytes += letter_bytes(letter)
        self._context.metrics.dead_letter(error.reason)
        fields = {"offset": record.offset, "reason": error.reason, "detail": error.detail, "sampled_by": error.reason}
        self._notes.append(("event_refused", _identity(record) | fields))

    # --- what became of attempts, decisions, commands ---

    def outcome(self, attempt: Attempt, outcome: Outcome, ended_at: float) -> None:
        """An attempt has ended, at `ended_at` (*now*)."""
        context = self._context
        subject = attempt.subject
        value = self._value(subject)
        assert value is not None  # an attempt is of an order that is known
        if outcome.found is not None:
            known = state.decode_order(value)
            whole = records.apply_found(known, self._now_ms)
            value = state.encode(whole)
            self._note("order_cancelled_there", subject, attempt.revision, attempt.event_id)
            # What could not be told is not what is owed now. Once: a shop whose clock is ahead outranks it each time.
            heard = PROVIDER.open(known.sealed.provider)
            is_news = heard is None or heard.cancelled is None
            is_other = outcome.kind is OutcomeKind.UNSUPPORTED and is_news
            if is_other or assess(whole.facts, reference_of(subject)).state == "inconsistent":
                outcome = replace(outcome, kind=OutcomeKind.PENDING, retry_after_s=0.0)  # the next look announces it
        before = state.decode_order(value)  # sealed: an outcome changes nothing about the facts, which are most of it
        after, hold_s = settle(
            before,
            attempt.revision,
            attempt.update.digest,
            outcome,
            now_ms=self._now_ms,
            chance=context.clock.chance(),
            rules=context.rules,
        )
        if outcome.remote is not None and len(outcome.remote) > len(before.remote):
            self._bound(subject, before, after, attempt)
        if context.reporting is not None and outcome.found is not None:
            self._report(subject, self._result_of(subject, after))
        elif context.reporting is not None and after.revision == attempt.revision:  # a newer one is looked at next
            self._report(
                subject, self._result(subject, after, find_ready(after, attempt.shown, self._destination(subject)))
            )
        self._put(subject, after)
        # From the end of the attempt, not from this transaction: `settle` is about what the network may still deliver.
        # Also without a hold it is noted, for its attempt has ended, and it may be sent again once this is committed.
        self.holds[subject] = ended_at + hold_s if hold_s else 0.0
        fields = _about(subject, attempt.revision, attempt.event_id, outcome)
        if outcome.kind is OutcomeKind.APPLIED:
            self._note_applied(before, after, fields)
        elif outcome.kind is OutcomeKind.PENDING:
            wait_s = None if awaits_change(after) else round(max(0, after.not_before_ms - self._now_ms) / 1000, 3)
            name = "order_overdue_at_provider" if outcome.is_overdue else "order_pending"
            self._notes.append((name, fields | {"wait_s": wait_s}))
        elif after.park is not None:
            context.metrics.parked(account_of(subject))
            self._notes.append(("order_parked", fields | {"outcome": outcome.kind.value}))
        else:
            wait_s = hold_s or max(0, after.not_before_ms - self._now_ms) / 1000
            name = "order_held" if hold_s else "order_retry"
            if hold_s:
                context.metrics.held()
            self._notes.append((name, fields | {"outcome": outcome.kind.value, "wait_s": round(wait_s, 3)}))

    def _bound(self, subject: str, before: OrderRecord, after: OrderRecord, attempt: Attempt) -> None:
        """An adapter may keep more than the topic takes: then what was kept before stays, and somebody is asked."""
        size = len(state.encode(after)) + len(subject.encode()) + _FRAMING
        if size > self._value_max_bytes:
            after.remote = before.remote
            after.may_land_late = after.remote_unknown = True
            after.reason = f"its record would have {size} bytes, the state topic takes {self._value_max_bytes}"
            after.park = Parking(after.reason, attempt.update.digest, attempt.revision, self._now_ms)

    def decide(self, decision: Decide) -> None:
        """Follows a decision of the outbox, unless the order's record has changed since: an operator's command that
        came in between stands, and the order is evaluated again.
        """
        subject = decision.subject
        if subject in self._changed or self._orders.get(subject) != decision.basis:
            return  # it is committed with what changed it, and evaluated then
        record = self.record(subject)
        plan = decision.plan
        match plan:
            case Acknowledge(digest):
                record = records.acknowledge(record, digest)
                self._context.metrics.suppressed()
                self._note_of("update_skipped", subject, record, reason="unchanged")
            case Park(reason, digest, by_check):
                # A newer revision with the payload that is parked already is no news to anybody.
                if record.park is None or record.park.digest != digest:
                    self._context.metrics.parked(account_of(subject))
                    self._note_of("order_parked", subject, record, outcome="check")
                record = records.park(record, reason, digest, self._now_ms, by_check=by_check)
            case Wait(waiting, _, contradicts):
                before, record = record, records.mark_waiting(record, contradicts, self._now_ms)
                if record is not before:
                    self._note_of("order_waiting", subject, record, status=waiting)
            case Send():
                if record.inconsistent_since_ms or record.park is not None:
                    self._note_of("order_released", subject, record)
                if record.park is not None:
                    record = records.release(record)
                record.inconsistent_since_ms = 0
        if self._context.reporting is not None:
            if isinstance(plan, Wait):
                found = find_waiting(record, subject, plan, self._destination(subject), is_overdue=decision.is_overdue)
            else:
                found = find_ready(record, plan.shown, self._destination(subject))
            self._report(subject, self._result(subject, record, found))
        self._put(subject, record)

    async def job(self, change: JobChange, work: Slice) -> None:
        """What a job wants written: the orders that it is about are as they were when it made that up, for what jobs
        want goes first.
        """
        self._jobs[change.key] = change.value
        self.bytes += len(change.value)
        for subject, remote in change.remotes.items():
            if work.is_over():
                await work.pause()
            record = state.decode_order(self._orders[subject])
            record.remote = remote
            self._put(subject, record)
        for subject, fate in change.fates.items():
            if work.is_over():
                await work.pause()
            self._fate(subject, fate)

    def _fate(self, subject: str, fate: Fate) -> None:
        """What a job has come to for an order, as if it had been an attempt of its own."""
        context, outcome = self._context, fate.outcome
        before = state.decode_order(self._orders[subject])
        after, _ = settle(
            before,
            fate.revision,
            fate.digest,
            outcome,
            now_ms=self._now_ms,
            chance=context.clock.chance(),
            rules=context.rules,
        )
        if context.reporting is not None and after.revision == fate.revision:
            self._report(subject, self._result_of(subject, after))
        self._put(subject, after)
        fields = _about(subject, fate.revision, after.event_id, outcome)
        if outcome.kind is OutcomeKind.APPLIED:
            self._note_applied(before, after, fields)
        else:
            self._notes.append(("order_pending", fields | {"wait_s": None}))

    def _note_applied(self, before: OrderRecord, after: OrderRecord, fields: dict[str, object]) -> None:
        self._context.metrics.acknowledged(max(0.0, (self._now_ms - before.event_ms) / 1000))
        self._notes.append(("order_settled" if after.revision == after.acked else "update_accepted", fields))

    def command(self, subject: str, change: Callable[[OrderRecord, int], OrderRecord]) -> bool:
        """An operator's change; False: there was nothing to change."""
        before = self.record(subject)
        record = change(before, self._now_ms)
        if record is before:
            return False
        self._note_of("order_changed_by_operator", subject, record)
        self._report(subject, self._result_of(subject, record))
        self._put(subject, record)
        return True

    def close(self, due: Sequence[DueOrder]) -> None:
        """Removes orders; the last thing that a batch does. One of which something has come meanwhile stays."""
        gone = [
            each for each in due if each.subject not in self._changed and self._orders.get(each.subject) == each.basis
        ]
        if not gone:
            return
        self.gone = [each.subject for each in gone]
        self.closed = dict.fromkeys(self._closed.outdated(self._now_ms, self._context.keep_settled_ms))
        if remembered := [each.subject for each in gone if not each.is_shown_alone]:
            key, value = self._closed.with_more(self._now_ms, remembered)
            self.closed[key] = value
            self.bytes += len(value)
        self._notes.append(("orders_closed", {"orders": len(gone), "observed": len(gone) - len(remembered)}))

    # --- results ---

    def _results_of_event(self, event: OrderEvent, before: OrderRecord, after: OrderRecord) -> list[bytes | None]:
        """What others are told because of an event after which nobody looks at the order: how it stands. And what its
        provider says, in any case.
        """
        reporting = self._context.reporting
        assert reporting is not None  # who calls has looked
        if type(event.data) not in PROVIDER_KINDS and not records.may_change(event):
            pass_over(before, after)
            return []
        told = [tell_fact(event, after.revision, reporting, max_bytes=self._result_max_bytes)]
        if after.acked == after.revision or is_parked(after):
            told.append(self._result_of(event.subject, after))
        return told

    def _result_of(self, subject: str, record: OrderRecord) -> bytes | None:
        """As its facts say that it stands; of one that was only observed, or paid for, nobody is told."""
        context = self._context
        if context.reporting is None or is_only_shown(record):
            return None
        found = find(record, subject, self._destination(subject), now_ms=self._now_ms, rules=context.rules)
        return self._result(subject, record, found)

    def _destination(self, subject: str) -> Destination | None:
        return self._context.destinations.get(account_of(subject))

    def _result(self, subject: str, record: OrderRecord, found: Found) -> bytes | None:
        """What others are told of it now, if it is news; then the record says that they were told."""
        reporting = self._context.reporting
        assert reporting is not None  # who calls has looked
        self._time = self._time or time_text(self._now_ms * 1000)
        return tell(record, subject, found, reporting, time=self._time, max_bytes=self._result_max_bytes)

    def _report(self, subject: str, value: bytes | None) -> None:
        if value is None:
            return
        if len(value) > self._result_max_bytes:
            limit = self._result_max_bytes
            self._notes.append(("result_dropped", {"order": subject, "bytes": len(value), "limit": limit}))
            return
        self.results.append(Result(subject.encode(), value))
        self.bytes += len(value)

    def _note(self, name: str, subject: str, revision: int, event_id: str, **fields: object) -> None:
        self._notes.append((name, {"order": subject, "revision": revision, "event_id": event_id, **fields}))

    def _note_of(self, name: str, subject: str, record: OrderRecord, **fields: object) -> None:
        """Of a record that still has its facts."""
        self._note(name, subject, record.revision, records.newest_event(record), **fields)

    # --- the transaction ---

    def entries(self) -> list[tuple[bytes, bytes | None]]:
        """The changed orders and jobs as they go into the state topic."""
        found: list[tuple[bytes, bytes | None]] = [(key.encode(), value) for key, value in self._jobs.items()]
        found += [((state.ORDER_PREFIX + subject).encode(), value) for subject, (_, value) in self._changed.items()]
        found += [((state.ORDER_PREFIX + subject).encode(), None) for subject in self.gone]
        found += [(key.encode(), value) for key, value in self.closed.items()]
        return found

    @property
    def jobs(self) -> dict[str, bytes]:
        """The changed records of jobs, by key."""
        return self._jobs

    def changed(self) -> Iterator[tuple[str, OrderRecord, bytes]]:
        """The changed orders."""
        return ((subject, header, value) for subject, (header, value) in self._changed.items())

    async def announce(self) -> None:
        """Says what has changed, now that it is so: one line per change of an order, no personal datum in it."""
        metrics = self._context.metrics
        self._events["skipped"] -= len(self._lookalikes)
        self._events["lookalike"] = len(self._lookalikes)
        for result, count in self._events.items():
            metrics.event(result, count)
        metrics.coalesced(self._coalesced)
        metrics.keys_changed(self._key_changes)
        for account in self._by_origin:
            metrics.acknowledged_by_origin(account)
        self._announce_lookalikes()
        for subject in self.unconfigured:
            self._context.warn_unconfigured(account_of(subject), self._partition)
        metrics.results(len(self.results))
        metrics.orders_closed(len(self.gone))
        work = Slice(self._context)
        for name, fields in self._notes:
            if work.is_over():
                await work.pause()
            needs_somebody = name in _WARNINGS or fields.get("status") == "inconsistent"
            (log.warning if needs_somebody else log.info)(name, partition=self._partition, **fields)

    def _announce_lookalikes(self) -> None:
        """Somebody may believe that these are read; once in a while is enough."""
        context = self._context
        count, now = len(self._lookalikes), context.clock.now()
        if count and now - context.lookalikes_logged_at >= _LOOKALIKE_EVERY_S:
            context.lookalikes_logged_at = now
            log.warning(
                "events_skipped", partition=self._partition, count=count, type=self._lookalikes[-1], expected="order.*"
            )


def _about(subject: str, revision: int, event_id: str, outcome: Outcome) -> dict[str, object]:
    """What a line of the log says of an attempt, or of what stands for one."""
    return {"order": subject, "revision": revision, "event_id": event_id, "status": outcome.status}


def _decoded(record: InputRecord, trust: Trust) -> OrderEvent | Skipped | MalformedEventError:
    if type(record) is UndecodableRecord:
        return _why_undecodable(record)
    lookalikes: list[str] = []
    headers = _given(record.headers) if record.headers else {}
    try:
        event = decode(record.key, record.value, headers, record.timestamp, lookalikes.append, trust)
    except MalformedEventError as error:
        return error
    return Skipped(lookalikes) if event is None else event


def _why_undecodable(record: UndecodableRecord) -> MalformedEventError:
    if not record.is_batch:
        try:
            decode(record.key, record.value, {}, record.timestamp)
        except MalformedEventError as error:
            if error.reason in _FIRST_REASONS:
                return error
    return MalformedEventError("undecodable", record.detail)


def _identity(record: InputRecord) -> dict[str, object]:
    """Id and subject of a refused event, as far as they can be read."""
    if type(record) is UndecodableRecord:
        event_id, subject = ("", "") if record.is_batch else identify(record.value, {})
    else:
        event_id, subject = identify(record.value, _given(record.headers))
    found = {"event_id": event_id, "order": subject}
    return {name: text for name, text in found.items() if text}


def _given(headers: Sequence[tuple[str, Any]]) -> dict[str, bytes]:
    """The last of each name. A value may be null in Kafka, whatever the client says of its types: as good as none."""
    return {name: value for name, value in headers if value is not None}


def _encoded(record: OrderRecord) -> tuple[OrderRecord, bytes]:
    """The record without its facts, and its value."""
    value = state.encode(record)
    record.sealed = _NO_FACTS  # to copy the header's ten members instead would take 0.5 µs
    return record, value


_FIRST_KINDS = frozenset({ConfirmedData, ObservedData})
"""Most orders begin with them: to look for each among those that were closed would take longer than the event."""
_NO_FACTS = SealedFacts()
_WARNINGS = frozenset(
    (
        *("order_parked", "order_held", "order_key_changed", "order_overdue_at_provider", "order_was_closed"),
        *("event_refused", "result_dropped"),
    )
)
