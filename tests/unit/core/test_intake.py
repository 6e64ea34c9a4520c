"""Every refusal of `CONTRACT.md` section 4, with reason, path and wording, and which of several is given."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from schemas import events as e
from tests.shops.events import (
    START_MS,
    START_US,
    SUBJECT,
    TRUST,
    EventSpec,
    cancelled,
    confirmed,
    envelope,
    event,
    goods,
    said,
)
from tests.unit.core.samples import FULL, MINIMAL, SAMPLES
from worker.core import intake
from worker.core.trust import GUARDED, HEADER, Trust
from worker.errors import MalformedEventError

HOUR_MS = 3_600_000
SHIPPED = EventSpec("order.items_shipped", MINIMAL["order.items_shipped"])


def encode(body: Any) -> bytes:
    """The JSON of a record's value."""
    return msgspec.json.encode(body)


def decode(
    value: bytes | None, headers: Mapping[str, bytes] | None = None, key: bytes | None = b"k"
) -> e.OrderEvent | None:
    """What the door makes of a record whose own timestamp is the start of March; `None`: it is skipped."""
    return intake.decode(key, value, headers or {}, START_MS, trust=TRUST)


def refusal(value: bytes | None, headers: Mapping[str, bytes] | None = None, key: bytes | None = b"k") -> str:
    """`reason: detail` of a record that the door must refuse."""
    with pytest.raises(MalformedEventError) as raised:
        decode(value, headers, key)
    assert str(raised.value) == f"{raised.value.reason}: {raised.value.detail}"
    return str(raised.value)


def with_attributes(**attributes: Any) -> bytes:
    """A good event but for these attributes; `None` leaves one out."""
    body = envelope(SHIPPED) | attributes
    return encode({name: value for name, value in body.items() if value is not None})


def binary(told: EventSpec = SHIPPED, **headers: Any) -> dict[str, bytes]:
    """The headers of an event in binary mode."""
    body = envelope(told)
    attributes = {f"ce_{name}": str(value).encode() for name, value in body.items() if name != "data"}
    return attributes | {"content-type": b"application/json"} | headers


# --- what is accepted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told", [one for one in SAMPLES if not one.type.startswith(GUARDED)], ids=lambda told: told.type
)
def test_samples_are_accepted_in_both_modes(told: EventSpec) -> None:
    """Each type, with all members and with the fewest, means the same in structured and in binary mode."""
    structured = decode(encode(envelope(told)))
    assert structured is not None
    assert structured.subject == SUBJECT
    assert structured.time_us == START_US + 1_000_000
    assert (structured.sequence, structured.origin, structured.traceparent) == (-1, None, None)
    assert decode(encode(told.data), binary(told)) == structured


@pytest.mark.parametrize("told", [one for one in SAMPLES if one.type.startswith(GUARDED)], ids=lambda told: told.type)
def test_samples_of_providers_are_accepted_with_their_mac(told: EventSpec) -> None:
    """What a provider says is taken with its MAC, on the fast path and on the slow one (an attribute given as null)."""
    subject = told.attributes.get("subject", SUBJECT)
    for body in (envelope(told), envelope(told) | {"sequence": None, "subject": subject}):
        value = encode(body)
        found = decode(value, {HEADER: TRUST.sign(b"k", value)})
        assert found is not None
        assert (found.subject, found.is_final) == (subject, False)


@pytest.mark.parametrize(
    ("kind", "subject", "expected"),
    [
        (
            "operator.pause",
            SUBJECT,
            "$.subject: expected an account's name of 1 to 100 characters, without a slash, got a text",
        ),
        ("operator.note", "acme", "$.subject: expected <account>/<order reference>"),
        ("operator.novel", "acme", "$.subject: expected <account>/<order reference>"),
    ],
)
def test_subject_is_an_order_or_an_account(kind: str, subject: str, expected: str) -> None:
    """What it has to be is up to the type."""
    told = EventSpec(kind, {"by": "ana", "why": "?"}, {"subject": subject})
    assert refusal(*signed(told)).startswith(f"not_cloudevents: {expected}")


@pytest.mark.parametrize(
    ("source", "is_final"),
    [
        ("/cartsync/acme/webhook", True),
        ("/cartsync/acme/ipn", True),
        ("/cartsync/acme/order-status", False),
        ("/cartsync/acme/notification", False),
        ("/cartsync/acme/webhook/2", False),
        ("/shops/acme/webhook", False),
    ],
)
def test_source_says_who_cannot_be_asked(source: str, is_final: bool) -> None:
    """seQura alone has a webhook and an IPN, and nobody can ask it; of the shop's events nothing of the kind is said."""
    for body in (envelope(said("risk", level="x").but(source=source)), envelope(SHIPPED.but(source=source))):
        value = encode(body)
        found = decode(value, {HEADER: TRUST.sign(b"k", value)})
        assert found is not None
        assert found.is_final == (is_final and body["type"].startswith(GUARDED))


def test_all_attributes_are_read() -> None:
    """Sequence, origin and traceparent come along, in both modes."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    told = SHIPPED.but(sequence="000042", origin="sequra", traceparent=trace)
    found = decode(encode(envelope(told)))
    assert found is not None
    assert (found.sequence, found.origin, found.traceparent) == (42, "sequra", trace)
    assert decode(encode(told.data), binary(told)) == found


def test_data_keeps_what_was_given() -> None:
    """Members that were not given are unset, defaults of the contract are filled in."""
    found = decode(
        encode(
            envelope(EventSpec("order.items_returned", {"return_id": "r", "lines": [{"line_id": "A", "quantity": 1}]}))
        )
    )
    assert found is not None
    assert isinstance(found.data, e.ItemsReturnedData)
    assert (found.data.origin, found.data.fee_minor) == ("shipped", msgspec.UNSET)
    stop = decode(encode(envelope(EventSpec("order.cancelled", {}))))
    assert stop is not None
    assert isinstance(stop.data, e.CancelledData)
    assert stop.data.by == "merchant"


def test_unknown_attributes_are_ignored() -> None:
    """Extension attributes that we do not know do no harm, whatever they hold."""
    plain = decode(with_attributes())
    assert decode(with_attributes(tenant="x", datacontenttype="application/json", nested={"a": [1, {}]})) == plain
    headers = binary(ce_tenant=b"\xff\xfe", other=b"\xff")
    assert decode(encode(SHIPPED.data), headers) == plain


@pytest.mark.parametrize("name", ["sequence", "traceparent", "origin"])
def test_null_of_an_optional_attribute_is_absence(name: str) -> None:
    """CloudEvents knows no null: an optional attribute that is null was not given."""
    body = envelope(SHIPPED) | {name: None}
    assert decode(encode(body)) == decode(with_attributes())
    wrong = envelope(SHIPPED) | {name: None, "data": {}}
    assert refusal(encode(wrong)) == "invalid_data: $.data: expected a member shipment_id"


def test_record_without_value_is_skipped() -> None:
    """A tombstone is no event, whatever its key."""
    assert decode(None) is None
    assert decode(None, key=None) is None


@pytest.mark.parametrize("kind", ["provider", "customer.created", "order", "orders.x", " order.cancelled"])
def test_types_outside_order_are_skipped(kind: str) -> None:
    """… before their envelope is looked at, in both modes."""
    assert decode(encode({"type": kind})) is None
    assert decode(encode({"type": kind, "data": 5, "time": "nonsense"})) is None
    assert decode(b"[]", {"ce_specversion": b"9", "ce_type": kind.encode()}) is None
    assert decode(b"\x00avro\xff", {"ce_specversion": b"1.0", "ce_type": kind.encode()}) is None


def lookalikes(value: bytes, headers: Mapping[str, bytes] | None = None) -> list[str]:
    """What is told of types like ours in a record that is skipped."""
    told: list[str] = []
    assert intake.decode(b"k", value, headers or {}, START_MS, told.append) is None
    return told


@pytest.mark.parametrize("kind", ["com.acme.order.confirmed", "Order.Items_Shipped", "shop-order.cancelled.v1"])
def test_foreign_types_that_look_like_ours(kind: str) -> None:
    """A type outside of `order.*` with the name of one of ours in it is skipped, but told apart."""
    assert lookalikes(encode({"type": kind})) == [kind]
    assert lookalikes(b"", {"ce_specversion": b"1.0", "ce_type": kind.encode()}) == [kind]


def test_foreign_types_that_are_no_names() -> None:
    """… and not named when it may hold more than a name; only its beginning is looked at."""
    for kind in (" order.cancelled", "maria@example.com order.confirmed", "x" * 60 + ".order.refunded"):
        assert lookalikes(encode({"type": kind})) == [""]
    assert lookalikes(encode({"type": "x" * 200 + "order.refunded"})) == []
    assert lookalikes(encode({"type": "orders.x"})) == []


# --- whom we believe ---------------------------------------------------------------------------------------------


def signed(told: EventSpec, trust: Trust = TRUST, key: bytes = b"k") -> tuple[bytes, dict[str, bytes]]:
    """Value and headers of what a provider or an operator says."""
    value = encode(envelope(told))
    return value, {HEADER: trust.sign(key, value)}


RISK = said("risk", level="low_risk")
OPERATED = EventSpec("operator.release", {"by": "ana"})


@pytest.mark.parametrize("told", [RISK, OPERATED, said("novel", what=1), said("risk", levle="x")])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "expected a header with the MAC of key and value, got nothing"),
        ({HEADER: b""}, "expected the MAC of key and value under one of [callbacks] record_secrets, got another"),
        (
            {HEADER: b"\xff" * 64},
            "expected the MAC of key and value under one of [callbacks] record_secrets, got another",
        ),
        ({HEADER: b"0" * 64}, "expected the MAC of key and value under one of [callbacks] record_secrets, got another"),
    ],
)
def test_without_a_right_mac_nobody_is_believed(told: EventSpec, headers: dict[str, bytes], expected: str) -> None:
    """Whatever it says, right or wrong, known or not."""
    assert refusal(encode(envelope(told)), headers) == f"not_trusted: {HEADER}: {expected}"


def test_mac_is_of_this_key_and_value() -> None:
    """That of another record, or of the same under another key, is no right one."""
    value, headers = signed(RISK)
    assert decode(value, headers) is not None
    assert refusal(value + b" ", headers).startswith("not_trusted")
    assert refusal(value, headers, key=b"k2").startswith("not_trusted")
    assert refusal(*signed(RISK, Trust(["another secret that is long enough"]))).startswith("not_trusted")


def test_nobody_is_believed_without_secrets() -> None:
    """A worker that has none to check by believes nothing."""
    value, headers = signed(RISK)
    with pytest.raises(MalformedEventError) as raised:
        intake.decode(b"k", value, headers, START_MS)
    assert str(raised.value) == f"not_trusted: {HEADER}: expected [callbacks] record_secrets to check it by, got none"


@pytest.mark.parametrize("told", [RISK, OPERATED])
def test_binary_mode_is_not_believed(told: EventSpec) -> None:
    """The MAC covers no header, and there the headers say it all."""
    value = encode(told.data)
    found = refusal(value, binary(told) | {HEADER: TRUST.sign(b"k", value)})
    assert found == "not_trusted: $: expected structured mode, as the MAC covers no header, got binary mode"


def test_believed_types_that_are_unknown_are_skipped() -> None:
    """With a right MAC, and a name of ours in it is told."""
    for told in (EventSpec("operator.novel", {"by": "ana"}), said("novel", what=1)):
        assert decode(*signed(told)) is None
    value, headers = signed(said("risk_score", level=1))
    told_of: list[str] = []
    assert intake.decode(b"k", value, headers, START_MS, told_of.append, TRUST) is None
    assert told_of == ["provider.risk_score"]


def test_believed_data_may_be_wrong() -> None:
    """With a right MAC it is judged as the shop's is."""
    assert refusal(*signed(said("card_saved", id="1", brand="Visa", last4="424242"))) == (
        "invalid_data: $.data.last4: expected four digits as text, got a text"
    )
    value, headers = signed(said("shipping", provider="Ingrid", success=True, payload={"a": "x" * (1 << 16)}))
    assert refusal(value, headers) == "invalid_data: $.data.payload: expected at most 65536 bytes of JSON"
    fits = said("shipping", provider="Ingrid", success=True, payload="x" * ((1 << 16) - 2))
    assert decode(*signed(fits)) is not None


# --- the record ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, b""])
def test_no_key(key: bytes | None) -> None:
    """A record without a key is refused: its order could be spread over partitions."""
    assert refusal(with_attributes(), key=key).startswith("no_key: key: expected a record key")


def test_too_large() -> None:
    """1 MiB is taken, a byte more is not."""
    body = with_attributes()
    fits = body + b" " * ((1 << 20) - len(body))
    assert decode(fits) is not None
    assert refusal(fits + b" ") == "too_large: $: expected at most 1048576 bytes, got 1048577"


# --- the envelope ------------------------------------------------------------------------------------------------

TIME = "an RFC 3339 time with an offset, up to nanoseconds"
SUBJECT_RULE = (
    "<account>/<order reference>, the account of 1 to 100 characters, the reference of 1 to 200, no part of it . or .."
)
EXPECTED = {
    "specversion": "the text 1.0",
    "id": "a text that is not empty",
    "source": "a text that is not empty",
    "time": TIME,
    "subject": SUBJECT_RULE,
    "sequence": "1 to 18 digits as text or null",
    "traceparent": "a W3C traceparent or null",
    "origin": "a text or null",
}


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "time", "subject", "data"])
def test_missing_attribute(name: str) -> None:
    """A missing attribute is named."""
    expected = f"not_cloudevents: $.{name}: expected a member {name}, got nothing"
    assert refusal(with_attributes(**{name: None})) == expected


@pytest.mark.parametrize("name", ["id", "source", "type", "time", "subject"])
def test_missing_attribute_in_binary_mode(name: str) -> None:
    """… with the same path in binary mode."""
    headers = binary()
    del headers[f"ce_{name}"]
    expected = f"not_cloudevents: $.{name}: expected a member {name}, got nothing"
    assert refusal(encode(SHIPPED.data), headers) == expected


ODD: list[tuple[Any, str]] = [(5, "5"), (True, "true"), (1.5, "1.5"), ([], "a list"), ({}, "an object")]


@pytest.mark.parametrize(("value", "got"), ODD, ids=[row[1] for row in ODD])
@pytest.mark.parametrize("name", EXPECTED)
def test_attribute_of_wrong_type(name: str, value: Any, got: str) -> None:
    """A wrong attribute is refused with what was expected and what stood there."""
    assert (
        refusal(with_attributes(**{name: value})) == f"not_cloudevents: $.{name}: expected {EXPECTED[name]}, got {got}"
    )


@pytest.mark.parametrize("name", ["specversion", "id", "source", "time", "subject"])
def test_null_of_a_required_attribute(name: str) -> None:
    """A required attribute must not be null."""
    body = encode(envelope(SHIPPED) | {name: None})
    assert refusal(body) == f"not_cloudevents: $.{name}: expected {EXPECTED[name]}, got null"


@pytest.mark.parametrize(("value", "got"), [*ODD, (None, "null"), ("", "an empty text")])
def test_type_of_wrong_type(value: Any, got: str) -> None:
    """The type must be a text with something in it."""
    assert (
        refusal(encode(envelope(SHIPPED) | {"type": value})) == f"not_cloudevents: $.type: expected a type, got {got}"
    )


@pytest.mark.parametrize(("value", "got"), [*ODD[:4], (None, "null"), ("{}", "a text")])
def test_data_must_be_an_object(value: Any, got: str) -> None:
    """`data` is an object in both modes."""
    expected = f"not_cloudevents: $.data: expected an object, got {got}"
    assert refusal(encode(envelope(SHIPPED) | {"data": value})) == expected
    assert refusal(encode(value), binary()) == expected


def test_data_base64_and_batches_are_not_supported() -> None:
    """Base64 data is no `data`, a list of events is no event."""
    body = envelope(SHIPPED)
    del body["data"]
    assert refusal(encode(body | {"data_base64": "e30="})).startswith("not_cloudevents: $.data: expected a member data")
    assert refusal(encode([envelope(SHIPPED)])) == "not_cloudevents: $: expected an object, got a list"


@pytest.mark.parametrize(("body", "got"), [(b"5", "5"), (b"null", "null"), (b'"x"', "a text"), (b"false", "false")])
def test_value_must_be_an_object(body: bytes, got: str) -> None:
    """Other JSON is no event."""
    assert refusal(body) == f"not_cloudevents: $: expected an object, got {got}"


WRONG_ATTRIBUTES: list[tuple[str, str]] = [
    *(("specversion", text) for text in ("1.1", "0.3", "1", "", "1.0 ")),
    ("id", ""),
    ("source", ""),
    *(("subject", text) for text in ("", "acme", "acme/", "/1", "/", "acme/" + "x" * 201, "a" * 101 + "/1")),
    *(
        ("subject", f"acme/{text}")
        for text in (".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "/..", "../")
    ),
    *(("sequence", text) for text in ("", "-1", "1.0", " 1", "1\n", "1e3", "٣", "1" * 19, "None", "1\nNone")),
    *(
        ("traceparent", text)
        for text in ("", "None", "00-x", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01")
    ),
]


@pytest.mark.parametrize(("name", "text"), WRONG_ATTRIBUTES)
def test_attribute_with_wrong_text(name: str, text: str) -> None:
    """A text is never quoted: only that it is one; the same in binary mode."""
    got = "a text" if text else "an empty text"
    expected = f"not_cloudevents: $.{name}: expected {EXPECTED[name]}, got {got}"
    assert refusal(with_attributes(**{name: text})) == expected
    assert refusal(encode(SHIPPED.data), binary() | {f"ce_{name}": text.encode()}) == expected


GOOD_ATTRIBUTES: list[tuple[str, str]] = [
    *(
        ("subject", text)
        for text in ("a/b", "a/b/c", "a//", "a/...", "a/. ", "a/.\n", "a/.b/c..", "./a", "a" * 100 + "/1")
    ),
    *(("subject", text) for text in ("a/" + "x" * 200, "a/😀" * 28, "ñ/\n")),
    *(("sequence", text) for text in ("0", "000", "9" * 18)),
    ("origin", ""),
    ("id", " "),
    ("source", "x" * 5000),
    ("traceparent", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"),
]


@pytest.mark.parametrize(("name", "text"), GOOD_ATTRIBUTES)
def test_attribute_at_its_bounds(name: str, text: str) -> None:
    """What the contract just allows is taken."""
    assert decode(with_attributes(**{name: text})) is not None


def test_subject_is_split_at_its_first_slash() -> None:
    """The reference may hold other slashes; it has at most 200 characters, not bytes."""
    found = decode(with_attributes(subject="acme/" + "/ñ" * 100))
    assert found is not None
    assert found.subject == "acme/" + "/ñ" * 100


# --- times -------------------------------------------------------------------------------------------------------

GOOD_TIMES = {
    "2026-02-28T22:00:00Z": -7_200_000_000,
    "2026-03-01t00:00:00z": 0,
    "2026-03-01T00:00:00.1Z": 100_000,
    "2026-03-01T00:00:00.000001Z": 1,
    "2026-03-01T02:00:00.123456+02:00": 123_456,
    "2026-03-01T00:00:00.1234567Z": 123_456,
    "2026-03-01T00:00:00.123456999Z": 123_456,
    "2026-03-01T02:00:00.999999999+02:00": 999_999,
    "2026-02-28T23:59:59.999999999Z": -1,
    "2026-02-28T18:30:00-05:30": 0,
    "2026-03-01T23:59:00+23:59": 0,
    "2026-03-01T00:00:00-00:00": 0,
    "0001-01-01T00:00:00+23:59": -63_907_920_000_000_000 - 86_340_000_000,
}


@pytest.mark.parametrize("text", GOOD_TIMES)
def test_time_is_read_to_the_microsecond(text: str) -> None:
    """Offsets, lower-case letters and fractions mean what RFC 3339 says; digits beyond microseconds are cut."""
    found = decode(with_attributes(time=text))
    assert found is not None
    assert found.time_us - START_US == GOOD_TIMES[text]


NO_OFFSET, NO_MOMENT = "a time without an offset", "a moment that does not exist"
BAD_TIMES = {
    "2026-03-01T00:00:00": NO_OFFSET,
    "2026-03-01T00:00:00.123": NO_OFFSET,
    "2026-03-01 00:00:00Z": "a text",
    "2026-03-01T00:00Z": "a text",
    "2026-03-01": "a text",
    "20260301T000000Z": "a text",
    "2026-3-1T0:0:0Z": "a text",
    "2026-03-01T00:00:00.1234567890Z": "10 fraction digits",
    "2026-03-01T00:00:00.123456789012+01:00": "12 fraction digits",
    "2026-03-01T00:00:00.Z": "a text",
    "2026-03-01T00:00:00,5Z": "a text",
    "2026-03-01T23:59:60Z": NO_MOMENT,
    "2026-12-31T23:59:60+00:00": NO_MOMENT,
    "2026-03-01T24:00:00Z": NO_MOMENT,
    "2026-03-01T00:60:00Z": NO_MOMENT,
    "2026-02-29T00:00:00Z": NO_MOMENT,
    "2026-13-01T00:00:00Z": NO_MOMENT,
    "2026-00-01T00:00:00Z": NO_MOMENT,
    "0000-01-01T00:00:00Z": NO_MOMENT,
    "2026-03-01T00:00:00+24:00": "a text",
    "2026-03-01T00:00:00+01:60": "a text",
    "2026-03-01T00:00:00+0100": "a text",
    "2026-03-01T00:00:00+01": "a text",
    "2026-03-01T00:00:00Z\n": "a text",
    " 2026-03-01T00:00:00Z": "a text",
    "\uff12026-03-01T00:00:00Z": "a text",
    "2026-03-01T00:00:00.٣Z": "a text",
    "": "an empty text",
}


@pytest.mark.parametrize("text", BAD_TIMES)
def test_wrong_time(text: str) -> None:
    """Ten digits, leap seconds, a missing offset, days that do not exist: refused, in the envelope and in data, and the
    cause is said.
    """
    expected = f"not_cloudevents: $.time: expected {TIME}, got {BAD_TIMES[text]}"
    assert refusal(with_attributes(time=text)) == expected
    assert refusal(encode(SHIPPED.data), binary(ce_time=text.encode())) == expected
    told = EventSpec("order.items_delivered", {"shipment_id": "s", "delivered_at": text})
    assert refusal(encode(envelope(told))).startswith(f"invalid_data: $.data.delivered_at: expected {TIME}")


def test_times_in_data_are_cut_to_microseconds() -> None:
    """What is kept, and told to a provider, has at most six fraction digits, whatever way the event came in."""
    tracking = {"reference": "T", "type": "pickup_point"} | {
        "delivered_at": "2026-03-01T02:00:00.123456789+02:00",
        "available_at": "2026-03-01T00:00:00.1234567Z",
    }
    told = SHIPPED.but()
    data = SHIPPED.data | {"shipped_at": "2026-03-01T00:00:00.999999999Z", "tracking": [tracking]}
    for found in (
        decode(encode(envelope(told) | {"data": data})),
        decode(encode(data), binary(told)),
        decode(encode(envelope(told) | {"data": data}).replace(b'"lines":', b'"lines":[],"lines":')),
    ):
        assert isinstance(found, e.OrderEvent)
        assert isinstance(found.data, e.ItemsShippedData)
        assert found.data.shipped_at == "2026-03-01T00:00:00.999999Z"
        assert isinstance(found.data.tracking, list)
        assert found.data.tracking[0].delivered_at == "2026-03-01T02:00:00.123456+02:00"
        assert found.data.tracking[0].available_at == "2026-03-01T00:00:00.123456Z"
    delivered = decode(
        encode(
            envelope(
                EventSpec("order.items_delivered", {"shipment_id": "s", "delivered_at": "2026-03-01T00:00:00.1+02:00"})
            )
        )
    )
    assert isinstance(delivered, e.OrderEvent)
    assert isinstance(delivered.data, e.ItemsDeliveredData)
    assert delivered.data.delivered_at == "2026-03-01T00:00:00.1+02:00"


def test_time_ahead_of_the_record() -> None:
    """Exactly 24 h ahead of the record's own timestamp is taken, one microsecond more is not."""
    assert decode(with_attributes(time="2026-03-02T00:00:00Z")) is not None
    expected = "not_cloudevents: $.time: expected a time at most 24 h ahead of the record's timestamp"
    assert refusal(with_attributes(time="2026-03-02T00:00:00.000001Z")) == expected
    assert refusal(encode(SHIPPED.data), binary(ce_time=b"9999-12-31T23:59:59-23:59")) == expected
    late = intake.decode(b"k", with_attributes(time="2026-03-02T00:00:00.001Z"), {}, START_MS + 1)
    assert late is not None


@pytest.mark.parametrize("timestamp_ms", [0, -1])
def test_record_without_a_timestamp(timestamp_ms: int) -> None:
    """A timestamp of 0 or -1 is none: there is nothing to compare the time with, in both modes."""
    told = SHIPPED.but(time="9999-12-31T23:59:59Z")
    assert isinstance(intake.decode(b"k", encode(envelope(told)), {}, timestamp_ms), e.OrderEvent)
    assert isinstance(intake.decode(b"k", encode(told.data), binary(told), timestamp_ms), e.OrderEvent)


def test_time_may_be_any_time_ago() -> None:
    """An old event is an event."""
    assert decode(with_attributes(time="1969-12-31T23:59:59.999999Z")) is not None


# --- the type and the data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["order.", "order.items_shiped", "order.Confirmed", "order.confirmed "])
def test_unknown_type(kind: str) -> None:
    """A type inside `order.*` that does not exist is named as far as it looks like a name."""
    got = "a text of 16 characters" if " " in kind else kind
    expected = f"unknown_type: $.type: expected a type of order.*, got {got}"
    assert refusal(with_attributes(type=kind)) == expected
    assert refusal(encode(SHIPPED.data), binary(ce_type=kind.encode())) == expected


NAMES = {
    "x" * 64: True,
    "a.B_c-9": True,
    "x" * 65: False,
    "a\nb": False,
    "maria.lopez@example.com": False,
    "señas": False,
    "": False,
}


@pytest.mark.parametrize("name", NAMES)
def test_only_names_are_quoted(name: str) -> None:
    """An unknown member is named when it looks like a name; otherwise only its length is told."""
    shown = name if NAMES[name] else f"of this name ({len(name)} characters)"
    told = EventSpec("order.cancelled", {name: 1})
    assert refusal(encode(envelope(told))) == f"invalid_data: $.data: expected no member {shown}"


@pytest.mark.parametrize("member", ["customer", "delivery_address", "invoice_address"])
def test_numbers_of_a_person_are_not_quoted(member: str) -> None:
    """Many shops write a phone as a number: it must not get into a log by being refused."""
    inner = "nin" if member == "customer" else "phone"
    for value in (600123456, {inner: 600123456}, {inner: -1.5}):
        told = EventSpec("order.details_changed", {member: value})
        said = refusal(encode(envelope(told)))
        assert said.startswith(f"invalid_data: $.data.{member}")
        assert said.endswith(", got a number")
    told = EventSpec("order.details_changed", {member: {inner: True}})
    assert refusal(encode(envelope(told))).endswith(", got true")


def test_only_names_of_types_are_quoted() -> None:
    """So is an unknown type."""
    assert refusal(with_attributes(type="order." + "x" * 58)).endswith("got order." + "x" * 58)
    assert refusal(with_attributes(type="order." + "x" * 59)).endswith("got a text of 65 characters")
    assert refusal(with_attributes(type="order.maria@example.com")).endswith("got a text of 23 characters")


MISNAMED = ["CE_{}", "Ce_{}", "ce-{}", "CE-{}"]


@pytest.mark.parametrize("form", MISNAMED)
def test_headers_that_are_not_ours(form: str) -> None:
    """Headers in upper case, or as HTTP writes them, make no binary mode: what is refused then says why."""
    headers = {form.format(name[3:].upper() if "C" in form else name[3:]): text for name, text in binary().items()}
    found = refusal(encode(SHIPPED.data), headers)
    wrong = form.format("SPECVERSION" if "C" in form else "specversion")
    assert found == f"not_cloudevents: $.specversion: expected a header ce_specversion, in lower case, got {wrong}"


def test_one_header_that_is_not_ours() -> None:
    """… also when only one of them is so; a header of that name beside a good one does no harm."""
    headers = binary()
    kind = headers.pop("ce_type")
    found = refusal(encode(SHIPPED.data), headers | {"ce_Type": kind})
    assert found == "not_cloudevents: $.type: expected a header ce_type, in lower case, got ce_Type"
    assert decode(encode(SHIPPED.data), binary() | {"CE_type": b"x"}) is not None


FRAMED = {
    b"\xef\xbb\xbf{}": "not_json: $: expected JSON: it begins with a byte-order mark",
    b"\xff\xfe{\0": "not_utf8: $: expected UTF-8, byte 0 is not: it begins with a byte-order mark of UTF-16",
    b"\xfe\xff\0{": "not_utf8: $: expected UTF-8, byte 0 is not: it begins with a byte-order mark of UTF-16",
    b"\0\0\0\0\x07{}": "not_json: $: expected JSON: it begins as a schema registry's serializer writes it, "
    "a zero byte and the schema id 7",
    b"\0\0\0\0\xff{}": "not_utf8: $: expected UTF-8, byte 4 is not: it begins as a schema registry's serializer writes "
    "it, a zero byte and the schema id 255",
    b"\0\1": "not_json: $: expected JSON, byte 0 is not",
    b"": "not_json: $: expected JSON, got nothing",
    b'{"a": ': "not_json: $: expected JSON, it ends too early",
}


@pytest.mark.parametrize("value", FRAMED)
def test_cause_of_what_is_no_json(value: bytes) -> None:
    """A byte-order mark, a schema registry's framing, an end that comes too early: in both modes."""
    assert refusal(value) == FRAMED[value]
    assert refusal(value, binary()) == FRAMED[value]


def told_with(lines: list[dict[str, Any]], **members: Any) -> EventSpec:
    """A confirmation with these lines."""
    return EventSpec("order.confirmed", {"currency": "EUR", "lines": lines} | members)


GOOD = goods("A", 1, 100)
UNITS = [{"line_id": "A", "quantity": 1}]

INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("order.confirmed", {"lines": [GOOD]}, "$.data: expected a member currency"),
    ("order.confirmed", {"currency": "EUR"}, "$.data: expected a member lines"),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": []},
        "$.data.lines: expected a list of 1 to 2000 lines, got an empty list",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": {}},
        "$.data.lines: expected a list of 1 to 2000 lines, got an object",
    ),
    ("order.confirmed", {"currency": "EUR", "lines": [5]}, "$.data.lines[0]: expected an object, got 5"),
    (
        "order.confirmed",
        {"currency": "eur", "lines": [GOOD]},
        "$.data.currency: expected three upper-case letters, got a text",
    ),
    (
        "order.confirmed",
        {"currency": "EUR\n", "lines": [GOOD]},
        "$.data.currency: expected three upper-case letters, got a text",
    ),
    (
        "order.confirmed",
        {"currency": "ÉUR", "lines": [GOOD]},
        "$.data.currency: expected three upper-case letters, got a text",
    ),
    (
        "order.confirmed",
        {"currency": 978, "lines": [GOOD]},
        "$.data.currency: expected three upper-case letters, got 978",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "payment_state": "refused"},
        "$.data.payment_state: expected one of approved, on_hold, got a text",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "cart_version": 1},
        "$.data: expected no member cart_version",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "gift": None},
        "$.data.gift: expected true or false, got null",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "customer": {"email": None}},
        "$.data.customer.email: expected a text of at most 1000 characters, got null",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "customer": {"e_mail": "x"}},
        "$.data.customer: expected no member e_mail",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "customer": {"vehicle": {"first_registration_date": "2026-02-30"}}},
        "$.data.customer.vehicle.first_registration_date: expected a date YYYY-MM-DD, got a text",
    ),
    (
        "order.confirmed",
        {"currency": "EUR", "lines": [GOOD], "delivery_method": {"days": -1}},
        "$.data.delivery_method.days: expected a text of at most 1000 characters or an integer from 0 to 1000000, got -1",
    ),
    (
        "order.payment_state_changed",
        {"payment_state": "paid"},
        "$.data.payment_state: expected one of approved, on_hold, refused, got a text",
    ),
    ("order.payment_state_changed", {}, "$.data: expected a member payment_state"),
    (
        "order.cart_updated",
        {"currency": "EUR", "lines": [GOOD], "cart_version": "1"},
        "$.data.cart_version: expected an integer of at most 64 bits, got a text",
    ),
    ("order.cart_updated", {"currency": "EUR", "lines": [GOOD], "gift": True}, "$.data: expected no member gift"),
    (
        "order.items_shipped",
        {"shipment_id": "", "lines": UNITS},
        "$.data.shipment_id: expected a text of 1 to 1000 characters, got an empty text",
    ),
    (
        "order.items_shipped",
        {"shipment_id": 7, "lines": UNITS},
        "$.data.shipment_id: expected a text of 1 to 1000 characters, got 7",
    ),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": []},
        "$.data.lines: expected a list of 1 to 2000 lines, got an empty list",
    ),
    ("order.items_shipped", {"shipment_id": "s", "lines": UNITS * 2}, "$.data.lines: expected every line_id once"),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": [{"line_id": "A"}]},
        "$.data.lines[0]: expected a member quantity",
    ),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": [*UNITS, {"line_id": "B", "quantity": 1, "qty": 1}]},
        "$.data.lines[1]: expected no member qty",
    ),
    (
        "order.items_shipped",
        {
            "shipment_id": "s",
            "lines": [
                {"line_id": "A", "quantity": 1},
                {"line_id": "B", "quantity": 2},
                {"line_id": "C", "quantity": -3},
            ],
        },
        "$.data.lines[2].quantity: expected an integer from 1 to 1000000, got -3",
    ),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": UNITS, "tracking": None},
        "$.data.tracking: expected a list, got null",
    ),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": UNITS, "tracking": [{"reference": "T", "type": "postal"}]},
        "$.data.tracking[0]: expected a member carrier on a tracking of type postal",
    ),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": UNITS, "tracking": [{"reference": "T", "type": "drone"}]},
        "$.data.tracking[0].type: expected one of pickup_point, pickup_store, postal, got a text",
    ),
    (
        "order.items_shipped",
        {
            "shipment_id": "s",
            "lines": UNITS,
            "tracking": [{"reference": "T", "type": "postal", "carrier": "C", "tracking_url": "http://x"}],
        },
        "$.data.tracking[0].tracking_url: expected an https address of at most 1000 characters, got a text",
    ),
    (
        "order.items_shipped",
        {
            "shipment_id": "s",
            "lines": UNITS,
            "tracking": [{"reference": "T", "type": "pickup_point", "available_at": "2026-02-30T00:00:00Z"}],
        },
        f"$.data.tracking[0].available_at: expected {TIME}",
    ),
    (
        "order.items_shipped",
        {"shipment_id": "s", "lines": UNITS, "shipped_at": "soon"},
        f"$.data.shipped_at: expected {TIME}, got a text",
    ),
    ("order.items_delivered", {"shipment_id": "s"}, "$.data: expected a member delivered_at"),
    (
        "order.items_returned",
        {"return_id": "r", "lines": []},
        "$.data.lines: expected at least one line, or refund_handling_minor",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": UNITS, "from": "unshipped", "fee_minor": 1},
        "$.data.fee_minor: expected no fee_minor on a return from unshipped, got 1",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": UNITS, "from": "any", "refunded_minor": 1},
        "$.data.refunded_minor: expected no refunded_minor on a return from any, got 1",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": [], "refund_handling_minor": 1, "refunded_minor": 0},
        "$.data.refunded_minor: expected no refunded_minor on a return without units, got 0",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": [{"line_id": f"x{n}", "quantity": 1} for n in range(2001)]},
        "$.data.lines: expected a list of at most 2000 lines, got a list of 2001",
    ),
    (
        "order.refunded",
        {"refund_id": "f", "amount_minor": 1, "applies_to": ["A", "A"]},
        "$.data.applies_to: expected every line id once",
    ),
    (
        "order.fee_charged",
        {"fee_id": "k", "amount_minor": 0},
        "$.data.amount_minor: expected an integer from 1 to 1000000000000, got 0",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": UNITS, "from": "both"},
        "$.data.from: expected one of any, shipped, unshipped, got a text",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": UNITS, "origin": "shipped"},
        "$.data: expected no member origin",
    ),
    (
        "order.items_returned",
        {"return_id": "r", "lines": UNITS, "refund_handling_minor": 0},
        "$.data.refund_handling_minor: expected an integer from 1 to 1000000000000, got 0",
    ),
    ("order.items_returned", {"return_id": "r", "lines": UNITS * 2}, "$.data.lines: expected every line_id once"),
    (
        "order.items_cancelled",
        {"cancellation_id": "c", "lines": UNITS * 2},
        "$.data.lines: expected every line_id once",
    ),
    ("order.items_cancelled", {"lines": UNITS}, "$.data: expected a member cancellation_id"),
    (
        "order.refunded",
        {"refund_id": "f", "amount_minor": 0},
        "$.data.amount_minor: expected an integer from 1 to 1000000000000, got 0",
    ),
    (
        "order.refunded",
        {"refund_id": "f", "amount_minor": 10.0},
        "$.data.amount_minor: expected an integer from 1 to 1000000000000, got 10.0",
    ),
    (
        "order.refunded",
        {"refund_id": "f", "amount_minor": 1, "name": ""},
        "$.data.name: expected a text of 1 to 1000 characters, got an empty text",
    ),
    ("order.cancelled", {"by": "customer"}, "$.data.by: expected one of merchant, provider, shopper, got a text"),
    ("order.cancelled", {"reason": None}, "$.data.reason: expected a text of at most 1000 characters, got null"),
    ("order.carts_stated", {"currency": "EUR", "shipped": []}, "$.data: expected a member unshipped"),
    (
        "order.carts_stated",
        {"currency": "EUR", "shipped": [GOOD, GOOD], "unshipped": []},
        "$.data.shipped: expected every line_id (by default the reference) once",
    ),
    (
        "order.carts_stated",
        {"currency": "EUR", "shipped": [], "unshipped": [GOOD, GOOD]},
        "$.data.unshipped: expected every line_id (by default the reference) once",
    ),
    (
        "order.carts_stated",
        {
            "currency": "EUR",
            "shipped": [GOOD],
            "unshipped": [
                goods("B", 1, 1),
                {"type": "discount", "reference": "D", "name": "D", "total_minor": -1, "applies_to": ["A"]},
            ],
        },
        "$.data.unshipped[1].applies_to: expected applies_to to name goods and charge lines of this cart",
    ),
    ("order.details_changed", {"gift": 1}, "$.data.gift: expected true or false or null, got 1"),
    (
        "order.details_changed",
        {"customer": {"title": None}},
        "$.data.customer.title: expected a text of at most 1000 characters, got null",
    ),
    (
        "order.details_changed",
        {"delivery_address": {"street": "x"}},
        "$.data.delivery_address: expected no member street",
    ),
    ("order.details_changed", {"customer": []}, "$.data.customer: expected an object or null, got a list"),
    (
        "order.retracted",
        {},
        "$.data: expected exactly one of shipment_id, return_id, cancellation_id, refund_id, fee_id, cancelled, stated",
    ),
    (
        "order.retracted",
        {"shipment_id": "s", "cancelled": True},
        "$.data: expected exactly one of shipment_id, return_id, cancellation_id, refund_id, fee_id, cancelled, stated",
    ),
    ("order.retracted", {"cancelled": False}, "$.data.cancelled: expected true, got false"),
    ("order.retracted", {"stated": "true"}, "$.data.stated: expected true, got a text"),
]


@pytest.mark.parametrize(("kind", "data", "detail"), INVALID, ids=[f"{row[0]} {row[2][:60]}" for row in INVALID])
def test_invalid_data(kind: str, data: dict[str, Any], detail: str) -> None:
    """Wrong type, range or combination, or an unknown member: the path, what was expected, what stood there."""
    told = EventSpec(kind, data)
    assert refusal(encode(envelope(told))) == f"invalid_data: {detail}"
    assert refusal(encode(data), binary(told)) == f"invalid_data: {detail}"


def without(line: dict[str, Any], *names: str) -> dict[str, Any]:
    """The line without these members."""
    return {name: value for name, value in line.items() if name not in names}


HANDLING = {"type": "handling", "reference": "H", "name": "H", "total_minor": 1}
DISCOUNT = {"type": "discount", "reference": "D", "name": "D", "total_minor": -1}
SERVICE = GOOD | {"type": "service"}
ENDS = "exactly one of attributes.ends_on and attributes.ends_in on a line of type service"

WRONG_LINES: list[tuple[dict[str, Any], str]] = [
    (without(GOOD, "total_minor"), "$.data.lines[1]: expected a member total_minor"),
    (without(GOOD, "reference"), "$.data.lines[1]: expected a member reference"),
    (without(GOOD, "name"), "$.data.lines[1]: expected a member name"),
    (without(GOOD, "quantity"), "$.data.lines[1]: expected a member quantity"),
    (without(GOOD, "unit_price_minor"), "$.data.lines[1]: expected a member unit_price_minor"),
    (without(HANDLING, "name"), "$.data.lines[1]: expected a member name"),
    (GOOD | {"quantiy": 1}, "$.data.lines[1]: expected no member quantiy"),
    (GOOD | {"type": "gift"}, "$.data.lines[1].type: expected one of "),
    (
        GOOD | {"total_minor": -1},
        "$.data.lines[1].total_minor: expected an amount of 0 or more on a line of type product, got -1",
    ),
    (
        HANDLING | {"total_minor": -1},
        "$.data.lines[1].total_minor: expected an amount of 0 or more on a line of type handling, got -1",
    ),
    (
        DISCOUNT | {"total_minor": 0},
        "$.data.lines[1].total_minor: expected an amount below 0 on a line of type discount, got 0",
    ),
    (
        DISCOUNT | {"type": "other_payment", "total_minor": 100},
        "$.data.lines[1].total_minor: expected an amount below 0 on a line of type other_payment, got 100",
    ),
    (
        DISCOUNT | {"type": "voucher"},
        "$.data.lines[1].total_minor: expected an amount of 0 or more on a line of type voucher, got -1",
    ),
    (
        HANDLING | {"quantity": 1},
        "$.data.lines[1]: expected no quantity and no unit_price_minor on a line of type handling",
    ),
    (
        DISCOUNT | {"unit_price_minor": 1},
        "$.data.lines[1]: expected no quantity and no unit_price_minor on a line of type discount",
    ),
    (
        {"type": "invoice_fee", "total_minor": 1, "quantity": 1},
        "$.data.lines[1]: expected no quantity and no unit_price_minor",
    ),
    (GOOD | {"applies_to": ["A"]}, "$.data.lines[1]: expected no applies_to on a line of type product"),
    (
        HANDLING | {"applies_to": [HANDLING["reference"]]},
        "$.data.lines[1].applies_to: expected applies_to of a charge to name goods lines of this cart",
    ),
    (DISCOUNT | {"applies_to": ["A", "A"]}, "$.data.lines[1].applies_to: expected every line id once"),
    (GOOD | {"vat_rate_bp": 10_001}, "$.data.lines[1].vat_rate_bp: expected an integer from 0 to 10000, got 10001"),
    (
        DISCOUNT | {"applies_to": []},
        "$.data.lines[1].applies_to: expected a list of 1 to 2000 line ids, got an empty list",
    ),
    (
        DISCOUNT | {"applies_to": [""]},
        "$.data.lines[1].applies_to[0]: expected a text of 1 to 1000 characters, got an empty text",
    ),
    (
        DISCOUNT | {"applies_to": ["Z"]},
        "$.data.lines[1].applies_to: expected applies_to to name goods and charge lines of this cart",
    ),
    (
        DISCOUNT | {"applies_to": ["D"]},
        "$.data.lines[1].applies_to: expected applies_to to name goods and charge lines of this cart",
    ),
    (GOOD | {"reference": "first"}, "$.data.lines: expected every line_id (by default the reference) once"),
    (GOOD | {"line_id": "first"}, "$.data.lines: expected every line_id (by default the reference) once"),
    (SERVICE, f"$.data.lines[1]: expected {ENDS}"),
    (SERVICE | {"attributes": {}}, f"$.data.lines[1]: expected {ENDS}"),
    (SERVICE | {"attributes": {"ends_on": "2026-05-01", "ends_in": "P1M"}}, f"$.data.lines[1]: expected {ENDS}"),
    (
        SERVICE | {"attributes": {"ends_in": "3 months"}},
        "$.data.lines[1].attributes.ends_in: expected an ISO 8601 period such as P3M, got a text",
    ),
    (
        SERVICE | {"attributes": {"ends_on": "01/05/2026"}},
        "$.data.lines[1].attributes.ends_on: expected a date YYYY-MM-DD, got a text",
    ),
    (GOOD | {"attributes": {"perishible": True}}, "$.data.lines[1].attributes: expected no member perishible"),
    (
        GOOD | {"attributes": {"perishable": "yes"}},
        "$.data.lines[1].attributes.perishable: expected true or false, got a text",
    ),
    (
        GOOD | {"attributes": {"subscription": {"period_months": -1}}},
        "$.data.lines[1].attributes.subscription.period_months: expected an integer from 0 to 1000000, got -1",
    ),
    (GOOD | {"downloadable": None}, "$.data.lines[1].downloadable: expected true or false, got null"),
    (GOOD | {"line_id": ""}, "$.data.lines[1].line_id: expected a text of 1 to 1000 characters, got an empty text"),
]


@pytest.mark.parametrize(("line", "detail"), WRONG_LINES, ids=[row[1][:90] for row in WRONG_LINES])
def test_wrong_line(line: dict[str, Any], detail: str) -> None:
    """A rule across members points to the line, a duplicate to the list, a member's own rule to the member."""
    told = told_with([goods("first", 1, 100), line])
    assert refusal(encode(envelope(told))).startswith(f"invalid_data: {detail}")


def test_lines_without_an_id_of_their_own() -> None:
    """The id of an invoice fee without a reference is `invoice_fee`: there can be one of them."""
    fee = {"type": "invoice_fee", "total_minor": 1}
    assert decode(encode(envelope(told_with([GOOD, fee])))) is not None
    detail = "invalid_data: $.data.lines: expected every line_id (by default the reference) once"
    assert refusal(encode(envelope(told_with([GOOD, fee, fee])))) == detail
    assert refusal(encode(envelope(told_with([GOOD, fee, GOOD | {"reference": "invoice_fee"}])))) == detail
    assert (
        decode(encode(envelope(told_with([GOOD, fee, GOOD | {"reference": "invoice_fee", "line_id": "B"}]))))
        is not None
    )


def test_same_reference_under_different_ids() -> None:
    """Two lines may share a reference when their ids differ."""
    assert decode(encode(envelope(told_with([GOOD | {"line_id": "1"}, GOOD | {"line_id": "2"}])))) is not None


def test_texts_are_never_quoted() -> None:
    """Whatever text is wrong, it stands in no detail; numbers, booleans and null do."""
    secret = "Ana García, ana@example.org"
    for data in (
        {"currency": secret, "lines": [GOOD]},
        {"currency": "EUR", "lines": secret},
        {"currency": "EUR", "lines": [GOOD | {"type": secret}]},
        {"currency": "EUR", "lines": [GOOD | {"quantity": secret}]},
        {"currency": "EUR", "lines": [GOOD], "customer": {"date_of_birth": secret}},
        {"currency": "EUR", "lines": [GOOD], "payment_state": secret},
    ):
        assert "García" not in refusal(encode(envelope(EventSpec("order.confirmed", data))))
    for name in EXPECTED:
        if name not in ("id", "source", "origin"):
            assert "García" not in refusal(with_attributes(**{name: secret}))


def test_long_numbers_are_not_quoted() -> None:
    """A number of up to 24 characters is quoted, of a longer one only its length."""
    for number, got in (("9" * 24, "9" * 24), ("9" * 25, "a number of 25 characters")):
        body = encode(envelope(SHIPPED)).replace(b'"quantity":2', b'"quantity":' + number.encode())
        assert refusal(body).endswith(f"got {got}")


# --- which of several ------------------------------------------------------------------------------------------------


def test_order_of_precedence() -> None:
    """Of several reasons the first in the contract's order is given."""
    big = b" " * (1 << 20)
    wrong_data = {"type": "order.refunded", "data": {}}
    good_envelope = envelope(SHIPPED)
    ladder: list[tuple[str, bytes | None, bytes]] = [
        ("too_large", None, b"\xff" + big),
        ("no_key", None, b"\xff{"),
        ("not_utf8", b"k", b"\xff{"),
        ("not_json", b"k", b"{"),
        ("not_cloudevents", b"k", encode({"type": "order.bogus"})),
        ("not_cloudevents", b"k", encode(good_envelope | wrong_data | {"time": "x"})),
        ("not_cloudevents", b"k", encode(good_envelope | {"type": "provider.risk", "time": "2027-01-01T00:00:00Z"})),
        ("not_cloudevents", b"k", encode(good_envelope | {"type": "operator.pause", "time": "x"})),
        ("not_trusted", b"k", encode(good_envelope | {"type": "provider.risk", "data": {"x": 1}})),
        ("unknown_type", b"k", encode(good_envelope | {"type": "order.bogus", "data": {"x": 1}})),
        ("invalid_data", b"k", encode(good_envelope | wrong_data)),
    ]
    for reason, key, value in ladder:
        assert refusal(value, key=key).split(":")[0] == reason


def test_attributes_are_judged_in_the_order_of_the_contract() -> None:
    """Of several wrong attributes the first one is named."""
    names = ["specversion", "id", "source", "time", "subject", "sequence", "traceparent", "origin"]
    for index, name in enumerate(names):
        wrong = dict.fromkeys(names[index:], 5)
        assert refusal(with_attributes(**wrong)).startswith(f"not_cloudevents: $.{name}:")


def test_every_type_has_samples() -> None:
    """The samples name exactly the types of the contract."""
    assert set(FULL) == set(MINIMAL) == set(intake._envelopes)
    assert len(FULL) == 32
    assert confirmed(GOOD).type in FULL


@pytest.mark.parametrize(("envelope", "expected"), [({}, "qliro"), ({"origin": "shop"}, "shop")])
def test_origin_of_a_cancellation_may_stand_in_its_data(envelope: dict[str, str], expected: str) -> None:
    """Where people put it who think of `by`; the event's own goes first."""
    found = event(cancelled(origin="qliro").but(**envelope))
    assert found.origin == expected
