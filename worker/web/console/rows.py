"""What the index keeps of a record: nothing that may be personal, but for the order's own reference. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, assert_never, cast

import msgspec
from msgspec import Meta, Raw, Struct

from schemas import state
from schemas.base import time_text
from schemas.console import OrderRow
from schemas.results import OrderChanged
from schemas.state import OrderRecord
from schemas.views import Paid, Status
from worker.core.masking import reason_kind
from worker.core.policy import DeliveryPolicy
from worker.core.view import brief_view
from worker.model.order import account_of

NEVER_MS = 2**53
"""`since_ms` of an order that waits for nothing: after all others."""
NO_AMOUNT = -(2**53)
"""Of an order whose carts are not known, in the order of amounts: after all others."""
SLOTS = 20
"""Results of an order that are kept, of those about its status; of each other type, the newest."""
_TEXT_MAX = 200

Describe = Callable[[str, bytes], Mapping[str, Any] | None]
"""What the adapter of an account knows of the provider's side: account, `remote` of the record."""


class OrderLine(NamedTuple):
    """A row of `orders`, without its id."""

    subject: str
    partition: int
    offset: int
    account: str
    status: str
    kind: str
    currency: str | None
    shipped_minor: int | None
    unshipped_minor: int | None
    paid_minor: int | None
    paid: str | None
    differs: bool
    on_hold: bool
    revision: int
    acked: int
    changed_ms: int
    since_ms: int


def subject_of(key: bytes) -> str | None:
    """The order that a key of the state topic names; `None`: it is another record."""
    return key[len(_ORDER) :].decode(errors="backslashreplace") if key.startswith(_ORDER) else None


_ORDER = state.ORDER_PREFIX.encode()


class StateLines(NamedTuple):
    """What records of a partition of the state topic come to: of each key, the newest."""

    lines: list[OrderLine]
    gone: list[str]
    """Orders that have no record any more, or none that cartsync wrote."""
    others: list[tuple[bytes, bytes | None]]
    """Records of no order."""
    damaged: int


Keyed = tuple[int, bytes | None, bytes | None]
"""A record: offset, key, value."""


def state_lines(
    partition: int, records: Iterable[Keyed], *, rules: DeliveryPolicy, now_ms: int, describe: Describe
) -> StateLines:
    """Takes most of the time of building an index."""
    found = StateLines([], [], [], 0)
    damaged = 0
    for key, (offset, value) in {key or b"": (offset, value) for offset, key, value in records}.items():
        subject = subject_of(key)
        if subject is None:
            found.others.append((key, value))
        elif value is None:
            found.gone.append(subject)
        else:
            try:
                line = order_line(subject, partition, offset, value, rules=rules, now_ms=now_ms, describe=describe)
            except (msgspec.MsgspecError, ValueError, ArithmeticError):
                damaged += 1
                found.gone.append(subject)
            else:
                found.lines.append(line)
    return found._replace(damaged=damaged)


def order_line(
    subject: str, partition: int, offset: int, value: bytes, *, rules: DeliveryPolicy, now_ms: int, describe: Describe
) -> OrderLine:
    """The row of an order's record. Raises `msgspec.MsgspecError` when it is none."""
    record = state.decode_order(value)
    brief = brief_view(record, rules=rules, now_ms=now_ms)
    account = account_of(subject)
    known = describe(account, record.remote) if record.remote else None
    return OrderLine(
        subject,
        partition,
        offset,
        account,
        brief.status,
        reason_kind(brief.reason) if brief.reason else "",
        brief.currency,
        brief.shipped_minor,
        brief.unshipped_minor,
        brief.paid_minor,
        brief.paid,
        brief.paid in ("part_paid", "overpaid") or bool(known and known.get("differs_minor")),
        record.may_land_late and brief.status == "owed",
        record.revision,
        record.acked,
        record.event_ms,
        _since(record, brief.status),
    )


def _since(record: OrderRecord, status: Status) -> int:
    """Since when it waits for what its status says."""
    match status:
        case "settled":
            return NEVER_MS
        case "inconsistent":
            began = record.inconsistent_since_ms
        case "unconfirmed":
            began = record.unconfirmed_since_ms
        case "parked":
            # Of a contradiction that lasts too long, since it began: it is parked without anybody deciding so.
            began = record.inconsistent_since_ms or (record.park.at_ms if record.park is not None else 0)
        case "on_hold" | "refused" | "owed":
            began = 0
        case unknown:
            assert_never(unknown)
    return began or record.owed_since_ms or record.event_ms or NEVER_MS


def order_row(line: OrderLine) -> OrderRow:
    """A row as lists show it."""
    return OrderRow(
        line.subject,
        line.account,
        line.partition,
        cast(Status, line.status),
        line.kind,
        line.currency,
        line.shipped_minor,
        line.unshipped_minor,
        line.paid_minor,
        cast(Paid | None, line.paid),
        bool(line.differs),
        bool(line.on_hold),
        line.revision,
        line.acked,
        line.changed_ms,
        None if line.since_ms == NEVER_MS else line.since_ms,
    )


class LetterLine(NamedTuple):
    """A row of `letters`, without its id."""

    partition: int
    offset: int
    at_ms: int
    reason: str
    detail: str
    subject: str
    type: str
    event_id: str
    source: str


class _Envelope(Struct, frozen=True):
    """What can be told of an event that was refused, if it is one."""

    subject: Any = ""
    type: Any = ""
    id: Any = ""


_envelope = msgspec.json.Decoder(_Envelope)
_SUBJECT = re.compile(r"[A-Za-z0-9_-]{1,64}/[^\s\x00-\x1f]{1,200}")


def letter_line(
    partition: int, offset: int, at_ms: int, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> LetterLine:
    """The row of a dead letter."""
    named = {name: (content or b"").decode(errors="replace") for name, content in headers}
    about = _Envelope(named.get("ce_subject", ""), named.get("ce_type", ""), named.get("ce_id", ""))
    if "ce_specversion" not in named:
        try:
            about = _envelope.decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            about = _Envelope()
    subject = about.subject if isinstance(about.subject, str) and _SUBJECT.fullmatch(about.subject) else ""
    source = "/".join(named.get(f"x-dlq-{name}", "?") for name in ("topic", "partition", "offset"))
    return LetterLine(
        partition,
        offset,
        at_ms,
        named.get("x-dlq-reason", "unknown")[:_TEXT_MAX],
        named.get("x-dlq-detail", "")[:_TEXT_MAX],
        subject,
        _short(about.type),
        _short(about.id),
        source[:_TEXT_MAX],
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return text if len(text) <= _TEXT_MAX and text.isprintable() else ""


class ResultLine(NamedTuple):
    """A row of `results`."""

    subject: str
    slot: str
    """A newer result of the order with the same slot takes its place."""
    at_ms: int
    type: str
    status: str
    revision: int | None
    acked: int | None
    currency: str | None
    shipped_minor: int | None
    unshipped_minor: int | None


Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What SQLite can hold."""


class _ResultData(Struct, frozen=True):
    status: str = ""
    revision: Int64 | None = None
    acked: Int64 | None = None
    currency: str | None = None
    shipped_minor: Int64 | None = None
    unshipped_minor: Int64 | None = None


class _Result(Struct, frozen=True):
    type: str
    subject: str
    data: Raw = Raw(b"{}")
    sequence: str = ""


_SEQUENCE = re.compile(r"[0-9]{1,18}")
_CHANGED = str(OrderChanged.__struct_config__.tag)
_result = msgspec.json.Decoder(_Result)
_result_data = msgspec.json.Decoder(_ResultData)


def result_line(at_ms: int, value: bytes | None) -> ResultLine | None:
    """The row of a result; `None`: it is none that we know, because anybody may have written to the topic."""
    try:
        return _result_line(at_ms, _result.decode(value or b""))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _result_line(at_ms: int, found: _Result) -> ResultLine:
    if found.type != _CHANGED:  # what a provider says may have members of the same names
        return ResultLine(found.subject, found.type, at_ms, found.type, "", None, None, None, None, None)
    slot = str(int(found.sequence) % SLOTS) if _SEQUENCE.fullmatch(found.sequence) else found.type
    data = _result_data.decode(found.data)
    return ResultLine(
        found.subject,
        slot,
        at_ms,
        found.type,
        data.status,
        data.revision,
        data.acked,
        data.currency,
        data.shipped_minor,
        data.unshipped_minor,
    )


def shown_time(ms: int) -> str:
    """RFC 3339, UTC."""
    return time_text(ms * 1000)
