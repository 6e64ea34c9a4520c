"""A sandbox provider: over real HTTP it answers order updates as seQura does, and misbehaves when told to.

Only for local trying-out: `cartsync sandbox`, the demo, integration and chaos tests, benchmarks. All but the
updates is open to whoever reaches the port, and what it holds may be personal data: bind it to loopback.

    PUT  /merchants/{merchant}/orders/{order_ref}   an update; segments percent-encoded (`A14%2F12345`)
    GET  /                                          a page
    GET  /orders, /orders/{merchant}/{order_ref}    what is held, as JSON (`?limit=N`, newest orders first)
    GET  /log?after=N                               attempts numbered above N as JSON, oldest first
    POST /faults                                    a new plan: as text, as a form with `plan`, or
                                                    `FaultsChange` as JSON

What is right and wrong about an update stands in `sandbox_rules`, what is held in `sandbox_orders`, what goes
wrong on the way in `sandbox_faults`.
"""

import asyncio
import re
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice, takewhile
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from worker import is_cross_site
from worker.errors import UsageError
from worker.sim.sandbox_faults import SILENCE_MAX_S, Fault, FaultPlan, Faults, parse_fault
from worker.sim.sandbox_orders import (
    DENIED,
    JSON,
    NO_ACCESS,
    NOT_FOUND,
    Answer,
    Attempt,
    Held,
    Orders,
    errors,
    shown,
)
from worker.sim.sandbox_page import page

__all__ = [
    "Attempt",
    "FaultPlan",
    "FaultsChange",
    "Held",
    "Sandbox",
    "Script",
    "create_server",
    "parse_order_url",
]

BODY_MAX_BYTES = 16 * 1024**2
"""Ours, seQura documents none; room for some 50 000 items."""

LOG_LIMIT = 100_000
SHOWN_MAX = 1_000
"""Orders or attempts in one JSON answer."""

PAGE_ROWS = 100
STOP_S = 0.05
"""How long `Sandbox.stop` waits for answers on their way before it drops what is held back."""

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


def _decode_segment(segment: str) -> str:
    """Raises `ValueError` (`UnicodeDecodeError` is one) unless it is UTF-8, percent-encoded."""
    if "%" not in segment:
        return segment
    if _STRAY_PERCENT.search(segment):
        raise ValueError(f"{segment!r} is not percent-encoded")
    return unquote(segment, errors="strict")


def parse_order_url(raw_path: str) -> tuple[str, str] | None:
    """Merchant and order reference of a raw path, percent-decoded; None when it is not the path of an order.

    A slash inside a reference has to be encoded, as in `/merchants/camisasonline/orders/A14%2F12345`
    (docs.sequra.com, Order Update API, read 2026). `+` is itself.
    """
    match raw_path.partition("?")[0].split("/"):
        case ["", "merchants", merchant, "orders", order_ref] if merchant and order_ref:
            try:
                return _decode_segment(merchant), _decode_segment(order_ref)
            except ValueError:
                return None
    return None


def _now() -> datetime:
    return datetime.now(UTC)


class Sandbox:
    """The provider: what it holds of each order, a log of the attempts, faults, and a server for them.

    `accounts`, `known` and `validate` are those of `Orders`; `validate=False` is for benchmarks of a sender.
    The log keeps the newest `log_limit` attempts (None: all). `silence_max_s` bounds how long a request
    without answer is held open. `wall` tells the time; aware UTC.
    """

    def __init__(
        self,
        accounts: Mapping[str, tuple[str, str]],
        faults: FaultPlan | None = None,
        seed: int = 0,
        *,
        known: set[tuple[str, str]] | None = None,
        validate: bool = True,
        log_limit: int | None = LOG_LIMIT,
        silence_max_s: float = SILENCE_MAX_S,
        wall: Callable[[], datetime] = _now,
    ) -> None:
        self.faults = Faults(faults or FaultPlan(), seed)
        self.log: deque[Attempt] = deque(maxlen=log_limit)
        self.attempt_count = 0
        self.status_counts: Counter[int] = Counter()
        """Answers by status. Attempts without an answer are in none of them."""
        self.fault_counts: Counter[str] = Counter()
        """Faults met, by kind."""
        self._orders = Orders(accounts, known, validate=validate)
        self.held = self._orders.held
        self._late: set[asyncio.TimerHandle] = set()
        self._silence_max_s = silence_max_s
        self._wall = wall
        self._runner: web.ServerRunner | None = None

    @property
    def late_count(self) -> int:
        """Updates received that are still to be judged and applied (`late_applied`)."""
        return len(self._late)

    def register(self, merchant: str, order_ref: str, total_minor: int) -> None:
        """Makes an order known, with the total that was approved at checkout: see `Orders.register`."""
        self._orders.register((merchant, order_ref), total_minor)

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
        bound = runner.addresses[0][1]
        return f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"

    async def stop(self) -> None:
        """Stops serving, within about `STOP_S`. Late applications still to come are dropped."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers one request, whatever its method and path."""
        if request.method == "PUT":
            return await self._put(request)
        answer = await self._look(request)
        headers = {
            "Content-Type": f"{answer.content_type}; charset=utf-8",
            "Content-Security-Policy": _SECURITY,
        }
        if answer.status == 303:
            headers["Location"] = "/"
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _put(self, request: web.BaseRequest) -> web.Response:
        received_at = self._wall()
        body = await request.read()
        raw_path = request.raw_path
        key = parse_order_url(raw_path)
        merchant, order_ref = key or (None, None)
        self.attempt_count += 1
        idempotency_key = request.headers.get("Idempotency-Key")
        digest = blake2b(body, digest_size=8).hexdigest()
        attempt = Attempt(self.attempt_count, received_at, raw_path, merchant, order_ref, idempotency_key, digest)
        self.log.append(attempt)
        answer: Answer | None = NOT_FOUND
        try:
            if key is not None:
                answer = await self._update(attempt, key, request.headers.get("Authorization", ""), body)
        finally:
            attempt.ended_at = self._wall()
        if answer is None:
            _reset(request.transport)
            return web.Response()  # goes nowhere: the connection is gone
        attempt.status = answer.status
        self.status_counts[answer.status] += 1
        return _response(answer, attempt.number)

    async def _update(self, attempt: Attempt, key: tuple[str, str], authorization: str, body: bytes) -> Answer | None:
        """The answer to an update; None for no answer but a reset. A client that gives up cancels it.

        An update that is wrong is refused also when a fault follows, only the client does not hear of it.
        """

        def take() -> Answer:
            if key[0] in self.faults.denied:
                return DENIED
            return self._orders.take(attempt, key, authorization, body, self._wall())

        fault = self.faults.draw(*key)
        if fault is None:
            return take()
        attempt.fault = fault.kind
        self.fault_counts[fault.kind] += 1
        if fault.kind == "late_applied":
            self._call_late(fault.time_s or 0.0, take)
            await asyncio.sleep(self._silence_max_s)
            return None
        usual = take() if fault.applied else None
        if fault.status is not None:
            return _faulty_answer(fault)
        if fault.kind == "slow":
            await asyncio.sleep(fault.time_s or 0.0)
            return usual
        if fault.time_s is not None:
            await asyncio.sleep(min(fault.time_s, self._silence_max_s))
        return None

    def _call_late(self, delay_s: float, take: Callable[[], Answer]) -> None:
        # A timer and not a task: a client that gives up must not cancel it.
        def call() -> None:
            self._late.discard(handle)
            take()

        handle = asyncio.get_running_loop().call_later(delay_s, call)
        self._late.add(handle)

    async def _look(self, request: web.BaseRequest) -> Answer:
        path = request.raw_path.partition("?")[0]
        try:
            match request.method, path.split("/"):
                case "GET", ["", ""]:
                    return Answer(200, self._page().encode(), "text/html")
                case "GET", ["", "orders"]:
                    return self._newest(_whole_number(request, "limit", PAGE_ROWS))
                case "GET", ["", "orders", merchant, order_ref]:
                    return self._one(_decode_segment(merchant), _decode_segment(order_ref))
                case "GET", ["", "log"]:
                    return self._attempts(_whole_number(request, "after", 0))
                case "POST", ["", "faults"]:
                    if is_cross_site(request.headers):
                        return errors(403, "a page of another site may not do this")
                    return self._set_faults(request.content_type, await request.read())
        except (ValueError, UsageError, msgspec.DecodeError) as error:
            return errors(400, str(error))
        return NOT_FOUND

    def _page(self) -> str:
        counts = {str(status): count for status, count in sorted(self.status_counts.items())}
        counts |= {f"fault {kind}": count for kind, count in sorted(self.fault_counts.items())}
        held = islice(reversed(self.held.items()), PAGE_ROWS)
        orders = (
            (*key, of.currency, of.unshipped_minor, of.shipped_minor, of.count, of.applied_at) for key, of in held
        )
        newest = islice(reversed(self.log), PAGE_ROWS)
        cells = (
            (of.number, of.received_at, of.raw_path, of.status, of.fault, of.applied_at, of.idempotency_key)
            for of in newest
        )
        attempts = (["" if cell is None else cell for cell in row] for row in cells)
        return page(str(self.faults.plan), counts, orders, attempts)

    def _newest(self, limit: int) -> Answer:
        keys = islice(reversed(self.held), min(limit, SHOWN_MAX))
        orders = [shown(key, self.held[key]) for key in keys]
        return Answer(200, msgspec.json.encode({"count": len(self.held), "orders": orders}))

    def _one(self, merchant: str, order_ref: str) -> Answer:
        held = self.held.get((merchant, order_ref))
        if held is None:
            return errors(404, "No update of this order was applied")
        order = shown((merchant, order_ref), held) | {"body": msgspec.Raw(held.body)}
        return Answer(200, msgspec.json.encode(order))

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


def _faulty_answer(fault: Fault) -> Answer:
    status = fault.status or 500
    match status:
        case 401:
            return DENIED
        case 403:
            return NO_ACCESS
        case 404:
            return NOT_FOUND
        case _ if status < 500:
            return errors(status, f"Sandbox fault {status}")._replace(retry_after_s=fault.time_s)
    # What stands in front of an origin answers in HTML.
    text = f"<!doctype html><title>{status}</title><h1>Sandbox fault {status}</h1>\n"
    return Answer(status, text.encode(), "text/html", fault.time_s)


def _whole_number(request: web.BaseRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f"{name} must be a whole number")
    return int(text)
