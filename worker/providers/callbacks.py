"""What all providers' callbacks have in common: JSON and forms as they come, times, ids, the event that is written."""

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
"""Of a form."""
DEPTH_MAX = 20
"""Of JSON that is handed on."""
_WORD = re.compile(r"[A-Za-z0-9_. -]{1,64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AMOUNT = re.compile(r"-?(\d{1,9})(?:\.(\d{1,2})0*)?", re.ASCII)
_NUMBER_STARTS = frozenset(b"-0123456789"[n : n + 1] for n in range(11))
_NAME = re.compile(rb'(?:^|;)\s*name="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)

_encode = msgspec.json.Encoder().encode


class UnreadableError(ValueError):
    """Bytes that are neither JSON nor a form."""


class NotUnderstoodError(ValueError):
    """JSON or a form, but not what it should say."""


# --- bodies ---

_T = TypeVar("_T")


def read_json(decoder: "msgspec.json.Decoder[_T]", body: bytes) -> _T:
    """A body of JSON. Raises `UnreadableError`; `NotUnderstoodError` when it is JSON of another shape."""
    try:
        body.decode()  # the decoder does not look into members that it skips
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise NotUnderstoodError from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableError from None


def read_form(media_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form, the last of each name; files are left out. Raises `UnreadableError`."""
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
    del first  # before the first boundary stands nothing that counts
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


# --- values, which come as numbers or as texts ---


def text_of(value: Any) -> str:
    """A number or a text as text; empty for anything else."""
    kind = type(value)  # a dozen of them for each call: this is half the time of isinstance
    if kind is str:
        return str(value).strip()
    return str(value) if kind is int else ""


def id_of(value: Any) -> str:
    """An id of the provider's. Raises `NotUnderstoodError` when there is none."""
    text = text_of(value)
    if not 0 < len(text) <= REFERENCE_MAX:
        raise NotUnderstoodError
    return text


def word_of(value: Any) -> str:
    """A word of the provider's as it may be handed on; empty when it does not look like one."""
    text = text_of(value)
    return text if _WORD.fullmatch(text) else ""


def flag_of(value: Any) -> bool | None:
    """Yes or no, as such or as text; `None` for anything else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(text_of(value).lower())


def minor_of(text: str) -> int:
    """Minor units, without the sign, of an amount with at most two places. Raises `NotUnderstoodError`."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise NotUnderstoodError
    return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))


def raw_text(raw: msgspec.Raw) -> str:
    """A number as it stands in JSON, or what a text says; empty for anything else, and for nothing."""
    value = bytes(raw)
    if value[:1] == b'"':
        return text_of(msgspec.json.decode(value))
    return value.decode() if value[:1] in _NUMBER_STARTS else ""


def plain(raw: bytes, depth_max: int = DEPTH_MAX) -> Any:
    """JSON as plain values. Raises `NotUnderstoodError` when it is nested too deeply, or has numbers out of range."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise NotUnderstoodError from None  # whoever found where it ends did not look at what its numbers are
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


# --- what is written ---


def cloud_event(called: Called, said: Said) -> tuple[str, bytes]:
    """Subject and value of the record of what a call says."""
    subject = f"{called.account}/{said.reference or called.reference}"
    event = {
        "specversion": "1.0",
        "id": sha256(_encode(said.known_by)).hexdigest()[:32],
        "source": f"/cartsync/{called.account}/{called.purpose}",
        "type": f"provider.{said.type}",
        "time": time_of(said.time, called.arrived_ms),
        "subject": subject,
        "data": said.data,
    }
    return subject, _encode(event)


def time_of(given: str, arrived_ms: int) -> str:
    """RFC 3339, in UTC: what is given (without a zone it is UTC); the arrival when that is no time, or ahead of it."""
    arrived = _EPOCH + timedelta(milliseconds=arrived_ms)
    try:
        at = datetime.fromisoformat(given)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = arrived
    return min(at, arrived).isoformat().replace("+00:00", "Z")


def minute_of(arrived_ms: int) -> str:
    """The minute of an arrival, where nothing else tells a second one from a repeat."""
    return str(arrived_ms // 60_000)


def unmapped(
    kind: str, word: str, known_by: tuple[str, ...], order: str = "", *, time: str = "", reference: str = ""
) -> Said:
    """Something authentic that we have no word for."""
    data: dict[str, Any] = {"provider_order": order} if order else {}
    return Said("unmapped", data | {"kind": kind, "word": word}, (kind, *known_by), time, reference)


def with_order(order: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """`data` of an event, without what is not known."""
    found = {"provider_order": order, **members}
    return {name: value for name, value in found.items() if value is not None and value != ""}
