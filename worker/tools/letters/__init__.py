"""`cartsync dlq …`: the dead letters, from their topic: no console has to run, and no worker."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

from msgspec import Struct

from schemas.console import LetterRow
from worker.backend import find_orders
from worker.config.console import ConsoleConfig
from worker.core.letters import Marker, read_marker
from worker.core.placing import Placing, placing_of
from worker.core.trust import Trust
from worker.errors import UsageError
from worker.kafka.client import Connection
from worker.kafka.replaying import Replay, Replayer, letters
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import topics_now
from worker.ports import StoredRecord
from worker.tools.patience import for_a_person
from worker.tools.progress import Progress
from worker.web.console.rows import letter_line

_PLACE = re.compile(r"(\d{1,9})/(\d{1,18})", re.ASCII)


class Place(Struct, frozen=True, order=True):
    """Where a letter is in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


def place_of(text: str) -> Place:
    """Of `PARTITION/OFFSET`, as lists have it. Raises `UsageError`."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text}: expected PARTITION/OFFSET of a dead letter, as `cartsync dlq list` prints it")
    return Place(int(found[1]), int(found[2]))


class Letter(Struct, frozen=True):
    """A dead letter."""

    place: Place
    row: LetterRow
    record: StoredRecord


class Writes(Protocol):
    """`kafka.replaying.Replayer`: one partition of the dead-letter topic; nobody else marks letters of it meanwhile."""

    async def open(self) -> None:
        """Fences everybody who replays letters of this partition. Raises `LogError`, `ConfigError`."""
        ...

    async def write(self, replays: Sequence[Replay]) -> list[int]:
        """All events with their markers, or nothing; offsets, -1 for none. Raises `FencedError`, `LogError`."""
        ...

    async def close(self) -> None:
        """Ends it. Never raises."""
        ...


class Desk(Struct, frozen=True):
    """Our topics, to somebody who deals with dead letters."""

    letters: Callable[[int, int], AsyncGenerator[StoredRecord, None]]
    """The records of a partition of the dead-letter topic from an offset on, markers among them. Raises `LogError`."""
    writes: Callable[[int, str, str], Writes]
    """To a partition of it: who, and why."""
    placed: Callable[[str], Awaitable[list[int]]]
    """The partitions where an order's state is. Raises `LogError`."""
    event_topic: str
    partitions: int
    """Of the dead-letter topic."""
    event_partitions: int
    trust: Trust | None
    """`None`: whom workers believe is not known here."""
    placing: Placing | None

    async def markers(self, partition: int, begin: int = 0) -> dict[int, Marker]:
        """By offset of the letter, what was dealt with. Raises `LogError`."""
        found: dict[int, Marker] = {}
        async with aclosing(self.letters(partition, begin)) as records:
            async for record in records:
                if (marker := read_marker(record.headers)) is not None:
                    found.setdefault(marker.offset, marker)
        return found

    async def walk(
        self, progress: Progress, *, partition: int | None = None, begin: int = 0
    ) -> AsyncGenerator[Letter, None]:
        """Letters, oldest first in each partition, and whether they were dealt with. Memory holds the markers of one
        partition, not the letters. Raises `LogError`.
        """
        for each in range(self.partitions) if partition is None else [partition]:
            handled = await self.markers(each, begin)
            async with aclosing(self.letters(each, begin)) as found:
                async for record in found:
                    progress.say(lambda: f"partition {each + 1} of {self.partitions}: offset {record.offset}")  # noqa: B023
                    if read_marker(record.headers) is None:
                        yield letter_of(each, record, handled.get(record.offset))

    async def letter(self, place: Place) -> Letter:
        """One. Raises `UsageError` when there is none, `LogError`."""
        if place.partition < self.partitions:
            async with aclosing(self.letters(place.partition, place.offset)) as found:
                record = await anext(found, None)
            if record is not None and record.offset == place.offset and read_marker(record.headers) is None:
                handled = await self.markers(place.partition, place.offset)
                return letter_of(place.partition, record, handled.get(place.offset))
        raise UsageError(
            f"no dead letter at offset {place.offset} of partition {place.partition}; retention may have taken it "
            "(`cartsync dlq list` prints those that there are)"
        )


def letter_of(partition: int, record: StoredRecord, marker: Marker | None) -> Letter:
    """A record of the dead-letter topic."""
    line = letter_line(partition, record.offset, record.timestamp_ms, record.value, list(record.headers))
    row = LetterRow(*line, handled="" if marker is None else marker.handling)
    return Letter(Place(partition, record.offset), row, record)


async def open_desk(config: ConsoleConfig, trust: Trust | None) -> Desk:
    """As `desk_on`."""
    return await desk_on(for_a_person(config.kafka), trust)


async def desk_on(settings: KafkaSettings, trust: Trust | None) -> Desk:
    """Looks at the topics. Raises `UsageError` when one is missing, `ConfigError`, `LogError`."""
    connection = Connection(settings)
    topics = await topics_now(connection)
    for name in (settings.dead_letter_topic, settings.event_topic):
        if name not in topics:
            raise UsageError(f"topic {name} does not exist, or we may not describe it; see `cartsync topics check`")

    async def placed(subject: str) -> list[int]:
        found = await find_orders(settings, lambda other: other == subject, lambda _behind, _total: None)
        return [partition for partition, *_ in found]

    return Desk(
        partial(letters, connection),
        partial(Replayer, connection),
        placed,
        settings.event_topic,
        topics[settings.dead_letter_topic].partitions,
        topics[settings.event_topic].partitions,
        trust,
        placing_of(settings.partitioner, settings.event_key),
    )
