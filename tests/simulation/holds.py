"""A worker's holds on the state log, under watch: what it has seen committed, and from when it may send."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

from schemas import state
from worker.ports import DeadLetter, PartitionWriter, Result, StateEntry, StateLog

ORDER_PREFIX = state.ORDER_PREFIX.encode()
ACCOUNT_PREFIX = state.ACCOUNT_PREFIX.encode()


class Watcher(Protocol):
    """Who wants to know."""

    def now(self) -> float:
        """True seconds."""
        ...

    def held_by(self, hold: "AuditedPartition") -> None:
        """A process has a new hold on a partition."""
        ...


class AuditedPartition:
    """`ports.PartitionWriter` that remembers what its process knows: commits that returned, records that were read."""

    def __init__(
        self, process: str, number: int, hold: PartitionWriter, view: dict[str, bytes], watcher: Watcher
    ) -> None:
        self.process = process
        self.number = number
        self.view = view
        self.leased_from = float("-inf")
        """True seconds of the beginning of its last commit of `m:next` that succeeded."""
        self.is_over = False
        """`m:next` says that it left in order, or it was closed."""
        self._hold = hold
        self._watcher = watcher

    @property
    def value_max_bytes(self) -> int:
        """The largest value."""
        return self._hold.value_max_bytes

    async def fence(self, former: Sequence[state.Deployment] = ()) -> None:
        """Takes ownership."""
        await self._hold.fence(former)
        self._watcher.held_by(self)

    async def write(
        self,
        entries: Sequence[tuple[bytes, bytes | None]],
        dead_letters: Sequence[DeadLetter] = (),
        results: Sequence[Result] = (),
        history: Sequence[tuple[bytes, bytes | None]] = (),
    ) -> int:
        """One transaction."""
        began = self._watcher.now()
        last = await self._hold.write(entries, dead_letters, results, history)
        for key, value in entries:
            self._saw(key, value)
            if key == state.NEXT_KEY and value is not None:
                self.leased_from = began
                self.is_over = state.decode_next(value).clean
        return last

    @property
    def letter_max_bytes(self) -> int:
        """Passes on."""
        return self._hold.letter_max_bytes

    @property
    def result_max_bytes(self) -> int:
        """Passes on."""
        return self._hold.result_max_bytes

    async def read(self, position: int, until: int) -> AsyncIterator[list[StateEntry]]:
        """Committed entries."""
        async for entries in self._hold.read(position, until):
            for entry in entries:
                self._saw(entry.key, entry.value)
            yield entries

    def _saw(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        if key.startswith(ORDER_PREFIX):
            self.view[key[2:].decode()] = value
        elif key.startswith(ACCOUNT_PREFIX):
            self.view[key.decode()] = value  # no subject is like that: it has a slash

    async def close(self) -> None:
        """Lets go."""
        self.is_over = True
        await self._hold.close()


class AuditedStateLog:
    """`ports.StateLog` of one process."""

    def __init__(self, process: str, states: StateLog, watcher: Watcher) -> None:
        self._process = process
        self._states = states
        self._watcher = watcher
        self._views: list[dict[str, bytes]] = [{} for _ in range(states.partitions)]

    async def start(self) -> None:
        """Passes on."""
        await self._states.start()

    @property
    def partitions(self) -> int:
        """Passes on."""
        return self._states.partitions

    def partition(self, partition: int) -> PartitionWriter:
        """A new hold, under watch."""
        hold = self._states.partition(partition)
        return AuditedPartition(self._process, partition, hold, self._views[partition], self._watcher)

    def knows(self, partition: int, orders: Iterable[tuple[str, bytes]]) -> None:
        """The process has these from its disk."""
        self._views[partition] |= dict(orders)

    async def newest(self) -> Mapping[int, Sequence[StateEntry]]:
        """Passes on."""
        return await self._states.newest()

    async def stop(self) -> None:
        """Passes on."""
        await self._states.stop()
