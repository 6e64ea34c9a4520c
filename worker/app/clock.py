"""The system clocks."""

import random
import time

# `time.monotonic` stops while the machine is suspended, but a lease must expire meanwhile.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """`ports.Clock`."""

    def now(self) -> float:
        return time.clock_gettime(_BOOTTIME)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def chance(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret
