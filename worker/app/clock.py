"""The clocks of this machine."""

import random
import time

# `time.monotonic` stops while the machine is suspended: a lease must not live through that.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """`ports.Clock`."""

    def now(self) -> float:
        """Seconds, suspends included."""
        return time.clock_gettime(_BOOTTIME)

    def wall_ms(self) -> int:
        """UTC milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def chance(self) -> float:
        """A number in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not a secret
