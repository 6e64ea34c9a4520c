"""The contract of `EventLog`, for every implementation of it."""

import asyncio
import time

import pytest

from tests.contract.world import Join, Member, World, eventually
from worker.ports import UndecodableRecord

LEFT_S = 15.0
"""Half of a session: so long it may take others at most to go on without a member that has left."""


async def quiet(world: World, member: Member) -> None:
    """Gives the world time for a mistake."""
    await asyncio.sleep(world.quiet_s)
    assert not member.failed()


def share(world: World, first: Member, second: Member) -> bool:
    """Whether both have some of the partitions, and all of them between them."""
    shares = first.assigned_partitions, second.assigned_partitions
    return all(shares) and shares[0] | shares[1] == set(range(world.partitions)) and not shares[0] & shares[1]


async def fill(world: World, partition: int, count: int) -> list[bytes]:
    """Appends events `0`, `1`, …; their values."""
    values = [str(number).encode() for number in range(count)]
    for value in values:
        await world.append(b"k", value, partition=partition)
    return values


@pytest.mark.parametrize(
    ("key", "value"), [(b"k", b"v"), (None, b"v"), (b"", b"v"), (b"k", None), (b"k", b""), (b"\xff\x00", b"\x00\xfe")]
)
async def test_record_round_trip(world: World, join: Join, key: bytes | None, value: bytes | None) -> None:
    """Key, value, headers in their order and twice the same, and the timestamp come back as they were written."""
    headers = [("a", b"1"), ("b", b""), ("a", b"\xff")]
    timestamp_ms = int(time.time() * 1000) - 5_000
    partition, offset = await world.append(key, value, headers=headers, timestamp_ms=timestamp_ms)
    member = await join("w1")
    member.read_from(partition, 0)
    await eventually(lambda: member.records[partition])
    (record,) = member.records[partition]
    assert (record.offset, record.key, record.value, record.timestamp) == (offset, key, value, timestamp_ms)
    assert list(record.headers) == headers


async def test_one_key_one_partition(world: World) -> None:
    """All events with one key are in one partition, one after the other."""
    places = [await world.append(b"acme/A14/12345", b"v") for _ in range(3)]
    first = places[0][0]
    assert places == [(first, 0), (first, 1), (first, 2)]


async def test_only_member_has_all(world: World, join: Join) -> None:
    """A member that is alone gets every partition."""
    member = await join("w1")
    assert member.told == [("assigned", set(range(world.partitions)))]


async def test_nothing_before_resume(world: World, join: Join) -> None:
    """Of a newly assigned partition nothing is delivered before `resume`, also after `seek`."""
    values = await fill(world, 0, 3)
    member = await join("w1")
    await quiet(world, member)
    member.events.seek(0, 0)
    await quiet(world, member)
    assert not member.records
    member.events.resume(0)
    await eventually(lambda: member.values(0) == values)


async def test_order_of_offsets(world: World, join: Join) -> None:
    """Each partition is delivered from where it was sought, in the order of its offsets, without gaps or repeats."""
    member = await join("w1")
    for partition in range(world.partitions):
        await fill(world, partition, 20)
        member.read_from(partition, partition)
    await eventually(lambda: sum(map(len, member.records.values())) == 20 * 3 - 0 - 1 - 2)
    for partition in range(3):
        assert [record.offset for record in member.records[partition]] == list(range(partition, 20))


async def test_max_records(world: World, join: Join) -> None:
    """A poll gives at most as many records as were asked for, over all partitions together."""
    for partition in range(3):
        await fill(world, partition, 20)
    member = await join("w1")
    member.max_records = 7
    for partition in range(3):
        member.read_from(partition, 0)
    await eventually(lambda: sum(map(len, member.records.values())) == 60)
    assert member.largest_poll <= 7


async def test_new_events_arrive(world: World, join: Join) -> None:
    """A member at the end of a partition gets what is written afterwards."""
    member = await join("w1")
    member.read_from(1, 0)
    await quiet(world, member)
    values = await fill(world, 1, 2)
    await eventually(lambda: member.values(1) == values)


async def test_pause_and_resume(world: World, join: Join) -> None:
    """A paused partition delivers nothing; resumed it goes on where it stopped, while others never stopped."""
    member = await join("w1")
    for partition in (0, 1):
        member.read_from(partition, 0)
        await fill(world, partition, 2)
    await eventually(lambda: len(member.records[0]) == len(member.records[1]) == 2)
    member.events.pause(0)
    for partition in (0, 1):
        await world.append(b"k", b"later", partition=partition)
    await eventually(lambda: member.values(1) == [b"0", b"1", b"later"])
    await quiet(world, member)
    assert member.values(0) == [b"0", b"1"]
    member.events.resume(0)
    await eventually(lambda: member.values(0) == [b"0", b"1", b"later"])


async def test_seek_back_and_forth(world: World, join: Join) -> None:
    """The next record after `seek` is the one that was sought, also when others had been fetched ahead."""
    await fill(world, 0, 10)
    member = await join("w1")
    member.read_from(0, 0)
    await eventually(lambda: len(member.records[0]) == 10)
    member.events.seek(0, 3)
    await eventually(lambda: len(member.records[0]) == 17)
    member.events.pause(0)
    member.events.seek(0, 8)
    member.events.resume(0)
    await eventually(lambda: len(member.records[0]) == 19)
    offsets = [record.offset for record in member.records[0]]
    assert offsets == [*range(10), *range(3, 10), 8, 9]


async def test_position_passes_what_is_no_record(world: World, join: Join) -> None:
    """The position is unknown before `seek`, and goes on behind an aborted transaction, whose record nobody gets."""
    values = await fill(world, 0, 2)
    member = await join("w1")
    assert member.events.position(0) is None
    member.read_from(0, 0)
    await eventually(lambda: member.values(0) == values)
    assert member.events.position(0) == 2
    await world.aborted(0)
    await eventually(lambda: member.events.position(0) == 4)
    assert member.values(0) == values


async def test_gap_below_start(world: World, join: Join) -> None:
    """A position that retention has passed is told with its partition, and again until it is sought elsewhere."""
    await fill(world, 0, 5)
    values = await fill(world, 1, 2)
    await world.truncate(0, 3)
    member = await join("w1")
    member.read_from(0, 1)
    member.read_from(1, 0)
    await eventually(lambda: member.gaps)
    await eventually(lambda: member.values(1) == values)
    member.events.resume(0)
    await eventually(lambda: len(member.gaps) == 2)
    assert set(member.gaps) == {frozenset({0})}
    member.read_from(0, 3)
    await eventually(lambda: member.values(0) == [b"3", b"4"])


async def test_gap_above_end(world: World, join: Join) -> None:
    """A position behind the end of the topic is a gap too; the end itself is none."""
    await fill(world, 2, 3)
    member = await join("w1")
    member.read_from(2, 3)
    await quiet(world, member)
    assert not member.gaps
    member.events.seek(2, 5)
    await eventually(lambda: member.gaps == [frozenset({2})])
    assert not member.records


async def test_start_offsets(world: World, join: Join) -> None:
    """The first offset that is still held, and the one that the next event gets, of assigned partitions."""
    member = await join("w1")
    assert [await member.events.start_offset(0, latest) for latest in (False, True)] == [0, 0]
    await fill(world, 0, 5)
    assert [await member.events.start_offset(0, latest) for latest in (False, True)] == [0, 5]
    await world.truncate(0, 2)
    assert [await member.events.start_offset(0, latest) for latest in (False, True)] == [2, 5]


async def test_two_members_share(world: World, join: Join) -> None:
    """Two members have all partitions between them, none twice, and the first one heard that it lost its own."""
    first = await join("w1")
    second = await join("w2")
    everything = set(range(world.partitions))
    await eventually(lambda: first.assigned_partitions | second.assigned_partitions == everything)
    assert not first.assigned_partitions & second.assigned_partitions
    assert first.assigned_partitions
    assert second.assigned_partitions
    assert first.told[1] == ("revoked", everything)
    assert first.told[2] == ("assigned", first.assigned_partitions)


async def test_member_takes_over(world: World, join: Join) -> None:
    """When a member leaves, its listener hears nothing, and the other one gets all that it had and reads it."""
    first = await join("w1")
    second = await join("w2")
    await eventually(lambda: first.assigned_partitions and second.assigned_partitions)
    partition = min(first.assigned_partitions)
    values = await fill(world, partition, 2)
    told = list(first.told)
    await first.stop()
    await eventually(lambda: second.assigned_partitions == set(range(world.partitions)))
    assert first.told == told
    second.read_from(partition, 0)
    await eventually(lambda: second.values(partition) == values)


async def test_named_member_takes_a_place(world: World, join: Join) -> None:
    """Who joins under the name of a member has all that it had, and the others hear nothing of it."""
    first = await join("w1", "one")
    second = await join("w2", "two")
    await eventually(lambda: first.assigned_partitions and second.assigned_partitions)
    had, told = set(first.assigned_partitions), list(second.told)
    again = await join("w1, restarted", "one")
    assert again.assigned_partitions == had
    assert second.told == told


async def test_two_members_of_one_name(world: World, join: Join) -> None:
    """Each takes the place from the other, until the first to lose it twice goes on without a name: then they share."""
    first = await join("w1", "one")
    second = await join("w2", "one")
    await eventually(lambda: share(world, first, second))


async def test_two_members_of_one_name_at_once(world: World, join: Join) -> None:
    """The same for two that join at the same time: the one that is sent away while it waits joins again."""
    first, second = await asyncio.gather(join("w1", "one"), join("w2", "one"))
    await eventually(lambda: share(world, first, second))


async def test_named_member_leaves_at_once(world: World, join: Join) -> None:
    """Nobody waits for one that has left to come back."""
    first = await join("w1", "one")
    second = await join("w2", "two")
    await eventually(lambda: first.assigned_partitions and second.assigned_partitions)
    async with asyncio.timeout(LEFT_S):
        await first.stop()
        await eventually(lambda: second.assigned_partitions == set(range(world.partitions)))


async def test_rebalance_forgets_positions(world: World, join: Join) -> None:
    """After a rebalance a partition that stayed is like a new one: nothing comes before `seek` and `resume`."""
    first = await join("w1")
    for partition in range(world.partitions):
        first.read_from(partition, 0)
    second = await join("w2")
    await eventually(lambda: first.told[-1][0] == "assigned" and len(first.told) == 3 and second.assigned_partitions)
    partition = min(first.assigned_partitions)
    values = await fill(world, partition, 2)
    await quiet(world, first)
    assert not first.records
    first.read_from(partition, 1)
    await eventually(lambda: first.values(partition) == values[1:])


async def test_group_commit(world: World, join: Join) -> None:
    """What a member commits every member can ask for; before there is nothing."""
    first = await join("w1")
    await fill(world, 1, 5)
    assert await first.events.group_offset(1) is None
    assert await first.events.commit_group({0: 0, 1: 3})
    assert await first.events.commit_group({1: 2})
    second = await join("w2")
    assert [await second.events.group_offset(partition) for partition in range(3)] == [0, 2, None]


async def test_lag(world: World, join: Join) -> None:
    """The lag is known once records were read, and says how many are behind the position."""
    await fill(world, 0, 5)
    member = await join("w1")
    member.max_records = 2
    member.read_from(0, 0)
    await eventually(lambda: len(member.records[0]) == 5)
    await eventually(lambda: member.events.lag(0) == 0)
    member.events.pause(0)
    member.events.seek(0, 2)
    assert member.events.lag(0) == 3


async def test_undecodable_record(world: World, join: Join) -> None:
    """A record with a header name that is not UTF-8 comes as what it is, with all that it holds, between the others."""
    await world.append(b"k", b"0", partition=0)
    offset = await world.append_poison(0)
    await world.append(b"k", b"2", partition=0)
    member = await join("w1")
    member.read_from(0, 0)
    await eventually(lambda: member.values(0) == [b"0", b"v", b"2"])
    record = member.records[0][1]
    assert type(record) is UndecodableRecord
    assert (record.offset, record.last_offset, record.key, record.is_batch) == (offset, offset, b"k", False)
    assert list(record.headers) == [("a\ufffd", b"x")]
    assert list(record.names) == [b"a\xff"]


async def test_undecodable_batch(world: World, join: Join) -> None:
    """A batch that comes out too large comes as one record for all of its offsets; reading goes on behind it."""
    await world.append(b"k", b"0", partition=0)
    first = await world.append_bomb(0, 3)
    await world.append(b"k", b"4", partition=0)
    member = await join("w1")
    member.read_from(0, 0)
    await eventually(lambda: len(member.records[0]) == 3)
    assert not member.gaps
    good, bomb, last = member.records[0]
    assert type(bomb) is UndecodableRecord
    assert (good.offset, bomb.offset, bomb.last_offset, last.offset) == (first - 1, first, first + 2, first + 3)
    assert bomb.is_batch
    assert bomb.value
    member.events.pause(0)
    member.events.seek(0, first + 1)
    member.events.resume(0)
    await eventually(lambda: len(member.records[0]) == 5)
    assert member.records[0][4].value == b"4"


async def test_lag_behind_an_open_transaction(world: World, join: Join) -> None:
    """Records behind somebody's open transaction are lag, and counted apart; once it has ended they are read."""
    await world.append(b"k", b"0", partition=0)
    end = await world.open_transaction(0)
    for number in range(3):
        await world.append(b"k", b"%d" % number, partition=0)
    member = await join("w1")
    member.read_from(0, 0)
    await eventually(lambda: member.values(0) == [b"0"])
    await eventually(lambda: member.events.behind_open(0) == 4)
    assert member.events.lag(0) == 4
    await end()
    await eventually(lambda: member.values(0) == [b"0", b"0", b"1", b"2"])
    await eventually(lambda: (member.events.lag(0), member.events.behind_open(0)) == (0, 0))


async def test_lag_of_foreign_partition(world: World, join: Join) -> None:
    """Of a partition that is not assigned the lag is not known."""
    member = await join("w1")
    assert member.events.lag(world.partitions) is None
    assert member.events.behind_open(world.partitions) is None


async def test_look(world: World, join: Join) -> None:
    """What is told of the topics is the same before and after `start`, and for every member."""
    before = await world.events("w1").describe_topics()
    member = await join("w2")
    assert await member.events.describe_topics() == before
    assert (before.event_partitions, before.state_partitions) == (world.partitions, world.partitions)
    assert before.cluster
    assert before.event_topic_id not in ("", before.state_topic_id)


async def test_members_of(world: World, join: Join) -> None:
    """Members are counted while they are there."""
    asking = world.events("asks")
    assert await asking.members_of(world.group) == 0
    member = await join("w1")
    assert await asking.members_of(world.group) == 1
    await member.stop()
    assert await asking.members_of(world.group) == 0


async def test_brokers_that_answer_are_not_silent(join: Join) -> None:
    """Heartbeats and fetches are answered all the time."""
    member = await join("w1")
    assert member.events.silent_s() < 5.0
