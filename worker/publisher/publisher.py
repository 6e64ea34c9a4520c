"""Sends what the partitions offer: by account, the longest owed first, within the account's limits.

Each account has *lanes*: long-lived tasks, at most `concurrency` of them, which take the next offer, send it and
bring the outcome back. A lane holds no state of an order; what is sent is asked for when a lane is free, so it is the
newest there is.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import quote

import structlog
from aiolimiter import AsyncLimiter

from schemas.updates import Account, Fault, HttpResponse, Outcome, OutcomeKind
from schemas.views import AccountView
from worker.core.outbox import account_of, reference_of
from worker.errors import CartsyncError, InvariantError
from worker.metrics import Metrics
from worker.ports import Attempt, Clock, Outlet, Sender
from worker.providers.base import Provider

log = structlog.get_logger(__name__)

_TAKES_IN_A_ROW = 100
"""Offers that may lead to nothing before others get the loop."""


def _limiter(rate_per_s: float) -> AsyncLimiter | None:
    """A bucket that holds a second's worth, and at least one attempt."""
    if not rate_per_s:
        return None
    bucket = max(1.0, rate_per_s)
    return AsyncLimiter(bucket, bucket / rate_per_s)


def _idempotency_key(subject: str, revision: int) -> str:
    """The subject percent-encoded, in its two parts: `quote` is fast where there is nothing to encode."""
    return f"{quote(account_of(subject), safe='')}%2F{quote(reference_of(subject), safe='')}:{revision}"


class _AccountQueue:
    """One account: what is offered to it, and what holds it up."""

    def __init__(self, account: Account, provider: Provider) -> None:
        self.account = account
        self.provider = provider
        self.limiter = _limiter(account.rate_per_s)
        self.offers: list[tuple[int, int, str, Outlet]] = []
        self.idle: list[asyncio.Future[None]] = []
        self.lanes: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.paused: str | None = None
        self.hold_until = 0.0

    def is_open(self, now: float) -> bool:
        """Whether there is an offer, and nothing but the rate limit in its way."""
        return bool(self.offers) and self.paused is None and self.hold_until <= now

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
        providers: Mapping[str, Provider],
        sender: Sender,
        clock: Clock,
        *,
        attempt_deadline_s: float,
        metrics: Metrics,
        fatal: Callable[[CartsyncError], None],
    ) -> None:
        self._queues = {name: _AccountQueue(a, providers[a.provider]) for name, a in accounts.items()}
        self._sender = sender
        self._clock = clock
        self._deadline_s = attempt_deadline_s
        self._metrics = metrics
        self._fatal = fatal
        self._under_way: dict[Attempt, tuple[Outlet, asyncio.Task[None]]] = {}
        self._cut: set[Attempt] = set()
        self._count = 0
        self._suspended = False

    # --- what partitions ask of it ---

    def offer(self, account: str, owed_since_ms: int, subject: str, outlet: Outlet) -> None:
        queue = self._queues[account]
        self._count += 1
        heapq.heappush(queue.offers, (owed_since_ms, self._count, subject, outlet))
        if queue.idle:
            queue.wake()
        elif len(queue.lanes) < queue.account.concurrency:
            lane = asyncio.create_task(self._lane(queue), name=f"lane {account} {len(queue.lanes)}")
            queue.lanes.add(lane)
            lane.add_done_callback(partial(self._lane_ended, queue))

    def withdraw(self, outlet: Outlet) -> None:
        for queue in self._queues.values():
            kept = [offer for offer in queue.offers if offer[3] is not outlet]
            if len(kept) < len(queue.offers):
                heapq.heapify(kept)
                queue.offers = kept

    def cut(self, outlet: Outlet) -> None:
        for attempt, (owner, lane) in list(self._under_way.items()):
            if owner is outlet and attempt not in self._cut:
                self._cut.add(attempt)
                lane.cancel()

    def paused(self, account: str) -> str | None:
        queue = self._queues.get(account)
        return f"account {account} is not configured" if queue is None else queue.paused

    def waits(self, account: str) -> str:
        wait_s = 0.0 if (queue := self._queues.get(account)) is None else queue.hold_until - self._clock.now()
        held = f"account {account} waits {wait_s:.0f} s more: its provider asked for it" if wait_s > 0 else ""
        return self.paused(account) or held

    # --- what operators ask of it ---

    def resume(self, account: str) -> None:
        """Ends a pause, but no wait for `Retry-After`. Raises `KeyError` for an unknown account."""
        queue = self._queues[account]
        queue.paused = None
        self._metrics.account_paused(account, False)
        log.info("account_resumed", account=account)
        queue.wake(len(queue.offers))

    def reconfigure(self, accounts: Mapping[str, Account]) -> None:
        """These accounts, all of them known, are from now on as given; those that were paused go on."""
        for name, account in accounts.items():
            self._queues[name].account = account
            if self._queues[name].paused is not None:
                self.resume(name)

    def suspend(self, suspended: bool) -> None:
        """Begins no attempt any more, until it is called with `False`. Those under way go on."""
        self._suspended = suspended
        for queue in self._queues.values():
            if not suspended:
                queue.wake(len(queue.offers))

    def views(self) -> list[AccountView]:
        """All accounts as they stand."""
        now = self._clock.now()
        return [
            AccountView(
                name,
                queue.account.provider,
                queue.provider.guarantee,
                queue.paused,
                max(0.0, queue.hold_until - now),
                len(queue.offers),
                queue.in_flight,
            )
            for name, queue in self._queues.items()
        ]

    def in_flight(self) -> int:
        """Attempts under way."""
        return len(self._under_way)

    async def stop(self) -> None:
        """Ends all lanes; partitions have withdrawn and cut before."""
        lanes = [lane for queue in self._queues.values() for lane in queue.lanes]
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)

    # --- lanes ---

    async def _lane(self, queue: _AccountQueue) -> None:
        lane = asyncio.current_task()
        assert lane is not None
        while True:
            await self._ready(queue)
            found = await self._next(queue)
            if found is not None:
                await self._send(queue, *found, lane)

    async def _next(self, queue: _AccountQueue) -> tuple[Outlet, Attempt] | None:
        """The next offer that leads to a request: one that turns out to need none uses up nothing of the rate."""
        for count in itertools.count(1):
            if not self._is_open(queue):
                break
            _, _, subject, outlet = heapq.heappop(queue.offers)
            attempt = outlet.take(subject)
            if attempt is not None:
                return outlet, attempt
            if count % _TAKES_IN_A_ROW == 0:
                await asyncio.sleep(0)
        return None

    async def _ready(self, queue: _AccountQueue) -> None:
        """Until there is an offer that the account's limits let out now."""
        while True:
            if not self._is_open(queue):
                await self._idle(queue)
                continue
            if queue.limiter is not None:
                await queue.limiter.acquire()
                if not self._is_open(queue):  # it has changed while we waited
                    continue
            if len(queue.offers) > 1:
                queue.wake()
            return

    def _is_open(self, queue: _AccountQueue) -> bool:
        return not self._suspended and queue.is_open(self._clock.now())

    async def _idle(self, queue: _AccountQueue) -> None:
        """Until somebody wakes the lane: an offer, an operator, or the end of `Retry-After`."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        queue.idle.append(future)
        alarm = None
        if queue.offers and queue.paused is None and not self._suspended:
            alarm = loop.call_later(queue.hold_until - self._clock.now(), queue.wake)
        try:
            await future
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _send(self, queue: _AccountQueue, outlet: Outlet, attempt: Attempt, lane: asyncio.Task[None]) -> None:
        self._under_way[attempt] = (outlet, lane)
        queue.in_flight += 1
        outcome = Outcome(OutcomeKind.UNKNOWN, "the attempt ended without an answer")
        try:
            key = _idempotency_key(attempt.subject, attempt.revision)
            request = queue.provider.next_request(
                reference_of(attempt.subject), attempt.update, queue.account, key, attempt.trace
            )
            answer = await self._sender.send(request, self._deadline_s, attempt.may_send)
            outcome = self._read(queue, answer)
        except asyncio.CancelledError:
            outcome = Outcome(OutcomeKind.UNKNOWN, "given up: the partition is leaving")
            if attempt not in self._cut or lane.uncancel() > 0:
                raise  # not the attempt is to end, but the lane
        finally:
            self._cut.discard(attempt)
            del self._under_way[attempt]
            queue.in_flight -= 1
            self._metrics.attempt(outcome.kind.value, self._clock.now() - attempt.taken_at)
            outlet.done(attempt, outcome)

    def _read(self, queue: _AccountQueue, answer: HttpResponse | Fault) -> Outcome:
        if isinstance(answer, Fault):
            return Outcome(OutcomeKind.UNKNOWN if answer.sent else OutcomeKind.NOT_SENT, answer.detail)
        outcome = queue.provider.read_response(answer, self._clock.wall_ms())
        name = queue.account.name
        if outcome.kind is OutcomeKind.CREDENTIALS and queue.paused is None:
            queue.paused = f"account {name} paused: {outcome.reason}"
            self._metrics.account_paused(name, True)
            log.error("account_paused", account=name, status=outcome.status, do=f"cartsync account resume {name}")
        if outcome.holds_account and outcome.retry_after_s:
            queue.hold_until = max(queue.hold_until, self._clock.now() + outcome.retry_after_s)
            log.warning("account_held", account=name, status=outcome.status, wait_s=round(outcome.retry_after_s, 3))
        return outcome

    def _lane_ended(self, queue: _AccountQueue, lane: asyncio.Task[None]) -> None:
        queue.lanes.discard(lane)
        if not lane.cancelled() and lane.exception() is not None:
            error = lane.exception()
            self._fatal(InvariantError(f"a lane of account {queue.account.name} failed: {type(error).__name__}"))
            log.critical("lane_failed", account=queue.account.name, exc_info=error)
