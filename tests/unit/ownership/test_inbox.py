"""Events that wait for their partition's owner: lent in portions, dropped once they were taken."""

from msgspec import Struct

from worker.ownership.inbox import Inbox, Peek


class Record(Struct):
    """A record of the input."""

    offset: int
    value: bytes | None = b"1234567890"
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0


def filled(*sizes: int) -> Inbox:
    """One with a record of each of these sizes, fed one by one."""
    inbox = Inbox()
    for offset, size in enumerate(sizes):
        inbox.put([Record(offset, b"x" * size)])
    return inbox


def test_first_records_stay_until_they_are_dropped() -> None:
    """What is lent may be lent again; what was taken is not in it any more, nor do its bytes count."""
    inbox = Inbox()
    inbox.put([Record(0), Record(1)])
    size = inbox.bytes
    inbox.put([Record(2)])
    assert [record.offset for record in inbox.first(2, 1_000)] == [0, 1]
    assert [record.offset for record in inbox.first(9, 1_000)] == [0, 1, 2]
    inbox.drop(1)
    assert (len(inbox), inbox.next_offset) == (2, 1)
    assert inbox.bytes > size, "a portion counts until its last record is taken"
    inbox.drop(1)
    assert (len(inbox), inbox.next_offset) == (1, 2)
    assert inbox.bytes < size


def test_large_records_are_lent_few_at_a_time() -> None:
    """At most so many bytes, but always one record."""
    assert len(filled(40, 40, 40, 40).first(4, 100)) == 2
    assert len(filled(400, 40).first(4, 100)) == 1
    inbox = Inbox()
    inbox.put([Record(0, None), Record(1, None), Record(2, b"x" * 100)])
    assert len(inbox.first(9, 100)) == 3


def test_peek_takes_nothing() -> None:
    """What is dropped in it is only not shown again; what is fed meanwhile is seen."""
    inbox = filled(10, 10, 10)
    size, peek = inbox.bytes, Peek(inbox)
    assert [record.offset for record in peek.first(2, 1_000)] == [0, 1]
    peek.drop(2)
    assert [record.offset for record in peek.first(2, 1_000)] == [2]
    peek.drop(1)
    assert (bool(peek), peek.taken) == (False, 3)
    inbox.put([Record(3)])
    assert [record.offset for record in peek.first(2, 1_000)] == [3]
    assert (len(inbox), inbox.next_offset) == (4, 0)
    assert inbox.bytes > size
