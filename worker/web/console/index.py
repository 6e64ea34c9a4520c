"""The index: rows of orders, dead letters and results in a SQLite file, where the entries of histories are, and how far
each topic was read.

Rows and positions are written in one transaction, so a file that is opened again goes on exactly where it was left.
It is thrown away when it is of another version, or of topics with other ids, or so old that tombstones may have been
compacted away meanwhile. It holds nothing that the topics do not have: losing it costs the time of building it.

One thread at a time writes; readers have connections of their own (`connect`), and see what was committed.
"""

import fcntl
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, get_args

import msgspec
import structlog
from msgspec import Struct

from schemas import history, state
from worker.core.letters import read_marker
from worker.core.masking import reason_family
from worker.core.policy import DeliveryPolicy
from worker.errors import ConfigError
from worker.ports import Chunk, Place, TopicName
from worker.web.console import rows
from worker.web.console.rows import Describe, StateLines

log = structlog.get_logger(__name__)

VERSION = 3
"""Of the tables below, and of what `rows` puts there: raised by every change of either."""
STALE_S = 86_400.0
"""An index that was not read on for so long is built again: tombstones are kept for two days at least."""
_ACTIVITY_MS = 2 * 3_600_000
"""For how long it is known how many results were written in each minute."""
_MINUTE_MS = 60_000
_CACHE_KIB, _READER_CACHE_KIB = 32_768, 4_096
"""Of pages of the file that a connection keeps; the system keeps what it has room for."""
_COMMIT_ROWS = 20_000
"""While an index is built, so many records are one transaction, or those of a second: to write pages anew for each
slice takes twice as long.
"""
_PAGES_KEPT, _PAGES_KEPT_BUILDING = 1_000, 10_000
"""In the file that SQLite writes ahead; then they are copied."""
_WAL_BYTES_KEPT = 4 * 2**20
"""Of that file, once its pages are copied."""
_ANALYZED_MAX = 1_000
"""Rows of each index that are looked at for what SQLite should expect of it."""

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY, input_next INTEGER, clean INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '', owner_at_ms INTEGER
);
CREATE TABLE reasons (id INTEGER PRIMARY KEY, kind TEXT NOT NULL UNIQUE, family TEXT NOT NULL);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, subject TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    account TEXT NOT NULL, status TEXT NOT NULL, reason INTEGER NOT NULL, currency TEXT, shipped_minor INTEGER,
    unshipped_minor INTEGER, paid_minor INTEGER, paid TEXT, differs INTEGER NOT NULL, on_hold INTEGER NOT NULL,
    revision INTEGER NOT NULL, acked INTEGER NOT NULL, changed_ms INTEGER NOT NULL, since_ms INTEGER NOT NULL,
    UNIQUE (subject, partition)
);
CREATE TABLE letters (
    id INTEGER PRIMARY KEY, partition INTEGER NOT NULL, offset INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, subject TEXT NOT NULL, type TEXT NOT NULL, event_id TEXT NOT NULL,
    source TEXT NOT NULL, handled TEXT NOT NULL DEFAULT '', UNIQUE (partition, offset)
);
CREATE INDEX letters_at ON letters (at_ms);
CREATE INDEX letters_subject ON letters (subject) WHERE subject != '';
CREATE TABLE results (
    subject TEXT NOT NULL, slot TEXT NOT NULL, at_ms INTEGER NOT NULL, type TEXT NOT NULL, status TEXT NOT NULL,
    revision INTEGER, acked INTEGER, currency TEXT, shipped_minor INTEGER, unshipped_minor INTEGER,
    PRIMARY KEY (subject, slot)
) WITHOUT ROWID;
CREATE TABLE histories (
    subject TEXT NOT NULL, partition INTEGER NOT NULL, offsets BLOB NOT NULL, PRIMARY KEY (subject, partition)
) WITHOUT ROWID;
CREATE TABLE activity (
    minute_ms INTEGER PRIMARY KEY, acknowledged INTEGER NOT NULL, parked INTEGER NOT NULL, other INTEGER NOT NULL
);
"""
_ORDER_INDEXES = {
    "orders_changed": "(changed_ms)",
    "orders_account": "(account, status, since_ms)",
    "orders_status": "(status, since_ms)",
    "orders_since": f"(since_ms) WHERE since_ms < {rows.NEVER_MS}",
    "orders_reason": "(account, status, reason, since_ms) WHERE reason != 0",
    "orders_words": "(reason, changed_ms) WHERE reason != 0",
    "orders_shipped": f"(ifnull(shipped_minor, {rows.NO_AMOUNT}))",
    "orders_unshipped": f"(ifnull(unshipped_minor, {rows.NO_AMOUNT}))",
    "orders_paid": "(account, paid) WHERE paid IS NOT NULL",
    "orders_differs": "(account, changed_ms) WHERE differs",
    "orders_hold": "(account) WHERE on_hold",
}
"""Made when the topics were read: to keep them while a million orders come takes twice as long."""
_ORDER_MEMBERS = ("subject", "partition", "offset", "account", "status", "reason", *rows.OrderLine._fields[6:])
_UPSERT = (
    f"INSERT INTO orders ({', '.join(_ORDER_MEMBERS)}) VALUES ({', '.join('?' * len(_ORDER_MEMBERS))})"  # noqa: S608
    " ON CONFLICT (subject, partition) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _ORDER_MEMBERS[2:])
)
_NO_REASON = 0


class Topics(Struct, frozen=True):
    """Which topics an index is of: their ids, where brokers know them, and how many partitions they have."""

    names: Mapping[str, str]
    ids: Mapping[str, str]
    partitions: Mapping[str, int]


class _Meta(Struct, frozen=True):
    """What a file says of itself."""

    version: int
    topics: Topics
    is_complete: bool = False
    """All that was there when reading began has been read once."""
    read_until_ms: int = 0


class Index:
    """The writing side of the file."""

    def __init__(self, path: Path, rules: DeliveryPolicy, describe: Describe, now_ms: Callable[[], int]) -> None:
        """Raises `ConfigError` when the file cannot be had, or another console has it."""
        self.path = path
        self._rules = rules
        self._describe = describe
        self._now_ms = now_ms
        self._lock = _locked(path)
        self._db: sqlite3.Connection = self._opened()
        self._meta: _Meta | None = None
        self._reasons: dict[str, int] = {}
        self.version = 0
        """Grows with every change."""
        self.is_complete = False
        self.damaged = 0
        """Records of the state topic that were none."""
        self._uncommitted = 0
        """Records of the open transaction."""

    def close(self) -> None:
        """Ends it; what was committed stays."""
        self._db.close()
        self._lock.close()

    def interrupt(self) -> None:
        """Ends what another thread does with it."""
        self._db.interrupt()

    def connect(self) -> sqlite3.Connection:
        """A connection for a reader, on whatever thread; to be closed by it."""
        return connect(self.path)

    # --- which topics ---

    def begin(self, topics: Topics, ends: Mapping[Place, tuple[int, int]]) -> dict[Place, int]:
        """Goes on, or begins again, with these topics: where each partition is to be read from. `ends`: the first
        offset of each partition, and the one after the last.
        """
        self._roll_back()
        found = self._read_meta()
        if (why := self._why_anew(found, topics, ends)) is not None:
            if found is not None:
                log.warning("console_index_rebuilt", why=why)
            self._make(topics)
        else:
            assert found is not None  # or it would be made
            self._meta, self.is_complete = found, found.is_complete
            self._reasons = {kind: number for number, kind in self._db.execute("SELECT id, kind FROM reasons")}
        self._keep_pages(_PAGES_KEPT if self.is_complete else _PAGES_KEPT_BUILDING)
        known = self.positions()
        # What retention has taken is gone; compaction moves no beginning.
        return {place: max(first, known.get(place, first)) for place, (first, _) in ends.items()}

    def _why_anew(self, found: _Meta | None, topics: Topics, ends: Mapping[Place, tuple[int, int]]) -> str | None:
        """Why the file is of no use; `None`: it is."""
        if found is None:
            return "there is none"
        if found.version != VERSION:
            return f"it is of version {found.version}, this is {VERSION}"
        if found.topics != topics:
            return "it is of other topics: one was made again, renamed, or has more partitions"
        if found.read_until_ms and self._now_ms() - found.read_until_ms > STALE_S * 1000:
            return "it was not read on for so long that removed orders may have been missed"
        for place, position in self.positions().items():
            if place in ends and position > ends[place][1]:
                return f"partition {place[1]} of {place[0]} ends before what was read of it"
        return None

    def positions(self) -> dict[Place, int]:
        """By topic and partition, the next offset to be read."""
        found = self._db.execute("SELECT topic, partition, next_offset FROM positions")
        return {(_NAMES[topic], partition): offset for topic, partition, offset in found}

    def _read_meta(self) -> _Meta | None:
        try:
            found = self._db.execute("SELECT value FROM meta WHERE name = 'index'").fetchone()
            return None if found is None else msgspec.json.decode(found[0], type=_Meta)
        except (sqlite3.OperationalError, msgspec.MsgspecError):
            return None

    def _write_meta(self, meta: _Meta) -> None:
        self._meta = meta
        text = msgspec.json.encode(meta).decode()
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('index', ?)", (text,))

    def _make(self, topics: Topics) -> None:
        """Everything anew."""
        with self._writing():
            for kind, name in self._db.execute(
                "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'index') AND name NOT LIKE 'sqlite_%'"
            ).fetchall():
                self._db.execute(f'DROP {kind} IF EXISTS "{name}"')
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._write_meta(_Meta(VERSION, topics, read_until_ms=self._now_ms()))
            self._commit()
        self._reasons = {}
        self.is_complete = False
        self.version += 1

    # --- what comes ---

    def apply(self, chunks: Iterable[Chunk], lines: StateLines | None = None, *, more_follows: bool = False) -> int:
        """Takes what was read, and how far that is, in one transaction; how many records these were. `lines`: what a
        single chunk of the state topic comes to, where that is known. `more_follows`: the transaction may go on.
        """
        count = 0
        with self._writing():
            for chunk in chunks:
                count += len(chunk.records)
                if lines is None:
                    self._take[chunk.topic](self, chunk)
                else:
                    self._take_lines(chunk.partition, lines)
                self._db.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                    (chunk.topic, chunk.partition, chunk.next_offset),
                )
            self._uncommitted += count
            if not more_follows or self._uncommitted >= _COMMIT_ROWS:
                self._commit()
        return count

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Within a transaction, of which nothing stays when that fails: what was applied to it before is gone, too, and
        the caller has to `begin` again.
        """
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._roll_back()
            raise

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")
            self.version += bool(self._uncommitted)
            self._uncommitted = 0

    def _roll_back(self) -> None:
        self._uncommitted = 0
        if self._db.in_transaction:  # SQLite itself may have ended it: a disk that is full
            self._db.execute("ROLLBACK")

    def lines_of(self, chunk: Chunk) -> StateLines:
        """What a chunk of the state topic comes to."""
        return rows.state_lines(
            chunk.partition, keyed(chunk), rules=self._rules, now_ms=self._now_ms(), describe=self._describe
        )

    def _take_state(self, chunk: Chunk) -> None:
        self._take_lines(chunk.partition, self.lines_of(chunk))

    def _take_lines(self, partition: int, found: StateLines) -> None:
        self.damaged += found.damaged
        for key, value in found.others:
            self._take_other(partition, key, value)
        changed: list[tuple[object, ...]] = [(*line[:5], self._reason_id(line.kind), *line[6:]) for line in found.lines]
        gone = [(subject, partition) for subject in found.gone]
        if changed:
            try:
                self._db.executemany(_UPSERT, changed)
            except OverflowError:  # rare: to look at every number of every order takes longer than to write some twice
                damaged = [line for line in found.lines if not _fits(line)]
                self.damaged += len(damaged)
                gone += [(line.subject, partition) for line in damaged]
                self._db.executemany(_UPSERT, [line for line in changed if _fits(line)])
        if gone:
            self._db.executemany("DELETE FROM orders WHERE subject = ? AND partition = ?", gone)
            self._db.executemany("DELETE FROM results WHERE subject = ? AND ? >= 0", gone)

    def _reason_id(self, kind: str) -> int:
        if not kind:
            return _NO_REASON
        found = self._reasons.get(kind)
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO reasons (kind, family) VALUES (?, ?)", (kind, reason_family(kind)))
            found = self._reasons[kind] = int(
                self._db.execute("SELECT id FROM reasons WHERE kind = ?", (kind,)).fetchone()[0]
            )
        return found

    def _take_other(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Who has a partition, and how far its input was taken."""
        if key not in (state.NEXT_KEY, state.OWNER_KEY) or value is None:
            return
        self._db.execute("INSERT OR IGNORE INTO partitions (partition) VALUES (?)", (partition,))
        try:
            if key == state.NEXT_KEY:
                read = state.decode_next(value)
                self._db.execute(
                    "UPDATE partitions SET input_next = ?, clean = ? WHERE partition = ?",
                    (read.offset, read.clean, partition),
                )
            else:
                owner = state.decode_owner(value)
                self._db.execute(
                    "UPDATE partitions SET owner = ?, owner_at_ms = ? WHERE partition = ?",
                    (owner.owner, owner.at_ms, partition),
                )
        except msgspec.MsgspecError:
            self.damaged += 1

    def _take_letters(self, chunk: Chunk) -> None:
        lines, handled = [], []
        for record in chunk.records:
            if (marker := read_marker(record.headers)) is not None:
                handled.append((marker.handling, chunk.partition, marker.offset))
                continue
            headers = list(record.headers)
            lines.append(rows.letter_line(chunk.partition, record.offset, record.timestamp_ms, record.value, headers))
        self._db.executemany(
            "INSERT OR REPLACE INTO letters (partition, offset, at_ms, reason, detail, subject, type, event_id, source)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            lines,
        )
        # A letter comes before its marker.
        self._db.executemany("UPDATE letters SET handled = ? WHERE partition = ? AND offset = ?", handled)

    def _take_results(self, chunk: Chunk) -> None:
        lines = [
            line
            for record in chunk.records
            if (line := rows.result_line(record.timestamp_ms, record.value)) is not None
        ]
        self.damaged += len(chunk.records) - len(lines)
        self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", lines)
        since_ms = self._now_ms() - _ACTIVITY_MS
        counts: dict[int, list[int]] = {}
        for line in lines:
            if line.at_ms >= since_ms:
                count = counts.setdefault(line.at_ms // _MINUTE_MS * _MINUTE_MS, [0, 0, 0])
                count[0 if line.status == "settled" else 1 if line.status == "parked" else 2] += 1
        self._db.executemany(
            "INSERT INTO activity VALUES (?, ?, ?, ?) ON CONFLICT (minute_ms) DO UPDATE SET acknowledged = acknowledged"
            " + excluded.acknowledged, parked = parked + excluded.parked, other = other + excluded.other",
            [(minute, *count) for minute, count in counts.items()],
        )

    def _take_history(self, chunk: Chunk) -> None:
        changed: dict[str, array[int]] = {}
        for record in chunk.records:
            place = history.place_of(record.key or b"")
            if place is None:
                self.damaged += 1
                continue
            slot, subject = place
            if (offsets := changed.get(subject)) is None:
                offsets = changed[subject] = offsets_of(self._db, subject, chunk.partition)
            offsets[slot] = NO_OFFSET if record.value is None else record.offset
        for subject, offsets in changed.items():
            if set(offsets) == {NO_OFFSET}:
                self._db.execute(
                    "DELETE FROM histories WHERE subject = ? AND partition = ?", (subject, chunk.partition)
                )
                continue
            while offsets[-1] == NO_OFFSET:
                offsets.pop()
            self._db.execute(
                "INSERT OR REPLACE INTO histories VALUES (?, ?, ?)", (subject, chunk.partition, offsets.tobytes())
            )

    _take: Mapping[TopicName, Callable[["Index", Chunk], None]] = {
        "state": _take_state,
        "dead_letters": _take_letters,
        "results": _take_results,
        "history": _take_history,
    }

    # --- time ---

    def caught_up(self) -> None:
        """All that was there when reading began was read: from now on it is kept as a whole. May take seconds, in which
        another thread may `interrupt` it.
        """
        assert self._meta is not None  # it has begun
        self._commit()
        if not self.is_complete:
            with self._writing():
                for name, columns in _ORDER_INDEXES.items():
                    self._db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON orders {columns}")
                self._db.execute(f"PRAGMA analysis_limit = {_ANALYZED_MAX}")
                self._db.execute("ANALYZE")
                self._commit()
            self._keep_pages(_PAGES_KEPT)
            self.version += 1
        self.is_complete = True
        self.keep_time()

    def _keep_pages(self, count: int) -> None:
        self._db.execute(f"PRAGMA wal_autocheckpoint = {count}")

    def keep_time(self) -> None:
        """Commits, notes that it is being read on, and what time alone changes: contradictions that last too long."""
        assert self._meta is not None  # it has begun
        self._commit()
        now_ms = self._now_ms()
        self._write_meta(msgspec.structs.replace(self._meta, is_complete=self.is_complete, read_until_ms=now_ms))
        overdue = self._db.execute(
            "UPDATE orders SET status = 'parked' WHERE status = 'inconsistent' AND since_ms <= ?",
            (now_ms - round(self._rules.inconsistent_after_s * 1000),),
        )
        self.version += bool(overdue.rowcount)
        self._db.execute("DELETE FROM activity WHERE minute_ms < ?", (now_ms - _ACTIVITY_MS,))

    def forget_before(self, begins: Mapping[Place, int]) -> None:
        """Leaves out dead letters that retention has removed."""
        gone = [(partition, offset) for (topic, partition), offset in begins.items() if topic == "dead_letters"]
        done = self._db.executemany("DELETE FROM letters WHERE partition = ? AND offset < ?", gone)
        self.version += done.rowcount > 0

    @property
    def read_until_ms(self) -> int:
        """When everything was read last; 0: not yet."""
        return 0 if self._meta is None or not self.is_complete else self._meta.read_until_ms

    # --- the file ---

    def _opened(self) -> sqlite3.Connection:
        try:
            return _writable(self.path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "unable to open" in str(error):
                raise ConfigError(f"[console] index: {self.path}: cannot be opened") from None
            log.warning("console_index_unreadable", error=str(error))
            for each in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
                each.unlink(missing_ok=True)
            return _writable(self.path)


def keyed(chunk: Chunk) -> list[rows.Keyed]:
    """Its records, without what rows do not need."""
    return [(record.offset, record.key, record.value) for record in chunk.records]


def _fits(line: tuple[object, ...]) -> bool:
    """Whether SQLite can hold it."""
    return all(not isinstance(each, int) or abs(each) < 2**63 for each in line)


NO_OFFSET = -1


def offsets_of(db: sqlite3.Connection, subject: str, partition: int) -> "array[int]":
    """By slot, the offset of the entry of an order's history in this partition; `NO_OFFSET`: there is none."""
    row = db.execute(
        "SELECT offsets FROM histories WHERE subject = ? AND partition = ?", (subject, partition)
    ).fetchone()
    offsets = array("q", b"" if row is None else row[0])
    offsets.extend([NO_OFFSET] * (history.KEPT - len(offsets)))
    return offsets


def connect(path: Path) -> sqlite3.Connection:
    """A connection that only reads."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
    db.execute("PRAGMA query_only = 1")
    return db


def _writable(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"cache_size = -{_CACHE_KIB}",
            f"journal_size_limit = {_WAL_BYTES_KEPT}",
        ):
            db.execute(f"PRAGMA {pragma}")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _locked(path: Path) -> IO[bytes]:
    """A file beside the index that one process can have. Raises `ConfigError`."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("wb")
    except OSError as error:
        raise ConfigError(f"[console] index: {lock}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(f"[console] index: {path}: another console uses it; give each one its own") from None
    return file


_NAMES: Mapping[str, TopicName] = {name: name for name in get_args(TopicName)}
