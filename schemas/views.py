"""What people and programs get to see of an order, an account and a partition: `order show`, `/status`, scenarios."""

from typing import Any, Literal

from msgspec import Struct

Status = Literal["unconfirmed", "refused", "on_hold", "inconsistent", "parked", "owed", "settled"]
"""The first that holds, in the order of `DOMAIN.md` section 4."""


class ItemView(Struct, frozen=True):
    """One item of a cart."""

    type: str
    reference: str | None
    name: str | None
    quantity: int
    total_minor: int


Said = dict[str, str | int | bool]
"""What was said of one thing, in the words of its event, and `at`, when: an RFC 3339 time in UTC."""


class ProviderView(Struct, frozen=True, omit_defaults=True):
    """The newest that an order's provider said of it, and its jobs found out; what it never said is not there."""

    order: str | None = None
    """The order's id at the provider."""
    payment_state: Said | None = None
    """The state of the payment that follows from all that was said of it."""
    evaluation: Said | None = None
    """When the payment was `under_evaluation` last."""
    transaction: Said | None = None
    upsell: Said | None = None
    delivery: Said | None = None
    second_attempt: Said | None = None
    """When a second delivery was asked for last."""
    cancelled: Said | None = None
    cancel_asked: Said | None = None
    risk: Said | None = None
    shipping: Said | None = None
    card_saved: Said | None = None
    unmapped: Said | None = None
    known: dict[str, Any] | None = None
    """What its adapter knows of the order there, in the provider's words; `differs_minor`: what the provider holds
    less what the carts have, where that differs for good."""
    disbursed: Said | None = None
    """The newest line of a disbursement by day, and how many there are (`lines`, of those that are kept)."""


Paid = Literal["paid", "part_paid", "overpaid", "unpaid"]


class OrderView(Struct, frozen=True):
    """An order as it stands, and why."""

    subject: str
    status: Status
    reason: str
    """What stands in the way; empty when nothing does. May hold a provider's words: not for logs."""
    currency: str | None = None
    shipped_minor: int | None = None
    unshipped_minor: int | None = None
    shipped: list[ItemView] | None = None
    unshipped: list[ItemView] | None = None
    revision: int = 0
    acked: int = 0
    next_attempt_s: float | None = None
    """Seconds until the next look at it; `None`: when something happens."""
    in_flight: bool = False
    partition: int = -1
    notes: list[str] = []
    """What else is worth knowing: why it was not sent though it is settled, what looks wrong with its record keys."""
    provider: ProviderView | None = None
    """`None`: it said nothing yet."""
    paid_minor: int | None = None
    """What the provider has paid out for the order; `None` while nothing is shipped and nothing paid."""
    paid: Paid | None = None
    """The same beside the shipped cart."""


class Waiting(Struct, frozen=True):
    """How many orders of an account wait, and for what."""

    owed: int = 0
    parked: int = 0
    """Those included that are inconsistent for longer than they may be."""
    unconfirmed: int = 0
    inconsistent: int = 0
    overdue: int = 0
    """Of the two, those for longer than they may be."""
    oldest_owed_s: float = 0.0


class JobView(Struct, frozen=True):
    """A job of an account, over the partitions of this worker."""

    job: str
    last: str | None
    """When the run was due that all of them have made; `None`: there was none yet. RFC 3339, as all times."""
    next: str | None
    """When the next one is due."""
    overdue_s: float = 0.0
    """For how long a run is due that has not ended in one of them."""
    pages: int = 0
    """Of a report, that are under way."""
    in_doubt: int = 0
    """Of these, that may have been taken."""
    stuck: int = 0
    """Of these, that wait for an operator: `cartsync account report NAME --page-taken|--page-not-taken ID`."""
    stuck_pages: list[str] = []
    """The ids of those."""


class AccountView(Struct, frozen=True):
    """A merchant account as it stands."""

    name: str
    provider: str
    guarantee: str
    paused: str | None
    """Why it is paused; `None`: it is not."""
    waiting_s: float
    """How long `Retry-After`, or a provider that is overloaded, still holds it."""
    queued: int
    in_flight: int
    probe_s: float | None = None
    """Seconds until one attempt finds out whether a paused account goes on; `None`: nothing of the kind is to come."""
    waiting: Waiting = Waiting()
    jobs: list[JobView] = []


class PartitionView(Struct, frozen=True):
    """A partition of ours as it stands."""

    partition: int
    role: Literal["restoring", "serving", "halted", "closing"]
    detail: str
    next_offset: int
    lag: int | None
    orders: int
    owed: int
    held: int
    parked: int
    oldest_owed_s: float
    lease_left_s: float
    blocked: int | None = None
    """Records of the input that cannot be read before somebody ends a transaction."""
    unconfirmed: int = 0
    inconsistent: int = 0
    overdue: int = 0
    """Of the two, those for longer than they may be."""
    unconfigured: int = 0
    """Orders of accounts that are not configured, whether something of them is owed or not."""


class StatusView(Struct, frozen=True):
    """The answer of `/status`."""

    version: str
    ready: bool
    partitions: list[PartitionView]
    accounts: list[AccountView]
    why: str = "ok"
    """Why it is not ready."""
    unserved: int = 0
    """Partitions of ours that are neither served nor halted."""
    kafka_silent_s: float = 0.0
    """For how long no broker has answered."""
    event_partitions: int = 0
    """Of the event topic, all of them; 0: not known yet."""
    sending: bool = True
    """false: shadow mode, nothing is sent."""
    unconfigured: int = 0
    """Orders of accounts that are not configured, whether something of them is owed or not."""
    unconfigured_waiting: Waiting = Waiting()
    """Of these, what waits; it has no age, for it is owed to nobody."""
