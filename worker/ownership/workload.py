"""What an owned partition does with its records, as far as its owner needs to know."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from msgspec import MsgspecError, Struct

from worker.ownership.inbox import Inbox
from worker.ownership.lease import Lease
from worker.ownership.phase import Phase
from worker.ports import DeadLetter, InputRecord, Result, StateEntry

Entries = list[tuple[bytes, bytes | None]]
"""Keys and values for the state topic."""


class Sizes(Struct, frozen=True):
    """The largest that topics take, as `ports.PartitionWriter` says, and what was found too large all the same."""

    value: int
    letter: int
    result: int
    lean_below: int = 0
    """Dead letters of records before this offset were refused for their size."""
    lean_results: bool = False
    """Results were."""


class Inherited(Struct, frozen=True):
    """What is known of the predecessor of an owner that takes over."""

    was_clean: bool
    """It has drained, and left nothing that is not written down."""
    is_first: bool
    """There was none."""
    hold_until: float
    """*now*: until then a request of its, or of those before it, may still land."""


class Transaction(Protocol):
    """One transaction in the making. Nothing of it counts before it is committed."""

    next_offset: int
    """Of the input, once it is committed."""
    last_record: InputRecord | None
    """Of those taken in it, the last one that can be known again."""
    dead_letters: list[DeadLetter]
    results: list[Result]

    @property
    def history(self) -> Entries:
        """What is written to the history topic."""
        ...

    def entries(self) -> Entries:
        """What changes in the state."""
        ...


TransactionT = TypeVar("TransactionT", bound=Transaction)


class Host(Protocol):
    """The owner, as its workload sees it."""

    partition: int
    lease: Lease

    @property
    def phase(self) -> Phase:
        """Of this ownership."""
        ...

    @property
    def sizes(self) -> Sizes:
        """Known once the partition was fenced."""
        ...

    def may_send(self) -> bool:
        """Whether an attempt may begin now."""
        ...

    def input_end(self) -> int | None:
        """The end of the partition's input (an offset), as last seen; `None`: nothing was seen of it yet."""
        ...

    def has_taken(self, offset: int) -> bool:
        """Whether everything in the input before this offset was taken."""
        ...

    def wake(self) -> None:
        """There is something to do, or to write."""
        ...

    def want_lease(self) -> None:
        """Commits soon, whether there is anything to write or not."""
        ...

    def complain(self, detail: str) -> None:
        """People are to see this with the partition."""
        ...

    def fail(self, error: Exception) -> None:
        """Something has failed that must not: the ownership ends with this error."""
        ...

    async def write(self, entries: Entries) -> None:
        """Writes before the partition is served, in a transaction of its own. Raises `LogError`."""
        ...

    def require_working(self) -> None:
        """Raises `UsageError` unless operators may change something."""
        ...


class Workload(Protocol[TransactionT]):
    """All of it happens in the owner's task, but for what the outcomes of attempts and operators bring."""

    # --- restoring ---

    def load(self, entry: StateEntry) -> bool:
        """Takes the next record of the state topic, unless (False) it is none of the workload's. Must be fast."""
        ...

    async def keep_up(self) -> None:
        """Called after some records: may wait until what was loaded is where it is to be."""
        ...

    def loaded(self) -> None:
        """All were loaded. Raises `DamagedStateError` when the newest of a key is none that we wrote."""
        ...

    async def may_replay_from(self, revision: int) -> bool:
        """Whether events from this revision on are newer than all that was taken."""
        ...

    async def restored(self, inherited: Inherited) -> Entries:
        """Inherits; nothing is sent yet. Returns what has to be written before anything is."""
        ...

    def activated(self) -> None:
        """What `restored` has returned is committed. Before that `keep` must not take it for known, as the commit may
        fail, and a later owner in this process starts from what was kept.
        """
        ...

    def distrust(self, why: str) -> Exception | None:
        """What it started from contradicts the state topic: `None`, if that came from this very process; otherwise it
        is not started from again, and the error says so.
        """
        ...

    async def find_undecodable(self, error: MsgspecError) -> bytes | None:
        """The key of the record that the error is about; `None`: it is about none of the workload's."""
        ...

    def summary(self) -> dict[str, Any]:
        """What the log says of it once it is restored."""
        ...

    # --- serving ---

    def next_due(self) -> float:
        """When there is something to do; infinity: when something happens."""
        ...

    async def work(self) -> None:
        """Does what is due, for a bounded time; while the host is draining, only what has to be written of what was
        sent.
        """
        ...

    def has_mail(self) -> bool:
        """Whether there is something to write, events apart."""
        ...

    def has_urgent_work(self) -> bool:
        """Whether `work` is to be called before the owner sleeps."""
        ...

    async def fill(self, next_offset: int, inbox: Inbox | None, keeping: Sequence[str]) -> TransactionT:
        """Everything that is to be written, or so much of it as fits into one transaction. `inbox`: `None` while no
        events are taken. `keeping`: a portion of what is `unwritten`.
        """
        ...

    async def work_ahead(self, transaction: TransactionT, inbox: Inbox) -> None:
        """While this transaction is being committed: works out what the next one takes from the inbox, which stays as
        it is. Cut off at an `await` once that is committed; `fill` goes on from there, or begins anew. Raises nothing.
        """
        ...

    def applied(self, transaction: TransactionT) -> None:
        """It is committed: now it is so, in memory too."""
        ...

    def persist(self, entries: Entries, position: int) -> None:
        """All that is committed below this offset of the state partition is in memory, these entries last."""
        ...

    async def announce(self, transaction: TransactionT) -> None:
        """Says what has changed, and answers operators."""
        ...

    # --- draining ---

    def drain(self) -> None:
        """Begins no attempt any more."""
        ...

    def awaits_outcomes(self) -> bool:
        """Whether attempts are in flight."""
        ...

    def is_drained(self) -> bool:
        """Whether none is, and nothing that became of them is left to write."""
        ...

    def abandon(self) -> None:
        """Gives up the attempts in flight: their outcome is unknown."""
        ...

    def unwritten(self) -> list[list[str]]:
        """What a successor has to know and stands in memory only, in portions of one transaction; the last one, which
        may be empty, goes with the last transaction.
        """
        ...

    def held_until(self) -> float:
        """*now*: until then a request in doubt may still land, whoever sent it; a time in the past: none may."""
        ...

    def is_writable(self) -> bool:
        """Whether all that a successor has to know can be written."""
        ...

    def close(self, error: Exception) -> None:
        """The ownership has ended. `error`: what those get who wait for something."""
        ...

    def keep(self) -> Any:
        """What a later owner in this process can start from."""
        ...


WorkloadT = TypeVar("WorkloadT", bound=Workload[Any])
"""What a partition is owned for."""
