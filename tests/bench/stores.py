"""Stores for orders on a disk, side by side: `python -m tests.bench.stores`, with those that are installed.

    pip install rocksdict lmdb        sqlite3 is part of Python

What counts: how long the loop waits for an order that is in memory nowhere, how a thread that writes gets on beside a
loop that is busy, what the process keeps in memory, and whether a damaged file is noticed. Each store runs in a process of its
own, with settings as near to each other as they have them: a commit per batch, no fsync before a checkpoint, 64 MiB of
memory.
"""

import argparse
import asyncio
import importlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import msgspec
from rich.console import Console
from rich.table import Table

from schemas import state
from tests.bench.sending import account_at, records_of
from tests.shops.load import subject_of

KINDS = 1_000
BATCH = 2_000
MEMORY_BYTES = 64 * 2**20
HOT, HOT_READS, COLD_READS, AT_ONCE = 20_000, 50_000, 20_000, 64
BATCHES = 20


class Store(Protocol):
    """What an owner would need of it."""

    def write(self, orders: Sequence[tuple[bytes, bytes]]) -> None: ...
    def get(self, key: bytes) -> bytes | None: ...
    def get_all(self, keys: list[bytes]) -> list[bytes | None]: ...
    def close(self) -> None: ...


class Rocks:
    """RocksDB, by rocksdict."""

    def __init__(self, folder: Path) -> None:
        r = importlib.import_module("rocksdict")
        options, table = r.Options(raw_mode=True), r.BlockBasedOptions()
        table.set_block_cache(r.Cache(MEMORY_BYTES))
        table.set_bloom_filter(10, False)
        table.set_cache_index_and_filter_blocks(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_size(16 * 2**20)
        options.set_compression_type(r.DBCompressionType.lz4())
        options.create_if_missing(True)
        self._batch = r.WriteBatch
        self._db = r.Rdict(str(folder / "rocks"), options)

    def write(self, orders: Sequence[tuple[bytes, bytes]]) -> None:
        batch = self._batch(raw_mode=True)
        for key, value in orders:
            batch.put(key, value)
        self._db.write(batch)

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._db.get(key)
        return found

    def get_all(self, keys: list[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._db.get(keys)
        return found

    def close(self) -> None:
        self._db.close()


class Lmdb:
    """LMDB: its cache is the system's."""

    def __init__(self, folder: Path) -> None:
        lmdb = importlib.import_module("lmdb")
        self._env = lmdb.open(str(folder / "lmdb"), map_size=2**36, metasync=False, sync=False, readahead=False)

    def write(self, orders: Sequence[tuple[bytes, bytes]]) -> None:
        with self._env.begin(write=True) as txn:
            txn.cursor().putmulti(orders)

    def get(self, key: bytes) -> bytes | None:
        with self._env.begin() as txn:
            found: bytes | None = txn.get(key)
            return found

    def get_all(self, keys: list[bytes]) -> list[bytes | None]:
        with self._env.begin() as txn:
            return [txn.get(key) for key in keys]

    def close(self) -> None:
        self._env.close()


class Sqlite:
    """SQLite with a write-ahead log; many rows in one statement, so that the interpreter's lock is taken once."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "orders.sqlite", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA cache_size = -{MEMORY_BYTES // 1024}")
        self._db.execute("CREATE TABLE IF NOT EXISTS orders (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._reader = sqlite3.connect(folder / "orders.sqlite", isolation_level=None, check_same_thread=False)
        self._reader.execute(f"PRAGMA cache_size = -{MEMORY_BYTES // 1024}")

    def write(self, orders: Sequence[tuple[bytes, bytes]]) -> None:
        rows = ",".join(["(?,?)"] * len(orders))
        flat = [part for order in orders for part in order]
        self._db.execute(f"INSERT OR REPLACE INTO orders VALUES {rows}", flat)

    def get(self, key: bytes) -> bytes | None:
        row = self._reader.execute("SELECT value FROM orders WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def get_all(self, keys: list[bytes]) -> list[bytes | None]:
        marks = ",".join("?" * len(keys))
        found = dict(self._reader.execute(f"SELECT key, value FROM orders WHERE key IN ({marks})", keys))
        return [found.get(key) for key in keys]

    def close(self) -> None:
        self._reader.close()
        self._db.close()


STORES: dict[str, tuple[str, Callable[[Path], Store]]] = {
    "RocksDB": ("rocksdict", Rocks),
    "LMDB": ("lmdb", Lmdb),
    "SQLite": ("sqlite3", Sqlite),
}


def _values() -> list[bytes]:
    return [state.encode(record) for _, record in records_of(KINDS, 4, account_at("http://127.0.0.1"))]


def _key(number: int) -> bytes:
    return subject_of(number).encode()


def _batches(orders: int, values: list[bytes]) -> Iterator[list[tuple[bytes, bytes]]]:
    for first in range(0, orders, BATCH):
        yield [(_key(number), values[number % KINDS]) for number in range(first, min(orders, first + BATCH))]


def _per_call_us(call: Callable[[Any], object], arguments: Sequence[Any]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    took = []
    for argument in arguments:
        began = time.perf_counter()
        call(argument)
        took.append(time.perf_counter() - began)
    took.sort()
    return took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6


def _forget_pages(folder: Path) -> None:
    """Has the system forget what it keeps of these files."""
    os.sync()
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _resident() -> dict[str, float]:
    """In MiB: ours alone, and with what is mapped of files."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(found[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


async def _written_beside_work(store: Store, batches: list[list[tuple[bytes, bytes]]]) -> float:
    """Seconds per batch that a thread takes beside a loop that has always something to do."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for batch in batches:
        writing = loop.run_in_executor(None, store.write, batch)
        while not writing.done():
            sum(range(100_000))  # some milliseconds, as a batch of events takes them
            await asyncio.sleep(0)
    return (time.perf_counter() - began) / len(batches)


def measure(name: str, orders: int, folder: Path) -> dict[str, float]:
    """One store, in this process."""
    _, make = STORES[name]
    random, values = Random(1), _values()
    store = make(folder)
    began = time.perf_counter()
    for batch in _batches(orders, values):
        store.write(batch)
    found = {"filled at, orders/s": orders / (time.perf_counter() - began)}
    store.close()
    size = sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
    found["disk, bytes/order"] = size / orders
    _forget_pages(folder)
    began = time.perf_counter()
    store = make(folder)
    store.get(_key(0))
    found["opened in, ms"] = (time.perf_counter() - began) * 1e3
    cold = [_key(random.randrange(orders)) for _ in range(COLD_READS)]
    found["cold read p50, µs"], found["cold read p99, µs"] = _per_call_us(store.get, cold)
    portions = [[_key(random.randrange(orders)) for _ in range(AT_ONCE)] for _ in range(500)]
    _forget_pages(folder)
    each, _ = _per_call_us(store.get_all, portions)
    found[f"cold, {AT_ONCE} at once, µs each"] = each / AT_ONCE
    hot = [_key(orders - 1 - random.randrange(HOT)) for _ in range(HOT_READS)]
    _per_call_us(store.get, hot)
    found["hot read p50, µs"], found["hot read p99, µs"] = _per_call_us(store.get, hot)
    changed = [[(_key(random.randrange(orders)), random.choice(values)) for _ in range(BATCH)] for _ in range(BATCHES)]
    each_s = asyncio.run(_written_beside_work(store, changed))
    found["written by a thread beside a busy loop, µs/order"] = each_s / BATCH * 1e6
    found |= {f"{name}, MiB": size for name, size in _resident().items()}
    store.close()
    found["damaged values read as right, of 1,000"] = _unnoticed(make, folder, random, orders, values)
    return found


def _unnoticed(make: Callable[[Path], Store], folder: Path, random: Random, orders: int, values: list[bytes]) -> int:
    """A bit of each megabyte is flipped."""
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > 2**20:
            with file.open("r+b") as opened:
                for begin in range(2**19, file.stat().st_size - 2**16, 2**16):
                    at = begin + random.randrange(2**16)
                    opened.seek(at)
                    byte = opened.read(1)[0]
                    opened.seek(at)
                    opened.write(bytes([byte ^ 4]))
    unnoticed, known = 0, set(values)
    try:
        store = make(folder)
        for _ in range(1_000):
            try:
                value = store.get(_key(random.randrange(orders)))
            except Exception:  # noqa: BLE001 - each has its own: it was noticed
                continue
            unnoticed += value not in known
        store.close()
    except Exception:  # noqa: BLE001 - noticed at once
        return 0
    return unnoticed


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stores", description="Stores side by side")
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--store", choices=STORES, help="measures this one, and prints JSON")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.store:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = measure(arguments.store, arguments.orders, Path(folder))
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    console, columns = Console(width=120), dict[str, dict[str, float]]()
    for name, (module, _) in STORES.items():
        if importlib.util.find_spec(module) is None:
            console.print(f"{name}: {module} is not installed", highlight=False)
            continue
        command = [sys.executable, "-m", "tests.bench.stores", "--store", name, "--orders", str(arguments.orders)]
        command += ["--folder", str(arguments.folder)] if arguments.folder else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            console.print(f"{name}: ended with {done.returncode}", highlight=False)
        else:
            columns[name] = msgspec.json.decode(done.stdout)
    table = Table("", *columns)
    for row in next(iter(columns.values()), {}):
        table.add_row(row, *(f"{column[row]:,.1f}" for column in columns.values()))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
