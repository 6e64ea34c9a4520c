"""The compacted state topic in memory: epochs, transactions, the last stable offset, compaction.

A transaction uses an offset per record as it is written, and one for its marker. Readers see committed records below
the first open transaction. Fencing a partition aborts the transaction that the previous owner left open; otherwise only
its timeout does.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile

from schemas.state import Deployment
from worker.errors import FencedError, GapError, InvariantError, LogError, SizeRefusedError
from worker.ports import Clock, DeadLetter, Result, StateEntry
from worker.sim.process import Broadcast, Process

Entries = Sequence[tuple[bytes, bytes | None]]

READ_MAX = 1_000
"""Maximum entries in one list of a read."""
NEWEST = 200
"""How many offsets at the end of a partition `newest` reads."""
STALL_MARGIN_S = 15.0
"""How much longer than the transaction timeout a reader waits: brokers check for old transactions every 10 s."""


@dataclass(slots=True)
class StateSettings:
    """The configuration of the topic."""

    value_max_bytes: int
    transaction_timeout_s: float
    tombstone_s: float
    """How long compaction keeps a tombstone after first encountering it."""
    letter_max_bytes: int = 1_000_000
    result_max_bytes: int = 1_000_000
    """0: there is no results topic."""


class _Status(Enum):
    OPEN = 0
    COMMITTED = 1
    ABORTED = 2


@dataclass(eq=False, slots=True)
class _Transaction:
    epoch: int | None
    """The owner's; `None`: a foreign producer, which fences do not affect."""
    first: int
    expires_at: float
    dead_letters: Sequence[DeadLetter] = ()
    results: Sequence[Result] = ()
    history: Entries = ()
    status: _Status = _Status.OPEN


@dataclass(slots=True)
class _Cell:
    entry: StateEntry
    transaction: _Transaction
    drop_at: float | None = None


@dataclass(eq=False)
class StateTopicPartition:
    """The brokers' data and metadata of one partition."""

    clock: Clock
    settings: StateSettings
    dead_letters: list[DeadLetter]
    """The committed dead letters of all partitions."""
    results: list[Result]
    """The committed results of all partitions."""
    history: list[StateEntry] = field(default_factory=list)
    """The committed records of this partition of the history topic."""
    letter_takes_bytes: int = 2**40
    """A gateway in front of the brokers may accept less than they announce."""
    result_takes_bytes: int = 2**40
    """The same for results."""
    start: int = 0
    """Records below were deleted; compaction deletes none at the beginning."""
    end: int = 0
    epoch: int = -1
    changed: Broadcast = field(default_factory=Broadcast)
    watcher: Callable[[Sequence[StateEntry], Sequence[DeadLetter], Sequence[Result], Entries], None] | None = None
    """Called for each transaction at its commit, even if the writer never learns that it succeeded."""
    _cells: list[_Cell] = field(default_factory=list)
    _open: list[_Transaction] = field(default_factory=list)

    def fence(self) -> int:
        """Starts the next epoch, and aborts a transaction left open by an older one."""
        self.expire()
        self._complete_own(_Status.ABORTED)
        self.epoch += 1
        return self.epoch

    def remake(self) -> None:
        """Deletes and recreates the topic. Aborts open transactions; epochs stay, as brokers store them elsewhere."""
        for transaction in list(self._open):
            self._complete(transaction, _Status.ABORTED)
        self._cells.clear()
        self.end = 0

    def begin(
        self,
        epoch: int | None,
        entries: Entries,
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
        history: Entries = (),
    ) -> _Transaction:
        """Writes uncommitted records. Raises `FencedError` if the epoch is not the newest."""
        self.expire()
        if epoch is not None and epoch != self.epoch:
            raise FencedError(f"epoch {epoch} was fenced, {self.epoch} is current")
        lasts_until = self.clock.now() + self.settings.transaction_timeout_s
        transaction = _Transaction(epoch, self.end, lasts_until, dead_letters, results, history)
        for key, value in entries:
            self._cells.append(_Cell(StateEntry(self.end, key, value), transaction))
            self.end += 1
        self._open.append(transaction)
        return transaction

    def commit(self, transaction: _Transaction) -> None:
        """Makes a transaction visible. Raises `FencedError` if it was aborted meanwhile."""
        self.expire()
        if transaction.status is _Status.ABORTED:
            raise FencedError("the transaction was aborted by the next owner, or took too long")
        if transaction.status is _Status.OPEN:
            self._complete(transaction, _Status.COMMITTED)

    def truncate(self, begin: int) -> None:
        """Deletes all records below an offset."""
        self.start = begin
        del self._cells[: bisect_left(self._cells, begin, key=_offset)]

    def commit_left_open(self) -> bool:
        """Commits the transaction that the owner left open, if any, as if its commit request had arrived late."""
        self.expire()
        return self._complete_own(_Status.COMMITTED)

    def hang(self, timeout_s: float) -> None:
        """Opens a foreign transaction that hangs until its timeout."""
        transaction = self.begin(None, [(b"foreign", b"")])
        transaction.expires_at = self.clock.now() + timeout_s

    def expire(self) -> None:
        """Aborts transactions that have timed out: their owners get the same error as if fenced."""
        now = self.clock.now()
        for transaction in [each for each in self._open if now >= each.expires_at]:
            self._complete(transaction, _Status.ABORTED)

    def next_expiry(self) -> float | None:
        """When the next transaction times out (*now*)."""
        return min((each.expires_at for each in self._open), default=None)

    def stable(self) -> int:
        """The last stable offset: readers see records below it."""
        return min((each.first for each in self._open), default=self.end)

    def read(self, position: int, until: int, count_max: int) -> tuple[list[StateEntry], int]:
        """Committed entries through offset `until`, and the position after them."""
        self.expire()
        if position < self.start:
            raise GapError(f"the state topic begins at offset {self.start}")
        stop = min(self.stable(), until + 1)
        found: list[StateEntry] = []
        for index in range(bisect_left(self._cells, position, key=_offset), len(self._cells)):
            cell = self._cells[index]
            if cell.entry.offset >= stop:
                break
            if len(found) == count_max:
                return found, cell.entry.offset
            if cell.transaction.status is _Status.COMMITTED:
                found.append(cell.entry)
        return found, max(position, stop)

    def compact(self, before: int | None) -> None:
        """Keeps the newest entry of each key among the committed ones below `before` (default: all stable)."""
        self.expire()
        now, stop = self.clock.now(), self.stable() if before is None else min(before, self.stable())
        closed = [cell for cell in self._cells if cell.entry.offset < stop]
        live = [cell for cell in closed if cell.transaction.status is _Status.COMMITTED]
        newest = {cell.entry.key: cell for cell in live}
        kept = [cell for cell in live if newest[cell.entry.key] is cell and not self._is_over(cell, now)]
        self._cells[: len(closed)] = kept

    def _is_over(self, cell: _Cell, now: float) -> bool:
        if cell.entry.value is not None:
            return False
        if cell.drop_at is None:
            cell.drop_at = now + self.settings.tombstone_s
        return now >= cell.drop_at

    def _complete_own(self, status: _Status) -> bool:
        own = [each for each in self._open if each.epoch is not None]
        for transaction in own:
            self._complete(transaction, status)
        return bool(own)

    def _complete(self, transaction: _Transaction, status: _Status) -> None:
        self._open.remove(transaction)
        transaction.status = status
        self.end += 1  # the marker
        if status is _Status.COMMITTED:
            self.dead_letters += transaction.dead_letters
            self.results += transaction.results
            at = len(self.history)
            self.history += [StateEntry(at + n, key, value) for n, (key, value) in enumerate(transaction.history)]
            if self.watcher is not None:
                written = self._cells[bisect_left(self._cells, transaction.first, key=_offset) :]
                own = [cell.entry for cell in written if cell.transaction is transaction]
                self.watcher(own, transaction.dead_letters, transaction.results, transaction.history)
        self.changed.notify_all()


def _bytes_of(letter: DeadLetter) -> int:
    parts = [letter.key, letter.value, *(content for _, content in letter.headers)]
    return sum(len(part) for part in parts if part is not None)


def _offset(cell: _Cell) -> int:
    return cell.entry.offset


class _Stage(Enum):
    NEW = 0
    FENCED = 1
    BUSY = 2
    DONE = 3


class MemoryPartitionWriter:
    """`ports.PartitionWriter` of one process."""

    def __init__(self, process: Process, partition: int, topic: StateTopicPartition) -> None:
        self._process = process
        self._partition = partition
        self._topic = topic
        self._stage = _Stage.NEW
        self._epoch = -1

    @property
    def value_max_bytes(self) -> int:
        return self._topic.settings.value_max_bytes

    @property
    def letter_max_bytes(self) -> int:
        return self._topic.settings.letter_max_bytes

    @property
    def result_max_bytes(self) -> int:
        return self._topic.settings.result_max_bytes

    async def fence(self, former: Sequence[Deployment] = ()) -> None:  # noqa: ARG002
        """Ignores `former`: all owners share one sequence of epochs."""
        self._enter(_Stage.NEW, "fenced")
        await self._process.step("fence", self._partition)
        self._epoch = self._topic.fence()
        await self._process.step("fence:done", self._partition)
        self._leave()

    async def write(
        self,
        entries: Entries,
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
        history: Entries = (),
    ) -> int:
        """A failure on the way closes this writer, and leaves the transaction in the state that it has reached."""
        if not entries:
            raise InvariantError("a transaction without entries")
        if results and not self.result_max_bytes:
            raise InvariantError("results without a results topic")
        self._enter(_Stage.FENCED, "written")
        await self._process.step("write", self._partition)
        taken = list(takewhile(self._fits, entries))
        transaction = self._topic.begin(self._epoch, taken, dead_letters, results, history)
        last = self._topic.end - 1
        if len(taken) < len(entries):
            raise SizeRefusedError(f"a value above {self.value_max_bytes} bytes")
        if any(
            _bytes_of(letter) > min(self.letter_max_bytes, self._topic.letter_takes_bytes) for letter in dead_letters
        ):
            raise SizeRefusedError("a dead letter larger than its topic accepts")
        if any(len(each.value) > min(self.result_max_bytes, self._topic.result_takes_bytes) for each in results):
            raise SizeRefusedError("a result larger than its topic accepts")
        await self._process.step("write:open", self._partition)
        self._topic.commit(transaction)
        await self._process.step("write:done", self._partition)
        self._leave()
        return last

    async def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
        now, patience_s = self._topic.clock.now, self._topic.settings.transaction_timeout_s + STALL_MARGIN_S
        give_up_at = now() + patience_s
        while position <= until:
            await self._process.step("read", self._partition)
            if self._stage is _Stage.DONE:
                raise LogError("read after close")
            found, after = self._topic.read(position, until, READ_MAX)
            if after > position:
                position, give_up_at = after, now() + patience_s
                if found:
                    yield found
            elif now() >= give_up_at:
                raise LogError(f"nothing to read at offset {position} for {patience_s:g} s")
            else:
                wake_at = min(give_up_at, self._topic.next_expiry() or give_up_at)
                await self._topic.changed.wait(wake_at - now())

    async def close(self) -> None:
        """Leaves an open transaction open, like a client that disconnects."""
        self._stage = _Stage.DONE
        with suppress(LogError):
            await self._process.step("close", self._partition)

    def _fits(self, entry: tuple[bytes, bytes | None]) -> bool:
        return len(entry[1] or b"") <= self.value_max_bytes

    def _enter(self, stage: _Stage, what: str) -> None:
        if self._stage is not stage:
            raise LogError(f"partition {self._partition} cannot be {what}: the writer is {self._stage.name.lower()}")
        self._stage = _Stage.BUSY

    def _leave(self) -> None:
        if self._stage is not _Stage.BUSY:
            raise LogError(f"the writer of partition {self._partition} was closed meanwhile")
        self._stage = _Stage.FENCED


class MemoryStateLog:
    """`ports.StateLog` of one process."""

    def __init__(self, process: Process, topic: Sequence[StateTopicPartition]) -> None:
        self._process = process
        self._topic = topic

    async def start(self) -> None:
        await self._process.step("start_states")

    @property
    def partitions(self) -> int:
        return len(self._topic)

    def partition(self, partition: int) -> MemoryPartitionWriter:
        return MemoryPartitionWriter(self._process, partition, self._topic[partition])

    async def newest(self) -> Mapping[int, Sequence[StateEntry]]:
        await self._process.step("newest")
        return {
            p: here.read(max(here.start, here.end - NEWEST), here.end, READ_MAX)[0]
            for p, here in enumerate(self._topic)
        }

    async def stop(self) -> None:
        await asyncio.sleep(0)
