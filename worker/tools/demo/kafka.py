"""The log of `cartsync demo --kafka`: a real broker, started for the demo and removed after it."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from worker.backend import open_records, open_state_log
from worker.kafka.events import KafkaEventLog
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.tools.demo.stage import PARTITIONS, TRUST, Wire
from worker.tools.letters import desk_on
from worker.tools.local_kafka import LocalKafka


async def kafka_wire(stack: AsyncExitStack) -> Wire:
    """Starts a broker and creates the topics; all of it ends with the stack. Raises `LocalKafkaError`."""
    kafka = LocalKafka()
    await asyncio.to_thread(kafka.start)
    stack.callback(kafka.stop)
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap,
        session_timeout_s=6.0,
        heartbeat_s=1.0,
        rebalance_timeout_s=10.0,
        partitioner="murmur2",
    )
    await create_topics(settings, PARTITIONS)
    writer = EventWriter(settings)
    await writer.start()
    stack.push_async_callback(writer.stop)
    placing = settings.placing()
    assert placing is not None, "the partitioner is set"

    async def append(key: str, value: bytes) -> None:
        await writer.write(key.encode(), value)

    return Wire(
        KafkaEventLog(settings),
        open_state_log(settings),
        append,
        lambda: KafkaEventProducer(settings, placing),
        placing,
        lambda: open_records(settings),
        lambda: partial(desk_on, settings, TRUST),
    )
