"""What an address asks for, and addresses that ask for it: filters, sorts, pages. Pure."""

import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qs, urlencode

from aiohttp import web

from schemas.console import Sort
from schemas.views import Status
from worker.core.letters import DOINGS, Doing
from worker.errors import UsageError
from worker.web.console.queries import PAGE_MAX, SORTS, STATUSES, Filter

PAGE = 50
_AGE = re.compile(r"(\d{1,6})\s?(s|m|min|h|d)")
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_TEXT_MAX = 300
_FIELDS_MAX = 100
_WHY_MAX = 500


class Query:
    """The parameters of an address, each perhaps several times."""

    def __init__(self, text: str) -> None:
        """`text`: what follows the question mark, as it was sent. Raises `UsageError` when these are too many."""
        try:
            self._values = parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
        except ValueError:
            raise UsageError(f"expected at most {_FIELDS_MAX} parameters") from None

    def get(self, name: str, default: str = "") -> str:
        """The last of this name."""
        return self._values.get(name, [default])[-1]

    def getall(self, name: str) -> list[str]:
        """All of this name."""
        return self._values.get(name, [])

    def __contains__(self, name: object) -> bool:
        return name in self._values


def query_in(request: web.Request) -> Query:
    """The parameters of a request's address. Raises `UsageError`."""
    return Query(request.rel_url.raw_query_string)


def filter_of(query: Query) -> Filter:
    """Which orders. Raises `UsageError` that says what was expected where."""
    status = _all(query, "status")
    for each in status:
        if each not in STATUSES:
            raise UsageError(f"status: there is no {each!r}; expected one of {', '.join(STATUSES)}")
    return Filter(
        status=cast(tuple[Status, ...], status),
        accounts=_all(query, "account"),
        providers=_all(query, "provider"),
        words=_text(query, "reason"),
        older_s=seconds_of(query.get("older", ""), "older"),
        differs=_flag(query, "differs"),
        on_hold=_flag(query, "on_hold"),
        prefix=_text(query, "q"),
    )


def sort_of(query: Query) -> Sort:
    """In which order. Raises `UsageError`."""
    sort = query.get("sort", "") or "changed"
    if sort not in SORTS:
        raise UsageError(f"sort: there is no {sort!r}; expected one of {', '.join(SORTS)}")
    return sort


def limit_of(query: Query) -> int:
    """How many to a page. Raises `UsageError`."""
    return number_of(query.get("limit", "") or str(PAGE), "limit", PAGE_MAX)


def number_of(text: str, name: str, largest: int) -> int:
    """An integer from 0. Raises `UsageError`."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or int(text) > largest:
        raise UsageError(f"{name}: expected an integer from 0 to {largest}, got {text[:40]!r}")
    return int(text)


def place_in(request: web.Request) -> tuple[int, int]:
    """Partition and offset in the path of a dead letter. Raises `UsageError`."""
    partition, offset = (number_of(request.match_info[name], name, 2**53) for name in ("partition", "offset"))
    return partition, offset


def place_of(letter: str) -> tuple[int, int]:
    """Of `partition/offset`. Raises `UsageError`."""
    partition, _, offset = letter.partition("/")
    return number_of(partition, "partition", 2**53), number_of(offset, "offset", 2**53)


def doing_of(name: str) -> Doing:
    """What is to be done with letters. Raises `UsageError`; also for `mend`, which has a page of its own."""
    doing = DOINGS.get(name)
    if doing is None or name == "mend":
        raise UsageError("command: expected replay or dismiss")
    return doing


def check_of_many(doing: Doing) -> None:
    """Raises `UsageError` for what is done to one letter alone."""
    if not doing.of_many:
        raise UsageError(f"{doing.name}: name one dead letter")


def why_of(text: str) -> str:
    """A reason, cut to what is kept."""
    return text.strip()[:_WHY_MAX]


def older_text(seconds: float) -> str:
    """As it stands in an address."""
    whole = round(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % _UNITS_S[unit] == 0:
            return f"{whole // _UNITS_S[unit]}{unit}"
    return f"{whole}s" if whole else ""


def address_of(wanted: Filter, sort: Sort | None = None, **more: str) -> str:
    """The parameters that ask for it, without the question mark."""
    pairs: list[tuple[str, str]] = [("status", each) for each in wanted.status]
    pairs += [("account", each) for each in wanted.accounts]
    pairs += [("provider", each) for each in wanted.providers]
    singles: Mapping[str, str] = {
        "reason": wanted.words,
        "older": older_text(wanted.older_s),
        "differs": "1" if wanted.differs else "",
        "on_hold": "1" if wanted.on_hold else "",
        "q": wanted.prefix,
        "sort": "" if sort in (None, "changed") else str(sort),
        **more,
    }
    return urlencode([*pairs, *((name, value) for name, value in singles.items() if value)])


def letters_address(reason: str, subject: str) -> str:
    """The parameters that ask for these dead letters."""
    return urlencode([(name, text) for name, text in (("reason", reason), ("subject", subject)) if text])


def _all(query: Query, name: str) -> tuple[str, ...]:
    return tuple(part for text in query.getall(name) for part in text.split(",") if part)


def _text(query: Query, name: str) -> str:
    text = query.get(name, "").strip()
    if len(text) > _TEXT_MAX:
        raise UsageError(f"{name}: expected at most {_TEXT_MAX} characters")
    return text


def _flag(query: Query, name: str) -> bool:
    text = query.get(name, "").lower()
    if text not in ("", "0", "1", "no", "yes", "false", "true", "on"):
        raise UsageError(f"{name}: expected 1 or 0, got {text[:40]!r}")
    return text in ("1", "yes", "true", "on")


def seconds_of(text: str, name: str) -> float:
    """Of a time such as `15m`; empty: 0. Raises `UsageError`."""
    if not text.strip():
        return 0.0
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"{name}: expected a time such as 30s, 15m, 6h or 2d, got {text[:40]!r}")
    return float(int(found[1]) * _UNITS_S[found[2]])
