"""Requests to providers, responses, outcomes, and an adapter's next step."""

from enum import StrEnum

from msgspec import Struct

from schemas.events import CancelledData

REASON_MAX = 510
"""Characters of a reason in an order's record: parking must not make it too large for its topic."""
RETRY_AFTER_MAX_S = 3600.0
"""`Retry-After` is clamped to this: a provider that errs must not silence us for days."""


class HttpRequest(Struct, frozen=True, gc=False):
    """One HTTP request, ready to be sent."""

    method: str
    url: str
    """Encoded; sent unchanged."""
    headers: dict[str, str]
    body: bytes
    account: str = ""
    """Whose certificates and proxy to use."""
    answer_max_bytes: int = 0
    """How much of the response's body to read; 0: the default."""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method!r})"  # the rest contains credentials and personal data


class HttpResponse(Struct, frozen=True, gc=False):
    """A provider's response."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Cut at the sender's size limit."""


class Fault(Struct, frozen=True):
    """There is no usable response."""

    sent: bool
    """Whether bytes of the request may have left: then its outcome is unknown."""
    detail: str


class OutcomeKind(StrEnum):
    """The classes of `DOMAIN.md` section 6."""

    APPLIED = "applied"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    NOT_FOUND = "not_found"
    PERMANENT = "permanent"
    CREDENTIALS = "credentials"
    FORBIDDEN = "forbidden"
    PENDING = "pending"
    """Accepted, or already being processed: the result follows by a callback or a later read."""
    UNSUPPORTED = "unsupported"
    """The provider's API cannot express what is owed."""


class Refusal(StrEnum):
    """What a provider has refused a request for, where its adapter can tell. Another request may fare better."""

    REQUEST = "request"
    """Its form or its size: perhaps before anybody looked at who sent it."""
    CONTENT = "content"
    """What it says of the order: so whoever sent it was let in."""


class Outcome(Struct, frozen=True, gc=False):
    """The result of one attempt. Adapters decide what a response means (`worker.providers.responses`): nobody else
    looks at HTTP statuses.
    """

    kind: OutcomeKind
    reason: str = ""
    """For operators; may echo personal data, so it goes into no log, metric or trace."""
    status: int | None = None
    """HTTP's, for people and logs; `None`: there was no response."""
    retry_after_s: float | None = None
    """The delay that the provider asked for, clamped to [0, 3600]. While pending: when to read; `None`: not before a
    change of the order or a job."""
    throttles_account: bool = False
    """Not only the order, but the whole account waits `retry_after_s`, or slows down if there is none."""
    remote: bytes | None = None
    """The adapter's new memory in the order's record; `None`: unchanged."""
    is_overdue: bool = False
    """The provider takes longer than it should: this is announced."""
    found: CancelledData | None = None
    """A fact of the order that a read has shown: it becomes an event of its own."""
    may_have_applied: bool = False
    """Of one that was rejected: the provider has failed at it, so it may hold some of it all the same."""
    refusal: Refusal | None = None
    """`None`: it was not refused, or for something that has nothing to do with this request."""

    @property
    def has_response(self) -> bool:
        """Whether the provider has responded: otherwise it was not asked, or was not heard."""
        return self.status is not None


class Exchange(Struct, frozen=True, gc=False):
    """Step: one request, whose response goes back to the adapter."""

    request: HttpRequest
    is_read: bool = False
    """It changes nothing at the provider, so it may be repeated; its response is part of the next question."""
    remote: bytes = b""
    """Of a command: the adapter's memory while its outcome is unknown."""


class AwaitResult(Struct, frozen=True, gc=False):
    """Step: the provider is processing a command; its result follows by a callback or a later read."""

    poll_s: float | None
    """`None`: not before a change of the order, or a job that reports it."""
    why: str
    remote: bytes | None = b""
    """`None`: the memory in the order's record stays, whatever was written there in the meantime."""
    is_overdue: bool = False


class Settled(Struct, frozen=True, gc=False):
    """Step: the provider has the desired state."""

    remote: bytes | None = b""
    found: CancelledData | None = None


class Unsendable(Struct, frozen=True, gc=False):
    """Step: the provider's API cannot express the rest."""

    why: str
    remote: bytes | None = b""
    kind: str = "unsupported"
    """A short prefix of the reason."""
    found: CancelledData | None = None

    @property
    def reason(self) -> str:
        """The text for operators."""
        return f"{self.kind}: {self.why}"


Step = Exchange | AwaitResult | Settled | Unsendable
