"""What the tests of the in-memory log share: a scene in virtual time, and who plays in it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from worker.errors import LogError
from worker.ports import DeadLetter, EventLog, PartitionWriter, StateEntry
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, run

Scene = Callable[[MemoryLog], Coroutine[Any, Any, Any]]

LETTER = DeadLetter(b"k", b"v", [])


def play(scene: Scene, *, partitions: int = 4, seed: int | None = None, **settings: Any) -> Any:
    """The result of a scene with a new log, in virtual time."""

    async def main() -> Any:
        return await scene(MemoryLog(partitions, VirtualClock(asyncio.get_running_loop()), **settings))

    return run(main(), seed=seed)


def now() -> float:
    """Virtual time."""
    return asyncio.get_running_loop().time()


async def hold(log: MemoryLog, member: str = "w1", partition: int = 0) -> PartitionWriter:
    """A fenced hold of a process."""
    taken = log.states(member).partition(partition)
    await taken.fence()
    return taken


async def read(holder: PartitionWriter, position: int, until: int) -> list[StateEntry]:
    """All entries of a read."""
    return [entry async for entries in holder.read(position, until) for entry in entries]


def seen(log: MemoryLog, partition: int = 0) -> list[tuple[int, bytes, bytes | None]]:
    """What a restore would read."""
    return [(entry.offset, entry.key, entry.value) for entry in log.entries(partition)]


def raising(*ops: str) -> Callable[[str, str, int], Awaitable[None]]:
    """A gate at which these operations fail."""

    async def gate(op: str, _: str, partition: int) -> None:
        if op in ops:
            raise LogError(f"{op} of {partition}")

    return gate


class Member:
    """A listener that notes what it hears and when, and takes its time over a revocation."""

    def __init__(self, events: EventLog, revoke_s: float = 0.0) -> None:
        self.events = events
        self.told: list[tuple[Any, str, set[int]]] = []
        self.revoke_s = revoke_s

    def assigned(self, partitions: set[int]) -> None:
        """Reads everything from the beginning."""
        self.told.append((now(), "assigned", partitions))
        for partition in partitions:
            self.events.seek(partition, 0)
            self.events.resume(partition)

    async def revoked(self, partitions: set[int]) -> None:
        """Takes its time, unless there is nothing to lose."""
        self.told.append((now(), "revoked", partitions))
        await asyncio.sleep(self.revoke_s if partitions else 0)

    async def offsets(self, timeout_s: float = 0.1) -> dict[int, list[int]]:
        """The offsets that a poll gives."""
        polled = await self.events.poll(timeout_s, 100)
        return {partition: [record.offset for record in records] for partition, records in polled.items()}


async def join(log: MemoryLog, process: str, revoke_s: float = 0.0, name: str = "") -> Member:
    """A member that has started. `name`: by which the group knows it again."""
    member = Member(log.events(process, name), revoke_s)
    await member.events.start(member)
    return member
