"""Tables to hold against `ports.OrderTable`, and the disks below them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from worker.ports import Files, Origin
from worker.sim.files import Disk, MemoryFiles
from worker.store.disk import DiskOrders, _Waiting, _write
from worker.store.memory import MemoryOrders
from worker.store.rocks import RocksFiles

ORIGIN = Origin(3, "cluster", "topic-1", 0)
BEGAN_MS = 1_800_000_000_000


class SetClock:
    """`ports.Clock`, set by the test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wall_ms(self) -> int:
        return BEGAN_MS + round(self.seconds * 1000)

    def chance(self) -> float:
        return 0.5


async def at_once(_what: str) -> None:
    """A step that takes no time."""


class Opened:
    """What a test has opened, until its end."""

    def __init__(self) -> None:
        self.stack = ExitStack()

    def folder(self) -> Path:
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory()))

    def rocks(self) -> Files:
        files = RocksFiles(self.folder())
        self.stack.callback(files.unlock)
        return files


OPENED = Opened()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """What was opened is closed when the test is over."""
    yield
    OPENED.stack.close()


def memory_files() -> Files:
    """A disk in memory."""
    return MemoryFiles(Disk(), "w", at_once)


class _WrittenAtOnce(DiskOrders):
    """Keeps nothing in memory: all that is put is in the database, and nowhere else."""

    def put(self, subject: str, value: bytes) -> None:
        super().put(subject, value)
        self._flush()

    def delete(self, subject: str) -> None:
        super().delete(subject)
        self._flush()

    def _flush(self) -> None:
        _write(self._database, self._waiting, self._others(None))
        self._waiting, self._young, self._old, self._young_bytes = _Waiting(), {}, {}, 0
        self._absent.clear()


def _make(kind: type[DiskOrders], files: Callable[[], Files]) -> Callable[[], Any]:
    def make() -> DiskOrders:
        opened = files()
        database = opened.open(3)
        OPENED.stack.callback(database.close)
        return kind(
            database,
            opened,
            ORIGIN,
            SetClock(),
            2_000,
            lambda _what: None,
            counts={},
            unsettled=[],
            is_continued=False,
        )

    return make


TABLES: list[Any] = [
    pytest.param(MemoryOrders, id="memory"),
    pytest.param(_make(DiskOrders, memory_files), id="disk, not written"),
    pytest.param(_make(_WrittenAtOnce, memory_files), id="disk, written"),
    pytest.param(_make(_WrittenAtOnce, OPENED.rocks), id="RocksDB, written"),
    pytest.param(_make(DiskOrders, OPENED.rocks), id="RocksDB, not written"),
]
FILES: list[Any] = [pytest.param(memory_files, id="simulated"), pytest.param(OPENED.rocks, id="RocksDB")]
