"""All jobs of one partition (`ports.JobDesk`)."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from zlib import crc32

from msgspec import MsgspecError
from msgspec.structs import replace

from schemas import state
from worker.core.appointments import NEVER
from worker.errors import DamagedStateError, UsageError
from worker.jobs.events import JobEvents
from worker.jobs.job import Job, Means
from worker.jobs.listing import ListJob
from worker.jobs.report import ReportJob
from worker.model.exchange import Outcome
from worker.model.jobs import Jobs
from worker.model.order import account_of
from worker.ownership.owner import HANDED_OVER
from worker.ports import Errand, JobChange, JobHost, JobView


def job_partition(account: str, partitions: int) -> int:
    """Where what an account has only once is done."""
    return crc32(account.encode()) % partitions


class Desk:
    """`ports.JobDesk`."""

    def __init__(
        self,
        host: JobHost,
        means: Means,
        jobs: Mapping[str, Jobs],
        partitions: int,
        events: JobEvents | None,
    ) -> None:
        """`jobs`: by account, what its adapter has for it. `partitions`: of the topic. `events`: writes what lists say;
        `None`: no list is read.
        """
        self._host = host
        self._means = means
        self._jobs: dict[str, Job] = {}
        self._asking: set[asyncio.Future[None]] = set()
        for account, has in jobs.items():
            for job in self._made(account, has, partitions, events):
                self._jobs[job.name] = job

    def _made(self, account: str, has: Jobs, partitions: int, events: JobEvents | None) -> Iterator[Job]:
        is_owner = job_partition(account, partitions) == self._host.partition
        if has.reporter is not None:
            yield ReportJob(account, self._host, self._means, has.reporter, is_owner=is_owner)
        if is_owner and events is not None:
            for lister in has.listers:
                yield ListJob(account, self._host, self._means, lister, events)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(job.key for job in self._jobs.values())

    def restore(self, records: Mapping[str, bytes], *, is_clean: bool, hold_until: float) -> dict[str, bytes]:
        changed = {}
        for job in self._jobs.values():
            value = records.get(job.key)
            try:
                before = known = None if value is None else state.decode_job(value)
                is_sure = is_clean
                if known is not None and known.in_doubt:
                    known, is_sure = replace(known, in_doubt=False), False
                after = job.restore(known, is_clean=is_sure, hold_until=hold_until)
            except MsgspecError as error:
                raise DamagedStateError(
                    f"partition {self._host.partition} of the state topic: the record with the key {job.key} is not "
                    f"one that this version of cartsync wrote ({type(error).__name__}). Run a newer version, or write "
                    "the right record"
                ) from error
            if after is not None and after is not before:
                changed[job.key] = state.encode(after)
        return changed

    def forget(self, account: str) -> dict[str, bytes]:
        """Drops what was under way of an account: it tells another one now. Returns what has to be written."""
        found = {}
        for job in self._jobs.values():
            if job.account == account and isinstance(job, ReportJob) and (record := job.forget()) is not None:
                found[job.key] = state.encode(record)
        return found

    def next_due(self) -> float:
        return min((job.due for job in self._jobs.values()), default=NEVER)

    async def look(self, *, is_leaving: bool = False) -> None:
        now = self._means.clock.now()
        for job in self._jobs.values():
            if job.due <= now or is_leaving:
                await job.look(is_leaving=is_leaving)

    def look_anew(self) -> None:
        """Something that all of it depends on has changed: accounts were read again."""
        for job in self._jobs.values():
            job.due = 0.0
        self._host.wake()

    def held_until(self) -> float:
        return max((job.held_until for job in self._jobs.values()), default=0.0)

    def owes(self) -> bool:
        return any(job.owes() for job in self._jobs.values())

    def has_mail(self) -> bool:
        return any(job.mail is not None for job in self._jobs.values())

    def changes(self) -> list[JobChange]:
        """One that changes orders may be large: no other goes with it."""
        found = [job.mail for job in self._jobs.values() if job.mail is not None]
        small = [change for change in found if not (change.remotes or change.fates)]
        return small or found[:1]

    def is_reserved(self, subject: str) -> bool:
        job = self._jobs.get(f"{account_of(subject)}:{ReportJob.job}")
        return isinstance(job, ReportJob) and subject in job.reserved

    def claim(self, name: str) -> Errand | None:
        return self._jobs[name].claim()

    def postpone(self, name: str) -> None:
        """Its turn has come, and it may not go now."""
        self._jobs[name].withdraw()

    def done(self, name: str, outcome: Outcome) -> None:
        self._jobs[name].done(outcome)

    def close(self) -> None:
        for job in self._jobs.values():
            job.close()
        for asked in self._asking:
            if not asked.done():
                asked.set_exception(UsageError(HANDED_OVER))

    # --- what operators ask ---

    async def ask(self, account: str) -> int:
        asked = [job for job in self._jobs.values() if job.account == account and self._is_wanted(job)]
        for job in asked:
            await self._do(job, job.ask)
        return len(asked)

    def _is_wanted(self, job: Job) -> bool:
        destination = self._host.destination(job.account)
        return destination is not None and job.is_wanted(destination.account)

    async def decide(self, account: str, page_id: str, *, is_taken: bool) -> bool:
        for job in list(self._jobs.values()):
            if not (isinstance(job, ReportJob) and job.account == account):
                continue
            if any(page.id == page_id for page in job.stuck()):
                await self._do(job, partial(job.decide, page_id=page_id, is_taken=is_taken))
                return True
        return False

    async def _do(self, job: Job, act: Callable[[Callable[[], None]], Any]) -> None:
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.add(asked)
        asked.add_done_callback(self._asking.discard)

        def done() -> None:
            if not asked.done():
                asked.set_result(None)

        def command() -> None:
            try:
                act(done)
            except UsageError as error:
                if not asked.done():
                    asked.set_exception(error)

        job.command(command)
        await asked

    def views(self) -> list[JobView]:
        found = []
        for job in self._jobs.values():
            destination = self._host.destination(job.account)
            if destination is not None and (job.is_wanted(destination.account) or job.record is not None):
                found.append(job.view(destination.account))
        return found
