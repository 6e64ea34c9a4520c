"""The common parts of all providers' callbacks: JSON and forms, times, ids, and the resulting event."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from schemas.base import REFERENCE_MAX
from worker.model.callbacks import Called, Said

FIELDS_MAX = 100
"""Fields of a form."""
DEPTH_MAX = 20
"""Nesting of JSON that is passed on."""
_WORD = re.compile(r"[A-Za-z0-9_. -]{1,64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AMOUNT = re.compile(r"-?(\d{1,9})(?:\.(\d{1,2})0*)?", re.ASCII)
_NUMBER_STARTS = frozenset(b"-0123456789"[n : n + 1] for n in range(11))
_NAME = re.compile(rb'(?:^|;)\s*name="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)

_encode = msgspec.json.Encoder().encode


class UnreadableError(ValueError):
    """Bytes that are neither JSON nor a form."""


class NotUnderstoodError(ValueError):
    """JSON or a form, but without the expected content."""


# --- bodies ---

_T = TypeVar("_T")


def read_json(decoder: "msgspec.json.Decoder[_T]", body: bytes) -> _T:
    """Decodes a JSON body. Raises `UnreadableError`, or `NotUnderstoodError` if it is JSON of another shape."""
    try:
        body.decode()  # the decoder does not validate members that it skips
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise NotUnderstoodError from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableError from None


def read_form(media_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form, the last of each name, without files. Raises `UnreadableError`."""
    parsed = Message()
    parsed["content-type"] = media_type
    kind = parsed.get_content_type()
    try:
        if kind == "multipart/form-data":
            return _parts(body, str(parsed.get_param("boundary", "")))
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except (UnicodeError, ValueError):
        raise UnreadableError from None
    return dict(pairs)


def _parts(body: bytes, boundary: str) -> dict[str, str]:
    """multipart/form-data (RFC 7578). Raises `ValueError`."""
    if not 0 < len(boundary) <= 70:
        raise ValueError
    line = b"--" + boundary.encode("ascii")
    first, *parts = (b"\r\n" + body).split(b"\r\n" + line, FIELDS_MAX + 2)
    if not parts or len(parts) > FIELDS_MAX + 1 or not parts[-1].startswith(b"--"):
        raise ValueError
    del first  # whatever precedes the first boundary does not count
    fields = {}
    for part in parts[:-1]:
        head, found, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = next((h for h in head.split(b"\r\n") if h.lower().startswith(b"content-disposition:")), b"")
        name = _NAME.search(disposition.partition(b":")[2])
        if not found or name is None:
            raise ValueError
        if b"filename" not in disposition.lower():
            fields[name[1].decode()] = content.decode()
    return fields


# --- values, which arrive as numbers or as texts ---


def text_of(value: Any) -> str:
    """A number or a text as text; empty for anything else."""
    kind = type(value)  # called a dozen times per call: this takes half the time of isinstance
    if kind is str:
        return str(value).strip()
    return str(value) if kind is int else ""


def id_of(value: Any) -> str:
    """An id of the provider's. Raises `NotUnderstoodError` if there is none."""
    text = text_of(value)
    if not 0 < len(text) <= REFERENCE_MAX:
        raise NotUnderstoodError
    return text


def word_of(value: Any) -> str:
    """A word of the provider's that may be passed on; empty if it does not look like one."""
    text = text_of(value)
    return text if _WORD.fullmatch(text) else ""


def flag_of(value: Any) -> bool | None:
    """A boolean, or one as text; `None` for anything else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(text_of(value).lower())


def minor_of(text: str) -> int:
    """Minor units, unsigned, of an amount with at most two decimals. Raises `NotUnderstoodError`."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise NotUnderstoodError
    return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))


def raw_text(raw: msgspec.Raw) -> str:
    """A JSON number verbatim, or the content of a text; empty for anything else."""
    value = bytes(raw)
    if value[:1] == b'"':
        return text_of(msgspec.json.decode(value))
    return value.decode() if value[:1] in _NUMBER_STARTS else ""


def plain(raw: bytes, depth_max: int = DEPTH_MAX) -> Any:
    """JSON as plain values. Raises `NotUnderstoodError` if it is nested too deeply, or has numbers out of range."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise NotUnderstoodError from None  # finding its end did not check its numbers
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > depth_max:
            raise NotUnderstoodError
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return value


# --- events ---


def cloud_event(called: Called, said: Said, trace: str = "") -> tuple[str, bytes]:
    """Subject and value of the record for an event of a call. `trace`: its `traceparent`; empty: it has none."""
    subject = f"{called.account}/{said.reference or called.reference}"
    event = {
        "specversion": "1.0",
        "id": sha256(_encode(said.known_by)).hexdigest()[:32],
        "source": f"/cartsync/{called.account}/{called.purpose}",
        "type": f"provider.{said.type}",
        "time": time_of(said.time, called.arrived_ms),
        "subject": subject,
        "data": said.data,
    } | ({"traceparent": trace} if trace else {})
    return subject, _encode(event)


def time_of(given: str, arrived_ms: int) -> str:
    """RFC 3339, in UTC: the given time (UTC if it has no zone), or the arrival if that is malformed or later."""
    arrived = _EPOCH + timedelta(milliseconds=arrived_ms)
    try:
        at = datetime.fromisoformat(given)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = arrived
    return min(at, arrived).isoformat().replace("+00:00", "Z")


def minute_of(arrived_ms: int) -> str:
    """The minute of arrival, for calls where nothing else distinguishes a second event from a repetition."""
    return str(arrived_ms // 60_000)


def unmapped(
    kind: str, word: str, known_by: tuple[str, ...], order: str = "", *, time: str = "", reference: str = ""
) -> Said:
    """An authentic call that we have no event for."""
    data: dict[str, Any] = {"provider_order": order} if order else {}
    return Said("unmapped", data | {"kind": kind, "word": word}, (kind, *known_by), time, reference)


def with_order(order: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """`data` of an event, without unknown members."""
    found = {"provider_order": order, **members}
    return {name: value for name, value in found.items() if value is not None and value != ""}
