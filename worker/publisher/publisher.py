"""Sends what the partitions offer, per account, in the order and within the limits that `core/account.py` decides.

Each account has *slots*: up to `concurrency` long-lived tasks that take the next turn, send it and report the outcome.
A slot keeps no state of an order: it claims the attempt when it is free, so that it always sends the newest state.

All accounts of a provider share a *gate* of so many attempts (`provider_concurrency`), and with it the sockets. Where
it is full, one slot of each account waits there, in the order in which they came: so accounts take turns, one attempt
each, however many orders or slots one of them has.
"""

import asyncio
import itertools
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import structlog
from aiolimiter import AsyncLimiter
from msgspec.structs import replace

from schemas.state import Operated
from schemas.views import AccountView
from worker.core.account import NEVER, AccountQueue, Pause, Turn
from worker.core.policy import DeliveryPolicy
from worker.core.view import not_configured
from worker.errors import CartsyncError, InvariantError
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.exchange import (
    AwaitResult,
    Exchange,
    Fault,
    HttpRequest,
    HttpResponse,
    Outcome,
    OutcomeKind,
    Settled,
    Step,
    Unsendable,
)
from worker.model.order import quoted, reference_of
from worker.model.provider import Answered, Provider, Question
from worker.ports import Attempt, AttemptSource, Clock, Errand, Sender
from worker.publisher.gate import Gate

log = structlog.get_logger(__name__)

_CLAIMS_IN_A_ROW = 100
"""How many offers in a row may lead to no request before the slot yields to the loop."""
_EXCHANGES_MAX = 20
"""The limit for one turn: an adapter that needs more is in an endless loop."""


def _limiter(rate_per_s: float) -> AsyncLimiter | None:
    """A leaky bucket with the capacity of one second, and at least one attempt."""
    if not rate_per_s:
        return None
    bucket = max(1.0, rate_per_s)
    return AsyncLimiter(bucket, bucket / rate_per_s)


def _idempotency_key(attempt: Attempt, account: str, reference: str) -> str:
    """Contains the percent-encoded subject. Encoded in two parts, because that is fast if nothing needs encoding, and
    the first of them once and for all (`account`).
    """
    key = f"{account}%2F{quoted(reference)}:{attempt.revision}"
    return f"{key}:{attempt.generation}" if attempt.generation else key


def _of_read(outcome: Outcome) -> Outcome:
    """A failed read leaves nothing behind that might land late."""
    return replace(outcome, kind=OutcomeKind.REJECTED) if outcome.kind is OutcomeKind.UNKNOWN else outcome


def _next_step(provider: Provider[Any], asked: Question, attempt: Attempt, status: int | None) -> Step | Outcome:
    """The adapter's next step, or what its failure comes to."""
    try:
        return provider.next_step(asked)
    except Exception as error:  # noqa: BLE001 - see `_failed`
        return _failed(attempt, error, status)


def _read_response(
    provider: Provider[Any], asked: Question, sent: Exchange, response: HttpResponse, attempt: Attempt
) -> Answered:
    """What the adapter makes of a response, or what its failure comes to."""
    try:
        return provider.read_response(asked, sent, response)
    except Exception as error:  # noqa: BLE001 - see `_failed`
        remote = None if sent.is_read else sent.remote
        return Answered(_failed(attempt, error, response.status, is_command=not sent.is_read, remote=remote))


def _failed(
    attempt: Attempt, error: Exception, status: int | None, *, is_command: bool = False, remote: bytes | None = None
) -> Outcome:
    """The outcome when an adapter fails, mostly at what its provider has said: a defect of ours, which must cost one
    order, not the worker and, as the same response would come again, the one that takes over. What it fails at may be
    personal.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "worker" in Path(frame.filename).parts]  # not a library that it called
    at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    name = type(error).__name__
    log.critical("adapter_failed", order=attempt.subject, status=status, error=name, at=at)
    kind = OutcomeKind.UNKNOWN if is_command else OutcomeKind.REJECTED
    return Outcome(kind, f"the adapter failed ({name} at {at}), a defect of cartsync: report it", status, remote=remote)


class _Unanswered:
    """The outcome of the current exchange in case it gets no response."""

    def __init__(self) -> None:
        self.kind = OutcomeKind.NOT_SENT
        self.remote: bytes | None = None

    def sends(self, step: Exchange) -> None:
        """The request of this step may be in flight from now on."""
        self.kind = OutcomeKind.NOT_SENT if step.is_read else OutcomeKind.UNKNOWN
        self.remote = None if step.is_read else step.remote

    def failed(self, fault: Fault) -> Outcome:
        """The outcome when there was no response."""
        if not fault.sent:
            return Outcome(OutcomeKind.NOT_SENT, fault.detail)
        return Outcome(self.kind, fault.detail, remote=self.remote)


class _AccountSlots:
    """One account: its queue, and the slots that process it."""

    def __init__(self, account: Account, provider: Provider[Any], rules: DeliveryPolicy, gate: Gate) -> None:
        self.account = account
        self.quoted_name = quoted(account.name)
        self.provider = provider
        self.gate = gate
        """Shared by all accounts of the provider."""
        self.is_at_gate = False
        """One of the slots waits there. Others would wait for nothing: there is one turn for each account."""
        self.limiter = _limiter(account.rate_per_s)
        self.queue: AccountQueue[AttemptSource] = AccountQueue(account.concurrency, rules)
        self.stopped: dict[AttemptSource, Operated] = {}
        """By partition: what an operator has paused the account by."""
        self.parked_slots: list[asyncio.Future[None]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def wake_slots(self, count: int = 1) -> None:
        """Makes up to `count` parked slots check the queue again."""
        while self.parked_slots and count:
            future = self.parked_slots.pop()
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
        rules: DeliveryPolicy,
        metrics: Metrics,
        fatal: Callable[[CartsyncError], None],
    ) -> None:
        gates = {name: Gate(rules.provider_concurrency) for name in providers}
        self._slots = {
            name: _AccountSlots(account, providers[account.provider], rules, gates[account.provider])
            for name, account in accounts.items()
        }
        self._sender = sender
        self._clock = clock
        self._deadline_s = rules.attempt_deadline_s
        self._metrics = metrics
        metrics.configured(accounts)
        self._fatal = fatal
        self._in_flight: dict[Attempt, tuple[AttemptSource, asyncio.Task[None]]] = {}
        self._abandoned: set[Attempt] = set()
        self._suspended = False

    # --- for partitions: ports.Dispatcher ---

    def offer(
        self,
        account: str,
        owed_since_ms: int,
        subject: str,
        source: AttemptSource,
        *,
        has_failed: bool = False,
        not_before: float = 0.0,
    ) -> None:
        slots = self._slots[account]
        now = self._clock.now()
        slots.queue.offer(subject, owed_since_ms, source, now, has_failed=has_failed, not_before=not_before)
        self._call_slot(slots)

    def withdraw(self, source: AttemptSource) -> None:
        for slots in self._slots.values():
            slots.queue.withdraw(source)

    def abandon(self, source: AttemptSource) -> None:
        for attempt, (owner, slot) in list(self._in_flight.items()):
            # Once only: a second cancellation would end the slot instead of the attempt (see `_send`).
            if owner is source and attempt not in self._abandoned:
                self._abandoned.add(attempt)
                slot.cancel()

    def pause_accounts(self, source: AttemptSource, paused: Mapping[str, Operated]) -> None:
        for name, slots in self._slots.items():
            was_stopped = bool(slots.stopped)
            if (deed := paused.get(name)) is not None:
                slots.stopped[source] = deed
            else:
                slots.stopped.pop(source, None)
            if slots.stopped and not was_stopped:
                self._metrics.account_paused(name, True)
                log.warning("account_stopped", account=name, do=f"cartsync account resume {name}")
            elif was_stopped and not slots.stopped:
                self._resumed(slots, "operator")

    def pauses(self, account: str) -> bool:
        slots = self._slots.get(account)
        return slots is not None and slots.queue.pause is not None

    def paused(self, account: str) -> str | None:
        slots = self._slots.get(account)
        if slots is None:
            return not_configured(account)
        if slots.stopped:
            deed = next(iter(slots.stopped.values()))
            return f"account {account} paused by {deed.by}{': ' if deed.why else ''}{deed.why}"
        pause = slots.queue.pause
        return None if pause is None else f"account {account} paused: {pause.reason}"

    def waits(self, account: str) -> str:
        if (slots := self._slots.get(account)) is None or (queue := slots.queue).pause is not None or slots.stopped:
            return self.paused(account) or ""
        wait_s = queue.throttled_until - self._clock.now()
        if wait_s <= 0:
            return ""
        why = "its provider is overloaded" if queue.is_slow else "its provider asked for it"
        return f"account {account} is throttled for another {wait_s:.0f} s ({why})"

    # --- for operators ---

    def resume(self, account: str) -> bool:
        """Ends a pause, but does not shorten a `Retry-After`; False: the account was not paused. Raises `KeyError` for
        an unknown account.
        """
        slots = self._slots[account]
        if not slots.queue.resume():
            return False
        self._resumed(slots, "operator")
        return True

    def reconfigure(self, accounts: Mapping[str, Account]) -> None:
        """Replaces the settings of these accounts, all of which must be known, and resumes those that are paused."""
        for name, account in accounts.items():
            self._slots[name].account = account
            self.resume(name)

    def suspend(self, suspended: bool) -> None:
        """Starts no attempts until it is called with `False`. Attempts in flight continue."""
        self._suspended = suspended
        for slots in self._slots.values():
            if not suspended:
                slots.wake_slots(slots.account.concurrency)

    def views(self) -> list[AccountView]:
        """The current state of all accounts."""
        now = self._clock.now()
        return [
            AccountView(
                name,
                slots.account.provider,
                slots.provider.guarantee,
                f"account {name} paused by an operator" if slots.stopped else _briefly(name, slots.queue.pause),
                max(0.0, slots.queue.throttled_until - now),
                len(slots.queue),
                slots.queue.in_flight,
                _probe_s(slots.queue.pause, now),
            )
            for name, slots in self._slots.items()
        ]

    def in_flight(self) -> int:
        """The number of attempts in flight."""
        return len(self._in_flight)

    async def stop(self) -> None:
        """Ends all slots. The partitions have already withdrawn their offers and abandoned their attempts."""
        tasks = [task for slots in self._slots.values() for task in slots.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- slots ---

    def _call_slot(self, slots: _AccountSlots) -> None:
        """Has another slot check the queue; the one at the gate calls the next one when it begins."""
        if slots.is_at_gate:
            return
        if slots.parked_slots:
            slots.wake_slots()
        elif len(slots.tasks) < slots.account.concurrency:
            slot = asyncio.create_task(self._slot(slots), name=f"slot {slots.account.name} {len(slots.tasks)}")
            slots.tasks.add(slot)
            slot.add_done_callback(partial(self._slot_ended, slots))

    async def _slot(self, slots: _AccountSlots) -> None:
        slot = asyncio.current_task()
        assert slot is not None
        while True:
            await self._ready(slots)
            try:
                found = await self._next(slots)
                if found is not None:
                    await self._send(slots, *found, slot)
            finally:
                slots.gate.leave()

    async def _next(self, slots: _AccountSlots) -> tuple[Turn[AttemptSource], Attempt] | None:
        """The next turn that leads to a request; a turn without one does not count against the rate limit."""
        for count in itertools.count(1):
            now = self._clock.now()
            turn = None if self._suspended or slots.stopped else slots.queue.next(now)
            if turn is None:
                break
            attempt = turn.owner.claim(turn.subject)
            if attempt is not None:  # `None`: the order has been acknowledged, parked or put on hold since the offer
                slots.queue.begin(turn, now)
                if slots.queue.opens_at(now) != NEVER:  # there is more to send, now or later: this slot has no alarm
                    self._call_slot(slots)
                return turn, attempt
            if count % _CLAIMS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        return None

    async def _ready(self, slots: _AccountSlots) -> None:
        """Returns when the queue has a turn, and the account's limits and the gate permit sending it now: the slot has
        entered the gate then. Where it had to wait there, the turn may be over.
        """
        while True:
            if not self._is_open(slots):
                await self._park(slots)
                continue
            if slots.limiter is not None:
                await slots.limiter.acquire()
                if not self._is_open(slots):  # another slot may have taken the turn while we waited
                    continue
            if not slots.gate.enter_now():
                slots.is_at_gate = True
                try:
                    await slots.gate.enter()
                finally:
                    slots.is_at_gate = False
            return

    def _is_open(self, slots: _AccountSlots) -> bool:
        now = self._clock.now()
        return self._opens_at(slots, now) <= now

    def _opens_at(self, slots: _AccountSlots, now: float) -> float:
        """As `AccountQueue.opens_at`, whatever keeps the account from it."""
        return NEVER if self._suspended or slots.stopped or slots.is_at_gate else slots.queue.opens_at(now)

    async def _park(self, slots: _AccountSlots) -> None:
        """Parks the slot until it is woken by an offer, by an operator, or when the account may send again."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        slots.parked_slots.append(future)
        alarm = None
        now = self._clock.now()
        opens_at = self._opens_at(slots, now)
        if opens_at != NEVER:
            alarm = loop.call_later(opens_at - now, slots.wake_slots)
        try:
            await future
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _send(
        self, slots: _AccountSlots, turn: Turn[AttemptSource], attempt: Attempt, slot: asyncio.Task[None]
    ) -> None:
        """Makes one attempt:

        1. takes the turn, and determines the outcome, whatever happens;
        2. applies the outcome to the account: limits, pause, throttling;
        3. reports it to the partition, exactly once.
        """
        self._in_flight[attempt] = (turn.owner, slot)
        account, unanswered = slots.account, _Unanswered()
        outcome = Outcome(OutcomeKind.UNKNOWN, "the attempt ended without a response")
        try:
            outcome = await self._take_turn(slots, account, attempt, unanswered)
        except asyncio.CancelledError:
            why = "abandoned: the partition is being released"
            outcome = Outcome(unanswered.kind, why, remote=unanswered.remote)
            # `abandon` cancels the slot only to end its attempt: then it goes on. Any other cancellation ends the slot.
            if attempt not in self._abandoned or slot.uncancel() > 0:
                raise
        finally:
            self._abandoned.discard(attempt)
            del self._in_flight[attempt]
            now = self._clock.now()
            outcome = self._end(slots, turn, outcome, now, is_outdated=account is not slots.account)
            self._metrics.attempt(slots.account.name, outcome.kind.value, now - attempt.taken_at)
            turn.owner.done(attempt, outcome)

    async def _take_turn(
        self, slots: _AccountSlots, account: Account, attempt: Attempt, unanswered: _Unanswered
    ) -> Outcome:
        """Executes the adapter's steps one by one: reads, and at most one command."""
        if attempt.errand is not None:
            return await self._run_errand(slots, attempt.errand, attempt, unanswered)
        reference = reference_of(attempt.subject)
        asked = Question(
            reference,
            account,
            attempt.update,
            attempt.remote,
            attempt.may_land_late,
            attempt.remote_unknown,
            _idempotency_key(attempt, slots.quoted_name, reference),
            attempt.generation,
            attempt.trace,
            self._clock.wall_ms(),
        )
        status, provider = None, slots.provider
        for count in range(_EXCHANGES_MAX):
            step = _next_step(provider, asked, attempt, status)
            match step:
                case Exchange():
                    pass
                case AwaitResult(poll_s, why, remote, is_overdue):
                    return Outcome(OutcomeKind.PENDING, why, status, poll_s, remote=remote, is_overdue=is_overdue)
                case Settled(remote, found):
                    return Outcome(OutcomeKind.APPLIED, "", status, remote=remote, found=found)
                case Outcome():
                    return step
                case Unsendable():
                    return Outcome(OutcomeKind.UNSUPPORTED, step.reason, status, remote=step.remote, found=step.found)
            if count and slots.limiter is not None:  # `_ready` has acquired the first
                await slots.limiter.acquire()
            unanswered.sends(step)
            response = await self._exchange(slots, step.request, attempt)
            if isinstance(response, Fault):
                return unanswered.failed(response)
            result = _read_response(provider, asked, step, response, attempt)
            if not step.is_read:
                return result.outcome
            if result.outcome.kind is not OutcomeKind.APPLIED:
                return _of_read(result.outcome)
            status = response.status
            asked = replace(asked, seen=result.seen, now_ms=self._clock.wall_ms())
        return Outcome(OutcomeKind.REJECTED, f"{provider.name} was read {_EXCHANGES_MAX} times in one turn")

    async def _exchange(self, slots: _AccountSlots, request: HttpRequest, attempt: Attempt) -> HttpResponse | Fault:
        """Sends a request, unless an operator has paused the account since the turn began: it may have more than one,
        and each may wait for a connection.
        """

        def may_send() -> bool:
            return not slots.stopped and attempt.may_send()

        if not slots.stopped:
            response = await self._sender.send(request, self._deadline_s, may_send)
            if not (slots.stopped and isinstance(response, Fault) and not response.sent):
                return response
        return Fault(False, "an operator has paused the account")

    async def _run_errand(
        self, slots: _AccountSlots, errand: Errand, attempt: Attempt, unanswered: _Unanswered
    ) -> Outcome:
        """Sends the request of a job."""
        unanswered.sends(Exchange(errand.request, errand.is_read))
        response = await self._exchange(slots, errand.request, attempt)
        if isinstance(response, Fault):
            return unanswered.failed(response)
        errand.answer = response
        try:
            outcome = errand.read(response, self._clock.wall_ms())
        except Exception as error:  # noqa: BLE001 - see `_failed`
            return _failed(attempt, error, response.status, is_command=not errand.is_read)
        return _of_read(outcome) if errand.is_read else outcome

    def _end(
        self, slots: _AccountSlots, turn: Turn[AttemptSource], outcome: Outcome, now: float, *, is_outdated: bool
    ) -> Outcome:
        """Applies the outcome to the account, unless it was reconfigured meanwhile, and returns it as it affects the
        order. Logs what happens to the account.
        """
        queue, name = slots.queue, slots.account.name
        pause, throttled_until = queue.pause, queue.throttled_until
        outcome = queue.end(turn, outcome, now, self._clock.chance(), is_outdated=is_outdated)
        if queue.throttled_until > throttled_until:
            event = "account_slowed" if queue.is_slow else "account_throttled"
            wait_s = round(queue.throttled_until - now, 3)
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
            self._resumed(slots, "probe")
        elif queue.pause is not None and queue.pause is turn.probes:
            probe_s = _probe_s(queue.pause, now)
            log.warning("account_probed", account=name, order=turn.subject, status=outcome.status, probe_s=probe_s)
        return outcome

    def _resumed(self, slots: _AccountSlots, by: Literal["operator", "probe"]) -> None:
        self._metrics.account_paused(slots.account.name, bool(slots.stopped or slots.queue.pause))
        log.info("account_resumed", account=slots.account.name, by=by)
        slots.wake_slots(slots.account.concurrency)

    def _slot_ended(self, slots: _AccountSlots, slot: asyncio.Task[None]) -> None:
        slots.tasks.discard(slot)
        if not slot.cancelled() and slot.exception() is not None:
            error = slot.exception()
            self._fatal(InvariantError(f"a slot of account {slots.account.name} failed: {type(error).__name__}"))
            log.critical("slot_failed", account=slots.account.name, exc_info=error)


def _briefly(account: str, pause: Pause | None) -> str | None:
    """Why the account sends nothing, without the provider's words: shown to clients that may not see orders."""
    if pause is None:
        return None
    why = "its credentials were rejected" if pause.cause == "credentials" else "too many orders were rejected for good"
    return f"account {account} paused: {why} ({pause.status})"


def _probe_s(pause: Pause | None, now: float) -> float | None:
    """Seconds until the next probe; `None`: no probe is scheduled."""
    return None if pause is None or pause.probe_at == NEVER else round(max(0.0, pause.probe_at - now), 3)
