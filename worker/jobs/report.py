"""The delivery report of an account in one partition.

A run is known by the instant it was due at. It sends the pages that are left of earlier ones, then writes one page
after the other (the orders' records and its own, in one transaction) and sends each; at the end it sends what a report
has beside deliveries. Only then it is noted as made: whoever takes the partition over meanwhile begins it anew, and
finds in the records what was told, and the pages of which nobody knows.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from msgspec import Raw, Struct
from msgspec.structs import replace

from schemas import state
from schemas.state import JobRecord
from worker.core.figures import NOT_OWED
from worker.core.retry import hold_s
from worker.core.schedule import due_run, next_run
from worker.errors import UsageError
from worker.jobs.job import LOOK_AGAIN_S, Job, Means
from worker.model.account import Account
from worker.model.exchange import Outcome, OutcomeKind
from worker.model.jobs import Became, Fate, Kept, Move, Page, Reporter
from worker.model.order import reference_of
from worker.ports import Errand, JobChange, JobHost, JobView

log = structlog.get_logger(__name__)

_NOT_REPORTED = NOT_OWED - {"inconsistent"}  # a report names those, as broken
"""What an order waits for that no report changes."""
_ORDER_ROOM_BYTES = 16 * 1024
"""That an order's record keeps free in the state topic while its page is under way."""
_PAGE_ROOM_BYTES = 320 * 1024
"""What one page more may take in the job's record."""
_BUSY_AGAIN_S = 0.5
_BUSY_TRIES_MAX = 20
"""Looks at orders that had an attempt under way: such a turn sends nothing, so it ends soon."""
_INPUT_WAIT_MAX_S = 900.0
"""For how long a run that was missed waits for the input: longer than an outage of a day takes to be read, not so long
that a partition which reads nothing would never report."""
_INPUT_LOOK_S = 1.0
_NOT_TAKEN = frozenset({OutcomeKind.REJECTED, OutcomeKind.NOT_SENT, OutcomeKind.UNKNOWN})
_CREDENTIALS = frozenset({OutcomeKind.CREDENTIALS, OutcomeKind.FORBIDDEN})


class Run:
    """One run, as far as it has come; all of it may be forgotten."""

    def __init__(self, at_ms: int, subjects: list[str]) -> None:
        self.at_ms = at_ms
        self.todo = deque(subjects)
        self.later: list[str] = []
        """Orders that belong in pages of another kind."""
        self.refused: list[tuple[int, str]] = []
        """Orders that were refused before: they come last, the oldest first."""
        self.is_last = False
        """Those have their turn."""
        self.busy: list[str] = []
        """Orders with an attempt under way."""
        self.busy_tries = 0
        self.broken: dict[str, None] = {}
        self.is_over = False
        """No more pages are written or sent in it."""
        self.is_composed = False
        self.counted: deque[str] | None = None
        """Orders that the statistics have to look at; `None`: it has not come to that."""
        self.unnamed: deque[str] = deque()
        """Orders that cannot be reported, and were not named yet."""
        self.chunk: tuple[list[Raw], list[Any]] | None = None
        """What the next request beside the pages holds: broken orders, and statistics."""
        self.retries = 0
        """Of it, in a row."""
        self.others = 0
        """Sent so far."""
        self.orders = self.pages = self.statistics = 0


class _Answer(Struct):
    page: Page
    outcome: Outcome
    ended_at: float


class ReportJob(Job):
    """A job (`job.Job`)."""

    job = "report"

    def __init__(self, account: str, host: JobHost, means: Means, reporter: Reporter, *, is_owner: bool) -> None:
        """`is_owner`: this is the account's job partition, which reports though there is nothing to say."""
        super().__init__(account, host, means)
        self.reserved: set[str] = set()
        """Orders that are being written into a page."""
        self._reporter = reporter
        self._is_owner = is_owner
        self._kept = Kept()
        self._run: Run | None = None
        self._sent: Page | None = None
        """The page that is offered or under way; `None`: it is something else."""
        self._answer: _Answer | None = None
        self._not_before = 0.0
        self._forbidden = 0
        """How often in a row."""
        self._zone: tuple[str, ZoneInfo] | None = None
        self._restored_ms = 0
        self._input_wait_until = 0.0
        self._input_end: int | None = None
        """Of the partition's input, when a run that was missed was first looked at; `None`: not known yet."""

    # --- its record ---

    def restore(self, record: JobRecord | None, *, is_clean: bool, hold_until: float) -> JobRecord | None:
        kept = self._reporter.read_kept(b"" if record is None else record.remote)
        if record is not None and not is_clean and kept.pages:
            kept = replace(kept, pages=[self._reporter.inherited(page) for page in kept.pages])
            record = replace(record, remote=self._reporter.write_kept(kept))
        self.record, self._kept = record, kept
        if record is not None:  # else it never sent anything
            self._not_before = hold_until
        clock = self._means.clock
        self._restored_ms, self._input_wait_until = clock.wall_ms(), clock.now() + _INPUT_WAIT_MAX_S
        return record

    def _keep(self, kept: Kept, change: JobChange, **members: int) -> None:
        assert self.record is not None  # a run is of a record that is there
        record = replace(self.record, remote=self._reporter.write_kept(kept), **members)
        before = change.done

        def committed() -> None:
            self._kept = kept
            before()

        change.done = committed
        self._write(record, change)

    def stuck(self) -> list[Page]:
        """Pages of which an operator has to say what became of them."""
        return [page for page in self._kept.pages if page.is_stuck]

    def decide(self, done: Callable[[], None], *, page_id: str, is_taken: bool) -> None:
        """What an operator says of a page that is stuck. Raises `UsageError`."""
        page = next((page for page in self.stuck() if page.id == page_id), None)
        if page is None:
            raise UsageError(f"page {page_id} of account {self.account} is not stuck any more")
        if self._sent is page:
            raise UsageError(f"page {page_id} of account {self.account} is just being sent; ask again")
        outcome = Outcome(OutcomeKind.APPLIED, "an operator said that its report was not taken")
        move = self._reporter.decided(page, is_taken=is_taken)
        fates = {self._subject(name): self._fate(name, "reported", outcome) for name in move.reported}
        fates |= {self._subject(name): self._fate(name, "free", outcome) for name in move.free}
        kept = replace(self._kept, pages=[each for each in self._kept.pages if each is not page])
        self._keep(kept, JobChange(self.key, b"", fates=fates, page=page.id, done=done))
        log.warning(
            "report_decided",
            account=self.account,
            partition=self._host.partition,
            page=page_id,
            taken=is_taken,
            orders=len(fates),
        )

    def forget(self) -> JobRecord | None:
        """Drops all pages: whoever they were for is not told any more."""
        if self.record is None or not self._kept.pages:
            return None
        self._kept = Kept()
        self.record = replace(self.record, remote=b"")
        return self.record

    # --- when it is due ---

    def _due_run(self, now_ms: int, account: Account) -> int | None:
        record = self.record
        assert record is not None  # who asks has looked
        times, zone = self._times(account)
        due = due_run(record.done_ms, now_ms, times, zone)
        if record.asked_ms > record.done_ms:
            return max(due or 0, record.asked_ms)
        return due

    def _times(self, account: Account) -> tuple[tuple[int, ...], ZoneInfo]:
        schedule = self._reporter.schedule(account)
        if self._zone is None or self._zone[0] != schedule.zone:
            self._zone = schedule.zone, ZoneInfo(schedule.zone)
        return tuple(schedule.times), self._zone[1]

    async def _go_on(self) -> None:
        destination = self._host.destination(self.account)
        if destination is None:
            return
        account, now, now_ms = destination.account, self._means.clock.now(), self._means.clock.wall_ms()
        is_wanted = self._reporter.is_wanted(account)
        if not (is_wanted or self._kept.pages):
            self._run = None
            return
        if self.record is None:
            self._write(JobRecord(state.SCHEMA, now_ms), JobChange(self.key, b""))
            return
        run_ms = self._due_run(now_ms, account)
        if run_ms is None:
            self._run = None
            times, zone = self._times(account)
            self._wait(min(LOOK_AGAIN_S, (next_run(now_ms, times, zone) - now_ms) / 1000 + 0.001))
            return
        if now < self._not_before:
            self.due = self._not_before
            return
        if self._awaits_input(run_ms, now):
            self._wait(_INPUT_LOOK_S)
            return
        if self._run is None or self._run.at_ms != run_ms:
            self._run = Run(run_ms, await self._of_account(self._host.outbox.subjects()))
            log.info("report_begun", account=self.account, partition=self._host.partition, due_ms=run_ms)
        await self._run_on(self._run, account, is_wanted=is_wanted)

    def _awaits_input(self, run_ms: int, now: float) -> bool:
        """Whether a run was missed while nobody served the partition, and what was written meanwhile is still to be
        read: it belongs in that run; otherwise statistics would name it a day late.
        """
        if run_ms > self._restored_ms or now >= self._input_wait_until:
            return False
        if self._input_end is None:
            self._input_end = self._host.input_end()
        if self._input_end is None or not self._host.has_taken(self._input_end):
            return True
        self._input_wait_until = 0.0
        return False

    async def _of_account(self, subjects: Iterable[str]) -> list[str]:
        prefix, found = f"{self.account}/", []
        for count, subject in enumerate(list(subjects)):
            if subject.startswith(prefix):
                found.append(subject)
            if count % 1000 == 0:
                await self._host.pause()
        return found

    # --- a run ---

    async def _run_on(self, run: Run, account: Account, *, is_wanted: bool) -> None:
        if not run.is_over:
            page = next((page for page in self._kept.pages if page.refused_in_ms != run.at_ms), None)
            if page is not None:
                await self._send_page(page, account, run)
                return
        if is_wanted and not (run.is_over or run.is_composed) and self._may_write():
            if await self._write_page(run, account):
                return
            if run.busy and run.busy_tries < _BUSY_TRIES_MAX:
                run.busy_tries += 1
                run.todo, run.busy = deque(run.busy), []
                self._wait(_BUSY_AGAIN_S)
                return
            run.is_composed = True
        if is_wanted and await self._send_other(run, account):
            return
        self._end(run)

    def _may_write(self) -> bool:
        assert self.record is not None  # a run is of a record that is there
        has_room = len(self.record.remote) + _PAGE_ROOM_BYTES <= self._host.value_max_bytes
        return self._kept.may_write and (has_room or not self._kept.pages)

    def _end(self, run: Run) -> None:
        fields = {"orders": run.orders, "pages": run.pages, "broken": len(run.broken), "statistics": run.statistics}
        resting = len(self._kept.pages)

        def committed() -> None:
            self._run = None
            self._means.metrics.job_ran(self.account, self.job)
            log.info(
                "report_ended",
                account=self.account,
                partition=self._host.partition,
                due_ms=run.at_ms,
                in_doubt=resting,
                **fields,
            )

        self._keep(self._kept, JobChange(self.key, b"", done=committed), done_ms=run.at_ms)

    # --- pages ---

    async def _write_page(self, run: Run, account: Account) -> bool:
        """Whether there is one; then it is to be written down first."""
        composing = self._reporter.composing(account)
        while (subject := self._next(run, has_some=bool(self.reserved))) is not None:
            await self._host.pause()
            outlook = self._host.outbox.outlook(subject)
            if outlook is None or outlook.waiting in _NOT_REPORTED or self._host.is_beyond(subject):
                continue
            if outlook.in_flight:
                run.busy.append(subject)
                continue
            if outlook.hold_until > self._means.clock.now():
                continue
            value = self._host.orders[subject]
            record = state.decode_order(value)
            if record.revision == record.acked:
                continue
            weighed = self._reporter.weigh(reference_of(subject), record, account, run.at_ms)
            if weighed.kind == "nothing":
                continue
            is_too_large = (
                len(value) + weighed.grows_bytes + len(subject.encode()) + _ORDER_ROOM_BYTES
                > self._host.value_max_bytes
            )
            if weighed.kind == "broken" or is_too_large:
                run.broken[subject] = None
                continue
            if weighed.refused_ms and not run.is_last:
                run.refused.append((weighed.refused_ms, subject))
                continue
            became = composing.add(weighed.candidate)
            if became == "other":
                run.later.append(subject)
            elif became == "full":
                run.todo.appendleft(subject)
                break
            else:
                self.reserved.add(subject)
        composed = composing.composed()
        if composed is None:
            return False
        kept = replace(self._kept, pages=[*self._kept.pages, composed.page])
        remotes = {self._subject(name): remote for name, remote in composed.remotes.items()}
        self._keep(kept, JobChange(self.key, b"", remotes=remotes, page=composed.page.id, done=self.reserved.clear))
        return True

    @staticmethod
    def _next(run: Run, *, has_some: bool) -> str | None:
        """The next order to weigh; none once a page has all that there are of its kind."""
        if run.todo:
            return run.todo.popleft()
        if has_some:
            return None
        if run.later:
            run.todo, run.later = deque(run.later), []
        elif run.refused and not run.is_last:
            run.is_last = True
            run.todo, run.refused = deque(subject for _, subject in sorted(run.refused)), []
        return run.todo.popleft() if run.todo else None

    async def _send_page(self, page: Page, account: Account, run: Run) -> None:
        parts = []
        for name in page.lists[0]:
            parts.append(self._reporter.part_of(self._remote(name)))
            await self._host.pause()
        request = self._reporter.request_of(page, parts, account)
        self._sent = page
        self._offer(Errand(request, self._reporter.outcome), account, run.at_ms)

    def _subject(self, name: str) -> str:
        return f"{self.account}/{name}"

    def _remote(self, name: str) -> bytes:
        return state.decode_order(self._host.orders[self._subject(name)]).remote

    def _fate(self, name: str, became: Became, outcome: Outcome) -> Fate:
        return self._reporter.fate_of(self._remote(name), became, outcome, self._means.clock.wall_ms())

    def withdraw(self) -> None:
        self._sent = None
        super().withdraw()

    def finished(self, outcome: Outcome) -> None:
        page, self._sent = self._sent, None
        if page is not None:
            self._answer = _Answer(page, outcome, self._means.clock.now())
        elif self._run is not None:
            self._follow_other(self._run, outcome)
        self._look_at_once()

    def owes(self) -> bool:
        return self._answer is not None or super().owes()

    async def _follow(self) -> bool:
        """Has all that follows from an answer written in one transaction."""
        answer = self._answer
        if answer is None:
            return False
        page, outcome, run = answer.page, answer.outcome, self._run
        assert run is not None  # nothing else sends pages
        move = self._reporter.after(page, outcome, run.at_ms)
        fates: dict[str, Fate] = {}
        kinds: tuple[tuple[Became, list[str]], ...] = (
            ("reported", move.reported),
            ("free", move.free),
            ("broken", move.broken),
        )
        for became, names in kinds:
            for name in names:
                fates[self._subject(name)] = self._fate(name, became, outcome)
                await self._host.pause()
        self._answer = None
        others = [each for each in self._kept.pages if each is not page]
        kept = replace(self._kept, pages=others if move.page is None else [move.page, *others])

        def committed() -> None:
            self._not_before = self._again_at(move, answer)
            self.held_until = answer.ended_at + hold_s(outcome, self._means.rules)
            run.orders += len(move.reported)
            run.pages += bool(move.reported)
            run.broken |= dict.fromkeys(self._subject(name) for name in move.broken)
            run.is_over = run.is_over or (move.then == "next_report" and move.page is None)
            self._means.metrics.reported(self.account, len(move.reported))
            self._announce(move, page, outcome)

        self._keep(kept, JobChange(self.key, b"", fates=fates, page=page.id, done=committed))
        return True

    def _again_at(self, move: Move, answer: _Answer) -> float:
        """When the run goes on."""
        outcome, rules = answer.outcome, self._means.rules
        if move.then == "hold":
            return answer.ended_at + max(hold_s(outcome, rules), outcome.retry_after_s or 0.0)
        if move.then == "backoff":
            assert move.page is not None  # it is sent again
            return answer.ended_at + self._backoff_s(move.page.retries, outcome)
        return self._forbidden_until(outcome)

    def _forbidden_until(self, outcome: Outcome) -> float:
        """A 403 for one request alone does not pause the account, so nobody else would slow us down."""
        self._forbidden = self._forbidden + 1 if outcome.kind is OutcomeKind.FORBIDDEN else 0
        return self._means.clock.now() + self._backoff_s(self._forbidden, outcome) if self._forbidden else 0.0

    def _announce(self, move: Move, page: Page, outcome: Outcome) -> None:
        fields = {"account": self.account, "partition": self._host.partition, "status": outcome.status}
        orders = len(page.lists[0])
        if move.page is not None and move.page.is_stuck:
            log.error(
                "report_stuck",
                page=move.page.id,
                order=self._subject(move.page.lists[0][0]),
                orders=orders,
                refusals=move.page.refusals,
                do=f"find out whether the provider has it, then cartsync account report {self.account} --page-taken "
                f"{move.page.id} or --page-not-taken {move.page.id}",
                **fields,
            )
        elif move.is_refused:
            log.warning("report_refused", orders=orders, in_doubt=page.in_doubt, what="deliveries", **fields)
        elif move.broken:
            log.warning("order_report_refused", order=self._subject(move.broken[0]), **fields)
        elif move.then in ("hold", "backoff"):
            log.warning("report_again", orders=orders, outcome=outcome.kind.value, **fields)

    # --- what a report has beside deliveries ---

    async def _send_other(self, run: Run, account: Account) -> bool:
        """Whether there is something to send yet."""
        if run.chunk is None:
            run.chunk = await self._next_chunk(run, account)
        is_always = self._is_owner and not run.others
        requests = self._reporter.other_requests(*run.chunk, account, is_always=is_always)
        if not requests:
            return False
        self._offer(Errand(requests[0], self._reporter.outcome), account, run.at_ms)
        return True

    async def _next_chunk(self, run: Run, account: Account) -> tuple[list[Raw], list[Any]]:
        reporter, now_ms = self._reporter, self._means.clock.wall_ms()
        if run.counted is None:
            has_statistics = reporter.has_statistics(account)
            run.counted = deque(await self._of_account(self._host.orders.subjects()) if has_statistics else [])
            run.unnamed = deque(run.broken)
        most, since_ms = reporter.entries_max(account), reporter.counted_since_ms(now_ms)
        broken: list[Raw] = []
        statistics: list[Any] = []
        while run.unnamed and len(broken) < most:
            subject = run.unnamed.popleft()
            broken.append(reporter.broken(reference_of(subject), state.decode_order(self._host.orders[subject])))
            await self._host.pause()
        while run.counted and len(statistics) < most:
            subject = run.counted.popleft()
            value = self._host.orders.get(subject)
            if value is None:
                continue  # it was closed meanwhile
            if not 0 < state.decode_order(value).event_ms < since_ms:
                entry = reporter.statistics(reference_of(subject), state.decode_order(value), now_ms)
                statistics += [] if entry is None else [entry]
            await self._host.pause()
        run.statistics += len(statistics)
        return broken, statistics

    def _follow_other(self, run: Run, outcome: Outcome) -> None:
        if outcome.kind in _CREDENTIALS:
            self._not_before = self._forbidden_until(outcome)  # else it waits until the account goes on
            return
        if outcome.kind in _NOT_TAKEN:
            run.retries += 1
            self._not_before = self._means.clock.now() + self._backoff_s(run.retries, outcome)
            return
        if outcome.kind is not OutcomeKind.APPLIED:
            log.warning(
                "report_refused",
                account=self.account,
                partition=self._host.partition,
                status=outcome.status,
                orders=0,
                in_doubt=False,
                what="broken orders and statistics",
            )
        run.chunk, run.retries, run.others = None, 0, run.others + 1

    # --- what people see ---

    def is_wanted(self, account: Account) -> bool:
        return self._reporter.is_wanted(account)

    def view(self, account: Account) -> JobView:
        now_ms = self._means.clock.wall_ms()
        record, pages = self.record, self._kept.pages
        next_ms, overdue_s = 0, 0.0
        if self._reporter.is_wanted(account):
            times, zone = self._times(account)
            next_ms = next_run(now_ms, times, zone)
        if record is not None and (next_ms or pages) and (run_ms := self._due_run(now_ms, account)) is not None:
            overdue_s = max(0.0, (now_ms - run_ms) / 1000)
        return JobView(
            self.account,
            self.job,
            0 if record is None else record.done_ms,
            next_ms,
            overdue_s,
            len(pages),
            sum(page.in_doubt for page in pages),
            [page.id for page in self.stuck()],
        )
