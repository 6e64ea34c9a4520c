"""What providers tell us of their own accord: a call, what it says, and what it is answered. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct


class Called(Struct, frozen=True, kw_only=True, gc=False):
    """One call whose address was found right. Holds personal data and credentials: never logged."""

    account: str
    purpose: str
    reference: str
    """Of the order, as the address says; empty where the body has to say it."""
    media_type: str
    """Content-Type, as it came."""
    body: bytes
    arrived_ms: int
    """UTC milliseconds since 1970."""
    public_key: str = ""
    private_key: str = ""
    """What a provider's own token in the body is checked by."""

    def __repr__(self) -> str:
        return f"Called({self.account!r}, {self.purpose!r})"


class Said(Struct, frozen=True, gc=False):
    """One thing that a call says: a `provider.*` event that is to be written."""

    type: str
    """After `provider.`."""
    data: dict[str, Any]
    known_by: tuple[str, ...]
    """What a repeat has in common with it."""
    time: str = ""
    """RFC 3339, as the provider gives it; empty: it gives none."""
    reference: str = ""
    """Of the order, where the address does not say it."""


class Reply(Struct, frozen=True, gc=False):
    """An answer as the provider wants it: JSON."""

    status: int
    body: bytes = b"{}"


class Push(Struct, frozen=True, gc=False):
    """Something that happened. Answered once all it says is in Kafka."""

    said: tuple[Said, ...]
    reply: Reply


class Ask(Struct, frozen=True, gc=False):
    """Something that only the shop can answer, and at once."""

    name: str
    """Of the question, as the shop is asked and as its default is configured."""
    question: dict[str, Any]
    """Beside account, reference and provider. Personal data."""
    said: tuple[Said, ...] = ()
    """Written whatever the answer is."""


class Unauthorized(Struct, frozen=True, gc=False):
    """What proves a call stands in its body, and is wrong."""


class Unreadable(Struct, frozen=True, gc=False):
    """Bytes that are neither JSON nor a form."""


class InBody(Struct, frozen=True, gc=False):
    """Its token stands in the body: this is the order that it is about, if the token is right."""

    token: str
    reference: str


Reading = Push | Ask | Unauthorized | Unreadable


class Answered(Struct, frozen=True, gc=False):
    """What the shop's answer to a question comes to."""

    reply: Reply | None
    """`None`: it cannot be used, and the default is given."""
    left_out: tuple[str, ...] = ()
    """Which of its parts break a bound of the provider's; names of members, never a text of the answer."""
    waits_for_kafka: bool = False
    """The provider does not ask again after this answer: what was said has to be safe first."""


class Lookups(Struct, frozen=True, kw_only=True):
    """Where the shop answers questions. Never printed: it holds a secret."""

    url: str
    token: str
    timeout_s: float
    defaults: Mapping[str, Answered]
    """By question: what is said when the shop does not answer in time."""

    def __repr__(self) -> str:
        return f"Lookups({', '.join(self.defaults)})"


class Caller(Struct, frozen=True, kw_only=True):
    """An account as the receiver of callbacks knows it. Never printed whole: it holds secrets."""

    name: str
    provider: str
    callback_secrets: tuple[str, ...]
    public_key: str = ""
    private_key: str = ""
    lookups: Lookups | None = None

    def __repr__(self) -> str:
        return f"Caller({self.name!r}, {self.provider!r})"


class Purpose(Struct, frozen=True):
    """What an address may be for."""

    question: str = ""
    """The name of what the shop has to be asked; empty: nothing, or only some of what comes is a question."""
    has_reference: bool = True
    """False: one address for all orders of the account."""
    takes_token_in_body: bool = False


class Callbacks(Protocol):
    """How a provider's calls are read. Total: whatever comes, there is a reading of it."""

    purposes: Mapping[str, Purpose]
    questions: tuple[str, ...]
    """All that the shop may have to be asked: with lookups, each needs a default."""

    def read(self, called: Called) -> Reading:
        """What a call says."""
        ...

    def token_in_body(self, called: Called) -> InBody | Unreadable | None:
        """Of a purpose that takes it there; `None`: there is none."""
        ...

    def answer(self, name: str, answer: bytes) -> Answered:
        """What the provider is told of the shop's answer."""
        ...

    def default(self, name: str, choice: str, read_file: Callable[[str], bytes]) -> Answered:
        """What the provider is told when the shop does not answer in time. `choice`: as configured.

        Raises `ConfigError` for a choice that there is not, or a file that is not right.
        """
        ...
