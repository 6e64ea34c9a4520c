"""The state topic: one fenced transactional producer per owned partition, and a reader to restore from.

What our transactions must respect (aiokafka 0.14.0, measured with Kafka 4.3.1):

* A commit after a failed send succeeds, and commits half a transaction; and the producer is left with a sequence gap,
  so that all later sends fail while commits still succeed, even after an abort. So every send is awaited and checked
  before the commit, and a writer is never used again after any failure.
* A fenced producer raises `ProducerFenced` once, and a bare `AssertionError` from then on. `ProducerFenced` does not
  prove another owner: our own transaction raises it too if it exceeded its timeout.
* A commit has no timeout of its own, and never returns once the producer was stopped.
* The first send of a transaction that closely follows another one is rejected once, and the library then sleeps 20 ms:
  the number of transactions counts, not their size.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from msgspec import Struct

from schemas import history
from schemas.history import HistoryEntry
from schemas.state import ORDER_PREFIX, Deployment
from worker.core.story import Written, kept_of
from worker.errors import ConfigError, DamagedStateError, GapError, InvariantError, LogError, SizeRefusedError
from worker.kafka.client import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    Connection,
    TopicPartition,
    as_cartsync_error,
    as_log_error,
    kafka_errors,
    stop_consumer,
    stop_producer,
)
from worker.kafka.decoding import Intake
from worker.kafka.metadata import describe_topics
from worker.kafka.settings import Isolation, KafkaSettings, transactional_id
from worker.kafka.topics import Topic, require_topics, topics_now
from worker.ports import DeadLetter, Result, StateEntry, UndecodableRecord

__all__ = ["KafkaPartitionWriter", "KafkaStateLog", "find_entries", "find_orders", "newest_entries"]

KEY_ROOM_BYTES = 8 * 1024
"""The part of `max.message.bytes` reserved for the key and the framing of its batch."""

_BATCH_MAX_BYTES = 2**20
_FETCH_MAX_BYTES = 2 * 2**20
_READ_RECORDS_MAX = 500
"""Takes the event loop for about a millisecond."""
_READ_WAIT_S = 0.5
_HANGING_MARGIN_S = 15.0
"""How long after its timeout a broker may abort a transaction: it checks every 10 s."""
_CLOSE_WITHIN_S = 3.0
_NEWEST = 200
"""How many offsets at the end of a partition are read: enough for its last transactions."""
_WHY_WITHIN_S = 1.0
"""The limit for finding out why a transaction timed out."""
_PATIENCE_S = 30.0
"""How long a command waits for brokers that send nothing."""
_REFUSED_SIZES = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


_Headers = list[tuple[str, bytes]]
_NO_HEADERS: Iterable[_Headers] = repeat([])
_RESULT_HEADERS: Iterable[_Headers] = repeat([("content-type", b"application/cloudevents+json")])
"""Required by CloudEvents' Kafka binding: it tells readers that the mode is structured."""


class _Limits(Struct, frozen=True):
    """The limits of the topics."""

    value_max_bytes: int
    letter_max_bytes: int
    batch_max_bytes: int
    """Before compression, so that no batch can be rejected for its size."""
    dead_letter_partitions: int
    state_partitions: int
    in_sync_min: int
    """How many replicas must be in sync, or the brokers reject writes to the state topic."""
    dead_letter_in_sync_min: int
    result_max_bytes: int = 0
    """0: there is no results topic; the next two are 0 then, too."""
    results_partitions: int = 0
    results_in_sync_min: int = 0
    history_in_sync_min: int = 0
    """0: there is no history topic."""


def _limits_of(settings: KafkaSettings, topics: Mapping[str, Topic]) -> _Limits:
    """Raises `LogError` if a topic is missing now."""
    names = [
        settings.state_topic,
        settings.dead_letter_topic,
        *filter(None, (settings.results_topic, settings.history)),
    ]
    if missing := [name for name in names if name not in topics]:
        raise LogError(f"topic {' and '.join(missing)} is missing")
    ours = [topics[name] for name in names]
    state, dead = ours[:2]
    results, history = topics.get(settings.results_topic), topics.get(settings.history)
    return _Limits(
        value_max_bytes=state.message_max_bytes - KEY_ROOM_BYTES,
        letter_max_bytes=dead.message_max_bytes,
        batch_max_bytes=min(_BATCH_MAX_BYTES, *(topic.message_max_bytes for topic in ours)),
        dead_letter_partitions=dead.partitions,
        state_partitions=state.partitions,
        in_sync_min=_in_sync_min(state),
        dead_letter_in_sync_min=_in_sync_min(dead),
        result_max_bytes=0 if results is None else max(1, results.message_max_bytes - KEY_ROOM_BYTES),
        results_partitions=0 if results is None else results.partitions,
        results_in_sync_min=0 if results is None else _in_sync_min(results),
        history_in_sync_min=0 if history is None else _in_sync_min(history),
    )


def _in_sync_min(topic: Topic) -> int:
    return min(topic.replicas, topic.number("min.insync.replicas") or 1)


class _Shared:
    """Shared by all writers of a process."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.limits: _Limits | None = None
        """`None`: must be fetched (again), because Kafka has rejected something for its size."""

    async def current_limits(self) -> _Limits:
        """The limits, fetched from Kafka if unknown. Raises `LogError`."""
        if self.limits is None:
            self.limits = _limits_of(self.connection.settings, await topics_now(self.connection))
        return self.limits


class KafkaStateLog:
    """`ports.StateLog` on the compacted state topic."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._shared: _Shared | None = None
        self._partitions = 0

    async def start(self) -> None:
        """Raises `TopicError`; `ConfigError` if Kafka rejects us, `LogError` if it does not respond."""
        shared = _Shared(Connection(self._settings))
        shared.limits = limits = _limits_of(
            self._settings, await require_topics(shared.connection, warn=True, writes=True)
        )
        self._partitions = limits.state_partitions
        self._shared = shared

    @property
    def partitions(self) -> int:
        assert self._shared is not None, "start() comes first"
        return self._partitions

    def partition(self, partition: int) -> "KafkaPartitionWriter":
        assert self._shared is not None, "start() comes first"
        return KafkaPartitionWriter(self._shared, partition)

    async def newest(self) -> Mapping[int, Sequence[StateEntry]]:
        assert self._shared is not None, "start() comes first"
        return await newest_entries(self._shared.connection, self.partitions)

    async def stop(self) -> None:
        """Does nothing: the partitions share only settings."""


class KafkaPartitionWriter:
    """`ports.PartitionWriter`: one producer with one epoch, from `fence` to the first failure or `close`."""

    def __init__(self, shared: _Shared, partition: int) -> None:
        self._shared = shared
        self._connection = shared.connection
        self._settings = self._connection.settings
        self._known = shared.limits
        self._partition = partition
        self._producer: Any = None
        self._writing_to = ""
        """The topic that the current transaction is writing to."""
        self._is_usable = False
        self._is_closed = False

    @property
    def _limits(self) -> _Limits:
        assert self._known is not None, "fence() comes first"
        return self._known

    @property
    def value_max_bytes(self) -> int:
        return self._limits.value_max_bytes

    @property
    def letter_max_bytes(self) -> int:
        return self._limits.letter_max_bytes

    @property
    def result_max_bytes(self) -> int:
        return self._limits.result_max_bytes

    async def fence(self, former: Sequence[Deployment] = ()) -> None:
        if self._producer is not None or self._is_closed:
            raise LogError(f"this writer has already fenced partition {self._partition}")
        # The former deployments first: their owners must not commit once we own the partition under our own id.
        for other in former:
            self._producer = await self._fenced(transactional_id(other.prefix, other.event_topic, self._partition))
            await stop_producer(self._producer, _CLOSE_WITHIN_S)
        self._producer = await self._fenced(self._settings.transactional_id(self._partition))
        self._is_usable = not self._is_closed

    async def _fenced(self, name: str) -> Any:
        """Starts a producer: from then on nobody else can commit under its transactional id."""
        settings = self._settings
        try:
            self._known = await self._shared.current_limits()
        except ConfigError as error:  # a permission may have been revoked since the start
            raise LogError(str(error)) from error
        self._producer = producer = AIOKafkaProducer(
            **self._connection.options(settings.request_timeout_s),
            transactional_id=name,
            transaction_timeout_ms=round(1000 * settings.transaction_timeout_s),
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            linger_ms=0,
            max_batch_size=self._limits.batch_max_bytes,
        )
        self._connection.follow(producer.client)
        try:
            async with asyncio.timeout(settings.fence_timeout_s):
                await producer.start()
        except TimeoutError as error:  # a former owner's transaction cannot end, either, with too few replicas in sync
            late = await self._late_topics()
            raise as_log_error(error, f"fencing partition {self._partition}{late}") from error
        except Exception as error:
            raise as_log_error(error, f"fencing partition {self._partition}") from error
        return producer

    async def write(
        self,
        entries: Sequence[tuple[bytes, bytes | None]],
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
        history: Sequence[tuple[bytes, bytes | None]] = (),
    ) -> int:
        if not entries:
            raise InvariantError("a transaction without entries")
        if results and not self._settings.results_topic:
            raise InvariantError("results without a results topic")
        if history and not self._settings.history:
            raise InvariantError("entries of histories without a history topic")
        if not self._is_usable:
            raise LogError(f"this writer of partition {self._partition} is closed")
        self._is_usable = False  # until the commit succeeds; a cancellation counts as a failure, too
        try:
            async with asyncio.timeout(self._settings.commit_timeout_s):
                offset = await self._transact(entries, dead_letters, results, history)
        except LogError:
            raise
        except _REFUSED_SIZES as error:
            self._shared.limits = None  # somebody has lowered max.message.bytes: the next fence reads it again
            raise SizeRefusedError(f"writing partition {self._partition}: {type(error).__name__}: {error}") from error
        except TimeoutError as error:
            late = await self._late_topics(
                with_letters=bool(dead_letters), with_results=bool(results), with_history=bool(history)
            )
            raise as_log_error(error, f"writing partition {self._partition}{late}") from error
        except Exception as error:
            raise as_log_error(error, f"writing partition {self._partition} of {self._writing_to}") from error
        self._is_usable = not self._is_closed
        return offset

    async def _late_topics(
        self, *, with_letters: bool = False, with_results: bool = False, with_history: bool = False
    ) -> str:
        """Why a transaction may have timed out, as text for its error: missing topics, too few replicas in sync."""
        settings, limits = self._settings, self._limits
        parts = {settings.state_topic: (self._partition, limits.in_sync_min)}
        if with_letters:
            dead_partition = self._partition % limits.dead_letter_partitions
            parts[settings.dead_letter_topic] = (dead_partition, limits.dead_letter_in_sync_min)
        if with_results:
            results_partition = self._partition % limits.results_partitions
            parts[settings.results_topic] = (results_partition, limits.results_in_sync_min)
        if with_history:
            parts[settings.history] = (self._partition, limits.history_in_sync_min)
        try:
            seen = await describe_topics(self._producer.client, list(parts), _WHY_WITHIN_S)
        except (LogError, AttributeError):  # closed meanwhile
            return ""
        said = []
        for name, (partition, needed) in parts.items():
            topic = seen.topics.get(name)
            if topic is None:
                said.append(f"topic {name} is gone: recreate it")
            elif (in_sync := topic.in_sync.get(partition, 0)) < needed:
                said.append(f"partition {partition} of {name} has {in_sync} in-sync replicas and needs {needed}")
        return f" ({'; '.join(said)})" if said else ""

    async def _transact(
        self,
        entries: Sequence[tuple[bytes, bytes | None]],
        dead_letters: Sequence[DeadLetter],
        results: Sequence[Result],
        history: Sequence[tuple[bytes, bytes | None]],
    ) -> int:
        """One transaction:

        1. begin, and queue dead letters, results, histories and, last, the state;
        2. wait for every send and raise the first failure, because a commit after a failed send would succeed;
        3. commit, and only then trust the offset of the last batch.
        """
        producer, settings = self._producer, self._settings
        if any(value is not None and len(value) > self.value_max_bytes for _, value in entries):
            raise SizeRefusedError(f"a value above {self.value_max_bytes} bytes")
        sent: list[asyncio.Future[Any]] = []
        await producer.begin_transaction()
        try:
            if dead_letters:
                self._writing_to = settings.dead_letter_topic
                letters = [(letter.key, letter.value) for letter in dead_letters]
                headers = [list(letter.headers) for letter in dead_letters]
                partition = self._partition % self._limits.dead_letter_partitions
                await self._send(settings.dead_letter_topic, partition, letters, sent, headers)
            if results:
                self._writing_to = settings.results_topic
                events = [(result.key, result.value) for result in results]
                partition = self._partition % self._limits.results_partitions
                await self._send(settings.results_topic, partition, events, sent, _RESULT_HEADERS)
            if history:
                self._writing_to = settings.history
                await self._send(settings.history, self._partition, history, sent)
            self._writing_to = settings.state_topic
            last = await self._send(settings.state_topic, self._partition, entries, sent)
            await asyncio.wait(sent, return_when=asyncio.FIRST_EXCEPTION)
            _raise_failed(sent)
        except kafka_errors.IllegalOperation:
            # An earlier send has failed and ended the transaction; this one only reports that there is none. Raise why.
            await asyncio.wait(sent, return_when=asyncio.FIRST_EXCEPTION)
            _raise_failed(sent)
            raise
        finally:
            _forget(sent)
        await producer.commit_transaction()
        base: int = sent[-1].result().offset
        if base < 0:  # DuplicateSequenceNumber: it was written, but the broker no longer knows at which offset
            raise LogError(f"the broker returned no offset for the write to partition {self._partition}")
        return base + last

    async def _send(
        self,
        topic: str,
        partition: int,
        records: Iterable[tuple[bytes | None, bytes | None]],
        sent: list[asyncio.Future[Any]],
        headers: Iterable[_Headers] = _NO_HEADERS,
    ) -> int:
        """Sends the records (key and value) in batches that we build, with one future each; returns the index of the
        last record in its batch. Half the work of `send()`, which creates a future per record.

        The records go to the library's compiled builder, and of its `BatchBuilder` around it only the count is kept:
        its `append` takes as long again.
        """
        now_ms = int(time.time() * 1000)
        batch = self._producer.create_batch()
        append, count = batch._builder.append, 0  # noqa: SLF001 - see above
        for (key, value), given in zip(records, headers, strict=False):  # headers without end
            if append(count, now_ms, key, value, given) is None:
                sent.append(await self._send_batch(batch, count, topic, partition))
                batch = self._producer.create_batch()
                append, count = batch._builder.append, 0  # noqa: SLF001
                append(0, now_ms, key, value, given)  # a single record always fits
            count += 1
        sent.append(await self._send_batch(batch, count, topic, partition))
        return count - 1

    async def _send_batch(self, batch: Any, count: int, topic: str, partition: int) -> "asyncio.Future[Any]":
        """Sends a batch that we have filled with so many records."""
        batch._relative_offset = count  # noqa: SLF001
        batch.close()
        sent: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        return sent

    async def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
        """Never asks for the end offset of the topic: while a transaction is open, that is where the transaction began,
        and a restore would stop short.
        """
        if position > until:
            return
        here = TopicPartition(self._settings.state_topic, self._partition)
        consumer = state_reader(self._connection)
        loop = asyncio.get_running_loop()
        patience_s = self._settings.transaction_timeout_s + _HANGING_MARGIN_S
        give_up_at = loop.time() + patience_s
        try:
            async with asyncio.timeout(self._settings.fence_timeout_s):
                consumer.assign([here])
                await consumer.start()
            consumer.seek(here, position)
            # The position marks the end, not the last record: markers, aborted and compacted records advance it, too.
            while position <= until:
                fetched = await consumer.getmany(timeout_ms=round(1000 * _READ_WAIT_S), max_records=_READ_RECORDS_MAX)
                if self._is_closed:
                    raise LogError(f"this writer of partition {self._partition} is closed")
                if entries := [self._entry_of(r) for r in fetched.get(here, ()) if r.offset <= until]:
                    yield entries
                    await asyncio.sleep(0)  # prefetched records arrive without a real await: let other tasks run
                before, position = position, await consumer.position(here)
                if position > before:
                    give_up_at = loop.time() + patience_s
                elif loop.time() > give_up_at:
                    raise LogError(self._hanging(consumer, here, position, patience_s))
        except kafka_errors.OffsetOutOfRangeError as error:
            raise GapError(
                f"partition {self._partition} of {here.topic} does not hold offset {position}", {self._partition}
            ) from error
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_log_error(error, f"reading partition {self._partition} of {here.topic}") from error
        finally:
            await stop_consumer(consumer, _CLOSE_WITHIN_S)

    def _entry_of(self, record: Any) -> StateEntry:
        if type(record) is UndecodableRecord or record.key is None:
            why = record.detail if type(record) is UndecodableRecord else "it has no key"
            raise DamagedStateError(
                f"partition {self._partition} of {self._settings.state_topic}: the record at offset {record.offset} is "
                f"not one that cartsync wrote ({why}); nothing else may write to this topic"
            )
        return StateEntry(record.offset, record.key, record.value)

    def _hanging(self, consumer: Any, here: Any, position: int, patience_s: float) -> str:
        said = f"partition {here.partition} of {here.topic}: no record for {patience_s:.0f} s at offset {position}"
        highwater, stable = consumer.highwater(here), consumer.last_stable_offset(here)
        if highwater is None or stable is None or highwater <= stable:
            return said
        where = f"--topic {here.topic} --partition {here.partition}"
        return (
            f"{said}: {highwater - stable} records are behind a transaction that nobody ends. "
            f"`kafka-transactions.sh describe-producers {where}` says where it began, "
            f"`kafka-transactions.sh abort {where} --start-offset OFFSET` ends it"
        )

    async def close(self) -> None:
        """Takes up to 7 s with a frozen broker."""
        self._is_usable, self._is_closed = False, True
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer, _CLOSE_WITHIN_S)


async def newest_entries(connection: Connection, partitions: int) -> dict[int, list[StateEntry]]:
    """Like `KafkaStateLog.newest`, for a topic that is known to exist. Waits for the new leader of a partition whose
    broker has just died.
    """
    async for attempt in connection.tries():
        with attempt:
            return await _newest_entries(connection, partitions)
    raise AssertionError  # the loop ends by returning or raising


async def _newest_entries(connection: Connection, partitions: int) -> dict[int, list[StateEntry]]:
    topic = connection.settings.state_topic
    here = [TopicPartition(topic, partition) for partition in range(partitions)]
    found: dict[int, list[StateEntry]] = {partition: [] for partition in range(partitions)}
    consumer = state_reader(connection)
    consumer.assign(here)
    try:
        async with asyncio.timeout(connection.settings.fence_timeout_s):
            await connection.start(consumer)
            begins, ends = await consumer.beginning_offsets(here), await consumer.end_offsets(here)
            for place in here:
                consumer.seek(place, max(begins[place], ends[place] - _NEWEST))
            left = [place for place in here if begins[place] < ends[place]]
            while left:
                for place, records in (await consumer.getmany(*left, timeout_ms=round(1000 * _READ_WAIT_S))).items():
                    found[place.partition] += [
                        StateEntry(record.offset, record.key, record.value) for record in records
                    ]
                left = [place for place in left if await consumer.position(place) < ends[place]]
    except (kafka_errors.KafkaError, TimeoutError) as error:
        raise as_log_error(error, f"reading the newest records of {topic}") from error
    finally:
        await stop_consumer(consumer, _CLOSE_WITHIN_S)
    return found


async def find_orders(
    settings: KafkaSettings, wanted: Callable[[str], bool], on_progress: Callable[[int, int], None]
) -> list[tuple[int, str, bytes]]:
    """The `wanted` orders as stored in the state topic now, for display: partition, subject and record. Reads the whole
    topic, because only a partition's owner has an index; `on_progress` gets the number of offsets read, and of all.

    Raises `TopicError`, `ConfigError` or `LogError`. An open transaction hides all records after it.
    """
    found: dict[tuple[int, str], bytes | None] = {}
    prefix = ORDER_PREFIX.encode()

    def take(partition: int, key: bytes, value: bytes | None) -> None:
        if key.startswith(prefix) and wanted(subject := key[len(prefix) :].decode(errors="backslashreplace")):
            found[partition, subject] = value

    await _read_all(settings, None, take, on_progress)
    orders = [(partition, subject, value) for (partition, subject), value in found.items() if value is not None]
    return sorted(orders)


async def find_value(
    settings: KafkaSettings, partition: int, wanted: bytes, on_progress: Callable[[int, int], None]
) -> bytes | None:
    """The newest value of a key in a state partition. Reads the whole partition; raises like `find_orders`."""
    found: bytes | None = None

    def take(_partition: int, key: bytes, value: bytes | None) -> None:
        nonlocal found
        if key == wanted:
            found = value

    await _read_all(settings, partition, take, on_progress)
    return found


async def find_entries(
    settings: KafkaSettings, wanted: Callable[[str], bool], on_progress: Callable[[int, int], None]
) -> dict[str, list[HistoryEntry]]:
    """The histories of the `wanted` orders, the oldest entry first; of an order that was moved to another partition,
    those of the lower one first. Reads the whole history topic; raises like `find_orders`.
    """
    written: dict[int, list[Written]] = {}

    def take(partition: int, key: bytes, value: bytes | None) -> None:
        place = history.place_of(key)
        if place is not None and wanted(place[1]):
            entry = None if value is None else history.decode(value)
            written.setdefault(partition, []).append((key, entry))

    await _read_all(settings, None, take, on_progress, settings.history)
    found: dict[str, list[HistoryEntry]] = {}
    for _, records in sorted(written.items(), key=lambda item: item[0]):
        for subject, entries in kept_of(records).items():
            found.setdefault(subject, []).extend(entries)
    return found


async def _read_all(
    settings: KafkaSettings,
    partition: int | None,
    take: Callable[[int, bytes, bytes | None], None],
    on_progress: Callable[[int, int], None],
    topic: str = "",
) -> None:
    """Passes all committed records of one partition, or of all, to `take`. `topic`: empty for that of the state."""
    connection = Connection(settings)
    topics = await require_topics(connection)
    topic = topic or settings.state_topic
    here = [TopicPartition(topic, p) for p in range(topics[topic].partitions) if partition in (None, p)]
    if not here:
        return
    consumer = state_reader(connection)
    try:
        consumer.assign(here)
        await connection.start(consumer)
        begins, ends = await consumer.beginning_offsets(here), await consumer.end_offsets(here)
        for each in here:
            consumer.seek(each, begins[each])
        total = sum(ends[p] - begins[p] for p in here)
        left = [each for each in here if begins[each] < ends[each]]
        loop = asyncio.get_running_loop()
        give_up_at, before = loop.time() + _PATIENCE_S, -1
        while left:
            fetched = await consumer.getmany(
                *left, timeout_ms=round(1000 * _READ_WAIT_S), max_records=_READ_RECORDS_MAX
            )
            for each, records in fetched.items():
                for record in records:
                    take(each.partition, record.key or b"", record.value)
            at = {each: await consumer.position(each) for each in here}
            left = [each for each in left if at[each] < ends[each]]
            behind = total - sum(max(0, ends[p] - at[p]) for p in left)
            on_progress(behind, total)
            if behind > before:
                give_up_at, before = loop.time() + _PATIENCE_S, behind
            elif loop.time() > give_up_at:
                stuck = ", ".join(str(each.partition) for each in left)
                said = f"{behind} of {total} records read, and no more arrive from partition {stuck}"
                raise LogError(f"reading {topic}: {said}")
    except kafka_errors.KafkaError as error:
        raise as_cartsync_error(error, f"reading {topic}") from error
    finally:
        await stop_consumer(consumer, _CLOSE_WITHIN_S)


def state_reader(connection: Connection, isolation: Isolation = "read_committed") -> Any:
    """A consumer of the state topic, or another one of ours, that belongs to no group."""
    return AIOKafkaConsumer(
        **connection.options(connection.settings.request_timeout_s),
        isolation_level=isolation,
        auto_offset_reset="none",
        enable_auto_commit=False,
        key_deserializer=Intake(),
        max_partition_fetch_bytes=_FETCH_MAX_BYTES,
    )


def _raise_failed(sent: Iterable[asyncio.Future[Any]]) -> None:
    """Raises the error of a failed send; being fenced takes precedence."""
    errors = [error for future in sent if future.done() and (error := future.exception()) is not None]
    for error in errors:
        if isinstance(error, kafka_errors.ProducerFenced):
            raise error
    if errors:
        raise errors[0]


def _forget(sent: Iterable[asyncio.Future[Any]]) -> None:
    """Retrieves all exceptions, so that asyncio does not log them as never retrieved."""
    for future in sent:
        if not future.cancel() and not future.cancelled():
            future.exception()
