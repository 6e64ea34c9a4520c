"""A provider as the network sees it: whom a request is about, what arrives there, what its sender gets to see."""

import asyncio
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from schemas.facts import Facts
from schemas.state import OrderRecord
from tests.shops.counts import ShopOrder
from worker.model.exchange import Fault, HttpRequest, HttpResponse


class About(NamedTuple):
    """What a request says of itself, in its provider's own way."""

    subject: str
    revision: int = 0
    """0: it does not say."""
    is_read: bool = False
    """It changes nothing there."""


@dataclass(eq=False)
class Request:
    """One attempt, once it has gone out."""

    about: About
    call: HttpRequest
    process: str
    sent_at: float
    may_land_until: float
    """Afterwards nothing of it is under way any more."""
    landing: asyncio.TimerHandle | None = None
    answer: HttpResponse | None = None
    """What the provider says, once it has arrived; `None`: a success without words."""

    @property
    def subject(self) -> str:
        return self.about.subject

    @property
    def revision(self) -> int:
        return self.about.revision

    @property
    def body(self) -> bytes:
        return self.call.body

    def __str__(self) -> str:
        what = f":{self.revision}" if self.revision else " read" if self.about.is_read else " command"
        return f"{self.subject}{what} of {self.process}"


class Side(Protocol):
    """All orders of an account, or of several, at their provider."""

    def about(self, request: HttpRequest) -> About:
        """Whom it is about."""
        ...

    def sent(self, request: Request) -> None:
        """It goes out at this moment: whether it may, by what its sender can know."""
        ...

    def take(self, request: Request) -> None:
        """It has arrived."""
        ...

    def refuse(self, request: Request) -> None:
        """It has arrived, was looked at, and came to nothing."""
        ...

    def answered(self, request: Request, answer: HttpResponse | Fault) -> None:
        """What its sender gets to see."""
        ...

    def heard(self, subject: str, revision: int) -> None:
        """The worker has committed that something may have moved."""
        ...

    def acknowledged(self, record: OrderRecord, subject: str, facts: Facts) -> None:
        """The worker has committed that the provider holds what these facts come to."""
        ...

    def check_end(self, first: ShopOrder, shop: ShopOrder, status: str) -> None:
        """What it holds is what the shop says. `first`: the order as the checkout left it; `status`: the worker's word,
        `settled`, or why it cannot be told.
        """
        ...

    def is_quiet(self) -> bool:
        """Whether nothing is under way there."""
        ...
