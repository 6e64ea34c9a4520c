"""What `cartsync console` serves under `/api`: the same that its pages show. Its OpenAPI description is made of these.

Amounts are minor units of the currency beside them; times are UTC, RFC 3339 as text or milliseconds where the name says
so. Nothing here holds a shopper's personal data unless a member says that it may.
"""

from typing import Any, Literal

from msgspec import Raw, Struct

from schemas.history import HistoryEntry
from schemas.views import OrderView, Paid, Status

Role = Literal["viewer", "operator"]
Sort = Literal[
    "changed", "age", "reference", "shipped", "unshipped", "-changed", "-age", "-reference", "-shipped", "-unshipped"
]
"""`changed` newest first, `age` the longest waiting first, `reference` A to Z, amounts the largest first; a minus turns
each around.
"""


class OrderRow(Struct, frozen=True):
    """An order in a list."""

    subject: str
    account: str
    partition: int
    status: Status
    reason: str
    """What stands in the way, digits and what may be personal replaced by `…`; empty when nothing does."""
    currency: str | None
    shipped_minor: int | None
    unshipped_minor: int | None
    paid_minor: int | None
    paid: Paid | None
    differs: bool
    """The provider paid out, or holds, other amounts than the carts have."""
    on_hold: bool
    """Nothing is sent yet: the last request may still arrive at the provider."""
    revision: int
    acked: int
    changed_ms: int
    """Time of its newest event."""
    waiting_since_ms: int | None
    """Since when it has not been settled; `None`: it is."""


class OrdersPage(Struct, frozen=True):
    """One page of a list of orders."""

    orders: list[OrderRow]
    next: str | None
    """`cursor` of the following page; `None`: this was the last."""
    total: int
    """How many match, up to `total_max`."""
    total_max: int


class LetterRow(Struct, frozen=True):
    """A dead letter in a list."""

    partition: int
    offset: int
    """In the dead-letter topic."""
    at_ms: int
    reason: str
    """The kind of mistake, as in the metrics."""
    detail: str
    """What was expected where; never a text of the event."""
    subject: str
    """The order it was about, as far as that can be told."""
    type: str
    """Of the event, as far as that can be told."""
    event_id: str
    source: str
    """`topic/partition/offset` of the record that was refused."""
    handled: str = ""
    """`replayed`, `mended` or `dismissed`; empty: nobody has dealt with it."""


class LettersPage(Struct, frozen=True):
    """One page of the list of dead letters, the newest first."""

    letters: list[LetterRow]
    next: str | None
    by_reason: dict[str, int]
    """How many there are of each kind that nobody has dealt with, whatever the filter."""


class LetterView(Struct, frozen=True):
    """A dead letter with the record that was refused."""

    letter: LetterRow
    path: str
    """Where the mistake is, as a JSON path; empty: not in the value."""
    key: str
    content: Any
    """The value as JSON, or its text when it is none. Texts that may be personal are `•••` unless they were asked for.
    """
    is_json: bool
    is_hidden: bool
    """Whether something was replaced by `•••`."""
    headers: dict[str, str]
    truncated: str
    """What had to be left out of the letter; empty: nothing."""


class ParkedReason(Struct, frozen=True):
    """How many of an account's parked orders wait for the same reason."""

    reason: str
    count: int
    example: str
    """The order that waits the longest."""


class AccountLine(Struct, frozen=True):
    """An account in the overview."""

    name: str
    provider: str | None
    """`None`: it is not configured here."""
    orders: int
    by_status: dict[str, int]
    on_hold: int
    differs: int
    paid: dict[str, int]
    """By `paid` state, of the orders that have one."""
    oldest_owed_ms: int | None
    """Since when the oldest owed order waits."""
    parked: list[ParkedReason]
    """The most frequent reasons."""
    paused: str | None = None
    """Why it sends nothing, as a worker says; `None`: it is not paused, or no worker could be asked."""


class PartitionLine(Struct, frozen=True):
    """A partition in the overview."""

    partition: int
    owner: str
    """The worker that has taken it last, as the state topic has it."""
    owned_since_ms: int | None
    left_in_order: bool
    """The owner has left, in order."""
    lag: int | None
    """Events that wait; `None`: the event topic could not be asked."""
    served_by: str | None
    """The worker that says that it serves it; `None`: none of those that were asked."""
    phase: str
    """As that worker says; empty: none was asked."""


class WorkerLine(Struct, frozen=True):
    """A worker that was asked."""

    url: str
    ok: bool
    detail: str
    version: str = ""
    partitions: int = 0
    lease_left_s: float | None = None
    """The least of its partitions."""


class NeedsPerson(Struct, frozen=True):
    """Something that needs a person, and the next step."""

    text: str
    do: str
    link: str
    """The page where to do it; empty: not here."""
    severity: Literal["page", "ticket", "info"] = "ticket"


class Activity(Struct, frozen=True):
    """What the results topic was told in one minute."""

    minute_ms: int
    acknowledged: int
    parked: int
    other: int


class IndexView(Struct, frozen=True):
    """How far the console has read."""

    state: Literal["building", "following", "away"]
    behind: int
    """Records that are not read yet."""
    total: int
    """Of the topics, when reading began."""
    detail: str
    """Why Kafka cannot be read; empty: it can."""
    orders: int
    read_until_ms: int
    """When everything had been read last; 0: not yet."""
    version: int
    """Grows with every change."""


class Overview(Struct, frozen=True):
    """Everything at a glance."""

    needs_person: list[NeedsPerson]
    accounts: list[AccountLine]
    partitions: list[PartitionLine]
    workers: list[WorkerLine]
    activity: list[Activity]
    """Of the last hour, the oldest first."""
    dead_letters_day: int
    """Of the last 24 hours."""
    index: IndexView


class CartLine(Struct, frozen=True):
    """An item of both sides of a cart."""

    type: str
    reference: str | None
    name: str | None
    quantity: int
    total_minor: int
    there_quantity: int | None
    """As the provider has it; `None`: its items are not known."""
    there_minor: int | None
    differs: bool


class CartSides(Struct, frozen=True):
    """A cart as the shop has it, and as the provider is known to have it."""

    name: Literal["shipped", "unshipped"]
    lines: list[CartLine]
    total_minor: int
    there_minor: int | None
    differs: bool


class HistoryLine(Struct, frozen=True):
    """A result that was written of an order."""

    at_ms: int
    type: str
    status: str
    """Empty: the result is not about how the order stands."""
    revision: int | None
    acked: int | None
    currency: str | None
    shipped_minor: int | None
    unshipped_minor: int | None


class StoryLine(Struct, frozen=True):
    """Something that happened to an order."""

    entry: HistoryEntry
    """As the history topic has it."""
    words: str
    """The same in a line; nothing of it is personal."""
    why: str = ""
    """Why an operator did it, of the newest five; may be personal."""


class OrderPage(Struct, frozen=True):
    """All that is known of an order."""

    order: OrderView
    """As `cartsync order show` gives it. The reason, and names of items, may be personal."""
    source: str
    """Who says so: a worker's address, or `state topic`."""
    provider_has: str
    """What is known of the provider's side, in words."""
    carts: list[CartSides]
    next: str
    """What comes next, and when."""
    not_before_ms: int | None
    history: list[HistoryLine]
    """The newest first."""
    refused: list[LetterRow]
    """Its dead letters, the newest first."""
    event_id: str
    """Of the newest event."""
    trace: str | None
    story: list[StoryLine] = []
    """The newest 50 entries of its history, the oldest first; empty: no histories are kept."""


class Tried(Struct, frozen=True):
    """What pasted events would lead to."""

    explanation: list[dict[str, Any]]
    """By event, what it changes in both carts, and why; as `cartsync scenario --explain --json`."""
    updates: list[dict[str, Any]]
    """Method, URL and body of what would be sent."""
    orders: list[OrderView]
    refused: list[str]
    problems: list[str]
    """Why something could not be tried; empty: all of it was."""


class ActionAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an action."""

    why: str = ""
    """For the log."""


class MendAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `mend`."""

    event: Raw
    """The whole event, as one JSON object: its attributes and `data`."""
    why: str = ""
    """For the log."""


class ActionLine(Struct, frozen=True):
    """What became of an action on one order, account or dead letter."""

    subject: str
    """Of a dead letter `partition/offset`."""
    done: bool
    detail: str


class ActionDone(Struct, frozen=True):
    """The answer of an action."""

    command: str
    lines: list[ActionLine]
    left: int = 0
    """How many more match and were not tried: too many at once."""


ActionState = Literal["running", "done", "stopped", "failed"]
"""`stopped`: somebody did, and some were not tried; `failed`: by a defect."""


class ActionView(Struct, frozen=True):
    """An action of many: how far it is, or what came of it."""

    command: str
    lines: list[ActionLine]
    """What became of each so far; of a list of actions, none."""
    left: int
    """How many more match and are not tried: too many at once."""
    key: str
    """Its name under `/api/actions`, for as long as the console keeps it: until it is restarted."""
    state: ActionState
    detail: str
    """Why it has failed."""
    by: str
    began_ms: int
    total: int
    """How many are tried."""
    done: int
    """For how many something was done so far."""
    refused: int
    """For how many nothing was done so far; `lines` say why."""
    is_stopped: bool
    """Somebody has stopped it: those under way are waited for, the rest is not tried."""
    asked: str
    """What they had to match, as the parameters of an address."""


class ActionsView(Struct, frozen=True):
    """Actions, the newest first."""

    actions: list[ActionView]


class Session(Struct, frozen=True):
    """Who asks."""

    user: str
    role: Role
    csrf: str
    """What `X-CSRF-Token` has to be for a change."""
    can_act: bool
    why_not: str
    """Why no action can be carried out; empty: they can."""
