"""What all actors of a worker share."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf

import structlog
from msgspec import Struct, field

from schemas.state import Deployment, NextRecord, Target
from worker.core.placing import Placing
from worker.core.policy import DeliveryPolicy
from worker.core.results import Reporting
from worker.core.targets import TargetChoice
from worker.core.trust import Trust
from worker.metrics import Metrics
from worker.model.provider import Destination
from worker.ports import Clock, Dispatcher, EventLog, JobDesk, JobHost

log = structlog.get_logger(__name__)

_UNCONFIGURED_MAX = 1_000
"""Accounts that are named in the life of a worker: events may make up any."""


class BatchLimits(Struct, frozen=True):
    """How much is done at once, and how often."""

    commit_interval_s: float = 0.05
    """A busy partition commits at most this often; an idle one at once."""
    commits_per_s: float = 40.0
    """Over all partitions of a worker: transactions cost the brokers, so batches grow with the load instead."""
    batch_records_max: int = 2_000
    """Events in one transaction."""
    batch_bytes_max: int = 8 * 2**20
    """What the records of one transaction may come to before the next one is begun."""
    batch_s: float = 1.0
    """For how long events are taken into one transaction."""
    inbox_records_max: int = 10_000
    """Events waiting in one partition before its input is paused."""
    inbox_bytes_max: int = 32 * 2**20
    """The same in bytes."""
    prepared_max: int = 256
    """Rendered updates kept until a lane takes them; beyond, they are rendered again."""
    slice_s: float = 0.01
    """For how long anything is worked at before others get the loop."""
    look_s: float = 0.1
    """For how long orders are looked at between two transactions; the next turn goes on with the rest."""
    tell_owed_after_s: float = 5.0
    """An order that is settled within this time is not told to others as owed: they would hear twice as much."""
    idle_commit_s: float = 6 * 3600.0
    """Brokers forget a producer that is idle for a day."""


class Context(Struct):
    """The worker, as an actor sees it."""

    owner_id: str
    version: str
    rules: DeliveryPolicy
    pace: BatchLimits
    clock: Clock
    events: EventLog
    dispatcher: Dispatcher
    destinations: Mapping[str, Destination]
    """By account name."""
    metrics: Metrics
    event_topic: str = "orders.events"
    topic_epoch: int = 0
    start_latest: bool = False
    sending: bool = True
    deployment: Deployment = Deployment()
    """Ours, with what the brokers said of the topics when the worker started."""
    keep_settled_ms: int = 0
    """When a settled order is closed (`core.retention`); 0: never."""
    adopt_state: bool = False
    """Goes on with a state that another deployment has written."""
    former: Sequence[Deployment] = ()
    """Those that the state was taken over from: their owners are fenced, too."""
    partitions: int = 1
    """Partitions of ours, now: they share `commits_per_s`."""
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
    make_jobs: Callable[[JobHost], JobDesk] | None = None
    """The jobs of a partition; `None`: there are none."""
    lookalike_told_at: float = -inf
    """*now*."""
    told_unconfigured: set[str] = field(default_factory=set)
    """Accounts that were named because nobody has configured them."""

    def commit_interval_s(self) -> float:
        """The shortest time between two transactions of one busy partition."""
        return max(self.pace.commit_interval_s, self.partitions / self.pace.commits_per_s)

    def tell_unconfigured(self, account: str, partition: int) -> None:
        """Names an account, once, that has orders and is not configured: nobody is told of them."""
        if account in self.told_unconfigured or len(self.told_unconfigured) >= _UNCONFIGURED_MAX:
            return
        self.told_unconfigured.add(account)
        log.warning(
            "account_not_configured",
            account=account,
            partition=partition,
            do="configure it, or see what the shop writes before the first slash of its subjects",
            sampled_by="first event",
        )


class Slice:
    """What one may do at a time: `if work.is_over(): await work.pause()` between two pieces of it."""

    def __init__(self, context: Context) -> None:
        self._now = context.clock.now
        self._slice_s = context.pace.slice_s
        self._until = self._now() + self._slice_s

    def is_over(self) -> bool:
        """Whether others are to get the loop."""
        return self._now() >= self._until

    async def pause(self) -> None:
        """Lets them have it."""
        await asyncio.sleep(0)
        self._until = self._now() + self._slice_s


class Warm(Struct):
    """What is left of a partition that was ours: a restore starts from here."""

    orders: dict[str, bytes]
    position: int
    """Up to here the state partition is in `orders`."""
    next: NextRecord | None
    left_at: float
    """*now*."""
    targets: dict[str, Target] = {}
    """Whom the accounts told."""
    jobs: dict[str, bytes] = {}
    """What jobs have kept, by key."""
    closed: dict[str, bytes] = {}
    """What is remembered of closed orders, by key."""
