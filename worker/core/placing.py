"""Where a record of an order must lie: the partition that the shop's partitioner gives its key. Pure.

Two producers with different partitioners, or with different keys for one order, tear it apart: each half is an order of
its own to whoever reads one partition, and nobody else would notice.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import iter_unpack
from typing import Literal
from zlib import crc32

from msgspec import Struct

from worker.errors import MalformedEventError

PartitionerName = Literal["murmur2", "crc32"]
EventKey = Literal["subject", "reference"]


def placing_of(partitioner: PartitionerName | Literal[""], event_key: EventKey) -> "Placing | None":
    """`None` when no partitioner is set: then nothing is checked."""
    return Placing(partitioner, event_key) if partitioner else None


_M32 = 0xFFFFFFFF
_MURMUR_M = 0x5BD1E995
_MURMUR_SEED = 0x9747B28C


@lru_cache(maxsize=4096)  # 3 µs; the events of an order mostly come close together
def murmur2(key: bytes) -> int:
    """The hash of Java's default partitioner (and of aiokafka and kafka-python), made positive as it does that."""
    size = len(key)
    h = _MURMUR_SEED ^ size
    for (word,) in iter_unpack("<I", key[: size & ~3]):
        k = word * _MURMUR_M & _M32
        k ^= k >> 24
        h = (h * _MURMUR_M & _M32) ^ (k * _MURMUR_M & _M32)
    if size & 3:
        h = (h ^ int.from_bytes(key[size & ~3 :], "little")) * _MURMUR_M & _M32
    h ^= h >> 13
    h = h * _MURMUR_M & _M32
    return (h ^ h >> 15) & 0x7FFFFFFF


_HASHES: Mapping[str, Callable[[bytes], int]] = {"murmur2": murmur2, "crc32": crc32}
_WRITERS = {"murmur2": "Java's, aiokafka's or kafka-python's default", "crc32": "librdkafka's default"}


class Placing(Struct, frozen=True):
    """How the shop's producers choose key and partition (`[kafka] partitioner`, `event_key`)."""

    partitioner: PartitionerName
    event_key: EventKey = "subject"

    def partition(self, key: bytes, partitions: int) -> int:
        """The partition of a key."""
        return _HASHES[self.partitioner](key) % partitions

    def key_of(self, subject: str) -> bytes:
        """The key of an order's records."""
        return (subject if self.event_key == "subject" else subject.partition("/")[2]).encode()

    def check(self, key: bytes, subject: str, partition: int, partitions: int) -> None:
        """Raises `MalformedEventError` for a record of an order that has another key or lies elsewhere."""
        reference = subject.partition("/")[2]
        other = reference if self.event_key == "subject" else subject
        right_key = self.key_of(subject)
        place = self.partition(right_key, partitions)
        if key == right_key:
            if place == partition:
                return
            raise _refused(
                f"partition: expected {place} of {partitions}, where {self.partitioner} puts the key, got {partition}: "
                f"{self._cause(key, partition, partitions)}"
            )
        got, cause = f"another key of {len(key)} bytes", "another producer chooses keys in its own way"
        if key == other.encode():
            got = "the order reference alone" if self.event_key == "subject" else "the whole subject"
            cause = "another producer writes other keys, or event_key is to be the other one"
        elif key.strip(b'"') == right_key:
            got, cause = "it in quotes", "a producer serializes keys as JSON"
        raise _refused(
            f"key: expected the {'subject' if self.event_key == 'subject' else 'order reference'}, which belongs in "
            f"partition {place} of {partitions}, got {got} in partition {partition}: {cause}"
        )

    def _cause(self, key: bytes, partition: int, partitions: int) -> str:
        for name, digest in _HASHES.items():
            if name != self.partitioner and digest(key) % partitions == partition:
                return f"{name} ({_WRITERS[name]}) puts it there, so a producer may have another partitioner"
        return "a producer has a partitioner of its own, or the topic had another number of partitions then"


def _refused(detail: str) -> MalformedEventError:
    return MalformedEventError("wrong_partition", detail)
