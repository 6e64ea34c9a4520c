"""A list of a provider's that is read every so often: each new item is read once, and what it says becomes events.

An item counts as read once the brokers have its events, and that is written then: whoever takes the partition over
before reads it again and writes the same events, which changes nothing.
"""

import asyncio
from collections import deque
from typing import Any, Literal

import structlog
from msgspec.structs import replace

from schemas import state
from schemas.state import JobRecord
from worker.core.schedule import due_every
from worker.errors import LogError
from worker.jobs.events import JobEvents
from worker.jobs.job import LOOK_AGAIN_S, Job, Means
from worker.model.account import Account
from worker.model.callbacks import Said
from worker.model.exchange import HttpResponse, Outcome, OutcomeKind
from worker.model.jobs import Listed, Lister
from worker.ports import Errand, JobChange, JobHost, JobView

log = structlog.get_logger(__name__)

_TRIES_MAX = 5
"""Of one item in a row, before the others get their turn; then it is tried with the next run."""


class Run:
    """One run, as far as it has come; all of it may be forgotten."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms
        self.listed: Any = None
        """What the list held; `None`: it was not read yet."""
        self.items: deque[Any] = deque()
        self.tries = 0
        self.read = self.lines = self.left = 0


class ListJob(Job):
    """A job (`job.Job`)."""

    def __init__(self, account: str, host: JobHost, means: Means, lister: Lister, events: JobEvents) -> None:
        super().__init__(account, host, means)
        self.job = lister.job
        self._lister = lister
        self._events = events
        self._run: Run | None = None
        self._read: Listed | None = None
        """What the last answer came to."""
        self._writing: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._failures = 0
        """Of requests and writes, in a row."""

    def _due_ms(self, account: Account, now_ms: int) -> int | None:
        every_s = self._lister.every_s(account)
        if every_s is None:
            return None
        record = self.record
        if record is None or record.asked_ms > record.done_ms:
            return now_ms
        return due_every(record.done_ms, now_ms, every_s)

    async def _go_on(self) -> None:
        destination = self._host.destination(self.account)
        clock = self._means.clock
        now_ms = clock.wall_ms()
        due_ms = None if destination is None else self._due_ms(destination.account, now_ms)
        if destination is None or due_ms is None or self._writing is not None:
            return
        if self._run is None and due_ms > now_ms:
            self._wait(min(LOOK_AGAIN_S, (due_ms - now_ms) / 1000 + 0.001))
            return
        if clock.now() < self._not_before:
            self.due = self._not_before
            return
        run = self._run = self._run or Run(now_ms)
        account = destination.account
        if run.listed is None:
            self._ask_for("list", account, run)
        elif run.items:
            self._ask_for("item", account, run)
        else:
            self._end(run)

    def _ask_for(self, what: Literal["list", "item"], account: Account, run: Run) -> None:
        lister = self._lister

        def read(response: HttpResponse, now_ms: int) -> Outcome:
            if what == "list":
                self._read = lister.read_list(response, now_ms)
            else:
                self._read = lister.read_item(run.items[0], response, now_ms)
            return self._read.outcome

        request = lister.list_request(account) if what == "list" else lister.item_request(account, run.items[0])
        self._read = None
        self._offer(Errand(request, read, is_read=True), account, run.at_ms)

    def finished(self, outcome: Outcome) -> None:
        run, read = self._run, self._read
        assert run is not None  # nothing else asks
        self._look_at_once()
        if outcome.kind is not OutcomeKind.APPLIED or read is None:
            self._fail(run, outcome)
        elif run.listed is None:
            self._failures = 0
            run.listed = read.found
            remote = b"" if self.record is None else self.record.remote
            run.items = deque(self._lister.unread(remote, read.found))
        else:
            self._write_events(run, read.found)

    def _fail(self, run: Run, outcome: Outcome) -> None:
        self._failures += 1
        if outcome.kind is OutcomeKind.CREDENTIALS:
            return  # it waits until the account goes on
        self._not_before = self._means.clock.now() + self._backoff_s(self._failures, outcome)
        log.warning(
            "list_not_read",
            account=self.account,
            job=self.job,
            what="list" if run.listed is None else "item",
            status=outcome.status,
            outcome=outcome.kind.value,
        )
        if run.listed is None:
            return
        run.tries += 1
        if run.tries >= _TRIES_MAX:
            run.items.popleft()
            run.tries, run.left = 0, run.left + 1

    # --- what it says ---

    def _write_events(self, run: Run, said: list[Said]) -> None:
        self._writing = asyncio.create_task(
            self._events.write(self.account, self._lister.purpose, said), name=f"{self.name} writes events"
        )
        self._writing.add_done_callback(lambda task: self._written(task, run, len(said)))

    def _written(self, task: "asyncio.Task[None]", run: Run, lines: int) -> None:
        self._writing = None
        if task.cancelled():
            return
        self._look_at_once()
        if (error := task.exception()) is not None:
            if not isinstance(error, LogError):
                self._host.fail(self.name, error)
                return
            self._failures += 1
            self._not_before = self._means.clock.now() + self._backoff_s(self._failures, _NO_ANSWER)
            log.warning("job_events_not_written", account=self.account, job=self.job, error=str(error))
            return
        self._failures = 0  # only now: while brokers refuse, the item is read again before each try
        item = run.items.popleft()
        run.tries, run.read, run.lines = 0, run.read + 1, run.lines + lines
        self._means.metrics.lines_read(self.account, self.job, lines)
        record = self.record or JobRecord(state.SCHEMA, 0)
        remote = self._lister.after_reading(record.remote, run.listed, item)
        self._write(replace(record, remote=remote), JobChange(self.key, b""))

    def _end(self, run: Run) -> None:
        def committed() -> None:
            self._run = None
            self._means.metrics.job_ran(self.account, self.job)
            if run.read or run.left:
                log.info(
                    "list_read", account=self.account, job=self.job, items=run.read, lines=run.lines, left=run.left
                )

        record = self.record or JobRecord(state.SCHEMA, 0)
        self._write(replace(record, done_ms=run.at_ms), JobChange(self.key, b"", done=committed))

    def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()

    # --- what people see ---

    def is_wanted(self, account: Account) -> bool:
        return self._lister.every_s(account) is not None

    def view(self, account: Account) -> JobView:
        now_ms = self._means.clock.wall_ms()
        due_ms = self._due_ms(account, now_ms)
        last_ms = 0 if self.record is None else self.record.done_ms
        since_ms = now_ms if self._run is None else self._run.at_ms
        overdue_s = 0.0 if due_ms is None else max(0.0, (now_ms - min(due_ms, since_ms)) / 1000)
        return JobView(self.account, self.job, last_ms, due_ms or 0, overdue_s)


_NO_ANSWER = Outcome(OutcomeKind.NOT_SENT)
