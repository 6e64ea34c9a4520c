"""What must hold at every step of a year of reports, and at its end."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from schemas.state import JOB_PREFIX, ORDER_PREFIX, OrderRecord, decode_job, decode_order
from tests.simulation.reporting import PLACING
from tests.simulation.year_shop import AFTER_A_REPORT, Book
from tests.simulation.year_side import DAY_MS, SLACK_MS, SequraSide
from worker.core.order import assess
from worker.core.status import is_parked
from worker.model.delivery import departures
from worker.model.jobs import Page
from worker.ports import StateEntry
from worker.providers.sequra import memory
from worker.providers.sequra.jobs import SequraReports
from worker.providers.sequra.options import SequraAccount
from worker.sim.loop import VirtualClock

KEEP_DAYS = 60
"""Settled orders are closed after so long without an event; all stories are over by then."""
_REPORTS = SequraReports()
CALM_REPORT_MS = 3_600_000
"""Where nothing goes wrong, a report is made within so long after it was due."""


def reports_due(account: SequraAccount, begin: datetime, end: datetime) -> list[int]:
    """When each report of an account is due, in UTC milliseconds: the first minute of each local day at which the clocks
    of its zone show the time or a later one. By trying, minute for minute.
    """
    zone = ZoneInfo(account.timezone)
    day, found = begin.astimezone(zone).date(), []
    while day <= end.astimezone(zone).date():
        midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        for minutes in account.report_at:
            at = midnight
            while (shown := at.astimezone(zone)).date() == day and shown.hour * 60 + shown.minute < minutes:
                at += timedelta(minutes=1)
            found.append(int(at.timestamp() * 1000))
        day += timedelta(days=1)
    return sorted(found)


class Auditor:
    """Watches each transaction at the moment when it is committed."""

    def __init__(
        self,
        side: SequraSide,
        clock: VirtualClock,
        books: Mapping[str, Book],
        partitions: int,
        begin: datetime,
        end: datetime,
    ) -> None:
        self.done_ms: dict[tuple[str, int], int] = {}
        """By account and partition, the newest report that was made."""
        self.runs = self.closed = 0
        self._side = side
        self._clock = clock
        self._books = books
        self._partitions = partitions
        self._asked_ms: dict[tuple[str, int], int] = {}
        self.due = {name: reports_due(each, begin, end) for name, each in side.accounts.items() if has_report(each)}
        self._pages: dict[tuple[str, int], Sequence[Page]] = {}
        self._known_ms: dict[str, int] = {}
        """By subject, when it was first written down that an order was completed."""
        self._payments: dict[str, tuple[int, set[int]]] = {}
        side.is_due = self._is_due
        side.books = books

    # --- each transaction ---

    def committed(self, partition: int, entries: Sequence[StateEntry], *_: Any) -> None:
        """What `MemoryLog.watch` calls."""
        for entry in entries:
            key, value = entry.key.decode(), entry.value
            if value is None:
                if key.startswith(ORDER_PREFIX):
                    self._close(key.removeprefix(ORDER_PREFIX))
            elif key.startswith(ORDER_PREFIX):
                self._order(key.removeprefix(ORDER_PREFIX), decode_order(value))
            elif key.startswith(JOB_PREFIX) and key.endswith(":report"):
                self._report(key.removeprefix(JOB_PREFIX).removesuffix(":report"), partition, value)

    def _order(self, subject: str, record: OrderRecord) -> None:
        side = self._side
        before = side.records.get(subject)
        side.records[subject] = record
        if before is not None and record.revision < before.revision:
            side.fail(f"{subject}: its revision goes back")
        if record.closed_day:
            side.fail(f"{subject}: closed before its story was over")
        if record.facts.confirmation is not None or record.facts.observed is not None:
            self._known_ms.setdefault(subject, self._clock.wall_ms())
        told = memory.read(record.remote)
        if told is None:
            side.fail(f"{subject}: what is kept of its reports cannot be read")
            return
        known = None if before is None else memory.read(before.remote)
        if told.shipments and (known is None or known.shipments != told.shipments):
            account, _, name = subject.partition("/")
            there = side.reports_of[account].order(name).deliveries
            if missing := set(told.shipments.values()) - there.keys():
                side.fail(f"{subject}: counts as reported, and seQura never had {len(missing)} of its deliveries")
        if record.facts.provider is not None:
            self._paid(subject, record.facts.provider.paid_minor)

    def _close(self, subject: str) -> None:
        """An order is removed from the state: what it was then counts to the end."""
        record, side = self._side.records[subject], self._side
        told = memory.read(record.remote)
        if record.revision != record.acked or is_parked(record) or told is None or told.under_way is not None:
            side.fail(f"{subject}: closed, and something of it is pending")
        since_ms = self._clock.wall_ms() - self._books[subject].completed_ms
        if since_ms < (8 if self._books[subject].is_observed else KEEP_DAYS) * DAY_MS - SLACK_MS:
            side.fail(f"{subject}: closed {since_ms / DAY_MS:.1f} days after it was completed")
        self.closed += 1

    def _paid(self, subject: str, paid_minor: int) -> None:
        account, _, name = subject.partition("/")
        count, sums = self._payments.get(subject, (0, {0}))
        lines = [line for lines in self._side.payouts[account].lines.values() for line in lines]
        if len(lines) > count:
            own = [line["amount_with_tax"] for line in lines if line["order_ref_1"] == name]
            sums = {0}
            for amount in own:
                sums |= {each + amount for each in sums}
            self._payments[subject] = len(lines), sums
        if paid_minor not in sums:
            self._side.fail(f"{subject}: {paid_minor} were never paid for it")

    def _report(self, account: str, partition: int, value: bytes) -> None:
        job = decode_job(value)
        place = account, partition
        before = self.done_ms.get(place)
        self._asked_ms[place] = job.asked_ms
        self._pages[place] = _REPORTS.read_kept(job.remote).pages
        self.done_ms[place] = job.done_ms
        if before is None or before == job.done_ms:
            return
        self.runs += 1
        if job.done_ms < before or job.done_ms not in self.due[account]:
            self._side.fail(f"{account}: a report was made at a time at which none is due, in partition {partition}")
        if self._side.accounts[account].statistics and self._side.refused_ms[account] < job.done_ms - SLACK_MS:
            self._check_counted(account, partition, job.done_ms)

    def _check_counted(self, account: str, partition: int, run_ms: int) -> None:
        """All orders of the last days stand in the statistics of a report that was made."""
        for subject, book in self._books.items():
            if book.account != account or PLACING.partition(PLACING.key_of(subject), self._partitions) != partition:
                continue
            is_old = book.completed_ms < self._clock.wall_ms() - 7 * DAY_MS + SLACK_MS
            is_new = self._known_ms.get(subject, run_ms) > run_ms - 600_000
            if not (is_old or is_new) and self._side.counted.get(subject, 0) < run_ms - SLACK_MS:
                self._side.fail(f"{subject}: stands in no statistics of the last report")

    def stuck(self, account: str) -> list[Page]:
        """Pages that wait for an operator."""
        pages = [page for (name, _), pages in self._pages.items() if name == account for page in pages]
        return [page for page in pages if page.is_stuck]

    # --- when reports are due ---

    def _is_due(self, account: str) -> bool:
        newest = self._newest_due(account, self._clock.wall_ms() + SLACK_MS)
        places = [(account, partition) for partition in range(self._partitions)]
        return any(
            place in self.done_ms
            and (self.done_ms[place] < newest or self._asked_ms.get(place, 0) > self.done_ms[place])
            for place in places
        )

    def _newest_due(self, account: str, now_ms: int) -> int:
        return max((each for each in self.due[account] if each <= now_ms), default=0)

    def check_calm(self) -> None:
        """Nothing has gone wrong for hours: the newest report that is due has been made."""
        now_ms = self._clock.wall_ms()
        for account in self.due:
            newest = self._newest_due(account, now_ms - CALM_REPORT_MS)
            for partition in range(self._partitions):
                if self.done_ms.get((account, partition), newest) < newest:
                    at = datetime.fromtimestamp(newest / 1000, UTC)
                    self._side.fail(f"{account}: no report for {at:%m-%d %H:%M} UTC in partition {partition}")

    # --- the end ---

    def check_end(self) -> dict[str, int]:
        """Everything is told, once, and paid, to the cent; what it comes to."""
        sums = dict.fromkeys(("shipped", "reported", "updated", "paid", "by hand"), 0)
        for subject, book in self._books.items():
            record = self._side.records.get(subject)
            if record is None:
                self._side.fail(f"{subject}: nothing is known of it")
            elif not book.is_observed:
                self._check_order(book, record, sums)
        issued = sum(sum(payouts.paid.values()) for payouts in self._side.payouts.values())
        if not sums["shipped"] == sums["paid"] == issued:
            self._side.fail(f"shipped {sums['shipped']}, paid {sums['paid']}, issued {issued}")
        if sums["reported"] + sums["updated"] + sums["by hand"] != sums["shipped"]:
            self._side.fail(f"what seQura holds is not what was shipped: {sums}")
        return sums

    def _check_order(self, book: Book, record: OrderRecord, sums: dict[str, int]) -> None:
        side, subject, name = self._side, book.subject, book.name
        order = assess(record.facts, name).order
        told = memory.read(record.remote)
        if order is None or told is None or told.under_way is not None:
            side.fail(f"{subject}: {record.reason or 'not known, or under way'}")
            return
        shipped_minor = order.shipped.total_minor
        if book.is_plain and shipped_minor != book.kept_minor:
            side.fail(f"{subject}: the shop's books say {book.kept_minor}, its carts {shipped_minor}")
        is_by_hand = subject in side.by_hand
        if is_parked(record):
            is_expected = book.account == "acme" and book.story in AFTER_A_REPORT
            if not is_expected:
                side.fail(f"{subject} ({book.story}): parked, {record.reason}")
        elif record.revision != record.acked:
            side.fail(f"{subject} ({book.story}): {record.reason or 'owed'}")
        paid_minor = 0 if record.facts.provider is None else record.facts.provider.paid_minor
        worth_minor = side.worth_minor(subject)
        if not shipped_minor == worth_minor == paid_minor:
            side.fail(f"{subject} ({book.story}): shipped {shipped_minor}, there {worth_minor}, paid {paid_minor}")
        is_updated = (side.accounts[book.account].merchant_id, name) in side.orders.held
        if not (is_updated or is_by_hand):
            there = side.reports_of[book.account].order(name)
            count, left = len(there.deliveries), len(set(departures(record.facts).values()))
            if count > left or (shipped_minor and not count) or (book.story == "plain" and count < left):
                side.fail(f"{subject} ({book.story}): {count} deliveries reported, {left} left")
        sums["shipped"] += shipped_minor
        sums["paid"] += paid_minor
        sums["by hand" if is_by_hand else "updated" if is_updated else "reported"] += worth_minor


def has_report(account: SequraAccount) -> bool:
    """Whether an account reports anything."""
    return account.delivery != "update" or account.statistics


def needs_hand(books: Iterable[Book], records: Mapping[str, OrderRecord]) -> list[Book]:
    """Orders of which a report cannot tell what became of them since: people do it in the back office."""
    return [
        book
        for book in books
        if not book.is_observed and (record := records.get(book.subject)) is not None and is_parked(record)
    ]
