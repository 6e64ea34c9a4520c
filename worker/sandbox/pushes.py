"""What a sandbox calls back with: pushes that come late, twice, out of order, and again until they were taken.

Each push goes its own way, so nothing keeps them in order but the network: one that is late is overtaken.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from worker.sandbox.faults import Faults

LOG_LIMIT = 1_000
AT_ONCE_MAX = 32
"""Calls on their way at the same time."""

Send = Callable[["Push"], Awaitable[tuple[int, bytes] | None]]
"""Posts one; its answer (status and body), None: there was none. Never raises but for cancellation."""
What = Literal["made", "late", "doubled", "lost", "taken", "not taken", "out of order", "given up"]


class Push(Struct, frozen=True, kw_only=True):
    """A call to the shop."""

    merchant: str
    order_ref: str
    what: str
    """In the provider's words, for people."""
    url: str
    content_type: str
    body: bytes


class Sent(Struct, frozen=True):
    """One that was on its way, for the page."""

    at: datetime
    order_ref: str
    what: str
    result: str


class Pushes:
    """Posts what it is given, as the provider's documentation has it and the faults allow."""

    def __init__(
        self,
        send: Send | None,
        faults: Faults,
        retries_s: Sequence[float],
        is_taken: Callable[[int, bytes], bool],
    ) -> None:
        """`retries_s`: after how many seconds each it comes again until `is_taken` says so of an answer."""
        self._send = send
        self._faults = faults
        self._retries_s = retries_s
        self._is_taken = is_taken
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._made: Counter[tuple[str, str]] = Counter()
        self._newest: Counter[tuple[str, str]] = Counter()
        """By order, the number of the newest that was taken."""
        self.counts: Counter[What] = Counter()
        self.log: deque[Sent] = deque(maxlen=LOG_LIMIT)

    @property
    def pending(self) -> int:
        """That are still to be taken or given up."""
        return len(self._tasks)

    def post(self, push: Push) -> None:
        """Takes care of one; returns at once. Without anybody to send it, nothing happens."""
        if self._send is None or not push.url:
            return
        key = (push.merchant, push.order_ref)
        self._made[key] += 1
        self.counts["made"] += 1
        fault = self._faults.draw_later("push", *key)
        kind = "" if fault is None else fault.kind
        delay_s = 0.0
        if kind == "push_late":
            self.counts["late"] += 1
            delay_s = (fault and fault.time_s) or 0.0
        if kind == "push_doubled":
            self.counts["doubled"] += 1
        for _ in range(2 if kind == "push_doubled" else 1):
            task = asyncio.create_task(self._deliver(push, self._made[key], delay_s, is_lost=kind == "push_lost"))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, push: Push, number: int, delay_s: float, *, is_lost: bool) -> None:
        for wait_s in (delay_s, *self._retries_s):
            await asyncio.sleep(wait_s)
            answered = None
            if is_lost:
                is_lost = False
                self.counts["lost"] += 1
            else:
                answered = await self._try(push)
            self._note(push, "no answer" if answered is None else str(answered[0]))
            if answered is not None and self._is_taken(*answered):
                self._taken(push, number)
                return
        self.counts["given up"] += 1

    async def _try(self, push: Push) -> tuple[int, bytes] | None:
        assert self._send is not None, "post looks"
        async with self._at_once:
            answered = await self._send(push)
        if answered is None or not self._is_taken(*answered):
            self.counts["not taken"] += 1
        return answered

    async def ask(self, push: Push) -> tuple[tuple[int, bytes] | None, float]:
        """Calls once, whatever becomes of it: the answer, and how many seconds it took."""
        began = asyncio.get_running_loop().time()
        answered = None if self._send is None else await self._send(push)
        self._note(push, "no answer" if answered is None else str(answered[0]))
        return answered, asyncio.get_running_loop().time() - began

    def _taken(self, push: Push, number: int) -> None:
        key = (push.merchant, push.order_ref)
        self.counts["taken"] += 1
        if number < self._newest[key]:
            self.counts["out of order"] += 1
        self._newest[key] = max(number, self._newest[key])

    def _note(self, push: Push, result: str) -> None:
        self.log.append(Sent(datetime.now(UTC), push.order_ref, push.what, result))

    async def stop(self) -> None:
        """Drops what is still to come."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
