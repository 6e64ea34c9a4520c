"""Breaks of the rules by which a copy of the state on a disk is written and believed."""

from collections.abc import Callable
from typing import Any

from tests.simulation.breaks import Breaks
from worker.errors import StoreError
from worker.ports import Changes
from worker.sim.files import MemoryDatabase
from worker.store import disk, tables
from worker.store.disk import CHECKPOINT, COUNTS, DiskOrders

breaks = Breaks()


@breaks(MemoryDatabase, "write")
def rows_written_after_their_checkpoint(real: Any) -> Any:
    """In two writes: after a crash in between the copy says that it is newer than it is."""

    def write(self: Any, changes: Changes) -> None:
        ahead = [change for change in changes if change[0] in (CHECKPOINT, COUNTS)]
        real(self, ahead)
        real(self, [change for change in changes if change not in ahead])

    return write


@breaks(DiskOrders, "_take_back")
def failed_write_forgotten(real: Any) -> Any:
    """What the disk did not take is not written again, though the next checkpoint says that it is there."""

    def take_back(self: Any, position: int | None) -> None:
        self._position = position

    return take_back


@breaks(disk, "_is_unsettled")
def owed_orders_not_marked(real: Any) -> Any:
    """A restart does not find what is owed."""

    def is_unsettled(_value: bytes) -> bool:
        return False

    return is_unsettled


@breaks(DiskOrders, "_read")
def unreadable_order_taken_for_none(real: Callable[[Any, str], bytes | None]) -> Any:
    """The next event of the order begins it anew."""

    def read(self: Any, subject: str) -> bytes | None:
        try:
            return real(self, subject)
        except StoreError:
            return None

    return read


@breaks(DiskOrders, "fetch")
def unreadable_orders_fetched_for_none(real: Any) -> Any:
    """The same, of those that are read ahead."""

    async def fetch(self: Any, subjects: Any) -> None:
        try:
            await real(self, subjects)
        except StoreError:
            self.is_broken = False
            self._take_in(list(subjects), [None] * len(subjects))

    return fetch


@breaks(tables, "_continued")
def position_beyond_the_copy(real: Any) -> Any:
    """What was written between the checkpoint and the end of the topic is not read."""

    def continued(database: Any, origin: Any, now_ms: int) -> Any:
        found = real(database, origin, now_ms)
        found.position += 3
        return found

    return continued


@breaks(DiskOrders, "put")
def old_order_left_in_the_cache(real: Any) -> Any:
    """What is put is written, and what is read is what was there before."""

    def put(self: Any, subject: str, value: bytes) -> None:
        before = self._young.get(subject)
        real(self, subject, value)
        if before is not None:
            self._young[subject] = before

    return put
