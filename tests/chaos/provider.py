"""The provider: a sandbox with faults and a witness, in a process of its own so that its load is its own.

    python -m tests.chaos.provider '{"orders": 500, "seed": 1, "log_file": "provider.jsonl"}'

Each worker has a user's name of its own, so that its log can say who sent what. It takes questions on its standard
input, one JSON line each. It ends with its input.
"""

import asyncio
import signal
import sys
from base64 import b64decode, b64encode
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import uvloop
from aiohttp import web
from msgspec import Struct

from tests.chaos.witness import Report, Witness
from tests.shops.stream import ACCOUNTS, HOSTILE_ACCOUNT
from worker.sandbox.attempts import Answer, Attempt, Call
from worker.sandbox.faults import FaultPlan
from worker.sandbox.sequra.orders import Orders
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.sandbox.server import Key

PASSWORD = "a-password-of-both"
ROOT = Path(__file__).parents[2]
_ANSWER_S = 30.0
_LOG_LIMIT = 1_000
"""In memory; all of it is in the file."""
_BEAT_S = 0.1
_CHECKOUT_MINOR = 10**9

_slot: ContextVar[int] = ContextVar("slot", default=-1)


class Setting(Struct, frozen=True):
    """How it is to be."""

    orders: int
    seed: int
    log_file: str


class Question(Struct, frozen=True, omit_defaults=True):
    """What is asked of it; the answer is always a `Report`."""

    plan: str | None = None
    """Faults from now on."""
    wanted: str | None = None
    """The file that says what must be held."""


class _WitnessedOrders(Orders):
    def __init__(self, witness: Witness) -> None:
        credentials = {account: (account, PASSWORD) for account in (*ACCOUNTS, HOSTILE_ACCOUNT)}
        super().__init__(credentials, None, validate=True)
        self._witness = witness

    def take(self, attempt: Attempt, key: tuple[str, str], authorization: str, body: bytes, now: Any) -> Answer:
        # Without a total from the checkout, growth would be measured against the first update, and an older one that
        # comes after it be refused. It has to be applied, and seen.
        self.register(key, _CHECKOUT_MINOR)
        answer = super().take(attempt, key, _parted(authorization)[0], body, now)
        if attempt.merchant == HOSTILE_ACCOUNT:
            return answer
        if attempt.applied:
            self._witness.applied(_slot.get(), attempt, key, body)
        elif answer.status >= 400:
            self._witness.oddities[f"refused for what it says: {answer.status} {answer.body.decode()[:200]}"] += 1
        return answer


class _Provider(SequraSandbox):
    """The sandbox, and who sent what by the user's name."""

    def __init__(self, setting: Setting) -> None:
        super().__init__({}, seed=setting.seed, log_limit=_LOG_LIMIT)
        self.witness = Witness(setting.orders, Path(setting.log_file))
        self.late_max_s = 0.0
        self._orders = _WitnessedOrders(self.witness)
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
            self.witness.ended(_slot.get(), attempt, None if answer is None else answer.status)
        return answer

    async def beat(self) -> None:
        """Measures how late this process is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _BEAT_S
            await asyncio.sleep(_BEAT_S)
            self.late_max_s = max(self.late_max_s, loop.time() - due)

    def answer(self, question: Question) -> Report:
        """Does what is asked, and says how things are."""
        if question.plan is not None:
            self.faults.plan = FaultPlan.parse(question.plan)
        if question.wanted is not None:
            self.witness.want(Path(question.wanted))
        report = self.witness.report()
        report.attempts = self.attempt_count
        report.faults = dict(self.fault_counts)
        report.statuses = {str(status): count for status, count in sorted(self.status_counts.items())}
        report.late_max_s = self.late_max_s
        return report


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
    provider = _Provider(setting)
    with provider.witness:
        _say(await provider.start())
        beat = asyncio.create_task(provider.beat())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            _say(provider.answer(msgspec.json.decode(line, type=Question)))
        beat.cancel()
        await provider.stop()


def _say(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


class Provider:
    """The conductor's side; an asynchronous context manager."""

    def __init__(self, setting: Setting) -> None:
        self.url = ""
        """The same for all: who tells another one than before needs an operator's word."""
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
            limit=2**24,
        )
        self.url = msgspec.json.decode(await self._line(), type=str)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.returncode is None:
            self._child.kill()
        await self._child.wait()

    async def ask(self, question: Question | None = None) -> Report:
        """Sets what the question says, and returns how things are."""
        assert self._child.stdin is not None
        async with self._asking:
            self._child.stdin.write(msgspec.json.encode(question or Question()) + b"\n")
            return msgspec.json.decode(await self._line(), type=Report)

    async def _line(self) -> bytes:
        assert self._child.stdout is not None
        async with asyncio.timeout(_ANSWER_S):
            line = await self._child.stdout.readline()
        if not line:
            raise RuntimeError("the provider has ended")
        return line


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the conductor, who ends us
    uvloop.run(_serve(msgspec.json.decode(sys.argv[1], type=Setting)))
