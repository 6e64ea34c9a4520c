"""Record batches as producers write them that are not ours: damaged, compressed beyond measure, wrong in their names."""

import struct
from collections.abc import Callable
from typing import Any

from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

HEADER_BYTES = 61
NOW_MS = 1_780_000_000_000
"""Of the first record."""
CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": codec.gzip_encode,
    "snappy": codec.snappy_encode,
    "lz4": codec.lz4_encode,
    "zstd": codec.zstd_encode,
}
Written = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def batch(*records: Written, base: int = 0, name: str = "", change: Callable[[bytes], bytes] = lambda b: b) -> bytes:
    """A batch as a producer writes it; `change` does to its records what no client of ours would."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**30)
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, NOW_MS + number, key, value, headers)
    raw = bytearray(builder.build())
    return sealed(raw[:HEADER_BYTES], change(bytes(raw[HEADER_BYTES:])), base, name)


def sealed(header: bytearray, body: bytes, base: int, name: str) -> bytes:
    """A batch from its header and its records, with the right lengths and checksum."""
    if name:
        body = ENCODE[name](body)
        struct.pack_into(">h", header, 21, CODECS[name])
    struct.pack_into(">qi", header, 0, base, len(body) + HEADER_BYTES - 12)
    struct.pack_into(">I", header, 17, calc_crc32c(bytes(header[21:]) + body))
    return bytes(header) + body


async def write_batch(producer: Any, topic: str, partition: int, raw: bytes) -> None:
    """Has the library's producer write a batch that is none of its own."""
    carrier = producer.create_batch()
    carrier.append(timestamp=None, key=b"k", value=b"v")
    carrier.close()
    carrier._buffer = bytearray(raw)
    await (await producer.send_batch(carrier, topic, partition=partition))
