"""An order's record as it is written, and how large one may be."""

from schemas import state
from schemas.facts import SealedFacts
from schemas.state import OrderRecord
from worker.errors import MalformedEventError

OVERHEAD_BYTES = 8 * 1024
"""Key, framing, and what attempts may still add: two reasons of 510 characters, of four bytes each."""
_SUBJECT_MAX_BYTES = 8 * 1024

Encoded = tuple[OrderRecord, bytes]
"""A record without its facts, and its value: thousands of whole ones cost more than to decode one twice."""


def encoded(record: OrderRecord) -> Encoded:
    """Changes the record: its facts are left in the value alone."""
    value = state.encode(record)
    record.sealed = _NO_FACTS  # to copy the header's ten members instead would take 0.5 µs
    return record, value


_NO_FACTS = SealedFacts()


def is_too_large(subject: str, value: bytes, value_max_bytes: int) -> int:
    """The bytes that an order's record may come to, when that is more than the state topic takes; else 0."""
    size = len(value) + len(subject.encode()) + OVERHEAD_BYTES
    return size if size > value_max_bytes else 0


def smallest_too_large(value_max_bytes: int) -> int:
    """Records of so many bytes are never too large, whatever the subject."""
    return value_max_bytes - OVERHEAD_BYTES - _SUBJECT_MAX_BYTES


def too_large(size: int, value_max_bytes: int) -> MalformedEventError:
    """Why an event is refused that would make a record so large."""
    return MalformedEventError(
        "order_too_large",
        f"$: expected an order's record of at most {value_max_bytes} bytes, got {size}",
    )
