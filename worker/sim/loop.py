"""An asyncio loop in which waiting takes no time.

Callbacks run until none is ready; then the loop's time jumps to the next timer. Nothing waits for the world:
there are no sockets, no threads and no signals here. Without a seed callbacks run in the order in which they
became ready; with one in an order that the seed draws, the same in every run.

A coroutine started with `spawn` belongs to a named process, with everything that it starts. A process can be
frozen at any moment, as SIGSTOP does it: its callbacks and its timers wait for `thaw`, while time goes on.
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
"""Callbacks that may run while no time passes; more is taken for a busy loop."""
NUDGE_EVERY = 10_000
NUDGE_S = 1e-6
"""So much time passes with so many callbacks at one moment: code that waits for a rest lost to rounding would spin for
ever (aiolimiter 1.3 sets a timer for now while it lacks 1e-15 of a token); on a real clock it spins once.
"""
ENDINGS_MAX = 100
"""How often what is left is cancelled: a task may start another one when it is."""
PURGE_MIN = 1_000
"""Timers that may be cancelled before the heap is looked through; those that had gone off count too."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_process: ContextVar[str] = ContextVar("process", default="")


class StuckError(InvariantError):
    """Virtual time cannot go on: all wait for what nothing will bring, or something never waits."""


class _Numbered:
    """Hashes by a number: what asyncio does with sets of tasks and futures, it does in the same order each time."""

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
    """The loop. Its time begins at 0 and is in seconds; a timer fires exactly at its time."""

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
        self._held: list[asyncio.Handle] = []
        self.failures: list[dict[str, Any]] = []
        """What nobody caught, as asyncio describes it to exception handlers."""
        self.set_task_factory(_new_task)
        self.set_exception_handler(_keep_failure)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._time

    def next_number(self) -> int:
        """A number that was not given before."""
        self._number += 1
        return self._number

    # Processes

    def spawn(self, process: str, coro: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Starts a task as part of a process. Everything that it starts belongs to the process too."""
        context = copy_context()
        context.run(_process.set, process)
        return self.create_task(coro, context=context)

    def freeze(self, process: str) -> None:
        """Runs nothing of this process until `thaw`. Its timers go off when it is over, late."""
        self._frozen.add(process)

    def thaw(self, process: str) -> None:
        """Lets a process run again."""
        self._frozen.discard(process)
        self._ready += self._held  # those of others that are still frozen come back
        self._held.clear()

    def thaw_all(self) -> None:
        """Lets every process run again."""
        for process in sorted(self._frozen):
            self.thaw(process)

    def _is_frozen(self, handle: asyncio.Handle) -> bool:
        return handle._context.get(_process) in self._frozen  # type: ignore[attr-defined]  # noqa: SLF001

    # What asyncio asks of a loop

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Runs a callback when its turn comes."""
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
            # Lost to rounding. Whoever waits for the rest of a time would wait for ever if none passed.
            when = math.nextafter(self._time, math.inf)
        return self.call_at(when, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Runs a callback at this time; those of one time in the order in which they were asked for."""
        self._check_open()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self.next_number(), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return _Future(loop=self)

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """Raises: a thread takes real time."""
        raise RuntimeError("no threads in virtual time")

    def close(self) -> None:
        """Forgets all that is left."""
        self._timers.clear()
        self._held.clear()
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

    # One round

    def _run_once(self) -> None:
        """Overrides the round of `BaseEventLoop`: no selector, and its own way to pick."""
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
            raise StuckError(f"more than {BUSY_MAX} callbacks and no time passed; waiting: {self._waiting()}")
        draw = self._random
        for _ in range(len(ready)):
            if draw is not None and (count := len(ready)) > 1:
                chosen = int(draw() * count)
                ready[chosen], ready[0] = ready[0], ready[chosen]
            handle = ready.popleft()
            if handle._cancelled:  # noqa: SLF001
                continue
            if self._frozen and self._is_frozen(handle):
                self._held.append(handle)
                continue
            handle._run()  # noqa: SLF001

    def _advance(self) -> None:
        """Jumps to the next timer."""
        timers = self._timers
        if not timers:
            frozen = f"; frozen: {', '.join(sorted(self._frozen))}" if self._frozen else ""
            raise StuckError(f"nothing is ready and no timer runs{frozen}; waiting: {self._waiting()}")
        if timers[0][0] > self._time:
            self._time = timers[0][0]
            self._idle_callbacks = 0

    def _waiting(self) -> str:
        """Which tasks wait, and where."""
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        return "; ".join(f"{task.get_name()} at {_place(task)}" for task in tasks) or "nothing"


def _new_task(loop: asyncio.AbstractEventLoop, coro: Any, **named: Any) -> asyncio.Task[Any]:
    assert isinstance(loop, VirtualLoop)
    return _Task(coro, loop=loop, **named)


def _keep_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    loop.failures.append(context)


def _place(task: asyncio.Task[Any]) -> str:
    """File and line of the innermost coroutine that a task is in."""
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
    """The result of a coroutine, run in virtual time on a loop of its own.

    Tasks that are left when it ends are cancelled. Raises `StuckError` when time cannot go on, and
    `InvariantError` when a callback or a task failed and nobody asked what became of it.
    """
    loop = VirtualLoop(seed)
    try:
        try:
            result = loop.run_until_complete(main)
        except BaseException:
            with suppress(StuckError):  # what is wrong is known already
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
    """Cancels what is left, and what that starts, and waits for it."""
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
    """`ports.Clock` of a loop's time. Each process takes its own: their wall clocks and chances differ."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start_wall_ms: int = START_WALL_MS, seed: int = 0) -> None:
        self._loop = loop
        self._start_wall_ms = start_wall_ms
        self._random = random.Random(seed)

    def now(self) -> float:
        """Seconds of the loop."""
        return self._loop.time()

    def wall_ms(self) -> int:
        """UTC milliseconds: the start, and the loop's time since its 0."""
        return self._start_wall_ms + int(self._loop.time() * 1000)

    def chance(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()
