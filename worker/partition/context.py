"""What all actors of a worker share."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from schemas.state import Deployment, NextRecord
from worker.core.outbox import Addressee
from worker.core.rules import Rules
from worker.metrics import Metrics
from worker.ports import Clock, Dispatcher, EventLog


class Pace(Struct, frozen=True):
    """How much is done at once, and how often."""

    commit_interval_s: float = 0.05
    """A busy partition commits at most this often; an idle one at once."""
    commits_per_s: float = 40.0
    """Over all partitions of a worker: transactions cost the brokers, so batches grow with the load instead."""
    batch_records_max: int = 2_000
    """Events in one transaction."""
    inbox_records_max: int = 10_000
    """Events waiting in one partition before its input is paused."""
    prepared_max: int = 256
    """Rendered updates kept until a lane takes them; beyond, they are rendered again."""
    look_max: int = 100
    """Orders looked at in one go, before others get the loop."""
    look_s: float = 0.1
    """For how long orders are looked at between two transactions; the next turn goes on with the rest."""
    idle_commit_s: float = 6 * 3600.0
    """Brokers forget a producer that is idle for a day."""


class Context(Struct):
    """The worker, as an actor sees it."""

    owner_id: str
    version: str
    rules: Rules
    pace: Pace
    clock: Clock
    events: EventLog
    dispatcher: Dispatcher
    addressees: Mapping[str, Addressee]
    """By account name."""
    metrics: Metrics
    event_topic: str = "orders.events"
    topic_epoch: int = 0
    start_latest: bool = False
    sending: bool = True
    deployment: Deployment = Deployment()
    """Ours, with what the brokers said of the topics when the worker started."""
    adopt_state: bool = False
    """Goes on with a state that another deployment has written."""
    former: Sequence[Deployment] = ()
    """Those that the state was taken over from: their owners are fenced, too."""
    partitions: int = 1
    """Partitions of ours, now: they share `commits_per_s`."""

    def commit_interval_s(self) -> float:
        """The shortest time between two transactions of one busy partition."""
        return max(self.pace.commit_interval_s, self.partitions / self.pace.commits_per_s)


class Warm(Struct):
    """What is left of a partition that was ours: a restore starts from here."""

    orders: dict[str, bytes]
    position: int
    """Up to here the state partition is in `orders`."""
    next: NextRecord | None
    left_at: float
    """*now*."""
