"""The position of a partition in its input: what was fed, what was committed, and what is to come next."""

from collections.abc import Sequence
from zlib import crc32

from schemas.state import Taken
from worker.ownership.context import BatchLimits
from worker.ownership.inbox import Inbox
from worker.ports import InputRecord, UndecodableRecord, after


def taken(record: InputRecord) -> Taken:
    """What a record is known by."""
    return Taken(record.offset, record.timestamp, crc32(record.key or b""))


class AnotherTopicError(Exception):
    """The input does not hold the record that was taken last."""


class Position:
    """Between the poll loop, which feeds it, and the owner, which takes from the inbox and commits."""

    def __init__(self, limits: BatchLimits) -> None:
        self.inbox = Inbox()
        self.next_offset = 0
        """The next input offset that is not committed; what is no record is passed without a commit of its own."""
        self.wanted_offset = 0
        """The next input offset that was not fed."""
        self.taken: Taken | None = None
        """Of the last record in the state."""
        self._expected: Taken | None = None
        """What the input is to begin with: the record that was taken last. `None`: that was seen, or cannot be."""
        self._limits = limits

    def begin(self) -> int:
        """From which offset on the input is to be read: that of the record that was taken last, to see it again."""
        self.wanted_offset = self.next_offset
        if self.taken is not None and self.taken.offset < self.next_offset:
            self._expected = self.taken
            self.wanted_offset = self.taken.offset
        return self.wanted_offset

    def feed(self, records: Sequence[InputRecord]) -> bool:
        """Takes records, in the order of their offsets; whether any are left after the first check. Raises
        `AnotherTopicError` once.
        """
        if self._expected is not None and not (records := self._checked(records, self._expected)):
            return False
        self.inbox.put(records)
        self.wanted_offset = after(records[-1])
        return True

    def _checked(self, records: Sequence[InputRecord], expected: Taken) -> Sequence[InputRecord]:
        """What is to be taken of the first records, once the one that was taken last is found among them again."""
        self._expected = None
        self.wanted_offset = self.next_offset
        first = records[0]
        is_legible = type(first) is not UndecodableRecord  # what is damaged now tells nothing of what it was
        if is_legible and first.offset == expected.offset and taken(first) != expected:
            raise AnotherTopicError(
                f"the event topic is another one: offset {expected.offset} does not hold the record that was taken "
                "there. It was deleted and made again, or copied. `input skip` goes on with it from any offset"
            )
        return [record for record in records if after(record) > self.next_offset]

    def give_up_check(self) -> bool:
        """Retention has removed the record that was to be seen again (false: none was): the input goes on behind it."""
        was_expected, self._expected = self._expected is not None, None
        if was_expected:
            self.wanted_offset = self.next_offset
        return was_expected

    def passed(self, position: int) -> None:
        """Below this offset the input has no record that was not fed: only markers of the shop's transactions, and what
        was aborted. Left behind, they would be taken for a gap once retention has removed them.
        """
        self.wanted_offset = max(self.wanted_offset, position)

    def skip_markers(self) -> None:
        """Goes over what is no record, unless records before it are still to be taken. Not while a transaction is under
        way: it has taken some of them, and would set the position back.
        """
        if not self.inbox:
            self.next_offset = max(self.next_offset, self.wanted_offset)

    def note_taken(self, last: InputRecord | None) -> None:
        """The transaction in the making ends with this record; `None`: it has none that can be known again."""
        if last is not None:
            self.taken = taken(last)

    def forget_taken(self) -> None:
        """The position is moved: another record will be the last one."""
        self.taken = self._expected = None

    def move(self, offset: int) -> None:
        """What was fed from the old position is nothing any more."""
        self.inbox.clear()
        self.next_offset = self.wanted_offset = offset

    def drop_inbox(self) -> None:
        """Takes nothing more of what was fed: the next owner does."""
        if self.inbox:
            self.wanted_offset = self.inbox.next_offset
            self.inbox.clear()

    def fills_batch(self) -> bool:
        """Whether the inbox holds what goes into one transaction."""
        limits = self._limits
        return len(self.inbox) >= limits.batch_records_max or self.inbox.bytes >= limits.batch_bytes_max

    def fills(self, part: float) -> bool:
        """Whether the inbox holds more than this part of what it may."""
        limits = self._limits
        return len(self.inbox) > limits.inbox_records_max * part or self.inbox.bytes > limits.inbox_bytes_max * part
