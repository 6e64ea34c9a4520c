"""Events that are mended: paths, values, both modes, and what workers would say of the result."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shops.events import START_MS, TRUST, confirmed, envelope, goods, mac_of
from worker.core.letters import Refused
from worker.core.mending import (
    Mended,
    as_event,
    as_it_is,
    as_record,
    assignment_of,
    changed,
    event_text,
    is_guarded,
    path_of,
    subject_of,
    text_of,
    verdict,
)
from worker.core.placing import Placing
from worker.core.trust import Trust
from worker.errors import UsageError

NOW_MS = START_MS + 10**9
EVENT = envelope(confirmed(goods("A", 2, 200)))
BINARY = [
    *(("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"/shops/acme"), ("ce_type", b"order.confirmed")),
    *(("ce_time", b"yesterday"), ("ce_subject", b"acme/1"), ("content-type", b"application/json")),
]


def refused(value: Any, headers: list[tuple[str, bytes]] | None = None, key: bytes | None = b"acme/1") -> Refused:
    """A record that was refused in partition 0."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Refused(key, raw, headers or [], "orders.events", 0, 7, "")


def said(record: Mended, trust: Trust | None = TRUST, placing: Placing | None = None, partition: int = 0) -> str:
    """The verdict, of three partitions."""
    return verdict(record, NOW_MS, trust, placing, partition, 3)


# --- paths ---


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("time", ("time",)),
        ("$.time", ("time",)),
        ("data.lines[0].quantity", ("data", "lines", 0, "quantity")),
        ("$.data.lines[12]", ("data", "lines", 12)),
        ("$[0]", (0,)),
        ("data.größe", ("data", "größe")),
    ],
)
def test_paths(text: str, path: tuple[str | int, ...]) -> None:
    """As details of letters have them; the dollar may be left out."""
    assert path_of(text) == path
    assert path_of(text_of(path)) == path


@pytest.mark.parametrize("text", ["", "$", "$.", "a..b", "a[x]", "a[", "a b", "a[1234567]", "data.lines[0]. quantity"])
def test_no_paths(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError, match="expected a path such as"):
        path_of(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=2", 2), ("a=null", None), ("a=EUR", "EUR"), ('a="2"', "2"), ("a=", ""), ("a=b=c", "b=c"), ("a=[1]", [1])],
)
def test_assignments(text: str, value: Any) -> None:
    """JSON, or else a text."""
    assert assignment_of(text) == (("a",), value)


def test_no_assignment() -> None:
    """Without a value there is nothing to set."""
    with pytest.raises(UsageError, match="expected PATH=VALUE"):
        assignment_of("data.lines")


# --- changes ---


def test_changes() -> None:
    """Members are set, added and removed, items of lists, too; the event itself stays as it was."""
    event = {"a": {"b": [1, {"c": 2}]}, "d": 4}
    before = json.dumps(event)
    sets = [(("a", "b", 0), 7), (("a", "b", 2), 8), (("a", "b", 1, "x"), [9]), (("e",), {"f": 1}), (("e", "f"), 2)]
    after = changed(event, sets, [("d",), ("a", "b", 1, "c")])
    assert after == {"a": {"b": [7, {"x": [9]}, 8]}, "e": {"f": 2}}
    assert json.dumps(event) == before
    assert changed(event, [], [("a", "b", 0)]) == {"a": {"b": [{"c": 2}]}, "d": 4}


@pytest.mark.parametrize(
    "path", [("x", "y"), ("a", "b", 5), ("a", 0), ("d", "y"), ("d", 0), ("a", "b", "c"), ("a", "b", 1, "c", "d")]
)
def test_places_that_there_are_not(path: tuple[str | int, ...]) -> None:
    """Nothing is made up on the way to a place."""
    event = {"a": {"b": [1, {"c": 2}]}, "d": 4}
    with pytest.raises(UsageError, match="there is no such place"):
        changed(event, [(path, 1)], [])
    with pytest.raises(UsageError, match="there is no such place"):
        changed(event, [], [path])


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_setting_what_is_there_changes_nothing(value: Any) -> None:
    """Of any value."""
    event = {"a": value}
    assert changed(event, [(("a",), value)], []) == event


# --- the event, and its record ---


def test_structured_mode() -> None:
    """The value is the event; headers stay."""
    given_ = refused(EVENT | {"time": "yesterday"}, [("traceparent", b"00-1")])
    event = changed(as_event(given_), [(("time",), EVENT["time"])], [])
    assert (event, subject_of(event)) == (EVENT, EVENT["subject"])
    record = as_record(given_, event, None)
    assert record == Mended(b"acme/1", json.dumps(EVENT, separators=(",", ":")).encode(), [("traceparent", b"00-1")])
    assert said(record) == ""


def test_binary_mode() -> None:
    """Attributes are headers before and after; of the value only the data is."""
    given_ = refused(EVENT["data"], BINARY)
    assert said(as_it_is(given_)).startswith("not_cloudevents: $.time: expected")
    event = changed(as_event(given_), [(("time",), EVENT["time"]), (("sequence",), 7)], [])
    record = as_record(given_, event, None)
    assert json.loads(record.value) == EVENT["data"]
    headers = dict(record.headers)
    assert (headers["ce_time"], headers["ce_sequence"]) == (EVENT["time"].encode(), b"7")
    assert headers["content-type"] == b"application/json"
    assert len(headers) == len(record.headers)
    assert said(record) == ""
    nothing = as_event(refused(b"not json", BINARY))
    assert nothing["data"] is None


@pytest.mark.parametrize("value", [b"not json", b"[1]", b"[" * 100_000, None])
def test_value_that_is_no_object(value: bytes | None) -> None:
    """Nothing can be set in it; but the whole may be given."""
    broken = Refused(b"k", value, [], "t", 0, 7, "")
    with pytest.raises(UsageError, match="--file"):
        as_event(broken)
    assert not is_guarded(broken)
    assert said(as_record(broken, EVENT, None)) == ""


def test_as_a_person_edits_it() -> None:
    """One JSON object, however it came; what is none stays as it is, also half of a surrogate pair, as its escape."""
    assert json.loads(event_text(refused(EVENT))) == EVENT
    binary = refused({"a": 1}, [("ce_specversion", b"1.0"), ("ce_type", b"order.cancelled")])
    assert json.loads(event_text(binary)) == {"specversion": "1.0", "type": "order.cancelled", "data": {"a": 1}}
    for value, text in ((b"no \xff json", "no \ufffd json"), (b"[1]", "[1]"), (None, "")):
        assert event_text(Refused(b"k", value, [], "t", 0, 7, "")) == text
    half = Refused(b"k", b'{"a":"\\ud800"}', [], "t", 0, 7, "")
    assert json.loads(event_text(half).encode()) == {"a": "\ud800"}


def test_keys() -> None:
    """The record's own, or another; where it had none, the subject."""
    assert as_record(refused(EVENT), EVENT, b"other").key == b"other"
    assert as_record(refused(EVENT, key=None), EVENT, None).key == EVENT["subject"].encode()
    with pytest.raises(UsageError, match="--key"):
        as_record(refused({}, key=b""), {"subject": 7}, None)


def test_half_of_a_surrogate_pair() -> None:
    """It can be written, and is refused as it was."""
    record = as_record(refused(EVENT), EVENT | {"id": "\ud800"}, None)
    assert said(record).startswith("not_utf8")


def test_what_providers_said() -> None:
    """It is known by its type, in both modes."""
    assert is_guarded(refused({"type": "provider.risk"}))
    assert is_guarded(refused({"type": "operator.release"}))
    assert is_guarded(refused({}, [("ce_specversion", b"1.0"), ("ce_type", b"provider.risk")]))
    assert not is_guarded(refused(EVENT))
    assert not is_guarded(refused({"type": 7}))
    assert not is_guarded(refused(EVENT, BINARY))


def test_as_it_is() -> None:
    """The very bytes, where they can be written and mean something."""
    assert as_it_is(refused(EVENT)).value == json.dumps(EVENT).encode()
    for broken, why in (
        (Refused(b"k", b"{}", [], "t", 0, 7, "it was cut"), "it was cut"),
        (Refused(None, b"{}", [], "t", 0, 7, ""), "it has no key"),
        (Refused(b"k", None, [], "t", 0, 7, ""), "it has no value"),
    ):
        with pytest.raises(UsageError, match=why):
            as_it_is(broken)


# --- what workers would say ---


def test_verdicts() -> None:
    """As a worker would, with what is known here."""
    good = as_it_is(refused(EVENT, key=EVENT["subject"].encode()))
    placing = Placing("murmur2")
    place = placing.partition(good.key, 3)
    assert said(good, placing=placing, partition=place) == ""
    assert said(good, placing=placing, partition=(place + 1) % 3).startswith("wrong_partition: partition: expected")
    assert said(Mended(b"k", b"{}", [])).startswith("not_cloudevents")
    assert said(Mended(b"k", b'{"type":"com.acme.x"}', [])) == "nobody reads events of this type"


def test_verdict_on_what_providers_said() -> None:
    """It is believed with its MAC; where the secrets are not known, nobody can tell."""
    body = EVENT | {"type": "provider.cancel_asked", "data": {}}
    value = json.dumps(body).encode()
    signed = Mended(b"k", value, list(mac_of(body, value).items()))
    assert said(signed) == ""
    assert said(signed, Trust(["another"])).startswith("not_trusted: x-cartsync-mac: expected the MAC")
    assert said(signed, None) == ""
    assert said(Mended(b"k", b"[]", []), None) != ""
