"""The ports' Kafka side against a real broker: topics, fenced state, the event topic's group."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from msgspec.structs import replace

from tests.kafka_settings import settings_of
from worker.errors import FencedError, GapError, InvariantError, LogError, TopicError
from worker.kafka import state as kafka_state
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaPartitionWriter, KafkaStateLog
from worker.kafka.topics import PARTITIONS_DEFAULT, check_topics, create_topics
from worker.ports import DeadLetter, InputRecord, StateEntry
from worker.tools.local_kafka import LocalKafka

PARTITIONS = 2


@pytest.fixture
def names(kafka: LocalKafka) -> KafkaSettings:
    """Settings with names of one test's own; the topics are not there yet."""
    return settings_of(kafka.bootstrap, session_timeout_s=10.0)


@pytest.fixture
async def settings(names: KafkaSettings) -> KafkaSettings:
    """Settings whose topics are there, with two partitions."""
    await create_topics(names, PARTITIONS)
    return names


@asynccontextmanager
async def admin_of(settings: KafkaSettings) -> AsyncIterator[Any]:
    """An admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def produce(settings: KafkaSettings, partition: int, *values: bytes) -> None:
    """Writes events of one partition."""
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(settings.event_topic, value, key=b"k", partition=partition)


async def committed(settings: KafkaSettings, topic: str, count: int) -> list[Any]:
    """The first committed records of partition 0, at least so many, read by other means than ours."""
    here = TopicPartition(topic, 0)
    async with (
        AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, isolation_level="read_committed") as consumer,
        asyncio.timeout(20),
    ):
        consumer.assign([here])
        consumer.seek(here, 0)
        records: list[Any] = []
        while len(records) < count:
            records += (await consumer.getmany(timeout_ms=500)).get(here, [])
    return records


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is the broker's
            await asyncio.sleep(0.02)


# --- topics ---


async def test_created_topics_are_sound(names: KafkaSettings) -> None:
    """What is created passes the check, and creating again does nothing."""
    all_of_them = names.event_topic, names.state_topic, names.dead_letter_topic, names.results_topic, names.history
    created = dict.fromkeys(all_of_them, 3)
    assert await create_topics(names, 3) == created
    assert [finding.level for finding in await check_topics(names)] == ["warning"]  # one broker, one replica
    assert await create_topics(names) == {}


async def test_missing_topics_stop_the_start(names: KafkaSettings) -> None:
    """Neither log starts without its topics, and asking does not create them."""
    for log in (KafkaStateLog(names), KafkaStateLog(names)):
        with pytest.raises(TopicError, match=names.state_topic):
            await log.start()
    with pytest.raises(TopicError, match=names.event_topic):
        await KafkaEventLog(names).start(Listener())


async def test_created_event_topic_has_the_default_number_of_partitions(names: KafkaSettings) -> None:
    """Nobody has to know how many partitions to ask for."""
    assert set((await create_topics(names)).values()) == {PARTITIONS_DEFAULT}


async def test_existing_topics_are_left_alone(names: KafkaSettings) -> None:
    """A state topic that would lose orders is reported and not touched."""
    async with admin_of(names) as admin:
        await admin.create_topics([NewTopic(names.state_topic, 3, 1, topic_configs={"cleanup.policy": "delete"})])
    await until_described(names, names.state_topic)
    assert names.state_topic not in await create_topics(names, PARTITIONS)
    errors = [finding.text for finding in await check_topics(names) if finding.level == "error"]
    assert len(errors) == 2
    assert "3 partitions" in errors[0]
    assert "cleanup.policy=delete" in errors[1]


async def until_described(settings: KafkaSettings, topic: str) -> None:
    """Waits until the broker's metadata has a new topic."""
    async with admin_of(settings) as admin, asyncio.timeout(20):
        while topic not in await admin.list_topics():  # noqa: ASYNC110 - what is waited for is the broker's
            await asyncio.sleep(0.02)


# --- state ---


@pytest.fixture
async def states(settings: KafkaSettings) -> KafkaStateLog:
    """A started state log."""
    log = KafkaStateLog(settings)
    await log.start()
    return log


@asynccontextmanager
async def held(states: KafkaStateLog, partition: int = 0) -> AsyncIterator[KafkaPartitionWriter]:
    """A fenced hold."""
    hold = states.partition(partition)
    try:
        await hold.fence()
        yield hold
    finally:
        await hold.close()


async def read_all(hold: KafkaPartitionWriter, position: int, until: int) -> list[StateEntry]:
    """What a restore sees."""
    return [entry async for entries in hold.read(position, until) for entry in entries]


async def test_reads_back_what_it_wrote(states: KafkaStateLog) -> None:
    """Values and tombstones come back in their order, at the offsets that were told, over the markers between."""
    async with held(states) as hold:
        first = await hold.write([(b"a", b"1"), (b"b", b"2")])
        second = await hold.write([(b"a", None)])
        assert (first, second) == (1, 3)  # the marker of the first has offset 2
        assert await read_all(hold, 0, second) == [
            StateEntry(0, b"a", b"1"),
            StateEntry(1, b"b", b"2"),
            StateEntry(3, b"a", None),
        ]
        assert await read_all(hold, 2, second) == [StateEntry(3, b"a", None)]
        assert await read_all(hold, 0, first) == [StateEntry(0, b"a", b"1"), StateEntry(1, b"b", b"2")]
        assert await read_all(hold, 4, 3) == []


async def test_partitions_are_apart(states: KafkaStateLog) -> None:
    """Owners of two partitions neither fence each other nor see each other's entries."""
    async with held(states, 0) as zero, held(states, 1) as one:
        await zero.write([(b"a", b"0")])
        last = await one.write([(b"a", b"1")])
        await zero.write([(b"b", b"0")])
        assert await read_all(one, 0, last) == [StateEntry(0, b"a", b"1")]


async def test_large_transaction(states: KafkaStateLog) -> None:
    """A transaction of several batches is told the offset of its last entry, and all of it comes back."""
    entries = [(b"o:%d" % i, os.urandom(1_000)) for i in range(6_000)]
    async with held(states) as hold:
        last = await hold.write(entries)
        assert last == 5_999
        assert [(entry.key, entry.value) for entry in await read_all(hold, 0, last)] == entries


async def test_successor_fences(states: KafkaStateLog) -> None:
    """After a successor's fence the predecessor commits nothing, is told so, and is of no use any more."""
    async with held(states) as old, held(states) as new:
        with pytest.raises(FencedError):
            await old.write([(b"a", b"old")])
        with pytest.raises(LogError, match="closed"):
            await old.write([(b"a", b"older")])
        last = await new.write([(b"b", b"new")])
        assert [entry.value for entry in await read_all(new, 0, last)] == [b"new"]


async def test_idle_owner_is_fenced_at_its_next_write(states: KafkaStateLog) -> None:
    """An owner that had written before is fenced like one that never did."""
    async with held(states) as old:
        await old.write([(b"a", b"1")])
        async with held(states) as new:
            await new.write([(b"a", b"2")])
            with pytest.raises(FencedError):
                await old.write([(b"a", b"3")], [DeadLetter(b"k", b"v", [])])


async def test_fence_aborts_what_the_predecessor_left_open(states: KafkaStateLog, settings: KafkaSettings) -> None:
    """What a predecessor had sent and not committed is never seen, and does not block the restore."""
    predecessor = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.transactional_id(0)
    )
    await predecessor.start()
    try:
        await predecessor.begin_transaction()
        await predecessor.send_and_wait(settings.state_topic, b"lost", key=b"a", partition=0)
        async with held(states) as hold:
            last = await hold.write([(b"b", b"kept")])
            assert [entry.value for entry in await read_all(hold, 0, last)] == [b"kept"]
    finally:
        await predecessor.stop()


async def test_nothing_of_a_refused_transaction_is_seen(states: KafkaStateLog, settings: KafkaSettings) -> None:
    """One refused send (no key on a compacted topic) spoils all of its transaction, and the hold."""
    hold = states.partition(0)
    await hold.fence()
    await hold.write([(b"a", b"1")])
    refused: Any = None
    with pytest.raises(LogError):
        await hold.write([(b"a", b"2"), (refused, b"3")], [DeadLetter(b"k", b"v", [])])
    with pytest.raises(LogError, match="closed"):
        await hold.write([(b"a", b"4")])
    await hold.close()
    async with held(states) as successor:
        last = await successor.write([(b"b", b"5")], [DeadLetter(None, b"kept", [])])
        assert [entry.value for entry in await read_all(successor, 0, last)] == [b"1", b"5"]
    letters = await committed(settings, settings.dead_letter_topic, 1)
    assert [record.value for record in letters] == [b"kept"]


async def test_value_too_large(states: KafkaStateLog) -> None:
    """The largest value is taken, one byte more ends the hold before anything is sent."""
    async with held(states) as hold:
        await hold.write([(b"k" * 1_000, os.urandom(hold.value_max_bytes))])
        with pytest.raises(LogError, match="above"):
            await hold.write([(b"k", bytes(hold.value_max_bytes + 1))])
        with pytest.raises(LogError, match="closed"):
            await hold.write([(b"k", b"v")])


async def test_dead_letters_are_untouched(states: KafkaStateLog, settings: KafkaSettings) -> None:
    """Key, value and headers arrive as they are, doubled and empty headers too, and records larger than a batch."""
    headers = [("a", b"1"), ("a", b""), ("x-dlq-reason", "über".encode())]
    large = os.urandom(1_040_000)
    letters = [DeadLetter(b"key", b"{", headers), DeadLetter(None, b"", []), DeadLetter(b"k", large, headers)]
    async with held(states) as hold:
        await hold.write([(b"m:next", b"1")], letters)
    records = await committed(settings, settings.dead_letter_topic, len(letters))
    assert [(r.key, r.value, list(r.headers)) for r in records] == [(d.key, d.value, d.headers) for d in letters]


async def test_misuse_of_a_hold(states: KafkaStateLog) -> None:
    """A hold is of no use before its fence, without entries, and after its close; closing again is harmless."""
    hold = states.partition(0)
    with pytest.raises(LogError):
        await hold.write([(b"a", b"1")])
    await hold.fence()
    with pytest.raises(LogError):
        await hold.fence()
    with pytest.raises(InvariantError):
        await hold.write([])
    await hold.write([(b"a", b"1")])
    await hold.close()
    await hold.close()
    with pytest.raises(LogError):
        await hold.write([(b"a", b"1")])
    with pytest.raises(LogError):
        await read_all(hold, 0, 0)


async def test_cancelled_write_ends_the_hold(states: KafkaStateLog) -> None:
    """A write that was cancelled has an unknown outcome; the hold is over, the successor sees all of it or nothing."""
    hold = states.partition(0)
    await hold.fence()
    writing = asyncio.create_task(hold.write([(b"o:%d" % i, os.urandom(1_000)) for i in range(3_000)]))
    await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(LogError, match="closed"):
        await hold.write([(b"a", b"1")])
    await hold.close()
    async with held(states) as successor:
        last = await successor.write([(b"m:owner", b"2")])
        assert len(await read_all(successor, 0, last)) in (1, 3_001)


async def test_hanging_transaction_is_reported(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that nobody ends hides what follows: the read fails loudly and names the cure."""
    monkeypatch.setattr(kafka_state, "_HANGING_MARGIN_S", 0.0)
    log = KafkaStateLog(replace(settings, transaction_timeout_s=6.0, commit_timeout_s=1.0))
    await log.start()
    foreign = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=f"{settings.group_id}.x")
    await foreign.start()
    try:
        await foreign.begin_transaction()
        await foreign.send_and_wait(settings.state_topic, b"", key=b"x", partition=0)
        async with held(log) as hold:
            barrier = await hold.write([(b"m:owner", b"1")])
            with pytest.raises(LogError, match=r"3 records.*describe-producers.*--partition 0"):
                await read_all(hold, 0, barrier)
            await foreign.abort_transaction()
            assert await read_all(hold, 0, barrier) == [StateEntry(barrier, b"m:owner", b"1")]
    finally:
        await foreign.stop()


# --- events ---


class Listener:
    """Remembers what it was told, and can be slow to let go."""

    def __init__(self, let_go_s: float = 0.0) -> None:
        self.told: list[tuple[str, set[int]]] = []
        self.mine: set[int] = set()
        self.let_go_s = let_go_s
        self.error: Exception | None = None

    def assigned(self, partitions: set[int]) -> None:
        """ports.AssignmentListener."""
        self.told.append(("assigned", partitions))
        self.mine = partitions
        if self.error is not None:
            raise self.error

    async def revoked(self, partitions: set[int]) -> None:
        """ports.AssignmentListener."""
        await asyncio.sleep(self.let_go_s)
        self.told.append(("revoked", partitions))
        self.mine = set()


class Member:
    """A member of the group that polls all the time."""

    def __init__(self, settings: KafkaSettings, listener: Listener) -> None:
        self.log = KafkaEventLog(settings)
        self.listener = listener
        self.records: dict[int, list[InputRecord]] = {}
        self.errors: list[Exception] = []
        self.poll_s_max = 0.0
        self.polling: asyncio.Task[None] | None = None

    async def poll(self) -> None:
        """Polls for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                batches = await self.log.poll(0.1, 100)
            except GapError as error:
                self.errors.append(error)
                for partition in error.partitions:
                    self.log.pause(partition)
                continue
            finally:
                self.poll_s_max = max(self.poll_s_max, loop.time() - began)
            for partition, records in batches.items():
                self.records.setdefault(partition, []).extend(records)

    def values(self, partition: int) -> list[bytes | None]:
        """What came of a partition."""
        return [record.value for record in self.records.get(partition, [])]

    def open(self, partition: int, offset: int = 0) -> None:
        """Has a partition delivered from an offset on."""
        self.log.seek(partition, offset)
        self.log.resume(partition)


@asynccontextmanager
async def member_of(settings: KafkaSettings, listener: Listener | None = None) -> AsyncIterator[Member]:
    """A started member."""
    member = Member(settings, listener or Listener())
    try:
        await member.log.start(member.listener)
        member.polling = asyncio.create_task(member.poll())
        yield member
    finally:
        if member.polling is not None:
            member.polling.cancel()
            await asyncio.wait({member.polling})
        await member.log.stop()


async def test_delivers_from_where_it_was_sought(settings: KafkaSettings) -> None:
    """Nothing of a partition comes before `resume`, then everything from the offset that was sought, as written."""
    await produce(settings, 0, b"a", b"b", b"c")
    await produce(settings, 1, b"x")
    async with member_of(settings) as member:
        assert member.listener.told == [("assigned", {0, 1})]
        assert member.log.lag(0) is None
        await asyncio.sleep(0.5)
        assert member.records == {}
        member.open(0, 1)
        await until(lambda: len(member.values(0)) == 2)
        assert [(r.offset, r.key, r.value) for r in member.records[0]] == [(1, b"k", b"b"), (2, b"k", b"c")]
        assert list(member.records[0][0].headers) == []
        assert member.records[0][0].timestamp > 1_700_000_000_000
        assert 1 not in member.records
        await until(lambda: member.log.lag(0) == 0)


async def test_pause_and_seek_back(settings: KafkaSettings) -> None:
    """A paused partition delivers nothing; sought back, it delivers the same again."""
    await produce(settings, 0, b"a", b"b")
    async with member_of(settings) as member:
        member.open(0)
        await until(lambda: len(member.values(0)) == 2)
        member.log.pause(0)
        await produce(settings, 0, b"c")
        await asyncio.sleep(0.5)
        assert member.values(0) == [b"a", b"b"]
        member.open(0, 1)
        await until(lambda: member.values(0) == [b"a", b"b", b"b", b"c"])


async def test_only_committed_events(settings: KafkaSettings) -> None:
    """Events of open and aborted transactions are not delivered; those of an open one are lag, and counted apart."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=f"{settings.group_id}.x")
    async with member_of(settings) as member, producer:
        member.open(0)
        await until(lambda: member.log.lag(0) == 0)
        for value, ends_with in ((b"no", producer.abort_transaction), (b"yes", producer.commit_transaction)):
            await producer.begin_transaction()
            await producer.send_and_wait(settings.event_topic, value, key=b"k", partition=0)
            await until(lambda: (member.log.lag(0), member.log.behind_open(0)) == (1, 1))
            await ends_with()
            await until(lambda: (member.log.lag(0), member.log.behind_open(0)) == (0, 0))
        await until(lambda: member.values(0) == [b"yes"])


async def test_handover_between_members(settings: KafkaSettings) -> None:
    """A second member takes over a share once the first has let go, however slowly; both go on polling meanwhile."""
    await produce(settings, 0, b"a")
    await produce(settings, 1, b"x")
    async with member_of(settings, Listener(let_go_s=2.0)) as first:
        first.open(0)
        first.open(1)
        await until(lambda: first.values(0) and first.values(1))
        async with member_of(settings) as second:
            assert first.listener.told[:2] == [("assigned", {0, 1}), ("revoked", {0, 1})]
            await until(lambda: first.listener.mine)
            assert sorted([*first.listener.mine, *second.listener.mine]) == [0, 1]
            assert first.poll_s_max < 1.5
            theirs = next(iter(second.listener.mine))
            second.open(theirs)
            await until(lambda: second.values(theirs))
            with pytest.raises(LogError):
                first.log.resume(theirs)
            assert not await first.log.commit_group({}) or first.listener.mine
        await until(lambda: first.listener.mine == {0, 1})
        assert not second.log.lag(0)


async def test_group_offsets(settings: KafkaSettings) -> None:
    """Only a member's commit is taken; without offsets of its own it still learns that it is one."""
    async with member_of(settings) as member:
        assert await member.log.group_offset(0) is None
        assert await member.log.commit_group({0: 7, 99: 1})
        assert await member.log.group_offset(0) == 7
        assert await member.log.commit_group({})
        assert await member.log.group_offset(0) == 7
    assert not await member.log.commit_group({0: 8})


async def test_start_offsets(settings: KafkaSettings) -> None:
    """The input begins where retention has left off, and ends after its last record."""
    await produce(settings, 0, b"a", b"b", b"c")
    async with admin_of(settings) as admin:
        await admin.delete_records({TopicPartition(settings.event_topic, 0): RecordsToDelete(before_offset=2)})
    async with member_of(settings) as member:
        assert await member.log.start_offset(0, latest=False) == 2
        assert await member.log.start_offset(0, latest=True) == 3
        assert await member.log.start_offset(1, latest=True) == 0


@pytest.mark.parametrize("offset", [0, 100])
async def test_gap_concerns_its_partition_only(settings: KafkaSettings, offset: int) -> None:
    """An offset that the input does not hold is reported with its partition; the other goes on."""
    await produce(settings, 0, b"a", b"b", b"c")
    async with admin_of(settings) as admin:
        await admin.delete_records({TopicPartition(settings.event_topic, 0): RecordsToDelete(before_offset=2)})
    async with member_of(settings) as member:
        member.open(0, offset)
        member.open(1)
        await until(lambda: member.errors)
        assert isinstance(member.errors[0], GapError)
        assert member.errors[0].partitions == {0}
        await produce(settings, 1, b"x")
        await until(lambda: member.values(1) == [b"x"])
        member.open(0, 2)
        await until(lambda: member.values(0) == [b"c"])


class Torn(fetcher.MemoryRecords):  # type: ignore[misc]  # the library has no types
    """What a broker sends of one partition cannot be told apart into batches."""

    def next_batch(self) -> Any:
        if b"torn" in self.data:
            raise CorruptRecordException("Record size is less than the minimum record overhead")
        return super().next_batch()


async def test_fetch_that_cannot_be_told_apart_harms_no_other_partition(
    names: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even offsets can be named, the partition halts, and the others lose nothing."""
    monkeypatch.setattr(fetcher, "MemoryRecords", Torn)
    await create_topics(names, 6)
    values = [b"%d" % i for i in range(50)]
    async with AIOKafkaProducer(bootstrap_servers=names.bootstrap_servers, acks="all") as producer:
        for partition in range(1, 6):
            for value in values:
                await producer.send(names.event_topic, value, key=b"k", partition=partition)
        await producer.send(names.event_topic, b"torn", key=b"k", partition=0)
    log = KafkaEventLog(names)
    try:
        await log.start(Listener())
        for partition in range(6):
            log.seek(partition, 0)
            log.resume(partition)
        await asyncio.sleep(0.5)  # until all is fetched ahead: the first poll then meets the record among the others
        records: dict[int, list[bytes | None]] = {}
        gaps: list[frozenset[int]] = []
        async with asyncio.timeout(20):
            while not gaps or sum(map(len, records.values())) < 5 * len(values):
                try:
                    batches = await log.poll(0.2, 1_000)
                except GapError as error:
                    gaps.append(error.partitions)
                    continue
                for partition, batch in batches.items():
                    records.setdefault(partition, []).extend(record.value for record in batch)
        assert gaps == [{0}]
        assert records == dict.fromkeys(range(1, 6), values)
    finally:
        await log.stop()


@pytest.mark.parametrize("sought", [None, 1])
async def test_paused_in_the_last_moment(settings: KafkaSettings, sought: int | None) -> None:
    """What has been fetched when a partition is paused or sought is not delivered, and nothing of it is lost."""
    await produce(settings, 0, b"a", b"b", b"c")
    log = KafkaEventLog(settings)
    try:
        await log.start(Listener())
        log.seek(0, 0)
        log.resume(0)
        polling = asyncio.create_task(log.poll(10.0, 100))
        while log._fetching is None or not log._fetching.done():  # noqa: ASYNC110 - a moment inside of the poll
            await asyncio.sleep(0)
        if sought is None:
            log.pause(0)
        else:
            log.seek(0, sought)
        assert await polling == {}
        log.resume(0)
        records = (await log.poll(10.0, 100))[0]
        assert [record.value for record in records] == [b"a", b"b", b"c"][sought or 0 :]
    finally:
        await log.stop()


async def test_error_of_the_listener_is_not_lost(settings: KafkaSettings) -> None:
    """The library only logs what a listener raises; the next poll raises it."""
    listener = Listener()
    listener.error = InvariantError("no owner")
    log = KafkaEventLog(settings)
    try:
        await log.start(listener)
        with pytest.raises(InvariantError, match="no owner"):
            await log.poll(0.1, 10)
    finally:
        await log.stop()


async def test_stopped_log(settings: KafkaSettings) -> None:
    """A poll under way ends with an error when the log is stopped, and so do later ones; stopping again is harmless."""
    log = KafkaEventLog(settings)
    await log.start(Listener())
    polling: Awaitable[object] = asyncio.create_task(log.poll(30.0, 10))
    await asyncio.sleep(0.1)
    await log.stop()
    await log.stop()
    with pytest.raises(LogError, match="stopped"):
        await polling
    with pytest.raises(LogError, match="stopped"):
        await log.poll(0.1, 10)
