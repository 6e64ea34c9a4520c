"""What the outbox has its owner do, and what it hands to the publisher."""

from msgspec import Struct

from worker.core.plan import Acknowledge, Park, Send, Wait


class Offer(Struct, frozen=True):
    """The publisher is to claim it when its account's turn comes."""

    subject: str
    account: str
    owed_since_ms: int
    """What its turn goes by: later than since when it is owed, if it is only to be asked about."""
    has_failed: bool
    not_before: float
    """*now*; earlier only if its account finds that delays have become pointless."""


class Decide(Struct, frozen=True):
    """Its record is to change, in the next transaction."""

    subject: str
    basis: bytes
    """The committed record that this was decided on: if it has changed by then, the decision is void."""
    plan: Send | Acknowledge | Park | Wait
    is_overdue: bool = False
    """It has waited for too long."""


class NeedLease(Struct, frozen=True):
    """It may be sent, but not under this lease: once the next commit has renewed it, the order is evaluated again."""

    subject: str


class Overdue(Struct, frozen=True):
    """It has been unconfirmed or inconsistent for too long."""

    subject: str
    revision: int
    event_id: str
    status: str


Effects = tuple[Offer | Decide | NeedLease | Overdue, ...]


class Claim(Struct, frozen=True):
    """It is in flight from now on, until `ended`."""

    revision: int
    plan: Send
