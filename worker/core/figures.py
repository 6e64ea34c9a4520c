"""How many orders wait, and for what, as people and metrics have it."""

from collections.abc import Container, Iterable
from typing import get_args

from msgspec import Struct

from schemas.views import Waits
from worker.core.appointments import Entry
from worker.model.order import account_of

NOT_OWED: frozenset[str] = frozenset(get_args(Waits))
"""What an order waits for that no provider can be told about."""
UNCONFIGURED = ""
"""Stands for all accounts that are not configured: they may have any name."""


class Figures(Struct):
    """How many orders wait, and for what."""

    owed: int = 0
    held: int = 0
    parked: int = 0
    """Those included that are inconsistent for longer than they may be."""
    unconfirmed: int = 0
    inconsistent: int = 0
    overdue: int = 0
    """Of the two, those for longer than they may be."""
    owed_since_ms: int = 0
    """Since when the one is owed that is owed longest; 0: none is, or nobody would be told of it."""

    def add(self, other: "Figures") -> None:
        """Counts the others, too."""
        self.owed += other.owed
        self.held += other.held
        self.parked += other.parked
        self.unconfirmed += other.unconfirmed
        self.inconsistent += other.inconsistent
        self.overdue += other.overdue
        self.note_owed_since(other.owed_since_ms)

    def note_owed_since(self, since_ms: int) -> None:
        """One is owed since then; 0: that is not known."""
        if since_ms and not 0 < self.owed_since_ms <= since_ms:
            self.owed_since_ms = since_ms

    def oldest_s(self, now_ms: int) -> float:
        """For how long the one is owed that is owed longest."""
        return max(0.0, (now_ms - self.owed_since_ms) / 1000) if self.owed_since_ms else 0.0


def figures_of(entries: Iterable[tuple[str, Entry]], accounts: Container[str], now: float) -> dict[str, Figures]:
    """By account of those configured, and `UNCONFIGURED`. What is owed to nobody has no age."""
    found: dict[str, Figures] = {}
    for subject, entry in entries:
        account = account_of(subject)
        if (count := found.get(account)) is None:
            account = account if account in accounts else UNCONFIGURED
            count = found.setdefault(account, Figures())
        waiting = entry.waiting
        if waiting not in NOT_OWED:
            count.owed += 1
            count.held += entry.hold_until > now
            if account and not entry.awaits_change:
                count.note_owed_since(entry.owed_since_ms)
        elif waiting == "parked":
            count.parked += 1
        elif waiting == "unconfirmed":
            count.unconfirmed += 1
            count.overdue += entry.is_overdue
        elif waiting == "inconsistent":
            count.inconsistent += 1
            count.overdue += entry.is_overdue
            count.parked += entry.is_overdue
    return found
