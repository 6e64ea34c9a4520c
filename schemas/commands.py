"""What commands print with `--json`, where it is not one of the views: `schemas/json/command.<name>.json`.

A list is printed as JSON lines, one object each, and the schema is that of a line. An error is one object, too, on
standard output: `Refused`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from schemas.console import LetterRow, LetterView, OrderRow, WorkerLine
from schemas.history import HistoryEntry
from schemas.views import ItemView, ProviderView


class Refused(Struct, frozen=True):
    """Why a command has not done what it was asked."""

    ok: bool
    """False."""
    problems: list[str]
    """What is wrong, and what to do; at least one."""
    exit_code: int
    """That of the process."""


class ReplayedLetter(Struct, frozen=True):
    """What became of a dead letter that was to be mended, replayed or dismissed."""

    letter: str
    """`partition/offset` in the dead-letter topic."""
    subject: str
    """The order; empty: it cannot be told. What may be personal is `•••`."""
    type: str
    """Of the event."""
    done: bool
    """It was, or would be (`--dry-run`)."""
    detail: str
    """Why not; empty if it was."""
    to: str = ""
    """`topic/partition/offset` of the event that was written; without an offset when nothing is written; empty when
    there is none.
    """


class ListedAccount(Struct, frozen=True, kw_only=True):
    """A merchant account: its settings, by whom it is paused, and what waits."""

    name: str
    provider: str | None
    """`None`: it is not configured here, and the state topic knows it."""
    host: str | None
    """Of the provider's address, with its port if that is not the usual one; `None`, like the following: the settings
    cannot be read here."""
    merchant: str | None
    """What the account is called at the provider."""
    delivery: str | None
    """`update`, `report` or `report_then_update`."""
    concurrency: int | None
    """Maximum number of attempts in flight, at each worker."""
    paused_by: str | None
    """Who has paused it last; `None`: no operator has. What workers pause themselves is in `status`."""
    paused_why: str
    paused_since_ms: int | None
    not_paused_in: list[int]
    """Partitions in which the pause was not taken yet; empty: it was in all, or there is none."""
    owed: int | None
    """Orders; `None`, like `parked`: they were not counted."""
    parked: int | None


class GroupMember(Struct, frozen=True):
    """A worker, as the consumer group knows it. A killed one is listed until its session times out."""

    client: str
    host: str
    partitions: list[int]
    """That the group has assigned to it."""


class PartitionStatus(Struct, frozen=True):
    """A partition, from the group, the state topic, and the worker that serves it if it could be asked."""

    partition: int
    member: str
    """To whom the group has assigned it, `client at host`; empty: to nobody."""
    owner: str
    """The worker that has taken it over last, as the state topic has it; empty: nobody has, or it was not read."""
    owned_since_ms: int | None
    left_in_order: bool
    """The owner has drained and left, and nobody has taken over since."""
    served_by: str
    """URL of the worker that says that it serves it; empty: none of those that were asked."""
    phase: str
    """`restoring`, `serving`, `halted` or `closing`, as that worker says; empty: it is not known."""
    detail: str
    """Why it does not serve, as that worker says."""
    lease_left_s: float | None
    next_offset: int | None
    """Of the event topic, that is taken next; `None`: nothing was ever taken."""
    lag: int
    """Events that wait."""
    orders: int | None
    """`None`, like all that follow: orders were not counted."""
    by_status: dict[str, int] | None
    oldest_owed_ms: int | None
    """Since when its oldest owed order waits; `None`: none is owed."""


class FleetStatus(Struct, frozen=True):
    """All workers and partitions at a glance."""

    group: str
    group_state: str
    """In Kafka's words: `Stable`, `PreparingRebalance`, `Empty`, …"""
    members: list[GroupMember]
    workers: list[WorkerLine]
    """Private ports that were asked."""
    partitions: list[PartitionStatus]
    problems: list[str]
    """What needs somebody, and what to do; empty: nothing was seen."""


class PersonalPart(Struct, frozen=True):
    """What may say who somebody is, of an order."""

    reason: str
    """What blocks it, in the provider's words."""
    details: dict[str, Any]
    """References, customer, addresses and so on, as events had them."""
    provider: ProviderView | None


class ExportedOrder(Struct, frozen=True, tag_field="type", tag="order"):
    """An order of the state topic."""

    order: OrderRow
    shipped: list[ItemView] | None
    """`None`: its events do not come to carts yet. Names of items are left out, unless personal data was asked for."""
    unshipped: list[ItemView] | None
    event_id: str
    """Of its newest event, cut."""
    may_land_late: bool
    """A request of an older revision may still arrive at the provider."""
    remote_unknown: bool
    """The provider may have something else than what it has acknowledged."""
    personal: PersonalPart | None
    """`None`: it was not asked for."""


class ExportedPartition(Struct, frozen=True, tag_field="type", tag="partition"):
    """A partition of the state topic, after its orders."""

    partition: int
    orders: int
    """That were printed."""
    next_offset: int | None
    """Of the event topic, that is taken next; `None`: nothing was ever taken."""
    topic_epoch: int
    left_in_order: bool
    owner: str
    """The worker that has taken it over last; empty: nobody has."""
    version: str
    """Of cartsync, that has written last."""


class StateDifference(Struct, frozen=True, tag_field="type", tag="difference"):
    """Where the state is not what comes of the input."""

    about: Literal["order", "event", "record"]
    subject: str
    """The order; empty: it is not about one that is known."""
    partition: int
    text: str
    """What differs; ids, but no personal data."""
    state_shipped_minor: int | None = None
    state_unshipped_minor: int | None = None
    """What both carts come to, as the state has them; `None`: there are none."""
    input_shipped_minor: int | None = None
    input_unshipped_minor: int | None = None
    """… and as the input has them."""


class StateVerified(Struct, frozen=True, tag_field="type", tag="summary"):
    """What came of `state verify`, after the differences."""

    partitions: int
    events: int
    """Of the input, that were folded again."""
    agrees: int
    """Orders whose events come to just what the state has."""
    partly: int
    """Orders whose older events are gone; those that are left are in the state."""
    not_checked: int
    """Orders of which no event is left, that were closed, or whose provider's events cannot be believed here."""
    differs: int
    notes: list[str]
    """What could not be checked, and why."""


class Migrated(Struct, frozen=True):
    """What came of `migrate partitions`."""

    state: Literal["planned", "done", "done_before", "undone"]
    """`planned`: nothing was changed (`--dry-run`). `undone`: workers take the old state again."""
    partitions_before: int
    partitions: int
    event_topic: str
    state_topic: str
    history_topic: str
    """Empty: no histories are kept."""
    topic_epoch: int
    """All four of the new state, to be set."""
    orders: int
    owed: int
    """Orders with a change that the provider has not acknowledged."""
    in_doubt: int
    """Orders of which a request may still land."""
    orders_by_partition: list[int]
    """New partitions."""
    clean: bool
    """All workers had left in order; otherwise what is owed is held at the next start."""
    late: list[str]
    """Events that were written to the old event topic too late, by partition; nobody reads them."""


class DoctorCheck(Struct, frozen=True):
    """One thing that `cartsync doctor` has looked at."""

    area: Literal["configuration", "brokers", "topics", "permissions", "group", "clock", "provider"]
    name: str
    """Of what it is about: a topic, a broker, an account."""
    result: Literal["ok", "warn", "fail"]
    """`fail`: it does not work so. `warn`: it works, but should be looked at, or could not be seen."""
    text: str
    """What was found."""
    action: str
    """What to do; empty: nothing."""


PRINTED: Mapping[str, type[Struct]] = {
    "error": Refused,
    "orders_list": OrderRow,
    "order_history": HistoryEntry,
    "doctor": DoctorCheck,
    "status": FleetStatus,
    "state_export.order": ExportedOrder,
    "state_export.partition": ExportedPartition,
    "state_verify.difference": StateDifference,
    "state_verify.summary": StateVerified,
    "migrate": Migrated,
    "account_list": ListedAccount,
    "dlq_list": LetterRow,
    "dlq_show": LetterView,
    "dlq_replay": ReplayedLetter,
}
"""By the name of the schema."""
