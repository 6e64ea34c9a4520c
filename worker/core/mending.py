"""Mends an event that was refused: single values are set or removed, or the whole is given anew. Pure.

An event is mended in one shape, attributes and `data` in one object, whichever mode it came in, and is written in the
mode that it came in. What a provider or an operator said is never mended: its MAC is over the very bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from worker.core.intake import ATTRIBUTES, decode
from worker.core.letters import Refused
from worker.core.placing import Placing
from worker.core.trust import GUARDED, Trust
from worker.errors import MalformedEventError, UsageError

Path = tuple[str | int, ...]

_STEP = re.compile(r"\.?([^\s.\[\]]+)|\[([0-9]{1,6})\]")
_WITHOUT_QUOTES = "a text needs no quotes unless it looks like JSON"


class Mended(Struct, frozen=True):
    """A record that may be written to the event topic."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


# --- the event in a letter ---------------------------------------------------------------------------------------


def as_event(refused: Refused) -> dict[str, Any]:
    """Attributes and `data` of what was refused. Raises `UsageError` when its value is no JSON object."""
    try:
        value = json.loads(refused.value or b"")
    except (ValueError, RecursionError):
        value = None
    if refused.is_binary:
        event: dict[str, Any] = {
            name.removeprefix("ce_"): content.decode(errors="replace")
            for name, content in refused.headers
            if name.removeprefix("ce_") in ATTRIBUTES
        }
        return event | {"data": value}
    if not isinstance(value, dict):
        raise UsageError("the value is no JSON object, so nothing can be set in it: give the whole event with --file")
    return value


def event_text(refused: Refused) -> str:
    """What was refused as a person edits it: `as_event` as JSON, or the value as it is where that is none."""
    try:
        text = json.dumps(as_event(refused), ensure_ascii=False, indent=2)
        return text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair becomes its escape again
    except UsageError:
        return (refused.value or b"").decode(errors="replace")


def is_guarded(refused: Refused) -> bool:
    """Whether it is, or says that it is, what a provider or an operator said."""
    if refused.is_binary:
        return refused.type_in_headers.startswith(GUARDED)
    try:
        value = json.loads(refused.value or b"")
    except (ValueError, RecursionError):
        return False
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind.startswith(GUARDED)


def subject_of(event: Mapping[str, Any]) -> str:
    """The order that it is about; empty: it does not say."""
    subject = event.get("subject")
    return subject if isinstance(subject, str) else ""


# --- changes -------------------------------------------------------------------------------------------------------


def path_of(text: str) -> Path:
    """`("data", "lines", 0)` of `$.data.lines[0]`; the `$.` may be left out. Raises `UsageError`."""
    rest = text.removeprefix("$")
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            break
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    if not steps or at < len(rest):
        raise UsageError(f"{text}: expected a path such as data.lines[0].quantity")
    return tuple(steps)


def assignment_of(text: str) -> tuple[Path, Any]:
    """Of `PATH=VALUE`: the value is JSON, or else the text itself. Raises `UsageError`."""
    path, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text}: expected PATH=VALUE, such as data.lines[0].quantity=2 ({_WITHOUT_QUOTES})")
    with suppress(ValueError, RecursionError):
        return path_of(path), json.loads(value)
    return path_of(path), value


def changed(event: Mapping[str, Any], sets: Sequence[tuple[Path, Any]], removals: Sequence[Path]) -> dict[str, Any]:
    """The event with these values set and removed, in this order; the given one stays as it is. Raises `UsageError`
    for a place that there is not.
    """
    after: dict[str, Any] = json.loads(json.dumps(event))
    for path, value in sets:
        holder, last = _holder(after, path), path[-1]
        if isinstance(holder, list) and isinstance(last, int) and last == len(holder):
            holder.append(value)
        elif isinstance(holder, dict) and isinstance(last, str):
            holder[last] = value
        else:
            _check_there(holder, path)
            holder[last] = value
    for path in removals:
        holder = _holder(after, path)
        _check_there(holder, path)
        del holder[path[-1]]
    return after


def _holder(event: dict[str, Any], path: Path) -> Any:
    """The object or list in which the last step of a path is."""
    here: Any = event
    for length, step in enumerate(path[:-1], 1):
        _check_there(here, path[:length])
        here = here[step]
    return here


def _check_there(holder: Any, path: Path) -> None:
    step = path[-1]
    if isinstance(holder, dict) and step in holder:
        return
    if isinstance(holder, list) and isinstance(step, int) and step < len(holder):
        return
    raise UsageError(f"{text_of(path)}: there is no such place in the event")


def text_of(path: Path) -> str:
    """As `path_of` reads it."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


# --- the record to write -------------------------------------------------------------------------------------------


def as_record(refused: Refused, event: Mapping[str, Any], key: bytes | None) -> Mended:
    """The record of a mended event, in the mode of the refused one. `key`: another than it had; `None`: that one, or
    the subject where it had none. Raises `UsageError` without any.
    """
    key = key or refused.key or subject_of(event).encode("utf-8", "backslashreplace")
    if not key:
        raise UsageError("the record has no key, and the event no subject to make one of: pass --key")
    if not refused.is_binary:
        return Mended(key, _json(event), refused.headers)
    attributes = {
        f"ce_{name}": f"{event[name]}".encode("utf-8", "backslashreplace") for name in ATTRIBUTES if name in event
    }
    others = [each for each in refused.headers if each[0].removeprefix("ce_") not in ATTRIBUTES]
    return Mended(key, _json(event.get("data")), [*attributes.items(), *others])


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which is refused, and said to be
        return json.dumps(value, separators=(",", ":")).encode()


def as_it_is(refused: Refused) -> Mended:
    """The very record that was refused. Raises `UsageError` where that cannot be written, or would mean nothing."""
    if refused.why_not:
        raise UsageError(f"it cannot be written again: {refused.why_not}")
    if not refused.key or refused.value is None:
        raise UsageError(f"it has no {'value' if refused.key else 'key'}: mend it first")
    return Mended(refused.key, refused.value, refused.headers)


def verdict(
    record: Mended, now_ms: int, trust: Trust | None, placing: Placing | None, partition: int, partitions: int
) -> str:
    """Why workers would refuse a record in this partition of the event topic, or take no notice of it; empty: they
    would take it, as far as can be told without the order. `trust`: `None`: it is not known whom workers believe.
    """
    headers = dict(record.headers)
    try:
        event = decode(record.key, record.value, headers, now_ms, trust=trust or Trust())
        if event is not None and placing is not None:
            placing.check(record.key, event.subject, partition, partitions)
    except MalformedEventError as error:
        is_unknown = trust is None and error.reason == "not_trusted"
        return "" if is_unknown else f"{error.reason}: {error.detail}"
    return "" if event is not None else "nobody reads events of this type"
