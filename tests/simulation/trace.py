"""What happened in a run, line by line: hashed to compare two runs, kept to show the one that broke."""

import asyncio
from hashlib import blake2b
from typing import Any


class ViolationError(AssertionError):
    """An invariant was broken."""


class Trace:
    """The lines of one run, and the first thing that must not have happened."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.broken: asyncio.Future[None] = loop.create_future()
        """Done when an invariant was broken."""
        self.violation: str | None = None
        self._loop = loop

    def add(self, *what: Any) -> None:
        """One line: the time, and what happened."""
        self.lines.append((round(self._loop.time(), 6), *what))

    def violate(self, what: str) -> None:
        """Ends the run. Raises nothing: the code under test must not be able to catch it."""
        self.add("VIOLATION", what)
        if self.violation is None:
            self.violation = f"at {self._loop.time():.3f} s: {what}"
            self.broken.set_result(None)

    def hash(self) -> str:
        """The same for two runs in which the same happened."""
        digest = blake2b(digest_size=16)
        for line in self.lines:
            digest.update(repr(line).encode())
        return digest.hexdigest()

    def tail(self, count: int, about: str = "") -> list[str]:
        """The last lines, of those that speak of something."""
        texts = [" ".join(str(part) for part in line) for line in self.lines]
        return [text for text in texts if about in text][-count:]
