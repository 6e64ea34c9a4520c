"""The event topic and its consumer group in memory, with the behavior of aiokafka's classic, eager group.

Every change of membership rebalances all members: each revokes its partitions, rejoins, and gets its assignment when
all have joined or the rebalance timeout has removed the rest. Nothing is delivered between the two calls of the
listener. An expelled member goes on reading its former partitions, notices at a poll, and rejoins after that poll has
delivered once more, as a frozen process does when it thaws. Who joins under the name of a member takes its place, and
no other member notices.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from worker.core.membership import MemberName
from worker.errors import GapError, LogError
from worker.ports import AssignmentListener, Clock, InputRecord, TopicsSeen, UndecodableRecord, after
from worker.sim.process import Broadcast, Process


class MemoryRecord(Struct, frozen=True):
    """An `InputRecord`."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int


@dataclass(eq=False)
class EventTopicPartition:
    """The brokers' records of one partition, from `start` to before `end`; not every offset has one."""

    start: int = 0
    end: int = 0
    records: list[MemoryRecord | UndecodableRecord] = field(default_factory=list)
    stable: int | None = None
    """The first offset of an open transaction; `None`: there is none."""

    def append(self, record: MemoryRecord | UndecodableRecord) -> None:
        """Adds a record at the end."""
        self.records.append(record)
        self.end = after(record)

    @property
    def readable(self) -> int:
        """The offset below which records are readable."""
        return self.end if self.stable is None else self.stable

    def truncate(self, before: int) -> None:
        """Deletes the records below an offset."""
        self.start = max(self.start, min(before, self.end))
        del self.records[: self._index(self.start)]

    def has(self, position: int) -> bool:
        """Whether there is a readable record at or after a position."""
        return self._index(position) < self._index(self.readable)

    def after(self, position: int, count_max: int) -> list[MemoryRecord | UndecodableRecord]:
        """The next readable records from a position on."""
        index = self._index(position)
        found = self.records[index : min(index + count_max, self._index(self.readable))]
        if found and found[0].offset < position:  # the position is within an undecodable batch
            found[0] = replace(found[0], offset=position)
        return found

    def _index(self, offset: int) -> int:
        records = self.records
        guess = offset - records[0].offset if records else 0
        if 0 <= guess < len(records) and records[guess].offset == offset:
            return guess
        return bisect_left(records, offset, key=_last_offset)


def _last_offset(record: MemoryRecord | UndecodableRecord) -> int:
    return after(record) - 1


@dataclass(eq=False)
class Broker:
    """The brokers' metadata and availability."""

    clock: Clock
    cluster: str = "memory"
    event_topic_id: str = "events"
    state_topic_id: str = "states"
    away_since: float | None = None
    members: dict[str, int] = field(default_factory=dict)
    """The member counts of other groups, by name."""

    @property
    def is_away(self) -> bool:
        """No broker responds to requests about events and groups. Faults of the state topic are up to a gate."""
        return self.away_since is not None

    @is_away.setter
    def is_away(self, away: bool) -> None:
        self.away_since = self.clock.now() if away else None


@dataclass(eq=False)
class _Round:
    """One rebalance, from its start to the assignments."""

    generation: int
    give_up_at: float
    joined: dict["MemoryEventLog", None] = field(default_factory=dict)
    shares: dict["MemoryEventLog", frozenset[int]] = field(default_factory=dict)
    is_done: bool = False
    changed: Broadcast = field(default_factory=Broadcast)


class Group:
    """The coordinator's state of the group."""

    def __init__(self, partitions: int, clock: Clock, rebalance_timeout_s: float) -> None:
        self.members: dict[MemoryEventLog, None] = {}
        self.generation = 0
        self.committed: dict[int, int] = {}
        self._partitions = partitions
        self._clock = clock
        self._rebalance_timeout_s = rebalance_timeout_s
        self._round: _Round | None = None
        self._shares: dict[MemoryEventLog, frozenset[int]] = {}
        """Of the last round."""

    async def join(self, member: "MemoryEventLog") -> tuple[int, frozenset[int]]:
        """Joins; returns the generation and the member's assignment once all have joined."""
        while True:
            if (share := self._place_of(member)) is not None:
                return self.generation, share
            current = self._enter(member)
            while not current.is_done and member in current.joined:
                if (left_s := current.give_up_at - self._clock.now()) > 0:
                    await current.changed.wait(left_s)
                else:
                    self.members = {each: None for each in self.members if each in current.joined}
                    self._complete()
            if member in current.shares:
                return current.generation, current.shares[member]

    def _place_of(self, member: "MemoryEventLog") -> frozenset[int] | None:
        """Takes the place of another member of its name; its share, unless there is a rebalance to take part in."""
        name = member.name.current
        former = next(
            (each for each in self.members if name and each is not member and each.name.current == name), None
        )
        if former is None:
            return None
        former.name.lost(self._clock.now())
        self.members = {member if each is former else each: None for each in self.members}
        share = self._shares.pop(former, None)
        if self._round is not None:
            self._round.joined.pop(former, None)
            self._round.changed.notify_all()
        elif share is not None:
            self._shares[member] = share
            member.called.clear()
            return share
        return None

    def remove(self, member: "MemoryEventLog") -> None:
        """A member leaves or is expelled: the others rebalance."""
        if member not in self.members:
            return
        del self.members[member]
        current = self._call()
        current.joined.pop(member, None)
        current.changed.notify_all()
        self._complete()

    def commit(self, member: "MemoryEventLog", offsets: Mapping[int, int]) -> bool:
        """Stores offsets from a member of the current generation; rejects others."""
        if member not in self.members or member.generation != self.generation:
            return False
        self.committed.update(offsets)
        return True

    def _enter(self, member: "MemoryEventLog") -> _Round:
        self.members[member] = None
        current = self._call()
        current.joined[member] = None
        member.called.clear()
        self._complete()
        return current

    def _call(self) -> _Round:
        """The rebalance in progress, or a new one, which all members are asked to join."""
        if self._round is None:
            self._round = _Round(self.generation + 1, self._clock.now() + self._rebalance_timeout_s)
            for member in self.members:
                member.called.set()
        return self._round

    def _complete(self) -> None:
        """Assigns partitions once all members have joined: ranges, in the order in which they came."""
        current = self._round
        if current is None or self.members.keys() - current.joined.keys():
            return
        self._round = None
        self.generation = current.generation
        size, larger = divmod(self._partitions, max(len(self.members), 1))
        first = 0
        for index, member in enumerate(self.members):
            last = first + size + (index < larger)
            current.shares[member] = frozenset(range(first, last))
            first = last
        self._shares = dict(current.shares)
        current.is_done = True
        current.changed.notify_all()


class MemoryEventLog:
    """`ports.EventLog` for one process: a member of the group."""

    def __init__(
        self,
        process: Process,
        topic: Sequence[EventTopicPartition],
        group: Group,
        clock: Clock,
        broker: Broker,
        states: Sequence[object],
        name: str = "",
    ) -> None:
        """`states`: the partitions of the state topic. `name`: by which the group knows it again."""
        self.process = process
        self.name = MemberName(name)
        self._broker = broker
        self._states = states
        self.generation = -1
        self.called = asyncio.Event()
        """Asks the member to rejoin."""
        self.arrived = asyncio.Event()
        """Wakes a waiting poll."""
        self.unaware_until = 0.0
        """Until then (*now*) it does not notice that it was expelled."""
        self._topic = topic
        self._group = group
        self._clock = clock
        self._positions: dict[int, int | None] = {}
        self._paused: set[int] = set()
        self._is_sharing = True
        self._first_share = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._is_stopped = False
        self._turn = 0

    async def start(self, listener: AssignmentListener) -> None:
        await self.process.step("start")
        self._task = asyncio.create_task(self._take_part(listener), name=f"group member {self.process.name}")
        await self._first_share.wait()
        self._check()

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[int, Sequence[InputRecord]]:
        """Starts with a different partition at each call."""
        self._check()
        await self.process.step("poll")
        try:
            async with asyncio.timeout(timeout_s):
                while not (self._is_stopped or self._failure or self._needs_reading()):
                    self.arrived.clear()
                    await self.arrived.wait()
        except TimeoutError:
            pass
        await self.process.step("poll:done")
        self._check()
        try:
            return {} if self._is_sharing or self._broker.is_away else self._take(max_records)
        finally:
            if self not in self._group.members and self._clock.now() >= self.unaware_until:
                self.called.set()

    def seek(self, partition: int, offset: int) -> None:
        self._require(partition)
        self._positions[partition] = offset
        self.arrived.set()

    def pause(self, partition: int) -> None:
        self._require(partition)
        self._paused.add(partition)

    def resume(self, partition: int) -> None:
        """Delivers nothing before the first `seek`."""
        self._require(partition)
        self._paused.discard(partition)
        self.arrived.set()

    def position(self, partition: int) -> int | None:
        return self._positions.get(partition)

    async def start_offset(self, partition: int, latest: bool) -> int:
        await self.process.step("start_offset", partition)
        here = self._topic[partition]
        return here.readable if latest else here.start

    async def group_offset(self, partition: int) -> int | None:
        await self.process.step("group_offset", partition)
        return self._group.committed.get(partition)

    async def commit_group(self, offsets: Mapping[int, int]) -> bool:
        """Returns false on any error."""
        try:
            await self.process.step("commit_group")
            ours = {partition: offset for partition, offset in offsets.items() if partition in self._positions}
            taken = bool(self._positions) and not self._broker.is_away and self._group.commit(self, ours)
            await self.process.step("commit_group:done")
        except LogError:
            return False
        return taken

    def lag(self, partition: int) -> int | None:
        position = self._positions.get(partition)
        return None if position is None or self._broker.is_away else max(0, self._topic[partition].end - position)

    def silent_s(self) -> float:
        away_since = self._broker.away_since
        return 0.0 if away_since is None else self._clock.now() - away_since

    async def describe_topics(self) -> TopicsSeen:
        await self.process.step("look")
        self._require_broker()
        return TopicsSeen(
            self._broker.cluster,
            self._broker.event_topic_id,
            self._broker.state_topic_id,
            len(self._topic),
            len(self._states),
        )

    async def members_of(self, group_id: str) -> int:
        """Any group that `Broker.members` does not list is this one: it has no name here."""
        await self.process.step("members_of")
        self._require_broker()
        return self._broker.members.get(group_id, len(self._group.members))

    def _require_broker(self) -> None:
        if self._broker.is_away:
            raise LogError("no broker responds")

    def behind_open(self, partition: int) -> int | None:
        position = self._positions.get(partition)
        if position is None:
            return None
        here = self._topic[partition]
        return max(0, here.end - max(here.readable, position))

    async def stop(self) -> None:
        self._is_stopped = True
        self.arrived.set()
        try:
            await self.process.step("stop")
        except LogError:
            return
        self.halt()
        self._group.remove(self)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and the group has noticed."""
        return (self._is_stopped or self.process.crashed) and self not in self._group.members

    def halt(self) -> None:
        """Ends membership without leaving the group."""
        self._first_share.set()
        if self._task is not None:
            self._task.cancel()

    # Membership

    async def _take_part(self, listener: AssignmentListener) -> None:
        try:
            while True:
                await self.process.step("revoke")
                self._is_sharing = True
                await listener.revoked(set(self._positions))
                await self.process.step("join")
                generation, share = await self._group.join(self)
                await self.process.step("join:done")
                self.generation = generation
                self._positions = dict.fromkeys(sorted(share))
                self._paused = set(share)
                self._is_sharing = False
                listener.assigned(set(share))
                self._first_share.set()
                await self.called.wait()
        except Exception as error:  # noqa: BLE001 - the next poll raises it, because nobody awaits this task
            self._failure = error
            self._first_share.set()
            self.arrived.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_stopped:
            raise LogError("the event log is stopped")

    def _require(self, partition: int) -> None:
        if partition not in self._positions:
            raise LogError(f"partition {partition} is not assigned to {self.process.name}")

    # Delivery

    def _flowing(self) -> list[tuple[int, int]]:
        """The partitions that may deliver, with their positions."""
        return [
            (partition, position)
            for partition, position in self._positions.items()
            if position is not None and partition not in self._paused
        ]

    def _needs_reading(self) -> bool:
        return not (self._is_sharing or self._broker.is_away) and any(
            not self._is_inside(partition, position) or self._topic[partition].has(position)
            for partition, position in self._flowing()
        )

    def _is_inside(self, partition: int, position: int) -> bool:
        return self._topic[partition].start <= position <= self._topic[partition].end

    def _take(self, max_records: int) -> dict[int, Sequence[InputRecord]]:
        flowing = self._flowing()
        if outside := [partition for partition, position in flowing if not self._is_inside(partition, position)]:
            raise GapError(f"offsets outside the topic, of partitions {outside}", outside)
        self._turn += 1
        taken: dict[int, Sequence[InputRecord]] = {}
        for index in range(len(flowing)):
            partition, position = flowing[(index + self._turn) % len(flowing)]
            records = self._topic[partition].after(position, max_records)
            if records:
                taken[partition] = records
                self._positions[partition] = after(records[-1])
                max_records -= len(records)
            else:
                self._positions[partition] = max(position, self._topic[partition].readable)
            if max_records == 0:
                break
        return taken
