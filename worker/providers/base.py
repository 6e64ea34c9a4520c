"""What an adapter is: pure functions between an order's state and a provider's HTTP."""

from typing import Literal, Protocol

from schemas.carts import Order
from schemas.updates import Account, HttpRequest, HttpResponse, Outcome, Update

GuaranteeLevel = Literal["A", "B", "C", "D"]
"""What a provider can do against stale requests: A refuses older versions, B can be read, C refuses old requests by
their signed time, D nothing (`PROTOCOL.md` section 5)."""


class Provider(Protocol):
    """An adapter."""

    name: str
    guarantee: GuaranteeLevel

    def render(self, order: Order, account: Account) -> Update:
        """What the provider should be told. Total: what must not be sent comes back with a `problem`."""
        ...

    def digest(self, order: Order) -> bytes:
        """The digest that `render` would give: of what comes from the order's facts alone."""
        ...

    def next_request(
        self, reference: str, update: Update, account: Account, idempotency_key: str, trace: str | None = None
    ) -> HttpRequest:
        """The request that tells it to the provider of the order with this reference, as part of this trace."""
        ...

    def read_response(self, response: HttpResponse, now_ms: int) -> Outcome:
        """What became of the attempt. Total: an answer that cannot be read is judged by its status."""
        ...
