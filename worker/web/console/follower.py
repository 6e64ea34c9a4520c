"""Feeds the index: reads our topics along, from where it was left, for as long as the console runs.

First state and dead letters, then the results, of which there may be many more. Kafka may be away, or topics may be
made again meanwhile: the pages show what was read until then, and say so.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Literal, Protocol

import structlog

from worker.errors import CartsyncError, ConfigError, LogError
from worker.ports import Chunk, Place, Records, TopicFound, TopicName
from worker.web.console.index import Index, Topics
from worker.web.console.rows import StateLines

log = structlog.get_logger(__name__)

READ_WITHIN_S = 0.5
TICK_S = 1.0
LAG_S = 5.0
LOOK_S = 30.0
"""How often it is looked whether the topics are still the same ones."""
AGAIN_S = (1.0, 2.0, 5.0, 10.0)
"""After a failure; the last one again and again."""
INDEX_FAILED = "the index cannot be written"
_SLICE = 500
"""Records after which others have the loop: some 10 ms."""
_FIRST: tuple[TopicName, ...] = ("state", "dead_letters")
_AHEAD_MAX = 16
"""Slices that were read and wait for rows of an older one."""
_WORTH_HELP = 10_000
"""Records to be read, from which on help is asked for."""
_INTERRUPT_EACH_S = 0.1
_HELP_WITHIN_S = 1.0
"""Then we compute ourselves what was asked for."""


class Assistant(Protocol):
    """Computes rows beside us."""

    def lines(self, chunk: Chunk) -> "asyncio.Future[StateLines | None] | None":
        """What a chunk of the state topic comes to; `None`: it has enough to do, or could not do it."""


Assistance = Callable[[], AbstractAsyncContextManager[Assistant | None]]


class Follower:
    """Reads along, from `run` on. `assistance`: whose help it has while the index is built."""

    def __init__(self, records: Records, index: Index, assistance: Assistance = nullcontext) -> None:
        self._records = records
        self._index = index
        self._assistance = assistance
        self._ahead: deque[tuple[Chunk, asyncio.Future[StateLines | None] | StateLines | None]] = deque()
        """Slices that are not in the index yet; of some, their rows are known, or on their way."""
        self._positions: dict[Place, int] = {}
        self._ends: dict[Place, tuple[int, int]] = {}
        self._total = 0
        """Records to be read when reading began."""
        self._said_at = 0.0
        self._ends_seen: dict[Place, int] = {}
        """At the last look."""
        self._wanted: tuple[float, dict[Place, int]] | None = None
        """A look whose ends have not all been read yet, and when it was."""
        self._read_until = time.monotonic()
        self._failures = 0
        """In a row, with nothing read between them."""
        self.detail = "connecting to Kafka"
        """Why nothing is read now; empty: something is."""
        self.input_ends: Mapping[int, int] | None = None
        """By partition of the event topic; `None`: not known."""

    @property
    def state(self) -> Literal["building", "following", "away"]:
        """How it stands with the index."""
        if self.detail:
            return "away"
        return "following" if self._index.is_complete else "building"

    def progress(self) -> tuple[int, int]:
        """How many offsets are not read yet, and how many there were when reading began."""
        behind = sum(max(0, end - self._positions.get(place, begin)) for place, (begin, end) in self._ends.items())
        return behind, max(self._total, behind)

    def behind(self) -> dict[str, int]:
        """By topic, how many offsets were not read yet when the ends were last looked at."""
        found: dict[str, int] = dict.fromkeys((name for name, _ in self._ends_seen), 0)
        for place, end in self._ends_seen.items():
            found[place[0]] += max(0, end - self._positions.get(place, 0))
        return found

    def behind_s(self) -> float:
        """For how long not all orders and dead letters that there are have been read; up to `LAG_S` more."""
        return max(0.0, time.monotonic() - self._read_until)

    async def run(self) -> None:
        """Until it is cancelled. Raises `ConfigError` when Kafka refuses us."""
        while True:
            try:
                await self._records.start()
                await self._follow()
            except ConfigError:
                raise
            except (CartsyncError, sqlite3.Error) as error:
                # A full disk, or a file that is damaged: as with Kafka, what was read is shown until it is mended.
                is_index = isinstance(error, sqlite3.Error)
                self._away(f"{INDEX_FAILED}: {error}" if is_index else str(error))
                await asyncio.sleep(AGAIN_S[min(self._failures, len(AGAIN_S) - 1)])
                self._failures += 1
            finally:
                await self._records.stop()

    def _away(self, why: str) -> None:
        if self.detail != why:
            log.warning("console_kafka_away", error=why)
        self.detail = why

    async def _follow(self) -> None:
        """Until the topics are other ones than before. Raises `LogError`."""
        found = await self._records.topics()
        if "state" not in found:
            raise LogError("the state topic is missing, or we may not describe it; `cartsync topics check` says more")
        topics = _topics(found)
        self._ends = {(name, p): ends for name, topic in found.items() for p, ends in topic.ends.items()}
        self._positions = self._index.begin(topics, self._ends)
        self._wanted = None
        self._see(found)
        self._total = self.progress()[0]
        self.detail = ""
        first = {place: at for place, at in self._positions.items() if place[0] in _FIRST}
        self._records.seek(first)
        self._ahead.clear()
        has_all = False
        now = time.monotonic
        tick_at, lag_at, look_at = now() + TICK_S, now(), now() + LOOK_S
        async with AsyncExitStack() as building:
            assistant = None
            if not self._index.is_complete and self._total >= _WORTH_HELP:
                assistant = await building.enter_async_context(self._assistance())
            while True:
                found_now = await self._records.read(READ_WITHIN_S)
                await self._take(found_now, assistant)
                if found_now:
                    self._failures = 0
                if not has_all and self._has(first, self._positions):
                    has_all, assistant = True, None
                    await building.aclose()
                    await self._complete()
                    log.info("console_index_ready", path=str(self._index.path))
                    self._records.seek(self._positions)
                if now() >= tick_at:
                    tick_at = now() + TICK_S
                    self._tick()
                if now() >= lag_at:
                    lag_at = now() + LAG_S
                    await self._look_at_input()
                    self._see(await self._records.topics())
                    self._failures = 0
                if now() >= look_at:
                    look_at = now() + LOOK_S
                    found = await self._records.topics()
                    if _topics(found) != topics:
                        return
                    begins = {(name, p): ends[0] for name, topic in found.items() for p, ends in topic.ends.items()}
                    self._index.forget_before(begins)

    async def _complete(self) -> None:
        """Takes seconds with a million orders, in which pages are answered."""
        completing = asyncio.ensure_future(asyncio.to_thread(self._index.caught_up))
        try:
            await asyncio.shield(completing)
        except asyncio.CancelledError:
            while not completing.done():  # again: it ends only what SQLite is at just then
                self._index.interrupt()
                await asyncio.wait([completing], timeout=_INTERRUPT_EACH_S)
            completing.exception()  # as was to be expected
            raise

    def _see(self, found: Mapping[TopicName, TopicFound]) -> None:
        """What there is to be read now."""
        self._ends_seen = {(name, p): end for name, topic in found.items() for p, (_, end) in topic.ends.items()}
        if self._wanted is None:
            self._wanted = (
                time.monotonic(),
                {place: end for place, end in self._ends_seen.items() if place[0] in _FIRST},
            )

    def _has(self, places: Mapping[Place, int], positions: Mapping[Place, int]) -> bool:
        """Whether these are at least where the topics ended when reading began."""
        return all(positions[place] >= self._ends[place][1] for place in places)

    async def _take(self, chunks: list[Chunk], assistant: Assistant | None) -> None:
        for chunk in chunks:
            for part in _slices(chunk):
                self._ahead.append((part, self._lines(part, assistant)))
                await asyncio.sleep(0)
                await self._apply(_AHEAD_MAX)
        read = {(part.topic, part.partition): part.next_offset for part, _ in self._ahead}
        if not chunks or self._has(read, read):
            await self._apply(0)

    def _lines(
        self, part: Chunk, assistant: Assistant | None
    ) -> "asyncio.Future[StateLines | None] | StateLines | None":
        if assistant is None or part.topic != "state":
            return None
        # Who has time: one who is slow, or gone, has enough to do.
        return assistant.lines(part) or self._index.lines_of(part)

    async def _apply(self, left_max: int) -> None:
        """In their order; waits for rows when more than so many slices are left."""
        while self._ahead:
            part, lines = self._ahead[0]
            if isinstance(lines, asyncio.Future):
                if not lines.done() and len(self._ahead) <= left_max:
                    return
                done, _ = await asyncio.wait([lines], timeout=_HELP_WITHIN_S)
                lines = lines.result() if done else None
            self._index.apply([part], lines, more_follows=not self._index.is_complete)
            self._ahead.popleft()
            self._positions[part.topic, part.partition] = part.next_offset
            await asyncio.sleep(0)

    def _tick(self) -> None:
        self._index.keep_time()
        if self._wanted is not None:
            seen_at, ends = self._wanted
            if all(self._positions.get(place, 0) >= end for place, end in ends.items()):
                self._read_until, self._wanted = seen_at, None
        behind, total = self.progress()
        if not self._index.is_complete and time.monotonic() - self._said_at > LOOK_S / 3:
            self._said_at = time.monotonic()
            log.info("console_index_building", read=total - behind, of=total)

    async def _look_at_input(self) -> None:
        """Lag is worth knowing, not worth failing for: we need not be allowed to describe the event topic."""
        try:
            self.input_ends = await self._records.input_ends()
        except LogError as error:
            self.input_ends = None
            log.debug("console_lag_unknown", error=str(error))


def _slices(chunk: Chunk) -> Iterator[Chunk]:
    records = chunk.records
    for start in range(0, max(1, len(records)), _SLICE):
        part = records[start : start + _SLICE]
        is_last = start + _SLICE >= len(records)
        yield Chunk(chunk.topic, chunk.partition, part, chunk.next_offset if is_last else part[-1].offset + 1)


def _topics(found: Mapping[TopicName, TopicFound]) -> Topics:
    return Topics(
        {name: topic.name for name, topic in found.items()},
        {name: topic.id for name, topic in found.items()},
        {name: len(topic.ends) for name, topic in found.items()},
    )
