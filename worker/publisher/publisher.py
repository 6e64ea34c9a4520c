"""Sends what the partitions offer: by account, in the order and within the limits that `core/account.py` says.

Each account has *lanes*: long-lived tasks, at most `concurrency` of them, which take the next turn, send it and
bring the outcome back. A lane holds no state of an order; what is sent is asked for when a lane is free, so it is the
newest there is.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal
from urllib.parse import quote

import structlog
from aiolimiter import AsyncLimiter
from msgspec.structs import replace

from schemas.views import AccountView
from worker.core.account import NEVER, AccountQueue, Pause, Turn
from worker.core.rules import Rules
from worker.core.view import not_configured
from worker.errors import CartsyncError, InvariantError
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    Fault,
    Outcome,
    OutcomeKind,
    Settled,
    Unsendable,
)
from worker.model.order import account_of, reference_of
from worker.model.provider import Provider, Question
from worker.ports import Attempt, Clock, Errand, Outlet, Sender

log = structlog.get_logger(__name__)

_TAKES_IN_A_ROW = 100
"""Offers that may lead to nothing before others get the loop."""
_EXCHANGES_MAX = 20
"""In one turn; an adapter that asks for more does not come to an end."""


def _limiter(rate_per_s: float) -> AsyncLimiter | None:
    """A bucket that holds a second's worth, and at least one attempt."""
    if not rate_per_s:
        return None
    bucket = max(1.0, rate_per_s)
    return AsyncLimiter(bucket, bucket / rate_per_s)


def _idempotency_key(attempt: Attempt) -> str:
    """The subject percent-encoded, in its two parts: `quote` is fast where there is nothing to encode."""
    account, reference = account_of(attempt.subject), reference_of(attempt.subject)
    key = f"{quote(account, safe='')}%2F{quote(reference, safe='')}:{attempt.revision}"
    return f"{key}:{attempt.generation}" if attempt.generation else key


def _of_read(outcome: Outcome) -> Outcome:
    """A read that has failed leaves nothing that might land later."""
    return replace(outcome, kind=OutcomeKind.REJECTED) if outcome.kind is OutcomeKind.UNKNOWN else outcome


class _Told:
    """What is known of an exchange before it is answered."""

    def __init__(self) -> None:
        self.unanswered = OutcomeKind.NOT_SENT
        self.remote: bytes | None = None

    def sends(self, step: Exchange) -> None:
        """It may be on its way from now on."""
        self.unanswered = OutcomeKind.NOT_SENT if step.is_read else OutcomeKind.UNKNOWN
        self.remote = None if step.is_read else step.remote

    def failed(self, fault: Fault) -> Outcome:
        """There was no answer."""
        if not fault.sent:
            return Outcome(OutcomeKind.NOT_SENT, fault.detail)
        return Outcome(self.unanswered, fault.detail, remote=self.remote)


class _Lanes:
    """One account: its queue, and the tasks that work it off."""

    def __init__(self, account: Account, provider: Provider[Any], rules: Rules) -> None:
        self.account = account
        self.provider = provider
        self.limiter = _limiter(account.rate_per_s)
        self.queue: AccountQueue[Outlet] = AccountQueue(account.concurrency, rules)
        self.idle: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def wake(self, count: int = 1) -> None:
        """Lets so many idle lanes look again."""
        while self.idle and count:
            future = self.idle.pop()
            if not future.done():
                future.set_result(None)
                count -= 1


class Publisher:
    """`ports.Dispatcher`. Everything in it happens on one event loop."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        providers: Mapping[str, Provider[Any]],
        sender: Sender,
        clock: Clock,
        *,
        rules: Rules,
        metrics: Metrics,
        fatal: Callable[[CartsyncError], None],
    ) -> None:
        self._lanes = {name: _Lanes(a, providers[a.provider], rules) for name, a in accounts.items()}
        self._sender = sender
        self._clock = clock
        self._deadline_s = rules.attempt_deadline_s
        self._metrics = metrics
        metrics.configured(accounts)
        self._fatal = fatal
        self._under_way: dict[Attempt, tuple[Outlet, asyncio.Task[None]]] = {}
        self._cut: set[Attempt] = set()
        self._suspended = False

    # --- what partitions ask of it ---

    def offer(
        self,
        account: str,
        owed_since_ms: int,
        subject: str,
        outlet: Outlet,
        *,
        has_failed: bool = False,
        not_before: float = 0.0,
    ) -> None:
        lanes = self._lanes[account]
        now = self._clock.now()
        lanes.queue.offer(subject, owed_since_ms, outlet, now, has_failed=has_failed, not_before=not_before)
        if lanes.idle:
            lanes.wake()
        elif len(lanes.tasks) < lanes.account.concurrency:
            lane = asyncio.create_task(self._lane(lanes), name=f"lane {account} {len(lanes.tasks)}")
            lanes.tasks.add(lane)
            lane.add_done_callback(partial(self._lane_ended, lanes))

    def withdraw(self, outlet: Outlet) -> None:
        for lanes in self._lanes.values():
            lanes.queue.withdraw(outlet)

    def cut(self, outlet: Outlet) -> None:
        for attempt, (owner, lane) in list(self._under_way.items()):
            if owner is outlet and attempt not in self._cut:
                self._cut.add(attempt)
                lane.cancel()

    def paused(self, account: str) -> str | None:
        lanes = self._lanes.get(account)
        if lanes is None:
            return not_configured(account)
        pause = lanes.queue.pause
        return None if pause is None else f"account {account} paused: {pause.reason}"

    def waits(self, account: str) -> str:
        if (lanes := self._lanes.get(account)) is None or (queue := lanes.queue).pause is not None:
            return self.paused(account) or ""
        wait_s = queue.hold_until - self._clock.now()
        if wait_s <= 0:
            return ""
        why = "its provider is overloaded" if queue.is_slow else "its provider asked for it"
        return f"account {account} waits {wait_s:.0f} s more: {why}"

    # --- what operators ask of it ---

    def resume(self, account: str) -> bool:
        """Ends a pause, but no wait for `Retry-After`; False: there was none. Raises `KeyError` for an unknown
        account.
        """
        lanes = self._lanes[account]
        if not lanes.queue.resume():
            return False
        self._resumed(lanes, "operator")
        return True

    def reconfigure(self, accounts: Mapping[str, Account]) -> None:
        """These accounts, all of them known, are from now on as given; those that were paused go on."""
        for name, account in accounts.items():
            self._lanes[name].account = account
            self.resume(name)

    def suspend(self, suspended: bool) -> None:
        """Begins no attempt any more, until it is called with `False`. Those under way go on."""
        self._suspended = suspended
        for lanes in self._lanes.values():
            if not suspended:
                lanes.wake(lanes.account.concurrency)

    def views(self) -> list[AccountView]:
        """All accounts as they stand."""
        now = self._clock.now()
        return [
            AccountView(
                name,
                lanes.account.provider,
                lanes.provider.guarantee,
                _briefly(name, lanes.queue.pause),
                max(0.0, lanes.queue.hold_until - now),
                len(lanes.queue),
                lanes.queue.in_flight,
                _probe_s(lanes.queue.pause, now),
            )
            for name, lanes in self._lanes.items()
        ]

    def in_flight(self) -> int:
        """Attempts under way."""
        return len(self._under_way)

    async def stop(self) -> None:
        """Ends all lanes; partitions have withdrawn and cut before."""
        tasks = [task for lanes in self._lanes.values() for task in lanes.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- lanes ---

    async def _lane(self, lanes: _Lanes) -> None:
        lane = asyncio.current_task()
        assert lane is not None
        while True:
            await self._ready(lanes)
            found = await self._next(lanes)
            if found is not None:
                await self._send(lanes, *found, lane)

    async def _next(self, lanes: _Lanes) -> tuple[Turn[Outlet], Attempt] | None:
        """The next turn that leads to a request: one that turns out to need none uses up nothing of the rate."""
        for count in itertools.count(1):
            now = self._clock.now()
            turn = None if self._suspended else lanes.queue.next(now)
            if turn is None:
                break
            attempt = turn.owner.take(turn.subject)
            if attempt is not None:
                lanes.queue.begin(turn, now)
                if lanes.queue.opens_at(now) <= now:
                    lanes.wake()
                return turn, attempt
            if count % _TAKES_IN_A_ROW == 0:
                await asyncio.sleep(0)
        return None

    async def _ready(self, lanes: _Lanes) -> None:
        """Until there is an offer that the account's limits let out now."""
        while True:
            if not self._is_open(lanes):
                await self._idle(lanes)
                continue
            if lanes.limiter is not None:
                await lanes.limiter.acquire()
                if not self._is_open(lanes):  # it has changed while we waited
                    continue
            return

    def _is_open(self, lanes: _Lanes) -> bool:
        now = self._clock.now()
        return not self._suspended and lanes.queue.opens_at(now) <= now

    async def _idle(self, lanes: _Lanes) -> None:
        """Until somebody wakes the lane: an offer, an operator, or the time at which the account opens."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        lanes.idle.append(future)
        alarm = None
        now = self._clock.now()
        opens_at = NEVER if self._suspended else lanes.queue.opens_at(now)
        if opens_at != NEVER:
            alarm = loop.call_later(opens_at - now, lanes.wake)
        try:
            await future
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _send(self, lanes: _Lanes, turn: Turn[Outlet], attempt: Attempt, lane: asyncio.Task[None]) -> None:
        self._under_way[attempt] = (turn.owner, lane)
        account, told = lanes.account, _Told()
        outcome = Outcome(OutcomeKind.UNKNOWN, "the attempt ended without an answer")
        try:
            outcome = await self._take_turn(lanes, account, attempt, told)
        except asyncio.CancelledError:
            why = "given up: the partition is leaving"
            outcome = Outcome(told.unanswered, why, remote=told.remote)
            if attempt not in self._cut or lane.uncancel() > 0:
                raise  # not the attempt is to end, but the lane
        finally:
            self._cut.discard(attempt)
            del self._under_way[attempt]
            now = self._clock.now()
            outcome = self._end(lanes, turn, outcome, now, is_outdated=account is not lanes.account)
            self._metrics.attempt(lanes.account.name, outcome.kind.value, now - attempt.taken_at)
            turn.owner.done(attempt, outcome)

    async def _take_turn(self, lanes: _Lanes, account: Account, attempt: Attempt, told: _Told) -> Outcome:
        """Asks the adapter for one step after the other: reads, and at most one command."""
        if attempt.errand is not None:
            return await self._run_errand(attempt.errand, attempt, told)
        asked = Question(
            reference_of(attempt.subject),
            account,
            attempt.update,
            attempt.remote,
            attempt.may_land_late,
            attempt.remote_unknown,
            _idempotency_key(attempt),
            attempt.generation,
            attempt.trace,
            self._clock.wall_ms(),
        )
        status, provider = None, lanes.provider
        for count in range(_EXCHANGES_MAX):
            step = provider.next_step(asked)
            match step:
                case Exchange():
                    pass
                case AwaitResult(poll_s, why, remote, is_overdue):
                    return Outcome(OutcomeKind.PENDING, why, status, poll_s, remote=remote, is_overdue=is_overdue)
                case Settled(remote, found):
                    return Outcome(OutcomeKind.APPLIED, "", status, remote=remote, found=found)
                case Unsendable():
                    return Outcome(OutcomeKind.UNSUPPORTED, step.reason, status, remote=step.remote, found=step.found)
            if count and lanes.limiter is not None:  # the first has had its leave
                await lanes.limiter.acquire()
            told.sends(step)
            answer = await self._sender.send(step.request, self._deadline_s, attempt.may_send)
            if isinstance(answer, Fault):
                return told.failed(answer)
            answered = provider.read_response(asked, step, answer)
            if not step.is_read:
                return answered.outcome
            if answered.outcome.kind is not OutcomeKind.APPLIED:
                return _of_read(answered.outcome)
            status = answer.status
            asked = replace(asked, seen=answered.seen, now_ms=self._clock.wall_ms())
        return Outcome(OutcomeKind.REJECTED, f"{provider.name} was read {_EXCHANGES_MAX} times in one turn")

    async def _run_errand(self, errand: Errand, attempt: Attempt, told: _Told) -> Outcome:
        """One request of a job."""
        told.sends(Exchange(errand.request, errand.is_read))
        answer = await self._sender.send(errand.request, self._deadline_s, attempt.may_send)
        if isinstance(answer, Fault):
            return told.failed(answer)
        errand.answer = answer
        outcome = errand.read(answer, self._clock.wall_ms())
        return _of_read(outcome) if errand.is_read else outcome

    def _end(self, lanes: _Lanes, turn: Turn[Outlet], outcome: Outcome, now: float, *, is_outdated: bool) -> Outcome:
        """What is left of the outcome for the order; says what it means for the account, unless that has changed."""
        queue, name = lanes.queue, lanes.account.name
        pause, hold_until = queue.pause, queue.hold_until
        outcome = queue.end(turn, outcome, now, self._clock.chance(), is_outdated=is_outdated)
        if queue.hold_until > hold_until:
            event = "account_slowed" if queue.is_slow else "account_held"
            wait_s = round(queue.hold_until - now, 3)
            log.warning(event, account=name, status=outcome.status, wait_s=wait_s, order=turn.subject)
        if queue.pause is not None and pause is None:
            self._metrics.account_paused(name, True)
            log.error(
                "account_paused",
                account=name,
                cause=queue.pause.cause,
                order=queue.pause.subject,
                status=outcome.status,
                probe_s=_probe_s(queue.pause, now),
                do=f"cartsync account resume {name}",
            )
        elif queue.pause is None and pause is not None:
            self._resumed(lanes, "probe")
        elif queue.pause is not None and queue.pause is turn.probes:
            probe_s = _probe_s(queue.pause, now)
            log.warning("account_probed", account=name, order=turn.subject, status=outcome.status, probe_s=probe_s)
        return outcome

    def _resumed(self, lanes: _Lanes, by: Literal["operator", "probe"]) -> None:
        self._metrics.account_paused(lanes.account.name, False)
        log.info("account_resumed", account=lanes.account.name, by=by)
        lanes.wake(lanes.account.concurrency)

    def _lane_ended(self, lanes: _Lanes, lane: asyncio.Task[None]) -> None:
        lanes.tasks.discard(lane)
        if not lane.cancelled() and lane.exception() is not None:
            error = lane.exception()
            self._fatal(InvariantError(f"a lane of account {lanes.account.name} failed: {type(error).__name__}"))
            log.critical("lane_failed", account=lanes.account.name, exc_info=error)


def _briefly(account: str, pause: Pause | None) -> str | None:
    """Why it sends nothing, without the provider's words: for who may not see orders."""
    if pause is None:
        return None
    why = "its credentials were refused" if pause.cause == "credentials" else "too many orders were refused for good"
    return f"account {account} paused: {why} ({pause.status})"


def _probe_s(pause: Pause | None, now: float) -> float | None:
    """Seconds until the next probe; `None`: there will be none."""
    return None if pause is None or pause.probe_at == NEVER else round(max(0.0, pause.probe_at - now), 3)
