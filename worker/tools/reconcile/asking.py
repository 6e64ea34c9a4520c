"""Asks the provider of one account, within its limits: no faster than it may be, again after what is transient.

Nothing but reads goes out here, so nothing is held, leased or written down. What is wrong with the account itself ends
its part of the reconciliation with a reason; what is wrong with one order costs only that order.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from aiolimiter import AsyncLimiter
from msgspec import Struct
from msgspec.structs import replace

from worker.core.policy import DeliveryPolicy
from worker.core.retry import backoff_s
from worker.errors import CartsyncError, ConfigError
from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.model.jobs import Lister
from worker.model.provider import Answered
from worker.model.reconcile import Ledger
from worker.ports import Clock, Sender
from worker.providers.registry import RECONCILERS

RATE_PER_S = 10.0
"""Requests a second where nothing else is said: workers use the account at the same time."""
CONCURRENCY = 8
ATTEMPTS_MAX = 6
"""For one answer."""
RETRY_MAX_S = 8.0
HOLD_MAX_S = 120.0
"""Somebody waits: a provider that wants to be left alone for longer is asked another time."""
SILENT_MAX = 3
"""Orders in a row that were not answered about, until the account is given up."""

_TRANSIENT = frozenset({OutcomeKind.REJECTED, OutcomeKind.NOT_SENT, OutcomeKind.UNKNOWN})


class Problem(Struct, frozen=True):
    """Why an account's orders are not compared."""

    text: str
    exit_code: int


class Asking:
    """One account's provider."""

    def __init__(
        self, account: Account, sender: Sender, clock: Clock, rules: DeliveryPolicy, rate_per_s: float | None
    ) -> None:
        """`rate_per_s`: what the operator allows; `None`: nothing was said."""
        self.account = account
        self.problem: Problem | None = None
        """Once there is one, nobody is asked any more."""
        self.concurrency = min(account.concurrency, CONCURRENCY)
        self.rate_per_s = min(rate_per_s or RATE_PER_S, account.rate_per_s or float("inf"))
        bucket = max(1.0, self.rate_per_s)
        self._limiter = AsyncLimiter(bucket, bucket / self.rate_per_s)
        self._title = RECONCILERS[account.provider].title
        self._sender = sender
        self._clock = clock
        self._deadline_s = rules.attempt_deadline_s
        self._rules = replace(
            rules, retry_max_s=min(rules.retry_max_s, RETRY_MAX_S), retry_initial_s=min(rules.retry_initial_s, 1.0)
        )
        self._open_at = 0.0
        """By the loop's clock: before, the provider wants to be left alone."""
        self._silent = self._forbidden = 0

    async def answer(self, request: HttpRequest, read: Callable[[HttpResponse, int], Answered]) -> Answered:
        """What the provider says; with an outcome that is not `APPLIED` when it does not. `read`: what an answer means,
        with the time in UTC milliseconds.
        """
        for count in itertools.count(1):
            await self._turn()
            if self.problem is not None:
                break
            answered = await self._once(request, read)
            outcome = answered.outcome
            if outcome.kind not in _TRANSIENT:
                self._silent = 0
                self._note_refusal(outcome)
                return answered
            if count == ATTEMPTS_MAX:
                self._note_silence(outcome)
                return answered
            await self._wait(outcome, count)
        assert self.problem is not None  # why the loop has ended
        return Answered(Outcome(OutcomeKind.NOT_SENT, self.problem.text))

    async def _once(self, request: HttpRequest, read: Callable[[HttpResponse, int], Answered]) -> Answered:
        answer = await self._sender.send(request, self._deadline_s, lambda: True)
        if isinstance(answer, Fault):
            return Answered(Outcome(OutcomeKind.NOT_SENT, answer.detail))
        return read(answer, self._clock.wall_ms())

    async def _turn(self) -> None:
        if self.problem is not None:
            return
        await self._limiter.acquire()
        if (wait_s := self._open_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait_s)

    async def _wait(self, outcome: Outcome, count: int) -> None:
        wait_s = outcome.retry_after_s or 0.0
        if wait_s > HOLD_MAX_S:
            self._give_up(f"asks to be left alone for {wait_s:.0f} s ({outcome.reason})", CartsyncError.exit_code)
            return
        wait_s = max(wait_s, backoff_s(count, self._clock.chance(), self._rules))
        if outcome.throttles_account:
            self._open_at = max(self._open_at, asyncio.get_running_loop().time() + wait_s)
        else:
            await asyncio.sleep(wait_s)

    def _note_silence(self, outcome: Outcome) -> None:
        """An answer that cannot be understood is the order's own matter; no answer may be the account's."""
        if outcome.status is not None and outcome.status < 400:
            return
        self._silent += 1
        if self._silent >= SILENT_MAX:
            self._give_up(f"does not answer ({outcome.reason})", CartsyncError.exit_code)

    def _note_refusal(self, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.CREDENTIALS:
            self._give_up(
                f"refuses the credentials ({outcome.reason}): give the right ones. A running worker has paused the "
                f"account, too: cartsync account resume {self.account.name}",
                ConfigError.exit_code,
            )
        self._forbidden = self._forbidden + 1 if outcome.kind is OutcomeKind.FORBIDDEN else 0
        if self._forbidden >= self._rules.forbidden_orders:
            self._give_up(f"allows none of this ({outcome.reason})", ConfigError.exit_code)

    def _give_up(self, why: str, exit_code: int) -> None:
        if self.problem is None:
            self.problem = Problem(f"account {self.account.name}: {self._title} {why}", exit_code)

    # --- ledgers -------------------------------------------------------------------------------------------------

    async def fill(self, ledger: Ledger, on_progress: Callable[[int, int], None]) -> None:
        """Reads what a ledger is made of; whatever cannot be read is the account's problem, for sums would be wrong.
        `on_progress`: told how many items of how many were read.
        """
        if (lister := ledger.lister) is None:
            return
        listed = await self._list(lister, lister.list_request(self.account), lister.read_list)
        if listed is None:
            return
        ledger.note_list(listed)
        items = lister.unread(b"", listed)
        for count, item in enumerate(items, 1):
            lines = await self._item(lister, item)
            if lines is None:
                return
            ledger.add(item, lines)
            on_progress(count, len(items))

    async def _item(self, lister: Lister, item: Any) -> Any:
        return await self._list(
            lister,
            lister.item_request(self.account, item),
            lambda answer, now_ms: lister.read_item(item, answer, now_ms),
        )

    async def _list(self, lister: Lister, request: HttpRequest, read: Callable[[HttpResponse, int], Any]) -> Any:
        """`None`: it was not read, and the account has a problem."""

        def as_answered(response: HttpResponse, now_ms: int) -> Answered:
            listed = read(response, now_ms)
            return Answered(listed.outcome, listed.found)

        answered = await self.answer(request, as_answered)
        if answered.outcome.kind is OutcomeKind.APPLIED:
            return answered.seen
        self._give_up(f"did not tell its {lister.job} ({answered.outcome.reason})", CartsyncError.exit_code)
        return None
