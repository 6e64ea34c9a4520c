"""The door: a record of the event topic becomes an `OrderEvent`, is skipped, or is refused with a path.

The fast path is one typed decode; whatever it does not take goes through `_explain`, which walks the plain value and
says in the words of `events.md` section 4 what was expected where. No text of an event ever gets into a reason.
"""

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import DecodeError, ValidationError, inspect

from schemas import events as e
from schemas.base import RuleError, parse_time_us
from worker.errors import MalformedEventError

VALUE_MAX_BYTES = 1 << 20
AHEAD_MAX_US = 24 * 3600 * 1_000_000
"""How far an event's `time` may be ahead of its record's own timestamp: further, it would win for ever."""

ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject", "sequence", "traceparent", "origin")
_REQUIRED = ("specversion", "id", "source", "type", "time", "subject")

_decoder = msgspec.json.Decoder(e.Event)
_EMPTY_UID = blake2b(digest_size=8)
_plain = msgspec.json.Decoder()
_envelopes: dict[str, Any] = {str(event.__struct_config__.tag): event for event in e.EVENT_TYPES}
_attribute_types: dict[str, Any] = {
    field.name: inspect.type_info(field.type) for field in msgspec.structs.fields(e.Envelope)
}


def decode(
    key: bytes | None, value: bytes | None, headers: Mapping[str, bytes], timestamp_ms: int
) -> e.OrderEvent | None:
    """The event in a record, or `None` for a record to skip (no value, or a type outside `order.*`).

    `timestamp_ms` is the record's own, since 1970 UTC. Raises `MalformedEventError`.
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
            return _finished(_decoder.decode(value), timestamp_ms)
        except (DecodeError, UnicodeDecodeError, RecursionError, RuleError):
            pass
    return _explain(value, headers, timestamp_ms)


def _finished(event: e.Event, timestamp_ms: int) -> e.OrderEvent:
    time_us = parse_time_us(event.time)
    if time_us - timestamp_ms * 1000 > AHEAD_MAX_US:
        raise _too_far_ahead()
    uid = _EMPTY_UID.copy()  # 0.15 µs less than a new one with its digest_size
    uid.update(f"{len(event.source)} {event.source}{event.id}".encode())
    return e.OrderEvent(
        event.subject,
        uid.digest(),
        -1 if event.sequence is None else int(event.sequence),
        time_us,
        event.data,
        event.origin,
        event.traceparent,
    )


def _too_far_ahead() -> MalformedEventError:
    return MalformedEventError(
        "not_cloudevents", "$.time: expected a time at most 24 h ahead of the record's timestamp"
    )


# --- the slow path: says what is wrong -------------------------------------------------------------------------


def _explain(value: bytes, headers: Mapping[str, bytes], timestamp_ms: int) -> e.OrderEvent | None:
    body = _json(value)
    if "ce_specversion" in headers:
        attributes: dict[str, Any] = {
            name: _header(headers[f"ce_{name}"], name) for name in ATTRIBUTES if f"ce_{name}" in headers
        }
        envelope = attributes | {"data": body}
    elif isinstance(body, dict):
        envelope = body
    else:
        raise MalformedEventError("not_cloudevents", f"$: expected an object, got {_got(body)}")
    kind = envelope.get("type")
    if isinstance(kind, str) and kind and not kind.startswith("order."):
        return None
    _check_envelope(envelope, timestamp_ms)
    if kind not in _envelopes:
        raise MalformedEventError("unknown_type", f"$.type: expected a type of order.*, got {_known_safe(str(kind))}")
    return _finished(_data(_envelopes[str(kind)], envelope), timestamp_ms)


def _json(value: bytes) -> Any:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise MalformedEventError("not_utf8", f"$: expected UTF-8, byte {error.start} is not") from None
    try:
        return _plain.decode(text)
    except RecursionError:
        raise MalformedEventError("not_json", "$: expected JSON, nested less deep") from None
    except DecodeError as error:
        if _SURROGATE.search(text) or "out of range" in str(error):
            return _json_beyond(text)
        where = re.search(r"byte (\d+)", str(error))
        raise MalformedEventError(
            "not_json", f"$: expected JSON, byte {where[1]} is not" if where else "$: expected JSON"
        ) from None


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DIGITS_MAX = 4_000
"""Python refuses to read integers of more than 4,300 digits, which JSON may well have."""


def _json_beyond(text: str) -> Any:
    """JSON that our decoder does not take: a number beyond any float, or half of a surrogate pair."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    def number(digits: str) -> int | float:
        return int(digits) if len(digits) < _DIGITS_MAX else float(digits)

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=number)
    except (ValueError, RecursionError):
        raise MalformedEventError("not_json", "$: expected JSON") from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedEventError(
            "not_utf8", "$: expected text that UTF-8 can carry, got half of a surrogate pair"
        ) from None
    return value


def _header(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedEventError("not_utf8", f"$.{name}: expected UTF-8") from None


def _check_envelope(envelope: dict[str, Any], timestamp_ms: int) -> None:
    time_us = 0
    for name in ATTRIBUTES:
        value = envelope.get(name)
        if name not in envelope or (value is None and name not in _REQUIRED):
            if name in _REQUIRED:
                raise MalformedEventError("not_cloudevents", f"$.{name}: expected a member {name}, got nothing")
            continue
        if name == "type":
            if not isinstance(value, str) or not value:
                raise MalformedEventError("not_cloudevents", f"$.type: expected a type, got {_got(value)}")
            continue
        try:
            msgspec.convert(value, _PYTHON_TYPES[name])
        except ValidationError:
            expected = _expected(_attribute_types[name])
            raise MalformedEventError("not_cloudevents", f"$.{name}: expected {expected}, got {_got(value)}") from None
        if name == "time":
            try:
                time_us = parse_time_us(str(value))
            except RuleError as error:
                raise MalformedEventError("not_cloudevents", f"$.time: expected {error.expected}, got a text") from None
    if "data" not in envelope:
        raise MalformedEventError("not_cloudevents", "$.data: expected a member data, got nothing")
    if not isinstance(envelope["data"], dict):
        raise MalformedEventError("not_cloudevents", f"$.data: expected an object, got {_got(envelope['data'])}")
    if time_us - timestamp_ms * 1000 > AHEAD_MAX_US:
        raise _too_far_ahead()


_PYTHON_TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(e.Envelope)}


def _data(kind: Any, envelope: dict[str, Any]) -> Any:
    """The typed event of an envelope whose attributes are right; `invalid_data` when its data is not."""
    data = kind.__annotations__["data"]
    try:
        typed = msgspec.convert(envelope["data"], data)
    except ValidationError as error:
        raise MalformedEventError("invalid_data", _detail(error, data, envelope["data"])) from None
    attributes = {name: envelope.get(name) for name in ATTRIBUTES if name != "type"}
    return kind(data=typed, **attributes)


_STEP = re.compile(r"\.([a-z0-9_]+)|\[(\d+)\]")
_PATH = re.compile(rf"(?:{_STEP.pattern})*")
_NAMED = re.compile(r"Object (missing required|contains unknown) field `(.*?)`?", re.DOTALL)


def _detail(error: ValidationError, data: Any, value: Any) -> str:
    message, path = _message_and_path(str(error))
    named = _NAMED.fullmatch(message)
    if named:
        what = "expected a member" if named[1].startswith("missing") else "expected no member"
        return f"$.data{path}: {what} {_known_safe(named[2])}"
    cause = error.__cause__
    if isinstance(cause, RuleError):
        blamed = _at(value, path + cause.member)
        got = f", got {_got(blamed)}" if isinstance(blamed, int | float) else ""
        return f"$.data{path}{cause.member}: expected {cause.expected}{got}"
    info = inspect.type_info(data)
    for step in _STEP.finditer(path):
        info = _below(info, step[1])
    return f"$.data{path}: expected {_expected(info)}, got {_got(_at(value, path))}"


def _at(value: Any, path: str) -> Any:
    """What stands at a path below a plain value."""
    for step in _STEP.finditer(path):
        value = value[step[1]] if step[1] else value[int(step[2])]
    return value


def _message_and_path(text: str) -> tuple[str, str]:
    """The decoder's message, and the path that it ends with.

    The message may hold a text of the event, made to look like a path: only the last one is the decoder's own.
    """
    message, found, path = text.rpartition(" - at `$")
    path = path.removesuffix("`")
    return (message, path) if found and _PATH.fullmatch(path) else (text, "")


def _below(info: Any, member: str | None) -> Any:
    """The type one step down: of a member of an object, or of a list's items."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        wanted = inspect.StructType if member else inspect.ListType
        info = next(kind for kind in map(_bare, info.types) if isinstance(kind, wanted))
    if member is None:
        return info.item_type
    return next(item.type for item in info.fields if item.encode_name == member)


def _bare(info: Any) -> Any:
    return info.type if isinstance(info, inspect.Metadata) else info


_WORDS: dict[Any, str] = {
    inspect.StrType: "a text",
    inspect.BoolType: "true or false",
    inspect.IntType: "an integer",
    inspect.StructType: "an object",
    inspect.ListType: "a list",
    inspect.NoneType: "null",
}


def _expected(info: Any) -> str:
    if isinstance(info, inspect.Metadata):
        return str((info.extra or {}).get("expected") or _expected(info.type))
    if isinstance(info, inspect.UnionType):
        return " or ".join(_expected(kind) for kind in info.types)
    if isinstance(info, inspect.LiteralType):
        values = [str(value).lower() if isinstance(value, bool) else str(value) for value in info.values]
        if len(values) == 1:
            return values[0] if values == ["true"] else f"the text {values[0]}"
        return f"one of {', '.join(values)}"
    return _WORDS.get(type(info), "another value")


_INFINITE = (float("inf"), float("-inf"))


def _got(value: Any) -> str:
    """What stood there: numbers, booleans and null as they are, of anything else only the kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if value in _INFINITE:
            return "a number out of range"
        text = str(value)
        return text if len(text) <= 24 else f"a number of {len(text)} characters"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"


def _known_safe(name: str) -> str:
    """A member's or a type's name, cut and freed of what could break a log line or a header."""
    return re.sub(r"[^\w.$@/-]", "?", name)[:100]
