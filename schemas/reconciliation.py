"""What `cartsync reconcile` finds: one JSON object a line, an order each, and a summary in the end."""

from typing import Literal

from msgspec import Struct

from schemas.views import Status, Waits

Category = Literal["agrees", "differs", "not_final", "not_compared"]
"""`differs` alone needs somebody. `not_final`: something is still on its way, so a difference would say nothing.
`not_compared`: there is nothing to compare with, or it could not be read."""

Verdict = Literal[
    "agrees",
    "captured_more",
    "captured_less",
    "units_differ",
    "reserved_more",
    "reserved_less",
    "changed_at_provider",
    "unknown_at_provider",
    "other_order",
    "other_currency",
    "not_delivered",
    "delivered_at_provider",
    "cancelled_at_provider",
    "not_cancelled",
    "refunded_at_provider",
    "amount_differs",
    "paid_more",
    "paid_less",
    "reported_differs",
    Waits,
    "owed",
    "transactions_pending",
    "released_later",
    "awaits_buyer",
    "payout_due",
    "payouts_not_read",
    "keeps_changing",
    "observed_only",
    "no_account",
    "cannot_be_asked",
    "state_unknown",
    "not_read",
    "unknown_here",
]
"""What was found, in a word: the table in OPERATIONS.md says what each means and what to do."""

OwedTo = Literal["shopper", "shop", "provider"]


class ShopSide(Struct, frozen=True):
    """What the shop's events come to. Minor units with tax."""

    shipped_minor: int
    """Shipped and kept."""
    unshipped_minor: int
    """Still to be shipped."""


class ProviderSide(Struct, frozen=True, omit_defaults=True):
    """What the provider has, as far as it says so. Minor units with tax."""

    order: str | None = None
    """Its id of the order."""
    reference: str | None = None
    """What it says that the shop calls the order, where that is something else."""
    currency: str | None = None
    """Where it is not the order's."""
    captured_minor: int | None = None
    """Qliro: captured and not given back."""
    reserved_minor: int | None = None
    """Qliro: may still be captured."""
    pending: list[int] | None = None
    """Qliro: transactions that are not final."""
    state: str | None = None
    """AtaraPay: where the escrow is."""
    amount_minor: int | None = None
    """AtaraPay: what the order cost at its checkout."""
    reported_minor: int | None = None
    """seQura: what it was told is shipped and kept."""
    paid_minor: int | None = None
    """seQura: what its disbursements come to."""


class ComparedOrder(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="order"):
    """An order, compared with its provider."""

    subject: str
    """`account/reference`."""
    provider: str = ""
    """Empty: its account is not configured."""
    category: Category
    verdict: Verdict
    text: str
    """What that means, in a sentence or two. May hold a provider's words: not for logs."""
    action: str = ""
    """What to do about it; empty: nothing."""
    difference_minor: int | None = None
    """What the provider has less what it should have; `None`: the difference is not one of money."""
    owed_to: OwedTo | None = None
    """Who has to get `difference_minor`, without its sign."""
    currency: str | None = None
    shop: ShopSide | None = None
    held: ProviderSide | None = None
    """`None`: it was not asked."""
    status: Status | None = None
    """As `order show` has it; `None`: cartsync does not know the order."""
    reason: str = ""
    """Of an order that is parked: why."""
    revision: int = 0
    partition: int = -1


class AccountSummary(Struct, frozen=True):
    """What an account's orders came to."""

    account: str
    provider: str
    orders: int
    agrees: int
    differs: int
    not_final: int
    not_compared: int
    verdicts: dict[str, int]
    """How many orders have each verdict."""
    difference_minor: dict[str, int]
    """By currency, what the differences come to: what providers have less what they should have."""
    problem: str = ""
    """Why not all of its orders were compared; empty: they were."""


class Reconciliation(Struct, frozen=True, tag_field="type", tag="summary"):
    """How it ended: the last line."""

    is_complete: bool
    """Whether every order was compared that can be."""
    orders: int
    differs: int
    accounts: list[AccountSummary]
    problems: list[str]
    """Why it is not complete."""
    exit_code: int
