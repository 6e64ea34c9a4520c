"""What is asked of the index: filters, sorts, pages that stay stable while things move."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from schemas import state
from schemas.console import OrderRow
from schemas.state import OrderRecord
from tests.shops.events import confirmed, goods, shipped
from tests.unit.web.console.scene import NOW_MS, PROVIDERS, RULES, nothing_known, owed, parked, record, settled
from worker.core.letters import Marker, marker_headers
from worker.errors import UsageError
from worker.ports import Chunk, StoredRecord
from worker.web.console.index import Index, Topics
from worker.web.console.queries import SORTS, Filter, Reader, matches
from worker.web.console.rows import OrderLine, order_line, order_row

HOUR_MS = 3_600_000


class Shelf:
    """An index, and a reader of it."""

    def __init__(self, index: Index, reader: Reader) -> None:
        self.index, self.reader = index, reader
        self._offset = 0
        self._lines: dict[str, OrderLine] = {}

    def put(self, subject: str, value: OrderRecord | None) -> None:
        """A record of the state topic."""
        self._offset += 1
        stored = StoredRecord(self._offset, 0, f"o:{subject}".encode(), None if value is None else state.encode(value))
        self.index.apply([Chunk("state", 0, [stored], self._offset + 1)])
        if stored.value is not None:
            self._lines[subject] = order_line(
                subject, 0, 0, stored.value, rules=RULES, now_ms=NOW_MS, describe=nothing_known
            )

    def found(self, **wanted: object) -> list[str]:
        """The references that match, the oldest first."""
        asked = Filter(**wanted)  # type: ignore[arg-type]
        page = self.reader.orders(asked, "reference", now_ms=NOW_MS, limit=500)
        assert len(page.orders) == page.total
        # Commands have no index: what they find, record by record, has to be the same.
        found = {name: order_row(line) for name, line in self._lines.items() if matches(asked, line, PROVIDERS, NOW_MS)}
        assert page.orders == [found[name] for name in sorted(found)]
        return [row.subject for row in page.orders]


@pytest.fixture(params=["built", "complete"])
def shelf(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shelf]:
    """An index while it is built, without its own indexes, and one that is complete: both answer the same."""
    index = Index(tmp_path / "i.sqlite", RULES, nothing_known, lambda: NOW_MS)
    index.begin(Topics({"state": "s"}, {"state": ""}, {"state": 1}), {("state", 0): (0, 100)})
    if request.param == "complete":
        index.caught_up()
    with closing(Reader(index.connect(), PROVIDERS)) as reader:
        yield Shelf(index, reader)
    index.close()


@pytest.fixture
def shop(shelf: Shelf) -> Shelf:
    """Some orders of each kind."""
    shelf.put("acme/A14", settled())
    shelf.put("acme/A15", owed(NOW_MS - 2 * HOUR_MS, reason="503: later"))
    shelf.put("acme/B1", parked("409: Shipment is unknown", NOW_MS - HOUR_MS))
    shelf.put("hats/A14", owed(NOW_MS - 60_000, may_land_late=True))
    shelf.put("hats/100%", parked("409: Parcel is unknown", NOW_MS - 3 * HOUR_MS))
    shelf.put("ghost/A_4", record(shipped("s", A=1), unconfirmed_since_ms=NOW_MS - 5 * HOUR_MS))
    return shelf


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["acme/A14", "acme/A15", "acme/B1", "ghost/A_4", "hats/100%", "hats/A14"]),
        ({"status": ["owed"]}, ["acme/A15", "hats/A14"]),
        ({"status": ["owed", "parked"], "accounts": ["acme"]}, ["acme/A15", "acme/B1"]),
        ({"providers": ["qliro"]}, ["hats/100%", "hats/A14"]),
        ({"providers": ["none"]}, []),
        ({"words": "unknown 409:"}, ["acme/B1", "hats/100%"]),
        ({"words": "PARCEL"}, ["hats/100%"]),
        ({"words": "parcel shipment"}, []),
        ({"words": "%"}, []),
        ({"words": "'; DROP TABLE orders; --"}, []),
        ({"older_s": 5400}, ["acme/A15", "ghost/A_4", "hats/100%"]),
        ({"older_s": 1}, ["acme/A15", "acme/B1", "ghost/A_4", "hats/100%", "hats/A14"]),
        ({"on_hold": True}, ["hats/A14"]),
        ({"differs": True}, []),
        ({"prefix": "A1"}, ["acme/A14", "acme/A15", "hats/A14"]),
        ({"prefix": "acme/A1"}, ["acme/A14", "acme/A15"]),
        ({"prefix": "A_"}, ["ghost/A_4"]),
        ({"prefix": "100%"}, ["hats/100%"]),
        ({"prefix": "\U0010ffff"}, []),
        ({"prefix": "A1", "status": ["settled"]}, ["acme/A14"]),
    ],
)
def test_filters(shop: Shelf, wanted: dict[str, object], expected: list[str]) -> None:
    """Each filter finds those that match, all of them together, and takes nothing for a pattern or for SQL."""
    assert shop.found(**wanted) == expected


def test_prefix_in_an_empty_index(shelf: Shelf) -> None:
    """Nothing begins so."""
    assert shelf.found(prefix="A") == []


def test_many_kinds_of_reasons(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """More kinds than a query names are found all the same."""
    monkeypatch.setattr("worker.web.console.queries._REASONS_IN", 2)
    for number, what in enumerate("abcdef"):
        shelf.put(f"acme/{number}", parked(f"409: no {what}"))
    assert len(shelf.found(words="409: no")) == 6
    assert shelf.found(words="no e") == ["acme/4"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("age", ["ghost/A_4", "hats/100%", "acme/A15", "acme/B1", "hats/A14", "acme/A14"]),
        ("-age", ["acme/A14", "hats/A14", "acme/B1", "acme/A15", "hats/100%", "ghost/A_4"]),
        ("-reference", ["hats/A14", "hats/100%", "ghost/A_4", "acme/B1", "acme/A15", "acme/A14"]),
    ],
)
def test_sorts(shop: Shelf, sort: str, expected: list[str]) -> None:
    """What waits the longest comes first, what waits for nothing last; a minus turns it around."""
    page = shop.reader.orders(Filter(), sort, now_ms=NOW_MS)  # type: ignore[arg-type]
    assert [row.subject for row in page.orders] == expected


def test_amounts_that_are_not_known(shelf: Shelf) -> None:
    """Come after all others."""
    shelf.put("acme/1", settled())
    shelf.put("acme/2", record(shipped("s", A=1)))
    shelf.put("acme/3", record(confirmed(goods("A", 9, 900)), shipped("s1", A=9), acked=2))
    rows = shelf.reader.orders(Filter(), "shipped", now_ms=NOW_MS).orders
    assert [row.shipped_minor for row in rows] == [900, 100, None]


def walk(shelf: Shelf, sort: str, limit: int) -> Iterator[OrderRow]:
    """All pages, one after the other."""
    cursor: str | None = None
    while True:
        page = shelf.reader.orders(Filter(), sort, cursor=cursor, limit=limit, now_ms=NOW_MS)  # type: ignore[arg-type]
        assert len(page.orders) <= limit
        yield from page.orders
        if (cursor := page.next) is None:
            return


@pytest.mark.parametrize("sort", SORTS)
def test_pages(shelf: Shelf, sort: str) -> None:
    """Each order is on one page, in the order of the list, also where many are equal."""
    chance = random.Random(sort)
    for number in range(23):
        shelf.put(f"acme/{number}", chance.choice([settled(), owed(), parked(), record(shipped("s", A=1))]))
    whole = [row.subject for row in shelf.reader.orders(Filter(), sort, now_ms=NOW_MS).orders]  # type: ignore[arg-type]
    assert [row.subject for row in walk(shelf, sort, 4)] == whole
    assert len(set(whole)) == 23


def test_pages_stay_stable_while_things_move(shelf: Shelf) -> None:
    """Orders that change between two pages move themselves; no other is skipped or shown twice."""
    for number in range(30):
        shelf.put(f"acme/{number:02}", settled(event_ms=NOW_MS - number * 1000))
    seen = []
    for row in walk(shelf, "changed", 5):
        seen.append(row.subject)
        if len(seen) % 5 == 0:
            # One that was seen gets news, one that was not is erased, and a new one comes.
            shelf.put(seen[0], settled(event_ms=NOW_MS + len(seen)))
            shelf.put(f"acme/new{len(seen)}", settled(event_ms=NOW_MS + len(seen)))
    assert seen == [f"acme/{number:02}" for number in range(30)]


@pytest.mark.parametrize("cursor", ["x", "?", "bm8", "W10", "WyJhZ2UiLCB7fSwgMV0"])
def test_cursors_that_are_none(shelf: Shelf, cursor: str) -> None:
    """Are refused with what was expected."""
    with pytest.raises(UsageError, match="cursor: "):
        shelf.reader.orders(Filter(), "age", cursor=cursor, now_ms=NOW_MS)


def test_cursor_of_another_sort(shop: Shelf) -> None:
    """Belongs to another list."""
    following = shop.reader.orders(Filter(), "age", limit=1, now_ms=NOW_MS).next
    with pytest.raises(UsageError, match="sorted otherwise"):
        shop.reader.orders(Filter(), "changed", cursor=following, now_ms=NOW_MS)


def test_count_is_bounded(shop: Shelf) -> None:
    """Nobody waits for a million orders to be counted."""
    assert shop.reader.count(Filter(), now_ms=NOW_MS, count_max=4) == 4


def test_export(shop: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that match, in pages."""
    monkeypatch.setattr("worker.web.console.queries._EXPORT_PAGE", 2)
    pages = list(shop.reader.export(Filter(), "age", now_ms=NOW_MS))
    assert [len(page) for page in pages] == [2, 2, 2]
    assert len({row.subject for page in pages for row in page}) == 6


def test_overview(shop: Shelf) -> None:
    """By account: counts, ages, reasons."""
    reader = shop.reader
    assert reader.accounts() == ["acme", "ghost", "hats"]
    counted = reader.by_account()
    assert counted["acme"]["owed"] == (1, NOW_MS - 2 * HOUR_MS)
    assert {status: count for status, (count, _) in counted["hats"].items()} == {"owed": 1, "parked": 1}
    assert reader.on_hold() == {"hats": 1}
    assert reader.differing() == {}
    assert reader.by_paid()["acme"] == {"unpaid": 3}
    assert [(each.reason, each.count, each.example) for each in reader.parked()["hats"]] == [
        ("409: Parcel is unknown", 1, "hats/100%")
    ]


def test_reasons_are_counted_together(shelf: Shelf) -> None:
    """Orders that are parked for the same, whatever the numbers in it, are one line; the most frequent come first."""
    shelf.put("acme/1", parked("unsupported: 1 of 2 units", NOW_MS - 5))
    shelf.put("acme/2", parked("unsupported: 3 of 9 units", NOW_MS - 9))
    shelf.put("acme/3", parked("422: no"))
    found = shelf.reader.parked()["acme"]
    assert [(each.reason, each.count, each.example) for each in found] == [
        ("unsupported: … of … units", 2, "acme/2"),
        ("422: no", 1, "acme/3"),
    ]


def test_named(shop: Shelf) -> None:
    """The orders that a reference alone may mean."""
    assert sorted(shop.reader.named("A14", ["acme", "hats"])) == ["acme/A14", "hats/A14"]
    assert shop.reader.named("A14", []) == []


def test_row(shop: Shelf) -> None:
    """One order; none when there is none."""
    found = shop.reader.row("acme/B1")
    assert found is not None
    assert (found.status, found.reason, found.waiting_since_ms) == (
        "parked",
        "409: Shipment is unknown",
        NOW_MS - HOUR_MS,
    )
    assert shop.reader.row("acme/none") is None


def test_letters(shelf: Shelf) -> None:
    """The newest first, by pages, by reason, by order."""
    said = [[("x-dlq-reason", b"not_json")], [("x-dlq-reason", b"invalid_data")]]
    records = [
        StoredRecord(number, NOW_MS - number, b"k", b'{"subject":"acme/%d"}' % (number % 2), said[number % 2])
        for number in range(6)
    ]
    shelf.index.apply([Chunk("dead_letters", 0, records, 6)])
    page = shelf.reader.letters(limit=4)
    assert [letter.offset for letter in page.letters] == [0, 1, 2, 3]
    assert page.by_reason == {"invalid_data": 3, "not_json": 3}
    rest = shelf.reader.letters(limit=4, cursor=page.next)
    assert ([letter.offset for letter in rest.letters], rest.next) == ([4, 5], None)
    assert [letter.offset for letter in shelf.reader.letters(reason="not_json").letters] == [0, 2, 4]
    assert [letter.offset for letter in shelf.reader.letters(subject="acme/1").letters] == [1, 3, 5]
    found = shelf.reader.letter(0, 5)
    assert found is not None
    assert found.reason == "invalid_data"
    assert shelf.reader.letter(1, 5) is None
    assert shelf.reader.letters_since(NOW_MS - 2) == 3
    marker = StoredRecord(6, NOW_MS, b"k", b"", marker_headers(Marker(1, "replayed", "ana", "orders.events/0/9")))
    shelf.index.apply([Chunk("dead_letters", 0, [marker], 7)])
    page = shelf.reader.letters()
    assert [(letter.offset, letter.handled) for letter in page.letters[:2]] == [(0, ""), (1, "replayed")]
    assert len(page.letters) == 6
    assert page.by_reason == {"invalid_data": 2, "not_json": 3}
    assert shelf.reader.letters_since(NOW_MS - 2) == 2


def test_thousands_of_accounts(shelf: Shelf) -> None:
    """Filters hold, however many accounts there are."""
    names = [f"shop{number}" for number in range(1_200)]
    subjects = [f"{name}/A{number}" for number, name in enumerate(names)]
    for each in subjects:
        shelf.put(each, settled())
    assert shelf.found(prefix="A119") == sorted([subjects[119], *subjects[1_190:]])
    many = [f"other{number}" for number in range(40_000)]
    assert shelf.found(accounts=[*many, "shop7"]) == ["shop7/A7"]
    assert shelf.reader.named("A7", [*many, "shop7"]) == ["shop7/A7"]
