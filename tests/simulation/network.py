"""A network that delays, loses, doubles and half-delivers, and what must never be on it.

Each request is followed from the moment its attempt is taken until it can land no more. So the rules of the protocol
are checked as such, not only where breaking one did harm: a request that goes out while an older one may still land
is a violation whether that one lands or not.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tests.simulation.sides import About, Request, Side
from tests.simulation.trace import Trace
from worker.model.exchange import Fault, HttpRequest, HttpResponse

SETTLE_SHARE = 0.98
"""How much of `settle` a late request may really use: the clocks that measure it run at rates of their own."""
ASKED_MAX_S = 12
"""The longest `Retry-After`."""
SKEW_MAX_S = 1.0
"""How far the wall clocks of two workers may be apart."""


class Guard(Protocol):
    """Judges attempts by what is known of the process that makes them."""

    def taken(self, process: str, about: About, body: bytes) -> None:
        """An exchange is about to begin: of an attempt that was taken from the outbox."""
        ...

    def sent(self, process: str, subject: str, deadline_s: float) -> None:
        """It goes out at this moment."""
        ...


@dataclass
class Faults:
    """How often a network and a provider do what, in parts of one; the rest goes well."""

    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    reply_lost: float = 0.0
    reset: float = 0.0
    doubled: float = 0.0
    rejected: float = 0.0
    bad_gateway: float = 0.0
    conflict: float = 0.0
    not_found: float = 0.0
    invalid: float = 0.0
    unauthorized: float = 0.0


class Network:
    """All that is between workers and providers."""

    def __init__(
        self, random: Random, trace: Trace, sides: Mapping[str, Side], *, settle_s: float, faults: Faults
    ) -> None:
        """`sides`: by account, who is at the other end."""
        self.faults = faults
        self.live: dict[str, list[Request]] = {}
        """By subject: commands that may still land."""
        self.outage: Callable[[], bool] = lambda: False
        self.stop_in_send_gap: Callable[[str], None] | None = None
        """Called with a process between its last look at the lease and the sending; then only harm counts as wrong."""
        self._random = random
        self._trace = trace
        self._sides = sides
        self._settle_s = settle_s * SETTLE_SHARE
        self._loop = asyncio.get_running_loop()
        self._outside = Context()
        self._wait_until: dict[str, float] = {}
        """By subject: before that the provider has asked not to be bothered."""

    def side_of(self, request: HttpRequest) -> Side:
        """To whom it goes."""
        return self._sides[request.account]

    def settled_at(self) -> float:
        """When the last request that is under way cannot land any more."""
        return max((r.may_land_until for live in self.live.values() for r in live), default=0.0)

    def may_land(self, subject: str) -> list[Request]:
        """Commands about an order that may still land."""
        now = self._loop.time()
        live = [request for request in self.live.get(subject, ()) if request.may_land_until > now]
        self.live[subject] = live
        return live

    def hand_over(self, process: str, about: About, request: HttpRequest, deadline_s: float) -> Request:
        """A request has left its process. A read, too, has to wait until what it is to show is certain."""
        now, trace, subject = self._loop.time(), self._trace, about.subject
        sent = Request(about, request, process, now, now + deadline_s + self._settle_s)
        trace.add("sent", subject, *self._what(sent), process)
        for older in self.may_land(subject) if self.stop_in_send_gap is None else ():
            trace.violate(
                f"{sent} went out while {older}, sent at {older.sent_at:.3f} s, may still land", "one_at_a_time"
            )
        if now < self._wait_until.get(subject, 0.0) - SKEW_MAX_S:
            trace.violate(f"{sent} went out before the provider's Retry-After was over")
        self.side_of(request).sent(sent)
        if not about.is_read:
            self.live.setdefault(subject, []).append(sent)
        return sent

    @staticmethod
    def _what(request: Request) -> tuple[object, ...]:
        """What a line of the trace says of it."""
        return (request.revision,) if request.revision else (request.call.method, "read" * request.about.is_read)

    def land(self, request: Request, after_s: float) -> None:
        """The provider takes it after so long, whatever becomes of the process that sent it."""
        if after_s <= 0:
            self.side_of(request.call).take(request)
        else:
            take = self.side_of(request.call).take
            request.landing = self._loop.call_later(after_s, take, request, context=self._outside)

    def given_up(self, request: Request) -> None:
        """The process has stopped waiting: from now on it may land for so long."""
        now = self._loop.time()
        until = now + self._settle_s
        request.may_land_until = min(request.may_land_until, until)
        landing = request.landing
        if landing is not None and not landing.cancelled() and landing.when() > until:
            landing.cancel()
            self.land(request, self._settle_s * self._random.random())

    def over(self, request: Request) -> None:
        """It has landed or never will."""
        request.may_land_until = self._loop.time()

    def ask_to_wait(self, subject: str, seconds: float) -> None:
        """The provider has answered with `Retry-After`."""
        self._wait_until[subject] = self._loop.time() + seconds


class Wire:
    """`ports.Sender` of one process."""

    def __init__(self, process: str, network: Network, random: Random, guard: Guard) -> None:
        self.is_dead = False
        self._process = process
        self._network = network
        self._random = random
        self._guard = guard
        self._under_way: set[str] = set()

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """One exchange."""
        about = self._network.side_of(request).about(request)
        if self.is_dead:
            return Fault(False, "dead")
        self._guard.taken(self._process, about, request.body)
        subject = about.subject
        if subject in self._under_way:
            self._network._trace.violate(f"two attempts for {subject} are under way in {self._process}")
        self._under_way.add(subject)
        try:
            return await self._send(request, about, deadline_s, may_send)
        finally:
            self._under_way.discard(subject)

    async def _send(
        self, request: HttpRequest, about: About, deadline_s: float, may_send: Callable[[], bool]
    ) -> HttpResponse | Fault:
        network, random = self._network, self._random
        began = network._loop.time()
        if random.random() < 0.3:
            await asyncio.sleep(random.choice((0.005, 0.2, deadline_s / 2)) * random.random())  # connecting
        if random.random() < network.faults.refused:
            return Fault(False, "refused")
        if self.is_dead or not may_send():
            return Fault(False, "the partition's lease expired before the request was sent")
        if network.stop_in_send_gap is None:
            self._guard.sent(self._process, about.subject, deadline_s)
        else:
            network.stop_in_send_gap(self._process)
            await asyncio.sleep(0.001)
        sent = network.hand_over(self._process, about, request, deadline_s)
        left_s = began + deadline_s - network._loop.time()
        try:
            answer = await self._answer(sent, left_s)
        except asyncio.CancelledError:
            if not self.is_dead:
                network.given_up(sent)
            raise
        if not self.is_dead:
            network.side_of(request).answered(sent, answer)
        return answer

    async def _answer(self, sent: Request, left_s: float) -> HttpResponse | Fault:
        """Chooses what becomes of a request, lets it happen, and says what its sender sees of it."""
        network, random, faults = self._network, self._random, self._network.faults
        at_s = random.choice((0.0, 0.02, 0.3)) * random.random()
        drawn = random.random()

        def happens(share: float) -> bool:
            nonlocal drawn
            drawn -= share
            return drawn < 0

        if network.outage():
            return await self._status(sent, at_s, 503)
        if happens(faults.lost):
            return await self._silent(sent, left_s)
        if happens(faults.reply_lost):
            network.land(sent, left_s * random.random())
            return await self._silent(sent, left_s)
        if happens(faults.late):
            network.land(sent, (left_s + network._settle_s) * random.random())
            return await self._silent(sent, left_s)
        if happens(faults.reset):
            broken_s = left_s * random.random()
            if random.random() < 0.7:
                network.land(sent, (broken_s + network._settle_s) * random.random())
            return await self._broken(sent, broken_s, 1)
        if happens(faults.doubled):
            network.land(sent, at_s)
            second = Request(sent.about, sent.call, sent.process, sent.sent_at, sent.may_land_until)
            if not sent.about.is_read:
                network.live[sent.subject].append(second)
            network.land(second, (at_s + network._settle_s) * random.random())
            return await self._broken(sent, at_s, 2, second)
        for share, statuses in (
            (faults.rejected, (500, 503, 429, 425, 423, 501)),
            (faults.bad_gateway, (502, 504, 408, 520)),
            (faults.conflict, (409,)),
            (faults.not_found, (404,)),
            (faults.invalid, (422, 400)),
            (faults.unauthorized, (401, 403)),
        ):
            if happens(share):
                return await self._status(sent, at_s, random.choice(statuses))
        network.land(sent, at_s)
        await self._wait(at_s + random.choice((0.001, 0.05, max(0.0, left_s - at_s))) * random.random())
        network.over(sent)
        return self._say(sent, random.choice((200, 202, 204)))

    async def _status(self, sent: Request, at_s: float, status: int) -> HttpResponse:
        """An answer that is no success. What was answered 5xx may have been applied all the same."""
        network, random = self._network, self._random
        is_open = status in (502, 504, 408, 520)
        if is_open and random.random() < 0.6:
            network.land(sent, (at_s + network._settle_s) * random.random())
        elif status in (500, 501, 503) and random.random() < 0.3:
            network.land(sent, at_s)
        elif status in (400, 409, 422):
            network.side_of(sent.call).refuse(sent)
        await self._wait(at_s + 0.001)
        headers = {}
        if status in (429, 503, 425, 500) and random.random() < 0.5:
            seconds = random.choice((1, 5, ASKED_MAX_S))
            headers["retry-after"] = str(seconds)
            network.ask_to_wait(sent.subject, seconds)
        (network.given_up if is_open else network.over)(sent)
        return self._say(sent, status, headers)

    async def _silent(self, sent: Request, left_s: float) -> Fault:
        await self._wait(left_s)
        self._network.given_up(sent)
        self._network._trace.add("timeout", sent.subject, *self._network._what(sent))
        return Fault(True, "no answer")

    async def _broken(self, sent: Request, after_s: float, copies: int, *others: Request) -> Fault:
        try:
            await self._wait(after_s)
        finally:
            if not self.is_dead:
                for request in (sent, *others):
                    self._network.given_up(request)
        self._network._trace.add("reset", sent.subject, *self._network._what(sent), copies)
        return Fault(True, "reset")

    def _say(self, sent: Request, status: int, headers: dict[str, str] | None = None) -> HttpResponse:
        answer = sent.answer if status < 300 else None
        if answer is None:
            answer = HttpResponse(status, headers or {}, b"" if status < 300 else b'{"errors": ["as simulated"]}')
        self._network._trace.add(
            "answered", sent.subject, *self._network._what(sent), answer.status, answer.headers or ""
        )
        return answer

    @staticmethod
    async def _wait(seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))

    async def close(self) -> None:
        """Nothing to close."""
