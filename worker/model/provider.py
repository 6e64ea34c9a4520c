"""Adapters: pure functions between an order's state and a provider's HTTP.

An adapter answers one question: given the desired state, its memory of the provider (`remote`) and the time, what is
the next step? One turn of an order asks until a command got its response, or nothing is left to do: any number of
reads, at most one command. A turn is one attempt, so two turns of an order never overlap.
"""

from typing import Any, Literal, Protocol, TypeVar

from msgspec import Raw, Struct

from worker.model.account import Account
from worker.model.exchange import Exchange, HttpResponse, Outcome, Step
from worker.model.order import Order

_TRACE_LENGTH = 55
"""The length that all versions of `traceparent` share (W3C Trace Context, section 3.2); any text may follow."""

GuaranteeLevel = Literal["A", "B", "C", "D"]
"""How a provider handles stale requests: A rejects older versions, B can be read, C rejects old requests by their
signed time, D does nothing (`PROTOCOL.md` section 5)."""


class Update(Struct, frozen=True, gc=False):
    """The desired state at the provider, as its adapter renders it."""

    digest: bytes
    """A digest of values from the order's facts; without configuration and the cancellation reason."""
    problem: str | None
    """Why it must not be sent, with the arithmetic."""
    body: Raw
    """The basis of the adapter's steps, encoded."""


class Question(Struct, frozen=True, gc=False):
    """Everything that a step depends on."""

    reference: str
    """The order's reference, from its subject."""
    account: Any
    """The account, in its provider's type."""
    update: Update
    remote: bytes = b""
    """The adapter's memory in the order's record; empty: nothing yet."""
    may_land_late: bool = False
    """The outcome of an earlier command is unknown. The hold is over: it has arrived by now, or never will."""
    remote_unknown: bool = False
    """The provider may have something else than `remote` says: somebody else has changed it, or may have."""
    idempotency_key: str = ""
    """The same for the same revision of the order, until an operator has it sent again."""
    generation: int = 0
    """How often an operator had the order sent again."""
    trace: str | None = None
    """`traceparent` of the newest event that had one."""
    now_ms: int = 0
    seen: Any = None
    """The result of this turn's last read, as the adapter decoded it; `None`: nothing was read yet."""

    @property
    def trace_headers(self) -> dict[str, str]:
        """The trace header of a request, in the part that all versions share."""
        return {} if self.trace is None else {"traceparent": self.trace[:_TRACE_LENGTH]}


class Answered(Struct, frozen=True, gc=False):
    """A response, as its adapter reads it."""

    outcome: Outcome
    """Of a read, `APPLIED` means that it succeeded, and the turn continues."""
    seen: Any = None
    """Of a read: the input of the next step."""


AccountT_contra = TypeVar("AccountT_contra", bound=Account, contravariant=True)


class Provider(Protocol[AccountT_contra]):
    """An adapter. Total: it handles every order, response and `remote`."""

    name: str
    guarantee: GuaranteeLevel
    can_read: bool
    """Whether orders can be read at the provider: then a provider event is a hint to read."""

    def render(self, order: Order, account: AccountT_contra) -> Update:
        """The desired state; with a `problem` if it must not be sent."""
        ...

    def digest(self, order: Order) -> bytes:
        """The digest that `render` would return: of values from the order's facts alone."""
        ...

    def next_step(self, asked: Question) -> Step:
        """The next step; every step but a read ends the turn."""
        ...

    def read_response(self, asked: Question, sent: Exchange, response: HttpResponse) -> Answered:
        """The outcome of an exchange. If a response cannot be read, its status decides."""
        ...

    def describe(self, remote: bytes) -> dict[str, Any]:
        """`remote` for operators, in plain JSON values; without personal data."""
        ...


class Destination(Struct, frozen=True):
    """Where an order is sent: its account and the account's adapter."""

    account: Account
    provider: Provider[Any]
