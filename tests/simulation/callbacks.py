"""The receiver of callbacks, and the way there: calls come late, twice, in another order, or never.

They are read by the production code, signed, and written beside what the shop writes.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from random import Random

from msgspec.structs import replace

from tests.simulation.trace import Trace
from worker.core.trust import HEADER, Trust
from worker.model.callbacks import Called, Push
from worker.providers.callbacks import cloud_event
from worker.providers.registry import CALLBACKS
from worker.sim.loop import START_WALL_MS

TRUST = Trust(("what the receiver of the simulation signs with",))
Append = Callable[[bytes, bytes, list[tuple[str, bytes]]], object]
"""Writes key, value and headers into the event topic."""


class Callbacks:
    """All calls of all providers."""

    def __init__(self, random: Random, trace: Trace, providers: Mapping[str, str], *, lost: float) -> None:
        """`providers`: by account. `lost`: how many of the calls never come."""
        self.lost = lost
        self.is_calm = False
        self.append: Append
        self.under_way = 0
        self._random = random
        self._trace = trace
        self._providers = providers
        self._loop = asyncio.get_running_loop()
        self._outside = Context()

    def wall_ms(self) -> int:
        """UTC milliseconds, as the providers have them."""
        return START_WALL_MS + int(self._loop.time() * 1000)

    def call(self, called: Called) -> bool:
        """A provider calls; False: it will never be heard."""
        random = self._random
        if not self.is_calm and random.random() < self.lost:
            self._trace.add("callback lost", called.account, called.reference)
            return False
        for _ in range(1 if self.is_calm else random.choice((1, 1, 1, 2))):
            delay_s = 0.01 if self.is_calm else random.choice((0.01, 0.3, 5.0, 40.0)) * random.random()
            self.under_way += 1
            self._loop.call_later(delay_s, self._arrive, called, context=self._outside)
        return True

    def _arrive(self, called: Called) -> None:
        self.under_way -= 1
        reading = CALLBACKS[self._providers[called.account]].read(replace(called, arrived_ms=self.wall_ms()))
        if not isinstance(reading, Push) or not reading.said:
            self._trace.violate(f"a callback of {called.account} is read as {type(reading).__name__}")
            return
        for said in reading.said:
            subject, value = cloud_event(called, said)
            self._trace.add("called back", subject, said.type, *said.known_by)
            key = subject.encode()
            self.append(key, value, [(HEADER, TRUST.sign(key, value))])
