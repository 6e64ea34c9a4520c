"""What all jobs have in common: a record in the state, one request under way and one change to be written at most."""

from collections import deque
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from schemas import state
from schemas.state import JobRecord
from worker.core.appointments import NEVER
from worker.core.policy import DeliveryPolicy
from worker.core.retry import backoff_s
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import Outcome
from worker.ports import Clock, Errand, JobChange, JobHost, JobView

LOOK_AGAIN_S = 900.0
"""A wall clock that is set forward makes a run late by no more than this."""


class Means(Struct, frozen=True):
    """What jobs work with."""

    clock: Clock
    rules: DeliveryPolicy
    metrics: Metrics


class Job:
    """A job of an account in one partition. Everything in it happens on one event loop, `look` in the owner's task."""

    job: str

    def __init__(self, account: str, host: JobHost, means: Means) -> None:
        self.account = account
        self.due = 0.0
        """When to look, on the monotonic clock."""
        self.record: JobRecord | None = None
        """As committed; `None`: there is none yet."""
        self.mail: JobChange | None = None
        """What is to be written."""
        self.held_until = 0.0
        """The end of the latest hold that an answer began, on the monotonic clock."""
        self._host = host
        self._means = means
        self._errand: Errand | None = None
        """What is offered, or under way."""
        self._made_for: Account | None = None
        """The account that the errand was made for."""
        self._is_under_way = False
        self._commands: deque[Callable[[], None]] = deque()
        """What operators ask: each has something written, or fails."""

    @property
    def name(self) -> str:
        """By which the publisher knows it; no order's subject is without a slash."""
        return f"{self.account}:{self.job}"

    @property
    def key(self) -> str:
        """Of its record."""
        return f"{state.JOB_PREFIX}{self.account}:{self.job}"

    def restore(self, record: JobRecord | None, *, is_clean: bool, hold_until: float) -> JobRecord | None:  # noqa: ARG002
        """Takes over what a predecessor has kept; returns what is to be kept from now on. `hold_until`: nothing of it
        lands later. Raises `msgspec.MsgspecError`.
        """
        self.record = record
        return record

    async def look(self, *, is_leaving: bool = False) -> None:
        """Does what is due; `is_leaving`: only what has to be written of what was sent."""
        self.due = NEVER
        if self.mail is not None or await self._follow() or is_leaving:
            return
        if self._commands:
            self.due = 0.0
            self._commands.popleft()()
        elif self._errand is None:
            await self._go_on()

    def owes(self) -> bool:
        """Whether something has to be written before the partition may go."""
        return self.mail is not None

    async def _follow(self) -> bool:
        """Follows an answer; whether something is to be written of it."""
        return False

    async def _go_on(self) -> None:
        """Does what is due; nothing is under way, and nothing is to be written."""
        raise NotImplementedError

    def command(self, command: Callable[[], None]) -> None:
        """Has something done that an operator asks for, once nothing else is to be written."""
        self._commands.append(command)
        self._look_at_once()

    def ask(self, done: Callable[[], None]) -> None:
        """Makes a run due now."""
        now_ms = self._means.clock.wall_ms()
        record = self.record or JobRecord(state.SCHEMA, now_ms - 1)
        self._write(replace(record, asked_ms=now_ms), JobChange(self.key, b"", done=done))

    def finished(self, outcome: Outcome) -> None:
        """A request has an outcome."""
        raise NotImplementedError

    def is_wanted(self, account: Account) -> bool:
        """Whether the account has this job."""
        raise NotImplementedError

    def view(self, account: Account) -> JobView:
        """As it stands."""
        raise NotImplementedError

    def close(self) -> None:
        """The partition is not ours any more."""

    # --- requests ---

    def _offer(self, errand: Errand, account: Account, since_ms: int) -> None:
        self._errand, self._made_for = errand, account
        self.due = NEVER
        self._host.offer_job(self.account, self.name, since_ms)

    def claim(self) -> Errand | None:
        """What is to be sent now."""
        errand = self._errand
        if errand is None or self._is_under_way:
            return None
        destination = self._host.destination(self.account)
        if destination is None or destination.account is not self._made_for:
            self.withdraw()
            return None
        self._is_under_way = True
        return errand

    def withdraw(self) -> None:
        """Nothing was sent: it is looked at anew."""
        self._errand = None
        self._look_at_once()

    def done(self, outcome: Outcome) -> None:
        """What became of it."""
        self._errand, self._is_under_way = None, False
        self.finished(outcome)

    # --- when to look ---

    def _look_at_once(self) -> None:
        self.due = 0.0
        self._host.wake()

    def _wait(self, seconds: float) -> None:
        self.due = self._means.clock.now() + max(0.0, seconds)

    def _backoff_s(self, count: int, outcome: Outcome) -> float:
        clock, rules = self._means.clock, self._means.rules
        return max(backoff_s(count, clock.chance(), rules), outcome.retry_after_s or 0.0)

    # --- its record ---

    def _write(self, record: JobRecord, change: JobChange) -> None:
        """Has it written; it counts once it is committed."""
        before = change.done

        def committed() -> None:
            self.record = record
            self.mail = None
            self._look_at_once()
            before()

        change.value = state.encode(record)
        change.done = committed
        self.mail = change
        self._host.wake()
