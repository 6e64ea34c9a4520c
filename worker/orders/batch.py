"""One transaction in the making: what the mailbox held, worked into the records of the orders it touches."""

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

from msgspec.structs import replace

from schemas import state
from schemas.events import ConfirmedData, ObservedData, OrderEvent
from schemas.facts import PROVIDER
from schemas.state import OrderRecord, Parking
from worker.core import record as records
from worker.core.commands import Command
from worker.core.effects import OPERATOR_KINDS
from worker.core.intake import shown_id
from worker.core.order import assess
from worker.core.outbox_effects import Decide
from worker.core.plan import Acknowledge, Park, Send, Wait
from worker.core.record import settle
from worker.core.retention import ClosedOrders, DueOrder
from worker.core.retry import awaits_change
from worker.errors import MalformedEventError
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.jobs import Fate
from worker.model.order import account_of, reference_of
from worker.orders.context import OrderContext
from worker.orders.encoding import OVERHEAD_BYTES, Encoded, encoded, is_too_large, too_large
from worker.orders.happened import Happened
from worker.orders.history import Held, History
from worker.orders.letters import letter_bytes, letter_of
from worker.orders.operating import Operating
from worker.orders.reading import Skipped, decoded, identity_of
from worker.orders.telling import Telling
from worker.ownership.context import Slice
from worker.ownership.workload import Sizes
from worker.ports import Attempt, DeadLetter, InputRecord, JobChange, OrderTable, Result, UndecodableRecord, after

EVENTS_AT_ONCE, EVENTS_AT_ONCE_BYTES = 64, 256 * 1024
"""What `Batch.events` is best given, about a millisecond's work: fewer of those that are large, or of large orders."""
_FRAMING = 1_024


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
        accounts: Mapping[str, bytes] = {},
        held: Held | None = None,
        under: Mapping[str, Encoded] = {},
    ) -> None:
        """`closed`: what is remembered of closed orders. `accounts`: the records of accounts, by key. `held`: orders
        that are held since a takeover. `under`: the changed orders of a batch that is being committed; here they count.
        """
        self._partition = partition
        self.next_offset = next_offset
        self.dead_letters: list[DeadLetter] = []
        self.results: list[Result] = []
        self.holds: dict[str, float] = {}
        """By order whose attempt has ended: until when (*now*) it is held."""
        self._orders = orders
        self._context = context
        self._value_max_bytes = sizes.value
        self._value_near_max_bytes = sizes.value - 2 * OVERHEAD_BYTES
        self._letter_max_bytes = sizes.letter
        self._lean_below = sizes.lean_below
        self._bytes = 0
        self._now_ms = context.clock.wall_ms()
        self._telling = Telling(context, sizes, self._now_ms)
        self._history = History(self._now_ms, held, under, is_kept=context.keeps_history)
        # Encoded at once, while a record is at hand.
        self.changed: dict[str, Encoded] = {}
        """The changed orders."""
        self._under = under
        self._jobs: dict[str, bytes] = {}
        self.traces: list[tuple[str, str]] = []
        """(subject, `traceparent`) of events that changed an order; none while nobody wants spans."""
        self._closed = closed or ClosedOrders()
        self.gone: list[str] = []
        """Orders that are closed."""
        self.closed: dict[str, bytes | None] = {}
        """What is remembered of closed orders, by key, where that changes; `None`: it is not any more."""
        self.happened = Happened(tracing=context.tracing)
        self._notes = self.happened.notes
        self._operating = Operating(
            partition,
            context,
            sizes,
            self._now_ms,
            telling=self._telling,
            history=self._history,
            happened=self.happened,
            accounts=accounts,
        )
        self.accounts = self._operating.accounts
        """The changed records of accounts, by key."""
        self.operated = self._operating.operated
        """What operators did, by subject."""
        self._epoch = context.topic_epoch << state.TOPIC_EPOCH_BITS
        self.last_record: InputRecord | None = None
        """Of the input, that could be read and was taken; `None`: there was none."""
        self._in_vain = 0
        """Bytes of records that events would have made too large, since `events` was called: to find out takes as long
        as to take them.
        """
        self._ahead: list[tuple[InputRecord, OrderEvent | Skipped | MalformedEventError]] = []
        """Records that are decoded and not taken yet."""

    @property
    def size(self) -> int:
        """Bytes that entries, letters and events without either come to; an order that changes twice counts twice."""
        return self._bytes + self._history.bytes + self._operating.bytes

    def record(self, subject: str) -> OrderRecord:
        """The order as it stands in this batch; a new one when nothing is known of it."""
        value = self._value(subject)
        return OrderRecord() if value is None else state.decode_order(value)

    def _value(self, subject: str) -> bytes | None:
        changed = self.changed.get(subject) or self._under.get(subject)
        return self._orders.get(subject) if changed is None else changed[1]

    def go_on(self) -> None:
        """The batch under it is committed, and all that it has changed is in the table. What comes now, comes now."""
        self._under = {}
        self._now_ms = self._history.now_ms = self._operating.now_ms = self._context.clock.wall_ms()
        self._telling.set_time(self._now_ms)

    def keep(self, subject: str) -> None:
        """Writes the order as it stands in memory."""
        value = self._orders.get(subject)
        if value is not None and subject not in self.changed:
            record = state.decode_order(value)
            self._history.keep(self._history.of_takeover(subject, record))
            self.changed[subject] = encoded(record)

    def _put(self, subject: str, record: OrderRecord) -> None:
        self.changed[subject] = changed = encoded(record)
        self._bytes += len(changed[1])

    # --- events ---

    def events(self, records: Sequence[InputRecord], in_flight: Callable[[str], bool], bytes_max: int) -> int:
        """Takes records of the input, each an event, something to skip, or something to refuse, until it comes to
        `bytes_max`. How many it took, one at least: the others come first the next time.

        All are decoded before the first one is taken, so that the processor's caches hold what the one work needs, and
        then what the other needs: of 64 events that saves the twelfth part.
        """
        ahead = self._decode(records)
        count = self._in_vain = 0
        for record, found in ahead:
            count += 1
            offset = record.offset
            if offset < self.next_offset and after(record) <= self.next_offset:
                continue  # fed before an operator moved the position
            if isinstance(found, OrderEvent):
                self.next_offset, self.last_record = offset + 1, record
                if type(found.data) in OPERATOR_KINDS:
                    self._operator_event(record, found)
                else:
                    self._event(record, found, in_flight)
            else:
                self._pass_over(record, found)
            if self.size + self._in_vain >= bytes_max:
                break
        self._ahead = ahead[count:]
        return count

    def look_ahead(self, records: Sequence[InputRecord]) -> list[str]:
        """Decodes records that are taken next; the orders that they are about."""
        return [found.subject for _, found in self._decode(records) if isinstance(found, OrderEvent)]

    def _decode(
        self, records: Sequence[InputRecord]
    ) -> list[tuple[InputRecord, OrderEvent | Skipped | MalformedEventError]]:
        """Each once, whoever asks first."""
        if not self._ahead or self._ahead[0][0] is not records[0]:
            self._ahead = []
        trust = self._context.trust
        self._ahead += [(record, decoded(record, trust)) for record in records[len(self._ahead) :]]
        return self._ahead

    def _pass_over(self, record: InputRecord, found: MalformedEventError | Skipped) -> None:
        """A record that is no event of ours."""
        self.next_offset = after(record)
        if type(record) is not UndecodableRecord:
            self.last_record = record
        if isinstance(found, MalformedEventError):
            self._refuse(record, found)
            return
        self.happened.events["skipped"] += 1
        self.happened.lookalikes += found.lookalikes
        self._bytes += len(record.value or b"")

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
                self.happened.events["unchanged"] += 1
                self._bytes += len(record.value or b"")
                return
            key_changed = changed.has_several_keys and not before.has_several_keys
            told = self._telling.of_event(event, before, changed)
            entries = self._history.of_event(event, before, changed, offset)
            written = encoded(changed)
            if len(written[1]) > self._value_near_max_bytes and (
                size := is_too_large(subject, written[1], self._value_max_bytes)
            ):
                self._in_vain += len(written[1])
                raise too_large(size, self._value_max_bytes)
        except MalformedEventError as error:
            self._refuse(record, error)
            return
        self.happened.events["changed"] += 1
        if event.traceparent is not None and self._context.tracing is not None:
            self.traces.append((subject, event.traceparent))
        self.happened.coalesced += before.acked < before.revision
        if not before.revision and account_of(subject) not in self._context.destinations:
            self.happened.unconfigured.append(subject)
        if key_changed:
            self.happened.key_changes += 1
            self.happened.note("order_key_changed", subject, changed.revision, shown_id(event.id, event.uid))
        if changed.acked == changed.revision and records.may_change(event):
            self.happened.by_origin.append(account_of(subject))
            made_at = changed.made_at and changed.made_at.provider
            self.happened.note(
                "order_settled", subject, changed.revision, shown_id(event.id, event.uid), made_at=made_at
            )
        for result in told:
            self._report(subject, result)
        self._history.keep(entries)
        self.changed[subject] = written
        self._bytes += len(written[1])

    def _operator_event(self, record: InputRecord, event: OrderEvent) -> None:
        self._bytes += len(record.value or b"")
        try:
            deed = self._operating.event(record, event, self._value)
        except MalformedEventError as error:
            self._refuse(record, error)
            return
        self.happened.events["unchanged" if deed is None else "changed"] += 1
        if deed is None:
            return
        for result in deed.told:
            self._report(event.subject, result)
        if deed.changed is not None:
            self.changed[event.subject] = deed.changed
            self._bytes += len(deed.changed[1])

    def _known(self, event: OrderEvent, revision: int) -> tuple[OrderRecord, bool]:
        """What `record_for` says; of an order of which nothing is known, whether it was closed, too."""
        before, matters = records.record_for(event, self._value(event.subject))
        if not before.revision and type(event.data) not in _FIRST_KINDS:
            before.closed_day = self._closed.closed_on(event.subject)
            if before.closed_day:
                self.happened.note("order_was_closed", event.subject, revision, shown_id(event.id, event.uid))
        return before, matters

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
        self._bytes += letter_bytes(letter)
        self.happened.refused.append(error.reason)
        fields = {"offset": record.offset, "reason": error.reason, "detail": error.detail, "sampled_by": error.reason}
        self._notes.append(("event_refused", identity_of(record) | fields))

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
            self.happened.note("order_cancelled_there", subject, attempt.revision, attempt.event_id)
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
        if outcome.found is not None:
            self._report(subject, self._telling.of(subject, after))
        elif after.revision == attempt.revision:  # a newer one is looked at next
            self._report(subject, self._telling.of_ready(subject, after, attempt.shown))
        self._history.of_attempt(attempt, outcome, after, took_s=ended_at - attempt.taken_at, hold_s=hold_s)
        self._put(subject, after)
        # From the end of the attempt, not from this transaction: `settle` is about what the network may still deliver.
        # Also without a hold it is noted, for its attempt has ended, and it may be sent again once this is committed.
        self.holds[subject] = ended_at + hold_s if hold_s else 0.0
        fields = _about(subject, attempt.revision, attempt.event_id, outcome) | self.happened.trace(attempt.trace)
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
        if subject in self.changed or self._orders.get(subject) != decision.basis:
            return  # it is committed with what changed it, and evaluated then
        record = self.record(subject)
        plan = decision.plan
        is_news = True
        match plan:
            case Acknowledge(digest):
                record = records.acknowledge(record, digest)
                self._context.metrics.suppressed()
                self.happened.note_of("update_skipped", subject, record, reason="unchanged")
            case Park(reason, digest, by_check):
                # A newer revision with the payload that is parked already is no news to anybody.
                is_news = record.park is None or record.park.digest != digest
                if is_news:
                    self._context.metrics.parked(account_of(subject))
                    self.happened.note_of("order_parked", subject, record, outcome="check")
                record = records.park(record, reason, digest, self._now_ms, by_check=by_check)
            case Wait(waiting, _, contradicts):
                before, record = record, records.mark_waiting(record, contradicts, self._now_ms)
                is_news = record is not before
                if is_news:
                    self.happened.note_of("order_waiting", subject, record, status=waiting)
            case Send():
                is_news = bool(record.inconsistent_since_ms or record.park is not None)
                if is_news:
                    self.happened.note_of("order_released", subject, record)
                if record.park is not None:
                    record = records.release(record)
                record.inconsistent_since_ms = 0
        self._report(subject, self._told_of(subject, record, decision))
        if is_news:
            self._history.of_decision(subject, plan, record)
        else:
            self._history.keep(self._history.of_takeover(subject, record))
        self._put(subject, record)

    def _told_of(self, subject: str, record: OrderRecord, decision: Decide) -> bytes | None:
        plan = decision.plan
        if isinstance(plan, Wait):
            return self._telling.of_waiting(subject, record, plan, is_overdue=decision.is_overdue)
        if isinstance(plan, Acknowledge) and not plan.is_approved:
            return self._telling.of(subject, record)
        return self._telling.of_ready(subject, record, plan.shown)

    async def job(self, change: JobChange, work: Slice) -> None:
        """What a job wants written: the orders that it is about are as they were when it made that up, for what jobs
        want goes first.
        """
        self._jobs[change.key] = change.value
        self._bytes += len(change.value)
        for subject, remote in change.remotes.items():
            if work.is_over():
                await work.pause()
            record = state.decode_order(self._orders[subject])
            record.remote = remote
            self._history.of_page(subject, change.page, record)
            self._put(subject, record)
        for subject, fate in change.fates.items():
            if work.is_over():
                await work.pause()
            self._fate(subject, change.page, fate)

    def _fate(self, subject: str, page: str, fate: Fate) -> None:
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
        if after.revision == fate.revision:
            self._report(subject, self._telling.of(subject, after))
        self._history.of_report(subject, page, fate.revision, outcome, after)
        self._put(subject, after)
        fields = _about(subject, fate.revision, after.event_id, outcome) | self.happened.trace(after.trace)
        if outcome.kind is OutcomeKind.APPLIED:
            self._note_applied(before, after, fields)
        else:
            self._notes.append(("order_pending", fields | {"wait_s": None}))

    def _note_applied(self, before: OrderRecord, after: OrderRecord, fields: dict[str, object]) -> None:
        self._context.metrics.acknowledged(max(0.0, (self._now_ms - before.event_ms) / 1000))
        self._notes.append(("order_settled" if after.revision == after.acked else "update_accepted", fields))

    def command(self, subject: str, command: Command) -> bool:
        """What an operator asks of this worker alone; False: there was nothing to do."""
        record = self._operating.command(subject, command, self.record(subject))
        if record is None:
            return False
        self._report(subject, self._telling.of(subject, record))
        self._put(subject, record)
        return True

    def close(self, due: Sequence[DueOrder]) -> None:
        """Removes orders; the last thing that a batch does. One of which something has come meanwhile stays."""
        gone = [
            each for each in due if each.subject not in self.changed and self._orders.get(each.subject) == each.basis
        ]
        if not gone:
            return
        self.gone = [each.subject for each in gone]
        for each in gone:
            self._history.erase(each.subject, each.entries)
        self.closed = dict.fromkeys(self._closed.outdated(self._now_ms, self._context.keep_settled_ms))
        if remembered := [each.subject for each in gone if not each.is_shown_alone]:
            key, value = self._closed.with_more(self._now_ms, remembered)
            self.closed[key] = value
            self._bytes += len(value)
        self._notes.append(("orders_closed", {"orders": len(gone), "observed": len(gone) - len(remembered)}))

    def _report(self, subject: str, value: bytes | None) -> None:
        if value is None:
            return
        if len(value) > self._telling.max_bytes:
            limit = self._telling.max_bytes
            self._notes.append(("result_dropped", {"order": subject, "bytes": len(value), "limit": limit}))
            return
        self.results.append(Result(subject.encode(), value))
        self._bytes += len(value)

    # --- the transaction ---

    def entries(self) -> list[tuple[bytes, bytes | None]]:
        """The changed orders, accounts and jobs as they go into the state topic."""
        found: list[tuple[bytes, bytes | None]] = [(key.encode(), value) for key, value in self._jobs.items()]
        found += [(key.encode(), value) for key, value in self.accounts.items()]
        found += [((state.ORDER_PREFIX + subject).encode(), value) for subject, (_, value) in self.changed.items()]
        found += [((state.ORDER_PREFIX + subject).encode(), None) for subject in self.gone]
        found += [(key.encode(), value) for key, value in self.closed.items()]
        return found

    @property
    def history(self) -> list[tuple[bytes, bytes | None]]:
        """What is added to the histories of its orders, and removed, in this order: records of the history topic."""
        return self._history.records

    @property
    def jobs(self) -> dict[str, bytes]:
        """The changed records of jobs, by key."""
        return self._jobs

    async def announce(self) -> None:
        """Says what has changed, now that it is so."""
        await self.happened.announce(self._context, self._partition, results=len(self.results), gone=len(self.gone))


def _about(subject: str, revision: int, event_id: str, outcome: Outcome) -> dict[str, object]:
    """What a line of the log says of an attempt, or of what stands for one."""
    return {"order": subject, "revision": revision, "event_id": event_id, "status": outcome.status}


_FIRST_KINDS = frozenset({ConfirmedData, ObservedData})
"""Most orders begin with them: to look for each among those that were closed would take longer than the event."""
