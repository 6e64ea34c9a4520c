"""How an order is compared with what its provider has. Pure.

The shell reads orders from the state topic, asks providers within their limits, and prints; what is asked and what an
answer comes to, a `Reconciler` says, one for each provider. It uses the arithmetic of its adapter.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from msgspec import Struct

from schemas.reconciliation import Category, OwedTo, ProviderSide, Verdict
from worker.model.callbacks import Said
from worker.model.exchange import Exchange, HttpRequest, HttpResponse, Outcome
from worker.model.jobs import Lister
from worker.model.order import Order
from worker.model.provider import Question

PROBED = "cartsync-doctor"
"""The reference of an order that there is not, for `Reconciler.probe`."""


class Finding(Struct, frozen=True, kw_only=True):
    """What a comparison comes to; the members are those of `ComparedOrder`."""

    category: Category
    verdict: Verdict
    text: str = ""
    action: str = ""
    difference_minor: int | None = None
    owed_to: OwedTo | None = None
    held: ProviderSide | None = None


class Case(Struct, frozen=True):
    """An order that can be compared: nothing of it is on its way to the provider."""

    asked: Question
    """As the adapter would be asked; `update` is what should be so."""
    order: Order
    changed_ms: int
    """The time of the newest fact that its carts follow from, UTC."""

    @property
    def subject(self) -> str:
        """`account/reference`."""
        return f"{self.asked.account.name}/{self.asked.reference}"


class Ledger(Protocol):
    """What is read of an account as a whole, before its orders."""

    lister: Lister | None
    """What it is read by; `None`: the orders' own facts are enough."""

    def note_list(self, found: Any) -> None:
        """What the list has, whatever becomes of its items."""
        ...

    def add(self, item: Any, lines: list[Said]) -> None:
        """An item of the list, as its lister has read it."""
        ...

    def take(self, reference: str) -> Any:
        """What it says of an order: for `compare`. Once for each."""
        ...

    def left(self) -> Iterator[tuple[str, Finding]]:
        """References that no order was compared under."""
        ...


class Terms(Struct, frozen=True):
    """What an operator says of a reconciliation."""

    now_ms: int
    payout_days: int
    """How many days after its last change a provider has paid out what an order comes to."""
    is_fetching: bool
    """Whether the ledger is read from the provider, though the orders' facts have it, too."""


class Reconciler(Protocol):
    """What an adapter has for it. Total: whatever it is given, it answers."""

    title: str
    """The provider's name as it writes it."""

    def ledger(self, account: Any, terms: Terms) -> Ledger | None:
        """`None`: each order is asked about by itself."""
        ...

    def question(self, case: Case) -> Exchange | Finding:
        """How the provider is asked about an order; or that it cannot be. Only without a ledger."""
        ...

    def is_unknown(self, account: Any, outcome: Outcome) -> bool:
        """Whether an answer says that the provider knows no such order."""
        ...

    def probe(self, account: Any) -> HttpRequest:
        """A read that shows whether the credentials are accepted: it changes nothing, and no order need be there."""
        ...

    def probed(self, account: Any, response: HttpResponse, now_ms: int) -> Outcome:
        """What a response to `probe` means: `APPLIED`, or what `is_unknown` takes for one that knows no such order,
        show that the credentials are accepted.
        """
        ...

    def compare(self, case: Case, seen: Any) -> Finding:
        """`seen`: what the adapter's `read_response` made of the answer, or the ledger has."""
        ...
