"""The log of `cartsync demo --kafka`: a real broker, started for the demo and gone after it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.ports import EventLog, StateLog
from worker.tools.local_kafka import LocalKafka

PARTITIONS = 4


async def kafka_log(stack: AsyncExitStack) -> tuple[EventLog, StateLog, Callable[[str, bytes], Awaitable[None]]]:
    """Starts a broker, makes the topics; all of it ends with the stack. Raises `LocalKafkaError`."""
    kafka = LocalKafka()
    await asyncio.to_thread(kafka.start)
    stack.callback(kafka.stop)
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap, session_timeout_s=6.0, heartbeat_s=1.0, rebalance_timeout_s=10.0
    )
    await create_topics(settings, PARTITIONS)
    writer = EventWriter(settings)
    await writer.start()
    stack.push_async_callback(writer.stop)

    async def append(key: str, value: bytes) -> None:
        await writer.write(key.encode(), value)

    return KafkaEventLog(settings), KafkaStateLog(settings), append
