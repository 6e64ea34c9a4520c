"""One dead letter: the record that was refused, the place that is wrong marked, what may be personal hidden. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from schemas.console import LetterRow, LetterView
from schemas.events import RetractedData
from worker.ports import StoredRecord

HIDDEN = "•••"
TEXT_MAX = 100_000
"""Characters of a value that are shown."""
_DEPTH_MAX = 60
_LINES_MAX = 3_000

# Everything below these members is of a person.
_PERSONAL = re.compile(
    r"customer|address|shopper|buyer|person|identity|phone|email|name|nin|vat_number|vehicle", re.IGNORECASE
)
# Texts that are shown: what an event is, and ids of the shop's own; all others may say something of somebody.
_PLAIN = frozenset(
    {
        *("specversion", "id", "source", "type", "time", "subject", "sequence", "datacontenttype", "dataschema"),
        *("traceparent", "tracestate", "partitionkey", "origin", "currency", "reference", "line_id"),
        *(name for name in RetractedData.__struct_fields__ if name.endswith("_id")),
        *("state", "status", "carrier"),
        *("confirmed_at", "shipped_at", "delivered_at"),
    }
)
_PLAIN_TEXT = re.compile(r"[\w.:/+#-]{1,160}")
_PLAIN_HEADERS = frozenset(
    f"ce_{name}"
    for name in ("specversion", "id", "source", "type", "time", "subject", "sequence", "traceparent", "origin")
)
# All that cartsync writes but `x-dlq-header-name`, which repeats the producer's own.
_OUR_HEADERS = frozenset(
    f"x-dlq-{name}"
    for name in (
        *("reason", "detail", "topic", "partition", "offset", "timestamp", "version"),
        *("last-offset", "content", "truncated"),
    )
)
_PLAIN_NAME = re.compile(r"[a-z_]{1,40}")
_PLAIN_HEADER_NAME = re.compile(r"(?:x-dlq-|ce_)?[a-z_-]{1,40}")
_TYPE = re.compile(r"[a-z_.]{1,100}")
# Numbers that are shown, up to a bound: a phone number may stand anywhere.
_PLAIN_NUMBER = re.compile(r"[a-z_]{1,40}_minor|quantity|revision|acked|sequence|schema|version|vat_rate_bp")
_NUMBER_MAX = 10**9
_SUBJECT = re.compile(r"[A-Za-z0-9_.-]{1,64}/[^\s@]{1,200}")
_PATH = re.compile(r"\$(?:\.[^\s.:\[\]]+|\[\d+\]|\[\.\.\.\])*")
_STEP = re.compile(r"\.([^\s.:\[\]]+)|\[(\d+|\.\.\.)\]")

Path = tuple[str | int, ...]


class Line(Struct, frozen=True):
    """One line of a JSON value as it is shown."""

    depth: int
    text: str
    is_wrong: bool
    """Here is the mistake."""


def view_letter(row: LetterRow, record: StoredRecord, *, reveal: bool) -> tuple[LetterView, list[Line]]:
    """The letter, and its value line by line. `reveal`: what may be personal is shown."""
    headers = {name: (content or b"").decode(errors="replace") for name, content in record.headers}
    path = found[0] if (found := _PATH.match(headers.get("x-dlq-detail", ""))) else ""
    wrong = _steps(path)
    raw = record.value or b""
    try:
        value, is_json = _bounded(json.loads(raw)), True
    except (ValueError, RecursionError):
        value, is_json = raw[:TEXT_MAX].decode(errors="replace"), False
    masked = value if reveal else _masked(value, (), is_json=is_json)
    key = (record.key or b"").decode(errors="replace")
    shown_headers = headers if reveal else _masked_headers(headers)
    shown_key = key if reveal or _SUBJECT.fullmatch(key) else HIDDEN if key else ""
    is_hidden = masked != value or shown_headers != headers or shown_key != key or masked_row(row) != row
    is_hidden = is_hidden and not reveal
    view = LetterView(
        row if reveal else masked_row(row),
        path,
        shown_key,
        masked,
        is_json,
        is_hidden,
        shown_headers,
        headers.get("x-dlq-truncated", ""),
    )
    # In binary mode the value is the event's data alone.
    if "ce_specversion" in headers:
        wrong = wrong[1:] if wrong[:1] == ("data",) else ()
    return view, _first(lines_of(masked, wrong)) if is_json else [Line(0, masked, False)]


def _bounded(value: Any, depth: int = 0) -> Any:
    """The value, what lies too deep in it replaced, half surrogates escaped: no text may hold them."""
    if isinstance(value, str):
        return _whole(value)
    if not isinstance(value, dict | list):
        return value
    if depth == _DEPTH_MAX:
        return "…"
    if isinstance(value, dict):
        return {_whole(name): _bounded(each, depth + 1) for name, each in value.items()}
    return [_bounded(each, depth + 1) for each in value]


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _first(lines: Iterator[Line]) -> list[Line]:
    found: list[Line] = []
    for line in lines:
        if len(found) == _LINES_MAX:
            return [*found, Line(0, "…", False)]
        found.append(line)
    return found


def _steps(path: str) -> Path:
    """`("data", "lines", 0)` of `$.data.lines[0]`; empty for `$`."""
    return tuple(name or (int(index) if index.isdecimal() else index) for name, index in _STEP.findall(path))


def marked(text: str, problem: str) -> list[Line]:
    """A value that somebody has edited, line by line, with the place that a problem names; empty: it is no JSON."""
    found = _PATH.search(problem)
    try:
        value = _bounded(json.loads(text))
    except (ValueError, RecursionError):
        return []
    return _first(lines_of(value, _steps(found[0]) if found else ()))


def lines_of(value: Any, wrong: Path, here: Path = (), lead: str = "", tail: str = "") -> Iterator[Line]:
    """A value as indented JSON; the place `wrong`, or the innermost that there is on the way to it, is marked."""
    is_wrong = bool(wrong) and here == wrong[: len(here)] and not _leads_on(value, wrong[len(here) :])
    if isinstance(value, dict | list) and value:
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        yield Line(len(here), f"{lead}{opening}", is_wrong)
        pairs: Sequence[tuple[str | int, Any]] = list(value.items() if isinstance(value, dict) else enumerate(value))
        for number, (step, each) in enumerate(pairs):
            name = f"{json.dumps(step, ensure_ascii=False)}: " if isinstance(step, str) else ""
            yield from lines_of(each, wrong, (*here, step), name, "," if number + 1 < len(pairs) else "")
        yield Line(len(here), f"{closing}{tail}", False)
    else:
        yield Line(len(here), f"{lead}{json.dumps(value, ensure_ascii=False)}{tail}", is_wrong)


def _leads_on(value: Any, rest: Path) -> bool:
    """Whether the next step of a path is in a value."""
    if not rest:
        return False
    step = rest[0]
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _masked(value: Any, path: Path, *, is_json: bool = True) -> Any:
    match value:
        case dict():
            names = _masked_names(value, _PLAIN_NAME)
            return {names[name]: _masked(each, (*path, str(name))) for name, each in value.items()}
        case list():
            return [_masked(each, (*path, number)) for number, each in enumerate(value)]
        case bool() | None:
            return value
        case _ if not is_json or any(isinstance(step, str) and _PERSONAL.search(step) for step in path):
            return HIDDEN if value != "" else value
        case int() | float():
            name = next((step for step in reversed(path) if isinstance(step, str)), "")
            return value if _PLAIN_NUMBER.fullmatch(name) and abs(value) < _NUMBER_MAX else HIDDEN
        case str():
            name = next((step for step in reversed(path) if isinstance(step, str)), "")
            return value if value == "" or (name in _PLAIN and _PLAIN_TEXT.fullmatch(value)) else HIDDEN
        case _:
            return HIDDEN


def _masked_names(members: Mapping[str, Any], plain: re.Pattern[str]) -> dict[str, str]:
    """By name, how it is shown: those that are not plain are counted, so that none takes the place of another."""
    odd = [name for name in members if not plain.fullmatch(name)]
    return {name: name for name in members} | {name: f"{HIDDEN}{number}" for number, name in enumerate(odd, 1)}


def _masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    names = _masked_names(headers, _PLAIN_HEADER_NAME)
    return {
        names[name]: text if name in _OUR_HEADERS or (name in _PLAIN_HEADERS and _is_plain(name, text)) else HIDDEN
        for name, text in headers.items()
    }


def _is_plain(name: str, text: str) -> bool:
    return bool((_SUBJECT if name == "ce_subject" else _PLAIN_TEXT).fullmatch(text))


def masked_row(row: LetterRow) -> LetterRow:
    """What is shown of a letter in a list: an order's reference, too, may be somebody's mail address."""

    def shown(text: str, plain: re.Pattern[str]) -> str:
        return text if not text or plain.fullmatch(text) else HIDDEN

    return msgspec.structs.replace(
        row,
        subject=shown(row.subject, _SUBJECT),
        type=shown(row.type, _TYPE),
        event_id=shown(row.event_id, _PLAIN_TEXT),
    )


def headers_of(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the letter itself says first, then the event's own."""
    return sorted(headers.items(), key=lambda pair: (not pair[0].startswith("x-dlq-"), pair[0]))
