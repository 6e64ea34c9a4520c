"""What `cartsync doctor` finds out about Kafka: its brokers, what we may do there, and how its clock differs from ours.

For the clock there is no request: a transaction is begun, which the coordinator dates by its own clock, looked at, and
aborted. Nothing is written but the mark of its end in one partition of the dead-letter topic; and so it is known, too,
that we may have transactions, and may write there.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from msgspec import Struct

from worker.errors import LogError
from worker.kafka.client import AIOKafkaClient, Connection, as_cartsync_error, kafka_errors
from worker.kafka.metadata import TopicSeen, describe_topics
from worker.kafka.settings import KafkaSettings

OPERATIONS: Mapping[str, int] = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}
"""By name, the code in Kafka's protocol."""
_NOT_REPORTED = -(2**31)
_BROKER_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 20.0
_TRANSACTION_MS = 20_000
_AGAIN_S = 0.2
_PASSES = (
    kafka_errors.ConcurrentTransactions,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.NotCoordinatorError,
)
"""Over in a moment."""


class BrokerSeen(Struct, frozen=True):
    """A broker of the cluster."""

    address: str
    took_ms: float
    problem: str
    """Why it does not respond; empty: it does."""


class ClockSeen(Struct, frozen=True):
    """The coordinator's clock beside ours."""

    ahead_ms: float
    """Negative: it is behind."""
    within_ms: float
    """How exact that is, either way."""


class Examination:
    """A connection to the cluster."""

    def __init__(self, settings: KafkaSettings, client: Any) -> None:
        self._settings = settings
        self._client = client

    async def brokers(self) -> list[BrokerSeen]:
        """All that the cluster names, each asked on its own."""
        return list(await asyncio.gather(*map(self._broker, self._client.cluster.brokers())))

    async def _broker(self, broker: Any) -> BrokerSeen:
        address, began, problem = f"{broker.host}:{broker.port}", time.perf_counter(), ""
        try:
            async with asyncio.timeout(_BROKER_WITHIN_S):
                await self._client.send(broker.nodeId, FindCoordinatorRequest(self._settings.group_id, 0))
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            problem = type(error).__name__
        return BrokerSeen(address, 1000 * (time.perf_counter() - began), problem)

    async def topics(self) -> Mapping[str, TopicSeen]:
        """Our topics that there are, with what we may do. Raises `LogError`."""
        settings = self._settings
        names = [settings.event_topic, settings.state_topic, settings.dead_letter_topic]
        names += filter(None, (settings.results_topic, settings.history))
        return (await describe_topics(self._client, names, settings.request_timeout_s)).topics

    async def group_operations(self) -> int | None:
        """What we may do with the group; `None`: it is not reported. Raises `LogError`, `ConfigError`."""
        group = self._settings.group_id
        doing = f"describing group {group}"
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                while True:
                    node = await self._coordinator(CoordinationType.GROUP, group, doing)
                    answer = await self._asked(node, _DescribeGroupRequest(group), doing)
                    ((error_code, *rest),) = answer.groups
                    if kafka_errors.for_code(error_code) not in _PASSES:
                        break
                    await asyncio.sleep(_AGAIN_S)  # a new cluster is still making the topic of its groups
        except TimeoutError as error:
            raise LogError(f"{doing}: no response") from error
        _raise_for(error_code, doing)
        return None if rest[-1] == _NOT_REPORTED else int(rest[-1])

    async def clock(self) -> ClockSeen | None:
        """The coordinator's clock; `None`: these brokers do not tell. Raises `LogError`, `ConfigError` for a permission
        that is missing.
        """
        settings, name = self._settings, self._settings.examining_id()
        doing = f"beginning a transaction as {name}"
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                node = await self._coordinator(CoordinationType.TRANSACTION, name, doing)
                given = await self._asked(node, InitProducerIdRequest(name, _TRANSACTION_MS), doing)
                producer = name, given.producer_id, given.producer_epoch
                began = time.time()
                place = (settings.dead_letter_topic, [0])
                while True:
                    added = await self._asked(node, AddPartitionsToTxnRequest(*producer, [place]), doing)
                    refused = kafka_errors.for_code(added.errors[0][1][0][1])
                    if refused not in _PASSES:
                        break
                    await asyncio.sleep(_AGAIN_S)
                    began = time.time()
                ended = time.time()
                _raise_for(refused.errno, f"adding {place[0]} to a transaction")
                try:
                    return await self._dated(node, name, began, ended)
                finally:
                    await self._asked(node, EndTxnRequest(*producer, False), "aborting it")
        except TimeoutError as error:
            raise LogError(f"{doing}: no response") from error

    async def _dated(self, node: int, name: str, began: float, ended: float) -> ClockSeen | None:
        try:
            answer = await self._client.send(node, _DescribeTransactionsRequest(name))
        except (kafka_errors.IncompatibleBrokerVersion, NotImplementedError):
            return None
        ((error_code, _name, _state, _timeout_ms, started_ms, *_),) = answer.transaction_states
        _raise_for(error_code, "describing a transaction")
        if started_ms < 0:
            return None
        return ClockSeen(started_ms - 1000 * (began + ended) / 2, 1000 * (ended - began) / 2 + 1)

    async def _coordinator(self, kind: Any, name: str, doing: str) -> int:
        while True:
            try:
                node: int = await self._client.coordinator_lookup(kind, name)
                await self._client.ready(node)
                return node
            except _PASSES:
                await asyncio.sleep(_AGAIN_S)
            except kafka_errors.KafkaError as error:
                raise as_cartsync_error(error, doing) from error

    async def _asked(self, node: int, request: Any, doing: str) -> Any:
        """The response; one with an error of its own is asked again while that passes."""
        while True:
            try:
                answer = await self._client.send(node, request)
            except (kafka_errors.KafkaError, NotImplementedError) as error:
                raise as_cartsync_error(error, doing) from error
            refused = kafka_errors.for_code(getattr(answer, "error_code", 0))
            if refused not in _PASSES:
                _raise_for(refused.errno, doing)
                return answer
            await asyncio.sleep(_AGAIN_S)


def _raise_for(error_code: int, doing: str) -> None:
    if error_code:
        raise as_cartsync_error(kafka_errors.for_code(error_code)(), doing)


@asynccontextmanager
async def examination(settings: KafkaSettings) -> AsyncIterator[Examination]:
    """Connects. Raises `ConfigError` if Kafka rejects us, `LogError` if no broker responds."""
    connection = Connection(settings)
    client = AIOKafkaClient(**connection.options(settings.request_timeout_s))
    try:
        await connection.start(_Starting(client))
        yield Examination(settings, client)
    except kafka_errors.KafkaError as error:
        raise as_cartsync_error(error, "examining Kafka") from error
    finally:
        await client.close()


class _Starting:
    """What `Connection.start` starts."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def start(self) -> None:
        await self._client.bootstrap()


class _DescribeGroupStruct(DescribeGroupsRequest_v3):  # type: ignore[misc]  # the library has no types
    """The library reads the response as one of version 2, which has no operations."""

    RESPONSE_TYPE = DescribeGroupsResponse_v3


class _DescribeGroupRequest(Request[_DescribeGroupStruct]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([self._group], True)


class _DescribeTransactionsResponse(Response):  # type: ignore[misc]  # the library has no types
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transaction_states",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("transaction_state", CompactString("utf-8")),
                ("transaction_timeout_ms", Int32),
                ("transaction_start_time_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")),
                        ("partitions", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeTransactionsStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 65
    API_VERSION = 0
    RESPONSE_TYPE = _DescribeTransactionsResponse
    SCHEMA = Schema(
        ("transactional_ids", CompactArray(CompactString("utf-8"))),
        ("tags", TaggedFields),
    )


class _DescribeTransactionsRequest(Request[_DescribeTransactionsStruct]):  # type: ignore[misc]
    API_KEY = 65

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([self._name], {})
