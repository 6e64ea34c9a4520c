"""What one transaction adds to the histories of its orders; nothing where none is kept.

An entry is made where its order's record is written anyway, and counted in that record, so the two agree whatever
becomes of the transaction. It says what has happened in the terms of whoever did it: to work out both carts at each
event would cost as much again as to take the event, so their amounts stand with what was sent or decided next.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, assert_never

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from schemas import events as e
from schemas import history
from schemas import provider_events as p
from schemas.envelope import Data
from schemas.events import EVENT_TYPES, OrderEvent, Units, data_of, event_type
from schemas.history import ENTRY_MAX_BYTES, HistoryEntry, key_of, keys_of
from schemas.state import Operated, OrderRecord
from worker.core.intake import shown_id
from worker.core.masking import reason_kind
from worker.core.order import Shown
from worker.core.plan import Acknowledge, Park, Plan, Send, Wait
from worker.core.provider_facts import TYPES
from worker.core.record import newest_event
from worker.core.status import ready_status
from worker.model.exchange import Outcome
from worker.ports import Attempt

_TEXT_MAX = 100
"""Characters of what may be of any length."""
_CUT_BYTES = 60
"""Of each text of an entry that is too large otherwise."""

Entry = tuple[bytes, bytes]
"""Key and value of a record of the history topic."""


class Held(Struct, frozen=True):
    """Orders that are held since a takeover, as no record says yet: what becomes of one of them next says so first."""

    subjects: Container[str] = ()
    since_ms: int = 0
    """UTC, by our clock."""
    hold_ms: int = 0


class History:
    """Records of the history topic, in the making."""

    def __init__(self, now_ms: int, held: Held | None = None, written: Container[str] = (), *, is_kept: bool) -> None:
        """`written`: orders that a transaction before it writes, and says of them that they are held."""
        self.records: list[tuple[bytes, bytes | None]] = []
        """Keys and values; `None`: to be removed."""
        self.bytes = 0
        self._is_kept = is_kept
        self.now_ms = now_ms
        """When what is added happens."""
        self._held = held or Held()
        self._written = written
        self._told_held: set[str] = set()

    def of_takeover(self, subject: str, after: OrderRecord) -> list[Entry]:
        """That it is held since a takeover, for `keep`, if nothing says so yet. Changes `after` itself."""
        held = self._held
        if not self._is_kept or subject not in held.subjects:
            return []
        if subject in self._told_held or subject in self._written:
            return []
        self._told_held.add(subject)
        members: dict[str, Any] = {"kind": "decision", "what": "held", "revision": after.revision}
        return [self._counted(subject, after, at_ms=held.since_ms, hold_ms=held.hold_ms or None, **members)]

    def of_event(self, event: OrderEvent, before: OrderRecord, after: OrderRecord, offset: int) -> list[Entry]:
        """The entry of an event, for `keep` once it is certain that the event is taken. Changes `after` itself."""
        if not self._is_kept:
            return []
        subject, data, kind = event.subject, event.data, type(event.data)
        entries = self.of_takeover(subject, after)
        after.entries = n = after.entries + 1
        word, units, amount_minor, currency, shipped_minor, unshipped_minor = _SAYS[kind](data)
        origin, trace, about = event.origin, event.traceparent, _ABOUT.get(kind)
        # The members of `HistoryEntry` up to the last that an event has, packed at once: to make one first takes 2 µs.
        value = history.pack(
            (
                history.SCHEMA,
                n,
                self.now_ms,
                "event",
                _TYPES[kind],
                after.revision,
                shown_id(event.id, event.uid),
                offset,
                event.time_us // 1000,
                "" if origin is None else origin[:_TEXT_MAX],
                about is not None and getattr(before.sealed, about) == getattr(after.sealed, about),
                word,
                units,
                amount_minor,
                currency,
                shipped_minor,
                unshipped_minor,
                "" if after.made_at is before.made_at else _why_not_told(after),
                "" if trace is None else _trace(trace),
            )
        )
        entries.append((key_of(subject, n), value))
        return entries

    def of_attempt(
        self, attempt: Attempt, outcome: Outcome, after: OrderRecord, *, took_s: float, hold_s: float
    ) -> None:
        """An attempt has ended."""
        if not self._is_kept:
            return
        entries = self.of_takeover(attempt.subject, after)
        after.entries = n = after.entries + 1
        is_newest = after.revision == attempt.revision and outcome.found is None
        shown, trace = attempt.shown, attempt.trace
        # As in `of_event`: up to the last member that an attempt has. Every update makes one.
        value = history.pack(
            (
                *(history.SCHEMA, n, self.now_ms, "attempt", outcome.kind.value, attempt.revision),
                *(attempt.event_id, None, None, "", False, "", None, None),
                *(("", None, None) if shown is None else (shown.currency, shown.shipped_minor, shown.unshipped_minor)),
                _masked(outcome.reason),
                "" if trace is None else _trace(trace),
                ready_status(after) if is_newest else "",
                outcome.status,
                max(0, round(1000 * took_s)),
                max(0, after.not_before_ms - self.now_ms) or None,
                round(1000 * hold_s) or None,
            )
        )
        entries.append((key_of(attempt.subject, n), value))
        self.keep(entries)

    def of_page(self, subject: str, page: str, after: OrderRecord) -> None:
        """It is on a page of a report from now on."""
        self._add_of(
            subject,
            after,
            kind="report",
            what="on_page",
            revision=after.revision,
            event_id=newest_event(after),
            word=f"page {page}",
        )

    def of_report(self, subject: str, page: str, revision: int, outcome: Outcome, after: OrderRecord) -> None:
        """What a report's page has come to for an order."""
        self._add_of(
            subject,
            after,
            kind="report",
            what=outcome.kind.value,
            revision=revision,
            event_id=newest_event(after),
            word=f"page {page}",
            status=ready_status(after) if after.revision == revision else "",
            http_status=outcome.status,
            reason=_masked(outcome.reason),
        )

    def of_decision(self, subject: str, plan: Plan, after: OrderRecord) -> None:
        """Something else about it than that it is sent."""
        match plan:
            case Acknowledge():
                what, status, reason = "not_needed", "settled" if plan.is_approved else "", ""
            case Park(given):
                what, status, reason = "parked", "parked", given
            case Wait(state, reasons):
                what, status, reason = "waiting", state, "; ".join(reasons)
            case Send():
                what, status, reason = "released", "owed", ""
            case unknown:
                assert_never(unknown)
        self._add_of(
            subject,
            after,
            kind="decision",
            what=what,
            revision=after.revision,
            event_id=newest_event(after),
            **_amounts(plan.shown),
            status=status,
            reason=_masked(reason),
        )

    def of_operator(self, subject: str, deed: Operated, after: OrderRecord, event_id: str, offset: int) -> list[Entry]:
        """The entry of what a person did by an event, for `keep` once it is certain that the event is taken. Changes
        `after` itself. Why is not repeated: it may name the shopper, and the record has it.
        """
        members: tuple[str, ...] = ()
        words = deed.words
        if deed.command == "forget":
            members = () if after.erased is None else tuple(after.erased.members)
            words = f"{words}; its history before this was erased, too"
        return self._entries_of(
            subject,
            after,
            kind="operator",
            what=deed.command,
            revision=after.revision,
            event_id=event_id,
            offset=offset,
            erased=members,
            reason=words,
            by=deed.by,
            done=deed.done,
        )

    def of_command(self, subject: str, command: str, after: OrderRecord) -> None:
        """What a person did at a worker that takes no operators' events: nobody knows who."""
        self._add_of(subject, after, kind="operator", what=command, revision=after.revision, done=True)

    def erase(self, subject: str, count: int) -> None:
        """Removes the entries of an order that has had `count`."""
        if self._is_kept:
            keys = keys_of(subject, count)
            self.records += [(key, None) for key in keys]
            self.bytes += sum(map(len, keys))

    def keep(self, entries: Sequence[Entry]) -> None:
        """Writes entries that were counted."""
        for key, value in entries:
            small = value
            if len(value) > ENTRY_MAX_BYTES and (whole := history.decode(value)) is not None:
                small = history.encode(_short(whole))
            self.records.append((key, small))
            self.bytes += len(key) + len(small)

    def _add_of(self, subject: str, after: OrderRecord, **members: Any) -> None:
        """Counts and writes an entry. Changes `after` itself."""
        self.keep(self._entries_of(subject, after, **members))

    def _entries_of(self, subject: str, after: OrderRecord, **members: Any) -> list[Entry]:
        """Counts an entry. Changes `after` itself."""
        if not self._is_kept:
            return []
        return [*self.of_takeover(subject, after), self._counted(subject, after, at_ms=self.now_ms, **members)]

    def _counted(self, subject: str, after: OrderRecord, **members: Any) -> Entry:
        after.entries += 1
        entry = HistoryEntry(schema=history.SCHEMA, n=after.entries, **members)
        return key_of(subject, entry.n), history.encode(entry)


_TYPES: Mapping[type[Data], str] = {data_of(event): event_type(event) for event in EVENT_TYPES}


def _why_not_told(after: OrderRecord) -> str:
    made_at = after.made_at
    is_made_there = made_at is not None and made_at.revision == after.revision
    return "made at the provider: not told again" if is_made_there else ""


def _trace(traceparent: str) -> str:
    """The trace id of it (W3C Trace Context: version, trace id, …)."""
    return traceparent[3:35]


def _amounts(shown: Shown | None) -> dict[str, Any]:
    if shown is None:
        return {}
    return {
        "currency": shown.currency,
        "shipped_minor": shown.shipped_minor,
        "unshipped_minor": shown.unshipped_minor,
    }


def _masked(reason: str) -> str:
    return reason_kind(reason) if reason else ""


def _short(entry: HistoryEntry) -> HistoryEntry:
    """The same with all texts cut, so that it is small whatever letters they are of."""
    names = ("event_id", "origin", "word", "reason", "by")
    return replace(entry, **{name: _cut(getattr(entry, name)) for name in names})


def _cut(text: str) -> str:
    return text.encode()[:_CUT_BYTES].decode(errors="ignore")


# --- what an event says, in few words ---------------------------------------------------------------------------------

_Says = tuple[str, int | None, int | None, str, int | None, int | None]
"""A word, units, an amount, the currency, the amounts of both carts."""
_NOTHING: _Says = ("", None, None, "", None, None)


def _word(word: str) -> _Says:
    return word, None, None, "", None, None


def _words(*words: str) -> _Says:
    """Words of a provider's own."""
    return _word(_masked(" ".join(words))[:_TEXT_MAX])


def _names(data: Data) -> _Says:
    """Which members it has; what they are is nobody's business here."""
    return _word(", ".join([name for name in data.__struct_fields__ if getattr(data, name) is not UNSET]))


def _units(units: list[Units], amount_minor: int | UnsetType = UNSET) -> _Says:
    return "", sum([each.quantity for each in units]), None if amount_minor is UNSET else amount_minor, "", None, None


def _amount(amount_minor: int | UnsetType, currency: str = "") -> _Says:
    return "", None, None if amount_minor is UNSET else amount_minor, currency, None, None


def _total(lines: list[e.Line]) -> int:
    return sum([line.total_minor for line in lines])


def _stated(data: e.CartsStatedData) -> _Says:
    return "", None, None, data.currency, _total(data.shipped), _total(data.unshipped)


def _transaction(data: p.TransactionData) -> _Says:
    word, *_ = _words(data.kind, data.status)
    return word, None, data.amount_minor, data.currency, None, None


_SAYS: Mapping[type[Data], Callable[[Any], _Says]] = dict.fromkeys(_TYPES, lambda _data: _NOTHING) | {
    e.ConfirmedData: lambda data: _amount(_total(data.lines), data.currency),
    e.PaymentStateChangedData: lambda data: _word(data.payment_state),
    e.CartUpdatedData: lambda data: _amount(_total(data.lines), data.currency),
    e.ItemsShippedData: lambda data: _units(data.lines),
    e.ItemsReturnedData: lambda data: _units(data.lines, data.refunded_minor),
    e.ItemsCancelledData: lambda data: _units(data.lines),
    e.RefundedData: lambda data: _amount(data.amount_minor),
    e.FeeChargedData: lambda data: _amount(data.amount_minor),
    e.CancelledData: lambda data: _word(data.by),
    e.CartsStatedData: _stated,
    e.ObservedData: lambda data: _amount(data.amount_minor, data.currency),
    e.DetailsChangedData: _names,
    e.RetractedData: _names,
    p.PaymentStateSaidData: lambda data: _word(data.state),
    p.TransactionData: _transaction,
    p.UpsellData: lambda data: _words(data.status),
    p.DeliverySaidData: lambda data: _word(data.state),
    p.CancelledThereData: lambda data: _word(data.by),
    p.RiskData: lambda data: _words(data.level),
    p.DisbursedData: lambda data: _amount(data.amount_minor),
    p.ShippingData: lambda data: _word("succeeded" if data.success else "failed"),
    p.UnmappedData: lambda data: _words(data.kind),
}
"""By the type of its `data`; the others say all by their type. Never who, where, or a person's own words."""

_ABOUT: Mapping[type[Data], str] = dict.fromkeys(TYPES, "provider") | {
    e.ConfirmedData: "confirmation",
    e.PaymentStateChangedData: "payment",
    e.CartUpdatedData: "content",
    e.ItemsShippedData: "shipments",
    e.ItemsDeliveredData: "deliveries",
    e.ItemsReturnedData: "returns",
    e.ItemsCancelledData: "item_cancellations",
    e.RefundedData: "refunds",
    e.FeeChargedData: "fees",
    e.CancelledData: "cancellation",
    e.CartsStatedData: "statements",
    e.DetailsChangedData: "details",
    e.ObservedData: "observed",
}
"""By the type of its `data`: the member of the facts that it is about, where it is about one."""
