"""The door against bytes that nobody should send: it takes, skips or refuses, and nothing else."""

import random
import time
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import OrderEvent
from tests.asking import request_of
from tests.shops.events import START_MS, TRUST, EventSpec, confirmed, details, envelope, fold, goods
from tests.unit.core.samples import SAMPLES
from worker.core import intake
from worker.core.effects import OPERATOR_KINDS
from worker.core.order import assess, baseline
from worker.core.trust import HEADER
from worker.errors import MalformedEventError
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount

BODY = msgspec.json.encode(envelope(confirmed(goods("A", 1, 100))))
PLAIN = intake.decode(b"k", BODY, {}, START_MS)
ACCOUNT = SequraAccount("acme", "sequra", "https://sandbox.example", "m", "u", "p")


def _mac(value: bytes) -> dict[str, bytes]:
    """A right one for whatever value: what is to be seen here is what lies behind it."""
    return {HEADER: TRUST.sign(b"k", value)}


def outcome(value: bytes, headers: dict[str, bytes] | None = None) -> OrderEvent | str | None:
    """The event, `None`, or `reason: detail`; whatever else is raised fails the test."""
    try:
        return intake.decode(b"k", value, headers or _mac(value), START_MS, trust=TRUST)
    except MalformedEventError as error:
        return str(error)


def slow_outcome(value: bytes) -> OrderEvent | str | None:
    """What the slow path alone makes of it."""
    try:
        return intake._explain(b"k", value, _mac(value), START_MS, lambda _type: None, TRUST)
    except MalformedEventError as error:
        return str(error)


def plus(members: str) -> bytes:
    """A good event with this text before its last brace."""
    return BODY[:-1] + members.encode("utf-8", "surrogatepass") + b"}"


def in_line(text: str) -> bytes:
    """A good event whose line has this text instead of its quantity."""
    return BODY.replace(b'"quantity":1', text.encode("utf-8", "surrogatepass"))


# --- JSON ----------------------------------------------------------------------------------------------------------

IGNORED_VALUES = [
    "1e400",
    "-1e400",
    "1e99999999999",
    "1" * 5000,
    "-" + "1" * 5000,
    "0." + "1" * 2000,
    "-0",
    "1E+5",
    '"\\ud83d\\ude00"',
    '"\\/\\u0000"',
    '"\x7f"',
    '{"a": 1, "a": 2}',
    "[" * 100 + "]" * 100,
    "null",
]


@pytest.mark.parametrize("value", IGNORED_VALUES, ids=lambda value: value[:20])
def test_valid_json_in_an_unknown_attribute(value: str) -> None:
    """Any JSON may stand in an attribute that we do not know, on the fast path and on the slow one."""
    assert outcome(plus(f',"x":{value}')) == PLAIN
    assert slow_outcome(plus(f',"x":{value}')) == PLAIN


NOT_JSON = [
    "NaN",
    "Infinity",
    "-Infinity",
    "01",
    "1.",
    ".5",
    "1e",
    "-",
    "+1",
    "0x10",
    "'a'",
    "nul",
    "[1,]",
    '{"a":1,}',
    "{1:2}",
    '"\\x"',
    '"\\u12"',
    '"a\nb"',
    '"\x00"',
    "",
]


@pytest.mark.parametrize("value", NOT_JSON)
def test_invalid_json_in_an_unknown_attribute(value: str) -> None:
    """… but only JSON: what a member holds that nobody reads is looked at all the same."""
    assert str(outcome(plus(f',"x":{value}'))).startswith("not_json: $: expected JSON")


@pytest.mark.parametrize("body", [b"", b" ", b"{", BODY[:-1], BODY + b"x", BODY + BODY, b"\xef\xbb\xbf" + BODY])
def test_not_json(body: bytes) -> None:
    """Nothing, half an event, two events, a byte-order mark."""
    assert str(outcome(body)).startswith("not_json: $: expected JSON")


def test_not_json_says_where() -> None:
    """The byte is named, which helps more than a guess."""
    assert outcome(b'{"a": ?}') == "not_json: $: expected JSON, byte 6 is not"


@pytest.mark.parametrize("deep", ["[", '{"a":'])
@pytest.mark.parametrize("place", ["attribute", "member", "whole"])
def test_deep_nesting(deep: str, place: str) -> None:
    """Nesting that exhausts the decoder is refused, wherever it is."""
    text = deep * 100_000
    value = {"attribute": plus(f',"x":{text}'), "member": in_line(f'"name":{text}'), "whole": text.encode()}[place]
    assert str(outcome(value)).startswith("not_json: $: expected JSON, nested less deep")


def test_deep_nesting_beside_a_number_out_of_range() -> None:
    """… also when it is found on the way around the decoder's own limits."""
    assert str(outcome(plus(',"x":1e400,"y":' + "[" * 100_000))).startswith("not_json: $: expected JSON")


# --- UTF-8 ---------------------------------------------------------------------------------------------------------

INVALID_UTF8 = [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]


@pytest.mark.parametrize("wrong", INVALID_UTF8)
def test_invalid_utf8_anywhere(wrong: bytes) -> None:
    """In a value, in a name, in an attribute that nobody reads, outside of any text."""
    for value in (
        BODY.replace(b'"name":"A"', b'"name":"' + wrong + b'"'),
        BODY.replace(b'"name"', b'"' + wrong + b'"'),
        BODY[:-1] + b',"x":"' + wrong + b'"}',
        BODY[:-1] + b',"' + wrong + b'":1}',
        BODY + wrong,
    ):
        index = value.index(wrong)
        assert outcome(value) == f"not_utf8: $: expected UTF-8, byte {index} is not"


def test_utf16_is_not_utf8() -> None:
    """Another encoding is no UTF-8."""
    assert str(outcome(BODY.decode().encode("utf-16"))).startswith("not_utf8: $")


SURROGATES = ['"\\ud800"', '"\\udc00"', '"\\udc00\\ud800"', '"a\\ud83dx"', '{"\\uD800": 1}', '[["\\udfff"]]']


@pytest.mark.parametrize("value", SURROGATES)
def test_lone_surrogates(value: str) -> None:
    """Half of a surrogate pair, escaped, is text that UTF-8 cannot carry: in any value, and in names."""
    expected = "not_utf8: $: expected text that UTF-8 can carry, got half of a surrogate pair"
    assert outcome(plus(f',"x":{value}')) == expected
    assert outcome(in_line(f'"quantity":{value}')) == expected


def test_lone_surrogate_in_what_is_no_json() -> None:
    """What is no JSON has no texts to judge: NaN beside half of a surrogate pair is not JSON."""
    assert outcome(plus(',"x":"\\ud800","y":NaN')) == "not_json: $: expected JSON, byte 278 is not"


def test_surrogate_pairs_are_text() -> None:
    """Both halves together are one character."""
    body = BODY.replace(b'"name":"A"', b'"name":"\\ud83d\\ude00"')
    found = outcome(body)
    assert isinstance(found, OrderEvent)
    assert fold([found]).content is not None


def test_binary_headers_must_be_utf8() -> None:
    """An attribute in a header is UTF-8, too."""
    body = envelope(confirmed(goods("A", 1, 100)))
    headers = {f"ce_{name}": str(value).encode() for name, value in body.items() if name != "data"}
    data = msgspec.json.encode(body["data"])
    assert outcome(data, headers | {"ce_id": b"\xff"}) == "not_utf8: $.id: expected UTF-8"
    assert outcome(data, headers | {"ce_origin": "señor".encode()}) is not None


# --- a member twice ------------------------------------------------------------------------------------------------

TWICE: list[tuple[str, bytes]] = [
    ("type", BODY.replace(b'"type":"order.confirmed"', b'"type":"order.refunded","type":"order.confirmed"')),
    ("foreign type", BODY.replace(b'"type":"order.confirmed"', b'"type":"other","type":"order.confirmed"')),
    ("number as type", BODY.replace(b'"type":"order.confirmed"', b'"type":5,"type":"order.confirmed"')),
    ("data", BODY.replace(b'"data":', b'"data":{"bogus":1},"data":')),
    ("data of another type", BODY.replace(b'"data":', b'"data":[],"data":')),
    ("id", BODY.replace(b'"id":', b'"id":5,"id":')),
    ("time", BODY.replace(b'"time":', b'"time":"never","time":')),
    ("currency", BODY.replace(b'"currency":', b'"currency":7,"currency":')),
    ("quantity", in_line('"quantity":-3,"quantity":1')),
    ("lines", BODY.replace(b'"lines":', b'"lines":[],"lines":')),
]


@pytest.mark.parametrize("body", [row[1] for row in TWICE], ids=[row[0] for row in TWICE])
def test_last_of_a_member_given_twice_counts(body: bytes) -> None:
    """A member given twice is no error: the last one counts, also when the first is wrong."""
    assert body != BODY
    assert outcome(body) == PLAIN


LAST_WRONG: list[tuple[bytes, str | None]] = [
    (plus(',"type":"order.refunded"'), "invalid_data: $.data: expected no member currency"),
    (plus(',"type":"order.bogus"'), "unknown_type: $.type: expected a type of order.*, got order.bogus"),
    (plus(',"type":"other"'), None),
    (plus(',"type":5'), "not_cloudevents: $.type: expected a type, got 5"),
    (plus(',"data":5'), "not_cloudevents: $.data: expected an object, got 5"),
    (plus(',"id":""'), "not_cloudevents: $.id: expected a text that is not empty, got an empty text"),
    (
        in_line('"quantity":1,"quantity":-3'),
        "invalid_data: $.data.lines[0].quantity: expected an integer from 1 to 1000000, got -3",
    ),
]


@pytest.mark.parametrize(("body", "expected"), LAST_WRONG)
def test_last_of_a_member_given_twice_is_judged(body: bytes, expected: str | None) -> None:
    """… and refused when the last one is wrong, though the first was right."""
    assert outcome(body) == expected


def test_other_type_given_last_counts_with_its_data() -> None:
    """The last type and the last data belong together."""
    found = outcome(plus(',"type":"order.refunded","data":{"refund_id":"f","amount_minor":1}'))
    assert isinstance(found, OrderEvent)
    assert type(found.data).__name__ == "RefundedData"


# --- numbers ---------------------------------------------------------------------------------------------------------

NUMBERS = [
    ("9" * 23, "9" * 23),
    ("-" + "9" * 400, "a number of 401 characters"),
    ("1" * 5000, "a number out of range"),
    ("-" + "1" * 5000, "a number out of range"),
    ("1e400", "a number out of range"),
    ("-1e400", "a number out of range"),
    ("1e3", "1000.0"),
    ("2.0", "2.0"),
    ("-0.0", "-0.0"),
    ("-0", "0"),
]


@pytest.mark.parametrize(("number", "got"), NUMBERS, ids=[row[1] for row in NUMBERS])
def test_numbers_of_any_size(number: str, got: str) -> None:
    """A number that no integer or float can hold is a number out of range, not broken JSON."""
    expected = f"invalid_data: $.data.lines[0].quantity: expected an integer from 1 to 1000000, got {got}"
    assert outcome(in_line(f'"quantity":{number}')) == expected


# --- texts that look like the decoder's own words --------------------------------------------------------------------

FORGED = ["x - at `$.lines[9]`", "x` - at `$.lines[9].foo`\n", "\n` - at `$.lines[5]", " - at `$", "`", "' - at `$[0]`"]


@pytest.mark.parametrize("text", FORGED)
def test_forged_paths_lead_nowhere(text: str) -> None:
    """A text of the event that looks like a path of the decoder is not followed, and not quoted."""
    assert outcome(msgspec.json.encode(envelope(confirmed(goods("A", 1, 1), payment_state=text)))) == (
        "invalid_data: $.data.payment_state: expected one of approved, on_hold, got a text"
    )
    line = goods("A", 1, 1) | {"type": text}
    found = str(outcome(msgspec.json.encode(envelope(confirmed(line)))))
    assert found.startswith("invalid_data: $.data.lines[0].type: expected one of discount, ")
    line = goods("A", 1, 1) | {text: 1}
    found = str(outcome(msgspec.json.encode(envelope(confirmed(line)))))
    assert found.startswith("invalid_data: $.data.lines[0]: expected no member")
    found = str(outcome(msgspec.json.encode(envelope(details(**{text: 1})))))
    assert found.startswith("invalid_data: $.data")
    assert "expected no member" in found
    assert "\n" not in found


# --- anything at all -----------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes(value: bytes) -> None:
    """Bytes of any kind are an event, nothing, or a refusal; and both paths say the same."""
    assert outcome(value) == slow_outcome(value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(_JSON)
def test_random_json(value: Any) -> None:
    """So is JSON of any kind, as the event, as its data, and as each of its attributes."""
    body = envelope(confirmed(goods("A", 1, 100)))
    for each in (value, body | {"data": value}, *(body | {name: value} for name in intake.ATTRIBUTES)):
        encoded = msgspec.json.encode(each)
        assert outcome(encoded) == slow_outcome(encoded)


SALT: list[Any] = [
    None,
    True,
    0,
    -1,
    10**13,
    1.5,
    "",
    "A",
    "x - at `$.a`",
    "é" * 1001,
    [],
    {},
    [None],
    {"a": 1},
    "postal",
    "2026-02-30",
]


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with a member changed, removed, added, doubled or moved somewhere inside."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        action = chance.random()
        if action < 0.5:
            return value | {key: mutated(value[key], chance)}
        if action < 0.7:
            return {name: value[name] for name in value if name != key}
        if action < 0.85:
            return value | {
                chance.choice(["line_id", "type", "bogus", "quantity", "a\nb` - at `$"]): chance.choice(SALT)
            }
        return value | {key: value[chance.choice(list(value))]}
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        if chance.random() < 0.6:
            return [*value[:index], mutated(value[index], chance), *value[index + 1 :]]
        return value[:index] + value[index + 1 :] if chance.random() < 0.5 else [*value, value[index]]
    return chance.choice(SALT)


@settings(max_examples=1500)
@given(st.sampled_from(SAMPLES), st.integers(0, 2**32))
def test_mutated_events(told: EventSpec, seed: int) -> None:
    """A good event with something changed is judged the same on both paths; what is taken can be reduced and told."""
    chance = random.Random(seed)
    body: Any = envelope(told)
    for _ in range(chance.randrange(1, 4)):
        body = mutated(body, chance)
    value = msgspec.json.encode(body)
    found = outcome(value)
    assert found == slow_outcome(value)
    if isinstance(found, OrderEvent) and type(found.data) not in OPERATOR_KINDS:
        base = intake.decode(b"k", BODY, {}, START_MS)
        assert base is not None
        facts = fold([base, found])
        for order in (assess(facts, "1").order, baseline(facts, "1")):
            if order is not None:
                update = Sequra().render(order, ACCOUNT)
                assert update.problem or request_of(Sequra(), order, ACCOUNT).body


@settings(max_examples=500)
@given(st.sampled_from(SAMPLES), st.data())
def test_mutated_bytes(told: EventSpec, data: st.DataObject) -> None:
    """So is one with bytes changed, whatever comes of them."""
    value = bytearray(msgspec.json.encode(envelope(told)))
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(value) - 1))
        value[index : index + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"\xff", b"\x00", b"{", b"}", b"0", b"-", b"e", b"\\ud800", b",", b"null"]
            )
        )
    found = outcome(bytes(value))
    assert found == slow_outcome(bytes(value))
    event_id, subject = intake.identify(bytes(value), {})
    if isinstance(found, OrderEvent):
        order = found.subject if "/" in found.subject else ""  # an account is no order
        assert (event_id, subject) == (intake.shown_id(found.id, found.uid), order)


# --- the largest events ------------------------------------------------------------------------------------------------

ENVELOPE = (
    '{"specversion":"1.0","id":"1","source":"/s","type":"order.%s","time":"2026-03-01T00:00:00Z","subject":"acme/1"'
)


def largest(kind: str, before: str, item: str, after: str) -> bytes:
    """An event of just under 1 MiB: so many items of a list in its data."""
    head = ENVELOPE % kind + f',"data":{{{before}['
    count = (intake.VALUE_MAX_BYTES - len(head) - len(after) - 3) // (len(item) + 1)
    return (head + ",".join([item] * count) + f"]{after}}}}}").encode()


LARGEST = {
    "an unknown member, nested": largest("cancelled", '"x":', "[[[[]]]]", ""),
    "an unknown member, of objects": largest("cancelled", '"x":', '{"a":0}', ""),
    "lines that are none": largest("confirmed", '"currency":"EUR","lines":', "[]", ""),
    "a number out of range first": largest("refunded", '"refund_id":"f","amount_minor":1e400,"x":', "1", ""),
    "half a surrogate pair last": largest("cancelled", '"x":', '"\\ud83d\\ude00"', ',"reason":"\\ud800"'),
    "another type": largest("cancelled", '"x":', "[[[[]]]]", "").replace(b'"order.', b'"stock.'),
    "no time": largest("cancelled", '"x":', "[[[[]]]]", "").replace(b'"2026-', b'"soon-'),
}


@pytest.mark.parametrize("name", LARGEST)
def test_largest_events_cost_little(name: str) -> None:
    """What is refused or skipped is not made into Python's objects: that alone took 100 ms for a value of 1 MiB.

    About 10 to 50 ms each; the bound leaves room for a slow machine, not for a second decode of each part.
    """
    value = LARGEST[name]
    assert intake.VALUE_MAX_BYTES - 50 < len(value) <= intake.VALUE_MAX_BYTES
    took_s = min(_process_s(value) for _ in range(3))
    bare_s = min(_bare_s(value) for _ in range(3))
    assert took_s < max(0.2, 8 * bare_s)


def _process_s(value: bytes) -> float:
    began = time.process_time()
    assert not isinstance(outcome(value), OrderEvent)
    return time.process_time() - began


def _bare_s(value: bytes) -> float:
    """The time that only looking over it takes."""
    began = time.process_time()
    with suppress(msgspec.DecodeError):
        msgspec.json.decode(value, type=msgspec.Raw)
    return time.process_time() - began


def test_nesting_that_only_the_second_look_finds() -> None:
    """A value nested as deep as the decoder just takes is taken or refused at any depth of our own stack."""

    def at_depth(depth: int) -> None:
        if depth:
            at_depth(depth - 1)
            return
        for nested in range(50, 1100, 50):
            said = outcome(in_line(f'"name":{"[" * nested}{"]" * nested}'))
            assert str(said).startswith(
                ("invalid_data: $.data.lines[0]", "not_json: $: expected JSON, nested less deep")
            )

    for depth in (0, 100, 400):
        at_depth(depth)
