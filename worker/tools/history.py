"""`cartsync order history`: what happened to an order, from the history topic."""

import asyncio
from collections.abc import Mapping

import msgspec

from schemas.history import HistoryEntry
from worker.backend import find_entries
from worker.config.console import ConsoleConfig
from worker.core.story import words_of
from worker.errors import UsageError
from worker.tools.control import UnknownOrderError, ambiguous, means, printable
from worker.tools.patience import for_a_person
from worker.tools.state_topic import teller
from worker.web.console.amounts import money, utc


def run_history(ref: str, config: ConsoleConfig, *, as_json: bool) -> int:
    """Prints the history of an order, the oldest entry first; 0. `ref`: `account/reference`, or a reference that only
    one account has. Raises `UsageError`, `TopicError`, `ConfigError` or `LogError`.
    """
    settings = for_a_person(config.kafka)
    if not settings.history:
        raise UsageError('no histories are kept: [kafka] history_topic = ""')
    found = asyncio.run(find_entries(settings, means(ref), teller(settings.history)))
    _, entries = chosen(ref, found, settings.history)
    for line in lines_of(entries, as_json=as_json):
        print(line)
    return 0


def chosen(ref: str, found: Mapping[str, list[HistoryEntry]], topic: str) -> tuple[str, list[HistoryEntry]]:
    """The order that is meant: a whole subject before a reference. Raises `UsageError`."""
    if ref in found:
        return ref, found[ref]
    if not found:
        raise UnknownOrderError(f"{topic} has no entry of an order {printable(ref)}")
    if len(found) > 1:
        raise ambiguous(ref, sorted(found))
    return next(iter(found.items()))


def lines_of(entries: list[HistoryEntry], *, as_json: bool) -> list[str]:
    """One for each entry."""
    if as_json:
        return [msgspec.json.encode(entry).decode() for entry in entries]
    currency = next((entry.currency for entry in entries if entry.currency), "")
    return [_line(entry, currency) for entry in entries]


def _line(entry: HistoryEntry, currency: str) -> str:
    carts = ""
    if entry.shipped_minor is not None:
        carts = f"{money(entry.shipped_minor, entry.currency)} + {money(entry.unshipped_minor, entry.currency)}"
    more = " ".join(filter(None, (carts, entry.status, entry.event_id)))
    return f"{utc(entry.at_ms)}  {printable(words_of(entry, currency))}{f'  ({printable(more)})' if more else ''}"
