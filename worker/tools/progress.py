"""How far a command is, on standard error, from time to time: its output stays its own."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

EVERY_S = 2.0


class Progress:
    """Says how far it is, at most every two seconds; nothing of what is done within the first two."""

    def __init__(self, out: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._out = sys.stderr if out is None else out
        self._now = now
        self._said_at = now()

    def say(self, text: Callable[[], str]) -> None:
        """`text` is asked for only when it is said."""
        now = self._now()
        if now - self._said_at >= EVERY_S:
            self._said_at = now
            self._out.write(text() + "\n")
            self._out.flush()
