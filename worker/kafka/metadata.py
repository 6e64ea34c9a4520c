"""Metadata that the library does not provide: the ids of topics and of the cluster, and our permissions on a topic.

A topic that was deleted and recreated has the same name; only its id reveals that. The library (aiokafka 0.14.0)
implements versions 0 to 5 of the Metadata request; topic ids came with version 10 (Kafka 2.8).
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields
from msgspec import Struct

from worker.errors import LogError
from worker.kafka.client import as_log_error, kafka_errors

_API = 3
_NOBODY = UUID(int=0)
_GONE = 3
"""UNKNOWN_TOPIC_OR_PARTITION."""
_BROKERS_MIN = 3
"""At least this many brokers can be asked within the limit, even if only the last one responds."""
_WRITE = 4
_NOT_REPORTED = -(2**31)
_IN_SYNC_AT = {5: 4, 12: 5}
"""By version: the index of a partition's in-sync replicas."""


class TopicSeen(Struct, frozen=True):
    """A topic, as a broker reports it."""

    id: str
    """Empty: the broker does not support topic ids."""
    partitions: int
    in_sync: Mapping[int, int]
    """The number of in-sync replicas by partition."""
    may_write: bool = True
    """False: the broker reports that we may not."""
    operations: int | None = None
    """What we may do with it: a bit for each operation, by its code in Kafka's protocol; `None`: not reported."""


GONE = TopicSeen("", 0, {})


class ClusterSeen(Struct, frozen=True):
    """A cluster, as a broker reports it."""

    id: str
    topics: Mapping[str, TopicSeen]
    """The topics that exist and that we may describe."""


class _Uuid(AbstractType):  # type: ignore[misc]  # the library has no types
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _Response12(Response):  # type: ignore[misc]
    API_KEY = _API
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Request12(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = _API
    API_VERSION = 12
    RESPONSE_TYPE = _Response12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[MetadataRequest_v5 | _Request12]):  # type: ignore[misc]
    API_KEY = _API

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class is _Request12:
            return _Request12([(_NOBODY, name, {}) for name in self._topics], False, True, {})
        return request_struct_class(self._topics, False)


async def _ask(client: Any, topics: list[str], within_s: float) -> Any:
    """The first response of any broker: a broker that is down or frozen must not be the only one asked."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    failure: Exception = kafka_errors.NodeNotReadyError()
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            for node in nodes:
                try:
                    async with asyncio.timeout(within_s / _BROKERS_MIN):
                        return await client.send(node, _MetadataRequest(topics))
                except (kafka_errors.KafkaError, TimeoutError) as error:
                    failure = error
    raise as_log_error(failure, "describing the topics") from failure


def _may_write(operations: int) -> bool:
    """`operations` has a bit per operation, by its code in Kafka's protocol; a broker need not report it."""
    return operations == _NOT_REPORTED or bool(operations & 1 << _WRITE)


async def describe_topics(client: Any, topics: list[str], within_s: float) -> ClusterSeen:
    """Asks one of the brokers that this client knows, without creating topics. Raises `LogError`."""
    response = await _ask(client, topics, within_s)
    seen: dict[str, TopicSeen] = {}
    for error_code, name, *rest in response.topics:
        if error_code == _GONE:
            continue
        if error_code:
            raise LogError(f"describing topic {name}: {kafka_errors.for_code(error_code).__name__}")
        topic_id = rest[0].hex if response.API_VERSION >= _Request12.API_VERSION else ""
        in_sync = {place[1]: len(place[_IN_SYNC_AT[response.API_VERSION]]) for place in rest[-3 if topic_id else -1]}
        operations = rest[-2] if topic_id and rest[-2] != _NOT_REPORTED else None
        seen[name] = TopicSeen(topic_id, len(in_sync), in_sync, not topic_id or _may_write(rest[-2]), operations)
    return ClusterSeen(response.cluster_id or "", seen)
