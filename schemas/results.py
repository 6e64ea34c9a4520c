"""Results: events about orders for other systems, one CloudEvent per record of the results topic."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.base import Currency, Minor, Subject, Time, TraceParent
from schemas.envelope import Data
from schemas.operator_events import By
from schemas.views import ProviderView, Status

CUT = "…"
"""The end of a text that was too long; alone, it replaces a text that did not fit at all."""

Digits = Annotated[str, Meta(pattern=r"^[0-9]{1,18}$", description="1 to 18 digits as text")]


class Attributes(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """CloudEvents 1.0 attributes."""

    specversion: Literal["1.0"]
    id: str
    """With `source` it identifies the result: a repetition says nothing new. Derived from the subject, the revision
    and what has changed.
    """
    source: str
    """`/cartsync/<group_id>`, percent-encoded: deployments may share the topic."""
    time: Time
    """When it became true, by the worker's clock; for a provider event, the provider's time."""
    subject: Subject
    """The order; also the record's key. All results of an order are in one partition, in their order."""
    traceparent: TraceParent | UnsetType = UNSET
    """Of the order's newest event that had one; for a provider event, its own."""


class OrderChangedData(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """The order's current status."""

    status: Status
    revision: int
    """Grows with every event that changed the order; derived from the event's position in the input."""
    acked: int
    """The newest revision that the provider is known to have; 0: none."""
    unsupported: bool
    """It is parked because its provider's API cannot express its state: an operator has to act there by hand."""
    currency: Currency | None
    """`null`, with both amounts, while the carts are unknown: not confirmed, or the facts contradict each other."""
    shipped_minor: Minor | None
    """Shipped and kept, with tax, as of `revision`."""
    unshipped_minor: Minor | None
    """Still to be shipped."""
    paid_minor: Minor | UnsetType = UNSET
    """What the provider has paid out for the order; absent until it has paid something."""
    provider: ProviderView | UnsetType = UNSET
    """What the provider has reported about the order so far; absent until it has reported something. Without
    `card_saved` and the provider's own words (`error`, `word`), unless `[kafka] results_with_reasons`.
    """
    reason: str | UnsetType = UNSET
    """Why it waits, possibly in the provider's words; empty: nothing blocks it. Only with
    `[kafka] results_with_reasons`, because it may be personal; a reason that is too long ends with `…`.
    """


class OrderChanged(Attributes, tag_field="type", tag="cartsync.order_changed", kw_only=True, frozen=True):
    """The order's status, or what its provider is known to have, has changed. An order that is sent to its provider at
    once goes from `settled` to `settled`; `owed` is reported if sending takes longer, or has failed.
    """

    sequence: Digits
    """Counts these results of an order, from 1. A number is missing if its result was larger than the topic accepts."""
    data: OrderChangedData


class OperatedData(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What an operator did, and what came of it."""

    command: str
    """What the operator event's type ends with."""
    by: By
    """Who did it."""
    why: str | UnsetType = UNSET
    """Why; absent if nobody said."""
    done: bool
    """Whether there was anything to do."""
    outcome: str
    """What came of it, in words."""
    event_id: str
    """Of the operator event; in an unusual form, 16 digits that stand for it."""
    partition: int
    """Of the event topic: an event about an account is in every one, and has a result for each."""
    status: Status | UnsetType = UNSET
    """Of the order, after it; absent for an account, and for an order that is not known."""
    revision: int | UnsetType = UNSET
    acked: int | UnsetType = UNSET


class Operated(Attributes, tag_field="type", tag="cartsync.operated", kw_only=True, frozen=True):
    """An operator's event was taken: who did what, why, and what came of it."""

    subject: Annotated[str, Meta(description="the order, or the account's name; also the record's key")]
    data: OperatedData


class ProviderFact(Attributes, kw_only=True, frozen=True):
    """An accepted provider event: `type` and `data` are those of the event."""

    type: str
    data: Data


RESULT_TYPES: tuple[type[Attributes], ...] = (OrderChanged, Operated)
"""Without provider events, whose schemas are those of the input."""
