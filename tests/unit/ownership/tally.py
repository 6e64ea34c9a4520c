"""A workload of the smallest kind, and a world of ports around its owner: what a partition's stories are told with.

It counts events by their keys. Each count is a record of the state; `attempts` stand for requests to a provider.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec

from schemas import state
from schemas.state import NextRecord
from worker.core.policy import DeliveryPolicy
from worker.errors import DamagedStateError, LogError
from worker.metrics import Metrics
from worker.ownership.context import BatchLimits, Context
from worker.ownership.inbox import Inbox
from worker.ownership.owner import Owner
from worker.ownership.phase import Phase
from worker.ownership.workload import Entries, Host, Inherited
from worker.ports import DeadLetter, EventLog, InputRecord, Result, StateEntry
from worker.sim.group import MemoryRecord
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, run

PREFIX = b"t:"
POLICY = DeliveryPolicy(lease_s=20.0, attempt_deadline_s=8.0, settle_s=30.0)


class Sheet:
    """`ownership.Transaction`."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.last_record: InputRecord | None = None
        self.dead_letters: list[DeadLetter] = []
        self.results: list[Result] = []
        self.history: Entries = []
        self.counts: dict[bytes, int] = {}

    def entries(self) -> Entries:
        return [(PREFIX + key, msgspec.json.encode(count)) for key, count in self.counts.items()]


class Tally:
    """`ownership.Workload`."""

    def __init__(self, host: Host, kept: dict[bytes, int] | None) -> None:
        self.host = host
        self.counts: dict[bytes, int] = kept or {}
        self.loads = 0
        self.inherited: Inherited | None = None
        self.to_activate: Entries = []
        self.is_active = False
        self.before_it_serves: list[Entries] = []
        self.attempts = 0
        self.outcomes: list[bytes] = []
        """Keys of attempts that have ended: each counts once more."""
        self.portions: list[list[str]] = [[]]
        self.writable = True
        self.held_by_itself_until = 0.0
        self.owed: list[bytes] = []
        """Of attempts that have ended, what is yet to become mail."""
        self.damaged_key: bytes | None = None
        self.phase_when_damaged: Phase | None = None
        self.unbelieved: str | None = None
        """What is said of what it started from, if that is not to be believed."""
        self.persisted: list[tuple[int, int]] = []
        """Positions of the state partition, each with the number of entries of the transaction before it."""
        self.on_work: Callable[[], None] = lambda: None
        self.at_once = 1_000
        """Events that it takes into one transaction."""
        self.ahead_of: list[tuple[dict[bytes, int], int]] = []
        """When work ahead was cut off: what was counted then, and how many events waited."""
        self.said: list[str] = []

    def load(self, entry: StateEntry) -> bool:
        if not entry.key.startswith(PREFIX):
            return False
        self.loads += 1
        assert entry.value is not None
        self.counts[entry.key[len(PREFIX) :]] = msgspec.json.decode(entry.value)
        return True

    async def keep_up(self) -> None:
        """Nothing is stored."""

    def loaded(self) -> None:
        if any(type(count) is not int for count in self.counts.values()):
            raise DamagedStateError("a count that is none")

    async def may_replay_from(self, revision: int) -> bool:
        return revision > sum(self.counts.values())

    async def restored(self, inherited: Inherited) -> Entries:
        self.inherited = inherited
        for entries in self.before_it_serves:
            await self.host.write(entries)
        return self.to_activate

    def activated(self) -> None:
        self.is_active = True

    def distrust(self, why: str) -> Exception | None:
        return None if self.unbelieved is None else LogError(f"{self.unbelieved}: {why}")

    async def find_undecodable(self, error: msgspec.MsgspecError) -> bytes | None:  # noqa: ARG002
        self.phase_when_damaged = self.host.phase
        return self.damaged_key

    def summary(self) -> dict[str, Any]:
        return {"keys": len(self.counts)}

    def next_due(self) -> float:
        return float("inf")

    async def work(self) -> None:
        self.outcomes += self.owed
        self.owed = []
        self.on_work()

    def has_mail(self) -> bool:
        return bool(self.outcomes)

    def has_urgent_work(self) -> bool:
        return bool(self.owed)

    async def fill(self, next_offset: int, inbox: Inbox | None, keeping: Sequence[str]) -> Sheet:
        sheet = Sheet(next_offset)
        keys, self.outcomes = self.outcomes + [key.encode() for key in keeping], []
        for _ in range(self.at_once):
            if not inbox:
                break
            [record] = inbox.first(1, 0)
            inbox.drop(1)
            sheet.last_record = record
            sheet.next_offset = record.offset + 1
            keys.append(record.key or b"")
        for key in keys:
            sheet.counts[key] = sheet.counts.get(key, self.counts.get(key, 0)) + 1
        return sheet

    async def work_ahead(self, transaction: Sheet, inbox: Inbox) -> None:  # noqa: ARG002
        try:
            await asyncio.sleep(3600.0)
        finally:
            self.ahead_of.append((dict(self.counts), len(inbox)))

    def applied(self, transaction: Sheet) -> None:
        self.counts |= transaction.counts

    def persist(self, entries: Entries, position: int) -> None:
        self.persisted.append((position, len(entries)))

    async def announce(self, transaction: Sheet) -> None:
        self.said += [key.decode() for key in transaction.counts]

    def drain(self) -> None:
        self.said.append("drain")

    def awaits_outcomes(self) -> bool:
        return self.attempts > 0

    def is_drained(self) -> bool:
        return not self.attempts and not self.outcomes and not self.owed

    def abandon(self) -> None:
        """The dispatcher gives attempts up: their outcome is unknown, and comes like any other."""
        self.said.append("abandon")
        self.end_attempts(b"unknown")

    def end_attempts(self, key: bytes) -> None:
        """All attempts have this outcome."""
        self.outcomes += [key] * self.attempts
        self.attempts = 0
        self.host.wake()

    def unwritten(self) -> list[list[str]]:
        return self.portions

    def held_until(self) -> float:
        return max(self.held_by_itself_until, 0.0 if self.inherited is None else self.inherited.hold_until)

    def is_writable(self) -> bool:
        return self.writable

    def close(self, error: Exception) -> None:
        self.said.append(f"close: {error}")

    def keep(self) -> dict[bytes, int]:
        return self.counts


class Input:
    """As much of `ports.EventLog` as an owner asks for; it notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.begin, self.end = 0, 1_000
        self.of_group: int | None = None

    def seek(self, partition: int, offset: int) -> None:
        self.asked.append(("seek", partition, offset))

    def pause(self, partition: int) -> None:
        self.asked.append(("pause", partition))

    def resume(self, partition: int) -> None:
        self.asked.append(("resume", partition))

    async def start_offset(self, _partition: int, latest: bool) -> int:
        return self.end if latest else self.begin

    async def group_offset(self, _partition: int) -> int | None:
        return self.of_group


class World:
    """A state topic in memory, an input, and owners of partition 0."""

    def __init__(self, **settings: Any) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.log = MemoryLog(1, self.clock, **settings)
        self.input = Input()
        self.told: list[tuple[str, int] | None] = []
        """Competing owners."""

    def owner(
        self,
        name: str = "w1",
        make: Callable[[Host, Any], Tally] = Tally,
        topic_epoch: int = 0,
        limits: BatchLimits | None = None,
        **members: Any,
    ) -> Owner[Tally]:
        """One that has not begun."""
        context = Context(
            owner_id=name,
            version="0",
            rules=POLICY,
            limits=limits or BatchLimits(),
            clock=self.clock,
            events=cast(EventLog, self.input),
            metrics=Metrics(),
            topic_epoch=topic_epoch,
        )
        return Owner(0, self.log.states(name).partition(0), context, make, **members)

    async def begun(self, name: str = "w1", **members: Any) -> tuple[Owner[Tally], asyncio.Task[None]]:
        """One that has had a second."""
        owner = self.owner(name, **members)
        task = asyncio.create_task(owner.run(asyncio.Semaphore(1)))
        await asyncio.sleep(1.0)
        return owner, task

    async def drained(self, name: str = "w1", *keys: str) -> Owner[Tally]:
        """One that has served, and is gone."""
        owner, task = await self.begun(name)
        if keys:
            feed(owner, *keys, first=owner.position.next_offset)
            await asyncio.sleep(1.0)
        owner.drain(8.0)
        await task
        return owner

    @property
    def written(self) -> list[str]:
        """What the state topic has, record by record; of `m:next` also the offset, and whether it is clean."""
        found = []
        for entry in self.log.entries(0):
            name = entry.key.decode()
            if entry.key == state.NEXT_KEY:
                following = self._next_of(entry)
                name += f" {following.offset}" + (" clean" if following.clean else "")
            found.append(name)
        return found

    def _next_of(self, entry: StateEntry) -> NextRecord:
        assert entry.value is not None
        return state.decode_next(entry.value)


def feed(owner: Owner[Tally], *keys: str, first: int | None = None) -> None:
    """Records with these keys, from the wanted offset on unless said."""
    first = owner.position.wanted_offset if first is None else first
    owner.feed([MemoryRecord(first + n, key.encode(), b"", (), 0) for n, key in enumerate(keys)])


def play(story: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    """Plays a story in virtual time."""

    async def main() -> None:
        await story(World(**settings))

    run(main())
