"""The history of an order: records of the history topic.

Key: `<n mod 50>:<subject>`, so that compaction keeps the newest 50 entries of an order. Value: a MessagePack
array of the members of `HistoryEntry`, in their order; those at the end may be missing, and new ones go last, with a
default. Partition: that of the order's record. Nobody who works on orders reads it.

No entry holds a shopper's personal data: texts of operators and words of providers are masked (`core.masking`), and of
an event there is what changed, how many units and what amount, never who or where.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import MsgspecError, Struct, msgpack
from msgspec.structs import asdict, astuple

from schemas.facts import strictly

SCHEMA = 1
"""Of the entries: raised when a member changes its meaning. Members that are new need no new number."""
KEPT = 50
"""Entries of an order that compaction keeps."""
ENTRY_MAX_BYTES = 1_024
"""Of a value."""

Kind = Literal["event", "attempt", "decision", "report", "operator"]


class HistoryEntry(Struct, omit_defaults=True, frozen=True, gc=False, kw_only=True):
    """One thing that happened to an order. Members that do not apply are absent."""

    schema: int
    """Of the entry; a program that knows an older one reads what it knows."""
    n: int
    """The entry's number, from 1; who lost count begins anew, so the order in the topic is the order in time."""
    at_ms: int
    """When it was written, in UTC milliseconds; of a takeover's hold, which is written with what comes next, when it
    began.
    """
    kind: Kind
    """`event`: taken from the event topic, from the shop, the provider or a job. `attempt`: a request to the provider.
    `decision`: something that follows without a request. `report`: a page of a report that the order was on.
    `operator`: what a person did.
    """
    what: str
    """The event's type, the attempt's outcome, the decision, or the operator's command."""
    revision: int
    """Of the order, after an event and a person's command; otherwise the one that was sent or decided about."""
    event_id: str = ""
    """The event's, or that of the newest event in what was sent; digits stand for one that does not look like an id."""
    offset: int | None = None
    """Of the event, in the partition of the event topic with the number of this entry's."""
    time_ms: int | None = None
    """The event's own time, in UTC milliseconds."""
    origin: str = ""
    """Where the event says that the change was made."""
    superseded: bool = False
    """The event changed nothing of what it is about: something newer was known already."""
    word: str = ""
    """What the event says in one word: a payment's state, a transaction's kind and status, …; masked. Which page a
    report is about.
    """
    units: int | None = None
    """That the event ships, returns or cancels."""
    amount_minor: int | None = None
    """The event's own: of a refund, a fee, a transaction, a payout, or a cart's lines; minor units."""
    currency: str = ""
    """ISO 4217, of the amounts."""
    shipped_minor: int | None = None
    """Of the shipped cart, as it was sent or decided about; minor units."""
    unshipped_minor: int | None = None
    """The same of the unshipped cart."""
    reason: str = ""
    """Why it waits, why an operator did it, or what else came of it; masked."""
    trace: str = ""
    """The trace id, 32 digits."""
    status: str = ""
    """How the order stands since, as far as this tells: `settled`, `owed`, `parked`, …"""
    http_status: int | None = None
    """Of the provider's response; absent: there was none."""
    took_ms: int | None = None
    """From when the attempt began until it ended."""
    wait_ms: int | None = None
    """Until the next attempt at the earliest."""
    hold_ms: int | None = None
    """How long nothing is sent, because the request, or that of the worker that had the partition, may still arrive."""
    erased: tuple[str, ...] = ()
    """Which personal details an operator had erased."""
    by: str = ""
    """Which operator."""
    done: bool | None = None
    """Of what an operator did: whether there was anything to do."""


class _Stored(HistoryEntry, array_like=True, frozen=True, gc=False):
    """As it stands in the topic."""


pack: Callable[[object], bytes] = msgpack.Encoder().encode
_decode = strictly(msgpack.Decoder(_Stored).decode)


def encode(entry: HistoryEntry) -> bytes:
    """The value of its record."""
    return pack(astuple(entry))


def decode(value: bytes) -> HistoryEntry | None:
    """`None`: it is no entry that this version can read."""
    try:
        return HistoryEntry(**asdict(_decode(value)))
    except MsgspecError:
        return None


def key_of(subject: str, n: int) -> bytes:
    """The record key of an order's entry with this number."""
    return _SLOTS[n % KEPT] + subject.encode()


_SLOTS = tuple([b"%d:" % slot for slot in range(KEPT)])


def place_of(key: bytes) -> tuple[int, str] | None:
    """The slot and the subject that a key names; `None`: it is none of ours."""
    slot, colon, subject = key.partition(b":")
    if not colon or not slot.isdigit() or len(slot) > len(str(KEPT)) or int(slot) >= KEPT:
        return None
    return int(slot), subject.decode(errors="backslashreplace")


def keys_of(subject: str, count: int) -> list[bytes]:
    """The keys of all entries that an order has, of `count` that were written."""
    return [key_of(subject, n) for n in range(max(1, count - KEPT + 1), count + 1)]
