"""Requests to providers, what comes back, and what became of it."""

from enum import StrEnum

from msgspec import Raw, Struct

REASON_MAX = 510
"""Characters of a reason that an order's record keeps: it must not outgrow its topic by being parked."""
RETRY_AFTER_MAX_S = 3600.0
"""`Retry-After` is clamped to this: a provider that errs must not silence us for days."""


class Account(Struct, frozen=True):
    """A merchant account: one shop at one provider. Never printed whole: it holds a password."""

    name: str
    provider: str
    merchant_id: str
    base_url: str
    username: str
    password: str
    store_ref: str | None = None
    platform: dict[str, str] | None = None
    send_on_confirm: bool = False
    """Whether a mere confirmation is sent, too."""
    cancellation_reasons: dict[str, str] = {}
    """From the shop's reason to the provider's code."""
    default_cancellation_reason: str = "unspecified"
    concurrency: int = 32
    """Attempts under way at once, at most."""
    rate_per_s: float = 0.0
    """Attempts a second, at most; 0: no limit."""
    tls_ca_file: str = ""
    """Who may vouch for the provider, instead of those whom the system trusts."""
    tls_cert_file: str = ""
    """Shown to the provider, with its key."""
    tls_key_file: str = ""
    proxy: str = ""
    """The only way out, as a URL; may hold credentials."""
    trust_origin: bool = True
    """Whether a change that an event says was made at the provider is not told back."""

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.provider!r}, {self.merchant_id!r})"


class HttpRequest(Struct, frozen=True, gc=False):
    """One HTTP request, ready to be sent as it is."""

    method: str
    url: str
    """In its encoded form; passed on untouched."""
    headers: dict[str, str]
    body: bytes
    account: str = ""
    """By whose certificates and proxy it goes."""

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


class Outcome(Struct, frozen=True, gc=False):
    """What became of one attempt."""

    kind: OutcomeKind
    reason: str = ""
    """For operators; may echo personal data, so it goes into no log, metric or trace."""
    status: int | None = None
    retry_after_s: float | None = None
    """What the provider asked for, clamped to [0, 3600]."""
    holds_account: bool = False
    """The whole account waits `retry_after_s`, or goes slower when there is none; not only the order."""


class Update(Struct, frozen=True, gc=False):
    """A rendered order, before it is sent."""

    digest: bytes
    """Of what comes from the order's facts; configuration and the cancellation reason do not count."""
    problem: str | None
    """Why it must not be sent, with the arithmetic."""
    body: Raw
    """What the adapter makes its request of, encoded."""
