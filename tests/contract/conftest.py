"""The worlds that the contract is held against. Another implementation is one more class, and a name in `WORLDS`."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from msgspec.structs import replace

from tests.contract.batches import Written, batch, write_batch
from tests.contract.world import Hold, Join, Member, World
from tests.kafka_settings import settings_of
from worker.core.placing import Placing
from worker.kafka.decoding import BATCH_MAX_BYTES
from worker.kafka.events import KafkaEventLog
from worker.kafka.following import KafkaRecords
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.scan import KafkaStateScan
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import create_topics
from worker.ports import DeadLetter, EventLog, EventProducer, PartitionWriter, Records, Result, StateLog, StateScan
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock
from worker.sim.producer import MemoryEventProducer, put_into
from worker.sim.records import MemoryRecords

_Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> _Loops:
    """Run the modules that say so (`BOTH_LOOPS`) on both event loops, all others on the usual one."""
    loops: _Loops = {"asyncio": asyncio.new_event_loop}
    is_both = isinstance(item, pytest.Function) and getattr(item.module, "BOTH_LOOPS", False)
    return {**loops, "uvloop": uvloop.new_event_loop} if is_both else loops


class MemoryWorld:
    """The in-memory log, in real time."""

    partitions = 3
    group = "cartsync"
    quiet_s = 0.01

    def __init__(self) -> None:
        self._log = MemoryLog(self.partitions, VirtualClock(asyncio.get_running_loop()))

    async def append(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Writes an event."""
        return self._log.append(key, value, headers, timestamp_ms, partition)

    async def append_poison(self, partition: int) -> int:
        """Writes a record that cannot be decoded."""
        return self._log.append_undecodable(
            partition, "headers: no", key=b"k", value=b"v", headers=[("a\ufffd", b"x")], names=[b"a\xff"]
        )

    async def append_bomb(self, partition: int, count: int) -> int:
        """Writes a batch that cannot be decoded."""
        return self._log.append_undecodable(partition, "batch: no", count=count, value=b"raw")

    async def open_transaction(self, partition: int) -> Callable[[], Awaitable[None]]:
        """Somebody's transaction."""
        self._log.hang_input(partition)

        async def end() -> None:
            self._log.end_input(partition)

        return end

    async def truncate(self, partition: int, before_offset: int) -> None:
        """Forgets events."""
        self._log.truncate(partition, before_offset)

    async def aborted(self, partition: int) -> None:
        """Uses up offsets."""
        self._log.skip(partition, 2)

    def events(self, member: str, name: str = "") -> EventLog:
        """The event topic for a process."""
        return self._log.events(member, name)

    def states(self, member: str) -> StateLog:
        """The state topic for a process."""
        return self._log.states(member)

    def scan(self, wanted: Callable[[str], bool]) -> StateScan:
        """Reads the state topic as a tool does."""
        return self._log.scan(wanted)

    def event_producer(self, placing: Placing) -> EventProducer:
        """Writes to the event topic."""
        return MemoryEventProducer(put_into(self._log, placing), VirtualClock(asyncio.get_running_loop()))

    def records(self) -> Records:
        """Reads along."""
        return MemoryRecords(self._log, VirtualClock(asyncio.get_running_loop()))

    async def dead_letters(self) -> list[DeadLetter]:
        """What is committed."""
        return list(self._log.dead_letters)

    async def results(self) -> list[Result]:
        """What is committed."""
        return list(self._log.results)

    async def history(self, partition: int) -> list[tuple[bytes | None, bytes | None]]:
        """What is committed."""
        return [(entry.key, entry.value) for entry in self._log.history(partition)]


@asynccontextmanager
async def memory_world(_: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world in memory, which needs no cleaning up."""
    yield MemoryWorld()


class KafkaWorld:
    """A real broker, with topics of this world's own."""

    partitions = 3
    quiet_s = 0.3

    def __init__(self, bootstrap_servers: str) -> None:
        self.settings = settings_of(bootstrap_servers)
        self.group = self.settings.group_id
        self.producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")

    async def append(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Writes an event."""
        place = await self.producer.send_and_wait(
            self.settings.event_topic, value, key, partition, timestamp_ms, list(headers)
        )
        return place.partition, place.offset

    async def append_poison(self, partition: int) -> int:
        """Writes a record that cannot be decoded."""
        records: list[Written] = [(b"k", b"v", [("ab", b"x")])]
        return await self._append_raw(partition, batch(*records, change=lambda body: body.replace(b"ab", b"a\xff")))

    async def append_bomb(self, partition: int, count: int) -> int:
        """Writes a batch that cannot be decoded."""
        records: list[Written] = [(b"k", bytes(BATCH_MAX_BYTES + 1), [])] * count
        return await self._append_raw(partition, batch(*records, name="zstd"))

    async def _append_raw(self, partition: int, raw: bytes) -> int:
        here = TopicPartition(self.settings.event_topic, partition)
        async with AIOKafkaConsumer(bootstrap_servers=self.settings.bootstrap_servers) as asking:
            first: int = (await asking.end_offsets([here]))[here]
        await write_batch(self.producer, here.topic, partition, raw)
        return first

    async def open_transaction(self, partition: int) -> Callable[[], Awaitable[None]]:
        """Somebody's transaction."""
        somebody = AIOKafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers, transactional_id=f"{self.settings.group_id}-somebody"
        )
        await somebody.start()
        await somebody.begin_transaction()
        await somebody.send_and_wait(self.settings.event_topic, b"open", b"k", partition)

        async def end() -> None:
            await somebody.abort_transaction()
            await somebody.stop()

        return end

    async def truncate(self, partition: int, before_offset: int) -> None:
        """Forgets events."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)
        await admin.start()
        here = TopicPartition(self.settings.event_topic, partition)
        await admin.delete_records({here: RecordsToDelete(before_offset=before_offset)})
        await admin.close()

    async def aborted(self, partition: int) -> None:
        """Aborts a transaction: a record that nobody sees, and a marker."""
        servers = self.settings.bootstrap_servers
        async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=uuid.uuid4().hex) as shop:
            await shop.begin_transaction()
            await shop.send_and_wait(self.settings.event_topic, b"aborted", partition=partition)
            await shop.abort_transaction()

    def events(self, member: str, name: str = "") -> EventLog:
        """The event topic for a process."""
        return KafkaEventLog(replace(self.settings, client_id=member, group_instance_id=name))

    def states(self, member: str) -> StateLog:
        """The state topic for a process."""
        return KafkaStateLog(replace(self.settings, client_id=member))

    def scan(self, wanted: Callable[[str], bool]) -> StateScan:
        """Reads the state topic as a tool does."""
        return KafkaStateScan(self.settings, wanted)

    def event_producer(self, placing: Placing) -> EventProducer:
        """Writes to the event topic."""
        return KafkaEventProducer(self.settings, placing)

    def records(self) -> Records:
        """Reads along."""
        return KafkaRecords(self.settings)

    async def dead_letters(self) -> list[DeadLetter]:
        """What is committed."""
        found = await self._committed(self.settings.dead_letter_topic)
        return [DeadLetter(record.key, record.value, list(record.headers)) for record in found]

    async def results(self) -> list[Result]:
        """What is committed; each says what it is."""
        found = await self._committed(self.settings.results_topic)
        assert {tuple(record.headers) for record in found} <= {(("content-type", b"application/cloudevents+json"),)}
        return [Result(record.key, record.value) for record in found]

    async def history(self, partition: int) -> list[tuple[bytes | None, bytes | None]]:
        """What is committed."""
        found = await self._committed(self.settings.history)
        return [(record.key, record.value) for record in found if record.partition == partition]

    async def _committed(self, topic: str) -> list[Any]:
        """Read up to where anything was written, for a commit is seen a moment after it returned."""
        servers = self.settings.bootstrap_servers
        places = [TopicPartition(topic, partition) for partition in range(self.partitions)]
        async with AIOKafkaConsumer(bootstrap_servers=servers) as everything:
            ends = await everything.end_offsets(places)
        found: list[Any] = []
        if not any(ends.values()):  # a consumer that reads nothing cannot be stopped in order
            return found
        async with AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed") as consumer:
            for here in places:
                consumer.assign([here])
                consumer.seek(here, 0)
                while await consumer.position(here) < ends[here]:
                    found += (await consumer.getmany(timeout_ms=100)).get(here, [])
        return found


@asynccontextmanager
async def kafka_world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world on the Kafka that the whole run shares."""
    opened = KafkaWorld(request.getfixturevalue("kafka").bootstrap)
    await create_topics(opened.settings, opened.partitions)
    async with opened.producer:
        yield opened


OpenWorld = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[World]]

WORLDS: dict[str, OpenWorld] = {"memory": memory_world, "kafka": kafka_world}
"""A function that opens a world with fresh topics; what it needs of other fixtures it asks the request for."""


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Each world in turn."""
    async with WORLDS[request.param](request) as opened:
        yield opened


@pytest.fixture
async def join(world: World) -> AsyncIterator[Join]:
    """Starts members of the group; those that are left leave at the end."""
    members: list[Member] = []

    async def start(process: str, name: str = "") -> Member:
        member = Member(world.events(process, name))
        members.append(member)
        await member.start()
        return member

    yield start
    for member in members:
        await member.stop()


@pytest.fixture
async def hold(world: World) -> AsyncIterator[Hold]:
    """Gives new holds on a state partition, fenced; each from a process of its own. They are closed at the end."""
    logs: list[StateLog] = []
    holds: list[PartitionWriter] = []

    async def take(partition: int = 0, *, fence: bool = True) -> PartitionWriter:
        log = world.states(f"owner-{len(logs)}")
        await log.start()
        logs.append(log)
        taken = log.partition(partition)
        holds.append(taken)
        if fence:
            await taken.fence()
        return taken

    yield take
    for taken in holds:
        await taken.close()
    for log in logs:
        await log.stop()
