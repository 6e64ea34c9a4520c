"""The contract of `StateLog`, for every implementation of it."""

import asyncio
import random

import pytest

from tests.contract.world import Hold, World, read_all
from worker.errors import FencedError, LogError, SizeRefusedError
from worker.ports import DeadLetter, PartitionWriter, Result, StateEntry

LETTER = DeadLetter(b"k", b"{", [("own", b"1"), ("x-dlq-reason", b"not_json")])


async def content(hold: Hold, partition: int = 0) -> list[tuple[bytes, bytes | None]]:
    """All committed entries of a partition, read back by a new owner; without its own barrier."""
    owner = await hold(partition)
    barrier = await owner.write([(b"barrier", b"")])
    entries = await read_all(owner, 0, barrier)
    return [(entry.key, entry.value) for entry in entries if entry.key != b"barrier"]


async def test_read_back(hold: Hold) -> None:
    """What was written is read in order with the offsets that were told, tombstones and empty values included."""
    owner = await hold()
    first = await owner.write([(b"a", b"1"), (b"b", b"2"), (b"", b"")])
    second = await owner.write([(b"a", None), (b"b", b"3")])
    entries = await read_all(owner, 0, second)
    assert [(entry.key, entry.value) for entry in entries] == [
        *((b"a", b"1"), (b"b", b"2"), (b"", b"")),
        *((b"a", None), (b"b", b"3")),
    ]
    assert [entry.offset for entry in entries] == [first - 2, first - 1, first, second - 1, second]
    assert second - 1 > first


async def test_read_between(hold: Hold) -> None:
    """A read from a position gives what is there and later, whether or not a record has that offset."""
    owner = await hold()
    first = await owner.write([(b"a", b"1"), (b"b", b"2")])
    second = await owner.write([(b"c", b"3")])
    for position in (first, first + 1, second):
        entries = await read_all(owner, position, second)
        assert entries == [
            StateEntry(offset, key, value)
            for offset, key, value in ((first, b"b", b"2"), (second, b"c", b"3"))
            if offset >= position
        ]


async def test_read_nothing(hold: Hold) -> None:
    """A read from behind its end gives nothing and does not wait."""
    owner = await hold()
    last = await owner.write([(b"a", b"1")])
    assert await read_all(owner, last + 1, last) == []


async def test_read_many(hold: Hold) -> None:
    """A long partition comes in lists, complete and in order."""
    owner = await hold()
    last = -1
    for part in range(3):
        last = await owner.write([(f"k{part}-{number}".encode(), b"v" * 100) for number in range(1_500)])
    entries = await read_all(await hold(), 0, last)
    assert [entry.key for entry in entries] == [
        f"k{part}-{number}".encode() for part in range(3) for number in range(1_500)
    ]


async def test_barrier_proves_predecessor(hold: Hold) -> None:
    """Whoever fences, writes and reads that back has read all that its predecessors committed."""
    for number in range(5):
        owner = await hold()
        await owner.write([(b"n", str(number).encode())])
        assert await content(hold) == [(b"n", str(past).encode()) for past in range(number + 1)]


async def test_partitions_are_apart(hold: Hold) -> None:
    """An owner of one partition neither fences nor sees another one."""
    zero, one = await hold(0), await hold(1)
    await zero.write([(b"a", b"0")])
    await one.write([(b"a", b"1")])
    await zero.write([(b"b", b"0")])
    assert await content(hold, 0) == [(b"a", b"0"), (b"b", b"0")]
    assert await content(hold, 1) == [(b"a", b"1")]


async def test_new_owner_fences_old(hold: Hold) -> None:
    """After a new owner's `fence` the old one cannot write, is told that it is fenced, and leaves no trace."""
    old = await hold()
    await old.write([(b"a", b"old")])
    new = await hold()
    with pytest.raises(FencedError):
        await old.write([(b"a", b"stale"), (b"b", b"stale")])
    await new.write([(b"b", b"new")])
    assert await content(hold) == [(b"a", b"old"), (b"b", b"new")]


async def test_fenced_without_any_write(hold: Hold) -> None:
    """An owner that never wrote is fenced as well."""
    old = await hold()
    await hold()
    with pytest.raises(FencedError):
        await old.write([(b"a", b"stale")])
    assert await content(hold) == []


async def test_hold_is_over_after_failure(hold: Hold) -> None:
    """After a failed write nothing can be written with the same hold."""
    old = await hold()
    new = await hold()
    with pytest.raises(FencedError):
        await old.write([(b"a", b"stale")])
    with pytest.raises(LogError):
        await old.write([(b"a", b"stale")])
    await new.write([(b"a", b"new")])
    assert await content(hold) == [(b"a", b"new")]


async def test_write_against_fence(hold: Hold) -> None:
    """A write that races with the next owner's `fence` is seen whole when it returned, else whole or not at all."""
    for number in range(5):
        old = await hold()
        new = await hold(fence=False)
        keys = [f"{number}{letter}".encode() for letter in "abc"]
        outcome, _ = await asyncio.gather(old.write([(key, b"v") for key in keys]), new.fence(), return_exceptions=True)
        barrier = await new.write([(b"barrier", b"")])
        seen = [entry.key for entry in await read_all(new, 0, barrier) if entry.key in keys]
        if isinstance(outcome, int):
            assert seen == keys
        elif isinstance(outcome, FencedError):
            assert seen == []
        else:
            assert isinstance(outcome, LogError)
            assert seen in ([], keys)


async def test_write_needs_fence(hold: Hold) -> None:
    """A hold that was never fenced writes nothing."""
    with pytest.raises(LogError):
        await (await hold(fence=False)).write([(b"a", b"1")])
    assert await content(hold) == []


async def test_write_after_close(hold: Hold) -> None:
    """A hold that was closed writes nothing; it can be closed again, and before it was fenced."""
    owner = await hold()
    await owner.close()
    await owner.close()
    with pytest.raises(LogError):
        await owner.write([(b"a", b"1")])
    await (await hold(fence=False)).close()
    assert await content(hold) == []


async def test_dead_letters_are_untouched(world: World, hold: Hold) -> None:
    """Key, value and headers of dead letters stand in their topic as they were given, absent ones included."""
    letters = [LETTER, DeadLetter(None, b"\xff", []), DeadLetter(b"", None, [("a", b""), ("a", b"2")])]
    await (await hold()).write([(b"m:next", b"1")], letters)
    assert await world.dead_letters() == letters


async def test_dead_letters_come_with_commit(world: World, hold: Hold) -> None:
    """Dead letters of a write that was fenced are not in their topic, those of the new owner are."""
    old, new = await hold(), await hold()
    with pytest.raises(FencedError):
        await old.write([(b"m:next", b"1")], [LETTER])
    other = DeadLetter(b"other", b"", [])
    await new.write([(b"m:next", b"1")], [other])
    assert await world.dead_letters() == [other]


RESULTS = [Result(b"acme/1", b'{"type":"t"}'), Result(b"acme/1", b"{}"), Result("acme/ñ".encode(), b"{}")]


async def test_results_come_with_the_state(world: World, hold: Hold) -> None:
    """What is told stands in its topic once what it tells of is committed, in order; beside it, letters do."""
    owner = await hold(2)
    last = await owner.write([(b"o:acme/1", b"1"), (b"m:next", b"1")], [LETTER], RESULTS)
    assert [entry.offset for entry in await read_all(owner, 0, last)] == [last - 1, last]
    await owner.write([(b"m:next", b"2")], (), RESULTS[:1])
    assert await world.results() == [*RESULTS, RESULTS[0]]
    assert await world.dead_letters() == [LETTER]


async def test_results_come_with_commit(world: World, hold: Hold) -> None:
    """Results of a write that was fenced are not in their topic, those of the new owner are: once."""
    old, new = await hold(), await hold()
    with pytest.raises(FencedError):
        await old.write([(b"m:next", b"1")], (), RESULTS)
    await new.write([(b"m:next", b"1")], (), RESULTS)
    assert await world.results() == RESULTS


ENTRIES: list[tuple[bytes, bytes | None]] = [(b"1:acme/1", b"e1"), (b"2:acme/1", b"e2"), (b"1:acme/1", None)]


async def test_histories_come_with_the_state(world: World, hold: Hold) -> None:
    """In the partition of the state, in order, what is to be removed included; the offset is still that of the state."""
    owner = await hold(2)
    last = await owner.write([(b"o:acme/1", b"1"), (b"m:next", b"1")], [LETTER], RESULTS, ENTRIES)
    assert [entry.offset for entry in await read_all(owner, 0, last)] == [last - 1, last]
    await owner.write([(b"m:next", b"2")], (), (), ENTRIES[:1])
    assert await world.history(2) == [*ENTRIES, ENTRIES[0]]
    assert await world.history(1) == []


async def test_histories_come_with_commit(world: World, hold: Hold) -> None:
    """Entries of a write that was fenced are not in their topic, those of the new owner are: once."""
    old, new = await hold(), await hold()
    with pytest.raises(FencedError):
        await old.write([(b"m:next", b"1")], (), (), ENTRIES)
    await new.write([(b"m:next", b"1")], (), (), ENTRIES[1:])
    assert await world.history(0) == ENTRIES[1:]


async def test_result_too_large(world: World, hold: Hold) -> None:
    """One that its topic refuses fails the whole transaction, and it is known why; the largest one is taken."""
    owner = await hold()
    largest = Result(b"k", random.Random(1).randbytes(owner.result_max_bytes))
    with pytest.raises(SizeRefusedError):
        await owner.write([(b"a", b"1")], (), [RESULTS[0], Result(b"k", _too_large(owner))])
    owner = await hold()
    await owner.write([(b"a", b"2")], (), [RESULTS[0], largest])
    assert await world.results() == [RESULTS[0], largest]
    assert await content(hold) == [(b"a", b"2")]


async def test_largest_value(hold: Hold) -> None:
    """A value as large as the topic takes is read back."""
    owner = await hold()
    value = random.Random(1).randbytes(owner.value_max_bytes)
    await owner.write([(b"a", value), (b"b", b"small")])
    assert await content(hold) == [(b"a", value), (b"b", b"small")]


def _too_large(owner: PartitionWriter) -> bytes:
    return random.Random(1).randbytes(2 * owner.value_max_bytes)


async def test_value_too_large(world: World, hold: Hold) -> None:
    """A value that the topic refuses fails the whole transaction, dead letters included, and ends the hold."""
    owner = await hold()
    await owner.write([(b"a", b"1")])
    with pytest.raises(SizeRefusedError):
        await owner.write([(b"a", b"2"), (b"b", _too_large(owner)), (b"c", b"3")], [LETTER])
    with pytest.raises(LogError):
        await owner.write([(b"d", b"4")])
    assert await content(hold) == [(b"a", b"1")]
    assert await world.dead_letters() == []


async def test_largest_letter(world: World, hold: Hold) -> None:
    """A dead letter as large as its topic takes is taken, however badly it compresses."""
    owner = await hold()
    room = owner.letter_max_bytes - LETTER_ROOM_BYTES
    letter = DeadLetter(b"k", random.Random(1).randbytes(room), [("x-dlq-reason", b"too_large")])
    await owner.write([(b"m:next", b"1")], [LETTER, letter, LETTER])
    assert await world.dead_letters() == [LETTER, letter, LETTER]


async def test_letter_too_large(world: World, hold: Hold) -> None:
    """A larger one fails the whole transaction, and it is known why; the next owner can go on without it."""
    owner = await hold()
    letter = DeadLetter(b"k", random.Random(1).randbytes(2 * owner.letter_max_bytes), [])
    with pytest.raises(SizeRefusedError):
        await owner.write([(b"m:next", b"1")], [LETTER, letter])
    owner = await hold()
    await owner.write([(b"m:next", b"2")], [LETTER])
    assert await world.dead_letters() == [LETTER]


LETTER_ROOM_BYTES = 1_024
"""What a letter needs beside its members."""


async def test_newest(world: World, hold: Hold) -> None:
    """Of each partition what was committed last is seen without taking it, and its owner goes on."""
    owner = await hold(1)
    for number in range(4):
        await owner.write([(b"n", str(number).encode())])
    last = await owner.write([(b"n", b"4")])
    log = world.states("looks")
    await log.start()
    newest = await log.newest()
    assert sorted(newest) == list(range(world.partitions))
    assert newest[1][-1] == StateEntry(last, b"n", b"4")
    assert newest[0] == []
    await owner.write([(b"n", b"5")])
    await log.stop()
