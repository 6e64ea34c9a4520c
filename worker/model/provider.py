"""What an adapter is: pure functions between an order's state and a provider's HTTP.

An adapter answers one question: given what should be so, what it keeps of the provider (`remote`), and the time, what
is the next step? One turn of an order asks it until a command was answered, or nothing is to be done: any number of
reads, at most one command. A turn is one attempt in flight of its order, so no two of them overlap.
"""

from typing import Any, Literal, Protocol, TypeVar

from msgspec import Raw, Struct

from worker.model.account import Account
from worker.model.exchange import Exchange, HttpResponse, Outcome, Step
from worker.model.order import Order

_TRACE_LENGTH = 55
"""What every version of `traceparent` begins with (W3C Trace Context, section 3.2); what may follow is any text."""

GuaranteeLevel = Literal["A", "B", "C", "D"]
"""What a provider can do against stale requests: A refuses older versions, B can be read, C refuses old requests by
their signed time, D nothing (`PROTOCOL.md` section 5)."""


class Update(Struct, frozen=True, gc=False):
    """What should be so at the provider, as its adapter sees it."""

    digest: bytes
    """Of what comes from the order's facts; configuration and the cancellation reason do not count."""
    problem: str | None
    """Why it must not be sent, with the arithmetic."""
    body: Raw
    """What the adapter makes its steps of, encoded."""


class Question(Struct, frozen=True, gc=False):
    """What a step depends on."""

    reference: str
    """The order's own, of its subject."""
    account: Any
    """As the adapter's provider has it."""
    update: Update
    remote: bytes = b""
    """What the adapter has kept of the provider in the order's record; empty: nothing yet."""
    may_land_late: bool = False
    """The outcome of an earlier command is not known. Its time is over: it has arrived by now, or never will."""
    remote_unknown: bool = False
    """The provider may hold something else than `remote` says: somebody else has changed it, or may have."""
    idempotency_key: str = ""
    """The same for the same revision of the order, until an operator has it sent anew."""
    generation: int = 0
    """How often an operator had the order sent anew."""
    trace: str | None = None
    """`traceparent` of the newest event that had one."""
    now_ms: int = 0
    seen: Any = None
    """What the last read of this turn has shown, as the adapter has decoded it; `None`: nothing was read yet."""

    @property
    def trace_headers(self) -> dict[str, str]:
        """What a request has of the trace, as far as every version of it is defined."""
        return {} if self.trace is None else {"traceparent": self.trace[:_TRACE_LENGTH]}


class Answered(Struct, frozen=True, gc=False):
    """An answer, as its adapter reads it."""

    outcome: Outcome
    """Of a read, `APPLIED` means that it was answered, and the turn goes on."""
    seen: Any = None
    """Of a read, what the next step needs to know."""


AccountT_contra = TypeVar("AccountT_contra", bound=Account, contravariant=True)


class Provider(Protocol[AccountT_contra]):
    """An adapter. Total: whatever order, answer or `remote` it is given, it answers."""

    name: str
    guarantee: GuaranteeLevel
    can_read: bool
    """Whether it reads before it believes: then what is said of an order at the provider makes it look again."""

    def render(self, order: Order, account: AccountT_contra) -> Update:
        """What should be so there; what must not be sent comes back with a `problem`."""
        ...

    def digest(self, order: Order) -> bytes:
        """The digest that `render` would give: of what comes from the order's facts alone."""
        ...

    def next_step(self, asked: Question) -> Step:
        """What is to be done next; the turn ends with everything but a read."""
        ...

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:
        """What became of an exchange. An answer that cannot be read is judged by its status."""
        ...

    def describe(self, remote: bytes) -> dict[str, Any]:
        """What people are shown of `remote`, in plain JSON values; nothing personal."""
        ...


class Destination(Struct, frozen=True):
    """To whom an order is told: its account and the account's adapter."""

    account: Account
    provider: Provider[Any]
