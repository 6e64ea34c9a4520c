"""Results: what other systems are told of an order, one CloudEvent per record of the results topic."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.base import Currency, Minor, Subject, Time, TraceParent
from schemas.envelope import Data
from schemas.views import ProviderView, Status

CUT = "…"
"""The end of a text that was too long, or all that is left of one that did not fit."""

Digits = Annotated[str, Meta(pattern=r"^[0-9]{1,18}$", description="1 to 18 digits as text")]


class Attributes(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """CloudEvents 1.0 attributes."""

    specversion: Literal["1.0"]
    id: str
    """With `source` it identifies the result: the same again says nothing new. Made of the subject, the revision, and
    what has changed.
    """
    source: str
    """`/cartsync/<group_id>`, percent-encoded: deployments may share the topic."""
    time: Time
    """When it was found out, by the worker's clock; of what a provider says, when it did."""
    subject: Subject
    """The order; also the record's key. All results of an order are in one partition, in their order."""
    traceparent: TraceParent | UnsetType = UNSET
    """Of the newest event of the order that had one; of what a provider says, its own."""


class OrderChangedData(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """How the order stands."""

    status: Status
    revision: int
    """Grows with every event that changed the order; its position in the input is in it."""
    acked: int
    """The newest revision that the provider is known to hold; 0: none."""
    unsupported: bool
    """It is parked because what is left cannot be told to its provider: somebody has to do it there by hand."""
    currency: Currency | None
    """`null`, with both amounts, while the carts cannot be told: not confirmed, or the facts contradict each other."""
    shipped_minor: Minor | None
    """What was shipped and is kept, with tax, as of `revision`."""
    unshipped_minor: Minor | None
    """What is still to be shipped."""
    paid_minor: Minor | UnsetType = UNSET
    """What the provider has paid out for the order; not there before it paid anything."""
    provider: ProviderView | UnsetType = UNSET
    """What the provider has said of the order so far; not there before it said anything. Without `card_saved` and the
    provider's own words (`error`, `word`), unless `[kafka] results_with_reasons`.
    """
    reason: str | UnsetType = UNSET
    """Why it waits, also in the provider's words; empty: nothing stands in its way. Only with
    `[kafka] results_with_reasons`, for it may be personal; one that is too long ends with `…`.
    """


class OrderChanged(Attributes, tag_field="type", tag="cartsync.order_changed", kw_only=True, frozen=True):
    """The order's status, or what its provider is known to hold, has changed. An order that is told to its provider at
    once goes from `settled` to `settled`; `owed` is told when that takes longer, or has failed.
    """

    sequence: Digits
    """Counts these results of an order, from 1. A number is missing when one was larger than the topic takes."""
    data: OrderChangedData


class ProviderFact(Attributes, kw_only=True, frozen=True):
    """What a provider has said, once it was taken: `type` and `data` are those of its event."""

    type: str
    data: Data


RESULT_TYPES: tuple[type[Attributes], ...] = (OrderChanged,)
"""Beside what providers say, whose schemas are those of their events."""
