"""What the orders of all partitions of a worker share."""

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING

import structlog
from msgspec import field

from schemas.state import Operated
from worker.core.placing import Placing
from worker.core.results import Reporting
from worker.core.targets import TargetChoice
from worker.core.trust import Trust
from worker.model.provider import Destination
from worker.ownership.context import Context
from worker.ports import Dispatcher, JobDesk, JobHost, OrderTable

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = structlog.get_logger(__name__)

_UNCONFIGURED_MAX = 1_000
"""Accounts that are named in the life of a worker: events may make up any."""


class OrderContext(Context, kw_only=True):
    """The worker, as the orders of a partition see it."""

    dispatcher: Dispatcher
    destinations: Mapping[str, Destination]
    """By account name."""
    make_table: Callable[[int], OrderTable]
    """Where the orders of a partition are kept."""
    sending: bool = True
    keep_settled_ms: int = 0
    """When a settled order is closed (`core.retention`); 0: never."""
    placing: Placing | None = None
    """Where records of orders must lie; `None`: it is not checked."""
    trust: Trust = field(default_factory=Trust)
    """By whose MAC what providers and operators say is believed."""
    topic_partitions: int = 0
    """Of the event topic; known once the topics were looked at."""
    accepted_targets: Mapping[str, TargetChoice] = {}
    """By account: what follows when it tells another one than before."""
    reporting: Reporting | None = None
    """How others are told of orders; `None`: nobody is."""
    keeps_history: bool = False
    """Whether there is a topic for the histories of orders."""
    make_jobs: Callable[[JobHost], JobDesk] | None = None
    """The jobs of a partition; `None`: there are none."""
    tracing: "Tracing | None" = None
    """Makes spans; `None`: nobody wants any."""
    operated: Callable[[str, Operated], None] = lambda _subject, _deed: None
    """Called with what operators did to an order or an account, once it is committed."""
    lookalikes_logged_at: float = -inf
    """*now*."""
    warned_unconfigured: set[str] = field(default_factory=set)
    """Accounts that were named because nobody has configured them."""

    def warn_unconfigured(self, account: str, partition: int) -> None:
        """Names an account, once, that has orders and is not configured: nobody is told of them."""
        if account in self.warned_unconfigured or len(self.warned_unconfigured) >= _UNCONFIGURED_MAX:
            return
        self.warned_unconfigured.add(account)
        log.warning(
            "account_not_configured",
            account=account,
            partition=partition,
            do="configure it, or see what the shop writes before the first slash of its subjects",
            sampled_by="first event",
        )
