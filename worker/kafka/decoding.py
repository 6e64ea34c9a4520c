"""Decodes fetched batches within bounds: no batch makes a poll fail, and none takes more memory than allowed.

The library decompresses a whole batch, however large it gets (13 kB became 1.7 GB), and raises for all partitions
together if a single record cannot be decoded: a header name that is not UTF-8 is enough, and any C, Go or Rust client
can write one. So importing this module replaces five parts of aiokafka 0.14.0; a contract test pins each of them:

* its codecs, with ones that stop at `BATCH_MAX_BYTES` (for every consumer of this process);
* `MemoryRecords`, `PartitionRecords` and `FetchResult` of its fetcher, for consumers that pass an `Intake` as their
  `key_deserializer`. They get the library's decoded records without a `ConsumerRecord` for each, an `UndecodableRecord`
  in place of one that cannot be decoded, and a bounded number of bytes per poll.

The library's compiled code decodes the batches. Only batches that it rejects, or that decompress to more than
`_COMPILED_MAX_BYTES`, are parsed here: a header can take as little as two bytes, and its tuple thirty times as much.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.record import _crecords, default_records, legacy_records
from aiokafka.record.memory_records import MemoryRecords
from msgspec import Struct

from worker.ports import InputRecord, UndecodableRecord, after, size_of

__all__ = [
    "BATCH_MAX_BYTES",
    "HEADERS_MAX",
    "POLL_MAX_BYTES",
    "BatchTooLargeError",
    "Intake",
    "salvaged",
    "undecodable",
]

BATCH_MAX_BYTES = 64 * 2**20
"""The limit for a decompressed batch. Producers write batches of up to 1 MiB, compressed."""
POLL_MAX_BYTES = 8 * 2**20
"""The limit for one poll of a partition; exceeded by at most one batch, whatever its size."""
HEADERS_MAX = 1_000
"""The limit for one record."""
CHECKSUM_FETCHES_MAX = 3
"""How often a batch with a wrong checksum is fetched before we conclude that it is corrupt on the broker's disk."""

_COMPILED_MAX_BYTES = 4 * 2**20
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH = struct.Struct(">i")
_LENGTH_AT, _LENGTH_END = 8, 12
_CODEC_MASK, _LOG_APPEND_TIME = 0x07, 0x08
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_GZIP_WINDOW = 31


class BatchTooLargeError(Exception):
    """A batch decompresses to more than the limit; `begun` is its decompressed beginning."""

    def __init__(self, max_bytes: int, begun: bytes) -> None:
        super().__init__(f"a batch of more than {max_bytes} bytes")
        self.begun = begun


class Record(Struct, frozen=True, gc=False):
    """An `InputRecord` of a batch that was parsed here."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, Any]]


# --- codecs ------------------------------------------------------------------------------------------------------


class _Bounds:
    """The limit for the current decompression, a global because the library decompresses deep within its iterator."""

    def __init__(self) -> None:
        self.max_bytes = BATCH_MAX_BYTES
        self.scratch = mmap.mmap(-1, BATCH_MAX_BYTES)
        """Pages that were never written take no memory."""
        self.size = 0
        """The size of the last decompressed batch."""


_bounds = _Bounds()


def _into_scratch(decompress_into: Callable[[Any, Any], int], payload: Any) -> bytes:
    """Decompresses into a bounded buffer: a frame may lack its size, or give a wrong one."""
    size = _bounds.max_bytes
    try:
        with memoryview(_bounds.scratch) as whole, whole[:size] as room:
            try:
                size = decompress_into(payload, room)
            except cramjam.DecompressionError as error:
                if "write" not in str(error):
                    raise
                raise BatchTooLargeError(size, bytes(room)) from None
            return bytes(room[:size])
    finally:
        if size > _COMPILED_MAX_BYTES:
            _bounds.scratch.madvise(mmap.MADV_DONTNEED)


def zstd_decode(payload: Any) -> bytes:
    """Decompresses zstd frames."""
    return _measured(_into_scratch(cramjam.zstd.decompress_into, payload))


def lz4_decode(payload: Any) -> bytes:
    """Decompresses LZ4 frames."""
    return _measured(_into_scratch(cramjam.lz4.decompress_into, payload))


def gzip_decode(payload: Any) -> bytes:
    """Decompresses gzip, with one or more members."""
    max_bytes = _bounds.max_bytes
    left, parts, size = bytes(payload), [], 0
    while left:
        member = zlib.decompressobj(_GZIP_WINDOW)
        parts.append(member.decompress(left, max_bytes - size + 1))
        size += len(parts[-1])
        if size > max_bytes:
            raise BatchTooLargeError(max_bytes, b"".join(parts)[:max_bytes])
        if not member.eof:
            raise EOFError("gzip ends in the middle")
        left = member.unused_data.lstrip(b"\0")
    return _measured(b"".join(parts))


def snappy_decode(payload: Any) -> bytes:
    """Decompresses snappy, as one block or in the framing of Java clients."""
    max_bytes = _bounds.max_bytes
    data = memoryview(payload)
    if data[: len(_XERIAL)] != _XERIAL or len(data) < _XERIAL_HEADER_BYTES:
        return _measured(_snappy_block(data, max_bytes, b""))
    at, parts, size = _XERIAL_HEADER_BYTES, [], 0
    while at < len(data):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(data, at)[0]
        if not begin < at <= len(data):
            raise ValueError("a snappy block ends outside of its batch")
        try:
            parts.append(_snappy_block(data[begin:at], max_bytes - size, b""))
        except BatchTooLargeError:
            raise BatchTooLargeError(max_bytes, b"".join(parts)) from None
        size += len(parts[-1])
    return _measured(b"".join(parts))


def _measured(body: bytes) -> bytes:
    _bounds.size = len(body)
    return body


def _snappy_block(block: Any, max_bytes: int, begun: bytes) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > max_bytes:  # the length in its header; the codec enforces it
        raise BatchTooLargeError(max_bytes, begun)
    return bytes(cramjam.snappy.decompress_raw(block))


_CODECS: dict[int, tuple[str, Callable[[Any], bytes]]] = {
    1: ("gzip", gzip_decode),
    2: ("snappy", snappy_decode),
    3: ("lz4", lz4_decode),
    4: ("zstd", zstd_decode),
}


# --- a batch that the library cannot decode ----------------------------------------------------------------------


def salvaged(batch: bytes, first: int) -> Iterator[InputRecord | UndecodableRecord]:
    """The readable records of a batch (magic 2) from offset `first` on, then an `UndecodableRecord` for the rest."""
    (base, _, _, _, _, attributes, last_delta, first_ms, newest_ms, _, _, _, count) = _HEADER.unpack_from(batch)
    last, wanted = base + last_delta, max(base, first)
    body, why = _decompressed(batch, attributes & _CODEC_MASK)
    at, before = 0, base - 1
    for _ in range(count):
        try:
            begin, at = _span(body, at)
            record = _taken_apart(body, begin, at, base, newest_ms if attributes & _LOG_APPEND_TIME else None, first_ms)
        except IndexError:
            why = why or "expected records, got other bytes"
            break
        if not before < record.offset <= last:
            why = why or "expected ascending offsets"
            break
        before = record.offset
        if record.offset >= wanted:
            wanted = record.offset + 1
            yield record
    if why:
        yield undecodable(batch, wanted, why)


def undecodable(batch: bytes, first: int, why: str) -> UndecodableRecord:
    """Replaces the records of a batch from offset `first` on; contains the batch as stored in Kafka."""
    (base, _, _, _, _, _, last_delta, _, newest_ms, _, _, _, _) = _HEADER.unpack_from(batch)
    last = base + last_delta
    return UndecodableRecord(
        min(first, last), last, newest_ms, f"batch: {why}, {len(batch)} bytes in Kafka", value=batch, is_batch=True
    )


def _decompressed(batch: bytes, codec: int) -> tuple[bytes, str]:
    """The decompressed records of a batch, and what is wrong with it."""
    payload = batch[_HEADER.size :]
    if codec == 0:
        return payload, ""
    name, decode = _CODECS.get(codec, ("a known codec", None))
    if decode is None:
        return b"", f"expected a codec from 1 to 4, got {codec}"
    try:
        return decode(payload), ""
    except BatchTooLargeError as error:
        return error.begun, f"expected at most {BATCH_MAX_BYTES} bytes when decompressed, got more"
    except Exception:  # noqa: BLE001 - a codec may raise anything
        return b"", f"expected {name}, got something else"


def _taken_apart(
    body: bytes, at: int, end: int, base: int, appended_ms: int | None, first_ms: int
) -> Record | UndecodableRecord:
    """Parses one record. Raises `IndexError` if it is not one."""
    delta_ms, at = _varint(body, at + 1)
    delta, at = _varint(body, at)
    key, at = _bytes(body, at, end)
    value, at = _bytes(body, at, end)
    offset, timestamp = base + delta, first_ms + delta_ms if appended_ms is None else appended_ms
    why, names = "", []
    headers: list[tuple[str, Any]] = []
    try:
        count, at = _varint(body, at)
        if not 0 <= count <= HEADERS_MAX:
            why = f"expected at most {HEADERS_MAX} headers, got {count}"
        for number in range(0 if why else count):
            name, at = _bytes(body, at, end)
            content, at = _bytes(body, at, end)
            name = name or b""
            headers.append((name.decode(errors="replace"), content))
            if not _is_utf8(name):
                names.append(name)
                why = why or f"expected a header name in UTF-8, number {number + 1} is not"
    except IndexError:
        why = "expected headers, got other bytes"
    if why:
        return UndecodableRecord(offset, offset, timestamp, f"headers: {why}", key, value, headers, names)
    return Record(offset, timestamp, key, value, headers)


def _span(body: bytes, at: int) -> tuple[int, int]:
    """Where a record begins and ends. Raises `IndexError` if it ends outside its batch."""
    size, begin = _varint(body, at)
    if size < 0 or begin + size > len(body):
        raise IndexError
    return begin, begin + size


def _bytes(body: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    size, at = _varint(body, at)
    if size < 0:
        return None, at
    if at + size > end:
        raise IndexError
    return body[at : at + size], at + size


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A number in Kafka's zigzag encoding, and where it ends. Raises `IndexError`."""
    byte = body[at]
    at += 1
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        if shift > 63:
            raise IndexError
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
    return (value >> 1) ^ -(value & 1), at


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- replacements in the library's fetcher -----------------------------------------------------------------------


class Intake:
    """Marks a consumer as ours: passed as its `key_deserializer`, and never called."""

    def __init__(self) -> None:
        self._fetches: dict[tuple[Any, int], int] = {}
        """By batch with a wrong checksum: how often it was fetched."""

    def __call__(self, key: bytes) -> bytes:
        """Leaves keys unchanged."""
        return key

    def refetches(self, tp: Any, base_offset: int) -> bool:
        """Whether to fetch a batch with a wrong checksum again: the network or a single replica may be the cause."""
        place = tp, base_offset
        self._fetches[place] = fetches = self._fetches.get(place, 0) + 1
        if fetches < CHECKSUM_FETCHES_MAX:
            return True
        del self._fetches[place]
        return False


class _Batches(MemoryRecords):  # type: ignore[misc]  # the library has no types
    """The library's class, which also keeps the bytes that it was made from."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """The library's class, which continues after a batch that it cannot decode. Otherwise the generator is the same."""

    next_fetch_offset: int
    begun_bytes = 0
    """The decompressed size of the batches started so far."""

    def _unpack_records(self) -> Iterator[InputRecord]:
        batches, data = self._records, self._records.data
        end = 0
        while batches.has_next():
            begin = end
            end += _LENGTH_END + _LENGTH.unpack_from(data, begin + _LENGTH_AT)[0]
            batch = batches.next_batch()
            if self._check_crcs and not batch.validate_crc():
                if self._key_deserializer.refetches(self._tp, batch.base_offset):
                    return  # the position stays where it is, so it is fetched again
                yield self._refused(undecodable(data[begin:end], self.next_fetch_offset, "expected its checksum"))
                self.next_fetch_offset = batch.next_offset
                continue
            if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
                self._consume_aborted_up_to(batch.base_offset)
                if batch.is_control_batch and self._contains_abort_marker(batch):
                    self._aborted_producers.discard(batch.producer_id)
                if batch.is_transactional and batch.producer_id in self._aborted_producers:
                    self.next_fetch_offset = batch.next_offset
                    continue
            if not batch.is_control_batch:
                last, has_begun = batch.next_offset - 1, False
                try:
                    records = _begun(batch)
                    self.begun_bytes += _bounds.size or end - begin
                    for record in records:
                        offset = record.offset
                        if offset < self.next_fetch_offset or offset > last:
                            _require_order(offset, last, has_begun)
                            continue
                        has_begun = True
                        self.next_fetch_offset = offset + 1
                        yield record
                except Exception:  # noqa: BLE001 - the library may raise anything for what it cannot decode
                    for record in salvaged(data[begin:end], self.next_fetch_offset):
                        self.next_fetch_offset = after(record)
                        self.begun_bytes += size_of([record])
                        yield record
            self.next_fetch_offset = batch.next_offset

    def _refused(self, record: UndecodableRecord) -> UndecodableRecord:
        self.next_fetch_offset = after(record)
        return record


def _require_order(offset: int, last: int, has_begun: bool) -> None:
    """Only records before the position may be skipped. The library does not check the order of offsets in a batch."""
    if has_begun or offset > last:
        raise ValueError("offsets outside their batch, or duplicates")


def _begun(batch: Any) -> Any:
    """Decompresses the batch, if it stays small enough that decoding all its records at once is harmless."""
    _bounds.max_bytes, _bounds.size = _COMPILED_MAX_BYTES, 0
    try:
        return iter(batch)
    finally:
        _bounds.max_bytes = BATCH_MAX_BYTES


class _Result(fetcher.FetchResult):  # type: ignore[misc]
    """The library's class, which also limits a poll by bytes."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        records = self._partition_records
        if not isinstance(records, _Records):
            taken: list[Any] = super().getall(max_records)
            return taken
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        taken, enough = [], records.begun_bytes + POLL_MAX_BYTES
        for record in records._records_iterator:  # noqa: SLF001 - its `__next__` only delegates to it
            taken.append(record)
            if records.begun_bytes >= enough or len(taken) == max_records:
                self._update_position()
                break
        else:
            self._update_position()
            self._partition_records = None
        return taken


def _records_of(tp: Any, records: Any, aborted: Any, offset: int, key_deserializer: Any, *more: Any) -> Any:
    """Called in place of the class: creates ours for one of our consumers, else the library's."""
    kind = _Records if isinstance(key_deserializer, Intake) else _LIBRARYS
    return kind(tp, records, aborted, offset, key_deserializer, *more)


_LIBRARYS = fetcher.PartitionRecords
REPLACED = ("MemoryRecords", "PartitionRecords", "FetchResult")
REPLACED_CODECS = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")
CODEC_MODULES = (default_records, legacy_records, _crecords.default_records, _crecords.legacy_records)


def _replace() -> None:
    for name, ours in zip(REPLACED, (_Batches, _records_of, _Result), strict=True):
        setattr(fetcher, name, ours)
    for module in CODEC_MODULES:
        for _, codec in _CODECS.values():
            if hasattr(module, codec.__name__):
                setattr(module, codec.__name__, codec)


_replace()
