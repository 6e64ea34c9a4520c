"""Provider events: `provider.*`, written by the receiver of callbacks and by jobs, or by a shop that receives callbacks
itself (`CONTRACT.md` section 6).

They count only with a valid MAC in their record's headers (`worker.core.trust`). A provider's words that we have no
word of our own for are kept verbatim: it may introduce new ones any day.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, UnsetType

from schemas.base import REFERENCE_MAX, Currency, Date, Minor, Name, PriceMinor, RuleError, Text, matching
from schemas.envelope import Data, Envelope

PAYLOAD_MAX_BYTES = 64 * 1024
WORD_MAX = 200

Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=REFERENCE_MAX,
        extra={"expected": f"a text of 1 to {REFERENCE_MAX} characters"},
        description="an id of the provider's, as text",
    ),
]
Word = Annotated[
    str,
    Meta(
        max_length=WORD_MAX,
        extra={"expected": f"a text of at most {WORD_MAX} characters"},
        description="the provider's own word, verbatim",
    ),
]
LastFour = Annotated[str, matching("^[0-9]{4}$", "four digits as text", "the last four digits of a card's number")]

DeliveryState = Literal[
    "delivered", "accepted", "rejected", "second_attempt", "disputed", "escalated", "resolved", "refunded"
]


class ProviderData(Data, kw_only=True, frozen=True):
    """The base of provider events' `data`."""

    provider_order: Id | UnsetType = UNSET
    """The order's id at the provider; present if the provider sends it (seQura's disbursements do not)."""


class PaymentStateSaidData(ProviderData, kw_only=True, frozen=True):
    """The payment's state at the provider."""

    state: Literal["approved", "on_hold", "refused", "under_evaluation"]
    """`under_evaluation` is only shown."""
    transaction_id: Id | UnsetType = UNSET


class TransactionData(ProviderData, kw_only=True, frozen=True):
    """What became of one transaction."""

    transaction_id: Id
    original_transaction_id: Id | UnsetType = UNSET
    kind: Word
    """Capture, refund, …"""
    status: Word
    amount_minor: Minor
    currency: Currency
    error: Text | UnsetType = UNSET
    """Why it failed."""


class UpsellData(ProviderData, kw_only=True, frozen=True):
    """The shopper has added to the order at the provider, or has tried to."""

    status: Word
    transaction_id: Id
    replaces: Id | UnsetType = UNSET
    """The transaction that this one replaces."""


class DeliverySaidData(ProviderData, kw_only=True, frozen=True):
    """What the shopper, or the provider, reports about the delivery."""

    state: DeliveryState


class CancelledThereData(ProviderData, kw_only=True, frozen=True):
    """The order was cancelled at the provider."""

    by: Literal["shopper", "merchant", "provider"]


class CancelAskedData(ProviderData, kw_only=True, frozen=True):
    """The shop was asked to cancel the order."""


class RiskData(ProviderData, kw_only=True, frozen=True):
    """The provider's risk assessment."""

    level: Word


class DisbursedData(ProviderData, kw_only=True, frozen=True):
    """One line of a disbursement."""

    disbursement: Name
    """The provider's name for the disbursement."""
    amount_minor: Minor
    """Paid for the order; below 0 if withdrawn."""
    maximum_minor: PriceMinor | UnsetType = UNSET
    """The largest amount that the order ever had, in the provider's books."""
    issued_on: Date
    reference: Text | UnsetType = UNSET
    """Of the bank transfer."""


class ShippingData(ProviderData, kw_only=True, frozen=True):
    """What became of a delivery that was booked through the provider."""

    provider: Name
    """Who ships."""
    success: bool
    error: Text | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET
    """The shipping provider's data, any JSON of at most 64 KiB; it is not kept."""

    def __post_init__(self) -> None:
        if isinstance(self.payload, Raw) and len(memoryview(self.payload)) > PAYLOAD_MAX_BYTES:
            raise RuleError(f"at most {PAYLOAD_MAX_BYTES} bytes of JSON", ".payload")


class CardSavedData(ProviderData, kw_only=True, frozen=True):
    """The shopper's card was saved. Nothing else about it is kept."""

    id: Id
    brand: Word
    last4: LastFour


class UnmappedData(ProviderData, kw_only=True, frozen=True):
    """An authentic call that was not understood."""

    kind: Word
    """The kind of callback."""
    word: Word
    """The word that was not understood; may be empty."""


class PaymentStateSaid(Envelope, tag="provider.payment_state", kw_only=True, frozen=True):
    """The provider approved the payment, put it on hold, or refused it. Once it is approved or refused, `on_hold`
    changes nothing; once it is refused, neither does an approval by seQura's webhook or IPN.
    """

    data: PaymentStateSaidData


class Transaction(Envelope, tag="provider.transaction", kw_only=True, frozen=True):
    """A transaction changed: if the order can be read at the provider, it is read before this is believed."""

    data: TransactionData


class Upsell(Envelope, tag="provider.upsell", kw_only=True, frozen=True):
    """The order grew at the provider, or an attempt to do so failed: it is read before this is believed."""

    data: UpsellData


class DeliverySaid(Envelope, tag="provider.delivery", kw_only=True, frozen=True):
    """Shown; the order is read before this is believed. After `second_attempt` `delivered` may be sent once more."""

    data: DeliverySaidData


class CancelledThere(Envelope, tag="provider.cancelled", kw_only=True, frozen=True):
    """If the order cannot be read at the provider (seQura), like `order.cancelled` by the provider, and not sent back;
    otherwise a hint, after which the order is read.
    """

    data: CancelledThereData


class CancelAsked(Envelope, tag="provider.cancel_asked", kw_only=True, frozen=True):
    """Shown; the shop decides."""

    data: CancelAskedData


class Risk(Envelope, tag="provider.risk", kw_only=True, frozen=True):
    """Shown."""

    data: RiskData


class Disbursed(Envelope, tag="provider.disbursed", kw_only=True, frozen=True):
    """Money for the order was paid out to the shop: all of these together are what was paid so far."""

    data: DisbursedData


class Shipping(Envelope, tag="provider.shipping", kw_only=True, frozen=True):
    """Shown, except for the payload."""

    data: ShippingData


class CardSaved(Envelope, tag="provider.card_saved", kw_only=True, frozen=True):
    """Shown."""

    data: CardSavedData


class Unmapped(Envelope, tag="provider.unmapped", kw_only=True, frozen=True):
    """Shown."""

    data: UnmappedData


ProviderEvent = (
    PaymentStateSaid
    | Transaction
    | Upsell
    | DeliverySaid
    | CancelledThere
    | CancelAsked
    | Risk
    | Disbursed
    | Shipping
    | CardSaved
    | Unmapped
)
