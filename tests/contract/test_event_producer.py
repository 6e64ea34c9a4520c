"""The contract of `EventProducer`, for every implementation of it."""

import asyncio

import pytest

from tests.contract.world import Join, World, eventually
from worker.core.placing import PartitionerName, Placing

HEADERS = [("content-type", b"application/cloudevents+json"), ("x-cartsync-mac", b"ab")]


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
async def test_record_lies_where_its_key_belongs(world: World, join: Join, partitioner: PartitionerName) -> None:
    """Key, value and headers are as they were given, in the partition that the partitioner says."""
    placing = Placing(partitioner)
    producer = world.event_producer(placing)
    producer.start()
    keys = [f"hats/{number}".encode() for number in range(12)]
    for key in keys:
        await (await producer.post(key, b"v " + key, HEADERS))
    await producer.stop()
    member = await join("w1")
    for partition in range(world.partitions):
        member.read_from(partition, 0)
    await eventually(lambda: sum(map(len, member.records.values())) == len(keys))
    for partition, records in member.records.items():
        for record in records:
            assert record.key is not None
            assert placing.partition(record.key, world.partitions) == partition
            assert record.value == b"v " + record.key
            assert list(record.headers) == HEADERS


async def test_acknowledged_is_there(world: World, join: Join) -> None:
    """What was acknowledged is read, also by somebody who comes later, and Kafka is not silent."""
    producer = world.event_producer(Placing("murmur2"))
    producer.start()
    await asyncio.gather(*[await producer.post(b"k", str(number).encode(), ()) for number in range(500)])
    assert producer.silent_s() == 0
    member = await join("w1")
    place = Placing("murmur2").partition(b"k", world.partitions)
    member.read_from(place, 0)
    await eventually(lambda: len(member.records[place]) == 500)
    assert [record.value for record in member.records[place]] == [str(number).encode() for number in range(500)]
    await producer.stop()


async def test_whoever_gives_up_breaks_nothing(world: World) -> None:
    """A wait that is cancelled costs nobody else anything."""
    producer = world.event_producer(Placing("murmur2"))
    producer.start()
    given_up = await producer.post(b"k", b"1", ())
    given_up.cancel()
    for number in range(20):
        await (await producer.post(b"k", str(number).encode(), ()))
    assert producer.silent_s() == 0
    await producer.stop()


async def test_before_start_posts_wait(world: World) -> None:
    """What is posted while Kafka was not reached waits for as long as its caller does."""
    producer = world.event_producer(Placing("murmur2"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await producer.post(b"k", b"1", ())
    producer.start()
    async with asyncio.timeout(30):
        await (await producer.post(b"k", b"1", ()))
    await producer.stop()


async def test_stop_twice(world: World) -> None:
    """It can be stopped again, and without a start."""
    producer = world.event_producer(Placing("murmur2"))
    await producer.stop()
    producer.start()
    await producer.stop()
    await producer.stop()
