"""Events that were fed to a partition and are not taken yet, bounded by what they take in memory."""

from collections import deque
from collections.abc import Sequence

from worker.ports import InputRecord, size_of


class Inbox:
    """Records in the order of their offsets. Their size is kept by portion, as they were fed: to reckon that of each
    record again when it is taken would cost more than it tells.
    """

    def __init__(self) -> None:
        self.bytes = 0
        """Of all portions that are not taken to their end."""
        self._records: deque[InputRecord] = deque()
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

    def pop(self) -> InputRecord:
        """The first record; there has to be one."""
        record = self._records.popleft()
        if record.offset == self._portions[0][0]:
            self.bytes -= self._portions.popleft()[1]
        return record

    def clear(self) -> None:
        """Forgets all of it."""
        self._records.clear()
        self._portions.clear()
        self.bytes = 0
