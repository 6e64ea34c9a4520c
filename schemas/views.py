"""Views of an order, an account and a partition, for people and programs: `order show`, `/status`, scenarios."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from msgspec import Struct

NotReady = Literal["unconfirmed", "refused", "on_hold", "inconsistent"]
"""Why the facts of an order say that its provider may not be told."""
Waits = Literal[NotReady, "parked"]
"""What an order waits for that is owed to nobody meanwhile."""
Status = Literal[Waits, "owed", "settled"]
"""The first that applies, in the order of `DOMAIN.md` section 4."""


class StatusRules(Struct, frozen=True):
    """What holds for every order of one status."""

    meaning: str
    """What people are told that it means."""
    needs_person: bool = False
    """Whether the overview asks somebody to look at such orders."""
    is_counted: bool = False
    """Whether workers count them: `Waiting` and `PartitionView` have a member of its name, and a gauge shows it."""
    is_of_payment: bool = False
    """Whether it is the state of the payment, by the same name."""
    has_contradictions: bool = False
    """Whether the reasons that an assessment gives with it are contradictions between the order's events."""
    in_overview: bool = True


STATUS_RULES: Mapping[Status, StatusRules] = {
    "owed": StatusRules("an update is still to be sent", is_counted=True),
    "parked": StatusRules("a person has to look at it", needs_person=True, is_counted=True),
    "inconsistent": StatusRules(
        "its events contradict each other", needs_person=True, is_counted=True, has_contradictions=True
    ),
    "unconfirmed": StatusRules("no confirmation has come yet", is_counted=True),
    "on_hold": StatusRules("the payment is on hold", is_of_payment=True, has_contradictions=True),
    "refused": StatusRules("the payment was refused", is_of_payment=True, has_contradictions=True),
    "settled": StatusRules("the provider has the newest state", in_overview=False),
}
"""In the order in which people are shown them. What a status follows from is in `worker.core.status`; whatever else
depends on one reads this table, or is a `match` that the type checker wants complete."""
assert STATUS_RULES.keys() == set(get_args(Status)), "each status has its row"


class ItemView(Struct, frozen=True):
    """One item of a cart."""

    type: str
    reference: str | None
    name: str | None
    quantity: int
    total_minor: int


Said = dict[str, str | int | bool]
"""A provider event's members, and its time as `at`: RFC 3339, in UTC."""


class ProviderView(Struct, frozen=True, omit_defaults=True):
    """The newest events of each kind from an order's provider, or from a job; kinds that never occurred are absent."""

    order: str | None = None
    """The order's id at the provider."""
    payment_state: Said | None = None
    """The payment's state, derived from all events about it."""
    evaluation: Said | None = None
    """When the payment was last `under_evaluation`."""
    transaction: Said | None = None
    upsell: Said | None = None
    delivery: Said | None = None
    second_attempt: Said | None = None
    """When a second delivery was last requested."""
    cancelled: Said | None = None
    cancel_asked: Said | None = None
    risk: Said | None = None
    shipping: Said | None = None
    card_saved: Said | None = None
    unmapped: Said | None = None
    known: dict[str, Any] | None = None
    """What its adapter knows about the order there, in the provider's words; `differs_minor`: the provider's amounts
    minus those of the carts, where the difference is permanent."""
    disbursed: Said | None = None
    """The newest line of a disbursement, by day, and the number of lines that are kept (`lines`)."""


Paid = Literal["paid", "part_paid", "overpaid", "unpaid"]


class OrderView(Struct, frozen=True):
    """An order's current status, and why."""

    subject: str
    status: Status
    reason: str
    """What blocks the order; empty if nothing does. May quote the provider: not for logs."""
    currency: str | None = None
    shipped_minor: int | None = None
    unshipped_minor: int | None = None
    shipped: list[ItemView] | None = None
    unshipped: list[ItemView] | None = None
    revision: int = 0
    acked: int = 0
    next_attempt_s: float | None = None
    """Seconds until it is evaluated again; `None`: when something happens."""
    in_flight: bool = False
    partition: int = -1
    notes: list[str] = []
    """Remarks: why it was not sent although it is settled, what looks wrong with its record keys."""
    provider: ProviderView | None = None
    """`None`: it has reported nothing yet."""
    paid_minor: int | None = None
    """What the provider has paid out for the order; `None` while nothing is shipped and nothing is paid."""
    paid: Paid | None = None
    """The same, compared with the shipped cart."""


class Waiting(Struct, frozen=True):
    """How many orders of an account are waiting, and for what."""

    owed: int = 0
    parked: int = 0
    """Including those that have been inconsistent for too long."""
    unconfirmed: int = 0
    inconsistent: int = 0
    overdue: int = 0
    """Of these two, the orders that have been so for too long."""
    oldest_owed_s: float = 0.0


class JobView(Struct, frozen=True):
    """A job of an account, over the partitions of this worker."""

    job: str
    last: str | None
    """When the last run was due that all partitions have finished; `None`: none yet. RFC 3339, like all times."""
    next: str | None
    """When the next one is due."""
    overdue_s: float = 0.0
    """How long a run has been due that has not finished in all of them."""
    pages: int = 0
    """Pages of a report in flight."""
    in_doubt: int = 0
    """Of these, pages that may have been accepted."""
    stuck: int = 0
    """Of these, pages that wait for an operator: `cartsync account report NAME --page-taken|--page-not-taken ID`."""
    stuck_pages: list[str] = []
    """The ids of those."""


class AccountView(Struct, frozen=True):
    """The current state of a merchant account."""

    name: str
    provider: str
    guarantee: str
    paused: str | None
    """Why it is paused; `None`: it is not paused."""
    waiting_s: float
    """How much longer it is throttled by `Retry-After` or an overloaded provider."""
    queued: int
    in_flight: int
    probe_s: float | None = None
    """Seconds until one attempt probes whether a paused account can resume; `None`: there will be no probe."""
    waiting: Waiting = Waiting()
    jobs: list[JobView] = []


Role = Literal["restoring", "serving", "halted", "closing"]
"""What a worker does with a partition, in the words of the private port and the metrics."""


class PartitionView(Struct, frozen=True):
    """The current state of a partition of this worker."""

    partition: int
    role: Role
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
    """Records of the input that cannot be read until a producer ends its transaction."""
    unconfirmed: int = 0
    inconsistent: int = 0
    overdue: int = 0
    """Of these two, the orders that have been so for too long."""
    unconfigured: int = 0
    """Orders of accounts that are not configured, owed or not."""


class StatusView(Struct, frozen=True):
    """The response of `/status`."""

    version: str
    ready: bool
    partitions: list[PartitionView]
    accounts: list[AccountView]
    why: str = "ok"
    """Why it is not ready."""
    unserved: int = 0
    """Assigned partitions that are neither served nor halted."""
    kafka_silent_s: float = 0.0
    """How long no broker has responded."""
    event_partitions: int = 0
    """All partitions of the event topic; 0: not known yet."""
    sending: bool = True
    """false: shadow mode, nothing is sent."""
    unconfigured: int = 0
    """Orders of accounts that are not configured, owed or not."""
    unconfigured_waiting: Waiting = Waiting()
    """Of these, how many are waiting; they have no age, because they are owed to no provider."""
