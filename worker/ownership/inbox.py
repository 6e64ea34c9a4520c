"""Events that were fed to a partition and are not taken yet, bounded by what they take in memory."""

from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from worker.ports import InputRecord, size_of

_values = attrgetter("value")


class Inbox:
    """Records in the order of their offsets. Their size is kept by portion, as they were fed: to reckon that of each
    record again when it is taken would cost more than it tells.
    """

    def __init__(self) -> None:
        self.bytes = 0
        """Of all portions that are not taken to their end."""
        self._records: list[InputRecord] = []
        """A list, though it is taken from at its front: to take 64 of 10,000 from there moves 80 kB, and what is looked
        at ahead of a transaction is in the middle, to which a deque would have to count.
        """
        self._portions: deque[tuple[int, int]] = deque()
        """Offset of the last record, and bytes."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def next_offset(self) -> int:
        """Of the first record; there has to be one."""
        return self._records[0].offset

    def put(self, records: Sequence[InputRecord]) -> None:
        """One portion more; not empty."""
        size = size_of(records)
        self._records.extend(records)
        self._portions.append((records[-1].offset, size))
        self.bytes += size

    def first(self, count: int, bytes_max: int, behind: int = 0) -> list[InputRecord]:
        """The first records behind so many others; all stay. So many, or fewer when their values come to more than
        `bytes_max`, but one. There has to be one.
        """
        records = self._records[behind : behind + count]
        while len(records) > 1 and sum(map(len, filter(None, map(_values, records)))) > bytes_max:
            del records[len(records) // 2 :]
        return records

    def drop(self, count: int) -> None:
        """Forgets so many of the first records; there have to be as many."""
        if not count:
            return
        last, portions = self._records[count - 1].offset, self._portions
        del self._records[:count]
        while portions and portions[0][0] <= last:
            self.bytes -= portions.popleft()[1]

    def clear(self) -> None:
        """Forgets all of it."""
        self._records.clear()
        self._portions.clear()
        self.bytes = 0


class Peek:
    """An inbox from which nothing is taken: what is dropped here stays there."""

    def __init__(self, inbox: Inbox) -> None:
        self.taken = 0
        """Records that were dropped."""
        self._inbox = inbox

    def __bool__(self) -> bool:
        return len(self._inbox) > self.taken

    def first(self, count: int, bytes_max: int) -> list[InputRecord]:
        """As that of the inbox."""
        return self._inbox.first(count, bytes_max, self.taken)

    def drop(self, count: int) -> None:
        """They are not shown again."""
        self.taken += count
