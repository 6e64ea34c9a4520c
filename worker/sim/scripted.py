"""A provider that does what a script says, at the `Sender` port: nothing leaves the process, time may be virtual.

It answers from queues, plays the faults of a network, remembers every attempt, and holds for each order what it was
last told, as a provider that takes any request at any time would (`PROTOCOL.md` section 0). Where an account has a
`Model`, that answers what the queues do not, and takes what a fault lets through.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, Protocol
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.ports import Clock

BODY_MAX_BYTES = 64 * 1024
"""Answers are cut here, as the real sender cuts them."""

FaultName = Literal["timeout_applied", "timeout_lost", "reset_applied", "reset_lost", "refused"]


class Answer(Struct, frozen=True):
    """What the provider does with a request: it answers, or something fails on the way."""

    status: int = 204
    headers: Mapping[str, str] = {}
    body: bytes = b""
    fault: FaultName | None = None
    """Instead of the answer. `…_applied`: the provider takes the request and its answer is lost."""
    applied_after_s: float = 0.0
    """How long after the sending the provider takes it, with a fault."""
    times: int | None = 1
    """How many requests in a row get it; `None`: all from now on."""
    method: str | None = None
    """It waits for requests of this method; what others get is up to the next queue."""
    applied: bool | None = None
    """Whether the provider takes a request that it answers so; `None`: with 2xx, where there is no model."""


class RemoteCarts(Struct, frozen=True):
    """What a provider is told, and then holds, of an order."""

    shipped_minor: int
    unshipped_minor: int


class Exchange(Struct, frozen=True):
    """One attempt, as the provider could see it."""

    method: str
    url: str
    headers: dict[str, str]
    body: Any
    """The JSON value; the text when it is none; `None` without a body."""
    carts: RemoteCarts | None
    """What it tells; `None`: it is no update."""
    at: float
    """*now* of the sending, in seconds."""


class Address(Struct, frozen=True):
    """The order that a request speaks of."""

    account: str | None
    """The name of the account, if there is one with this base URL and merchant."""
    reference: str

    def answers_to(self, name: str) -> bool:
        """Whether `name` is the order's reference, or `account/reference`."""
        return name in (self.reference, f"{self.account}/{self.reference}")


class Model(Protocol):
    """A provider's side of one account, which remembers what it was told."""

    def takes(self, request: HttpRequest) -> bool:
        """Whether it is what a request is for."""
        ...

    def order_of(self, request: HttpRequest) -> str | None:
        """The reference of the order, of those that it holds, that a request speaks of."""
        ...

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Does what it is told. Never raises."""
        ...


class ScriptedProvider:
    """`ports.Sender` with a script instead of a network. One for all accounts; outlives the workers that use it."""

    def __init__(self, accounts: Mapping[str, Account], clock: Clock) -> None:
        self.exchanges: list[Exchange] = []
        """Every attempt so far, in the order of sending."""
        self.models: dict[str, Model] = {}
        """By account."""
        self._accounts = accounts
        self._clock = clock
        self._answers = _Queue(())
        self._answers_for: dict[str, _Queue] = {}
        self._held: dict[Address, RemoteCarts | None] = {}

    def answer(self, answers: Iterable[Answer]) -> None:
        """Replaces the queue for all orders. When a queue is empty: 204."""
        self._answers = _Queue(answers)

    def answer_for(self, name: str, answers: Iterable[Answer]) -> None:
        """Replaces the queue of one order, named by its reference or `account/reference`; it comes before the other."""
        self._answers_for[name] = _Queue(answers)

    def held(self, name: str) -> RemoteCarts | None:
        """What is held for the order with this reference, or `account/reference`; `None`: it was never updated.

        Raises `ValueError` when orders of several accounts have the reference.
        """
        found = [address for address in self._held if address.answers_to(name)]
        exact = [address for address in found if name == f"{address.account}/{address.reference}"]
        if len(exact or found) > 1:
            raise ValueError(f"{name} is an order of several accounts: write account/reference")
        return self._held[(exact or found)[0]] if found else None

    # --- ports.Sender ---

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """One attempt, as the script has it. What the provider takes stays taken when this is cancelled."""
        if not may_send():
            return Fault(False, "the lease of the partition ran out before the request went out")
        body = _json(request.body)
        carts = _carts(body)
        self.exchanges.append(
            Exchange(request.method, request.url, dict(request.headers), body, carts, self._clock.now())
        )
        address, model = self._place(request)
        answer = self._next(address, request.method)
        if answer is None and model is not None:
            answer = _scripted(model.answer(request))
        else:
            answer = answer or Answer()
            self._take(address, model, request, carts, answer)
        await asyncio.sleep(0)
        match answer.fault:
            case None:
                return HttpResponse(
                    answer.status,
                    {name.lower(): value for name, value in answer.headers.items()},
                    answer.body[:BODY_MAX_BYTES],
                )
            case "timeout_applied" | "timeout_lost":
                await asyncio.sleep(deadline_s)
                return Fault(True, f"no answer within {deadline_s:g} s")
            case "reset_applied" | "reset_lost":
                return Fault(True, "ClientOSError")
            case "refused":
                return Fault(False, "no connection: Connection refused")

    async def close(self) -> None:
        """Nothing to close: the provider outlives its clients."""

    # --- inside ---

    def _place(self, request: HttpRequest) -> tuple[Address | None, Model | None]:
        """The order that a request speaks of, and who answers it."""
        fitting = [(name, model) for name, model in self.models.items() if model.takes(request)]
        for name, model in fitting:
            if (reference := model.order_of(request)) is not None:
                return Address(name, reference), model
        return _address(request, self._accounts), fitting[0][1] if fitting else None

    def _next(self, address: Address | None, method: str) -> Answer | None:
        queues = [self._answers]
        if address is not None:
            names = (f"{address.account}/{address.reference}", address.reference)
            queues[:0] = [self._answers_for[name] for name in names if name in self._answers_for]
        for queue in queues:
            answer = queue.pop(method)
            if answer is not None:
                return answer
        return None

    def _take(
        self,
        address: Address | None,
        model: Model | None,
        request: HttpRequest,
        carts: RemoteCarts | None,
        answer: Answer,
    ) -> None:
        """What was sent arrives, or does not; where there is a model, an answer of the script's stands for its own."""
        is_applied = answer.applied
        if answer.fault:
            is_applied = answer.fault.endswith("_applied")
        elif is_applied is None:
            is_applied = model is None and answer.status // 100 == 2
        if not is_applied:
            return
        take: Callable[[], object]
        if model is not None:
            take = partial(model.answer, request)
        elif address is not None:
            take = partial(self._held.__setitem__, address, carts)
        else:
            return
        if answer.applied_after_s > 0:
            asyncio.get_running_loop().call_later(answer.applied_after_s, take)
        else:
            take()


def _scripted(response: HttpResponse) -> Answer:
    return Answer(response.status, response.headers, response.body)


class _Queue:
    """Answers, each so many times."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._left: deque[tuple[Answer, int | None]] = deque((answer, answer.times) for answer in answers)

    def pop(self, method: str) -> Answer | None:
        if not self._left or self._left[0][0].method not in (None, method):
            return None
        answer, times = self._left.popleft()
        if times is None:
            self._left.appendleft((answer, None))
        elif times > 1:
            self._left.appendleft((answer, times - 1))
        return answer


def _json(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")


_SEQURA_ORDER = re.compile(r"(?P<base>.*)/merchants/(?P<merchant>[^/]+)/orders/(?P<reference>[^/?#]+)")


def _address(request: HttpRequest, accounts: Mapping[str, Account]) -> Address | None:
    """The order that the URL names; `None` for a URL of another shape."""
    match = _SEQURA_ORDER.fullmatch(request.url)
    if match is None:
        return None
    fitting = [
        name
        for name, account in accounts.items()
        if account.base_url.rstrip("/") == match["base"] and quote(account.merchant, safe="") == match["merchant"]
    ]
    if len(fitting) > 1:  # two of our accounts may be one merchant: then only the key tells them apart
        named = unquote(request.headers.get("Idempotency-Key", "")).partition("/")[0]
        fitting = [name for name in fitting if name == named]
    return Address(fitting[0] if fitting else None, unquote(match["reference"]))


def _carts(body: Any) -> RemoteCarts | None:
    """The totals of an order update; `None` for a body of another shape."""
    try:
        order = body["order"]
        return RemoteCarts(
            order["shipped_cart"]["order_total_with_tax"], order["unshipped_cart"]["order_total_with_tax"]
        )
    except (TypeError, KeyError, IndexError):
        return None
