"""An asyncio event loop with virtual time: waiting takes no real time.

Callbacks run until none is ready; then the loop's time jumps to the next timer. Nothing waits for the outside world:
there are no sockets, threads or signals. Without a seed, callbacks run in the order in which they became ready; with
a seed, in a random order that is the same in every run.

A coroutine started with `spawn` belongs to a named process, with everything that it starts. A process can be frozen at
any moment, as by SIGSTOP: its callbacks and timers are suspended until `thaw`, while time goes on.
"""

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from worker.errors import InvariantError

START_WALL_MS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
BUSY_MAX = 1_000_000
"""Maximum callbacks without any time passing; more is treated as a busy loop."""
NUDGE_EVERY = 10_000
NUDGE_S = 1e-6
"""Every `NUDGE_EVERY` callbacks at one moment, time advances by this: code that waits for a remainder lost to rounding
would spin forever (aiolimiter 1.3 sets a timer for now while 1e-15 of a token is missing); on a real clock it spins
once.
"""
ENDINGS_MAX = 100
"""How often remaining tasks are cancelled: a cancelled task may start another one."""
PURGE_MIN = 1_000
"""Cancelled timers (including fired ones) before the heap is purged."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_process: ContextVar[str] = ContextVar("process", default="")


class StuckError(InvariantError):
    """Virtual time cannot advance: all tasks wait for something that cannot happen, or one of them never waits."""


class _Numbered:
    """Hashes by a number, so that asyncio iterates over sets of tasks and futures in the same order in every run."""

    _number: int

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            self._number = number = self.get_loop().next_number()  # type: ignore[attr-defined]
            return int(number)


class _Task(_Numbered, asyncio.Task[Any]):
    pass


class _Future(_Numbered, asyncio.Future[Any]):
    pass


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. Its time starts at 0, in seconds; a timer fires exactly on time."""

    _stopping: bool

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._random = None if seed is None else random.Random(seed).random
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._cancelled_count = 0
        self._time = 0.0
        self._number = 0
        self._idle_callbacks = 0
        self._frozen: set[str] = set()
        self._suspended_callbacks: list[asyncio.Handle] = []
        self.failures: list[dict[str, Any]] = []
        """Uncaught errors, as asyncio passes them to exception handlers."""
        self.set_task_factory(_new_task)
        self.set_exception_handler(_keep_failure)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._time

    def next_number(self) -> int:
        """A number that was not used before."""
        self._number += 1
        return self._number

    # Processes

    def spawn(self, process: str, coro: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Starts a task in a process. Everything that it starts belongs to the process, too."""
        context = copy_context()
        context.run(_process.set, process)
        return self.create_task(coro, context=context)

    def freeze(self, process: str) -> None:
        """Suspends a process until `thaw`. Its timers fire after that, late."""
        self._frozen.add(process)

    def thaw(self, process: str) -> None:
        """Resumes a process."""
        self._frozen.discard(process)
        self._ready += self._suspended_callbacks  # callbacks of other frozen processes are suspended again
        self._suspended_callbacks.clear()

    def thaw_all(self) -> None:
        """Resumes all processes."""
        for process in sorted(self._frozen):
            self.thaw(process)

    def _is_frozen(self, handle: asyncio.Handle) -> bool:
        return handle._context.get(_process) in self._frozen  # type: ignore[attr-defined]  # noqa: SLF001

    # asyncio.AbstractEventLoop

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedules a callback."""
        self._check_open()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """The same as `call_soon`: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Runs a callback after this many seconds."""
        when = self._time + delay
        if delay > 0 and when <= self._time:
            # The delay was lost to rounding. Code that waits for a remaining time would loop forever if none passed.
            when = math.nextafter(self._time, math.inf)
        return self.call_at(when, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Runs a callback at this time; callbacks for the same time run in the order of their calls."""
        self._check_open()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self.next_number(), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return _Future(loop=self)

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """Raises, because a thread takes real time."""
        raise RuntimeError("no threads in virtual time")

    def close(self) -> None:
        """Drops everything that is left."""
        self._timers.clear()
        self._suspended_callbacks.clear()
        super().close()

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        self._cancelled_count += 1
        if self._cancelled_count > PURGE_MIN and self._cancelled_count > len(self._timers) // 2:
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled_count = 0

    def _check_open(self) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")

    # One iteration

    def _run_once(self) -> None:
        """Replaces the iteration of `BaseEventLoop`: no selector, and a seeded order."""
        ready = self._ready
        if not ready and not self._stopping:
            self._advance()
        timers = self._timers
        while timers and timers[0][0] <= self._time:
            ready.append(heapq.heappop(timers)[2])
        nudges = self._idle_callbacks // NUDGE_EVERY
        self._idle_callbacks += len(ready)
        self._time += (self._idle_callbacks // NUDGE_EVERY - nudges) * NUDGE_S
        if self._idle_callbacks > BUSY_MAX:
            raise StuckError(f"more than {BUSY_MAX} callbacks while no time passed; waiting: {self._waiting()}")
        draw = self._random
        for _ in range(len(ready)):
            if draw is not None and (count := len(ready)) > 1:
                chosen = int(draw() * count)
                ready[chosen], ready[0] = ready[0], ready[chosen]
            handle = ready.popleft()
            if handle._cancelled:  # noqa: SLF001
                continue
            if self._frozen and self._is_frozen(handle):
                self._suspended_callbacks.append(handle)
                continue
            handle._run()  # noqa: SLF001

    def _advance(self) -> None:
        """Advances time to the next timer."""
        timers = self._timers
        if not timers:
            frozen = f"; frozen: {', '.join(sorted(self._frozen))}" if self._frozen else ""
            raise StuckError(f"nothing is ready and no timer runs{frozen}; waiting: {self._waiting()}")
        if timers[0][0] > self._time:
            self._time = timers[0][0]
            self._idle_callbacks = 0

    def _waiting(self) -> str:
        """The waiting tasks, and where they wait."""
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        return "; ".join(f"{task.get_name()} at {_place(task)}" for task in tasks) or "nothing"


def _new_task(loop: asyncio.AbstractEventLoop, coro: Any, **named: Any) -> asyncio.Task[Any]:
    assert isinstance(loop, VirtualLoop)
    return _Task(coro, loop=loop, **named)


def _keep_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    loop.failures.append(context)


def _place(task: asyncio.Task[Any]) -> str:
    """File and line of the innermost coroutine of a task."""
    place = "its start"
    inner: Any = task.get_coro()
    while inner is not None:
        kind = next((each for each in ("cr", "ag", "gi") if hasattr(inner, f"{each}_frame")), None)
        frame = getattr(inner, f"{kind}_frame", None)
        if kind is None or frame is None:
            break
        place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        inner = getattr(inner, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return place


def run(main: Coroutine[Any, Any, _T], *, seed: int | None = None) -> _T:
    """Runs a coroutine in virtual time on its own loop, and returns its result.

    Cancels tasks that are left at the end. Raises `StuckError` if time cannot advance, and `InvariantError` if a
    callback or task failed and its error was never retrieved.
    """
    loop = VirtualLoop(seed)
    try:
        try:
            result = loop.run_until_complete(main)
        except BaseException:
            with suppress(StuckError):  # the first error is more informative
                _end(loop)
            raise
        _end(loop)
        if loop.failures:
            first = loop.failures[0]
            raise InvariantError(f"{first['message']}: {first.get('exception')!r}") from first.get("exception")
        return result
    finally:
        loop.close()


def _end(loop: VirtualLoop) -> None:
    """Cancels remaining tasks, and the tasks that these start, and waits for them."""
    loop.thaw_all()
    for _ in range(ENDINGS_MAX):
        left = sorted(asyncio.all_tasks(loop), key=hash)
        if not left:
            break
        for task in left:
            task.cancel()
        for result in loop.run_until_complete(asyncio.gather(*left, return_exceptions=True)):
            if isinstance(result, Exception):
                loop.failures.append({"message": "a task failed when it was cancelled", "exception": result})
    loop.run_until_complete(loop.shutdown_asyncgens())


class VirtualClock:
    """`ports.Clock` on a loop's time. Each process has its own, with a different wall clock and randomness."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start_wall_ms: int = START_WALL_MS, seed: int = 0) -> None:
        self._loop = loop
        self._start_wall_ms = start_wall_ms
        self._random = random.Random(seed)

    def now(self) -> float:
        return self._loop.time()

    def wall_ms(self) -> int:
        """The start plus the loop's time."""
        return self._start_wall_ms + int(self._loop.time() * 1000)

    def chance(self) -> float:
        return self._random.random()
