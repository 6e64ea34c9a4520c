"""`ports.OrderTables` on a disk: opens what an earlier process has left, and throws away what does not fit."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog
from msgspec import MsgspecError, Struct, msgpack

from schemas import state
from worker.errors import StoreError
from worker.metrics import StoreOperation
from worker.ports import Clock, Database, Files, Origin, Recalled
from worker.store.disk import CHECKPOINT, COUNTS, FORMAT, NOTE, UNSETTLED, Checkpoint, DiskOrders, origin_of
from worker.store.memory import MemoryOrders

log = structlog.get_logger(__name__)

AGE_MAX_MS = 24 * 3_600_000
"""Of a copy that is continued: half the time for which tombstones are kept at least, for clocks may be wrong."""
AHEAD_MAX_MS = 5 * 60_000
"""By which a copy may come from the future."""
FAILURES_MAX = 2
"""So often the disk of a partition has failed in this process: then its orders are kept in memory."""
_AT_ONCE = 10_000

_checkpoint = msgpack.Decoder(Checkpoint)
_counts = msgpack.Decoder(dict[str, int])


class _Found(Struct):
    """A database, and what is in it besides orders."""

    database: Database
    position: int = 0
    counts: dict[str, int] = {}
    unsettled: list[str] = []
    notes: dict[bytes, bytes] = {}
    thrown_away: str = ""
    """Why another one was; empty: none was."""


class _UnfitError(Exception):
    """Why a database is not continued."""


class DiskTables:
    """The tables of a worker."""

    def __init__(
        self,
        files: Files,
        clock: Clock,
        cache_bytes: int,
        on_failure: Callable[[StoreOperation], None] = lambda _what: None,
    ) -> None:
        """`cache_bytes`: for all partitions together. `on_failure`: counts failures."""
        self._files = files
        self._clock = clock
        self._cache_bytes = cache_bytes
        self._on_failure = on_failure
        self._open: dict[int, DiskOrders] = {}
        self._failures: dict[int, int] = {}

    def start(self) -> None:
        self._files.lock()

    async def recall(self, origin: Origin) -> Recalled:
        partition = origin.partition
        is_refused = await self._close(partition)
        while self._failures.get(partition, 0) < FAILURES_MAX:
            began = self._clock.now()
            try:
                found = await self._files.write(
                    partial(_find, self._files, origin, self._clock.wall_ms(), is_refused=is_refused)
                )
            except StoreError as error:
                is_refused = True
                self._failures[partition] = self._failures.get(partition, 0) + 1
                self._on_failure("open")
                log.error(  # noqa: TRY400 - whose stack says nothing
                    "store_failed", partition=partition, operation="open", error=str(error), then="a new one"
                )
                continue
            if found.thrown_away:
                log.warning("store_thrown_away", partition=partition, why=found.thrown_away)
            table = self._open[partition] = self._table(found, origin)
            self._share()
            seconds = round(self._clock.now() - began, 3)
            log.info("store_opened", partition=partition, orders=len(table), position=found.position, seconds=seconds)
            return Recalled(table, found.position, found.notes)
        log.error("store_given_up", partition=partition, then="its orders are kept in memory until a restart")
        return Recalled(MemoryOrders())

    async def _close(self, partition: int) -> bool:
        """Whether what was open for the partition must not be used again."""
        table = self._open.pop(partition, None)
        if table is None:
            return False
        if table.is_broken:
            self._failures[partition] = self._failures.get(partition, 0) + 1
        await table.close()
        return table.is_broken

    def _share(self) -> None:
        """The cache among those that are in use."""
        tables = self._in_use()
        for table in tables:
            table.resize(self._cache_bytes // len(tables))

    def _in_use(self) -> list[DiskOrders]:
        return [table for table in self._open.values() if table.is_usable()]

    def on_disk(self) -> int:
        return len(self._in_use())

    def _table(self, found: _Found, origin: Origin) -> DiskOrders:
        return DiskOrders(
            found.database,
            self._files,
            origin,
            self._clock,
            self._cache_bytes,
            self._on_failure,
            counts=found.counts,
            unsettled=found.unsettled,
            is_continued=found.position > 0,
        )

    async def stop(self) -> None:
        for table in self._open.values():
            await table.close()
        self._open.clear()
        self._files.unlock()


# --- in a thread ---


def _find(files: Files, origin: Origin, now_ms: int, *, is_refused: bool) -> _Found:
    """The partition's database if it fits, or else a new one. Raises `StoreError`."""
    if is_refused:
        files.destroy(origin.partition)
    try:
        return _opened(files, origin, now_ms)
    except (StoreError, MsgspecError, UnicodeDecodeError, _UnfitError) as error:
        why = str(error)
    files.destroy(origin.partition)
    return _Found(files.open(origin.partition), thrown_away=why)


def _opened(files: Files, origin: Origin, now_ms: int) -> _Found:
    database = files.open(origin.partition)
    try:
        return _Found(database) if not database.keys(b"", b"", 1) else _continued(database, origin, now_ms)
    except BaseException:
        with suppress(StoreError):
            database.close()
        raise


def _continued(database: Database, origin: Origin, now_ms: int) -> _Found:
    stored = database.get(CHECKPOINT)
    if stored is None:
        raise _UnfitError("it was never complete")
    saved = _checkpoint.decode(stored)
    if (saved.format, saved.schema) != (FORMAT, state.SCHEMA):
        raise _UnfitError(f"it has schema {saved.schema} in format {saved.format}: another version wrote it")
    if saved.origin != origin_of(origin) or not origin.topic_id:
        raise _UnfitError(f"it is a copy of {saved.origin}, wanted is one of {origin_of(origin)}")
    age_ms = now_ms - saved.at_ms
    if not -AHEAD_MAX_MS <= age_ms <= AGE_MAX_MS:
        raise _UnfitError(f"it is {age_ms / 3_600_000:.1f} h old: tombstones may be missed")
    return _Found(
        database,
        saved.position,
        _counts.decode(database.get(COUNTS) or b""),
        [key[len(UNSETTLED) :].decode() for key, _ in _all(database, UNSETTLED)],
        {key[len(NOTE) :]: value for key, value in _all(database, NOTE)},
    )


def _all(database: Database, prefix: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    begin: bytes | None = prefix
    while begin is not None:
        page = database.items(begin, prefix, _AT_ONCE)
        found += page
        begin = page[-1][0] + b"\x00" if page else None
    return found
