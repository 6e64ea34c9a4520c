"""What happened in a run, line by line: hashed to compare two runs, kept to show the one that broke."""

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from tests.simulation.money import RULES


class ViolationError(AssertionError):
    """An invariant was broken."""


class Trace:
    """The lines of one run, and the first thing that must not have happened."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[str], object] | None = None) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.broken: asyncio.Future[None] = loop.create_future()
        """Done when an invariant was broken."""
        self.violation: str | None = None
        self._loop = loop
        self._tell = tell
        self._said: list[str] = []

    def add(self, *what: Any) -> None:
        """One line: the time, and what happened."""
        line = (round(self._loop.time(), 6), *what)
        self.lines.append(line)
        if self._tell is not None:
            self._tell(" ".join(str(part) for part in line) + "\n")

    def say(self, line: str) -> None:
        """What a worker has logged."""
        self._said.append(line)
        if self._tell is not None:
            self._tell(f"  {self._loop.time():.6f} {line}\n")

    def violate(self, what: str, rule: str = "") -> None:
        """Ends the run. Raises nothing: the code under test must not be able to catch it. `rule`: of `money.RULES`."""
        what = f"{rule}: {what}" if rule else what
        assert not rule or rule in RULES, rule
        self.add("VIOLATION", what)
        if self.violation is None:
            self.violation = f"at {self._loop.time():.3f} s: {what}"
            if not self._loop.is_closed():
                self.broken.set_result(None)

    def hash(self) -> str:
        """The same for two runs in which the same happened."""
        digest = blake2b(digest_size=16)
        for line in self.lines:
            digest.update(repr(line).encode())
        return digest.hexdigest()

    def tail(self, count: int) -> list[str]:
        """The last lines, and what workers have logged last."""
        return [" ".join(str(part) for part in line) for line in self.lines[-count:]] + self._said[-3:]
