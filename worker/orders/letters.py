"""Dead letters: a refused record as it was, and what is said of it; cut, visibly, where it would be too large."""

from collections.abc import Mapping, Sequence

from worker.core.letters import PREFIX
from worker.ports import DeadLetter, InputRecord, UndecodableRecord

_HEADER_BYTES = 12
"""What a header takes besides its name and its value."""
_RECORD_BYTES = 1024
"""What a record takes besides its members, alone in its batch."""
_KEY_KEPT_BYTES = 1024
_NAMES_KEPT, _NAME_KEPT_BYTES = 10, 200
"""Of the header names that are not UTF-8: they may be as long as a record."""


def letter_of(record: InputRecord, said: Mapping[str, str], max_bytes: int, *, lean: bool) -> DeadLetter:
    """The letter of a record. `lean`: Kafka has refused it for its size, so nothing large is kept."""
    ours = [(PREFIX + name, text.encode()) for name, text in said.items()]
    if type(record) is UndecodableRecord:
        escaped = [name[:_NAME_KEPT_BYTES].decode(errors="backslashreplace") for name in record.names[:_NAMES_KEPT]]
        ours += [(PREFIX + "header-name", name.encode()) for name in escaped]
        if record.is_batch:
            ours += [(PREFIX + "last-offset", b"%d" % record.last_offset), (PREFIX + "content", b"batch")]
    key, value, headers = record.key, record.value, list(record.headers)
    room = max_bytes - _RECORD_BYTES - headers_bytes(ours)
    if not lean and _size(key) + _size(value) + headers_bytes(headers) <= room:
        return DeadLetter(key, value, headers + ours)
    truncated = (
        f"value {_said(value)}, key {_said(key)}, {len(headers)} headers of "
        f"{sum(len(name.encode()) + _size(content) for name, content in headers)} bytes"
    )
    ours.append((PREFIX + "truncated", truncated.encode()))
    room -= headers_bytes(ours[-1:])
    if lean:
        room = min(room, _RECORD_BYTES)
    key = None if key is None else key[: min(_KEY_KEPT_BYTES, max(0, room))]
    room -= _size(key)
    if headers_bytes(headers) > room:
        headers = []
    room -= headers_bytes(headers)
    value = None if value is None or lean else value[: max(0, room)]
    return DeadLetter(key, value, headers + ours)


def letter_bytes(letter: DeadLetter) -> int:
    """What a letter takes in its topic at most, alone in its batch, before compression."""
    return _RECORD_BYTES + _size(letter.key) + _size(letter.value) + headers_bytes(letter.headers)


def headers_bytes(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """What headers take in a batch."""
    return sum(_HEADER_BYTES + len(name.encode()) + _size(content) for name, content in headers)


def _size(content: bytes | None) -> int:
    return 0 if content is None else len(content)


def _said(content: bytes | None) -> str:
    return "null" if content is None else f"{len(content)} bytes"
