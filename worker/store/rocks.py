"""`ports.Database` and `ports.Files` by RocksDB: why it is that, `deploy/DECISIONS.md` has with figures.

What we rely on (rocksdict 0.3): a `WriteBatch` is applied as a whole or not at all, also when the process or the
machine ends in the middle; after that, what remains is what was written up to some point (`point_in_time`); blocks,
log records and the manifest have checksums, and one that is wrong raises; a call with many keys, or a batch, gives the
interpreter's lock away once, whatever it does.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    RdictIter,
    WriteBatch,
    WriteBufferManager,
)

from worker.errors import ConfigError, StoreError
from worker.ports import Changes, Database

_T = TypeVar("_T")

BLOCKS_BYTES = 64 * 2**20
"""Blocks of files that are kept uncompressed, for all partitions together; indexes and filters of the files (70 MB for
5,000,000 orders) are always in memory: to look for them in the cache takes as long as to read an order."""
BUFFERS_BYTES = 64 * 2**20
"""What is written and not sorted into a file yet, for all partitions together."""
_BUFFER_BYTES = 16 * 2**20
_BITS_PER_KEY = 10
"""Of the filter that says for most keys that are not there that they are not: 6 MB for 5,000,000 orders."""
_LOG_BYTES, _LOGS = 2**20, 2
"""RocksDB's own log of what it does."""
_OPEN_FILES = 256
_READERS = 2
_LOCK = "lock"


class RocksFiles:
    """A folder, in which each partition has one of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None
        self._cache = Cache(BLOCKS_BYTES)
        self._buffers = WriteBufferManager(BUFFERS_BYTES, False)
        self._readers = ThreadPoolExecutor(_READERS, "read orders")
        self._writer = ThreadPoolExecutor(1, "write orders")

    def lock(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"[store] path: {self._folder} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
            os.close(lock)
            raise ConfigError(
                f"[store] path: {self._folder} is used by another worker (process {owner or 'unknown'}): each worker "
                "needs a folder of its own"
            ) from error
        self._lock = lock
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def unlock(self) -> None:
        for pool in (self._readers, self._writer):
            pool.shutdown(wait=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open(self, partition: int) -> Database:
        with _failures(f"opening {self._path(partition)}"):
            return RocksDatabase(Rdict(str(self._path(partition)), self._options()))

    def _options(self) -> Options:
        table, options = BlockBasedOptions(), Options(raw_mode=True)
        table.set_block_cache(self._cache)
        table.set_cache_index_and_filter_blocks(False)

        table.set_bloom_filter(_BITS_PER_KEY, False)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self._buffers)
        options.set_write_buffer_size(_BUFFER_BYTES)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
        options.set_max_total_wal_size(4 * _BUFFER_BYTES)
        options.set_max_open_files(_OPEN_FILES)
        options.set_max_log_file_size(_LOG_BYTES)
        options.set_keep_log_file_num(_LOGS)
        return options

    def _path(self, partition: int) -> Path:
        return self._folder / f"partition-{partition}"

    def destroy(self, partition: int) -> None:
        path = self._path(partition)
        with _failures(f"removing {path}"):
            if path.exists():
                shutil.rmtree(path)

    async def read(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def write(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


class RocksDatabase:
    """One RocksDB."""

    def __init__(self, db: Rdict) -> None:
        self._db = db

    def get(self, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._db.get(key)
        except Exception as error:
            raise _failed("reading", error) from error
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with _failures("reading"):
            found: list[bytes | None] = self._db.get(list(keys)) or []
            return found

    def keys(self, begin: bytes, prefix: bytes, count: int) -> list[bytes]:
        return self._scanned(begin, prefix, count, RdictIter.key)

    def items(self, begin: bytes, prefix: bytes, count: int) -> list[tuple[bytes, bytes]]:
        return self._scanned(begin, prefix, count, lambda at: (at.key(), at.value()))

    def _scanned(self, begin: bytes, prefix: bytes, count: int, take: Callable[[RdictIter], Any]) -> list[Any]:
        found: list[Any] = []
        with _failures("reading"):
            at = self._db.iter()
            at.seek(begin)
            while len(found) < count and at.valid() and at.key().startswith(prefix):
                found.append(take(at))
                at.next()
            at.status()
        return found

    def key_at(self, part: float) -> bytes:
        with _failures("reading"):
            begins = sorted(bytes(file["start_key"]) for file in self._db.live_files() if file["start_key"])
        return begins[int(part * len(begins))] if begins else b""

    def write(self, changes: Changes) -> None:
        with _failures("writing"):
            batch = WriteBatch(raw_mode=True)
            for key, value in changes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            self._db.write(batch)

    def close(self) -> None:
        with _failures("closing"):
            self._db.close()


@contextmanager
def _failures(doing: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _failed(doing, error) from error


def _failed(doing: str, error: Exception) -> StoreError:
    return StoreError(f"{doing}: {error}")
