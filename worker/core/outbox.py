"""What is owed to a provider, and when it may be sent.

Rule: everything that decides when an order of a partition is evaluated, offered, claimed and evaluated again is in this
file. What it goes by stands elsewhere: `record.settle` says how long an order is delayed and held, `plan` what is to be
done about it, `account` whose turn it is of what was offered, the partition's owner how long its lease is, and a job
which orders it is about to send itself.

Theory of operation. An order's record holds two revisions: `revision`, of its facts, and `acked`, the newest that the
provider is known to have accepted. While they differ the order is *owed*, so the state topic itself is the outbox and
nothing can be forgotten: whoever reads the topic knows what is owed. A revision is not a message waiting in a queue.
When an order's turn comes, its payload is rendered from the facts as they are then; whatever happened meanwhile is in
it, and what was overtaken is never sent.

Four rules keep the provider from ending up with something old, though it would accept any request at any time:

1. one attempt in flight per order, from the moment it is claimed until its outcome is committed;
2. after an attempt whose outcome is unknown the order is *held*: its request may still land, so nothing is sent until
   it must have (`settle`); `may_land_late` in the record tells the next owner to do the same by its own clock, and
   `held_until` for how long, if this owner leaves in order;
3. while the provider may have something else than what we last knew (`remote_unknown`), nothing is left out as
   unchanged;
4. an owner that took over from one that did not drain holds everything that was owed (`inherit`).

Payloads are told apart by their *digest*: of what comes from the order's facts. Counts, parking and suppression go by
it, so a new release or a changed setting makes no order of the past owed. A payload that was refused for good is
*parked* until its digest changes or an operator releases it.

The outbox promises what client-go's workqueue promises of its items. *Fair*: due orders are evaluated in the order in
which they became due, and the publisher is told since when each is owed (30 s less for those that are only to be asked
about). *Stingy*: an order is never in flight twice, and however many revisions are committed before its turn comes, it
is sent once. And, since a record may have to wait: *patient*: nothing is claimed before its delay and its hold are
over, or by an owner whose lease could end before the attempt does. It has three sets and a verb for each way between
them:

                committed            evaluate -> Offer            claim -> Claim
    (nothing) -------------> DUE -----------------------> OFFERED -----------------> IN FLIGHT
        ^                   ^ |                              |                            |
        +---- acknowledged -|-+                              |                            |
                            +-- a delay, a hold, no lease ---+                            |
                            +-- ended, then committed ------------------------------------+

An order that waits for an event, for its payment or for an operator is in none of them until something is committed.
An order may be due and offered at once: a newer revision of one that waits for its turn is evaluated again, and its
offer stands, unless there was nothing to tell before: then it is offered once more, for an earlier turn. One in flight
is neither: its outcome makes it due.

Everything here is a function of its arguments: `now` is seconds on the monotonic clock, `now_ms` UTC, `lease_until` on
the first. What is to be done comes back as *effects*, which the partition's owner obeys. Nothing of it is stored: an
outbox is made again from the records at every restore.
"""

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping

from schemas import state
from schemas.state import OrderHeader, OrderRecord
from worker.core.appointments import NEVER, Appointments, Entry
from worker.core.figures import NOT_OWED, Figures, figures_of
from worker.core.outbox_effects import Claim, Decide, Effects, NeedLease, Offer, Overdue
from worker.core.plan import Acknowledge, Park, Send, Wait, plan, plan_unconfigured
from worker.core.policy import DeliveryPolicy
from worker.core.record import newest_event, payment_now
from worker.core.results import Reporting, find_ready, find_waiting, is_news
from worker.core.retry import awaits_change, awaits_result, delay_max_s, is_transient
from worker.core.status import is_parked
from worker.core.view import Outlook
from worker.model.exchange import AwaitResult
from worker.model.order import account_of, reference_of
from worker.model.provider import Destination, Question

PREPARED_MAX = 256
"""Rendered updates kept until they are claimed; beyond, they are rendered again."""
ANNOUNCE_AFTER_S = 5.0
"""An order that is settled within this time is not announced as owed: most are, and readers would hear twice."""
ASK_AFTER_MS = 30_000
"""An order that is only to be asked about has its turn as if it had become owed so much later: where more is owed than
can be sent, what is to be told goes first.
"""
RECHECK_AFTER_S = 60.0
"""When an order is evaluated that was offered without being read, should its turn not have come by then."""


class Outbox:
    """The orders of one partition that are owed, and when each may be sent."""

    def __init__(
        self,
        read: Callable[[str], bytes],
        destinations: Mapping[str, Destination],
        rules: DeliveryPolicy,
        *,
        is_throttled: Callable[[str], object] = lambda _account: False,
        reporting: Reporting | None = None,
        prepared_max: int = PREPARED_MAX,
        announce_after_s: float = ANNOUNCE_AFTER_S,
    ) -> None:
        """`read`: the committed record of an order. `destinations`: by account, as configured now. `is_throttled`:
        whether an account sends nothing for the time being. `reporting`: how other systems are told of orders; `None`:
        they are not.
        """
        self._read = read
        self._destinations = destinations
        self._rules = rules
        self._is_throttled = is_throttled
        self._reporting = reporting
        self._prepared_max = prepared_max
        self._announce_after_s = announce_after_s
        self._entries: dict[str, Entry] = {}
        self._appointments = Appointments(self._entries)
        self._schedule = self._appointments.make
        self.held_until = 0.0
        """The end of the latest hold that there was (*now*)."""
        self._prepared = 0
        """Plans that are kept."""
        self._awaiting_lease: list[str] = []
        self._announcements: deque[tuple[float, str]] = deque()
        """When orders are to be announced as owed: all wait equally long, so this is their order."""

    # --- what was committed ---

    def committed(self, subject: str, header: OrderHeader, *, now: float, now_ms: int, hold_until: float = 0.0) -> None:
        """Follows a committed record: if there is anything to do about it, it is evaluated now. `hold_until`: nothing
        may be sent before.
        """
        entry = self._entries.get(subject)
        if entry is not None:
            self._drop_plan(entry)  # a plan is for one revision
            # Never shortened: whatever was committed, the request that the hold is for may still land.
            hold_until = max(hold_until, entry.hold_until)
        if header.revision == header.acked and hold_until <= now:
            if entry is None:
                return
            if entry.in_flight:
                # Rule 1 needs the entry: were it deleted, the next event would make another one, free to be claimed.
                entry.revision = header.revision
                entry.needs_reading = True
            else:
                del self._entries[subject]
            return
        is_inconsistent = False  # of an entry that is not known before it is evaluated
        if entry is None:
            entry = self._entries[subject] = Entry(header.revision, header.owed_since_ms, NEVER)
            is_inconsistent = header.inconsistent_since_ms > 0
        entry.was_tried = entry.has_ended and header.revision == entry.claimed
        entry.has_ended = False
        entry.revision = header.revision
        entry.owed_since_ms = header.owed_since_ms
        entry.is_only_heard_of = isinstance(header, OrderRecord) and header.is_only_heard_of
        # An acknowledged one is here for its hold only. Of the others a record may have to change by being evaluated.
        entry.needs_reading = (
            header.revision == header.acked or header.inconsistent_since_ms > 0 or header.park is not None
        )
        entry.hold_until = hold_until
        entry.is_overdue = False
        entry.waiting = "parked" if is_parked(header) else "unconfirmed" if header.unconfirmed_since_ms else ""
        if is_inconsistent:
            entry.waiting = "inconsistent"
        self._follow_delay(entry, header, now, now_ms)
        entry.not_before = max(now, entry.delay_until, entry.hold_until)
        # What is parked is not even evaluated: only a newer revision or an operator can make it another matter, and
        # both are committed.
        self._schedule(subject, entry, NEVER if entry.waiting == "parked" else now)

    def restored(
        self, subject: str, header: OrderHeader, value: bytes, *, now: float, now_ms: int, hold_until: float = 0.0
    ) -> None:
        """As `committed`, of a record that was taken over: orders that wait for their payment do not count as owed
        until they are evaluated, though there may be very many of them.
        """
        self.committed(subject, header, now=now, now_ms=now_ms, hold_until=hold_until)
        entry = self._entries.get(subject)
        if entry is None or entry.waiting:
            return
        record = state.decode_order(value)
        entry.is_only_heard_of = record.is_only_heard_of
        if (payment := payment_now(record.sealed)) is not None and payment.state != "approved":
            entry.waiting = payment.state

    def _follow_delay(self, entry: Entry, header: OrderHeader, now: float, now_ms: int) -> None:
        """`header` is no bare header when it has a delay: what kind of delay it is stands behind it."""
        delay_s = 0.0
        entry.may_go_early = entry.awaits_change = entry.has_failed = False
        if header.not_before_ms and isinstance(header, OrderRecord):
            delay_s = delay_max_s(header, self._rules)
            entry.may_go_early = is_transient(header)
            entry.awaits_change = awaits_change(header)
            entry.has_failed = not awaits_result(header)
        if header.not_before_ms != entry.not_before_ms:  # an event must not begin a bounded delay anew
            entry.not_before_ms = header.not_before_ms
            # Bounded, for the clock that stored it may have been wrong.
            entry.delay_until = now + min(max(0, header.not_before_ms - now_ms) / 1000, delay_s)

    def ended(self, subject: str, hold_until: float = 0.0) -> None:
        """Its attempt's outcome is committed; the record follows with `committed`. `hold_until`: until then the request
        may still land.
        """
        entry = self._entries[subject]  # in flight, so it was kept
        entry.in_flight, entry.has_ended = False, True
        entry.hold_until = max(hold_until, entry.hold_until)
        self.held_until = max(hold_until, self.held_until)

    def lease_renewed(self, now: float) -> None:
        """A commit has renewed the lease: what waited for that is evaluated again."""
        waiting, self._awaiting_lease = self._awaiting_lease, []
        for subject in waiting:
            if (entry := self._entries.get(subject)) is not None:
                self._schedule(subject, entry, now)

    def accounts_changed(self, now: float) -> None:
        """Accounts were read again: what waits for a job may not have to any more."""
        for subject, entry in self._entries.items():
            if entry.awaits_change and not entry.in_flight:
                self._schedule(subject, entry, now)

    # --- evaluating ---

    def next_due(self) -> float:
        """When there is something to evaluate; infinity: not before something happens."""
        due = self._appointments.next_due()
        return min(due, self._announcements[0][0]) if self._announcements else due

    def evaluate(self, now: float, now_ms: int, lease_until: float) -> Effects | None:
        """Decides about the next order that is due: it is offered, acknowledged, parked, or waits. `None`: none is."""
        announcements = self._announcements
        while announcements and announcements[0][0] <= now:
            announce_at, subject = announcements.popleft()
            entry = self._entries.get(subject)
            if entry is not None and entry.announce_at == announce_at and not entry.in_flight:  # else its outcome does
                self._schedule(subject, entry, now)
        if self._appointments.next_due() > now:
            return None
        subject, entry = self._appointments.pop()
        account = account_of(subject)
        destination = self._destinations.get(account)
        if destination is not None and self._was_just_tried(entry, now):
            return self._offer(subject, entry, account, None, now, lease_until)
        if destination is not None and not entry.needs_reading and self._is_prepared_full(entry, account, now):
            effects = self._offer(subject, entry, account, None, now, lease_until)
            # Its turn may be hours away, and what is wrong with it is to be seen before.
            entry.needs_reading = True
            self._schedule(subject, entry, now + RECHECK_AFTER_S)
            return effects
        value = self._read(subject)
        record = state.decode_order(value)
        if record.revision == record.acked:
            if entry.hold_until > now:  # the next change has to wait for it
                self._schedule(subject, entry, entry.hold_until)
            else:
                del self._entries[subject]  # not in flight: those are never due
            return ()
        if destination is None:
            return self._wait(subject, entry, value, record, plan_unconfigured(record, subject), None, now, now_ms)
        found = plan(record, subject, destination)
        if not isinstance(found, Send):
            return self._wait(subject, entry, value, record, found, destination, now, now_ms)
        if entry.awaits_change and not self._still_waits(subject, found, destination, now_ms):
            entry.not_before, entry.awaits_change = now, False
        announces = self._reporting is not None and self._announces(subject, entry, record, found, destination, now)
        offered = self._offer(subject, entry, account, found, now, lease_until)
        if announces or record.inconsistent_since_ms or record.park is not None:
            return (Decide(subject, value, found), *offered)
        return offered

    @staticmethod
    def _was_just_tried(entry: Entry, now: float) -> bool:
        """Whether all that could be found by reading it is known: it could be sent a moment ago, the attempt failed,
        what had to be told of that was told with the outcome, and nothing has changed since. A plan would be for
        nothing: another one is made once its delay is over. What was taken over was never tried here: it is read.
        """
        return (
            entry.was_tried
            and entry.has_failed
            and not entry.needs_reading
            and now < min(entry.not_before, entry.announce_at)
        )

    def _is_prepared_full(self, entry: Entry, account: str, now: float) -> bool:
        """Whether it is to be rendered when it is claimed, for a plan made now could not be kept. Only for what may be
        claimed soon: otherwise it would show too late that it must be parked, say.
        """
        return (
            self._prepared >= self._prepared_max
            and entry.not_before <= now  # its delay, and its hold, which is part of it
            and not self._is_throttled(account)
        )

    def _offer(
        self, subject: str, entry: Entry, account: str, found: Send | None, now: float, lease_until: float
    ) -> Effects:
        entry.waiting = ""
        is_delayed = entry.not_before > now
        if is_delayed and not entry.may_go_early:
            self._schedule(subject, entry, entry.not_before)
            return ()
        if entry.hold_until > now:  # whatever the account thinks of the delay
            self._schedule(subject, entry, entry.hold_until)
            return ()
        if not is_delayed and not self._rules.permits_attempt(now, lease_until):
            return self._need_lease(subject)
        has_room = not is_delayed and self._prepared < self._prepared_max
        if found is not None and has_room and entry.prepared is None:
            entry.prepared = found
            self._prepared += 1
        is_behind = entry.is_only_heard_of
        if entry.queued and (is_behind or not entry.is_queued_behind):
            return ()  # its offer still stands
        entry.queued, entry.is_queued_behind = True, is_behind
        owed_since_ms = entry.owed_since_ms + (ASK_AFTER_MS if is_behind else 0)
        return (Offer(subject, account, owed_since_ms, entry.has_failed, entry.not_before),)

    def _need_lease(self, subject: str) -> Effects:
        self._awaiting_lease.append(subject)
        return (NeedLease(subject),)

    def _still_waits(self, subject: str, found: Send, destination: Destination, now_ms: int) -> bool:
        """Whether its adapter would still have it wait for a job or for a change: its account may be another one now,
        and what a job kept of it. One that can be read has to be asked, which a change brings about.
        """
        if destination.provider.can_read:
            return True
        asked = Question(
            reference_of(subject),
            destination.account,
            found.update,
            found.remote,
            found.may_land_late,
            found.remote_unknown,
            now_ms=now_ms,
        )
        step = destination.provider.next_step(asked)
        return isinstance(step, AwaitResult) and step.poll_s is None

    def _announces(
        self, subject: str, entry: Entry, record: OrderRecord, found: Send, destination: Destination, now: float
    ) -> bool:
        """Whether others are to be told now that it is owed. Not at once: usually it is settled soon."""
        reporting = self._reporting
        assert reporting is not None  # who calls has looked
        was_owed = record.told is not None and record.told.status == "owed"
        if was_owed and not is_news(record, find_ready(record, found.shown, destination), reporting):
            entry.announce_at = NEVER
            return False
        if entry.announce_at == NEVER:
            entry.announce_at = now + self._announce_after_s
            self._announcements.append((entry.announce_at, subject))
        if now < entry.announce_at:
            return False
        entry.announce_at = NEVER
        return True

    def _wait(
        self,
        subject: str,
        entry: Entry,
        value: bytes,
        record: OrderRecord,
        found: Acknowledge | Park | Wait,
        destination: Destination | None,
        now: float,
        now_ms: int,
    ) -> Effects:
        """Nothing is sent. What has to be written of that is evaluated again once it is committed."""
        if not isinstance(found, Wait):
            return (Decide(subject, value, found),)
        entry.waiting, entry.is_overdue = found.state, False
        since_ms, after_s = 0, 0.0
        if found.state == "unconfirmed":
            since_ms, after_s = record.unconfirmed_since_ms, self._rules.unconfirmed_after_s
        elif found.state == "inconsistent":
            since_ms, after_s = record.inconsistent_since_ms or now_ms, self._rules.inconsistent_after_s
        if since_ms:
            if since_ms != entry.waiting_since_ms:  # once for each moment: the wall clock may be set meanwhile
                left_s = after_s - max(0, now_ms - since_ms) / 1000
                entry.waiting_since_ms, entry.overdue_at = since_ms, now + max(0.0, left_s)
            entry.is_overdue = now >= entry.overdue_at
            if not entry.is_overdue:
                self._schedule(subject, entry, entry.overdue_at)
        reporting = self._reporting
        announces = reporting is not None and is_news(
            record, find_waiting(record, subject, found, destination, is_overdue=entry.is_overdue), reporting
        )
        if announces or found.contradicts != bool(record.inconsistent_since_ms):
            return (Decide(subject, value, found, entry.is_overdue),)
        if entry.is_overdue:
            return (Overdue(subject, record.revision, newest_event(record), found.state),)
        return ()

    # --- claiming ---

    def claim(
        self, subject: str, now: float, now_ms: int, lease_until: float, *, is_reserved: bool = False
    ) -> Claim | Effects:
        """Its account's turn has come: what is to be sent, as of now. Effects instead, or none: it may not be sent
        after all. `is_reserved`: a job is about to send it.
        """
        entry = self._entries.get(subject)
        if entry is None or not entry.queued:
            return ()  # settled meanwhile; or offered twice: by an entry that is gone, or first as one to ask about
        entry.queued = False
        prepared = self._drop_plan(entry)
        if entry.hold_until > now or (entry.not_before > now and not entry.may_go_early):
            self._schedule(subject, entry, entry.not_before)
            return ()
        if is_reserved:
            return ()  # it is evaluated again once the page that it stands in is committed
        if not self._rules.permits_attempt(now, lease_until):
            return self._need_lease(subject)
        destination = self._destinations[account_of(subject)]
        if prepared is None or prepared.account is not destination.account:
            # It was offered when no more plans could be kept, or its account has changed since.
            value = self._read(subject)
            record = state.decode_order(value)
            found = plan(record, subject, destination)
            if not isinstance(found, Send):
                return self._wait(subject, entry, value, record, found, destination, now, now_ms)
            prepared = found
        entry.in_flight, entry.claimed = True, entry.revision
        return Claim(entry.revision, prepared)

    def _drop_plan(self, entry: Entry) -> Send | None:
        prepared, entry.prepared = entry.prepared, None
        if prepared is not None:
            self._prepared -= 1
        return prepared

    # --- what others may know ---

    def __contains__(self, subject: str) -> bool:
        return subject in self._entries

    def subjects(self) -> list[str]:
        """All orders that are owed, held, or in flight."""
        return list(self._entries)

    def parked(self, account: str) -> list[str]:
        """The parked orders of an account."""
        prefix = f"{account}/"
        return [s for s, entry in self._entries.items() if entry.waiting == "parked" and s.startswith(prefix)]

    def is_in_flight(self, subject: str) -> bool:
        """Whether an attempt of it has no committed outcome yet."""
        entry = self._entries.get(subject)
        return entry is not None and entry.in_flight

    def outlook(self, subject: str) -> Outlook | None:
        """What people may know about when it is sent; `None`: there is nothing to send."""
        entry = self._entries.get(subject)
        if entry is None:
            return None
        return Outlook(entry.waiting, entry.is_overdue, entry.hold_until, entry.not_before, entry.in_flight)

    def owed(self) -> Iterator[tuple[str, bool]]:
        """The orders that a provider is to be told about, and whether their accounts alone keep them: nothing else
        moves them.
        """
        for subject, entry in self._entries.items():
            if entry.waiting not in NOT_OWED:
                yield subject, entry.queued or entry.waiting == "no_account"

    def figures(self, accounts: Container[str], now: float) -> dict[str, Figures]:
        """As `figures_of`, of all orders here."""
        return figures_of(self._entries.items(), accounts, now)

    def entries(self) -> tuple[list[str], list[Entry]]:
        """All that is here now, for those who take their time with `figures_of`: subjects, and the entry of each."""
        return list(self._entries), list(self._entries.values())  # a seventh of the time that a list of pairs takes
