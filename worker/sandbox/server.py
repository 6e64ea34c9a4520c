"""A sandbox provider: over real HTTP it answers as the provider does, and misbehaves when told to.

Only for local trying-out: `cartsync sandbox`, the demo, integration and chaos tests, benchmarks. All but the
provider's own requests is open to whoever reaches the port, and what it holds may be personal data: bind it to
loopback.

    GET  /                                          a page
    GET  /orders, /orders/{merchant}/{order_ref}    what is held, as JSON (`?limit=N`, newest orders first)
    GET  /log?after=N                               attempts numbered above N as JSON, oldest first
    POST /faults                                    a new plan: as text, as a form with `plan`, or
                                                    `FaultsChange` as JSON
    POST /checkout                                  an order is paid for: the provider's own JSON (its module says it)
    POST /acts                                      something happens at the provider: likewise
    POST /questions                                 it asks the shop, and says what it was answered: likewise

What is right and wrong about a request, and what is held, stands in the provider's folder; what goes wrong on the way
in `faults`.
"""

import asyncio
import re
import socket
import struct
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice, takewhile
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from worker import http_url, is_cross_site
from worker.errors import UsageError
from worker.sandbox.attempts import JSON, Answer, Asked, Attempt, Call
from worker.sandbox.faults import SILENCE_MAX_S, Fault, FaultPlan, Faults, parse_fault
from worker.sandbox.page import page
from worker.sandbox.pushes import Pushes, Send

BODY_MAX_BYTES = 16 * 1024**2
"""Ours, no provider documents one; room for some 50 000 items."""

LOG_LIMIT = 100_000
SHOWN_MAX = 1_000
"""Orders or attempts in one JSON answer."""

PAGE_ROWS = 100
STOP_S = 0.05
"""How long `Sandbox.stop` waits for answers on their way before it drops what is held back."""

Key = tuple[str, str]
"""Merchant and order reference, as faults and page know an order."""

_SECURITY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_LINGER_0_S = struct.pack("ii", 1, 0)
"""With this SO_LINGER, closing sends RST instead of FIN: the client sees a reset, not a mere end."""


class Script(msgspec.Struct, forbid_unknown_fields=True):
    """What the next requests of one order meet, one each: `["500", "ok", "timeout_lost:2s"]`."""

    merchant: str
    order_ref: str
    faults: list[str]


class FaultsChange(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON form of `POST /faults`. What is left out stays as it is; scripts are added."""

    plan: str | None = None
    denied: list[str] | None = None
    """Merchants whose credentials are answered 401."""
    scripts: list[Script] = []


_read_change = msgspec.json.Decoder(FaultsChange).decode


def decode_segment(segment: str) -> str:
    """Raises `ValueError` (`UnicodeDecodeError` is one) unless it is UTF-8, percent-encoded."""
    if "%" not in segment:
        return segment
    if _STRAY_PERCENT.search(segment):
        raise ValueError(f"{segment!r} is not percent-encoded")
    return unquote(segment, errors="strict")


def _now() -> datetime:
    return datetime.now(UTC)


class Sandbox(ABC):
    """A provider: a log of the attempts, faults, pushes, and a server for them. What it holds is the subclass's.

    `send` is how it calls back; without one it does not. The log keeps the newest `log_limit` attempts (None: all).
    `silence_max_s` bounds how long a request without answer is held open. `wall` tells the time; aware UTC.
    """

    name: str
    order_heads: Sequence[str]
    """Of the table of orders on the page."""
    denied: Answer
    """What wrong credentials are answered."""
    retries_s: Sequence[float] = ()
    """After how long each a push comes again that was not taken, in seconds."""

    def __init__(
        self,
        faults: FaultPlan | None = None,
        seed: int = 0,
        *,
        send: Send | None = None,
        haste: float = 1.0,
        log_limit: int | None = LOG_LIMIT,
        silence_max_s: float = SILENCE_MAX_S,
        wall: Callable[[], datetime] = _now,
    ) -> None:
        """`haste`: by how much pushes come again sooner than documented."""
        self.faults = Faults(faults or FaultPlan(), seed)
        self.log: deque[Attempt] = deque(maxlen=log_limit)
        self.attempt_count = 0
        self.status_counts: Counter[int] = Counter()
        """Answers by status. Attempts without an answer are in none of them."""
        self.fault_counts: Counter[str] = Counter()
        """Faults met, by kind."""
        retries_s = [wait_s / haste for wait_s in self.retries_s]
        self.pushes = Pushes(send, self.faults, retries_s, self.is_taken)
        self._late: set[asyncio.TimerHandle] = set()
        self._silence_max_s = silence_max_s
        self._wall = wall
        self._runner: web.ServerRunner | None = None

    # --- what each provider has of its own ---

    @abstractmethod
    def is_asked(self, method: str, path: str) -> bool:
        """Whether a request is one to the provider, and none of those that all sandboxes answer."""

    @abstractmethod
    def about(self, call: Call) -> Key | None:
        """Which order it is about; None: none that one can tell, and it meets no fault."""

    @abstractmethod
    def take(self, attempt: Attempt, key: Key | None, call: Call) -> Answer:
        """Judges a request, and does what it asks for when nothing is wrong with it."""

    @abstractmethod
    def refusal(self, status: int, text: str) -> Answer:
        """An answer below 500, in the provider's shape."""

    @abstractmethod
    def keys(self) -> Iterable[Key]:
        """The orders that it knows, the newest first."""

    @abstractmethod
    def row(self, key: Key) -> Sequence[object]:
        """One of them, with the cells of `order_heads`."""

    @abstractmethod
    def shown(self, key: Key) -> dict[str, Any] | None:
        """One of them as JSON; None: it does not know it."""

    def is_taken(self, status: int, body: bytes) -> bool:  # noqa: ARG002 - a provider may want more
        """Whether what a push was answered is what it wants to hear."""
        return 200 <= status < 300

    def checkout(self, body: bytes) -> None:  # noqa: ARG002 - not every provider needs one
        """An order is paid for. Raises `UsageError` or `msgspec.DecodeError`."""
        raise UsageError(f"{self.name} knows an order by its first update; nothing is checked out here")

    @abstractmethod
    def act(self, body: bytes) -> None:
        """Something happens at the provider itself. Raises `UsageError` or `msgspec.DecodeError`."""

    async def ask(self, body: bytes) -> Asked:  # noqa: ARG002 - most providers ask nothing
        """Asks the shop. Raises `UsageError` or `msgspec.DecodeError`."""
        raise UsageError(f"{self.name} asks nothing that has to be answered at once")

    # --- from start to stop ---

    @property
    def late_count(self) -> int:
        """Requests received that are still to be judged and applied (`late_applied`)."""
        return len(self._late)

    @property
    def wall_s(self) -> float:
        """Seconds since 1970, UTC."""
        return self._wall().timestamp()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Begins to serve; returns the base URL, without a slash at its end. Port 0 takes any that is free.

        Raises `OSError` when the port cannot be had.
        """
        runner = web.ServerRunner(create_server(self), shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return http_url(host, runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops serving, within about `STOP_S`. Late applications and pushes still to come are dropped."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        await self.pushes.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def call_later(self, delay_s: float, do: Callable[[], object]) -> None:
        """Does something later, unless the sandbox stops before."""

        # A timer and not a task: a client that gives up must not cancel it.
        def call() -> None:
            self._late.discard(handle)
            do()

        handle = asyncio.get_running_loop().call_later(delay_s, call)
        self._late.add(handle)

    # --- one request ---

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers one request, whatever its method and path."""
        if self.is_asked(request.method, request.raw_path.partition("?")[0]):
            return await self._asked(request)
        answer = await self._look(request)
        headers = {
            "Content-Type": f"{answer.content_type}; charset=utf-8",
            "Content-Security-Policy": _SECURITY,
        }
        if answer.status == 303:
            headers["Location"] = "/"
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _asked(self, request: web.BaseRequest) -> web.Response:
        received_at = self._wall()
        call = Call(request.method, request.raw_path, request.headers, await request.read())
        key = self.about(call)
        merchant, order_ref = key or (None, None)
        self.attempt_count += 1
        idempotency_key = request.headers.get("Idempotency-Key")
        digest = blake2b(call.body, digest_size=8).hexdigest()
        attempt = Attempt(self.attempt_count, received_at, call.raw_path, merchant, order_ref, idempotency_key, digest)
        self.log.append(attempt)
        try:
            answer = await self._answer(attempt, key, call)
        finally:
            attempt.ended_at = self._wall()
        if answer is None:
            _reset(request.transport)
            return web.Response()  # goes nowhere: the connection is gone
        attempt.status = answer.status
        self.status_counts[answer.status] += 1
        return _response(answer, attempt.number)

    async def _answer(self, attempt: Attempt, key: Key | None, call: Call) -> Answer | None:
        """The answer to a request; None for no answer but a reset. A client that gives up cancels it.

        A request that is wrong is refused also when a fault follows, only the client does not hear of it.
        """

        def take() -> Answer:
            return self.denied if key is not None and key[0] in self.faults.denied else self.take(attempt, key, call)

        fault = None if key is None else self.faults.draw(*key)
        if fault is None:
            return take()
        attempt.fault = fault.kind
        self.fault_counts[fault.kind] += 1
        if fault.kind == "late_applied":
            self.call_later(fault.time_s or 0.0, take)
            await asyncio.sleep(self._silence_max_s)
            return None
        usual = take() if fault.applied else None
        if fault.status is not None:
            return self._faulty_answer(fault.status, fault)
        if fault.kind == "slow":
            await asyncio.sleep(fault.time_s or 0.0)
            return usual
        if fault.time_s is not None:
            await asyncio.sleep(min(fault.time_s, self._silence_max_s))
        return None

    def _faulty_answer(self, status: int, fault: Fault) -> Answer:
        if status == 401:
            return self.denied
        if status < 500:
            return self.refusal(status, f"Sandbox fault {status}")._replace(retry_after_s=fault.time_s)
        # What stands in front of an origin answers in HTML.
        text = f"<!doctype html><title>{status}</title><h1>Sandbox fault {status}</h1>\n"
        return Answer(status, text.encode(), "text/html", fault.time_s)

    # --- what people look at ---

    async def _look(self, request: web.BaseRequest) -> Answer:
        path = request.raw_path.partition("?")[0]
        try:
            match request.method, path.split("/"):
                case "GET", ["", ""]:
                    return Answer(200, self._page().encode(), "text/html")
                case "GET", ["", "orders"]:
                    return self._newest(_whole_number(request, "limit", PAGE_ROWS))
                case "GET", ["", "orders", merchant, order_ref]:
                    return self._one((decode_segment(merchant), decode_segment(order_ref)))
                case "GET", ["", "log"]:
                    return self._attempts(_whole_number(request, "after", 0))
                case "POST", ["", "faults" | "checkout" | "acts" | "questions" as what]:
                    if is_cross_site(request.headers):
                        return _said(403, "a page of another site may not do this")
                    return await self._change(what, request.content_type, await request.read())
        except (ValueError, UsageError, msgspec.DecodeError) as error:
            return _said(400, str(error))
        return _said(404, "there is nothing here")

    async def _change(self, what: str, content_type: str, body: bytes) -> Answer:
        match what:
            case "faults":
                return self._set_faults(content_type, body)
            case "checkout":
                self.checkout(body)
            case "questions":
                return _answered(await self.ask(body))
            case _:
                self.act(body)
        return Answer(200, b"{}")

    def _page(self) -> str:
        counts = {str(status): count for status, count in sorted(self.status_counts.items())}
        counts |= {f"fault {kind}": count for kind, count in sorted(self.fault_counts.items())}
        counts |= {f"pushes {what}": count for what, count in self.pushes.counts.items()}
        orders = (self.row(key) for key in islice(self.keys(), PAGE_ROWS))
        newest = islice(reversed(self.log), PAGE_ROWS)
        cells = (
            (of.number, of.received_at, of.raw_path, of.what, of.status, of.fault, of.applied_at, of.idempotency_key)
            for of in newest
        )
        attempts = (["" if cell is None else cell for cell in row] for row in cells)
        pushes = ((of.at, of.order_ref, of.what, of.result) for of in islice(reversed(self.pushes.log), PAGE_ROWS))
        return page(self.name, str(self.faults.plan), counts, (self.order_heads, orders), attempts, pushes)

    def _newest(self, limit: int) -> Answer:
        keys = list(self.keys())
        orders = [self.shown(key) for key in keys[: min(limit, SHOWN_MAX)]]
        return Answer(200, msgspec.json.encode({"count": len(keys), "orders": orders}))

    def _one(self, key: Key) -> Answer:
        order = self.shown(key)
        return _said(404, "This order is not known") if order is None else Answer(200, msgspec.json.encode(order))

    def _attempts(self, after: int) -> Answer:
        # From the newest back, so that a poll costs what is new and not what is kept.
        newer = list(takewhile(lambda attempt: attempt.number > after, reversed(self.log)))
        attempts = newer[: -SHOWN_MAX - 1 : -1]
        return Answer(200, msgspec.json.encode({"count": self.attempt_count, "attempts": attempts}))

    def _set_faults(self, content_type: str, body: bytes) -> Answer:
        if content_type == "application/x-www-form-urlencoded":
            form = parse_qs(body.decode(), keep_blank_values=True)
            self.faults.plan = FaultPlan.parse(form.get("plan", [""])[0])
            return Answer(303, content_type="text/html")  # back to the page
        change = _read_change(body) if content_type == JSON else FaultsChange(plan=body.decode())
        plan = self.faults.plan if change.plan is None else FaultPlan.parse(change.plan)
        for script in change.scripts:  # all or nothing: no script stands when a later one is wrong
            for text in script.faults:
                parse_fault(text)
        for script in change.scripts:
            self.faults.script(script.merchant, script.order_ref, *script.faults)
        if change.plan is not None:
            self.faults.plan = plan
        if change.denied is not None:
            self.faults.denied = set(change.denied)
        denied = sorted(self.faults.denied)
        return Answer(200, msgspec.json.encode({"plan": str(plan), "denied": denied}))


def create_server(sandbox: Sandbox) -> web.Server:
    """The server of a sandbox, for a runner or a test server of one's own."""
    # No application: its router decodes paths in part, while order references need the raw one, and it costs
    # about a fifth of the updates per second. Cancelled handlers are how a client that gives up is noticed.
    return web.Server(sandbox.handle, request_factory=_make_request, handler_cancellation=True, access_log=None)


def _make_request(
    message: Any,
    payload: Any,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_MAX_BYTES)


def _answered(asked: Asked) -> Answer:
    """The shop's answer for people; its body as JSON where it is some."""
    try:
        body = msgspec.json.decode(asked.body) if asked.body else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = asked.body.decode(errors="replace")
    said = {"status": asked.status, "answer": body, "seconds": round(asked.seconds, 3), "problem": asked.problem}
    return Answer(200, msgspec.json.encode(said))


def _said(status: int, text: str) -> Answer:
    return Answer(status, msgspec.json.encode({"errors": [text]}))


def _response(answer: Answer, number: int) -> web.Response:
    # seQura's answers carry an X-Request-Id (an example in docs.sequra.com, read 2026).
    headers = {"X-Request-Id": f"sandbox-{number}"}
    if answer.body:
        headers["Content-Type"] = f"{answer.content_type}; charset=utf-8"
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(int(answer.retry_after_s))
    return web.Response(status=answer.status, body=answer.body or None, headers=headers)


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
    transport.abort()


def _whole_number(request: web.BaseRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f"{name} must be a whole number")
    return int(text)
