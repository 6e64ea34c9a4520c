"""`cartsync dlq …`: the dead letters, from their topic: no console has to run, and no worker."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import Struct

from schemas.console import LetterRow
from worker.config.console import ConsoleConfig
from worker.core.letters import Marker, read_marker
from worker.core.placing import Placing, placing_of
from worker.core.trust import Trust
from worker.errors import UsageError
from worker.kafka.client import Connection
from worker.kafka.replaying import letters, markers
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


class Desk(Struct, frozen=True):
    """Our topics, to somebody who deals with dead letters."""

    connection: Connection
    partitions: int
    """Of the dead-letter topic."""
    event_partitions: int
    trust: Trust | None
    """`None`: whom workers believe is not known here."""
    placing: Placing | None

    @property
    def event_topic(self) -> str:
        """Its name."""
        return self.connection.settings.event_topic

    async def walk(
        self, progress: Progress, *, partition: int | None = None, begin: int = 0
    ) -> AsyncGenerator[Letter, None]:
        """Letters, oldest first in each partition, and whether they were dealt with. Memory holds the markers of one
        partition, not the letters. Raises `LogError`.
        """
        for each in range(self.partitions) if partition is None else [partition]:
            handled = await markers(self.connection, each, begin)
            async with aclosing(letters(self.connection, each, begin)) as found:
                async for record in found:
                    progress.say(lambda: f"partition {each + 1} of {self.partitions}: offset {record.offset}")  # noqa: B023
                    if read_marker(record.headers) is None:
                        yield letter_of(each, record, handled.get(record.offset))

    async def letter(self, place: Place) -> Letter:
        """One. Raises `UsageError` when there is none, `LogError`."""
        if place.partition < self.partitions:
            async with aclosing(letters(self.connection, place.partition, place.offset)) as found:
                record = await anext(found, None)
            if record is not None and record.offset == place.offset and read_marker(record.headers) is None:
                handled = await markers(self.connection, place.partition, place.offset)
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
    """Looks at the topics. Raises `UsageError` when one is missing, `ConfigError`, `LogError`."""
    settings = for_a_person(config.kafka)
    connection = Connection(settings)
    topics = await topics_now(connection)
    for name in (settings.dead_letter_topic, settings.event_topic):
        if name not in topics:
            raise UsageError(f"topic {name} does not exist, or we may not describe it; see `cartsync topics check`")
    return Desk(
        connection,
        topics[settings.dead_letter_topic].partitions,
        topics[settings.event_topic].partitions,
        trust,
        placing_of(settings.partitioner, settings.event_key),
    )
