"""Where records of an order must lie: the hashes of the clients, and what a refusal says."""

from zlib import crc32

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from worker.core.placing import EventKey, PartitionerName, Placing, murmur2, placing_of
from worker.errors import MalformedEventError

JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""Of the tests of Kafka's own client."""


@pytest.mark.parametrize("key", JAVA)
def test_murmur2_is_that_of_java(key: bytes) -> None:
    """The vectors of Kafka's own client, made positive by its mask."""
    assert murmur2(key) == JAVA[key] & 0x7FFFFFFF


@given(st.binary(min_size=1, max_size=40), st.integers(1, 50))
def test_murmur2_is_that_of_aiokafka(key: bytes, partitions: int) -> None:
    """Any key lies where the client's default partitioner puts it."""
    everywhere = list(range(partitions))
    assert Placing("murmur2").partition(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


def test_crc32_is_that_of_librdkafka() -> None:
    """Its `consistent` takes the plain CRC-32 of the key, unsigned, modulo the partitions."""
    assert crc32(b"123456789") == 0xCBF43926
    assert Placing("crc32").partition(b"123456789", 10) == 0xCBF43926 % 10


def test_nothing_is_checked_unless_it_is_set() -> None:
    """Without a partitioner there is no placing; with one there is."""
    assert placing_of("", "reference") is None
    assert placing_of("crc32", "reference") == Placing("crc32", "reference")


def refusal(placing: Placing, key: bytes, subject: str, partition: int, partitions: int) -> str:
    """What is said of a record that does not lie where it must."""
    with pytest.raises(MalformedEventError) as raised:
        placing.check(key, subject, partition, partitions)
    assert raised.value.reason == "wrong_partition"
    return raised.value.detail


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
@pytest.mark.parametrize(("event_key", "key"), [("subject", "acme/ñ/1"), ("reference", "ñ/1")])
def test_record_where_it_belongs(partitioner: PartitionerName, event_key: EventKey, key: str) -> None:
    """The right key in the right partition passes; in any other partition it does not, and both numbers are said."""
    placing = Placing(partitioner, event_key)
    place = placing.partition(key.encode(), 4)
    placing.check(key.encode(), "acme/ñ/1", place, 4)
    for other in {0, 1, 2, 3} - {place}:
        said = refusal(placing, key.encode(), "acme/ñ/1", other, 4)
        assert said.startswith(f"partition: expected {place} of 4, where {partitioner} puts the key, got {other}: ")


def test_cause_of_a_wrong_partition() -> None:
    """The other hash is blamed when it gives just this partition; otherwise nobody is by name."""
    key = next(key for n in range(100) if crc32(key := b"acme/%d" % n) % 7 != murmur2(key) % 7)
    by_murmur2, by_crc32 = murmur2(key) % 7, crc32(key) % 7
    assert "crc32 (librdkafka's default) puts it there" in refusal(Placing("murmur2"), key, key.decode(), by_crc32, 7)
    assert "murmur2 (Java's," in refusal(Placing("crc32"), key, key.decode(), by_murmur2, 7)
    neither = next(n for n in range(7) if n not in (by_murmur2, by_crc32))
    assert "a partitioner of its own" in refusal(Placing("murmur2"), key, key.decode(), neither, 7)


KEYS: list[tuple[EventKey, bytes, str]] = [
    ("subject", b"1", "got the order reference alone in partition 3: another producer writes other keys, or event_key"),
    ("reference", b"acme/1", "got the whole subject in partition 3: another producer writes other keys, or event_key"),
    ("subject", b'"acme/1"', "got it in quotes in partition 3: a producer serializes keys as JSON"),
    ("subject", b"ret-1", "got another key of 5 bytes in partition 3: another producer chooses keys in its own way"),
    ("subject", b"\xff", "got another key of 1 bytes in partition 3: another producer chooses keys in its own way"),
]


@pytest.mark.parametrize(("event_key", "key", "said"), KEYS)
def test_cause_of_a_wrong_key(event_key: EventKey, key: bytes, said: str) -> None:
    """A key that is not what `event_key` says is refused wherever it lies, and never quoted."""
    placing = Placing("murmur2", event_key)
    wanted = "acme/1" if event_key == "subject" else "1"
    place = placing.partition(wanted.encode(), 4)
    detail = refusal(placing, key, "acme/1", 3, 4)
    named = "subject" if event_key == "subject" else "order reference"
    assert detail.startswith(f"key: expected the {named}, which belongs in partition {place} of 4, {said}")
