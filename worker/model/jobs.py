"""What comes due at an account instead of with an order: reports of many orders, and lists that are read. Pure.

The shell looks when something is due, writes down before it sends, and hands every answer back; what is in a report,
and what follows from an answer, an adapter says (`Reporter`, `Lister`).
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal, Protocol

from msgspec import Raw, Struct

from schemas.state import OrderRecord
from worker.model.exchange import HttpRequest, HttpResponse, Outcome

STUCK_AFTER = 4
IN_DOUBT_MAX = 8
"""Pages of one account in one partition; while there are so many, no other is written."""


# --- reports -------------------------------------------------------------------------------------------------------


class Page(Struct, array_like=True, frozen=True):
    """Orders whose entries are sent together."""

    lists: list[list[str]]
    """References; the first list is what is sent, the others are what was split off."""
    merchant: bytes
    """JSON of who reports, …"""
    platform: bytes
    """… and with what."""
    in_doubt: bool = False
    """It may have been taken."""
    refusals: int = 0
    """In doubt: how often it was refused since."""
    spent: int = 0
    """Clean: how often it and its halves were refused."""
    retries: int = 0
    """Attempts in a row that came to nothing, for the backoff."""
    refused_in_ms: int = 0
    """In doubt: the run in which it was refused last, by the instant that was due; it is not sent in it again."""

    @property
    def id(self) -> str:
        """What an operator names it by: a digest of the references that are sent."""
        return blake2b("\n".join(self.lists[0]).encode(), digest_size=6).hexdigest()

    @property
    def is_stuck(self) -> bool:
        """Whether an operator has to say what became of it."""
        return self.refusals >= STUCK_AFTER


class Kept(Struct, array_like=True, frozen=True):
    """What the report of an account keeps in one partition beside when it ran last."""

    version: int = 1
    pages: list[Page] = []

    @property
    def may_write(self) -> bool:
        """Whether another page may be written."""
        return len(self.pages) < IN_DOUBT_MAX


class Composed(Struct, frozen=True):
    """A page, and what the records of its orders keep from now on; written in one transaction, then sent."""

    page: Page
    remotes: dict[str, bytes]


class Move(Struct, frozen=True):
    """What follows from what happened to a page; written in one transaction."""

    page: Page | None
    """As it is now; `None`: it is gone."""
    told: list[str] = []
    """References of orders that it has told, …"""
    free: list[str] = []
    """… of orders that it does not hold any more, …"""
    broken: list[str] = []
    """… and the one that was refused."""
    then: Literal["at_once", "backoff", "hold", "account", "next_report"] = "at_once"
    """When it is sent again, or the next one written."""
    is_refused: bool = False
    """It was refused in a way that somebody should know of."""


Became = Literal["told", "free", "broken"]


class Fate(Struct, frozen=True):
    """What becomes of an order's record: what an attempt with this revision and digest came to."""

    revision: int
    digest: bytes
    outcome: Outcome


class Schedule(Struct, frozen=True):
    """When a report is due."""

    times: Sequence[int]
    """Minutes after midnight, at least one."""
    zone: str
    """IANA name."""


class Weighed(Struct, frozen=True):
    """What a report has to do with an order now."""

    kind: Literal["nothing", "due", "broken"]
    candidate: Any = None
    """Of what is due: for `Composing.add`."""
    refused_ms: int = 0
    """When its entries were refused last, alone in their page; 0: never."""
    grows_bytes: int = 0
    """By how much its record grows while it is under way."""


class Composing(Protocol):
    """A page in the making."""

    def add(self, candidate: Any) -> Literal["taken", "other", "full"]:
        """`other`: it belongs in another page than those before it. `full`: it goes first in the next one."""
        ...

    def composed(self) -> Composed | None:
        """The page; `None`: nothing was taken."""
        ...


class Reporter(Protocol):
    """What an adapter has whose orders may be told by reports of many. Accounts are its provider's own."""

    def is_wanted(self, account: Any) -> bool:
        """Whether the account reports."""
        ...

    def schedule(self, account: Any) -> Schedule:
        """When it does, or would."""
        ...

    def entries_max(self, account: Any) -> int:
        """What one request holds at most of broken orders, and of the statistics."""
        ...

    def read_kept(self, value: bytes) -> Kept:
        """What the job's record keeps; nothing: there is no page. Raises `msgspec.MsgspecError`."""
        ...

    def write_kept(self, kept: Kept) -> bytes:
        """As `read_kept` takes it."""
        ...

    def inherited(self, page: Page) -> Page:
        """As the next owner has to take it when the last one did not leave in order."""
        ...

    def weigh(self, reference: str, record: OrderRecord, account: Any, run_ms: int) -> Weighed:
        """Whether an order that is owed, and of which nothing is under way, is due in the run of this instant."""
        ...

    def composing(self, account: Any) -> Composing:
        """A new page."""
        ...

    def part_of(self, remote: bytes) -> bytes:
        """What a page sends of one of its orders. `remote`: what its record keeps."""
        ...

    def request_of(self, page: Page, parts: Sequence[bytes], account: Any) -> HttpRequest:
        """What is sent of a page now. `parts`: of the orders of its first list, in their order."""
        ...

    def outcome(self, response: HttpResponse, now_ms: int) -> Outcome:
        """What an answer to a report means."""
        ...

    def after(self, page: Page, outcome: Outcome, run_ms: int) -> Move:
        """What follows from an attempt in the run of this instant."""
        ...

    def decided(self, page: Page, *, is_taken: bool) -> Move:
        """What an operator says of a page that is stuck."""
        ...

    def fate_of(self, remote: bytes, became: Became, outcome: Outcome, now_ms: int) -> Fate:
        """What becomes of an order of a page. `remote`: what its record keeps."""
        ...

    def broken(self, reference: str, record: OrderRecord) -> Raw:
        """How an order that cannot be reported is named."""
        ...

    def has_statistics(self, account: Any) -> bool:
        """Whether a report counts all orders of late."""
        ...

    def counted_since_ms(self, now_ms: int) -> int:
        """Orders whose newest event is older are in no statistics."""
        ...

    def statistics(self, reference: str, record: OrderRecord, now_ms: int) -> Any:
        """What is told of an order there; `None`: nothing."""
        ...

    def other_requests(
        self, broken: Sequence[Raw], statistics: Sequence[Any], account: Any, *, is_always: bool
    ) -> list[HttpRequest]:
        """What a report has beside deliveries; `is_always`: one request, though there is nothing to say."""
        ...


# --- lists that are read -------------------------------------------------------------------------------------------


class Listed(Struct, frozen=True):
    """What an answer to a list, or to one of its items, comes to."""

    outcome: Outcome
    """`APPLIED`: it was understood."""
    found: Any = None


class Lister(Protocol):
    """What an adapter has whose provider keeps a list of items that are each read once, and become events."""

    job: str
    purpose: str
    """What the events' `source` ends with."""

    def every_s(self, account: Any) -> float | None:
        """How often the list is read; `None`: never."""
        ...

    def list_request(self, account: Any) -> HttpRequest:
        """Asks for the list."""
        ...

    def read_list(self, response: HttpResponse, now_ms: int) -> Listed:
        """The items, for `unread`."""
        ...

    def unread(self, kept: bytes, found: Any) -> list[Any]:
        """Items that were not read yet, oldest first. Raises `msgspec.MsgspecError`."""
        ...

    def item_request(self, account: Any, item: Any) -> HttpRequest:
        """Asks for one of them."""
        ...

    def read_item(self, item: Any, response: HttpResponse, now_ms: int) -> Listed:
        """What it says, as a list of `callbacks.Said`."""
        ...

    def after_reading(self, kept: bytes, found: Any, item: Any) -> bytes:
        """What the job's record keeps once the events of an item are safe."""
        ...


class Jobs(Struct, frozen=True):
    """What an adapter has for the jobs of its accounts."""

    reporter: Reporter | None = None
    listers: tuple[Lister, ...] = ()
