"""What a measured process takes while it works, seen from inside: time, memory, and how late its loop is."""

import asyncio
import os
import time

from tests.bench.processes import Watch
from tests.bench.restoring import resident_bytes

_EVERY_S = 0.002
_LOOK_EVERY = 50
"""Ticks between two looks at memory and files, which cost more than a tick."""
_MIB = 2**20

Reading = dict[str, float]
"""`clock_s`, `cpu_s`, `memory_mb` (grown by, at most), `lag_ms` (99th percentile), `files` (open at once, at most)."""


def percentile(lags_s: list[float], percent: int, every_s: float = _EVERY_S) -> float:
    """How late a timer is that may be due at any moment. A loop that is held for long misses many of those that tick:
    each of them counts, not only the one that found out.
    """
    samples: list[float] = []
    for lag_s in lags_s:
        samples.append(lag_s)
        samples += [lag_s - missed * every_s for missed in range(1, int(lag_s / every_s) + 1)]
    samples.sort()
    return samples[min(len(samples) - 1, len(samples) * percent // 100)]


class Meter:
    """From its making until it is read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watch = Watch()
        self._before_bytes = self._most_bytes = resident_bytes()
        self._files = 0
        self._lags_s: list[float] = [0.0]
        self._own_s = 0.0
        """CPU that went into measuring."""
        self._cpu_s = time.thread_time()
        self._tick_at(time.perf_counter())

    def _tick_at(self, now: float) -> None:
        self._due = now + _EVERY_S
        self._timer = self._loop.call_later(_EVERY_S, self._tick)

    def _tick(self) -> None:
        now, cpu_s = time.perf_counter(), time.thread_time()
        # Not later than by what the loop itself was at: what other programs took away is not ours.
        self._lags_s.append(max(0.0, min(now - self._due, cpu_s - self._cpu_s)))
        if len(self._lags_s) % _LOOK_EVERY == 0:
            self._look()
        self._tick_at(time.perf_counter())
        self._cpu_s = time.thread_time()
        self._own_s += self._cpu_s - cpu_s

    def _look(self) -> None:
        self._most_bytes = max(self._most_bytes, resident_bytes())
        self._files = max(self._files, len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names suffice, hundreds of them

    def read(self) -> Reading:
        """What it took; the meter stops."""
        self._timer.cancel()
        clock_s, cpu_s = self._watch.read()
        self._look()
        return {
            "clock_s": clock_s,
            "cpu_s": cpu_s - self._own_s,
            "memory_mb": (self._most_bytes - self._before_bytes) / _MIB,
            "lag_ms": 1000 * percentile(self._lags_s, 99),
            "files": self._files,
        }
