"""What a provider says of an order: `provider.*` events, written by the receiver of callbacks and by jobs, or by a shop
that receives callbacks itself (`CONTRACT.md` section 6).

They count with a right MAC in their record's headers alone (`worker.core.trust`). Words of a provider that we have no
own word for are kept as it says them: it may say new ones any day.
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
        description="a word of the provider's, as it says it",
    ),
]
LastFour = Annotated[str, matching("^[0-9]{4}$", "four digits as text", "the last four digits of a card's number")]

DeliveryState = Literal[
    "delivered", "accepted", "rejected", "second_attempt", "disputed", "escalated", "resolved", "refunded"
]


class ProviderData(Data, kw_only=True, frozen=True):
    """The base of what a provider says."""

    provider_order: Id | UnsetType = UNSET
    """The order's id at the provider; always there when the provider tells it (seQura's disbursements do not)."""


class PaymentStateSaidData(ProviderData, kw_only=True, frozen=True):
    """The provider's word on the payment."""

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
    """The transaction that this one takes the place of."""


class DeliverySaidData(ProviderData, kw_only=True, frozen=True):
    """What the shopper, or the provider, says of the delivery."""

    state: DeliveryState


class CancelledThereData(ProviderData, kw_only=True, frozen=True):
    """The order was cancelled at the provider."""

    by: Literal["shopper", "merchant", "provider"]


class CancelAskedData(ProviderData, kw_only=True, frozen=True):
    """The shop was asked to cancel the order."""


class RiskData(ProviderData, kw_only=True, frozen=True):
    """How risky the provider finds the order."""

    level: Word


class DisbursedData(ProviderData, kw_only=True, frozen=True):
    """One line of a disbursement."""

    disbursement: Name
    """What the provider calls the disbursement."""
    amount_minor: Minor
    """What it pays for the order; below 0 when it takes back."""
    maximum_minor: PriceMinor | UnsetType = UNSET
    """The most that the order was ever worth, in the provider's books."""
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
    """What that provider says, any JSON of at most 64 KiB; it is not kept."""

    def __post_init__(self) -> None:
        if isinstance(self.payload, Raw) and len(memoryview(self.payload)) > PAYLOAD_MAX_BYTES:
            raise RuleError(f"at most {PAYLOAD_MAX_BYTES} bytes of JSON", ".payload")


class CardSavedData(ProviderData, kw_only=True, frozen=True):
    """The shopper's card was saved. Nothing else of it is taken."""

    id: Id
    brand: Word
    last4: LastFour


class UnmappedData(ProviderData, kw_only=True, frozen=True):
    """Something authentic that nobody could make sense of."""

    kind: Word
    """Of callback."""
    word: Word
    """What could not be understood; may be empty."""


class PaymentStateSaid(Envelope, tag="provider.payment_state", kw_only=True, frozen=True):
    """The provider approved the payment, holds it, or refused it. Once it was approved or refused, that it is on hold
    changes nothing; nor, once it was refused, does an approval of seQura's webhook or IPN.
    """

    data: PaymentStateSaidData


class Transaction(Envelope, tag="provider.transaction", kw_only=True, frozen=True):
    """Something moved: whoever can read the order at the provider reads before believing it."""

    data: TransactionData


class Upsell(Envelope, tag="provider.upsell", kw_only=True, frozen=True):
    """The order grew at the provider, or did not after all: read before it is believed."""

    data: UpsellData


class DeliverySaid(Envelope, tag="provider.delivery", kw_only=True, frozen=True):
    """Shown, and read before it is believed. After `second_attempt` the order may be told delivered once more."""

    data: DeliverySaidData


class CancelledThere(Envelope, tag="provider.cancelled", kw_only=True, frozen=True):
    """Where the order cannot be read at the provider (seQura), as `order.cancelled` by it, and not told back; elsewhere
    a claim, after which the order is read.
    """

    data: CancelledThereData


class CancelAsked(Envelope, tag="provider.cancel_asked", kw_only=True, frozen=True):
    """Shown; the shop decides."""

    data: CancelAskedData


class Risk(Envelope, tag="provider.risk", kw_only=True, frozen=True):
    """Shown."""

    data: RiskData


class Disbursed(Envelope, tag="provider.disbursed", kw_only=True, frozen=True):
    """Money for the order was paid out to the shop: all of it together is what was paid so far."""

    data: DisbursedData


class Shipping(Envelope, tag="provider.shipping", kw_only=True, frozen=True):
    """Shown, but for the payload."""

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
