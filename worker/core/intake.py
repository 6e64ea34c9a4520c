"""The door: a record of the event topic becomes an `OrderEvent`, is skipped, or is refused with a path.

The fast path is one typed decode of what a shop tells; whatever it does not take, and what has to be believed before it
is looked into, goes through `_explain`, which takes the value apart member
by member, makes nothing of what it need not look into, and says in the words of `CONTRACT.md` section 4 what was
expected where. No text of an event ever gets into a reason.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import DecodeError, Meta, Raw, Struct, UnsetType, defstruct, inspect
from msgspec.structs import replace

from schemas import events as e
from schemas.base import ACCOUNT_MAX, REFERENCE_MAX, TIME_RULE, DeadLetterReason, RuleError, Subject, parse_time_us
from schemas.envelope import Envelope
from schemas.state import EVENT_ID_MAX
from worker.core.trust import GUARDED, HEADER, Trust, not_trusted
from worker.errors import MalformedEventError

VALUE_MAX_BYTES = 1 << 20
AHEAD_MAX_US = 24 * 3600 * 1_000_000
"""How far an event's `time` may be ahead of its record's own timestamp: further, it would win for ever."""

ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject", "sequence", "traceparent", "origin")
_REQUIRED = ("specversion", "id", "source", "type", "time", "subject")

_decoder = msgspec.json.Decoder(e.ShopEvent)
_EMPTY_UID = blake2b(digest_size=8)
_envelopes: dict[str, Any] = {e.event_type(event): event for event in e.EVENT_TYPES}
_NOBODY = Trust()


def decode(
    key: bytes | None,
    value: bytes | None,
    headers: Mapping[str, bytes],
    timestamp_ms: int,
    lookalike: Callable[[str], None] = lambda _type: None,
    trust: Trust = _NOBODY,
) -> e.OrderEvent | None:
    """The event in a record, or `None` for one to skip (no value, or a type that we do not know outside `order.*`).

    `timestamp_ms` is the record's own, since 1970 UTC; 0 or less: it has none. `lookalike` is called with a type that
    is skipped though the name of one of ours is in it (somebody may believe that we read it), or with an empty text
    when it does not look like a name. `trust`: what providers and operators say is believed with its MAC alone.
    Raises `MalformedEventError`.
    """
    if value is None:
        return None
    if len(value) > VALUE_MAX_BYTES:
        raise MalformedEventError("too_large", f"$: expected at most {VALUE_MAX_BYTES} bytes, got {len(value)}")
    if not key:
        raise MalformedEventError(
            "no_key", "key: expected a record key, not empty, the same for all events of an order, got nothing"
        )
    if "ce_specversion" not in headers:
        try:
            if not value.isascii():
                value.decode()  # the decoder does not look into members that it skips
            event = _decode(value)
            return _finished(event if _is_plain(event) else _decoder.decode(value), timestamp_ms)
        except (DecodeError, ValueError, RecursionError):
            pass
    try:
        return _explain(key, value, headers, timestamp_ms, lookalike, trust)
    except RecursionError:
        raise MalformedEventError("not_json", "$: expected JSON, nested less deep") from None


class _Loose(Struct, tag_field="type", frozen=True, kw_only=True, gc=False):
    """`Envelope` without the patterns of its texts, which take msgspec longer than all else of the envelope."""

    specversion: Literal["1.0"]
    id: str
    source: str
    time: str
    subject: str
    sequence: str | None = None
    traceparent: str | None = None
    origin: str | None = None


def _loosely(event: type[Envelope]) -> type[Struct]:
    config: dict[str, Any] = {"tag_field": "type", "frozen": True, "kw_only": True, "gc": False}
    members = [("data", e.data_of(event))]
    return defstruct(f"Loose{event.__name__}", members, bases=(_Loose,), tag=e.event_type(event), **config)


_decode: Callable[[bytes], Any] = msgspec.json.Decoder(
    Union[tuple(map(_loosely, get_args(e.ShopEvent)))]  # noqa: UP007 - of a tuple
).decode
_plain_texts = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])\n"
    rf"[^/\n]{{1,{ACCOUNT_MAX}}}/[^\n]{{1,{REFERENCE_MAX}}}\n"
    r"(?:[0-9]{1,18}|None)\n"
    r"(?:[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|None)"
).fullmatch


def _is_plain(event: Any) -> bool:
    """Whether the texts of a loose envelope are certainly what `Envelope` wants, as nearly all are: one look at them
    together takes half as long as one at each. Of others `Envelope` itself has to be asked.

    A `sequence` that spells "None" gets through, and is no number to `_finished`.
    """
    subject, trace = event.subject, event.traceparent
    return (
        _plain_texts(f"{event.time}\n{subject}\n{event.sequence}\n{trace}") is not None
        and "/." not in subject
        and trace != "None"
        and event.id != ""
        and event.source != ""
    )


_FINAL = re.compile(r"/cartsync/[^/]+/(webhook|ipn)")
"""Sources of what a provider says that cannot be asked whether it is so: seQura alone has a webhook and an IPN."""


def _finished(event: e.Event, timestamp_ms: int) -> e.OrderEvent:
    time_us = parse_time_us(event.time)
    _check_ahead(time_us, timestamp_ms)
    event_id, source, sequence = event.id, event.source, event.sequence
    uid = _EMPTY_UID.copy()  # 0.15 µs less than a new one with its digest_size
    uid.update(f"{len(source)} {source}{event_id}".encode())
    data, origin = event.data, event.origin
    if type(data) is e.CancelledData and origin is None:
        origin = data.origin or None
    return e.OrderEvent(
        event.subject,
        uid.digest(),
        -1 if sequence is None else int(sequence),
        time_us,
        data,
        origin,
        event.traceparent,
        event_id,
    )


def _check_ahead(time_us: int, timestamp_ms: int) -> None:
    if time_us - timestamp_ms * 1000 > AHEAD_MAX_US and timestamp_ms > 0:
        raise _not_cloudevents("$.time: expected a time at most 24 h ahead of the record's timestamp")


def _not_cloudevents(detail: str) -> MalformedEventError:
    return MalformedEventError("not_cloudevents", detail)


# --- what is said of an event, whether it is taken or not ---------------------------------------------------------


_LOOKS_LIKE_AN_ID = re.compile(rf"[A-Za-z0-9_.:/+=~-]{{1,{EVENT_ID_MAX}}}")


def shown_id(event_id: str, uid: bytes) -> str:
    """An event's id as logs may have it: cut; when it does not look like one, 16 digits that stand for it."""
    shown = event_id[:EVENT_ID_MAX]
    return shown if _LOOKS_LIKE_AN_ID.fullmatch(shown) else uid.hex()


class _Identity(Struct):
    """Who an event is, as far as it says so: each member is looked at for itself."""

    id: Raw = Raw(b"null")
    source: Raw = Raw(b"null")
    subject: Raw = Raw(b"null")


_identity = msgspec.json.Decoder(_Identity)


def identify(value: bytes | None, headers: Mapping[str, bytes]) -> tuple[str, str]:
    """The id of an event that was refused, as logs may have it, and its subject if it is a valid one; empty where they
    cannot be read.
    """
    if "ce_specversion" in headers:
        texts = [headers.get(f"ce_{name}", b"").decode(errors="replace") for name in ("id", "source", "subject")]
    elif value is None or len(value) > VALUE_MAX_BYTES:
        return "", ""
    else:
        try:
            found = _identity.decode(value)
        except (ValueError, RecursionError):
            return "", ""
        texts = [_text(raw) for raw in (found.id, found.source, found.subject)]
    event_id, source, subject = texts
    with suppress(msgspec.ValidationError):
        return _shown(event_id, source), msgspec.convert(subject, Subject)
    return _shown(event_id, source), ""


def _text(raw: Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except ValueError:  # of another type, or not UTF-8
        return ""


def _shown(event_id: str, source: str) -> str:
    return shown_id(event_id, uid_of(source, event_id)) if event_id else ""


def uid_of(source: str, event_id: str) -> bytes:
    """The 8 bytes that stand for (source, id), as `_finished` makes them."""
    return blake2b(f"{len(source)} {source}{event_id}".encode(), digest_size=8).digest()


# --- the slow path: says what is wrong -------------------------------------------------------------------------


def _explain(
    key: bytes,
    value: bytes,
    headers: Mapping[str, bytes],
    timestamp_ms: int,
    lookalike: Callable[[str], None],
    trust: Trust = _NOBODY,
) -> e.OrderEvent | None:
    if "ce_specversion" in headers:
        kind = headers.get("ce_type", b"").decode(errors="replace")
        if kind and not kind.startswith(_OURS):
            _tell(kind, lookalike)
            return None  # whatever its value may be
        envelope = {
            name: Raw(msgspec.json.encode(_header(headers[f"ce_{name}"], name)))
            for name in ATTRIBUTES
            if f"ce_{name}" in headers
        }
        envelope["data"] = _json(value)
    else:
        body = _json(value)
        if _begins(body) != b"{":
            raise _not_cloudevents(f"$: expected an object, got {_got(body)}")
        envelope = _members.decode(body)
        if _begins(envelope.get("type", _NULL)) == b'"':
            kind = msgspec.json.decode(envelope["type"], type=str)
            if kind and not kind.startswith(_OURS):
                _tell(kind, lookalike)
                return None
    attributes = _attributes(envelope, headers)
    _check_ahead(parse_time_us(attributes["time"]), timestamp_ms)
    kind = attributes.pop("type")
    if kind.startswith(GUARDED):
        if "ce_specversion" in headers:
            raise not_trusted("expected structured mode, as the MAC covers no header, got binary mode", "$")
        trust.check(key, value, headers.get(HEADER))
    event = _envelopes.get(kind)
    if event is None and kind.startswith(GUARDED):
        _tell(kind, lookalike)
        return None
    if event is None:
        got = kind if _NAME.fullmatch(kind) else f"a text of {len(kind)} characters"
        raise MalformedEventError("unknown_type", f"$.type: expected a type of {_ORDERS}*, got {got}")
    data = _typed(_kind(e.data_of(event)), envelope["data"], "$.data", "invalid_data")
    found = _finished(event(data=data, **attributes), timestamp_ms)
    return (
        replace(found, is_final=True) if kind.startswith(GUARDED) and _FINAL.fullmatch(attributes["source"]) else found
    )


_ORDERS = "order."
_OURS = (_ORDERS, *GUARDED)
"""What types begin with whose envelopes are looked at."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NULL = Raw(b"null")
_LOOKS_LIKE_OURS = re.compile("|".join(map(re.escape, _envelopes)), re.IGNORECASE)
_LOOKED_AT = 200
"""Characters of a foreign type."""


def _tell(kind: str, lookalike: Callable[[str], None]) -> None:
    if _LOOKS_LIKE_OURS.search(kind, 0, _LOOKED_AT):
        lookalike(kind if _NAME.fullmatch(kind) else "")


# --- JSON ---

_raw = msgspec.json.Decoder(Raw)
_members = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_HIGH_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def _json(value: bytes) -> Raw:
    """The value, once it is known to be JSON through and through: parts of it are taken for JSON from here on."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        detail = f"$: expected UTF-8, byte {error.start} is not{_beginning(value)}"
        raise MalformedEventError("not_utf8", detail) from None
    try:
        return _raw.decode(value)
    except DecodeError as error:
        where = re.search(r"byte (\d+)", str(error))
    # Half of a surrogate pair is JSON all the same; with all halves and pairs replaced, only what is none is left.
    replaced, count = _HIGH_ESCAPE.subn(r"\\u00", text)
    if count:
        with suppress(DecodeError):
            _raw.decode(replaced)
            raise MalformedEventError("not_utf8", "$: expected text that UTF-8 can carry, got half of a surrogate pair")
    found = f", byte {where[1]} is not" if where else ", it ends too early" if value else ", got nothing"
    raise MalformedEventError("not_json", f"$: expected JSON{_beginning(value) or found}")


def _beginning(value: bytes) -> str:
    """What a value that is no JSON begins with, where that tells the cause."""
    if value.startswith(b"\xef\xbb\xbf"):
        return ": it begins with a byte-order mark"
    if value.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ": it begins with a byte-order mark of UTF-16"
    if value[:1] == b"\0" and len(value) > _REGISTRY_BYTES:
        schema_id = int.from_bytes(value[1:_REGISTRY_BYTES])
        return f": it begins as a schema registry's serializer writes it, a zero byte and the schema id {schema_id}"
    return ""


_REGISTRY_BYTES = 5


def _header(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedEventError("not_utf8", f"$.{name}: expected UTF-8") from None


# --- attributes ---


def _attributes(envelope: Mapping[str, Raw], headers: Mapping[str, bytes]) -> dict[str, Any]:
    """All attributes but `data`, each as its type."""
    found: dict[str, Any] = {}
    for name in ATTRIBUTES:
        raw = envelope.get(name)
        if raw is None:
            if name in _REQUIRED:
                raise _missing(name, headers)
        elif name != "type":
            members = _members_of(_envelopes.get(found["type"], Envelope) if name == "subject" else Envelope)
            found[name] = _typed(members[name].kind, raw, f"$.{name}", "not_cloudevents")
            if name == "time":
                _check_time(found[name])
        elif _begins(raw) != b'"' or not (kind := msgspec.json.decode(raw, type=str)):
            raise _not_cloudevents(f"$.type: expected a type, got {_got(raw)}")
        else:
            found[name] = kind
    data = envelope.get("data")
    if data is None:
        raise _missing("data", {})
    if _begins(data) != b"{":
        raise _not_cloudevents(f"$.data: expected an object, got {_got(data)}")
    return found


def _missing(name: str, headers: Mapping[str, bytes]) -> MalformedEventError:
    """Names the attribute, or the header that was to be it: then the event is taken for one in structured mode."""
    for header in headers:
        if header.lower().replace("-", "_") == f"ce_{name}" != header:
            return _not_cloudevents(f"$.{name}: expected a header ce_{name}, in lower case, got {header}")
    return _not_cloudevents(f"$.{name}: expected a member {name}, got nothing")


def _check_time(text: str) -> None:
    try:
        parse_time_us(text)
    except RuleError as error:
        raise _not_cloudevents(f"$.time: expected {error.expected}, got a moment that does not exist") from None


# --- values of a type ---


class _Kind(Struct, frozen=True):
    """A type, as far as a value is taken apart by it."""

    expected: str
    decoder: Any
    """Of the whole."""
    struct: type[Struct] | None
    """What an object is."""
    items: "_Kind | None"
    """What the items of a list are."""
    items_min: int
    items_max: int


def _kind(annotation: Any) -> _Kind:
    choices = [choice for choice in _choices(annotation) if _plain(choice) is not UnsetType]
    struct, items, bounds = None, None, Meta()
    for choice in choices:
        plain = _plain(choice)
        if get_origin(plain) is list:
            items = _kind(get_args(plain)[0])
            bounds = next((meta for meta in get_args(choice) if isinstance(meta, Meta)), bounds)
        elif isinstance(plain, type) and issubclass(plain, Struct):
            struct = plain
    return _Kind(
        _expected(inspect.type_info(annotation)),
        msgspec.json.Decoder(Union[tuple(choices)]),  # noqa: UP007 - of a list
        struct,
        items,
        bounds.min_length or 0,
        VALUE_MAX_BYTES if bounds.max_length is None else bounds.max_length,
    )


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


class _Member(Struct, frozen=True):
    name: str
    """In code."""
    kind: _Kind
    required: bool


@lru_cache(None)
def _members_of(struct: type[Struct]) -> dict[str, _Member]:
    return {
        field.encode_name: _Member(field.name, _kind(field.type), field.required)
        for field in msgspec.structs.fields(struct)
    }


def _typed(kind: _Kind, raw: Raw, path: str, reason: DeadLetterReason) -> Any:
    """A value as its type. What its decoder does not take is taken apart: of a member given twice the last one counts,
    while a decoder of types stops at the first one that is wrong.
    """
    begins = _begins(raw)
    try:
        return kind.decoder.decode(raw)
    except DecodeError:
        if begins == b"{" and kind.struct is not None:
            return _object(kind.struct, raw, path, reason)
    if begins == b"[" and kind.items is not None:
        items = _items.decode(raw)
        if kind.items_min <= len(items) <= kind.items_max:
            return [_typed(kind.items, item, f"{path}[{index}]", reason) for index, item in enumerate(items)]
        got = f"a list of {len(items)}" if items else "an empty list"
        raise MalformedEventError(reason, f"{path}: expected {kind.expected}, got {got}")
    got = _got_time(raw) if kind.expected.startswith(TIME_RULE) else _got(raw, path)
    raise MalformedEventError(reason, f"{path}: expected {kind.expected}, got {got}")


def _object(struct: type[Struct], raw: Raw, path: str, reason: DeadLetterReason) -> Any:
    known = _members_of(struct)
    given = _members.decode(raw)
    values: dict[str, Any] = {}
    for name, value in given.items():
        member = known.get(name)
        if member is None:
            shown = name if _NAME.fullmatch(name) else f"of this name ({len(name)} characters)"
            raise MalformedEventError(reason, f"{path}: expected no member {shown}")
        values[member.name] = _typed(member.kind, value, f"{path}.{name}", reason)
    for name, member in known.items():
        if member.required and name not in given:
            raise MalformedEventError(reason, f"{path}: expected a member {name}")
    try:
        return struct(**values)
    except RuleError as error:
        blamed = given.get(error.member.removeprefix("."))
        got = (
            f", got {_got(blamed, path + error.member)}"
            if blamed is not None and _begins(blamed) not in _NO_NUMBERS
            else ""
        )
        raise MalformedEventError(reason, f"{path}{error.member}: expected {error.expected}{got}") from None


# --- words ---

_WORDS: dict[Any, str] = {
    inspect.StrType: "a text",
    inspect.BoolType: "true or false",
    inspect.IntType: "an integer",
    inspect.StructType: "an object",
    inspect.ListType: "a list",
    inspect.NoneType: "null",
    inspect.RawType: "any JSON value",
}


def _expected(info: Any) -> str:
    if isinstance(info, inspect.Metadata):
        return str((info.extra or {}).get("expected") or _expected(info.type))
    if isinstance(info, inspect.UnionType):
        return " or ".join(_expected(kind) for kind in info.types if not _is_unset(kind))
    if isinstance(info, inspect.LiteralType):
        values = [str(value).lower() if isinstance(value, bool) else str(value) for value in info.values]
        if len(values) == 1:
            return values[0] if values == ["true"] else f"the text {values[0]}"
        return f"one of {', '.join(values)}"
    return _WORDS.get(type(info), "another value")


def _is_unset(info: Any) -> bool:
    return isinstance(info, inspect.CustomType) and info.cls is UnsetType


_NO_NUMBERS = (b'"', b"[", b"{")
_DIGITS_MAX = 4_000
"""Python refuses to read integers of more than 4,300 digits, which JSON may well have."""
_INFINITE = (float("inf"), float("-inf"))


def _begins(raw: Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


_PERSONAL = ("$.data.customer", "$.data.delivery_address", "$.data.invoice_address")


def _got(raw: Raw, path: str = "") -> str:
    """What stood there: numbers, booleans and null as they are, of anything else only the kind. Numbers of a person
    neither: many shops write a phone as one.
    """
    begins, size = _begins(raw), len(memoryview(raw))
    if begins in _NO_NUMBERS:
        if begins == b'"':
            return "a text" if size > len('""') else "an empty text"
        return "a list" if begins == b"[" else "an object"
    text = bytes(raw).decode()
    if text in ("null", "true", "false"):
        return text
    if path.startswith(_PERSONAL):
        return "a number"
    is_integer = text.removeprefix("-").isdigit() and size < _DIGITS_MAX
    number = int(text) if is_integer else float(text)
    if number in _INFINITE:
        return "a number out of range"
    shown = str(number)
    return shown if len(shown) <= 24 else f"a number of {len(shown)} characters"


_MANY_DIGITS = re.compile(rb'".{19}\.([0-9]{10,})')
_NO_OFFSET = re.compile(rb'"[0-9-]{10}[Tt][0-9:]{8}(\.[0-9]+)?"')


def _got_time(raw: Raw) -> str:
    """… of a time what may be wrong with it."""
    text = memoryview(raw)
    if digits := _MANY_DIGITS.match(text):
        return f"{len(digits[1])} fraction digits"
    return "a time without an offset" if _NO_OFFSET.fullmatch(text) else _got(raw)
