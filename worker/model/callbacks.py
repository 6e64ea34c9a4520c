"""Callbacks: a provider's call, the events in it, and the response. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct


class Called(Struct, frozen=True, kw_only=True, gc=False):
    """A call whose address was verified. Contains personal data and credentials: never logged."""

    account: str
    purpose: str
    reference: str
    """The order, from the address; empty if the body has to name it."""
    media_type: str
    """Content-Type, verbatim."""
    body: bytes
    arrived_ms: int
    """UTC milliseconds since 1970."""
    public_key: str = ""
    private_key: str = ""
    """These verify a provider's own token in the body."""

    def __repr__(self) -> str:
        return f"Called({self.account!r}, {self.purpose!r})"


class Said(Struct, frozen=True, gc=False):
    """A `provider.*` event of a call, to be written."""

    type: str
    """The event type after `provider.`."""
    data: dict[str, Any]
    known_by: tuple[str, ...]
    """The parts that a repetition shares; they determine the event's id."""
    time: str = ""
    """RFC 3339, from the provider; empty: it sent none."""
    reference: str = ""
    """The order, if the address does not name it."""


class Reply(Struct, frozen=True, gc=False):
    """A response as the provider expects it: JSON."""

    status: int
    body: bytes = b"{}"


class Push(Struct, frozen=True, gc=False):
    """An event. The response is sent once all its events are in Kafka."""

    said: tuple[Said, ...]
    reply: Reply


class Ask(Struct, frozen=True, gc=False):
    """A question that only the shop can answer, immediately."""

    name: str
    """The question's name, in the request to the shop and in the configuration of its default."""
    question: dict[str, Any]
    """Its members apart from account, reference and provider. Personal data."""
    said: tuple[Said, ...] = ()
    """Events that are written whatever the answer is."""


class Unauthorized(Struct, frozen=True, gc=False):
    """The proof in the call's body is wrong."""


class Unreadable(Struct, frozen=True, gc=False):
    """Bytes that are neither JSON nor a form."""


class InBody(Struct, frozen=True, gc=False):
    """A token in the body, and the order that the call is about if the token is valid."""

    token: str
    reference: str


Reading = Push | Ask | Unauthorized | Unreadable


class Answered(Struct, frozen=True, gc=False):
    """The shop's answer to a question, as a response to the provider."""

    reply: Reply | None
    """`None`: the answer is unusable, and the provider gets the default."""
    left_out: tuple[str, ...] = ()
    """Members that exceed one of the provider's limits; names only, never a text of the answer."""
    waits_for_kafka: bool = False
    """The provider does not repeat the call after this response: its events have to be in Kafka first."""


class Lookups(Struct, frozen=True, kw_only=True):
    """How to ask the shop. Never printed: it contains a secret."""

    url: str
    token: str
    timeout_s: float
    defaults: Mapping[str, Answered]
    """By question: the response if the shop does not answer in time."""

    def __repr__(self) -> str:
        return f"Lookups({', '.join(self.defaults)})"


class Caller(Struct, frozen=True, kw_only=True):
    """The part of an account that the receiver uses. Never printed whole: it contains secrets."""

    name: str
    provider: str
    callback_secrets: tuple[str, ...]
    public_key: str = ""
    private_key: str = ""
    lookups: Lookups | None = None

    def __repr__(self) -> str:
        return f"Caller({self.name!r}, {self.provider!r})"


class Purpose(Struct, frozen=True):
    """A purpose of a callback address."""

    question: str = ""
    """The name of its question; empty: it has none, or only some of its calls are questions."""
    has_reference: bool = True
    """False: one address for all orders of the account."""
    takes_token_in_body: bool = False


class Callbacks(Protocol):
    """Reads a provider's calls. Total: every call gives a reading."""

    purposes: Mapping[str, Purpose]
    questions: tuple[str, ...]
    """All questions for the shop: with lookups, each needs a default."""
    account_keys: tuple[str, ...]
    """Settings of the account that prove a call beside its address: members of `Caller` and `Called`."""

    def read(self, called: Called) -> Reading:
        """Reads a call."""
        ...

    def token_in_body(self, called: Called) -> InBody | Unreadable | None:
        """The token in the body, for purposes that permit it; `None`: there is none."""
        ...

    def answer(self, name: str, answer: bytes) -> Answered:
        """The response to the provider for the shop's answer."""
        ...

    def default(self, name: str, choice: str, read_file: Callable[[str], bytes]) -> Answered:
        """The response to the provider if the shop does not answer in time. `choice`: as configured.

        Raises `ConfigError` for an unknown choice, or an invalid file.
        """
        ...
