"""The worker's ports. `kafka/` and `publisher/` implement them, and so do the fakes in `sim/`.

Every implementation passes the same contract tests. Times called *now* are seconds on a monotonic clock that keeps
counting while the machine is suspended; times called *wall* are UTC milliseconds, for records and for people.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct

from schemas.state import Deployment, Operated, OrderHeader
from worker.core.order import Shown
from worker.core.outbox import Outbox
from worker.model.exchange import Fault, HttpRequest, HttpResponse, Outcome
from worker.model.jobs import Fate
from worker.model.provider import Destination, Update

_T = TypeVar("_T")


class Clock(Protocol):
    """The two clocks, and randomness: everything pure gets them as arguments."""

    def now(self) -> float:
        """Seconds; only differences are meaningful."""
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
    """An `InputRecord` in place of bytes that no client can decode. It goes to the dead-letter topic."""

    offset: int
    last_offset: int
    """The offset of the last record that it replaces; differs from `offset` only for a batch."""
    timestamp: int
    detail: str
    """What was expected where; never text from the event."""
    key: bytes | None = None
    value: bytes | None = None
    """For a batch: its bytes as stored in Kafka."""
    headers: Sequence[tuple[str, bytes]] = ()
    """As far as they could be decoded, names with replacement characters."""
    names: Sequence[bytes] = ()
    """The raw header names that are not UTF-8."""
    is_batch: bool = False


def after(record: InputRecord) -> int:
    """The lowest offset that the next record can have."""
    return (record.last_offset if type(record) is UndecodableRecord else record.offset) + 1


_RECORD_BYTES = 100
"""Overhead of a record in memory, in addition to its key, value and headers."""


_keys, _values, _headers = attrgetter("key"), attrgetter("value"), attrgetter("headers")


def size_of(records: Sequence[InputRecord]) -> int:
    """Roughly how many bytes the records take in memory."""
    # No Python statement per record: 0.2 instead of 0.4 µs each.
    size = _RECORD_BYTES * len(records)
    size += sum(map(len, filter(None, map(_keys, records)))) + sum(map(len, filter(None, map(_values, records))))
    for headers in filter(None, map(_headers, records)):
        size += sum(_RECORD_BYTES + len(name) + len(content or b"") for name, content in headers)
    return size


class AssignmentListener(Protocol):
    """Is notified of assigned and revoked partitions."""

    def assigned(self, partitions: set[int]) -> None:
        """These partitions are assigned to us now; nothing of them is delivered before `resume`. Must not block."""
        ...

    async def revoked(self, partitions: set[int]) -> None:
        """These partitions are being revoked (or are lost already). May take up to the rebalance timeout."""
        ...


class TopicsSeen(Struct, frozen=True):
    """What the brokers report about the event topic and the state topic: enough to notice that one of them was replaced
    or repartitioned.
    """

    cluster: str = ""
    event_topic_id: str = ""
    """Differs after a topic was deleted and recreated; empty: the topic is gone, or the brokers report no ids."""
    state_topic_id: str = ""
    event_partitions: int = 0
    """0: the topic is gone."""
    state_partitions: int = 0


class EventLog(Protocol):
    """The event topic, read as a member of a consumer group."""

    async def start(self, listener: AssignmentListener) -> None:
        """Joins the group. Raises `TopicError` if the topics are missing or unusable for the protocol."""
        ...

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[int, Sequence[InputRecord]]:
        """Records by partition, in offset order; empty when none arrived in time.

        Raises `GapError` (with `.partitions`) if a position is outside the offsets that the topic retains. Never
        cancelled.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Sets the position of an assigned partition: the next offset to deliver."""
        ...

    def pause(self, partition: int) -> None:
        """Delivers nothing of this partition until `resume`; prefetched records are discarded."""
        ...

    def resume(self, partition: int) -> None:
        """Starts delivering again."""
        ...

    def position(self, partition: int) -> int | None:
        """The next offset to deliver. Also moves past transaction markers and aborted records.

        `None` while the partition is not assigned to us, or before its first `seek`.
        """
        ...

    async def start_offset(self, partition: int, latest: bool) -> int:
        """The log start offset, or with `latest` the log end offset."""
        ...

    async def group_offset(self, partition: int) -> int | None:
        """The offset that the group has committed: for comparison only, never trusted as our position."""
        ...

    async def commit_group(self, offsets: Mapping[int, int]) -> bool:
        """Commits offsets to the group, for lag tools. True: the broker accepted us as a member of the group.

        Partitions that are not assigned to us are left out; if none remains, it still checks our membership.
        """
        ...

    def lag(self, partition: int) -> int | None:
        """Records between the position and the log end, including those behind an open transaction; `None`: unknown."""
        ...

    def behind_open(self, partition: int) -> int | None:
        """Records that cannot be read until a producer ends its transaction; `None`: unknown."""
        ...

    def silent_s(self) -> float:
        """Seconds since a broker last responded to this member, heartbeats included."""
        ...

    async def describe_topics(self) -> TopicsSeen:
        """Both topics that an order lives in, events and state, as the brokers report them in one answer now: a worker
        belongs to the two of them. Works before `start`. Bounded. Raises `LogError`.
        """
        ...

    async def members_of(self, group_id: str) -> int:
        """How many members a group has now; works before `start`. Bounded. Raises `LogError` if no broker responds."""
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
    """Writes our own events to the event topic, each to the partition of its key, unless another one is named."""

    def start(self) -> None:
        """Starts connecting in the background, and reconnects whenever needed; Kafka may be down."""
        ...

    async def post(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None = None
    ) -> "asyncio.Future[Any]":
        """Queues a record. The returned future completes once all in-sync replicas have it, with something that has its
        `partition` and `offset`, and fails if the write failed or its outcome is unknown.

        Raises `LogError`. Blocks while Kafka is down: the caller sets a deadline, but the record may still be written
        after that.
        """
        ...

    def silent_s(self) -> float:
        """For how long Kafka has been unreachable, or a record unacknowledged; 0: all is well."""
        ...

    async def stop(self) -> None:
        """Waits for records in flight, within a bound. Never raises."""
        ...


class Where(Struct, frozen=True):
    """Where a record lies."""

    partition: int
    offset: int


class CommandOutcome(Struct, frozen=True):
    """What came of an operator's command."""

    done: bool
    """There was something to do."""
    words: str = ""
    """Empty: the command has its own."""
    everywhere: bool = False
    """It was asked of all workers."""


class DeadLetter(Struct, frozen=True):
    """A rejected record, unchanged as far as the topic's limits allow, and why it was rejected."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """The record's own, then ours (`x-dlq-…`)."""


class Result(Struct, frozen=True):
    """A CloudEvent for other systems, in the results topic."""

    key: bytes
    value: bytes


class PartitionWriter(Protocol):
    """One owner's writer for one state partition."""

    async def fence(self, former: Sequence[Deployment] = ()) -> None:
        """Takes ownership: once it returns, no older owner can commit anything, nor can an owner of one of the
        `former` deployments, which use other transactional ids. Raises `LogError`.
        """
        ...

    async def write(
        self,
        entries: Sequence[tuple[bytes, bytes | None]],
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
        history: Sequence[tuple[bytes, bytes | None]] = (),
    ) -> int:
        """Commits one transaction and returns the offset of the last entry; `history`: keys and values for the history
        topic, in this order; `None` removes. Every failure raises `LogError`
        (`FencedError` if another owner has taken over, `SizeRefusedError` if something in it is larger than its topic
        accepts); the outcome is then unknown, and this writer must be closed.
        """
        ...

    def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
        """All committed records from `position` on, in lists, through the one at offset `until`.

        Raises `LogError` if nothing arrives for longer than a hanging transaction can last.
        """
        ...

    @property
    def value_max_bytes(self) -> int:
        """The largest value that the topic accepts; refreshed by `fence`."""
        ...

    @property
    def letter_max_bytes(self) -> int:
        """The largest dead letter that its topic accepts, key and headers included, before compression."""
        ...

    @property
    def result_max_bytes(self) -> int:
        """The largest result value that its topic accepts; 0: there is no results topic, and `write` accepts none."""
        ...

    async def close(self) -> None:
        """Releases the partition. Bounded; never raises."""
        ...


class StateLog(Protocol):
    """The compacted state topic: the database and the outbox."""

    async def start(self) -> None:
        """Raises `TopicError` if the topics are missing or unusable for the protocol."""
        ...

    @property
    def partitions(self) -> int:
        """The partition count; known after `start`."""
        ...

    def partition(self, partition: int) -> PartitionWriter:
        """A new writer; it does nothing before its `fence`."""
        ...

    async def newest(self) -> Mapping[int, Sequence[StateEntry]]:
        """The newest committed entries of each partition, without fencing any. Raises `LogError`.

        For finding out who owned it last, not for a restore: entries hidden by an open transaction are left out.
        """
        ...

    async def stop(self) -> None:
        """Closes the clients shared by all partitions."""
        ...


class StateScan(Protocol):
    """Orders of the state topic, read by a tool that owns no partition. What an open transaction hides is left out."""

    async def start(self) -> None:
        """Raises `TopicError`, `ConfigError` or `LogError`."""
        ...

    @property
    def partitions(self) -> int:
        """How many the topic has; known once it was started."""
        ...

    def orders(self, partition: int) -> AsyncGenerator[tuple[str, bytes], None]:
        """Subject and record of each order that is wanted, each once, as it stood when this began or newer. Not all
        bodies are in memory at once, only the keys of a partition; the reader may take its time. Raises `LogError`.
        """
        ...

    async def changed(self, partition: int, subjects: Collection[str]) -> dict[str, bytes | None]:
        """Those of these orders that were written since `orders` of their partition began, as they are now; `None`:
        deleted. Raises `LogError`.
        """
        ...


class OrderTable(Protocol):
    """Where an owner keeps the committed records of its partition's orders, encoded, by subject.

    It is made again from the state topic whenever it is lost, so it need not survive anything; but it may be handed on
    to the next owner in the same process. Whatever reads raises `StoreError` when a disk fails; then, and from then on,
    the table is of no use, and whoever `watch`es is told.
    """

    def get(self, subject: str) -> bytes | None:
        """The record of an order; `None`: there is none."""
        ...

    def __getitem__(self, subject: str) -> bytes:
        """The record of an order that there is. Raises `KeyError`."""
        ...

    def put(self, subject: str, value: bytes) -> None:
        """The order's record is this one from now on."""
        ...

    def delete(self, subject: str) -> None:
        """There is no such order any more; nothing happens when there was none."""
        ...

    def __contains__(self, subject: object) -> bool:
        """Whether there is such an order."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def subjects(self, skipping: float = 0.0) -> Iterator[str]:
        """All that there are as of this call, but for about the first `skipping` of them, in [0, 1). Others may come
        meanwhile, some of these may go.
        """
        ...

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All orders with their records. Records may be replaced meanwhile; none may be added or deleted."""
        ...

    def headers(self) -> Iterator[tuple[str, OrderHeader]]:
        """All orders as of this call, each with the header of its record then. Raises `MsgspecError` for one that is
        none.
        """
        ...

    def accounts(self) -> Iterator[tuple[str, int]]:
        """How many orders accounts have; the same account may come again, with more of them."""
        ...

    def unsettled(self, larger_than: int) -> Iterator[tuple[str, bytes]]:
        """At least all orders that are owed, that may land late, or whose record is larger than so many bytes, as
        `items` has them. So a takeover need not read the others.
        """
        ...

    async def fetch(self, subjects: Sequence[str]) -> None:
        """Reads these ahead, where reading could take long, so that `get` need not wait for a disk."""
        ...

    # --- a table that outlives the process ---

    def note(self, key: bytes, value: bytes | None) -> None:
        """The newest record of the state partition under a key that is no order's; `None`: a tombstone."""
        ...

    def checkpoint(self, position: int) -> None:
        """All that is committed below this offset was put, deleted or noted: it may be kept for the next process."""
        ...

    async def keep_up(self) -> None:
        """To be awaited now and then while very many records are put: bounds what waits to be written."""
        ...

    def watch(self, on_failure: Callable[[Exception], None]) -> None:
        """Whom to tell, instead of anybody told so far, when it cannot be read any more."""
        ...

    def is_usable(self) -> bool:
        """Whether an owner may start from it."""
        ...

    def distrust(self, why: str) -> Exception | None:
        """What it holds contradicts the state topic. If it was continued from an earlier process it is of no use from
        now on, and the error that says so is returned.
        """
        ...

    async def close(self) -> None:
        """Writes what waits, and ends. Never raises."""
        ...


class Recalled(Struct):
    """What an owner starts from."""

    table: OrderTable
    position: int = 0
    """What is committed below this offset of the state partition is in the table, and in `notes`."""
    notes: Mapping[bytes, bytes] = {}
    """The newest values under keys that are no orders'."""


class Origin(Struct, frozen=True):
    """What a copy of a state partition must have been made from, to be one of ours."""

    partition: int
    cluster: str
    topic_id: str
    """Of the state topic; empty: not known, and nothing fits."""
    topic_epoch: int


class OrderTables(Protocol):
    """Where tables come from."""

    def start(self) -> None:
        """Raises `ConfigError` when there can be none, or another process is at them."""
        ...

    async def recall(self, origin: Origin) -> Recalled:
        """The partition's table as an earlier process left it, if that fits; else an empty one. Any that was open for
        the partition is of no use any more. Never raises: where a disk fails, the table is in memory.
        """
        ...

    def on_disk(self) -> int:
        """Of how many partitions the orders are on a disk now."""
        ...

    async def stop(self) -> None:
        """Nobody uses any of the tables any more. Never raises."""
        ...


# --- files of tables ---

Changes = Sequence[tuple[bytes, bytes | None]]
"""Keys with their new values; `None`: none any more."""


class Database(Protocol):
    """An ordered key-value store in files of its own. All of it blocks, and raises `StoreError`; several threads may
    read while one writes.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, in their order."""
        ...

    def keys(self, begin: bytes, prefix: bytes, count: int) -> list[bytes]:
        """The first keys from `begin` on, in the order of bytes, that have this prefix."""
        ...

    def items(self, begin: bytes, prefix: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """The same with their values."""
        ...

    def key_at(self, part: float) -> bytes:
        """A key with about this part of all before it; `part` in [0, 1)."""
        ...

    def write(self, changes: Changes) -> None:
        """All of it or nothing, whatever happens; and nothing of it when something written before is lost."""
        ...

    def close(self) -> None:
        """It is not used any more."""
        ...


class Files(Protocol):
    """Where databases are, one a partition."""

    def lock(self) -> None:
        """Raises `ConfigError` when another process has them, or they cannot be used at all."""
        ...

    def unlock(self) -> None:
        """Others may have them."""
        ...

    def open(self, partition: int) -> Database:
        """Makes it when there is none. Blocks. Raises `StoreError`."""
        ...

    def destroy(self, partition: int) -> None:
        """Removes it; nothing happens when there is none. Blocks. Raises `StoreError`."""
        ...

    async def read(self, work: Callable[[], _T]) -> _T:
        """Runs what reads, off the loop."""
        ...

    async def write(self, work: Callable[[], _T]) -> _T:
        """Runs what writes, opens, closes or destroys, off the loop, one after the other."""
        ...


class Sender(Protocol):
    """The only way to send a request to a provider."""

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """Makes one attempt. Raises nothing except on cancellation, follows no redirect, and never repeats a request
        that may have been processed.

        `may_send` is called again right before the headers are written: if it returns false, nothing is sent.
        """
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class Errand(Struct, eq=False):
    """A job's request, in place of an order's update: it is sent unchanged."""

    request: HttpRequest
    read: Callable[[HttpResponse, int], Outcome]
    """Classifies the response; the second argument is the time in UTC milliseconds."""
    is_read: bool = False
    """It changes nothing at the provider: without a response nothing can land late."""
    answer: HttpResponse | None = None
    """The response, once there is one."""


class Attempt(Struct, eq=False):
    """One attempt to send an order to its provider, as claimed from the outbox at that moment."""

    subject: str
    revision: int
    update: Update
    taken_at: float
    """*now*."""
    may_send: Callable[[], bool]
    trace: str | None = None
    """`traceparent` of the newest event in it that had one."""
    generation: int = 0
    """How often an operator had the order resent."""
    event_id: str = ""
    """The id of the newest event in it, in the form that logs may show."""
    remote: bytes = b""
    """What the adapter remembers about the order at the provider."""
    may_land_late: bool = False
    """The outcome of an earlier attempt is unknown, even after its hold."""
    remote_unknown: bool = False
    """The provider may have something other than what we last knew."""
    shown: Shown | None = None
    """What results show of the order, as of its revision."""
    errand: Errand | None = None
    """`None`: an order's attempt; otherwise `subject` names a job, and revision and update are meaningless."""


class AttemptSource(Protocol):
    """Where the publisher claims attempts, and where it reports their outcomes."""

    def claim(self, subject: str) -> Attempt | None:
        """Claims the attempt that is due for the order now; `None` if nothing may be sent after all."""
        ...

    def done(self, attempt: Attempt, outcome: Outcome) -> None:
        """Reports an attempt's outcome. Called exactly once for each attempt claimed."""
        ...


class Dispatcher(Protocol):
    """Sends for all partitions of a worker."""

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
        """Queues an order that may be sent from `not_before` on (*now*), or earlier if its account recovers before. It
        is claimed when its turn comes: the longest owed first, with a limit for those that have failed before. Offered
        again, it has its turn by the earlier moment; the later turn finds nothing to claim.
        """
        ...

    def withdraw(self, source: AttemptSource) -> None:
        """Drops all queued offers of this source. Attempts in flight continue."""
        ...

    def abandon(self, source: AttemptSource) -> None:
        """Abandons this source's attempts in flight: their outcome is unknown."""
        ...

    def pause_accounts(self, source: AttemptSource, paused: Mapping[str, Operated]) -> None:
        """Sends nothing for the accounts that operators have paused by these events, and for all others again, as far
        as this source knows: an account goes on once no source knows of a pause.
        """
        ...

    def pauses(self, account: str) -> bool:
        """Whether the account is paused by itself, because its credentials or its orders were rejected."""
        ...

    def paused(self, account: str) -> str | None:
        """Why the account is paused, by whatever; `None`: it is not."""
        ...

    def waits(self, account: str) -> str:
        """Why the account sends nothing now: paused, or throttled by its provider; empty: it may send."""
        ...


class JobChange(Struct, eq=False):
    """What a job has to write, in one transaction."""

    key: str
    value: bytes
    """The job's record."""
    remotes: Mapping[str, bytes] = {}
    """By subject: the new provider memory of the orders' records."""
    fates: Mapping[str, Fate] = {}
    """By subject: the fate of orders."""
    page: str = ""
    """The id of the page that these orders are put on, or that their fates come of."""
    done: Callable[[], None] = lambda: None
    """Called after the commit."""


class JobView(Struct, frozen=True):
    """The current state of an account's job in one partition."""

    account: str
    job: str
    last_ms: int
    """When its newest run was due, UTC milliseconds; 0: it has not run yet."""
    next_ms: int
    """When its next run is due; 0: never."""
    overdue_s: float = 0.0
    """For how long an unfinished run has been due."""
    pages: int = 0
    """Pages in progress."""
    in_doubt: int = 0
    """Pages in progress that the provider may have accepted."""
    stuck_pages: Sequence[str] = ()
    """Ids of the pages in progress that wait for an operator's decision."""


class JobHost(Protocol):
    """A partition as seen by its jobs. Everything runs on one event loop."""

    partition: int
    orders: OrderTable
    """The committed records."""
    outbox: Outbox

    @property
    def value_max_bytes(self) -> int:
        """The largest value that the state topic accepts."""
        ...

    def destination(self, account: str) -> Destination | None:
        """Where the account's orders are sent now."""
        ...

    def offer_job(self, account: str, name: str, since_ms: int) -> None:
        """Queues this job: it is asked for its errand when the account's turn comes."""
        ...

    def is_beyond(self, subject: str) -> bool:
        """Whether the order's record is too large to record any further outcome."""
        ...

    def input_end(self) -> int | None:
        """The end of the partition's input (an offset), as last seen; `None`: nothing was seen of it yet."""
        ...

    def has_taken(self, offset: int) -> bool:
        """Whether everything in the input before this offset is in the orders' records."""
        ...

    def wake(self) -> None:
        """Has the jobs evaluated, and their changes written."""
        ...

    def fail(self, what: str, error: BaseException) -> None:
        """Reports a failure that must not happen: a bug."""
        ...

    async def pause(self) -> None:
        """Yields to the event loop if this task has had it for long enough."""
        ...


class JobDesk(Protocol):
    """The jobs of one partition, as its owner drives them."""

    @property
    def keys(self) -> frozenset[str]:
        """Of their records."""
        ...

    def restore(self, records: Mapping[str, bytes], *, is_clean: bool, hold_until: float) -> dict[str, bytes]:
        """Takes over the job records of the previous owner, and returns the records to write. `hold_until`: no request
        of a previous owner lands after it. Raises `msgspec.MsgspecError`.
        """
        ...

    def next_due(self) -> float:
        """When the next job is due; infinity: not before something happens."""
        ...

    async def look(self, *, is_leaving: bool = False) -> None:
        """Evaluates due jobs; with `is_leaving`, only records the outcomes of requests already sent."""
        ...

    def look_anew(self) -> None:
        """The accounts were reloaded: reschedules all jobs."""
        ...

    def forget(self, account: str) -> dict[str, bytes]:
        """Drops the pages in progress of an account whose target has changed; returns the records to write."""
        ...

    def held_until(self) -> float:
        """The end of the latest hold that an answer here began; 0: none did."""
        ...

    def owes(self) -> bool:
        """Whether something must be written before the partition may be released."""
        ...

    def has_mail(self) -> bool:
        """Whether there are changes to write."""
        ...

    def changes(self) -> list[JobChange]:
        """The changes to write now, in one transaction."""
        ...

    def is_reserved(self, subject: str) -> bool:
        """Whether an order is being written into a page right now, so that it must not be sent otherwise."""
        ...

    def claim(self, name: str) -> Errand | None:
        """Claims the request to send now; `None`: nothing after all."""
        ...

    def postpone(self, name: str) -> None:
        """The job's turn came, but it may not be sent now."""
        ...

    def done(self, name: str, outcome: Outcome) -> None:
        """Reports the outcome of its request."""
        ...

    def close(self) -> None:
        """The partition is no longer ours."""
        ...

    async def ask(self, account: str) -> int:
        """Makes the account's jobs due now, and returns how many once that is committed. Raises `UsageError`."""
        ...

    async def decide(self, account: str, page_id: str, *, is_taken: bool) -> bool:
        """Applies an operator's decision on a stuck page, and returns once it is committed; false: it is not in this
        partition. Raises `UsageError`.
        """
        ...

    def views(self) -> list[JobView]:
        """The current state of all jobs."""
        ...


# --- reading along, without a part in the work ---

TopicName = Literal["state", "dead_letters", "results", "history"]
Place = tuple[TopicName, int]
"""A topic, by what it is to us, and a partition of it."""


class StoredRecord(Struct, frozen=True, gc=False):
    """A committed record of one of our topics."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Chunk(Struct, frozen=True):
    """Records of one partition, in their order; there may be none."""

    topic: TopicName
    partition: int
    records: Sequence[StoredRecord]
    next_offset: int
    """Everything before it was read: markers, and what was aborted or compacted away, too."""


class TopicFound(Struct, frozen=True):
    """A topic as it is now."""

    name: str
    """In Kafka."""
    id: str
    """Another one once it was made again; empty where brokers know no ids."""
    ends: Mapping[int, tuple[int, int]]
    """By partition, its first offset and the one after its last."""


class Records(Protocol):
    """Our topics, for those who read along: committed records alone, and no group knows of it."""

    async def start(self) -> None:
        """Connects. Raises `ConfigError` when Kafka refuses us, `LogError` when it does not answer."""
        ...

    async def topics(self) -> Mapping[TopicName, TopicFound]:
        """The topics that there are. Raises `LogError`."""
        ...

    def seek(self, positions: Mapping[Place, int]) -> None:
        """What `read` reads from now on: these partitions, from these offsets."""
        ...

    async def read(self, within_s: float) -> list[Chunk]:
        """What follows in one or more partitions; may be empty when nothing came `within_s`. Raises `LogError`."""
        ...

    async def record(self, place: Place, offset: int) -> StoredRecord | None:
        """One record; `None`: it is not there any more. Raises `LogError`."""
        ...

    async def picked(self, place: Place, offsets: Sequence[int]) -> list[StoredRecord]:
        """Some records, in their order, without those that are not there any more. Raises `LogError`."""
        ...

    async def input_ends(self) -> Mapping[int, int]:
        """By partition of the event topic, the offset after its last record. Raises `LogError`."""
        ...

    async def stop(self) -> None:
        """Disconnects. Never raises."""
        ...
