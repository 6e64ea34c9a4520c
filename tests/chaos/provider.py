"""The providers: three sandboxes with faults and recorders, in a process of their own so that their load is their own.

    python -m tests.chaos.provider '{"orders": 500, "others": 100, …}'

At seQura each worker has a user's name of its own, so that its log can say who sent what. The process answers questions
on its standard input, one JSON line each, and ends with its input.
"""

import asyncio
import signal
import sys
import time
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import uvloop
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from tests.chaos.merchants import AtaraPayShop, QliroShop, Recorded, plot_of
from tests.chaos.processes import ROOT
from tests.chaos.recorder import MerchantReport, Recorder, Report
from tests.shops.stream import ACCOUNTS, HOSTILE_ACCOUNT, begins_at, subject_of
from worker.core.tokens import Address, Tokens
from worker.publisher.sender import HttpSender
from worker.sandbox.attempts import Answer, Attempt, Call
from worker.sandbox.faults import FaultPlan
from worker.sandbox.pushes import Push, Send
from worker.sandbox.sequra.orders import Orders
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.sandbox.server import Key
from worker.tools.demo.merchants import CALLBACK_SECRET, HATS
from worker.tools.sandbox_server import PUSH_DEADLINE_S, pusher

PASSWORD = "a-password-of-both"
HASTE = 4.0
"""By how much pushes come again sooner than documented."""
PUSH_FAULTS = "push_late=0.15:3s,push_doubled=0.15,push_lost=0.05"
RESULT_FAULTS = "result_late=0.05:3s,result_error=0.01"
"""Of Qliro's commands, after they were answered."""
_ANSWER_S = 30.0
_LOG_LIMIT = 1_000
"""In memory; all of it is in the file."""
_BEAT_S = 0.1
_ACT_EVERY_S = 1.0
_AHEAD_S = 0.5
"""How long before the shop's first event its order is paid for."""
_CHECKOUT_MINOR = 10**9
_WITH_WEBHOOK = 5
"""One of so many of seQura's orders is told about by webhook."""
_PUBLIC = "http://receivers.example"

_slot: ContextVar[int] = ContextVar("slot", default=-1)


class Setting(Struct, frozen=True):
    """How they are to be."""

    orders: int
    """At seQura."""
    others: int
    """At Qliro, and as many at AtaraPay."""
    seconds: float
    seed: int
    folder: str
    receivers: list[str]
    """Base URLs."""


class Urls(Struct, frozen=True):
    """Where the providers are, by what stands in an account's `provider`."""

    sequra: str
    qliro: str
    atarapay: str


class Question(Struct, frozen=True, omit_defaults=True):
    """What is asked of them; the answer is always a `Report`."""

    plan: str | None = None
    """Faults from now on, as seQura has them; empty: none."""
    expected: str | None = None
    """The file that says what seQura must hold."""
    began_at: float | None = None
    """The shops open: seconds since 1970."""
    compare: bool = False
    """Whether the orders of the others are compared with their shops' counts; it takes a while."""


def plan_for(provider: str, plan: str) -> FaultPlan:
    """A plan as this provider can follow it: 409 means something else elsewhere, and each calls back."""
    if not plan:
        return FaultPlan()
    entries = [entry for entry in plan.split(",") if provider == "sequra" or not entry.startswith("409=")]
    return FaultPlan.parse(",".join([*entries, PUSH_FAULTS, *([RESULT_FAULTS] if provider == "qliro" else [])]))


class Balancer:
    """What stands in front of the receivers: calls go to them in turn, and to the other one when one fails."""

    def __init__(self, send: Send, receivers: Sequence[str]) -> None:
        self.taken: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        """By merchant and order, as pushes name them: what was taken."""
        self._send = send
        self._receivers = receivers
        self._turn = 0

    async def send(self, push: Push) -> tuple[int, bytes] | None:
        """`pushes.Send`."""
        self._turn += 1
        answer: tuple[int, bytes] | None = None
        for number in range(len(self._receivers)):
            base_url = self._receivers[(self._turn + number) % len(self._receivers)]
            answer = await self._send(replace(push, url=base_url + push.url.removeprefix(_PUBLIC)))
            if answer is not None and answer[0] < 500:
                if answer[0] == 200:
                    self.taken[push.merchant, push.order_ref][push.what] += 1
                return answer
        return answer


class _RecordedOrders(Orders):
    def __init__(self, recorder: Recorder) -> None:
        credentials = {account: (account, PASSWORD) for account in (*ACCOUNTS, HOSTILE_ACCOUNT)}
        super().__init__(credentials, None, validate=True)
        self._recorder = recorder

    def take(self, attempt: Attempt, key: tuple[str, str], authorization: str, body: bytes, now: Any) -> Answer:
        # Without a total from the checkout, growth would be measured against the first update, and an older one that
        # comes after it be refused. It has to be applied, and seen.
        self.register(key, _CHECKOUT_MINOR)
        answer = super().take(attempt, key, _parted(authorization)[0], body, now)
        if attempt.merchant == HOSTILE_ACCOUNT:
            return answer
        if attempt.applied:
            self._recorder.applied(_slot.get(), attempt, key, body)
        elif answer.status >= 400:
            self._recorder.oddities[f"refused for what it says: {answer.status} {answer.body.decode()[:200]}"] += 1
        return answer


class _Sequra(SequraSandbox):
    """The sandbox, and who sent what by the user's name."""

    def __init__(self, setting: Setting, send: Send) -> None:
        super().__init__({}, seed=setting.seed, log_limit=_LOG_LIMIT, send=send, haste=HASTE)
        self.recorder = Recorder(setting.orders, Path(setting.folder) / "provider.jsonl")
        self._orders = _RecordedOrders(self.recorder)
        self.held = self._orders.held

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers one request, and remembers whose it is."""
        _slot.set(_parted(request.headers.get("Authorization", ""))[1])
        return await super().handle(request)

    async def _answer(self, attempt: Attempt, key: Key | None, call: Call) -> Answer | None:
        answer: Answer | None = None
        try:
            answer = await super()._answer(attempt, key, call)
        finally:
            attempt.ended_at = self._wall()
            self.recorder.ended(_slot.get(), attempt, None if answer is None else answer.status)
        return answer


class _Providers:
    """All of them."""

    def __init__(self, setting: Setting, sender: HttpSender) -> None:
        self._setting = setting
        self._balancer = Balancer(pusher(sender), setting.receivers)
        self.sequra = _Sequra(setting, self._balancer.send)
        plot = plot_of(setting.others, setting.seconds, setting.seed, datetime.now(UTC))
        self._began_at = plot.began_at.timestamp()
        self.merchants: list[Recorded] = [QliroShop(plot, self._balancer.send), AtaraPayShop(plot, self._balancer.send)]
        self.late_max_s = 0.0
        self._redelivered: list[tuple[str, bytes]] = []
        self._tasks: list[asyncio.Task[None]] = []
        for merchant in self.merchants:
            merchant.taken = self._balancer.taken
            merchant.sandbox.record_to(Path(setting.folder) / f"{merchant.account.provider}.jsonl")

    async def start(self) -> Urls:
        """Begins to serve."""
        self._tasks.append(asyncio.create_task(self._beat(), name="beat"))
        for merchant in self.merchants:
            await merchant.open(_PUBLIC)
        qliro, atarapay = (merchant.account.base_url for merchant in self.merchants)
        return Urls(await self.sequra.start(), qliro, atarapay)

    async def stop(self) -> None:
        """Ends it all."""
        for task in self._tasks:
            task.cancel()
        for sandbox in (self.sequra, *(merchant.sandbox for merchant in self.merchants)):
            await sandbox.stop()

    async def _beat(self) -> None:
        """Measures how late this process is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _BEAT_S
            await asyncio.sleep(_BEAT_S)
            self.late_max_s = max(self.late_max_s, loop.time() - due)

    # --- what happens at the providers ---

    async def _sell(self, began_at: float) -> None:
        """Every order is paid for shortly before the shop says so."""
        due: list[tuple[float, Any]] = [
            (order.steps[0][0], (merchant.place, order))
            for merchant in self.merchants
            for order in merchant.history.orders.values()
        ]
        due += [
            (begins_at(number, self._setting.orders, self._setting.seconds), (self._announce, number))
            for number in range(0, self._setting.orders, _WITH_WEBHOOK)
        ]
        for at_s, (do, what) in sorted(due, key=lambda one: one[0]):
            if (wait_s := began_at + at_s - _AHEAD_S - time.time()) > 0:
                await asyncio.sleep(wait_s)
            do(what)

    def _announce(self, number: int) -> None:
        """The payment of an order at seQura is looked into, and approved."""
        subject = subject_of(number)
        account, _, reference = subject.partition("/")
        token = Tokens([CALLBACK_SECRET]).token(account, "webhook", reference)
        named = {"merchant": account, "order_ref": reference}
        webhook = _PUBLIC + Address(account, "webhook", token, reference).path()
        self.sequra.checkout(msgspec.json.encode(named | {"webhook": webhook}))
        self.sequra.act(msgspec.json.encode(named | {"event": "needs_review"}))
        approved = msgspec.json.encode(named | {"event": "approved"})
        self.sequra.call_later(2.0, lambda: self.sequra.act(approved))

    async def _act(self) -> None:
        """What buyers do as soon as they can, and the deliveries by which the shop answers."""
        while True:
            await asyncio.sleep(_ACT_EVERY_S)
            for merchant in self.merchants:
                for event in merchant.happen(time.time() - self._began_at):
                    self._redelivered.append((event.subject, event.value))

    # --- what is asked of them ---

    def answer(self, question: Question) -> Report:
        """Does what is asked, and says how things are."""
        if question.plan is not None:
            self.sequra.faults.replace_plan(plan_for("sequra", question.plan))
            for merchant in self.merchants:
                merchant.sandbox.faults.replace_plan(plan_for(merchant.account.provider, question.plan))
        if question.expected is not None:
            self.sequra.recorder.expect(Path(question.expected))
        if question.began_at is not None:
            self._tasks.append(asyncio.create_task(self._sell(question.began_at), name="sell"))
            self._tasks.append(asyncio.create_task(self._act(), name="act"))
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        report = self.sequra.recorder.report()
        report.attempts = self.sequra.attempt_count
        report.faults = dict(self.sequra.fault_counts)
        report.statuses = {str(status): count for status, count in sorted(self.sequra.status_counts.items())}
        report.late_max_s = self.late_max_s
        report.pushes = dict(self.sequra.pushes.counts.items())
        report.merchants = [self._merchant(merchant, compare=question.compare) for merchant in self.merchants]
        report.redelivered, self._redelivered = self._redelivered, []
        if question.compare:
            report.taken = self._taken()
        return report

    def _taken(self) -> dict[str, list[str]]:
        """By subject, what the receivers have taken of callbacks."""
        qliro, atarapay = self.merchants
        found: dict[str, list[str]] = {}
        for (merchant, order_ref), whats in self._balancer.taken.items():
            if merchant in ACCOUNTS:
                subject = f"{merchant}/{order_ref}"
            else:
                subject = (qliro if merchant == HATS.api_key else atarapay).subject_of(order_ref)
            found[subject] = list(whats)
        return found

    @staticmethod
    def _merchant(merchant: Recorded, *, compare: bool) -> MerchantReport:
        merchant.sandbox.flush_record()
        disagreeing = merchant.disagreeing() if compare else None
        return MerchantReport(
            account=merchant.name,
            orders=len(merchant.history.orders),
            attempts=merchant.sandbox.attempt_count,
            faults=dict(merchant.sandbox.fault_counts),
            pushes=dict(merchant.sandbox.pushes.counts.items()),
            differing=-1 if disagreeing is None else len(disagreeing),
            differences=[
                f"{order.subject}: expected {merchant.wanted(order)}, held {merchant.held(order)}, still to happen "
                f"{order.acts}"
                for order in (disagreeing or [])[:20]
            ],
            violations=[f"{text} ({count} ×)" for text, count in merchant.violations.most_common(20)]
            + merchant.breaches(),
        )


def user_of(account: str, slot: int) -> str:
    """What the worker in a slot calls itself."""
    return f"{account}.{slot}"


def _parted(authorization: str) -> tuple[str, int]:
    """Without the slot, as if all workers had one name; and the slot, −1 when there is none."""
    scheme, _, token = authorization.partition(" ")
    user, _, password = b64decode(token).decode().partition(":")
    account, _, slot = user.partition(".")
    token = b64encode(f"{account}:{password}".encode()).decode()
    return f"{scheme} {token}", int(slot) if slot.isdecimal() else -1


async def _serve(setting: Setting) -> None:
    sender = HttpSender(deadline_s=PUSH_DEADLINE_S, user_agent="chaos-providers")
    providers = _Providers(setting, sender)
    with providers.sequra.recorder:
        _say(await providers.start())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            _say(providers.answer(msgspec.json.decode(line, type=Question)))
        await providers.stop()
        await sender.close()


def _say(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


class Providers:
    """The run's side of that process; an asynchronous context manager."""

    def __init__(self, setting: Setting) -> None:
        self.urls: Urls
        """The same for all workers: one that is configured with another URL than before needs an operator's word."""
        self.redelivered: list[tuple[str, bytes]] = []
        """Events (subject and value) that shops have to write, as an answer to what happened at a provider."""
        self._setting = setting
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "tests.chaos.provider", msgspec.json.encode(self._setting).decode()],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=2**26,
        )
        self.urls = msgspec.json.decode(await self._line(), type=Urls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.returncode is None:
            self._child.kill()
        await self._child.wait()

    async def ask(self, question: Question | None = None) -> Report:
        """Sets what the question says, and returns how things are."""
        # Who asks may be cancelled, but the answer comes all the same: left unread, it would be taken for the next one's.
        self._exchange = asyncio.create_task(self._answered(question), name="ask")
        return await asyncio.shield(self._exchange)

    async def _answered(self, question: Question | None) -> Report:
        assert self._child.stdin is not None
        async with self._asking:
            self._child.stdin.write(msgspec.json.encode(question or Question()) + b"\n")
            report = msgspec.json.decode(await self._line(), type=Report)
        self.redelivered += report.redelivered
        return report

    async def _line(self) -> bytes:
        assert self._child.stdout is not None
        async with asyncio.timeout(_ANSWER_S):
            line = await self._child.stdout.readline()
        if not line:
            raise RuntimeError("the providers' process has ended")
        return line


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the run, which ends us
    uvloop.run(_serve(msgspec.json.decode(sys.argv[1], type=Setting)))
