"""The bare library against a real broker: topics and clients of one test's own, closed at its end."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from worker.kafka.client import stop_consumer, stop_producer

EVENTUALLY_S = 40.0
"""How long anything may take. Most of it takes milliseconds; a session or the end of a transaction seconds."""
_STOP_S = 5.0


async def eventually(holds: Callable[[], Awaitable[object]], what: str) -> None:
    """Waits until something holds; fails when it never does."""
    try:
        async with asyncio.timeout(EVENTUALLY_S):
            while not await holds():  # noqa: ASYNC110 - what is waited for is the broker's
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {EVENTUALLY_S:g} s") from None


class Broker:
    """A connection of one test: all names that it hands out are new."""

    def __init__(self, bootstrap_servers: str, admin: Any) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.admin = admin
        self._producers: list[Any] = []
        self._consumers: list[Any] = []

    @staticmethod
    def name() -> str:
        """A new name, for a topic, a group or a transactional id."""
        return f"library-{uuid.uuid4().hex[:10]}"

    async def topic(self, partitions: int = 1, **configs: str) -> str:
        """A new topic; `cleanup_policy` for `cleanup.policy`. Returns when the broker knows it."""
        name = self.name()
        settings = {key.replace("_", "."): value for key, value in configs.items()}
        await self.admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])

        async def is_there() -> bool:
            return name in await self.admin.list_topics()

        await eventually(is_there, "a new topic")
        return name

    async def producer(self, **options: Any) -> Any:
        """A producer that has started; transactional ones have fenced by then."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers, **options)
        self._producers.append(producer)
        await producer.start()
        return producer

    async def commit(self, transactional_id: str, topic: str, *values: bytes) -> Any:
        """A new owner, which commits these values as one transaction; where the last one is."""
        owner = await self.producer(transactional_id=transactional_id)
        async with owner.transaction():
            return [await owner.send_and_wait(topic, value, key=b"k") for value in values][-1]

    async def fill(self, topic: str, count: int) -> None:
        """Writes events `0`, `1`, … to partition 0."""
        producer = await self.producer()
        for number in range(count):
            await producer.send_and_wait(topic, b"%d" % number, key=b"k", partition=0)

    def consumer(self, **options: Any) -> Any:
        """A consumer that has not started, with the settings that all of ours have."""
        options = {"auto_offset_reset": "none", "enable_auto_commit": False} | options
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap_servers, **options)
        self._consumers.append(consumer)
        return consumer

    def member(self, topic: str, group: str, listener: Any = None, **options: Any) -> Any:
        """A group member that has not started; it hears soon of what happens in its group."""
        member = self.consumer(group_id=group, **({"heartbeat_interval_ms": 200} | options))
        member.subscribe([topic], listener=listener)
        return member

    async def reader(self, topic: str, offset: int = 0) -> tuple[Any, TopicPartition]:
        """A reader of partition 0 as a restore has it, without a group; and that partition."""
        here = TopicPartition(topic, 0)
        reader = self.consumer(isolation_level="read_committed")
        reader.assign([here])
        await reader.start()
        reader.seek(here, offset)
        return reader, here

    async def read(self, topic: str, until: int, offset: int = 0) -> list[Any]:
        """The committed records of partition 0, from `offset` until the position has passed `until`."""
        reader, here = await self.reader(topic, offset)
        found: list[Any] = []
        async with asyncio.timeout(EVENTUALLY_S):
            while await reader.position(here) <= until:
                found += (await reader.getmany(timeout_ms=100)).get(here, [])
        return found

    async def members(self, group: str) -> int:
        """How many members the broker takes a group to have."""
        [answer] = await self.admin.describe_consumer_groups([group])
        [(_code, _group, _state, _kind, _protocol, members, *_)] = answer.groups
        return len(members)

    async def close(self) -> None:
        """Stops all clients, whatever state they are in."""
        for consumer in self._consumers:
            await stop_consumer(consumer, _STOP_S)
        for producer in self._producers:
            await stop_producer(producer, _STOP_S)
