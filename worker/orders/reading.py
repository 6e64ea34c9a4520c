"""What a record of the input is: an event, something to skip, or something to refuse."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from schemas.events import OrderEvent
from worker.core.intake import decode, identify
from worker.core.trust import Trust
from worker.errors import MalformedEventError
from worker.ports import InputRecord, UndecodableRecord

_FIRST_REASONS = frozenset({"too_large", "no_key"})
"""Of `CONTRACT.md` section 4: they go before `undecodable`."""


class Skipped(Struct, frozen=True, gc=False):
    """Of a record: nobody here reads it."""

    lookalikes: list[str]
    """Its type, where somebody may believe that we do."""


def decoded(record: InputRecord, trust: Trust) -> OrderEvent | Skipped | MalformedEventError:
    """What a record is."""
    if type(record) is UndecodableRecord:
        return _why_undecodable(record)
    lookalikes: list[str] = []
    headers = _given(record.headers) if record.headers else {}
    try:
        event = decode(record.key, record.value, headers, record.timestamp, lookalikes.append, trust)
    except MalformedEventError as error:
        return error
    return Skipped(lookalikes) if event is None else event


def _why_undecodable(record: UndecodableRecord) -> MalformedEventError:
    if not record.is_batch:
        try:
            decode(record.key, record.value, {}, record.timestamp)
        except MalformedEventError as error:
            if error.reason in _FIRST_REASONS:
                return error
    return MalformedEventError("undecodable", record.detail)


def identity_of(record: InputRecord) -> dict[str, object]:
    """Id and subject of a refused event, as far as they can be read."""
    if type(record) is UndecodableRecord:
        event_id, subject = ("", "") if record.is_batch else identify(record.value, {})
    else:
        event_id, subject = identify(record.value, _given(record.headers))
    found = {"event_id": event_id, "order": subject}
    return {name: text for name, text in found.items() if text}


def _given(headers: Sequence[tuple[str, Any]]) -> dict[str, bytes]:
    """The last of each name. A value may be null in Kafka, whatever the client says of its types: as good as none."""
    return {name: value for name, value in headers if value is not None}
