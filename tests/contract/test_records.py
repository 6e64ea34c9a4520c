"""The contract of `Records`, for every implementation of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.world import EVENTUALLY_S, Hold, World
from worker.ports import Chunk, DeadLetter, Place, Records, Result, StoredRecord

LETTER = DeadLetter(b"k", b"{", [("x-dlq-reason", b"not_json")])
RESULT = Result(b"acme/1", b"{}")


@pytest.fixture
async def records(world: World) -> AsyncIterator[Records]:
    """A reader that has started."""
    found = world.records()
    await found.start()
    yield found
    await found.stop()


async def everything(records: Records) -> dict[Place, int]:
    """From the beginning of all topics."""
    return {
        (name, p): first for name, topic in (await records.topics()).items() for p, (first, _) in topic.ends.items()
    }


async def read_until(records: Records, count: int) -> list[Chunk]:
    """Chunks until there were so many records."""
    found: list[Chunk] = []
    async with asyncio.timeout(EVENTUALLY_S):
        while sum(len(chunk.records) for chunk in found) < count:
            found += await records.read(0.2)
    return found


def stored(chunks: list[Chunk], topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of a topic."""
    return [(record.key, record.value) for chunk in chunks if chunk.topic == topic for record in chunk.records]


async def test_all_of_it(hold: Hold, records: Records) -> None:
    """What was committed to the topics is read, tombstones and headers included."""
    records.seek(await everything(records))
    owner = await hold()
    await owner.write([(b"a", b"1"), (b"b", b"2")], [LETTER], [RESULT], [(b"1:acme/1", b"e"), (b"2:acme/1", None)])
    await owner.write([(b"a", None)])
    chunks = await read_until(records, 7)
    assert stored(chunks, "history") == [(b"1:acme/1", b"e"), (b"2:acme/1", None)]
    assert stored(chunks, "state") == [(b"a", b"1"), (b"b", b"2"), (b"a", None)]
    assert stored(chunks, "results") == [(b"acme/1", b"{}")]
    (letter,) = [record for chunk in chunks if chunk.topic == "dead_letters" for record in chunk.records]
    assert (letter.key, letter.value, list(letter.headers)) == (b"k", b"{", [("x-dlq-reason", b"not_json")])


async def test_goes_on(hold: Hold, world: World, records: Records) -> None:
    """Who begins where another one was left gets what is new, and nothing twice; in the end nothing is left."""
    owner = await hold(1)
    await owner.write([(b"a", b"1"), (b"b", b"2")])
    records.seek(await everything(records))
    positions: dict[Place, int] = {}
    for chunk in await read_until(records, 2):
        positions[chunk.topic, chunk.partition] = chunk.next_offset
    await owner.write([(b"c", b"3")])
    other = world.records()
    await other.start()
    try:
        other.seek(await everything(other) | positions)
        new = await read_until(other, 1)
        assert stored(new, "state") == [(b"c", b"3")]
        await passed(other, ("state", 1), max(chunk.next_offset for chunk in new if chunk.topic == "state"))
    finally:
        await other.stop()


async def passed(records: Records, place: Place, at: int) -> None:
    """Until nothing is left in a partition, markers at its end included."""
    end = (await records.topics())[place[0]].ends[place[1]][1]
    async with asyncio.timeout(EVENTUALLY_S):
        while at < end:
            at = max(
                [at, *(each.next_offset for each in await records.read(0.2) if (each.topic, each.partition) == place)]
            )


async def test_nothing_comes(records: Records) -> None:
    """Then a read ends in time with nothing."""
    records.seek(await everything(records))
    async with asyncio.timeout(EVENTUALLY_S):
        while chunks := await records.read(0.05):
            assert all(not chunk.records for chunk in chunks)


async def test_uncommitted_is_not_read(hold: Hold, records: Records) -> None:
    """What another owner has written without a commit is never read."""
    records.seek(await everything(records))
    first = await hold()
    await first.write([(b"a", b"1")])
    second = await hold()
    await second.write([(b"b", b"2")])
    assert stored(await read_until(records, 2), "state") == [(b"a", b"1"), (b"b", b"2")]


async def test_one_record(hold: Hold, records: Records) -> None:
    """Read by its place, while others are read along; where there is none, nothing is found."""
    owner = await hold()
    last = await owner.write([(b"a", b"1"), (b"b", b"2")], [LETTER])
    records.seek(await everything(records))
    found = await records.record(("state", 0), last)
    assert isinstance(found, StoredRecord)
    assert (found.offset, found.key, found.value) == (last, b"b", b"2")
    assert await records.record(("state", 0), last + 1) is None
    assert await records.record(("state", 0), last + 1000) is None
    assert await records.record(("state", 1), 0) is None
    topic = (await records.topics())["dead_letters"]
    (place,) = [partition for partition, (first, end) in topic.ends.items() if end > first]
    letter = await records.record(("dead_letters", place), 0)
    assert letter is not None
    assert letter.value == b"{"
    assert len(await read_until(records, 3)) >= 2


async def test_some_records(hold: Hold, records: Records) -> None:
    """Near each other and far apart, in their order; those that are not there are left out, and those between."""
    owner = await hold()
    for first in range(0, 300, 100):
        entries = [(b"1:acme/%d" % n, b"%d" % n) for n in range(first, first + 100)]
        await owner.write([(b"m:next", b"1")], (), (), entries)
    chunks: list[Chunk] = []
    records.seek({("history", 0): 0})
    while not any(each.value == b"299" for chunk in chunks for each in chunk.records):
        chunks += await records.read(0.2)
    at = {each.value: each.offset for chunk in chunks for each in chunk.records}
    wanted = [at[b"299"], at[b"0"], at[b"1"], at[b"250"], at[b"299"] + 1_000]
    found = await records.picked(("history", 0), wanted)
    assert [each.value for each in found] == [b"0", b"1", b"250", b"299"]
    assert await records.picked(("history", 1), [0, 5]) == []


async def test_ends_of_the_input(world: World, records: Records) -> None:
    """Grow with each event."""
    before = await records.input_ends()
    assert len(before) == world.partitions
    partition, offset = await world.append(b"k", b"v")
    assert (await records.input_ends())[partition] == offset + 1
