"""A scripted provider at the `Sender` port: nothing leaves the process, and time may be virtual.

It responds from queues, simulates network faults, records every attempt, and stores the last update of each order, like
a provider that accepts any request at any time (`PROTOCOL.md` section 0). If an account has a `Model`, it responds when
the queues are empty, and receives the requests that a fault lets through.
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
"""Longer response bodies are truncated, as by the real sender."""

FaultName = Literal["timeout_applied", "timeout_lost", "reset_applied", "reset_lost", "refused"]


class Answer(Struct, frozen=True):
    """A scripted response, or a fault on the way."""

    status: int = 204
    headers: Mapping[str, str] = {}
    body: bytes = b""
    fault: FaultName | None = None
    """Instead of a response. `…_applied`: the provider applies the request, and its response is lost."""
    applied_after_s: float = 0.0
    """With a fault: how long after sending the provider applies the request."""
    times: int | None = 1
    """For how many requests in a row it is used; `None`: for all from now on."""
    method: str | None = None
    """Only for requests with this method; others go to the next queue."""
    applied: bool | None = None
    """Whether the provider applies the request; `None`: if the status is 2xx and there is no model."""


class RemoteCarts(Struct, frozen=True):
    """The totals of an order at the provider, as of the last update that it applied."""

    shipped_minor: int
    unshipped_minor: int


class Exchange(Struct, frozen=True):
    """One attempt, as visible to the provider."""

    method: str
    url: str
    headers: dict[str, str]
    body: Any
    """The JSON value, or the text if it is not JSON; `None` without a body."""
    carts: RemoteCarts | None
    """The carts in it; `None`: it is not an update."""
    at: float
    """When it was sent (*now*)."""


class Address(Struct, frozen=True):
    """The order that a request is about."""

    account: str | None
    """The account's name, if there is one with this base URL and merchant."""
    reference: str

    def answers_to(self, name: str) -> bool:
        """Whether `name` is the order's reference, or `account/reference`."""
        return name in (self.reference, f"{self.account}/{self.reference}")


class Model(Protocol):
    """A model of one account at a provider, with the state of its orders."""

    def takes(self, request: HttpRequest) -> bool:
        """Whether a request is for this account."""
        ...

    def order_of(self, request: HttpRequest) -> str | None:
        """The reference of the known order that a request is about."""
        ...

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Executes a request. Never raises."""
        ...


class ScriptedProvider:
    """`ports.Sender` with a script instead of a network. Shared by all accounts; outlives the workers that use it."""

    def __init__(self, accounts: Mapping[str, Account], clock: Clock) -> None:
        self.exchanges: list[Exchange] = []
        """All attempts so far, in the order of sending."""
        self.models: dict[str, Model] = {}
        """By account."""
        self._accounts = accounts
        self._clock = clock
        self._answers = _Queue(())
        self._answers_for: dict[str, _Queue] = {}
        self._held: dict[Address, RemoteCarts | None] = {}

    def answer(self, answers: Iterable[Answer]) -> None:
        """Replaces the queue for all orders. An empty queue responds 204."""
        self._answers = _Queue(answers)

    def answer_for(self, name: str, answers: Iterable[Answer]) -> None:
        """Replaces the queue of one order, named by reference or `account/reference`; it takes precedence."""
        self._answers_for[name] = _Queue(answers)

    def held(self, name: str) -> RemoteCarts | None:
        """The carts at the provider of the order with this reference, or `account/reference`; `None`: never updated.

        Raises `ValueError` if orders of several accounts have the reference.
        """
        found = [address for address in self._held if address.answers_to(name)]
        exact = [address for address in found if name == f"{address.account}/{address.reference}"]
        if len(exact or found) > 1:
            raise ValueError(f"several accounts have an order {name}: use account/reference")
        return self._held[(exact or found)[0]] if found else None

    # --- ports.Sender ---

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """A request that the provider has applied stays applied if this is cancelled."""
        if not may_send():
            return Fault(False, "the partition's lease expired before the request was sent")
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
                return Fault(True, f"no response within {deadline_s:g} s")
            case "reset_applied" | "reset_lost":
                return Fault(True, "ClientOSError")
            case "refused":
                return Fault(False, "no connection: Connection refused")

    async def close(self) -> None:
        """Does nothing: the provider outlives its clients."""

    # --- inside ---

    def _place(self, request: HttpRequest) -> tuple[Address | None, Model | None]:
        """The order that a request is about, and the model that responds."""
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
        """Applies the request if it arrives. With a model, a scripted response replaces the model's."""
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
    """Scripted responses with their repeat counts."""

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
    """The order in the URL; `None` for any other URL."""
    match = _SEQURA_ORDER.fullmatch(request.url)
    if match is None:
        return None
    fitting = [
        name
        for name, account in accounts.items()
        if account.base_url.rstrip("/") == match["base"] and quote(account.merchant, safe="") == match["merchant"]
    ]
    if len(fitting) > 1:  # two accounts may share a merchant: then only the key distinguishes them
        named = unquote(request.headers.get("Idempotency-Key", "")).partition("/")[0]
        fitting = [name for name in fitting if name == named]
    return Address(fitting[0] if fitting else None, unquote(match["reference"]))


def _carts(body: Any) -> RemoteCarts | None:
    """The totals of an order update; `None` for any other body."""
    try:
        order = body["order"]
        return RemoteCarts(
            order["shipped_cart"]["order_total_with_tax"], order["unshipped_cart"]["order_total_with_tax"]
        )
    except (TypeError, KeyError, IndexError):
        return None
