"""What the worker needs of the world. Kafka and HTTP implement these, and so do the stand-ins of `sim`.

Every implementation passes the same contract tests. Times called *now* are seconds on a clock that only grows and
counts suspends too; times called *wall* are UTC milliseconds, for records and for people.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

from msgspec import Struct

from schemas.state import Deployment
from worker.core.order import Shown
from worker.core.outbox import Outbox
from worker.model.exchange import Fault, HttpRequest, HttpResponse, Outcome
from worker.model.jobs import Fate
from worker.model.provider import Destination, Update


class Clock(Protocol):
    """The two clocks, and chance: arguments of everything pure."""

    def now(self) -> float:
        """Seconds; only differences mean anything."""
        ...

    def wall_ms(self) -> int:
        """UTC milliseconds since 1970."""
        ...

    def chance(self) -> float:
        """A number in [0, 1), for jitter."""
        ...


class InputRecord(Protocol):
    """One record of the event topic (aiokafka's `ConsumerRecord` is one)."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...
    @property
    def timestamp(self) -> int:
        """UTC milliseconds."""
        ...


class UndecodableRecord(Struct, frozen=True):
    """`InputRecord`: stands where no client can decode what is there. It is refused, never taken."""

    offset: int
    last_offset: int
    """Of the last record that it stands for; the same but for a batch."""
    timestamp: int
    detail: str
    """What was expected where; never a text of the event."""
    key: bytes | None = None
    value: bytes | None = None
    """Of a batch: the batch as it lies in Kafka."""
    headers: Sequence[tuple[str, bytes]] = ()
    """As far as they could be read, names with replacement characters."""
    names: Sequence[bytes] = ()
    """The header names that are not UTF-8, as they are."""
    is_batch: bool = False


def after(record: InputRecord) -> int:
    """The offset of the record that follows at the earliest."""
    return (record.last_offset if type(record) is UndecodableRecord else record.offset) + 1


_RECORD_BYTES = 100
"""What a record takes besides its key, its value and its headers."""


_keys, _values, _headers = attrgetter("key"), attrgetter("value"), attrgetter("headers")


def size_of(records: Sequence[InputRecord]) -> int:
    """How many bytes records take in memory, about."""
    # Without a line of Python for each: 0.2 instead of 0.4 µs.
    size = _RECORD_BYTES * len(records)
    size += sum(map(len, filter(None, map(_keys, records)))) + sum(map(len, filter(None, map(_values, records))))
    for headers in filter(None, map(_headers, records)):
        size += sum(_RECORD_BYTES + len(name) + len(content or b"") for name, content in headers)
    return size


class AssignmentListener(Protocol):
    """Is told which partitions are ours."""

    def assigned(self, partitions: set[int]) -> None:
        """These partitions are ours from now on; nothing of them is delivered before `resume`. Must not block."""
        ...

    async def revoked(self, partitions: set[int]) -> None:
        """These partitions are about to go (or are gone already). May take up to the rebalance timeout."""
        ...


class TopicsSeen(Struct, frozen=True):
    """What the brokers say of our topics: enough to notice that one of them is not what it was."""

    cluster: str = ""
    event_topic_id: str = ""
    """Another one, when a topic was deleted and made again; empty: the topic is gone, or brokers do not tell."""
    state_topic_id: str = ""
    event_partitions: int = 0
    """0: the topic is gone."""
    state_partitions: int = 0


class EventLog(Protocol):
    """The event topic, read as a member of a consumer group."""

    async def start(self, listener: AssignmentListener) -> None:
        """Joins the group. Raises `TopicError` when the topics are not as the protocol needs them."""
        ...

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[int, Sequence[InputRecord]]:
        """Records by partition, each in the order of its offsets; empty when nothing came in time.

        Raises `GapError` (with `.partitions`) when a position is outside what the topic still holds. Never cancelled.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """The next record wanted of an assigned partition."""
        ...

    def pause(self, partition: int) -> None:
        """Delivers nothing of this partition until `resume`; what was fetched ahead is thrown away."""
        ...

    def resume(self, partition: int) -> None:
        """Delivers again."""
        ...

    def position(self, partition: int) -> int | None:
        """Below it everything was delivered or is no record: transaction markers and what was aborted move it, too.

        `None` while the partition is not ours, or was not sought.
        """
        ...

    async def start_offset(self, partition: int, latest: bool) -> int:
        """The first offset that the topic still holds, or the one after its last."""
        ...

    async def group_offset(self, partition: int) -> int | None:
        """What the group has committed: only ever compared, never trusted."""
        ...

    async def commit_group(self, offsets: Mapping[int, int]) -> bool:
        """Tells the group how far we are, for lag tools. True: the broker took us for a member of the group.

        Of partitions that are not ours nothing is told; when none is left, it still says whether we are a member.
        """
        ...

    def lag(self, partition: int) -> int | None:
        """Records between the position and the end, those behind an open transaction too, where known."""
        ...

    def behind_open(self, partition: int) -> int | None:
        """Records that cannot be read before somebody ends a transaction, where known."""
        ...

    def silent_s(self) -> float:
        """For how long no broker has answered this member, be it to a heartbeat."""
        ...

    async def look(self) -> TopicsSeen:
        """What the brokers say of the topics now; also before `start`. Bounded. Raises `LogError`."""
        ...

    async def members_of(self, group_id: str) -> int:
        """How many members a group has now; also before `start`. Bounded. Raises `LogError` when nobody tells."""
        ...

    async def stop(self) -> None:
        """Leaves the group. Does not call the listener."""
        ...


class StateEntry(Struct, frozen=True):
    """One record of a state partition, as read."""

    offset: int
    key: bytes
    value: bytes | None
    """`None`: a tombstone."""


class EventProducer(Protocol):
    """Writes events of our own to the event topic, each into the partition that its key belongs in."""

    def start(self) -> None:
        """Begins to connect, and to connect anew whenever that is needed; Kafka may be away."""
        ...

    async def post(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> "asyncio.Future[Any]":
        """Hands over a record; what it gives is done once all in-sync replicas have it, and fails when they have not,
        or nobody knows.

        Raises `LogError`. Waits while Kafka is away: whoever calls has a deadline, and what was handed over may be
        written after it all the same.
        """
        ...

    def silent_s(self) -> float:
        """For how long Kafka has not taken what it was given, or has not been reached; 0: all is well."""
        ...

    async def stop(self) -> None:
        """Waits for what is on its way, within a bound. Never raises."""
        ...


class DeadLetter(Struct, frozen=True):
    """A refused record, untouched as far as the topic takes it, and what is said of it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """The record's own, then ours (`x-dlq-…`)."""


class Result(Struct, frozen=True):
    """What other systems are told: a CloudEvent in the results topic."""

    key: bytes
    value: bytes


class StatePartition(Protocol):
    """One owner's hold on one state partition."""

    async def fence(self, former: Sequence[Deployment] = ()) -> None:
        """Takes ownership: after it returns, no older owner can commit anything, nor one of the `former` deployments,
        whose owners are known under other ids. Raises `LogError`.
        """
        ...

    async def write(
        self,
        entries: Sequence[tuple[bytes, bytes | None]],
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
    ) -> int:
        """One transaction; the offset of the last entry. Whatever goes wrong raises `LogError` (`FencedError` when
        another owner has taken over, `SizeRefusedError` when something in it is larger than its topic takes), the
        outcome is then unknown and this hold must be closed.
        """
        ...

    def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
        """All committed records from `position` on, in lists, until the one at offset `until` was read.

        Raises `LogError` when nothing comes for longer than a hanging transaction may last.
        """
        ...

    @property
    def value_max_bytes(self) -> int:
        """The largest value that the topic takes; known anew once it was fenced."""
        ...

    @property
    def letter_max_bytes(self) -> int:
        """The largest dead letter that its topic takes, key and headers included, before compression."""
        ...

    @property
    def result_max_bytes(self) -> int:
        """The largest value of a result that its topic takes; 0: results go nowhere, and `write` takes none."""
        ...

    async def close(self) -> None:
        """Lets go. Bounded; never raises."""
        ...


class StateLog(Protocol):
    """The compacted state topic: the database and the outbox."""

    async def start(self) -> None:
        """Raises `TopicError` when the topics are not as the protocol needs them."""
        ...

    @property
    def partitions(self) -> int:
        """How many it has; known once it was started."""
        ...

    def partition(self, partition: int) -> StatePartition:
        """A new hold; nothing happens before its `fence`."""
        ...

    async def newest(self) -> Mapping[int, Sequence[StateEntry]]:
        """The newest committed entries of each partition, without taking any. Raises `LogError`.

        For a look at who was there last, not for a restore: what an open transaction hides is left out.
        """
        ...

    async def stop(self) -> None:
        """Closes what is shared between partitions."""
        ...


class Sender(Protocol):
    """The only way out to a provider."""

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """One attempt; never raises but for cancellation, never follows a redirect, never repeats what may have been
        processed.

        `may_send` is asked again when the headers are about to go out: when it says no, nothing is sent.
        """
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class Errand(Struct, eq=False):
    """A request of a job instead of an order's: it is sent as it is."""

    request: HttpRequest
    read: Callable[[HttpResponse, int], Outcome]
    """What an answer means; with the time, UTC milliseconds."""
    is_read: bool = False
    """It changes nothing there: without an answer nothing may land later."""
    answer: HttpResponse | None = None
    """What came back."""


class Attempt(Struct, eq=False):
    """One attempt to tell an order to its provider, taken from the outbox as of that moment."""

    subject: str
    revision: int
    update: Update
    taken_at: float
    """*now*."""
    may_send: Callable[[], bool]
    trace: str | None = None
    """`traceparent` of the newest event in it that had one."""
    generation: int = 0
    """How often an operator had the order sent anew."""
    event_id: str = ""
    """Of the newest event in it, as logs may have it."""
    remote: bytes = b""
    """What the adapter has kept of the order at the provider."""
    may_land_late: bool = False
    """The outcome of an earlier attempt is not known, though its time is over."""
    remote_unknown: bool = False
    """The provider may hold something else than is known."""
    shown: Shown | None = None
    """What others are shown of it, as of its revision."""
    errand: Errand | None = None
    """`None`: it is an order's; otherwise `subject` names a job, and revision and update mean nothing."""


class AttemptSource(Protocol):
    """Where the publisher gets attempts from, and where it brings the outcomes."""

    def take(self, subject: str) -> Attempt | None:
        """What is owed for the order as of now; `None` when nothing may be sent after all."""
        ...

    def done(self, attempt: Attempt, outcome: Outcome) -> None:
        """What became of it. Called exactly once for each attempt taken."""
        ...


class Dispatcher(Protocol):
    """What sends, for all partitions of a worker together."""

    def offer(
        self,
        account: str,
        owed_since_ms: int,
        subject: str,
        source: AttemptSource,
        *,
        has_failed: bool = False,
        not_before: float = 0.0,
    ) -> None:
        """An order that may be sent, from `not_before` on (*now*): earlier only if its account takes orders again. It
        is taken when its turn comes: the longest owed first, within limits for those that have failed before.
        """
        ...

    def withdraw(self, source: AttemptSource) -> None:
        """Forgets all offers of this source. Attempts under way go on."""
        ...

    def abandon(self, source: AttemptSource) -> None:
        """Gives up the attempts of this source that are under way: their outcome is unknown."""
        ...

    def paused(self, account: str) -> str | None:
        """Why the account sends nothing until somebody acts; `None`: it is not paused."""
        ...

    def waits(self, account: str) -> str:
        """Why the account sends nothing now: a pause, or what its provider asked for; empty: nothing keeps it."""
        ...


class JobChange(Struct, eq=False):
    """What a job wants written, in one transaction."""

    key: str
    value: bytes
    """The job's record."""
    remotes: Mapping[str, bytes] = {}
    """By subject: what the orders' records keep of their provider from now on."""
    fates: Mapping[str, Fate] = {}
    """By subject: what became of orders."""
    done: Callable[[], None] = lambda: None
    """Called once it is committed."""


class JobView(Struct, frozen=True):
    """A job of an account in one partition, as it stands."""

    account: str
    job: str
    last_ms: int
    """The instant at which its newest run was due; 0: it has not begun. UTC, as all."""
    next_ms: int
    """The next one; 0: there is none."""
    overdue_s: float = 0.0
    """For how long a run is due that has not ended."""
    pages: int = 0
    """Under way."""
    in_doubt: int = 0
    """Of these, may have been taken."""
    stuck_pages: Sequence[str] = ()
    """Of these, the ids of those that wait for an operator's word."""


class JobHost(Protocol):
    """A partition as its jobs see it. All of it happens on one event loop."""

    partition: int
    orders: dict[str, bytes]
    """As committed, by subject."""
    outbox: Outbox

    @property
    def value_max_bytes(self) -> int:
        """The largest value that the state topic takes."""
        ...

    def destination(self, account: str) -> Destination | None:
        """To whom the account's orders are told now."""
        ...

    def offer_job(self, account: str, name: str, since_ms: int) -> None:
        """Has the job of this name asked for its errand when the account's turn comes."""
        ...

    def is_beyond(self, subject: str) -> bool:
        """Whether nothing that becomes of this order could be kept."""
        ...

    def wake(self) -> None:
        """Has the jobs looked at, and their changes written."""
        ...

    def fail(self, what: str, error: BaseException) -> None:
        """Something has failed that must not: a defect of ours."""
        ...

    async def pause(self) -> None:
        """Lets others have the loop, if it is time."""
        ...


class JobDesk(Protocol):
    """The jobs of one partition, as its owner serves them."""

    def restore(self, records: Mapping[str, bytes], *, is_clean: bool, hold_until: float) -> dict[str, bytes]:
        """Takes over what a predecessor has kept, and returns what has to be written of it. `hold_until`: nothing of an
        unclean predecessor lands later. Raises `msgspec.MsgspecError`.
        """
        ...

    def next_due(self) -> float:
        """When to look; infinity: when something happens."""
        ...

    async def look(self, *, is_leaving: bool = False) -> None:
        """Does what is due; `is_leaving`: only what has to be written of what was sent."""
        ...

    def look_anew(self) -> None:
        """Accounts were read again."""
        ...

    def forget(self, account: str) -> dict[str, bytes]:
        """Drops what is under way of an account, which tells another one now; returns what has to be written."""
        ...

    def owes(self) -> bool:
        """Whether something has to be written before the partition may go."""
        ...

    def has_mail(self) -> bool:
        """Whether there is something to write."""
        ...

    def changes(self) -> list[JobChange]:
        """What is to be written now."""
        ...

    def is_reserved(self, subject: str) -> bool:
        """Whether an order is just being written into a page, so that nothing else may be said of it."""
        ...

    def take(self, name: str) -> Errand | None:
        """What is to be sent now; `None`: nothing after all."""
        ...

    def postpone(self, name: str) -> None:
        """Its turn has come, and it may not be sent now."""
        ...

    def done(self, name: str, outcome: Outcome) -> None:
        """What became of it."""
        ...

    def close(self) -> None:
        """Its partition is not ours any more."""
        ...

    async def ask(self, account: str) -> int:
        """Makes the account's jobs due now; how many, once that is committed. Raises `UsageError`."""
        ...

    async def decide(self, account: str, page_id: str, *, is_taken: bool) -> bool:
        """An operator's word on a page that is stuck, once that is committed; false: it is not here. Raises
        `UsageError`.
        """
        ...

    def views(self) -> list[JobView]:
        """All of them as they stand."""
        ...
