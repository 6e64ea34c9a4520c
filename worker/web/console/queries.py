"""What is asked of the index. Lists are paged by the values of the last row that was seen, not by numbers of rows: an
order that changes meanwhile moves itself, and no other is skipped or shown twice.
"""

import base64
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import msgspec
from msgspec import Struct

from schemas.console import (
    Activity,
    HistoryLine,
    LetterRow,
    LettersPage,
    OrderRow,
    OrdersPage,
    ParkedReason,
    Sort,
)
from schemas.views import Status
from worker.errors import UsageError
from worker.web.console.index import NO_OFFSET, offsets_of
from worker.web.console.rows import NEVER_MS, NO_AMOUNT, Int64, OrderLine, order_row

PAGE_MAX = 500
TOTAL_MAX = 10_000
"""Up to here it is counted how many orders match."""
REASONS_MAX = 5
"""Of an account, in the overview."""
_EXPORT_PAGE = 1_000
_REASONS_IN = 500
"""Kinds of reasons that are named in a query."""
_OPTIONS_IN = 500
"""Accounts and beginnings of references that are named in a query; SQLite's statements have bounds."""
_LAST = "\U0010ffff"

_COLUMNS: Mapping[str, tuple[str, bool]] = {
    "changed": ("changed_ms", True),
    "age": ("since_ms", False),
    "reference": ("subject", False),
    "shipped": (f"ifnull(shipped_minor, {NO_AMOUNT})", True),
    "unshipped": (f"ifnull(unshipped_minor, {NO_AMOUNT})", True),
}
"""By sort: the column, and whether it goes down."""
_MEMBERS = (
    "orders.id, subject, partition, offset, account, status, ifnull(kind, ''), currency, shipped_minor,"
    " unshipped_minor, paid_minor, paid, differs, on_hold, revision, acked, changed_ms, since_ms"
)
_FROM = "FROM orders LEFT JOIN reasons ON reasons.id = orders.reason"


class Filter(Struct, frozen=True, omit_defaults=True):
    """Which orders. Empty members: all."""

    status: Sequence[Status] = ()
    accounts: Sequence[str] = ()
    providers: Sequence[str] = ()
    words: str = ""
    """Each of them stands in the reason, in any case of letters."""
    older_s: float = 0.0
    """It waits for so long at least."""
    differs: bool = False
    on_hold: bool = False
    prefix: str = ""
    """Of the reference, or of `account/reference`."""

    @property
    def is_empty(self) -> bool:
        """Whether it leaves nothing out."""
        return self == Filter()


def matches(wanted: Filter, line: OrderLine, providers: Mapping[str, str], now_ms: int) -> bool:
    """What `Reader` asks the index for, of one row: for those who have none."""
    return (
        may_match(wanted, line.subject, providers)
        and (not wanted.status or line.status in wanted.status)
        and all(_folded(word) in _folded(line.kind) for word in wanted.words.split())
        and (not wanted.older_s or line.since_ms <= min(now_ms - round(wanted.older_s * 1000), NEVER_MS - 1))
        and (line.differs or not wanted.differs)
        and (line.on_hold or not wanted.on_hold)
    )


def may_match(wanted: Filter, subject: str, providers: Mapping[str, str]) -> bool:
    """Whether an order of this name may match, whatever its record says."""
    account, _, reference = subject.partition("/")
    prefix = wanted.prefix
    return (
        (not wanted.accounts or account in wanted.accounts)
        and (not wanted.providers or providers.get(account) in wanted.providers)
        and (not prefix or reference.startswith(prefix) or ("/" in prefix and subject.startswith(prefix)))
    )


def _folded(text: str) -> str:
    """As SQLite compares with LIKE: ASCII letters in any case."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


class Reader:
    """Asks the index over a connection of its own."""

    def __init__(self, db: sqlite3.Connection, providers: Mapping[str, str]) -> None:
        """`providers`: by account, of those that are configured."""
        self._db = db
        self._providers = providers

    def close(self) -> None:
        """Ends the connection."""
        self._db.close()

    # --- orders ---

    def orders(
        self, wanted: Filter, sort: Sort, *, cursor: str | None = None, limit: int = 50, now_ms: int
    ) -> OrdersPage:
        """A page of those that match. Raises `UsageError` for a cursor that is none."""
        limit = max(1, min(limit, PAGE_MAX))
        found, following = self._page(wanted, sort, _decoded(cursor, sort), limit, now_ms)
        return OrdersPage(found, following, self.count(wanted, now_ms=now_ms), TOTAL_MAX)

    def export(self, wanted: Filter, sort: Sort, *, now_ms: int) -> Iterator[list[OrderRow]]:
        """All that match, some at a time."""
        cursor: str | None = None
        while True:
            found, cursor = self._page(wanted, sort, _decoded(cursor, sort), _EXPORT_PAGE, now_ms)
            yield found
            if cursor is None:
                return

    def count(self, wanted: Filter, *, now_ms: int, count_max: int = TOTAL_MAX) -> int:
        """How many match, up to a bound."""
        where, values = self._where(wanted, now_ms)
        statement = f"SELECT count(*) FROM (SELECT 1 FROM orders WHERE {where} LIMIT ?)"  # noqa: S608 - our own words
        return int(self._db.execute(statement, (*values, count_max)).fetchone()[0])

    def subjects(self, wanted: Filter, *, now_ms: int, count_max: int) -> list[str]:
        """Those that match, those first that wait the longest."""
        where, values = self._where(wanted, now_ms)
        statement = f"SELECT subject FROM orders WHERE {where} ORDER BY since_ms, id LIMIT ?"  # noqa: S608
        return [subject for (subject,) in self._db.execute(statement, (*values, count_max))]

    def places(self, subject: str) -> list[tuple[int, int]]:
        """Where an order lies: partition and offset; more than one when producers differ."""
        statement = "SELECT partition, offset FROM orders WHERE subject = ? ORDER BY partition"
        return [(partition, offset) for partition, offset in self._db.execute(statement, (subject,))]

    def row(self, subject: str) -> OrderRow | None:
        """One order; `None`: there is none."""
        statement = f"SELECT {_MEMBERS} {_FROM} WHERE subject = ? ORDER BY revision DESC LIMIT 1"
        found = self._db.execute(statement, (subject,)).fetchone()
        return None if found is None else _row(found)

    def named(self, reference: str, accounts: Sequence[str]) -> list[str]:
        """The orders of this reference, whichever account has them."""
        wanted = [f"{account}/{reference}" for account in accounts]
        statement = "SELECT DISTINCT subject FROM orders WHERE subject IN (SELECT value FROM json_each(?))"
        return [subject for (subject,) in self._db.execute(statement, (_as_json(wanted),))]

    def accounts(self) -> list[str]:
        """All that have orders, and those that are configured."""
        # One look at the index for each account, instead of one at each order.
        statement = """
            WITH RECURSIVE found(name) AS (
                SELECT min(account) FROM orders
                UNION ALL SELECT (SELECT min(account) FROM orders WHERE account > name) FROM found WHERE name NOT NULL
            ) SELECT name FROM found WHERE name NOT NULL
        """
        return sorted({name for (name,) in self._db.execute(statement)} | set(self._providers))

    def _page(
        self, wanted: Filter, sort: Sort, after: tuple[Any, int] | None, limit: int, now_ms: int
    ) -> tuple[list[OrderRow], str | None]:
        where, values = self._where(wanted, now_ms)
        column, goes_down = _COLUMNS[sort.removeprefix("-")]
        goes_down ^= sort.startswith("-")
        way, sign = ("DESC", "<") if goes_down else ("ASC", ">")
        if after is not None:
            where += f" AND ({column}, orders.id) {sign} (?, ?)"
            values = [*values, *after]
        statement = (
            f"SELECT {_MEMBERS}, {column} {_FROM} WHERE {where} ORDER BY {column} {way}, orders.id {way} LIMIT ?"
        )
        found = self._db.execute(statement, (*values, limit + 1)).fetchall()
        is_last = len(found) <= limit
        found = found[:limit]
        following = None if is_last else _encoded(sort, found[-1][-1], found[-1][0])
        return [_row(each) for each in found], following

    def _where(self, wanted: Filter, now_ms: int) -> tuple[str, list[Any]]:
        terms, values = ["1"], list[Any]()

        def is_one_of(column: str, options: Sequence[str]) -> None:
            term, more = _is_one_of(column, options)
            terms.append(term)
            values.extend(more)

        if wanted.status:
            is_one_of("status", wanted.status)
        if wanted.accounts:
            is_one_of("account", wanted.accounts)
        if wanted.providers:
            is_one_of("account", [name for name, provider in self._providers.items() if provider in wanted.providers])
        if words := wanted.words.split():
            each = " AND ".join("kind LIKE ? ESCAPE '\\'" for _ in words)
            patterns = [f"%{_as_pattern(word)}%" for word in words]
            kinds = f"SELECT id FROM reasons WHERE {each}"  # noqa: S608 - our own words
            found = self._db.execute(f"{kinds} LIMIT {_REASONS_IN + 1}", patterns).fetchall()
            if len(found) <= _REASONS_IN:
                terms.append(f"reason != 0 AND reason IN ({', '.join(str(each) for (each,) in found) or 'NULL'})")
            else:
                terms.append(f"reason != 0 AND reason IN ({kinds})")
                values += patterns
        if wanted.older_s:
            terms.append(f"since_ms <= ? AND since_ms < {NEVER_MS}")
            values.append(now_ms - round(wanted.older_s * 1000))
        if wanted.differs:
            terms.append("differs")
        if wanted.on_hold:
            terms.append("on_hold")
        if wanted.prefix:
            starts = [f"{name}/{wanted.prefix}" for name in self.accounts()]
            if "/" in wanted.prefix:
                starts.append(wanted.prefix)
            term, more = _begins(starts)
            terms.append(term)
            values += more
        return " AND ".join(terms), values

    # --- the overview ---

    def by_account(self) -> dict[str, dict[str, tuple[int, int]]]:
        """By account and status, how many orders, and since when the oldest of them waits."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        statement = "SELECT account, status, count(*), min(since_ms) FROM orders GROUP BY account, status"
        for account, status, count, since_ms in self._db.execute(statement):
            found.setdefault(account, {})[status] = (count, since_ms)
        return found

    def on_hold(self) -> dict[str, int]:
        """By account, orders that are held."""
        return dict(self._db.execute("SELECT account, count(*) FROM orders WHERE on_hold GROUP BY account"))

    def differing(self) -> dict[str, int]:
        """By account, orders whose amounts differ."""
        return dict(self._db.execute("SELECT account, count(*) FROM orders WHERE differs GROUP BY account"))

    def by_paid(self) -> dict[str, dict[str, int]]:
        """By account and paid state, orders that have one."""
        found: dict[str, dict[str, int]] = {}
        statement = "SELECT account, paid, count(*) FROM orders WHERE paid IS NOT NULL GROUP BY account, paid"
        for account, paid, count in self._db.execute(statement):
            found.setdefault(account, {})[paid] = count
        return found

    def parked(self) -> dict[str, list[ParkedReason]]:
        """By account, the most frequent reasons of parked orders."""
        statement = """
            SELECT account, ifnull(family, ''), count(*), subject, min(since_ms)
            FROM orders LEFT JOIN reasons ON reasons.id = orders.reason
            WHERE status = 'parked' AND account IN (SELECT value FROM json_each(?)) GROUP BY account, family
            ORDER BY account, count(*) DESC
        """
        found: dict[str, list[ParkedReason]] = {}
        for account, kind, count, subject, _ in self._db.execute(statement, (_as_json(self.accounts()),)):
            reasons = found.setdefault(account, [])
            if len(reasons) < REASONS_MAX:
                reasons.append(ParkedReason(kind, count, subject))
        return found

    def partitions(self) -> list[tuple[int, int | None, bool, str, int | None]]:
        """Partition, next offset of its input, whether its owner left in order, the owner, and since when."""
        statement = "SELECT partition, input_next, clean, owner, owner_at_ms FROM partitions ORDER BY partition"
        return [(p, at, bool(clean), owner, since) for p, at, clean, owner, since in self._db.execute(statement)]

    def activity(self, since_ms: int) -> list[Activity]:
        """Minute by minute, what the results topic was told."""
        statement = "SELECT * FROM activity WHERE minute_ms >= ? ORDER BY minute_ms"
        return [Activity(*each) for each in self._db.execute(statement, (since_ms,))]

    def order_count(self) -> int:
        """About how many orders there are."""
        return int(self._db.execute("SELECT ifnull(max(id), 0) FROM orders").fetchone()[0])

    # --- dead letters and results ---

    def letters(
        self, *, reason: str = "", subject: str = "", cursor: str | None = None, limit: int = 50
    ) -> LettersPage:
        """A page, the newest first. Raises `UsageError` for a cursor that is none."""
        terms, values = ["1"], list[Any]()
        if reason:
            terms.append("reason = ?")
            values.append(reason)
        if subject:
            terms.append("subject = ?")
            values.append(subject)
        if (after := _decoded(cursor, "letters")) is not None:
            terms.append("(at_ms, id) < (?, ?)")
            values += after
        limit = max(1, min(limit, PAGE_MAX))
        statement = (
            "SELECT id, partition, offset, at_ms, reason, detail, subject, type, event_id, source, handled FROM letters"  # noqa: S608
            f" WHERE {' AND '.join(terms)} ORDER BY at_ms DESC, id DESC LIMIT ?"
        )
        found = self._db.execute(statement, (*values, limit + 1)).fetchall()
        following = _encoded("letters", found[limit - 1][3], found[limit - 1][0]) if len(found) > limit else None
        by_reason = self._db.execute(
            "SELECT reason, count(*) FROM letters WHERE handled = '' GROUP BY reason ORDER BY count(*) DESC"
        )
        return LettersPage([LetterRow(*each[1:]) for each in found[:limit]], following, dict(by_reason.fetchall()))

    def letters_left(self, *, reason: str, subject: str, count_max: int) -> tuple[int, list[tuple[int, int]]]:
        """How many letters match that nobody has dealt with; and where they are, of some the oldest ones."""
        where = "handled = '' AND (? IN ('', reason)) AND (? IN ('', subject))"
        values = (reason, subject)
        count = self._db.execute(f"SELECT count(*) FROM letters WHERE {where}", values).fetchone()[0]  # noqa: S608
        statement = f"SELECT partition, offset FROM letters WHERE {where} ORDER BY at_ms, id LIMIT ?"  # noqa: S608
        return int(count), self._db.execute(statement, (*values, count_max)).fetchall()

    def letter(self, partition: int, offset: int) -> LetterRow | None:
        """One; `None`: there is none."""
        statement = (
            "SELECT partition, offset, at_ms, reason, detail, subject, type, event_id, source, handled FROM letters"
            " WHERE partition = ? AND offset = ?"
        )
        found = self._db.execute(statement, (partition, offset)).fetchone()
        return None if found is None else LetterRow(*found)

    def letters_since(self, since_ms: int) -> int:
        """How many there are since then that nobody has dealt with."""
        statement = "SELECT count(*) FROM letters WHERE at_ms >= ? AND handled = ''"
        return int(self._db.execute(statement, (since_ms,)).fetchone()[0])

    def history(self, subject: str) -> list[HistoryLine]:
        """Results of an order, the newest first."""
        statement = (
            "SELECT at_ms, type, status, revision, acked, currency, shipped_minor, unshipped_minor FROM results"
            " WHERE subject = ? ORDER BY at_ms DESC, revision DESC, acked DESC"
        )
        return [HistoryLine(*each) for each in self._db.execute(statement, (subject,))]

    def entries(self, subject: str, partition: int) -> list[int]:
        """The offsets of the entries of an order's history, the oldest first."""
        return sorted(offset for offset in offsets_of(self._db, subject, partition) if offset != NO_OFFSET)


def _row(found: Sequence[Any]) -> OrderRow:
    """`found`: the row's id, the members of an `OrderLine`, and perhaps more."""
    return order_row(OrderLine(*found[1 : 1 + len(OrderLine._fields)]))


def _is_one_of(column: str, options: Sequence[str]) -> tuple[str, list[str]]:
    if len(options) > _OPTIONS_IN:
        return f"{column} IN (SELECT value FROM json_each(?))", [_as_json(options)]  # noqa: S608 - our own words
    return f"{column} IN ({', '.join('?' * len(options))})", list(options)


def _begins(starts: Sequence[str]) -> tuple[str, list[str]]:
    """Whether a subject begins with one of these."""
    if len(starts) > _OPTIONS_IN:
        term = (
            "orders.id IN (SELECT found.id FROM json_each(?) AS start CROSS JOIN orders AS found"  # noqa: S608 - as above
            f" ON found.subject >= start.value AND found.subject < start.value || '{_LAST}')"
        )
        return term, [_as_json(starts)]
    term = f"({' OR '.join('subject >= ? AND subject < ?' for _ in starts) or '0'})"
    return term, [end for start in starts for end in (start, start + _LAST)]


def _as_json(texts: Sequence[str]) -> str:
    return msgspec.json.encode(texts).decode()


def _as_pattern(text: str) -> str:
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def _encoded(sort: str, value: Any, row_id: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([sort, value, row_id])).decode().rstrip("=")


def _decoded(cursor: str | None, sort: str) -> tuple[Any, int] | None:
    """Raises `UsageError`."""
    if not cursor:
        return None
    try:
        made_for, value, row_id = msgspec.json.decode(
            base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=tuple[str, Int64 | str, Int64]
        )
    except (ValueError, msgspec.MsgspecError):
        raise UsageError("cursor: expected what an earlier page gave as `next`") from None
    if made_for != sort:
        raise UsageError("cursor: it belongs to a list that is sorted otherwise; begin with its first page")
    return value, row_id


SORTS: tuple[Sort, ...] = get_args(Sort)
STATUSES: tuple[Status, ...] = get_args(Status)
