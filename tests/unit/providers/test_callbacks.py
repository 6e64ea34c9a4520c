"""What all providers' callbacks have in common."""

import ast
import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import providers as adapters
from worker.core.provider_facts import NAMES
from worker.model.callbacks import Called, Caller, Lookups, Said
from worker.providers.callbacks import (
    FIELDS_MAX,
    NotUnderstoodError,
    UnreadableError,
    cloud_event,
    flag_of,
    id_of,
    minor_of,
    plain,
    raw_text,
    read_form,
    read_json,
    text_of,
    time_of,
    word_of,
)

ARRIVED = 1_767_225_600_123
"""2026-01-01T00:00:00.123Z"""


def multipart(*parts: tuple[str, bytes], edge: str = "xYz") -> tuple[str, bytes]:
    """A form of these parts: its content type and body."""
    made = b"".join(
        b"--"
        + edge.encode()
        + b"\r\nContent-Disposition: form-data; "
        + name.encode()
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for name, content in parts
    )
    return f"multipart/form-data; boundary={edge}", made + b"--" + edge.encode() + b"--\r\n"


def test_urlencoded_form() -> None:
    """Texts are decoded as UTF-8, blank ones are kept, the last of a name counts."""
    body = b"utf8=%E2%88%9A&event=cancelled&order_ref_2=&a=1&a=2+3"
    assert read_form("application/x-www-form-urlencoded; charset=UTF-8", body) == {
        "utf8": "\N{SQUARE ROOT}",
        "event": "cancelled",
        "order_ref_2": "",
        "a": "2 3",
    }
    assert read_form("", b"a=1") == {"a": "1"}
    assert read_form("", b"") == {}


def test_multipart_form() -> None:
    """Parts are texts as they are, line feeds included; files are left out."""
    kind, body = multipart(('name="a"', b"1\r\n--x"), ('name="b"', "ü".encode()), ('name="f"; filename="x"', b"\xff"))
    assert read_form(kind, body) == {"a": "1\r\n--x", "b": "ü"}
    quoted = kind.replace("xYz", '"xYz"')
    assert read_form(quoted, b"preamble\r\n" + body + b"epilogue") == {"a": "1\r\n--x", "b": "ü"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"no form"),
        ("application/x-www-form-urlencoded", b"a=%ff"),
        ("application/x-www-form-urlencoded", b"a=\xff"),
        ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(FIELDS_MAX + 1))),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=" + "x" * 71, b""),
        ("multipart/form-data; boundary=ü", b"--x--"),
        ("multipart/form-data; boundary=x", b"nothing"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: a\r\n\r\n1\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n1\r\n--x--'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--'),
        multipart(*[('name="a"', b"1")] * (FIELDS_MAX + 1)),
    ],
)
def test_bytes_that_are_no_form(kind: str, body: bytes) -> None:
    """They are refused, whatever is wrong with them."""
    with pytest.raises(UnreadableError):
        read_form(kind, body)


@given(st.binary(max_size=200), st.sampled_from(["multipart/form-data; boundary=x", "a/b", "", "x; y=z; boundary"]))
def test_any_bytes_are_a_form_or_refused(body: bytes, kind: str) -> None:
    """Nothing else comes of them."""
    with suppress(UnreadableError):
        assert isinstance(read_form(kind, body), dict)


class _Sample(msgspec.Struct):
    a: int = 0


_decoder = msgspec.json.Decoder(_Sample)


@pytest.mark.parametrize("body", [b"", b"{", b'{"b":"\xff"}', b'{"b":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_bytes_that_are_no_json(body: bytes) -> None:
    """They are refused, also where nobody looks."""
    with pytest.raises(UnreadableError):
        read_json(_decoder, body)


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"a":"x"}'])
def test_json_of_another_shape(body: bytes) -> None:
    """It is told apart from what is no JSON at all."""
    with pytest.raises(NotUnderstoodError):
        read_json(_decoder, body)


@pytest.mark.parametrize(
    ("value", "text"), [("a ", "a"), (12, "12"), (True, ""), (None, ""), (1.5, ""), ([], ""), ({"a": 1}, "")]
)
def test_texts(value: object, text: str) -> None:
    """Numbers and texts are texts; nothing else is."""
    assert text_of(value) == text


@pytest.mark.parametrize(("value", "flag"), [(True, True), ("False", False), ("yes", None), (1, None), ([], None)])
def test_flags(value: object, flag: bool | None) -> None:
    """A flag is a boolean, or its name."""
    assert flag_of(value) is flag


@pytest.mark.parametrize("value", ["", None, "x" * 201, [], True])
def test_no_id(value: object) -> None:
    """What cannot be an id is not understood."""
    with pytest.raises(NotUnderstoodError):
        id_of(value)
    assert id_of(12345) == "12345"


@pytest.mark.parametrize(("value", "word"), [("OnHold", "OnHold"), (4, "4"), ("a\nb", ""), ("x" * 65, ""), ("<b>", "")])
def test_words(value: object, word: str) -> None:
    """Only what looks like a word is handed on."""
    assert word_of(value) == word


@pytest.mark.parametrize(
    ("text", "minor"),
    [("550", 55000), ("-550", 55000), ("751.1", 75110), ("751.10", 75110), ("0.05", 5), ("1.2300", 123)],
)
def test_amounts(text: str, minor: int) -> None:
    """Two places at most, to the cent, without the sign."""
    assert minor_of(text) == minor


@pytest.mark.parametrize("text", ["", "1.234", "1e3", "1,5", "12345678901234", "\u0661", ".5", "NaN"])
def test_no_amounts(text: str) -> None:
    """Everything else is not understood."""
    with pytest.raises(NotUnderstoodError):
        minor_of(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"6051900", "6051900"), (b"1.50", "1.50"), (b'"ab"', "ab"), (b"null", ""), (b"[1]", ""), (b"true", "")],
)
def test_raw_texts(raw: bytes, text: str) -> None:
    """A number is as it stands there: 1.50 is not 1.5."""
    assert raw_text(msgspec.Raw(raw)) == text


def test_depth_of_what_is_handed_on() -> None:
    """JSON that is nested more deeply than whoever reads it likes is not handed on."""
    assert plain(b'{"a":[1,{"b":2}]}') == {"a": [1, {"b": 2}]}
    assert plain(b"[" * 20 + b"]" * 20)
    for deep in (21, 30_000):
        with pytest.raises(NotUnderstoodError):
            plain(b"[" * deep + b"]" * deep)


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5_000])
def test_numbers_that_nothing_can_hold(number: bytes) -> None:
    """They are JSON, but no value."""
    with pytest.raises(NotUnderstoodError):
        plain(b'{"a":[' + number + b"]}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2016-03-03T11:43:05.567", "2016-03-03T11:43:05.567000Z"),
        ("2024-07-01T09:44:37.6397507Z", "2024-07-01T09:44:37.639750Z"),
        ("2024-07-01T11:44:37+02:00", "2024-07-01T09:44:37Z"),
        ("2031-01-01T00:00:00Z", "2026-01-01T00:00:00.123000Z"),
        ("0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00.123000Z"),
        ("yesterday", "2026-01-01T00:00:00.123000Z"),
        ("", "2026-01-01T00:00:00.123000Z"),
    ],
)
def test_times(given: str, expected: str) -> None:
    """Without a zone it is UTC; no time, or one to come, is that of arrival."""
    assert time_of(given, ARRIVED) == expected
    assert datetime.fromisoformat(expected).tzinfo is not None


def test_event() -> None:
    """The record has the order as subject, and an id that only a repeat shares."""
    called = Called(
        account="hats", purpose="order-status", reference="A/1", media_type="", body=b"", arrived_ms=ARRIVED
    )
    said = Said("risk", {"level": "low"}, ("1", "2"))
    subject, value = cloud_event(called, said)
    event = json.loads(value)
    assert subject == "hats/A/1"
    assert event == {
        "specversion": "1.0",
        "id": event["id"],
        "source": "/cartsync/hats/order-status",
        "type": "provider.risk",
        "time": "2026-01-01T00:00:00.123000Z",
        "subject": "hats/A/1",
        "data": {"level": "low"},
    }
    later = msgspec.structs.replace(called, arrived_ms=ARRIVED + 5)
    assert json.loads(cloud_event(later, said)[1])["id"] == event["id"]
    for known_by in (("12",), ("1", "2", ""), ("1", "3")):
        other = msgspec.structs.replace(said, known_by=known_by)
        assert json.loads(cloud_event(called, other)[1])["id"] != event["id"]
    assert cloud_event(called, msgspec.structs.replace(said, reference="7"))[0] == "hats/7"


def test_nothing_secret_is_shown() -> None:
    """What holds secrets or personal data shows neither."""
    called = Called(
        account="a",
        purpose="p",
        reference="r-secret",
        media_type="",
        body=b"secret",
        arrived_ms=1,
        private_key="secret",
    )
    lookups = Lookups(url="https://secret", token="secret", timeout_s=1, defaults={})
    caller = Caller(name="a", provider="x", callback_secrets=("secret",), lookups=lookups)
    assert "secret" not in f"{called!r} {caller!r} {lookups!r}"


# --- their words -------------------------------------------------------------------------------------------------------


def said_in(source: str) -> set[str]:
    """The types of the events that an adapter's code writes."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    made = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Said"]
    return {first.value for first in made if isinstance(first, ast.Constant) and isinstance(first.value, str)}


def test_adapters_write_events_that_there_are() -> None:
    """And each that there is can be written: by an adapter's callbacks, or a job."""
    folder = Path(adapters.__file__).parent
    found = {kind for file in folder.rglob("*.py") for kind in said_in(file.read_text(encoding="utf-8"))}
    assert found == set(NAMES.values())
