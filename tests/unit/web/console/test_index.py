"""The index: what it takes, that it goes on where it was left, and when it is thrown away."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from schemas import history, state
from schemas.state import NextRecord, OrderRecord, OwnerRecord
from tests.shops.events import confirmed, goods, shipped
from tests.unit.web.console.scene import NOW_MS, PROVIDERS, RULES, nothing_known, owed, parked, record, settled
from worker.errors import ConfigError
from worker.ports import Chunk, Place, StoredRecord
from worker.web.console import index as index_module
from worker.web.console.index import STALE_S, Index, Topics
from worker.web.console.queries import Filter, Reader

TOPICS = Topics(
    {"state": "s", "dead_letters": "d"}, {"state": "id1", "dead_letters": "id2"}, {"state": 2, "dead_letters": 1}
)
ENDS: dict[Place, tuple[int, int]] = {("state", 0): (0, 100), ("state", 1): (0, 100), ("dead_letters", 0): (0, 100)}


class Clock:
    """The wall."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    """A wall clock that stands."""
    return Clock()


@pytest.fixture
def index(tmp_path: Path, clock: Clock) -> Iterator[Index]:
    """An index that has begun."""
    found = Index(tmp_path / "i.sqlite", RULES, nothing_known, clock)
    found.begin(TOPICS, ENDS)
    yield found
    found.close()


def put(offset: int, subject: str, value: OrderRecord | None, partition: int = 0) -> Chunk:
    """The record of an order in the state topic."""
    stored = StoredRecord(offset, 0, f"o:{subject}".encode(), None if value is None else state.encode(value))
    return Chunk("state", partition, [stored], offset + 1)


def subjects(index: Index, wanted: Filter | None = None) -> list[str]:
    """The orders that match."""
    with closing(index.connect()) as db:
        return sorted(Reader(db, PROVIDERS).subjects(wanted or Filter(), now_ms=NOW_MS, count_max=100))


def again(index: Index, clock: Clock, path: Path | None = None) -> Index:
    """The same file, opened by the next process."""
    index.close()
    return Index(path or index.path, RULES, nothing_known, clock)


def test_newest_record_counts(index: Index) -> None:
    """Of several records of an order the newest is kept, also within one read."""
    two = [*put(1, "acme/A", owed()).records, *put(2, "acme/A", settled()).records]
    index.apply([Chunk("state", 0, two, 3)])
    index.apply([put(3, "acme/B", settled()), put(4, "acme/B", parked())])
    assert subjects(index, Filter(status=["settled"])) == ["acme/A"]
    assert subjects(index, Filter(status=["parked"])) == ["acme/B"]


def test_tombstones_remove(index: Index) -> None:
    """An order that was erased is gone, and its results with it."""
    index.apply([put(1, "acme/A", settled()), put(2, "acme/B", settled())])
    index.apply([Chunk("results", 0, [result("acme/A"), result("acme/B")], 2)])
    index.apply([put(3, "acme/A", None)])
    assert subjects(index) == ["acme/B"]
    with closing(index.connect()) as db:
        reader = Reader(db, PROVIDERS)
        assert reader.history("acme/A") == []
        assert len(reader.history("acme/B")) == 1


def result(subject: str) -> StoredRecord:
    """A result of an order."""
    body = {"type": "cartsync.order_changed", "subject": subject, "sequence": "1", "data": {"status": "settled"}}
    return StoredRecord(0, NOW_MS, subject.encode(), msgspec.json.encode(body))


def entries(index: Index, subject: str, partition: int = 0) -> list[int]:
    """Where the entries of a history are."""
    with closing(index.connect()) as db:
        return Reader(db, PROVIDERS).entries(subject, partition)


def test_where_histories_are(index: Index, clock: Clock) -> None:
    """The newest of each slot, by partition; what was removed is gone; and all of it is there after a restart."""

    def put_entries(first: int, *numbers: int, value: bytes | None = b"e", partition: int = 0) -> Chunk:
        records = [StoredRecord(first + n, 1, history.key_of("acme/A", at), value) for n, at in enumerate(numbers)]
        return Chunk("history", partition, records, first + len(records))

    index.apply([put_entries(10, 1, 2, 49), put_entries(3, 1, partition=1)])
    assert entries(index, "acme/A") == [10, 11, 12]
    index.apply([put_entries(20, 51, 50)])
    assert entries(index, "acme/A") == [11, 12, 20, 21]
    assert (entries(index, "acme/A", 1), entries(index, "acme/B")) == ([3], [])
    index.apply([put_entries(30, 49, value=None)])
    following = again(index, clock)
    assert entries(following, "acme/A") == [11, 20, 21]
    following.close()


def test_histories_that_are_removed(index: Index) -> None:
    """Nothing of them is left in the file."""
    records = [StoredRecord(n, 1, history.key_of("acme/A", n % 3), b"e" if n < 3 else None) for n in range(6)]
    index.apply([Chunk("history", 0, [*records, StoredRecord(9, 1, b"x", b"")], 10)])
    with closing(index.connect()) as db:
        assert db.execute("SELECT count(*) FROM histories").fetchone() == (0,)
    assert index.damaged == 1


def test_same_order_in_two_partitions(index: Index) -> None:
    """Both are kept: it is a fault that a person has to see."""
    index.apply([put(1, "acme/A", settled(), 0), put(1, "acme/A", owed(), 1)])
    with closing(index.connect()) as db:
        assert Reader(db, PROVIDERS).places("acme/A") == [(0, 1), (1, 1)]


def test_damaged_records(index: Index) -> None:
    """What is no record of ours stops nothing, and is counted."""
    index.apply([put(1, "acme/A", settled())])
    damaged = [StoredRecord(2, 0, b"o:acme/A", b"\x01"), StoredRecord(3, 0, b"m:next", b"\x01")]
    index.apply([Chunk("state", 0, damaged, 4)])
    assert subjects(index) == []
    assert index.damaged == 2


def test_owners_and_positions(index: Index) -> None:
    """Who has taken a partition, and how far its input was read."""
    owner = state.encode(OwnerRecord(state.SCHEMA, "w1", 5, "1"))
    left = state.encode(NextRecord(state.SCHEMA, 42, 0, True, "1"))
    others = [
        StoredRecord(1, 0, b"m:owner", owner),
        StoredRecord(2, 0, b"m:next", left),
        StoredRecord(3, 0, b"j:a:b", b""),
    ]
    index.apply([Chunk("state", 1, others, 4)])
    with closing(index.connect()) as db:
        assert Reader(db, PROVIDERS).partitions() == [(1, 42, True, "w1", 5)]


def test_goes_on_where_it_was_left(index: Index, clock: Clock) -> None:
    """Rows and positions are those of before, also of a build that was not complete."""
    index.apply([put(6, "acme/A", settled())])
    following = again(index, clock)
    assert following.begin(TOPICS, ENDS) == {("state", 0): 7, ("state", 1): 0, ("dead_letters", 0): 0}
    assert subjects(following) == ["acme/A"]
    assert not following.is_complete
    following.caught_up()
    last = again(following, clock)
    last.begin(TOPICS, ENDS)
    assert last.is_complete
    last.close()


def test_records_and_position_are_one_transaction(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a read cannot be taken as a whole, nothing of it was."""
    index.apply([put(1, "acme/A", settled())])

    def fail(_chunk: Chunk) -> None:
        raise RuntimeError

    monkeypatch.setitem(index._take, "dead_letters", lambda _self, chunk: fail(chunk))
    with pytest.raises(RuntimeError):
        index.apply([put(2, "acme/B", settled()), Chunk("dead_letters", 0, [], 9)])
    assert subjects(index) == ["acme/A"]
    assert index.positions() == {("state", 0): 2}


def test_more_follows(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What more is to follow is committed with it, with the tick, or when it is much; after a failure none of it is there."""
    monkeypatch.setattr(index_module, "_COMMIT_ROWS", 3)
    index.apply([put(1, "acme/A", settled())], more_follows=True)
    assert (subjects(index), index.version) == ([], 1)
    index.keep_time()
    assert (subjects(index), index.version) == (["acme/A"], 2)
    for number in range(2, 5):
        index.apply([put(number, f"acme/{number}", settled())], more_follows=True)
    assert subjects(index) == ["acme/2", "acme/3", "acme/4", "acme/A"]
    index.apply([put(5, "acme/B", settled())], more_follows=True)
    index.apply([put(6, "acme/C", settled())])
    assert len(subjects(index)) == 6
    index.apply([put(7, "acme/D", settled())], more_follows=True)
    assert index.begin(TOPICS, ENDS)["state", 0] == 7
    index.apply([put(7, "acme/E", settled())], more_follows=True)
    monkeypatch.setattr(index_module, "_UPSERT", "INSERT INTO nothing VALUES (?)")
    with pytest.raises(sqlite3.OperationalError):
        index.apply([put(8, "acme/F", settled())], more_follows=True)
    index.keep_time()
    assert len(subjects(index)) == 6
    assert index.positions()["state", 0] == 7


@pytest.mark.parametrize(
    ("topics", "ends"),
    [
        (Topics(TOPICS.names, {"state": "other", "dead_letters": "id2"}, TOPICS.partitions), ENDS),
        (Topics({"state": "renamed", "dead_letters": "d"}, TOPICS.ids, TOPICS.partitions), ENDS),
        (Topics(TOPICS.names, TOPICS.ids, {"state": 3, "dead_letters": 1}), ENDS),
        (TOPICS, {**ENDS, ("state", 0): (0, 6)}),
    ],
)
def test_thrown_away(index: Index, clock: Clock, topics: Topics, ends: dict[Place, tuple[int, int]]) -> None:
    """Of topics that are other ones, or end before what was read, nothing is believed: it begins again."""
    index.apply([put(6, "acme/A", settled())])
    index.caught_up()
    other = again(index, clock)
    assert set(other.begin(topics, ends).values()) == {0}
    assert subjects(other) == []
    assert not other.is_complete
    other.close()


def test_thrown_away_when_stale(index: Index, clock: Clock) -> None:
    """After a day without reading on, tombstones may have been compacted away."""
    index.apply([put(6, "acme/A", settled())])
    index.caught_up()
    clock.ms += round(STALE_S * 1000)
    following = again(index, clock)
    assert following.begin(TOPICS, ENDS)["state", 0] == 7
    clock.ms += round(STALE_S * 1000) + 1
    stale = again(following, clock)
    assert stale.begin(TOPICS, ENDS)["state", 0] == 0
    stale.close()


def test_thrown_away_of_another_version(index: Index, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of another version are not read."""
    index.apply([put(6, "acme/A", settled())])
    monkeypatch.setattr(index_module, "VERSION", index_module.VERSION + 1)
    other = again(index, clock)
    assert other.begin(TOPICS, ENDS)["state", 0] == 0
    other.close()


def test_no_database(tmp_path: Path, clock: Clock) -> None:
    """A file that is none is replaced; nothing in it can be lost."""
    path = tmp_path / "i.sqlite"
    path.write_bytes(b"no database at all, but long enough to look like one" * 50)
    index = Index(path, RULES, nothing_known, clock)
    index.begin(TOPICS, ENDS)
    assert subjects(index) == []
    index.close()


def test_one_console_for_a_file(index: Index, clock: Clock) -> None:
    """A second console is told to take another file."""
    with pytest.raises(ConfigError, match="another console uses it; give each one its own"):
        Index(index.path, RULES, nothing_known, clock)


def test_unwritable(tmp_path: Path, clock: Clock) -> None:
    """A place that cannot be written is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"\[console\] index: .*cannot be written"):
        Index(tmp_path / "file" / "i.sqlite", RULES, nothing_known, clock)


def test_private(index: Index) -> None:
    """Nobody else on the machine reads it, and readers cannot write."""
    assert index.path.stat().st_mode & 0o077 == 0
    with closing(index.connect()) as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM orders")


def test_time_parks_contradictions(index: Index, clock: Clock) -> None:
    """An order that contradicts itself for too long is parked, though no record says so."""
    broken = record(confirmed(goods("A", 1, 100)), shipped("s", A=2), inconsistent_since_ms=NOW_MS)
    index.apply([put(1, "acme/A", broken)])
    index.caught_up()
    assert subjects(index, Filter(status=["inconsistent"])) == ["acme/A"]
    version = index.version
    clock.ms += round(RULES.inconsistent_after_s * 1000)
    index.keep_time()
    assert subjects(index, Filter(status=["parked"])) == ["acme/A"]
    assert index.version > version


def test_retention_takes_letters(index: Index) -> None:
    """Dead letters that the topic has no more are left out."""
    letters = [StoredRecord(offset, NOW_MS, b"k", b"{}") for offset in (3, 4)]
    index.apply([Chunk("dead_letters", 0, letters, 5)])
    index.forget_before({("dead_letters", 0): 4})
    with closing(index.connect()) as db:
        assert [letter.offset for letter in Reader(db, PROVIDERS).letters().letters] == [4]


def test_activity(index: Index, clock: Clock) -> None:
    """Results of the last hours are counted by minute, others are not, and old minutes go."""
    old = StoredRecord(0, NOW_MS - 9 * 3_600_000, b"k", result("acme/A").value)
    index.apply([Chunk("results", 0, [result("acme/A"), result("acme/B"), old], 3)])
    with closing(index.connect()) as db:
        reader = Reader(db, PROVIDERS)
        assert [each.acknowledged for each in reader.activity(0)] == [2]
        clock.ms += 9 * 3_600_000
        index.keep_time()
        assert reader.activity(0) == []
