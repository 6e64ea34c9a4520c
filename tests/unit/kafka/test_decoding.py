"""Whatever bytes a producer writes become records or are named, in memory that is bounded."""

import gzip
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.batches import CODECS, ENCODE, HEADER_BYTES, NOW_MS, Written, batch, sealed
from worker.kafka import decoding
from worker.kafka.decoding import (
    BATCH_MAX_BYTES,
    CHECKSUM_FETCHES_MAX,
    HEADERS_MAX,
    POLL_MAX_BYTES,
    BatchTooLargeError,
    Intake,
    salvaged,
)
from worker.ports import UndecodableRecord, after

HERE = TopicPartition("in", 0)
DECODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": decoding.gzip_decode,
    "snappy": decoding.snappy_decode,
    "lz4": decoding.lz4_decode,
    "zstd": decoding.zstd_decode,
}


def fetched(*batches: bytes, offset: int = 0, intake: Any = None) -> Any:
    """What the library's fetcher makes of a fetch for a consumer of ours."""
    records = fetcher.MemoryRecords(b"".join(batches))
    return fetcher.PartitionRecords(HERE, records, [], offset, intake or Intake(), None, True, fetcher.READ_COMMITTED)


def plain(count: int, value: bytes = b"v") -> list[Written]:
    """So many good records."""
    return [(b"k%d" % number, value, [("h", b"x"), ("null", None)]) for number in range(count)]


def seen(records: Iterator[Any]) -> list[tuple[int, int, bytes | None, bytes | None, list[Any]]]:
    """What matters of records."""
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


# --- codecs ---


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [0, 1, 70_000, 3 * 2**20])
def test_codecs_as_the_library(name: str, size: int) -> None:
    """Ours give back what was compressed, as the library's do."""
    plain_text = bytes(range(256)) * (size // 256 + 1)
    assert DECODE[name](ENCODE[name](plain_text[:size])) == plain_text[:size]


@pytest.mark.parametrize("name", CODECS)
def test_codecs_stop_at_the_limit(name: str) -> None:
    """What comes out larger than it may is refused, and what it begins with is handed on, within the limit."""
    bomb = ENCODE[name](bytes(BATCH_MAX_BYTES + 1))
    assert len(bomb) < BATCH_MAX_BYTES / 10
    with pytest.raises(BatchTooLargeError) as caught:
        DECODE[name](bomb)
    assert BATCH_MAX_BYTES - 2**16 <= len(caught.value.begun) <= BATCH_MAX_BYTES
    assert not any(caught.value.begun[:1000])


def test_codecs_take_the_limit() -> None:
    """A batch of just the limit is taken."""
    assert len(decoding.zstd_decode(codec.zstd_encode(bytes(BATCH_MAX_BYTES)))) == BATCH_MAX_BYTES


def test_frames_without_a_size_and_several_of_them() -> None:
    """The size need not stand in a frame, and there may be more than one: Java writes such."""
    compressor = cramjam.zstd.Compressor()
    compressor.compress(b"one")
    streamed = bytes(compressor.finish())
    assert decoding.zstd_decode(streamed + codec.zstd_encode(b"two")) == b"onetwo"
    assert decoding.gzip_decode(gzip.compress(b"one") + gzip.compress(b"two") + b"\0\0") == b"onetwo"
    assert decoding.snappy_decode(bytes(cramjam.snappy.compress_raw(b"one"))) == b"one"


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("cut", [3, 20])
def test_codecs_refuse_nonsense(name: str, cut: int) -> None:
    """Cut or foreign bytes raise, and never anything but an `Exception`."""
    for nonsense in (ENCODE[name](bytes(range(200)) * 5)[:-cut], b"\xff" * 30, b"\x82SNAPPY\x00" + b"\xff" * 30):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each codec has its own
            DECODE[name](nonsense)


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=200))
def test_codecs_survive_anything(name: str, data: bytes) -> None:
    """Any bytes at all: a result or an `Exception`."""
    with suppress(Exception):
        assert isinstance(DECODE[name](data), bytes)


# --- good batches ---


@pytest.mark.parametrize("name", ["", *CODECS])
def test_records_as_written(name: str) -> None:
    """A good batch gives its records, whatever it is compressed with, from the offset that was asked for."""
    found = seen(fetched(batch(*plain(4), base=10, name=name), offset=11))
    headers = [("h", b"x"), ("null", None)]
    assert found == [(10 + n, NOW_MS + n, b"k%d" % n, b"v", headers) for n in (1, 2, 3)]


@pytest.mark.parametrize("name", ["", *CODECS])
def test_taken_apart_as_the_library_does(name: str) -> None:
    """The parser for what the library refuses gives the same records as the library where it does not refuse."""
    written: list[Written] = [*plain(3), (None, None, []), (b"", b"", [("", b"")])]
    raw = batch(*written, base=2**40, name=name)
    assert seen(salvaged(raw, 0)) == seen(fetched(raw, offset=2**40))


@given(st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=300)), max_size=5))
def test_taken_apart_property(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    """The same for any keys and values."""
    raw = batch(*((key, value, [("é", key)]) for key, value in pairs), (b"k", b"v", []))
    assert seen(salvaged(raw, 0)) == seen(fetched(raw))


def test_append_time() -> None:
    """Where the broker sets the time, every record of a batch has the batch's."""
    raw = bytearray(batch(*plain(3)))
    struct.pack_into(">h", raw, 21, 0x08)
    stamped = sealed(raw[:HEADER_BYTES], bytes(raw[HEADER_BYTES:]), 0, "")
    assert {record.timestamp for record in salvaged(stamped, 0)} == {NOW_MS + 2}
    assert seen(salvaged(stamped, 0)) == seen(fetched(stamped))


def test_large_batch_is_taken() -> None:
    """A batch that comes out large, but not too large, gives all of its records."""
    records = plain(3, bytes(2 * 2**20))
    raw = batch(*records, base=5, name="zstd")
    found = seen(fetched(raw, offset=5))
    assert [(offset, len(value or b"")) for offset, _, _, value, _ in found] == [(5 + n, 2 * 2**20) for n in range(3)]


def test_consumers_of_others_are_as_they_were() -> None:
    """Who is not given an `Intake` gets the library's `ConsumerRecord`."""
    records = fetcher.PartitionRecords(HERE, fetcher.MemoryRecords(batch(*plain(1))), [], 0, None, None, True, 0)
    assert [type(record).__name__ for record in records] == ["ConsumerRecord"]


def test_old_format() -> None:
    """Batches of the formats before transactions, which brokers may still have on their disks, are read."""
    builder = LegacyRecordBatchBuilder(1, 0, 10_000)
    builder.append(0, NOW_MS, b"k", b"v")
    assert seen(fetched(bytes(builder.build()))) == [(0, NOW_MS, b"k", b"v", [])]


# --- what cannot be decoded ---


def poison(name: str = "", base: int = 0) -> bytes:
    """Three records, the middle one with a header name that is not UTF-8."""
    records: list[Written] = [(b"a", b"1", []), (b"b", b"2", [("good", b"x"), ("abcd", b"y")]), (b"c", b"3", [])]
    return batch(*records, base=base, name=name, change=lambda body: body.replace(b"abcd", b"a\xff\xfed"))


@pytest.mark.parametrize("name", ["", *CODECS])
def test_header_name(name: str) -> None:
    """A header name that is not UTF-8 costs one record, of which everything is kept; those around it are taken."""
    records = fetched(poison(name, base=7), batch(*plain(1), base=10), offset=7)
    one, two, three, four = list(records)
    assert [one.offset, three.offset, four.offset, records.next_fetch_offset] == [7, 9, 10, 11]
    assert type(two) is UndecodableRecord
    assert (two.offset, two.last_offset, two.key, two.value, two.is_batch) == (8, 8, b"b", b"2", False)
    assert two.headers == [("good", b"x"), ("a\ufffd\ufffdd", b"y")]
    assert two.names == [b"a\xff\xfed"]
    assert two.detail == "headers: expected a header name in UTF-8, number 2 is not"


def test_many_headers() -> None:
    """A record with more headers than anybody has is named, however large they would become in memory."""
    record = next(iter(fetched(batch((b"k", bytes(2**22), [("", None)] * (HEADERS_MAX + 1)), name="zstd"))))
    assert type(record) is UndecodableRecord
    assert record.detail == f"headers: expected at most {HEADERS_MAX} headers, got {HEADERS_MAX + 1}"
    assert record.headers == []


@pytest.mark.parametrize("name", CODECS)
def test_bomb(name: str) -> None:
    """Of a batch that comes out too large, the records that fit are taken, the others are named, and it goes on."""
    part = BATCH_MAX_BYTES // 4
    raw = batch(*plain(6, bytes(part)), base=3, name=name)
    records = fetched(raw, batch(*plain(1), base=9), offset=3)
    found = list(records)
    assert [record.offset for record in found] == [3, 4, 5, 6, 9]
    assert [len(record.value) for record in found[:3]] == [part] * 3
    refused = found[3]
    assert (refused.offset, refused.last_offset, refused.is_batch, refused.value) == (6, 8, True, raw)
    assert refused.detail == (
        f"batch: expected at most {BATCH_MAX_BYTES} bytes when decompressed, got more, {len(raw)} bytes in Kafka"
    )
    assert records.next_fetch_offset == 10


@pytest.mark.parametrize("name", CODECS)
def test_batch_that_is_not_what_it_says(name: str) -> None:
    """A batch whose codec cannot read it is named as a whole."""
    raw = bytearray(batch(*plain(3), base=3))
    struct.pack_into(">h", raw, 21, CODECS[name])
    damaged = sealed(raw[:HEADER_BYTES], b"\x01nonsense", 3, "")
    damaged = damaged[:21] + struct.pack(">h", CODECS[name]) + damaged[23:]
    struct.pack_into(">I", whole := bytearray(damaged), 17, calc_crc32c(damaged[21:]))
    [record] = list(fetched(bytes(whole), offset=4))
    assert type(record) is UndecodableRecord
    assert (record.offset, record.last_offset, record.is_batch) == (4, 5, True)
    assert record.detail.startswith(f"batch: expected {name}, got something else")


def test_unknown_codec() -> None:
    """So is one of a codec that nobody knows."""
    raw = bytearray(batch(*plain(2)))
    struct.pack_into(">h", raw, 21, 7)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    [record] = list(fetched(bytes(raw)))
    assert record.detail.startswith("batch: expected a codec from 1 to 4, got 7")


def test_structure_is_lost() -> None:
    """From where a record says that it is longer than its batch, the rest is named."""

    def cut(body: bytes) -> bytes:
        return body[:-1]

    records = fetched(batch(*plain(3), change=cut))
    found = list(records)
    assert [record.offset for record in found] == [0, 1, 2]
    assert [type(record) is UndecodableRecord for record in found] == [False, False, True]
    assert found[2].detail.startswith("batch: expected records, got other bytes")
    assert records.next_fetch_offset == 3


@pytest.mark.parametrize("delta", [5, -1, 0, 2**30])
def test_offsets_outside_of_their_batch(delta: int) -> None:
    """A record that claims an offset of another one, or beyond its batch, moves no position: the rest is named."""
    twice = batch(*plain(2), base=10)

    def change(body: bytes) -> bytes:
        size = body[0] >> 1
        second = bytearray(body[size + 1 :])
        encoded = (delta << 1) ^ (delta >> 31)
        number = bytearray()
        while encoded > 0x7F:
            number.append(encoded & 0x7F | 0x80)
            encoded >>= 7
        number.append(encoded)
        assert second[3] == 2  # 1, its own
        second[3:4] = number
        second[0] += (len(number) - 1) << 1
        return body[: size + 1] + bytes(second)

    raw = sealed(bytearray(twice[:HEADER_BYTES]), change(twice[HEADER_BYTES:]), 10, "")
    records = fetched(raw, batch(*plain(1), base=12), offset=10)
    good, refused, last = list(records)
    assert [(good.offset, refused.offset, refused.last_offset, last.offset)] == [(10, 11, 11, 12)]
    assert refused.detail.startswith("batch: expected ascending offsets")
    assert records.next_fetch_offset == 13


@given(st.data())
def test_any_byte_may_be_wrong(data: st.DataObject) -> None:
    """Whatever the records of a batch are changed into, offsets come in order, none twice, and the end is reached."""
    good = batch(*plain(4))
    body = bytearray(good[HEADER_BYTES:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    records = fetched(sealed(bytearray(good[:HEADER_BYTES]), bytes(body), 0, ""), batch(*plain(1), base=4))
    position = 0
    for record in records:
        assert record.offset >= position
        position = after(record)
    assert (position, records.next_fetch_offset) == (5, 5)


def test_wrong_checksum() -> None:
    """A wrong checksum is fetched again, for the wire may be to blame; what stays wrong is named, and it goes on."""
    damaged = bytearray(batch(*plain(2), base=4))
    damaged[-1] ^= 1
    intake = Intake()
    for _ in range(CHECKSUM_FETCHES_MAX - 1):
        records = fetched(bytes(damaged), batch(*plain(1), base=6), offset=4, intake=intake)
        assert list(records) == []
        assert records.next_fetch_offset == 4
    records = fetched(bytes(damaged), batch(*plain(1), base=6), offset=4, intake=intake)
    refused, good = list(records)
    assert (refused.offset, refused.last_offset, good.offset) == (4, 5, 6)
    assert refused.detail.startswith("batch: expected its checksum")


# --- how much at once ---


async def test_a_poll_is_bounded_in_bytes() -> None:
    """A fetch of many large records is handed out in parts, none lost, none twice."""
    size = 2**20
    count = 3 * POLL_MAX_BYTES // size
    records = fetched(*(batch(*plain(1, bytes(size)), base=n, name="zstd") for n in range(count)))
    assignment = Assignment({HERE})
    assignment.state_value(HERE).seek(0)
    result = fetcher.FetchResult(HERE, assignment=assignment, partition_records=records, backoff=0)
    polls = []
    while result.has_more():
        polls.append([record.offset for record in result.getall(2_000)])
        assert assignment.state_value(HERE).position == (polls[-1][-1] + 1 if polls[-1] else count)
    assert [offset for poll in polls for offset in poll] == list(range(count))
    assert max(map(len, polls)) * size <= POLL_MAX_BYTES


async def test_a_poll_is_bounded_in_records() -> None:
    """The number asked for is kept to."""
    records = fetched(batch(*plain(5)))
    assignment = Assignment({HERE})
    assignment.state_value(HERE).seek(0)
    result = fetcher.FetchResult(HERE, assignment=assignment, partition_records=records, backoff=0)
    assert [len(result.getall(2)) for _ in range(3)] == [2, 2, 1]


async def test_paused_partition_gives_nothing() -> None:
    """What was fetched of a partition that is paused now is thrown away, as the library does."""
    assignment = Assignment({HERE})
    assignment.state_value(HERE).seek(0)
    assignment.state_value(HERE).pause()
    records = fetched(batch(*plain(5)))
    result = fetcher.FetchResult(HERE, assignment=assignment, partition_records=records, backoff=0)
    assert result.getall(2) == []
    assert not result.has_more()


# --- what is replaced ---


def test_what_is_replaced_is_there() -> None:
    """The names that are replaced in the library are the ones that it uses."""
    assert [getattr(fetcher, name).__module__ for name in decoding.REPLACED] == [decoding.__name__] * 3
    held = {
        module.__name__: [name for name in decoding.REPLACED_CODECS if hasattr(module, name)]
        for module in decoding.CODEC_MODULES
    }
    both, three = list(decoding.REPLACED_CODECS), list(decoding.REPLACED_CODECS[:3])
    assert list(held.values()) == [both, three, both, three]
    for module in decoding.CODEC_MODULES:
        for name in held[module.__name__]:
            assert getattr(module, name) is getattr(decoding, name)
