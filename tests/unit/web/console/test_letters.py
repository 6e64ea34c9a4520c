"""One dead letter: the place that is wrong, and that nobody's data is shown unasked."""

import json
import re
from typing import Any

import msgspec
import pytest

from schemas.console import LetterRow
from tests.unit.core.samples import FULL
from worker.ports import StoredRecord
from worker.web.console.letters import HIDDEN, Line, headers_of, lines_of, masked_row, view_letter

ROW = LetterRow(0, 5, 1, "invalid_data", "$.data.lines[0].quantity: expected", "acme/A", "order.x", "e", "t/0/1")


def letter(value: bytes | None, *headers: tuple[str, bytes], detail: str = "", key: bytes | None = b"acme/A") -> Any:
    """A record of the dead-letter topic."""
    said = ("x-dlq-detail", detail.encode())
    return StoredRecord(5, 1, key, value, [*headers, said])


def wrong_line(value: Any, detail: str) -> list[str]:
    """The lines that are marked."""
    _, lines = view_letter(ROW, letter(json.dumps(value).encode(), detail=detail), reveal=True)
    return [line.text for line in lines if line.is_wrong]


EVENT = {"id": "e", "data": {"lines": [{"line_id": "a", "quantity": "two"}, {"line_id": "b"}]}}


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("$.data.lines[0].quantity: expected an integer", ['"quantity": "two"']),
        ("$.data.lines[1].quantity: expected a member", ["{"]),
        ("$.data.lines[7]: expected", ['"lines": [']),
        ("$.data.lines[...].quantity: expected", ['"lines": [']),
        ("$.id: expected", ['"id": "e",']),
        ("$.time: expected a member", ["{"]),
        ("$: expected JSON", []),
        ("something else", []),
    ],
)
def test_place(detail: str, expected: list[str]) -> None:
    """The innermost place on the way to the mistake that there is."""
    assert wrong_line(EVENT, detail) == expected


def test_binary_mode() -> None:
    """There the value is the event's data alone."""
    record = letter(b'{"lines": 5}', ("ce_specversion", b"1.0"), detail="$.data.lines: expected an array")
    view, lines = view_letter(ROW, record, reveal=False)
    assert [line.text for line in lines if line.is_wrong] == [f'"lines": "{HIDDEN}"']
    assert view.path == "$.data.lines"
    attribute = letter(b'{"lines": 5}', ("ce_specversion", b"1.0"), detail="$.time: expected a member")
    assert not [line for line in view_letter(ROW, attribute, reveal=False)[1] if line.is_wrong]


def test_nothing_personal_unasked() -> None:
    """Of an event with every detail that there may be, nothing of the shopper is shown; what it is about is."""
    event = {"type": "order.confirmed", "subject": "acme/A", "data": FULL["order.confirmed"]}
    view, lines = view_letter(ROW, letter(json.dumps(event).encode()), reveal=False)
    text = "\n".join(line.text for line in lines) + json.dumps(view.content)
    for personal in ("Ana", "García", "ana@example", "Barcelona", "08010", "12345678Z", "1980-02-29", "+34", "1234ABC"):
        assert personal not in text
    assert "order.confirmed" in text
    assert "acme/A" in text
    assert '"total_minor": 1000' in text
    assert view.is_hidden


@pytest.mark.parametrize(
    "value",
    [
        {"customer": {"phone": 34666123456, "vip": True}},
        {"delivery_address": [5]},
        {"data": 12345678901},
        {"id": "ana@example.org"},
        {"reference": "Ana García"},
        ["ana"],
        "ana",
        34666123456,
        {"dni": 12345678},
        {"quantity": 34666123456},
        {"total_minor": 34666123456},
        {"ana@example.org": None},
        {"data": {"Ana García": True}},
    ],
)
def test_personal_in_odd_places(value: Any) -> None:
    """Whatever shape a broken event has: texts and long numbers that are not known to be harmless are hidden."""
    view, _ = view_letter(ROW, letter(json.dumps(value).encode()), reveal=False)
    text = json.dumps(view.content, ensure_ascii=False)
    assert HIDDEN in text
    assert not re.search(r"(?i)ana|\d{8}", text)
    assert view.is_hidden


def test_masked_names_stay_apart() -> None:
    """Members whose names are hidden are all there."""
    view, _ = view_letter(ROW, letter(b'{"Ana": null, "Ben": true, "id": "e"}'), reveal=False)
    assert view.content == {f"{HIDDEN}1": None, f"{HIDDEN}2": True, "id": "e"}


def test_rows() -> None:
    """An order's reference, a type and an id that may be of a person are hidden until they are asked for."""
    row = msgspec.structs.replace(ROW, subject="acme/ana@example.org", type="Ana García", event_id="ana@example.org")
    view, _ = view_letter(row, letter(b"{}"), reveal=False)
    assert (view.letter.subject, view.letter.type, view.letter.event_id, view.is_hidden) == (*[HIDDEN] * 3, True)
    assert view_letter(row, letter(b"{}"), reveal=True)[0].letter == row
    assert masked_row(ROW) == ROW


@pytest.mark.parametrize(
    "header",
    [
        *(("ce_email", "a"), ("ce_id", "ana@example.org"), ("ce_subject", "acme/ana@example.org")),
        *(("x-dlq-shopper", "a"), ("x-dlq-header-name", "a"), ("CE_ID", "a"), ("ana@example.org", "a")),
    ],
)
def test_odd_headers(header: tuple[str, str]) -> None:
    """Exactly the headers that are CloudEvents' or ours are shown, and only with a text that may be theirs."""
    name, text = header
    view, _ = view_letter(ROW, letter(b"{}", (name, text.encode())), reveal=False)
    assert set(view.headers.values()) == {HIDDEN, ""}
    assert not any("@" in each for each in view.headers)


def test_asked_for() -> None:
    """Then everything is there."""
    view, _ = view_letter(ROW, letter(b'{"data": "ana"}', ("from", b"ana"), key=b"ana"), reveal=True)
    assert (view.content, view.key, view.headers["from"], view.is_hidden) == ({"data": "ana"}, "ana", "ana", False)


def test_headers_and_keys() -> None:
    """Headers and keys that are not ours are hidden; a key that names the order is not."""
    record = letter(b"{}", ("from", b"ana"), ("ce_id", b"1"), ("traceparent", b"00"), key=b"ana")
    view, _ = view_letter(ROW, record, reveal=False)
    assert (view.key, view.headers["from"], view.headers["ce_id"]) == (HIDDEN, HIDDEN, "1")
    assert view_letter(ROW, letter(b"{}"), reveal=False)[0].key == "acme/A"
    assert view_letter(ROW, letter(b"{}", key=None), reveal=False)[0].key == ""
    assert headers_of({"a": "1", "x-dlq-b": "2"})[0][0] == "x-dlq-b"


@pytest.mark.parametrize("value", [b"Ana lives here", b"\xff\xfe", b'{"a": ', b"[" * 100_000])
def test_no_json(value: bytes) -> None:
    """What is no JSON is hidden as a whole, and shown as text when it is asked for."""
    view, lines = view_letter(ROW, letter(value), reveal=False)
    assert (view.is_json, lines) == (False, [Line(0, HIDDEN, False)])
    shown, _ = view_letter(ROW, letter(value), reveal=True)
    assert shown.content == value[:100_000].decode(errors="replace")


def test_nothing_at_all() -> None:
    """A record without a value."""
    view, lines = view_letter(ROW, letter(None), reveal=False)
    assert (view.content, view.is_json, lines[0].text) == ("", False, "")


def test_deep_and_long() -> None:
    """Whatever is written there, a page has a bound."""
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    _, lines = view_letter(ROW, letter(json.dumps(deep).encode()), reveal=True)
    assert len(lines) < 200
    _, lines = view_letter(ROW, letter(json.dumps([1] * 50_000).encode()), reveal=True)
    assert len(lines) == 3_001


def test_as_json() -> None:
    """Indented, with commas where they belong."""
    lines = list(lines_of({"a": [1, {}], "b": None}, ()))
    assert [(line.depth, line.text) for line in lines] == [
        (0, "{"),
        *((1, '"a": ['), (2, "1,"), (2, "{}"), (1, "],")),
        *((1, '"b": null'), (0, "}")),
    ]
