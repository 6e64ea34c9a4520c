"""Requests to providers, what comes back, what became of it, and what an adapter wants done next."""

from enum import StrEnum

from msgspec import Struct

from schemas.events import CancelledData

REASON_MAX = 510
"""Characters of a reason that an order's record keeps: it must not outgrow its topic by being parked."""
RETRY_AFTER_MAX_S = 3600.0
"""`Retry-After` is clamped to this: a provider that errs must not silence us for days."""


class HttpRequest(Struct, frozen=True, gc=False):
    """One HTTP request, ready to be sent as it is."""

    method: str
    url: str
    """In its encoded form; passed on untouched."""
    headers: dict[str, str]
    body: bytes
    account: str = ""
    """By whose certificates and proxy it goes."""
    answer_max_bytes: int = 0
    """What is read of the answer's body; 0: as much as of any other."""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method!r})"  # the rest holds credentials and personal data


class HttpResponse(Struct, frozen=True, gc=False):
    """What the provider answered."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Cut at the sender's size cap."""


class Fault(Struct, frozen=True):
    """There is no answer to rely on."""

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
    """Taken, or under way there already: how it ends is told, or asked for, later."""
    UNSUPPORTED = "unsupported"
    """What is owed cannot be told to this provider."""


class Outcome(Struct, frozen=True, gc=False):
    """What became of one attempt."""

    kind: OutcomeKind
    reason: str = ""
    """For operators; may echo personal data, so it goes into no log, metric or trace."""
    status: int | None = None
    retry_after_s: float | None = None
    """What the provider asked for, clamped to [0, 3600]. Of what is pending: when it is asked about; `None`: nobody
    asks, a change of the order or a job brings it on."""
    throttles_account: bool = False
    """The whole account waits `retry_after_s`, or goes slower when there is none; not only the order."""
    remote: bytes | None = None
    """What the adapter keeps of it in the order's record; `None`: what it kept before."""
    is_overdue: bool = False
    """The provider works on it for longer than it should: somebody is told."""
    found: CancelledData | None = None
    """What reading there has shown to be a fact of the order: it becomes an event of its own."""


class Exchange(Struct, frozen=True, gc=False):
    """Step: one request, whose answer goes back to the adapter."""

    request: HttpRequest
    is_read: bool = False
    """It changes nothing there, so it may be repeated at any time; its answer goes into the next question."""
    remote: bytes = b""
    """Of a command: what the adapter keeps when nobody knows whether it arrived."""


class AwaitResult(Struct, frozen=True, gc=False):
    """Step: the provider works on something; what comes of it is told by a callback, or asked for after a while."""

    poll_s: float | None
    """`None`: nobody asks; a change of the order, or a job that tells it, brings it on."""
    why: str
    remote: bytes | None = b""
    """`None`: what is kept of the order stays, whatever came there meanwhile."""
    is_overdue: bool = False


class Settled(Struct, frozen=True, gc=False):
    """Step: the provider holds what should be so."""

    remote: bytes | None = b""
    found: CancelledData | None = None


class Unsendable(Struct, frozen=True, gc=False):
    """Step: what is left cannot be told to this provider."""

    why: str
    remote: bytes | None = b""
    kind: str = "unsupported"
    """What people are told before the reason, in a word or a few."""
    found: CancelledData | None = None

    @property
    def reason(self) -> str:
        """What is shown of it."""
        return f"{self.kind}: {self.why}"


Step = Exchange | AwaitResult | Settled | Unsendable
