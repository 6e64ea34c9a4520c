"""`ports.StateScan` of the state topic in memory."""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence

from schemas.state import ORDER_PREFIX
from worker.ports import StateEntry
from worker.sim.states import READ_MAX, StateTopicPartition

_PREFIX = ORDER_PREFIX.encode()


class MemoryStateScan:
    """What is committed, as a reader sees it that owns nothing."""

    def __init__(self, topic: Sequence[StateTopicPartition], wanted: Callable[[str], bool]) -> None:
        self._topic = topic
        self._wanted = wanted
        self._ends: dict[int, int] = {}

    async def start(self) -> None:
        """Nothing to look at."""

    @property
    def partitions(self) -> int:
        """How many there are."""
        return len(self._topic)

    async def orders(self, partition: int) -> AsyncGenerator[tuple[str, bytes], None]:
        """Each order once; all at once is bounded enough here."""
        self._ends[partition] = self._topic[partition].stable()
        for subject, value in self._newest(partition, 0).items():
            if value is not None:
                yield subject, value

    async def changed(self, partition: int, subjects: Collection[str]) -> dict[str, bytes | None]:
        """What was written since."""
        newest = self._newest(partition, self._ends[partition])
        return {subject: newest[subject] for subject in subjects if subject in newest}

    def _newest(self, partition: int, position: int) -> dict[str, bytes | None]:
        here, found = self._topic[partition], list[StateEntry]()
        end = here.stable()
        while position < end:
            entries, position = here.read(position, end, READ_MAX)
            found += entries
        orders = [entry for entry in found if entry.key.startswith(_PREFIX)]
        told = {entry.key[len(_PREFIX) :].decode(): entry.value for entry in orders}
        return {subject: value for subject, value in told.items() if self._wanted(subject)}
