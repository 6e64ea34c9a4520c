"""A disk in virtual time: databases whose writes may be lost, torn or refused, whose process may crash at any point.

It behaves like a database with a write-ahead log: each batch is kept as a whole or not at all, and what remains after a
loss is what was written up to some batch.
"""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from worker.errors import ConfigError, StoreError
from worker.ports import Changes, Database

_T = TypeVar("_T")

Step = Callable[[str], Awaitable[None]]
"""Called before anything that takes a disk some time, with what it is; may wait, and may raise `StoreError`."""


@dataclass
class DiskPartition:
    """What is on the disk for one partition."""

    batches: list[Changes] = field(default_factory=list)
    """All that was written; the later ones may be lost."""
    is_damaged: bool = False
    """Reading it fails, until it was destroyed."""

    def rows(self) -> dict[bytes, bytes]:
        """What the batches come to."""
        rows: dict[bytes, bytes] = {}
        for changes in self.batches:
            for key, value in changes:
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value
        return rows


class Disk:
    """The disk of one machine; it outlives processes."""

    def __init__(self) -> None:
        self.partitions: dict[int, DiskPartition] = {}
        self.owner = ""
        """The process that has it locked."""
        self.is_full = False
        """Writes are refused."""


class MemoryFiles:
    """`ports.Files` of one process on a disk."""

    def __init__(self, disk: Disk, process: str, step: Step) -> None:
        self._disk = disk
        self._process = process
        self._step = step

    def lock(self) -> None:
        if self._disk.owner not in ("", self._process):
            raise ConfigError(f"[store] path: it is used by another worker ({self._disk.owner})")
        self._disk.owner = self._process

    def unlock(self) -> None:
        if self._disk.owner == self._process:
            self._disk.owner = ""

    def open(self, partition: int) -> Database:
        here = self._disk.partitions.setdefault(partition, DiskPartition())
        if here.is_damaged:
            raise StoreError("the file is damaged")
        return MemoryDatabase(self._disk, here)

    def destroy(self, partition: int) -> None:
        self._disk.partitions.pop(partition, None)

    async def read(self, work: Callable[[], _T]) -> _T:
        await self._step("read")
        return work()

    async def write(self, work: Callable[[], _T]) -> _T:
        await self._step("write")
        done = work()
        await self._step("write:done")
        return done


class MemoryDatabase:
    """`ports.Database` of one process."""

    def __init__(self, disk: Disk, here: DiskPartition) -> None:
        self._disk = disk
        self._here = here
        self._rows = here.rows()
        self._order: list[bytes] | None = None
        self._is_closed = False

    def get(self, key: bytes) -> bytes | None:
        self._require_whole()
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._require_whole()
        return [self._rows.get(key) for key in keys]

    def keys(self, begin: bytes, prefix: bytes, count: int) -> list[bytes]:
        self._require_whole()
        order = self._sorted()
        first = bisect_left(order, begin)
        found = order[first : first + count]
        return [key for key in found if key.startswith(prefix)]

    def items(self, begin: bytes, prefix: bytes, count: int) -> list[tuple[bytes, bytes]]:
        return [(key, self._rows[key]) for key in self.keys(begin, prefix, count)]

    def key_at(self, part: float) -> bytes:
        self._require_whole()
        order = self._sorted()
        return order[int(part * len(order))] if order else b""

    def write(self, changes: Changes) -> None:
        self._require_whole()
        if self._disk.is_full:
            raise StoreError("no space left on device")
        self._here.batches.append(list(changes))
        for key, value in changes:
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._order = None

    def close(self) -> None:
        self._is_closed = True

    def _sorted(self) -> list[bytes]:
        if self._order is None:
            self._order = sorted(self._rows)
        return self._order

    def _require_whole(self) -> None:
        if self._is_closed:
            raise StoreError("the database is closed")
        if self._here.is_damaged:
            raise StoreError("a checksum is wrong")
