"""Our topics for those who read along: the console. Committed records, no group, nothing is written."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from worker.errors import LogError
from worker.kafka.client import (
    AIOKafkaConsumer,
    Connection,
    TopicPartition,
    as_cartsync_error,
    as_log_error,
    kafka_errors,
    stop_consumer,
)
from worker.kafka.decoding import Intake
from worker.kafka.metadata import describe_topics
from worker.kafka.settings import KafkaSettings
from worker.ports import Chunk, Place, StoredRecord, TopicFound, TopicName, UndecodableRecord

_FETCH_MAX_BYTES = 2 * 2**20
"""Of each partition in each answer: what is fetched ahead stays within some megabytes of each."""
_READ_RECORDS_MAX = 2_000
_PICKED_AHEAD = 200
"""Records after one that is wanted: others that are may be among them."""
_LOOK_WITHIN_S = 10.0
_RECORD_WITHIN_S = 10.0
_CLOSE_WITHIN_S = 3.0


class KafkaRecords:
    """ports.Records."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises `ConfigError` when the settings cannot be used."""
        self._settings = settings
        self._connection = Connection(settings)
        self._names: dict[TopicName, str] = {
            "state": settings.state_topic,
            "dead_letters": settings.dead_letter_topic,
        }
        if settings.results_topic:
            self._names["results"] = settings.results_topic
        if settings.history:
            self._names["history"] = settings.history
        self._roles = {name: role for role, name in self._names.items()}
        self._reader: Any = None
        """Reads along."""
        self._asker: Any = None
        """Asks how far the topics go. The reader would have each answer only after the fetch that is under way, for
        which a broker waits for half a second while there is nothing new.
        """
        self._picker: Any = None
        """Reads single records."""
        self._picking = asyncio.Lock()
        self._read_until: dict[Any, int] = {}

    async def start(self) -> None:
        """Connects."""
        self._reader, self._asker, picker = self._consumer(), self._consumer(), self._consumer()
        try:
            for consumer in (self._reader, self._asker, picker):
                await self._connection.start(consumer)
        except BaseException:
            await stop_consumer(picker, _CLOSE_WITHIN_S)
            await self.stop()
            raise
        self._picker = picker  # pages ask at any time: only now can it answer

    def _consumer(self) -> Any:
        consumer = AIOKafkaConsumer(
            **self._connection.options(self._settings.request_timeout_s),
            isolation_level="read_committed",
            auto_offset_reset="earliest",  # what retention has taken meanwhile is gone
            enable_auto_commit=False,
            key_deserializer=Intake(),
            max_partition_fetch_bytes=_FETCH_MAX_BYTES,
        )
        self._connection.follow(consumer._client)  # noqa: SLF001 - nothing public has it
        return consumer

    async def topics(self) -> Mapping[TopicName, TopicFound]:
        """The topics that there are, with their ends as readers of committed records see them."""
        seen = await describe_topics(self._asker._client, list(self._roles), _LOOK_WITHIN_S)  # noqa: SLF001 - nothing public
        places = [
            TopicPartition(name, partition)
            for name, topic in seen.topics.items()
            for partition in range(topic.partitions)
        ]
        begins, ends = await self._offsets(places)
        return {
            self._roles[name]: TopicFound(
                name,
                topic.id,
                {
                    place.partition: (begins[place], ends[place])
                    for place in places
                    if place.topic == name and place in begins and place in ends
                },
            )
            for name, topic in seen.topics.items()
        }

    async def _offsets(self, places: Sequence[Any]) -> tuple[dict[Any, int], dict[Any, int]]:
        if not places:
            return {}, {}
        for topic in {place.topic for place in places}:  # or it asks for them one by one, 0.1 s each
            self._asker._client.add_topic(topic)  # noqa: SLF001 - nothing public
        try:
            return await self._asker.beginning_offsets(places), await self._asker.end_offsets(places)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_log_error(error, "asking for the ends of the topics") from error

    def seek(self, positions: Mapping[Place, int]) -> None:
        """What `read` reads from now on."""
        self._read_until = {
            TopicPartition(self._names[topic], partition): at for (topic, partition), at in positions.items()
        }
        self._reader.assign(list(self._read_until))
        for place, offset in self._read_until.items():
            self._reader.seek(place, offset)

    async def read(self, within_s: float) -> list[Chunk]:
        """What follows."""
        try:
            fetched = await self._reader.getmany(timeout_ms=round(1000 * within_s), max_records=_READ_RECORDS_MAX)
            chunks = []
            for place, before in self._read_until.items():
                # The position moves without a record, too: past markers, and what was aborted or compacted away.
                if (position := await self._reader.position(place)) == before:
                    continue
                self._read_until[place] = position
                records = [_stored(each) for each in fetched.get(place, ()) if type(each) is not UndecodableRecord]
                chunks.append(Chunk(self._roles[place.topic], place.partition, records, position))
            return chunks
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_cartsync_error(error, "reading along") from error

    async def record(self, place: Place, offset: int) -> StoredRecord | None:
        """One record, read from Kafka now."""
        found = await self.picked(place, [offset])
        return found[0] if found else None

    async def picked(self, place: Place, offsets: Sequence[int]) -> list[StoredRecord]:
        """Some records, read from Kafka now."""
        here = TopicPartition(self._names[place[0]], place[1])
        async with self._picking:
            consumer = self._picker
            if consumer is None:
                raise LogError("Kafka cannot be read now; reload in a moment")
            try:
                async with asyncio.timeout(_RECORD_WITHIN_S):
                    consumer.assign([here])
                    return await _picked(consumer, here, sorted(offsets))
            except (kafka_errors.KafkaError, TimeoutError) as error:
                raise as_log_error(error, f"reading a record of {here.topic}") from error
            finally:
                consumer.unsubscribe()

    async def input_ends(self) -> Mapping[int, int]:
        """The ends of the event topic."""
        topic = self._settings.event_topic
        seen = await describe_topics(self._asker._client, [topic], _LOOK_WITHIN_S)  # noqa: SLF001 - nothing public has it
        if topic not in seen.topics:
            raise LogError(f"topic {topic} is missing, or we may not describe it")
        places = [TopicPartition(topic, partition) for partition in range(seen.topics[topic].partitions)]
        _, ends = await self._offsets(places)
        return {place.partition: end for place, end in ends.items()}

    async def stop(self) -> None:
        """Disconnects."""
        consumers = (self._reader, self._asker, self._picker)
        self._reader = self._asker = self._picker = None
        for consumer in consumers:
            if consumer is not None:
                await stop_consumer(consumer, _CLOSE_WITHIN_S)


async def _picked(consumer: Any, here: Any, offsets: list[int]) -> list[StoredRecord]:
    """Those of these offsets, in ascending order, that are there: with one that is read come those that follow soon."""
    found: list[StoredRecord] = []
    position = -1
    for index, offset in enumerate(offsets):
        if offset < position:
            continue  # it was read, or is not there
        consumer.seek(here, offset)
        wanted = set(offsets[index:])
        while True:
            fetched = await consumer.getmany(here, timeout_ms=500, max_records=_PICKED_AHEAD if len(wanted) > 1 else 1)
            records = fetched.get(here, ())
            found += [
                _stored(each) for each in records if each.offset in wanted and type(each) is not UndecodableRecord
            ]
            position = await consumer.position(here)
            stable = consumer.last_stable_offset(here)
            if position > offset or (stable is not None and stable <= offset):
                break
    return found


def _stored(record: Any) -> StoredRecord:
    return StoredRecord(record.offset, record.timestamp, record.key, record.value, record.headers)
