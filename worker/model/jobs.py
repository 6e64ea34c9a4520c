"""Jobs that are due for an account, not for an order: reports of many orders, and lists to be read. Pure.

The shell determines when something is due, commits before it sends, and returns every response. An adapter
determines the content of a report, and what follows from a response (`Reporter`, `Lister`).
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal, Protocol

from msgspec import Raw, Struct

from schemas.state import OrderRecord
from worker.model.exchange import HttpRequest, HttpResponse, Outcome

STUCK_AFTER = 4
IN_DOUBT_MAX = 8
"""Pages of one account in one partition; at this number, no other is written."""


# --- reports -------------------------------------------------------------------------------------------------------


class Page(Struct, array_like=True, frozen=True):
    """Orders whose entries are sent together."""

    lists: list[list[str]]
    """References; the first list is sent, the others were split off."""
    merchant: bytes
    """JSON of the merchant, …"""
    platform: bytes
    """… and of the platform."""
    in_doubt: bool = False
    """It may have been accepted."""
    refusals: int = 0
    """In doubt: how often it was rejected since."""
    spent: int = 0
    """Clean: how often it and its halves were rejected."""
    retries: int = 0
    """Failed attempts in a row, for the backoff."""
    refused_in_ms: int = 0
    """In doubt: the run (its due time) in which it was last rejected; it is not sent again in that run."""

    @property
    def id(self) -> str:
        """What an operator names it by: a digest of the references that are sent."""
        return blake2b("\n".join(self.lists[0]).encode(), digest_size=6).hexdigest()

    @property
    def is_stuck(self) -> bool:
        """Whether an operator has to decide whether it was accepted."""
        return self.refusals >= STUCK_AFTER


class Kept(Struct, array_like=True, frozen=True):
    """The memory of an account's report in one partition, apart from its last run."""

    version: int = 1
    pages: list[Page] = []

    @property
    def may_write(self) -> bool:
        """Whether another page may be written."""
        return len(self.pages) < IN_DOUBT_MAX


class Composed(Struct, frozen=True):
    """A page, and the new memories of its orders; written in one transaction, then sent."""

    page: Page
    remotes: dict[str, bytes]


class Move(Struct, frozen=True):
    """The consequences of a page's outcome; written in one transaction."""

    page: Page | None
    """Its new state; `None`: it is gone."""
    reported: list[str] = []
    """References of orders that it has reported, …"""
    free: list[str] = []
    """… of orders that are no longer part of it, …"""
    broken: list[str] = []
    """… and the order that was rejected."""
    then: Literal["at_once", "backoff", "hold", "account", "next_report"] = "at_once"
    """When it is sent again, or the next page is written."""
    is_refused: bool = False
    """It was rejected in a way that has to be logged."""


Became = Literal["reported", "free", "broken"]


class Fate(Struct, frozen=True):
    """The outcome for one order: that of an attempt with this revision and digest."""

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
    """Whether an order belongs into the report now."""

    kind: Literal["nothing", "due", "broken"]
    candidate: Any = None
    """If due: the argument of `Composing.add`."""
    refused_ms: int = 0
    """When its entries were last rejected, alone in their page; 0: never."""
    grows_bytes: int = 0
    """How much its record grows while its page is in flight."""


class Composing(Protocol):
    """A page being composed."""

    def add(self, candidate: Any) -> Literal["taken", "other", "full"]:
        """`other`: it belongs to a different page than those before it. `full`: it is the first of the next page."""
        ...

    def composed(self) -> Composed | None:
        """The page; `None`: it has no orders."""
        ...


class Reporter(Protocol):
    """The part of an adapter that sends many orders in one report. Accounts have its provider's type."""

    def is_wanted(self, account: Any) -> bool:
        """Whether the account reports."""
        ...

    def schedule(self, account: Any) -> Schedule:
        """When reports are due, or would be."""
        ...

    def entries_max(self, account: Any) -> int:
        """Maximum number of broken orders, and of statistics entries, per request."""
        ...

    def read_kept(self, value: bytes) -> Kept:
        """Decodes the job's record; empty: there are no pages. Raises `msgspec.MsgspecError`."""
        ...

    def write_kept(self, kept: Kept) -> bytes:
        """The inverse of `read_kept`."""
        ...

    def inherited(self, page: Page) -> Page:
        """The page for the next owner if the last one crashed."""
        ...

    def weigh(self, reference: str, record: OrderRecord, account: Any, run_ms: int) -> Weighed:
        """Whether an order that is owed and has nothing in flight is due in the run of this time."""
        ...

    def composing(self, account: Any) -> Composing:
        """A new page."""
        ...

    def part_of(self, remote: bytes) -> bytes:
        """What a page sends of one of its orders. `remote`: the order's memory."""
        ...

    def request_of(self, page: Page, parts: Sequence[bytes], account: Any) -> HttpRequest:
        """The request for a page now. `parts`: of the orders of its first list, in their order."""
        ...

    def outcome(self, response: HttpResponse, now_ms: int) -> Outcome:
        """The outcome of a response to a report."""
        ...

    def after(self, page: Page, outcome: Outcome, run_ms: int) -> Move:
        """The move after an attempt in the run of this time."""
        ...

    def decided(self, page: Page, *, is_taken: bool) -> Move:
        """The move after an operator's decision about a stuck page."""
        ...

    def fate_of(self, remote: bytes, became: Became, outcome: Outcome, now_ms: int) -> Fate:
        """The outcome for one order of a page. `remote`: its memory."""
        ...

    def broken(self, reference: str, record: OrderRecord) -> Raw:
        """The entry of an order that cannot be reported."""
        ...

    def has_statistics(self, account: Any) -> bool:
        """Whether a report has statistics of all recent orders."""
        ...

    def counted_since_ms(self, now_ms: int) -> int:
        """Orders whose newest event is older are not part of the statistics."""
        ...

    def statistics(self, reference: str, record: OrderRecord, now_ms: int) -> Any:
        """The order's statistics entry; `None`: it has none."""
        ...

    def other_requests(
        self, broken: Sequence[Raw], statistics: Sequence[Any], account: Any, *, is_always: bool
    ) -> list[HttpRequest]:
        """The requests of a report without deliveries; `is_always`: one request even if there is nothing to report."""
        ...


# --- lists that are read -------------------------------------------------------------------------------------------


class Listed(Struct, frozen=True):
    """The response to a list, or to one of its items."""

    outcome: Outcome
    """`APPLIED`: it was understood."""
    found: Any = None


class Lister(Protocol):
    """The part of an adapter that reads each item of a provider's list once, and turns it into events."""

    job: str
    purpose: str
    """The last part of the events' `source`."""

    def every_s(self, account: Any) -> float | None:
        """How often the list is read; `None`: never."""
        ...

    def list_request(self, account: Any) -> HttpRequest:
        """The request for the list."""
        ...

    def read_list(self, response: HttpResponse, now_ms: int) -> Listed:
        """The items, for `unread`."""
        ...

    def unread(self, kept: bytes, found: Any) -> list[Any]:
        """Items that were not read yet, oldest first. Raises `msgspec.MsgspecError`."""
        ...

    def item_request(self, account: Any, item: Any) -> HttpRequest:
        """The request for one item."""
        ...

    def read_item(self, item: Any, response: HttpResponse, now_ms: int) -> Listed:
        """Its events, as a list of `callbacks.Said`."""
        ...

    def after_reading(self, kept: bytes, found: Any, item: Any) -> bytes:
        """The job's memory once the events of an item are committed."""
        ...


class Jobs(Struct, frozen=True):
    """An adapter's jobs."""

    reporter: Reporter | None = None
    listers: tuple[Lister, ...] = ()
