"""Entries of a history in words, for the console and the command line. Pure."""

from collections.abc import Iterable, Iterator

from schemas.history import HistoryEntry, place_of
from worker.core.amounts import amount_text, count_text

_OUTCOMES = {
    "applied": "the provider took it",
    "conflict": "the provider was busy with it",
    "rejected": "the provider did not take it",
    "not_sent": "it was not sent",
    "unknown": "nobody knows whether the provider took it",
    "not_found": "the provider does not know the order",
    "permanent": "the provider refused it for good",
    "credentials": "the provider refused the credentials",
    "forbidden": "the provider refused this order",
    "pending": "the provider is at it",
    "unsupported": "the provider's API cannot express it",
}
_DECISIONS = {
    "not_needed": "nothing to send: the provider has just that",
    "parked": "parked by a check before sending",
    "waiting": "it waits",
    "released": "it is sent again",
    "held": "another worker took over: the last request of the one before may still arrive",
}
_REPORTS = {"on_page": "it is on the page that is sent next"}


def words_of(entry: HistoryEntry, currency: str) -> str:
    """What happened, in a line without its time and without both carts. `currency`: the order's, for amounts that come
    without one; empty: not known.
    """
    return "; ".join(filter(None, (_what(entry), *_details(entry, entry.currency or currency))))


def _what(entry: HistoryEntry) -> str:
    match entry.kind:
        case "attempt":
            return f"attempt: {_OUTCOMES.get(entry.what, entry.what)}"
        case "report":
            return f"report: {_REPORTS.get(entry.what) or _OUTCOMES.get(entry.what, entry.what)}"
        case "decision":
            return _DECISIONS.get(entry.what, entry.what)
        case "operator":
            return f"{entry.by or 'an operator'}: {entry.what}"
        case _:  # `event`, or what a newer version writes
            return entry.what


def _details(entry: HistoryEntry, currency: str) -> Iterator[str]:
    yield entry.word
    if entry.units is not None:
        yield count_text(entry.units, "unit")
    if entry.amount_minor is not None:
        yield amount_text(entry.amount_minor, currency) if currency else f"{entry.amount_minor} minor units"
    if entry.origin:
        yield f"made at {entry.origin}"
    if entry.superseded:
        yield "something newer was known already"
    if entry.http_status is not None:
        yield f"HTTP {entry.http_status}"
    yield entry.reason
    if entry.erased:
        yield f"erased: {', '.join(entry.erased)}"
    if entry.took_ms is not None:
        yield f"took {_seconds(entry.took_ms)}"
    if entry.hold_ms is not None:
        yield f"held for {_seconds(entry.hold_ms)}"
    if entry.wait_ms is not None:
        yield f"again in {_seconds(entry.wait_ms)}"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3g} s" if ms < 1_000_000 else f"{ms / 1000:.0f} s"


Written = tuple[bytes, HistoryEntry | None]
"""A record of the history topic: its key, and its entry; `None`: it was removed, or nobody can read it."""


def kept_of(written: Iterable[Written]) -> dict[str, list[HistoryEntry]]:
    """What compaction leaves of the records of one partition, by order, the oldest first."""
    slots: dict[str, dict[int, HistoryEntry]] = {}
    for key, entry in written:
        if (place := place_of(key)) is None:
            continue
        slot, subject = place
        known = slots.setdefault(subject, {})
        known.pop(slot, None)
        if entry is not None:
            known[slot] = entry
    return {subject: list(known.values()) for subject, known in slots.items() if known}
