"""What `worker/kafka` leans on in aiokafka, good and bad, private things included: an upgrade that changes one is red here.

Each docstring says what we rely on, and in parentheses where. A workaround whose reason is gone can go too. One broker:
what takes a cluster (failover, in-sync replicas, frozen nodes) is for the chaos tests.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain
from typing import Any

import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalOperation,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RequestTimedOutError,
    UnknownError,
)
from aiokafka.producer import sender
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.protocol.transaction import EndTxnRequest

from tests.contract.broker import EVENTUALLY_S, Broker, eventually
from worker.tools.local_kafka import LocalKafka

pytestmark = pytest.mark.integration


@pytest.fixture
async def broker(kafka: LocalKafka) -> AsyncIterator[Broker]:
    """The broker of the whole run, for one test."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    opened = Broker(kafka.bootstrap, admin)
    try:
        yield opened
    finally:
        await opened.close()
        await admin.close()


def values(records: list[Any]) -> list[bytes | None]:
    """What is in records."""
    return [record.value for record in records]


# --- transactions: fencing ---


async def test_start_of_a_successor_fences(broker: Broker) -> None:
    """Once a successor's `start()` has returned, a send and the commit of an open transaction of its predecessor raise
    `ProducerFenced`, and everything after it a bare `AssertionError` (`KafkaPartitionWriter.fence`, `as_log_error`).
    """
    topic, owner_id = await broker.topic(), broker.name()
    old = await broker.producer(transactional_id=owner_id)
    await old.begin_transaction()
    await old.send_and_wait(topic, b"old")
    await broker.producer(transactional_id=owner_id)
    with pytest.raises(ProducerFenced):
        await old.send_and_wait(topic, b"stale")
    with pytest.raises(ProducerFenced):
        await old.commit_transaction()
    for call in (old.begin_transaction, old.commit_transaction, old.abort_transaction):
        with pytest.raises(AssertionError):
            await call()
    await asyncio.wait_for(old.stop(), EVENTUALLY_S)


async def test_idle_predecessor_learns_at_its_first_send(broker: Broker) -> None:
    """A fenced producer may still begin; its first send raises `ProducerFenced`, a later one only that there is no
    transaction (`KafkaPartitionWriter._transact` asks the first one then).
    """
    topic, owner_id = await broker.topic(), broker.name()
    old = await broker.producer(transactional_id=owner_id)
    async with old.transaction():
        await old.send_and_wait(topic, b"old")
    await broker.producer(transactional_id=owner_id)
    await old.begin_transaction()
    with pytest.raises(ProducerFenced):
        await old.send_and_wait(topic, b"stale")
    with pytest.raises(IllegalOperation):
        await old.send(topic, b"staler")


async def test_start_of_a_successor_aborts(broker: Broker) -> None:
    """A successor's `start()` aborts what its predecessor left open: it is never read, and nobody waits for its timeout
    (`KafkaPartitionWriter.fence`, `PROTOCOL.md` step 3).
    """
    topic, owner_id = await broker.topic(), broker.name()
    old = await broker.producer(transactional_id=owner_id, transaction_timeout_ms=600_000)
    await old.begin_transaction()
    await old.send_and_wait(topic, b"lost")
    barrier = await broker.commit(owner_id, topic, b"kept")
    assert values(await broker.read(topic, barrier.offset)) == [b"kept"]


async def test_own_timeout_looks_like_fencing(broker: Broker) -> None:
    """A transaction that outlived `transaction_timeout_ms` raises `ProducerFenced` though nobody else is there, so it
    must exceed the time a write may take (`KafkaSettings.check`).
    """
    topic = await broker.topic()
    owner = await broker.producer(transactional_id=broker.name(), transaction_timeout_ms=500)
    await owner.begin_transaction()

    async def send_on() -> None:
        while True:
            await owner.send_and_wait(topic, b"slow")
            await asyncio.sleep(0.2)

    with pytest.raises(ProducerFenced):
        await asyncio.wait_for(send_on(), EVENTUALLY_S)  # a broker looks every 10 s


# --- transactions: failed sends, commits ---


async def test_commit_after_a_failed_send_succeeds(broker: Broker) -> None:
    """A refused send fails only its own future: the commit returns normally and half the transaction is there. So all
    sends are looked at before a commit (`KafkaPartitionWriter._transact`).
    """
    topic, owner_id = await broker.topic(max_message_bytes="1000"), broker.name()
    owner = await broker.producer(transactional_id=owner_id)
    await owner.begin_transaction()
    half = await owner.send_and_wait(topic, b"half")
    with pytest.raises(MessageSizeTooLargeError):
        await owner.send_and_wait(topic, os.urandom(2_000))
    await owner.commit_transaction()
    assert values(await broker.read(topic, half.offset)) == [b"half"]


async def test_failed_send_leaves_a_sequence_gap(broker: Broker) -> None:
    """After a refused send every later one fails, also after an abort, while commits succeed: a hold in which anything
    went wrong is never used again (`KafkaPartitionWriter.write`).
    """
    topic = await broker.topic(max_message_bytes="1000")
    owner = await broker.producer(transactional_id=broker.name())
    await owner.begin_transaction()
    with pytest.raises(MessageSizeTooLargeError):
        await owner.send_and_wait(topic, os.urandom(2_000))
    await owner.abort_transaction()
    for _ in range(2):
        await owner.begin_transaction()
        with pytest.raises(OutOfOrderSequenceNumber):
            await owner.send_and_wait(topic, b"small")
        await owner.commit_transaction()


async def test_commit_never_returns_after_stop(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is under way when the producer is stopped never ends: every one has a timeout of ours around it
    (`KafkaPartitionWriter.write`).
    """
    topic = await broker.topic()
    owner = await broker.producer(transactional_id=broker.name())
    await owner.begin_transaction()
    await owner.send_and_wait(topic, b"v")
    send = owner.client.send

    async def never_ends(node: int, request: Any, **options: Any) -> Any:
        if isinstance(request, EndTxnRequest):
            raise RequestTimedOutError  # what comes of a frozen coordinator
        return await send(node, request, **options)

    monkeypatch.setattr(owner.client, "send", never_ends)
    committing = asyncio.ensure_future(owner.commit_transaction())
    await asyncio.wait({committing}, timeout=0.2)
    await asyncio.wait_for(owner.stop(), EVENTUALLY_S)
    await asyncio.wait({committing}, timeout=1.0)
    assert not committing.done()
    committing.cancel()


async def test_stop_cut_short_leaves_the_sender(broker: Broker) -> None:
    """A `stop()` that is cancelled leaves the sender and its connections, and a second one does nothing; the privates
    that `stop_producer` ends them by are there (`client.py`).
    """
    producer = await broker.producer()
    await producer.send_and_wait(await broker.topic(), b"v")
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait({stopping})
    await producer.stop()
    assert not producer._sender.sender_task.done()
    assert producer.client._conns
    accumulator = producer._message_accumulator
    assert list(chain(accumulator._pending_batches, *accumulator._batches.values())) == []
    producer._sender.sender_task.cancel()
    await asyncio.wait({producer._sender.sender_task})
    await producer.client.close()


async def test_next_transaction_is_refused_once(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that follows closely on another is refused with CONCURRENT_TRANSACTIONS and tried again 20 ms later:
    what costs is their number, so batches grow (`commit_interval`, `commits_per_second`).
    """
    codes: list[int] = []
    handle = sender.AddPartitionsToTxnHandler.handle_response

    def watched(self: Any, response: Any) -> Any:
        codes.extend(code for _, partitions in response.errors for _, code in partitions)
        return handle(self, response)

    monkeypatch.setattr(sender.AddPartitionsToTxnHandler, "handle_response", watched)
    topic = await broker.topic()
    owner = await broker.producer(transactional_id=broker.name())
    for _ in range(10):
        async with owner.transaction():
            await owner.send_and_wait(topic, b"v")
    assert codes.count(0) == 10
    assert 51 in codes
    assert sender.BACKOFF_OVERRIDE == 0.02


# --- transactions: batches of our own ---


async def test_batches_in_a_transaction(broker: Broker) -> None:
    """`create_batch` and `send_batch` take part in a transaction, also of a batch whose inner builder was filled; the
    future of a batch has the offset of its first record (`KafkaPartitionWriter._send`).
    """
    topic = await broker.topic()
    owner = await broker.producer(transactional_id=broker.name())

    async def send_three() -> int:
        batch = owner.create_batch()
        for count, value in enumerate((b"0", b"1", None)):
            assert batch._builder.append(count, 1_000, b"k", value, []) is not None
        batch._relative_offset = 3
        batch.close()
        assert batch.record_count() == 3
        offset: int = (await (await owner.send_batch(batch, topic, partition=0))).offset
        return offset

    with pytest.raises(IllegalOperation):
        await send_three()
    await owner.begin_transaction()
    assert await send_three() == 0
    await owner.abort_transaction()
    await owner.begin_transaction()
    assert await send_three() == 4  # after three aborted records and their marker
    await owner.commit_transaction()
    records = await broker.read(topic, until=6)
    assert [(record.offset, record.value) for record in records] == [(4, b"0"), (5, b"1"), (6, None)]
    assert {record.timestamp for record in records} == {1_000}


async def test_batch_is_full_after_the_first(broker: Broker) -> None:
    """`append` gives `None` once `max_batch_size` is reached, but takes the first record whatever its size
    (`KafkaPartitionWriter._send`).
    """
    producer = await broker.producer(max_batch_size=1_000)
    batch = producer.create_batch()
    assert batch._builder.append(0, 1_000, b"k", bytes(5_000), []) is not None
    assert batch._builder.append(1, 1_000, b"k", b"", []) is None


# --- reading what is committed ---


async def test_position_passes_what_is_not_delivered(broker: Broker) -> None:
    """The read_committed position moves past markers and aborted records that end a partition, without any record: it
    tells the end of a restore, not the last record (`KafkaPartitionWriter.read`).
    """
    topic = await broker.topic()
    owner = await broker.producer(transactional_id=broker.name())
    async with owner.transaction():
        await owner.send_and_wait(topic, b"committed")
    await owner.begin_transaction()
    await owner.send_and_wait(topic, b"aborted")
    await owner.abort_transaction()
    records = await broker.read(topic, until=3)  # record, marker, aborted record, marker
    assert [(record.offset, record.value) for record in records] == [(0, b"committed")]


async def test_end_offsets_stop_short_of_an_open_transaction(broker: Broker) -> None:
    """With a foreign transaction open, read_committed `end_offsets` tell where that began: a restore that trusted them
    would be empty. The barrier comes when it ends, and `last_stable_offset` shows who hinders (`KafkaPartitionWriter`).
    """
    topic = await broker.topic()
    foreign = await broker.producer(transactional_id=broker.name())
    await foreign.begin_transaction()
    await foreign.send_and_wait(topic, b"foreign")
    barrier = await broker.commit(broker.name(), topic, b"mine", b"barrier")
    reader, here = await broker.reader(topic)
    assert await reader.end_offsets([here]) == {here: 0}

    async def is_told() -> bool:
        assert await reader.getmany(timeout_ms=100) == {}
        return reader.highwater(here) is not None

    await eventually(is_told, "an answer without records")
    assert (await reader.position(here), reader.last_stable_offset(here), reader.highwater(here)) == (0, 0, 4)
    await foreign.abort_transaction()
    assert values(await broker.read(topic, barrier.offset)) == [b"mine", b"barrier"]


async def test_stable_offset_is_told_under_read_uncommitted(broker: Broker) -> None:
    """`last_stable_offset` is that of the partition whatever the isolation level, and lies behind what is delivered
    under read_uncommitted; it and `highwater` are `None` before the first answer (`KafkaEventLog.lag`).
    """
    topic = await broker.topic()
    writer = await broker.producer(transactional_id=broker.name())
    await writer.begin_transaction()
    await writer.send_and_wait(topic, b"open")
    here = TopicPartition(topic, 0)
    reader = broker.consumer()
    reader.assign([here])
    await reader.start()
    assert (reader.highwater(here), reader.last_stable_offset(here)) == (None, None)
    reader.seek(here, 0)
    assert values((await reader.getmany(timeout_ms=10_000))[here]) == [b"open"]
    assert (await reader.position(here), reader.highwater(here), reader.last_stable_offset(here)) == (1, 1, 0)


async def test_compaction_keeps_the_newest(broker: Broker) -> None:
    """After compaction the newest record of each key is there, at its old offset, and a read up to the barrier is
    complete, from 0 or from inside a gap (`KafkaPartitionWriter.read`, cold and warm).
    """
    topic = await broker.topic(cleanup_policy="compact", segment_ms="50", min_cleanable_dirty_ratio="0.01")
    owner = await broker.producer(transactional_id=broker.name())
    orders = {}
    for number in range(12):
        async with owner.transaction():
            key, value = b"o%d" % (number % 3), b"%d" % number
            orders[key] = (await owner.send_and_wait(topic, value, key=key)).offset, value
    await owner.begin_transaction()
    await owner.send_and_wait(topic, b"aborted", key=b"o0")
    await owner.abort_transaction()

    async def read(offset: int) -> list[Any]:
        async with owner.transaction():  # closes the segment before it, too: only closed ones are compacted
            barrier = await owner.send_and_wait(topic, b"", key=b"barrier")
        records = await broker.read(topic, barrier.offset, offset)
        assert (records[-1].key, records[-1].offset) == (b"barrier", barrier.offset)
        return [record for record in records if record.key != b"barrier"]

    async def is_compacted() -> bool:
        return len(await read(0)) == len(orders)

    await eventually(is_compacted, "compaction")
    for offset in (0, 1):
        assert {record.key: (record.offset, record.value) for record in await read(offset)} == orders


# --- offsets that are not there ---


@pytest.mark.parametrize("offset", [1, 9])
async def test_out_of_range_names_partition_and_offset(broker: Broker, offset: int) -> None:
    """With reset "none" an offset below the first or above the last raises `OffsetOutOfRangeError({partition: offset})`,
    again at every call and with the position where it was, until a pause or a seek (`KafkaEventLog._fetch`, `_gap`).
    """
    topic = await broker.topic()
    await broker.fill(topic, 4)
    here = TopicPartition(topic, 0)
    await broker.admin.delete_records({here: RecordsToDelete(before_offset=2)})
    reader, _ = await broker.reader(topic, offset)
    for _ in range(2):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            await reader.getmany(timeout_ms=10_000)
        assert caught.value.args[0] == {here: offset}
        assert await reader.position(here) == offset
    reader.pause(here)
    assert await reader.getmany(timeout_ms=100) == {}
    reader.seek(here, 2)
    reader.resume(here)
    assert values((await reader.getmany(timeout_ms=10_000))[here]) == [b"2", b"3"]


async def test_no_offset_names_the_partition(broker: Broker) -> None:
    """With reset "none" a partition without a committed offset raises `NoOffsetForPartitionError(partition)`, again at
    every call, until it is sought (`KafkaEventLog._fetch`, `_gap`).
    """
    topic = await broker.topic()
    await broker.fill(topic, 1)
    here = TopicPartition(topic, 0)
    member = broker.member(topic, broker.name())
    await member.start()
    for _ in range(2):
        with pytest.raises(NoOffsetForPartitionError) as caught:
            await member.getmany(timeout_ms=10_000)
        assert caught.value.args[0] == here
    member.seek(here, 0)
    assert values((await member.getmany(timeout_ms=10_000))[here]) == [b"0"]


# --- the group: assignment ---


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Notes what it is told, and does then what the test says."""

    def __init__(self, assigned: Callable[[set[Any]], Any] | None = None, revoked: Any = None) -> None:
        self._assigned = assigned
        self._revoked = revoked
        self.told: list[tuple[str, int]] = []
        """What, and of how many partitions."""

    def on_partitions_assigned(self, assigned: set[Any]) -> Any:
        """Is no coroutine function itself, like ours."""
        self.told.append(("assigned", len(assigned)))
        return self._assigned(assigned) if self._assigned else None

    def on_partitions_revoked(self, revoked: set[Any]) -> Any:
        """The same."""
        self.told.append(("revoked", len(revoked)))
        return self._revoked(revoked) if self._revoked else None

    async def assigned_times(self, count: int) -> None:
        """Waits for so many assignments."""

        async def is_so() -> bool:
            return [what for what, _ in self.told].count("assigned") >= count

        await eventually(is_so, f"{count} assignments")


async def test_no_heartbeat_while_assigned_runs(broker: Broker) -> None:
    """A member whose `on_partitions_assigned` takes longer than the session is evicted meanwhile, one that returns is
    not: ours is a plain function that only starts tasks (`KafkaEventLog.on_partitions_assigned`).
    """
    topic, slow_group, group = await broker.topic(), broker.name(), broker.name()
    evicted = asyncio.Event()
    listener = Listener(lambda _: evicted.wait())
    options = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500}
    await broker.member(topic, slow_group, listener, **options).start()
    await broker.member(topic, group, Listener(), **options).start()
    assert (await broker.members(slow_group), await broker.members(group)) == (1, 1)

    async def is_evicted() -> bool:
        return not await broker.members(slow_group)

    await eventually(is_evicted, "eviction")
    assert await broker.members(group) == 1
    assert listener.told == [("revoked", 0), ("assigned", 1)]
    evicted.set()
    await listener.assigned_times(2)


async def test_records_come_while_assigned_runs(broker: Broker) -> None:
    """Records of new partitions are delivered while `on_partitions_assigned` still waits (issue 738), so nothing there
    can be done after an await (`KafkaEventLog.on_partitions_assigned`).
    """
    topic = await broker.topic()
    await broker.fill(topic, 1)
    delivered = asyncio.Event()
    is_waiting = True

    async def wait(_: set[Any]) -> None:
        nonlocal is_waiting
        await delivered.wait()
        is_waiting = False

    member = broker.member(topic, broker.name(), Listener(wait), auto_offset_reset="earliest")
    await member.start()
    assert is_waiting
    assert values((await member.getmany(timeout_ms=20_000))[TopicPartition(topic, 0)]) == [b"0"]
    assert is_waiting
    delivered.set()


async def test_pause_and_seek_before_any_await(broker: Broker) -> None:
    """What `on_partitions_assigned` pauses and seeks before its first await is delivered only from there on, without
    any look-up of committed offsets; and `start()` returns after it (`KafkaEventLog.on_partitions_assigned`).
    """
    topic = await broker.topic(partitions=2)
    await broker.fill(topic, 3)
    here = TopicPartition(topic, 0)

    def hold(assigned: set[Any]) -> None:
        for partition in assigned:
            member.pause(partition)
            member.seek(partition, 0)

    listener = Listener(hold)
    member = broker.member(topic, broker.name(), listener)
    await member.start()
    assert listener.told == [("revoked", 0), ("assigned", 2)]
    for _ in range(3):
        assert await member.getmany(timeout_ms=100) == {}  # not NoOffsetForPartitionError
    member.seek(here, 1)
    member.resume(here)
    assert values((await member.getmany(timeout_ms=10_000))[here]) == [b"1", b"2"]


async def test_rebalance_forgets_position_and_pause(broker: Broker) -> None:
    """After a rebalance a partition that stays is neither paused nor where it was: all are paused and sought anew at
    each assignment (`KafkaEventLog.on_partitions_assigned`).
    """
    topic = await broker.topic()
    await broker.fill(topic, 1)
    here = TopicPartition(topic, 0)
    listener = Listener()
    member = broker.member(topic, broker.name(), listener)
    await member.start()
    member.pause(here)
    member.seek(here, 0)
    assert member.paused() == {here}
    member._coordinator.request_rejoin()
    await listener.assigned_times(2)
    assert member.paused() == set()
    with pytest.raises(NoOffsetForPartitionError):
        await member.getmany(timeout_ms=10_000)


async def test_getmany_waits_for_the_end_of_a_rebalance(broker: Broker) -> None:
    """While `on_partitions_revoked` runs, `getmany` does not return, whatever its timeout: it has a task of its own that
    outlives a `poll` (`KafkaEventLog.poll`).
    """
    topic = await broker.topic()
    let_go, begun = asyncio.Event(), asyncio.Event()

    async def revoked(partitions: set[Any]) -> None:
        if partitions:
            begun.set()
            await let_go.wait()

    member = broker.member(topic, broker.name(), Listener(revoked=revoked), auto_offset_reset="earliest")
    await member.start()
    member._coordinator.request_rejoin()
    await asyncio.wait_for(begun.wait(), EVENTUALLY_S)
    getting = asyncio.ensure_future(member.getmany(timeout_ms=50))
    await asyncio.wait({getting}, timeout=1.0)
    assert not getting.done()
    let_go.set()
    assert await asyncio.wait_for(getting, EVENTUALLY_S) == {}


async def test_errors_of_a_listener_are_only_logged(broker: Broker) -> None:
    """What a listener raises neither stops a rebalance nor reaches `start` or `getmany`: ours keeps it for the next
    `poll` (`KafkaEventLog._listener_error`).
    """

    def fail(_: set[Any]) -> None:
        raise ValueError("listener")

    topic = await broker.topic()
    listener = Listener(fail, fail)
    member = broker.member(topic, broker.name(), listener, auto_offset_reset="earliest")
    await member.start()
    assert await member.getmany(timeout_ms=50) == {}
    assert listener.told == [("revoked", 0), ("assigned", 1)]


@pytest.mark.parametrize(
    ("assignors", "joins"),
    [((StickyPartitionAssignor,), 2), ((StickyPartitionAssignor, RoundRobinPartitionAssignor), 3)],
)
async def test_one_join_for_each_assignor(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, assignors: tuple[Any, ...], joins: int
) -> None:
    """Each listed assignor costs a JoinGroup beside the one that brings the member id (KIP-394): we list one
    (`KafkaEventLog.start`).
    """
    sent: list[str] = []
    send = GroupCoordinator._send_req

    async def watched(self: Any, request: Any) -> Any:
        sent.append(type(request).__name__)
        return await send(self, request)

    monkeypatch.setattr(GroupCoordinator, "_send_req", watched)
    own = tuple(type("Own", (assignor,), {}) for assignor in assignors)
    await broker.member(await broker.topic(), broker.name(), partition_assignment_strategy=own).start()
    assert sent.count("JoinGroupRequest") == joins


async def test_sticky_memory_is_in_the_class(broker: Broker) -> None:
    """The sticky assignor keeps its assignment in the class that was listed: a subclass for each member keeps members of
    one process apart (`_own_assignor`).
    """
    own: Any = type("OwnStickyAssignor", (StickyPartitionAssignor,), {})
    before = StickyPartitionAssignor.member_assignment
    topic = await broker.topic()
    await broker.member(topic, broker.name(), partition_assignment_strategy=(own,)).start()
    assert own.member_assignment == [TopicPartition(topic, 0)]
    assert StickyPartitionAssignor.member_assignment is before


# --- the group: membership ---


async def test_cancelled_getmany_ends_the_poll_watch(broker: Broker) -> None:
    """A member that does not poll for `max_poll_interval_ms` leaves, but never again once a `getmany` was cancelled:
    ours is not cancelled, and has a watchdog (`KafkaEventLog.poll`).
    """
    topic, group, leaky_group = await broker.topic(), broker.name(), broker.name()
    options = {"max_poll_interval_ms": 1_000, "auto_offset_reset": "earliest"}
    member = broker.member(topic, group, **options)
    leaky = broker.member(topic, leaky_group, **options)
    await leaky.start()
    getting = asyncio.ensure_future(leaky.getmany(timeout_ms=60_000))
    await asyncio.wait({getting}, timeout=0.2)
    getting.cancel()
    await asyncio.wait({getting})
    await member.start()
    await member.getmany(timeout_ms=0)

    async def has_left() -> bool:
        return not await broker.members(group)

    await eventually(has_left, "a member that does not poll")
    assert leaky._subscription.fetcher_idle_time == 0
    assert await broker.members(leaky_group) == 1


async def test_dropped_member_reads_on_and_cannot_commit(broker: Broker) -> None:
    """A member that the group has dropped receives records until a heartbeat tells it, so it proves nothing to be fed;
    its commit fails with `CommitFailedError` (`KafkaEventLog.commit_group`, the lease).
    """
    topic, group = await broker.topic(), broker.name()
    here = TopicPartition(topic, 0)
    member = broker.member(topic, group, auto_offset_reset="earliest", heartbeat_interval_ms=9_000)
    await member.start()
    coordinator = member._coordinator
    await coordinator._send_req(LeaveGroupRequest(group, coordinator.member_id))
    assert await broker.members(group) == 0
    await broker.fill(topic, 1)
    assert values((await member.getmany(timeout_ms=5_000))[here]) == [b"0"]
    with pytest.raises(CommitFailedError):
        await member.commit({here: 1})


async def test_group_offset_goes_backwards(broker: Broker) -> None:
    """A commit checks neither its order nor the log's end: 5, 2, then 500 of nothing are all taken, so group
    offsets are compared and never trusted (`KafkaEventLog.group_offset`).
    """
    topic = await broker.topic()
    here = TopicPartition(topic, 0)
    member = broker.member(topic, broker.name(), auto_offset_reset="earliest")
    await member.start()
    assert await member.committed(here) is None
    for offset in (5, 2, 500):
        await member.commit({here: offset})
        assert await member.committed(here) == offset
    with pytest.raises(ValueError, match=r"\{\}"):
        await member.commit({})


async def test_stop_leaves_the_group_and_tells_nobody(broker: Broker) -> None:
    """`stop()` leaves the group at once and does not call `on_partitions_revoked`: a shutdown revokes by itself, and the
    others need not wait for the session (`KafkaEventLog.stop`, `PROTOCOL.md` step 18).
    """
    topic, group = await broker.topic(), broker.name()
    listener = Listener()
    member = broker.member(topic, group, listener, session_timeout_ms=60_000)
    await member.start()
    assert await broker.members(group) == 1
    await member.stop()
    assert await broker.members(group) == 0
    assert listener.told == [("revoked", 0), ("assigned", 1)]


async def test_stop_right_after_start_is_cancelled(broker: Broker) -> None:
    """A reader stopped before its fetcher ever ran raises `CancelledError` of its own accord and leaves its connections
    (`client.py`: `_stopped` tells it from ours, `stop_consumer` closes them).
    """
    reader = broker.consumer()
    reader.assign([TopicPartition(await broker.topic(), 0)])
    await reader.start()
    with pytest.raises(asyncio.CancelledError):
        await reader.stop()
    assert reader._client._conns
    await reader._client.close()


# --- administration ---


async def configs_of(broker: Broker, topic: str) -> dict[str, str]:
    """What is configured of a topic."""
    [answer] = await broker.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(_code, _said, _kind, _name, entries)] = answer.resources
    return {entry[0]: entry[1] for entry in entries}


async def test_alter_configs_replaces_everything(broker: Broker) -> None:
    """`alter_configs` takes away what it does not name, `cleanup.policy=compact` for one: nothing of ours calls it
    (`topics.py`).
    """
    topic = await broker.topic(cleanup_policy="compact")
    assert (await configs_of(broker, topic))["cleanup.policy"] == "compact"
    await broker.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"segment.ms": "60000"})])

    async def is_altered() -> bool:
        return (await configs_of(broker, topic))["segment.ms"] == "60000"

    await eventually(is_altered, "the altered configuration")
    assert (await configs_of(broker, topic))["cleanup.policy"] == "delete"


async def test_admin_raises_nothing_of_single_topics(broker: Broker) -> None:
    """What Kafka says of single topics stands in the answers as a code, and raises nothing: we look at each
    (`_raise_refused`, `_describe` in `topics.py`).
    """
    admin, topic, missing = broker.admin, await broker.topic(), broker.name()
    wanted = [NewTopic(topic, 1, 1), NewTopic(missing, 1, 3), NewTopic(missing + "-2", 1, 1, topic_configs={"no": "1"})]
    created = await admin.create_topics(wanted)
    assert {name: code for name, code, *_ in created.topic_errors} == {topic: 36, missing: 38, missing + "-2": 40}
    assert [(entry["topic"], entry["error_code"]) for entry in await admin.describe_topics([missing])] == [(missing, 3)]
    [described] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, missing)])
    assert [(code, name, entries) for code, _, _, name, entries in described.resources] == [(3, missing, [])]


# --- records ---

HEADERS = [("a", b"1"), ("b", b""), ("a", b"2"), ("null", None), ("ü", "ü".encode())]


async def by_send(producer: Any, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> None:
    """As `EventWriter` writes."""
    await producer.send_and_wait(topic, value, key, 0, headers=headers)


async def by_batch(producer: Any, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> None:
    """As the state log writes."""
    batch = producer.create_batch()
    batch.append(timestamp=None, key=key, value=value, headers=headers)
    await (await producer.send_batch(batch, topic, partition=0))


@pytest.mark.parametrize("write", [by_send, by_batch])
async def test_records_come_back_as_they_were(broker: Broker, write: Callable[..., Awaitable[None]]) -> None:
    """Null and empty keys and values differ, headers keep their order, doubles, empty and null values; they must be
    tuples (`DeadLetter`, `EventWriter.write`, `KafkaPartitionWriter.write`).
    """
    topic = await broker.topic()
    producer = await broker.producer(enable_idempotence=True)
    records: list[tuple[bytes | None, bytes | None, list[Any]]] = [
        *((b"k", b"v", HEADERS), (None, b"v", []), (b"", b"v", []), (b"k", None, []), (b"k", b"", [])),
    ]
    for record in records:
        await write(producer, topic, *record)
    found = await broker.read(topic, len(records) - 1)
    assert [(record.key, record.value, list(record.headers)) for record in found] == records
    with pytest.raises(TypeError, match="tuple"):
        await write(producer, topic, b"k", b"v", [["a", b"1"]])


async def test_compacted_topic_refuses_a_null_key(broker: Broker) -> None:
    """A record without a key on a compacted topic is an `UnknownError` (INVALID_RECORD is not known), hence a
    `KafkaError` that `as_log_error` makes a `LogError` of (`client.py`).
    """
    topic = await broker.topic(cleanup_policy="compact")
    producer = await broker.producer(enable_idempotence=True)
    with pytest.raises(UnknownError):
        await producer.send_and_wait(topic, b"v")
