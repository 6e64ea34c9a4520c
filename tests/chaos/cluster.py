"""Three brokers, with an entrance of its own for each worker: so one worker can be cut off and the others not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.chaos.gates import HOST, Gate, Way
from worker.tools.kafka_jars import JARS
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka

NODES = 3
_ASK_S = 5.0
_TAIL = 500
"""Offsets. The last record of a transaction is what is looked for, so a few would do."""
_READ_WITHIN_S = 120.0


class Cluster(LocalKafka):
    """A Kafka that also listens at one port for each slot, and tells who comes there to come again through a gate."""

    def __init__(self, slots: int, jars: Path = JARS) -> None:
        protocols = ",".join(f"{name}:PLAINTEXT" for name in ("CONTROLLER", "CLIENTS", *_names(slots)))
        super().__init__(NODES, jars, settings={"listener.security.protocol.map": protocols})
        taken = {int(server.rpartition(":")[2]) for server in self.bootstrap.split(",")}
        taken |= set(self._controller_ports.values())
        wanted = 2 * NODES * slots
        ports = [port for port in free_ports(wanted + len(taken)) if port not in taken][:wanted]
        self._doors = {(slot, node): (ports.pop(), ports.pop()) for slot in range(slots) for node in self.nodes}
        """The gate's port, and the broker's behind it."""
        self._slots = slots

    def _node_properties(self, node: int) -> dict[str, str | int]:
        properties = super()._node_properties(node)
        listeners, advertised = [str(properties["listeners"])], [f"CLIENTS://{HOST}:{self._ports[node]}"]
        for slot, name in enumerate(_names(self._slots)):
            gate, door = self._doors[slot, node]
            listeners.append(f"{name}://{HOST}:{door}")
            advertised.append(f"{name}://{HOST}:{gate}")
        return properties | {
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "num.network.threads": 1,  # for each listener
        }

    def bootstrap_of(self, slot: int) -> str:
        """What the worker in this slot knows of the brokers."""
        return ",".join(f"{HOST}:{self._doors[slot, node][0]}" for node in self.nodes)

    def way(self, slot: int) -> Way:
        """The gates of a slot; shut until they are opened."""
        return Way({node: Gate(*self._doors[slot, node]) for node in self.nodes})


def _names(slots: int) -> list[str]:
    return [f"SLOT{slot}" for slot in range(slots)]


class ClusterQueries:
    """Queries about the cluster, each with a client of its own: the last one's broker may be gone."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    async def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition."""
        async with asyncio.timeout(_ASK_S):
            (found,) = await self._ask("describe_topics", [topic])
        return next(int(part["leader"]) for part in found["partitions"] if part["partition"] == partition)

    async def coordinator(self, name: str, *, transactions: bool) -> int:
        """The broker that coordinates a group, or the producer with a transactional id."""
        async with asyncio.timeout(_ASK_S):
            return int(await self._ask("find_coordinator", name, int(transactions)))

    async def _ask(self, method: str, *arguments: Any) -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=round(1000 * _ASK_S))
        try:
            await admin.start()
            return await getattr(admin, method)(*arguments)
        finally:
            await admin.close()

    async def ends(self, topic: str, partitions: int) -> list[int]:
        """The offset after the last record of each partition."""
        async with asyncio.timeout(_READ_WITHIN_S), self._consumer() as consumer:
            found = await consumer.end_offsets([TopicPartition(topic, p) for p in range(partitions)])
        return [found[TopicPartition(topic, p)] for p in range(partitions)]

    async def read(self, topic: str, partition: int, *, tail: bool = False) -> list[Any]:
        """All committed records of a partition, or those among its last offsets."""
        async with asyncio.timeout(_READ_WITHIN_S):
            return [record async for record in self.stream(topic, partition, tail=tail)]

    async def stream(self, topic: str, partition: int, *, tail: bool = False) -> AsyncIterator[Any]:
        """The same, one by one."""
        here = TopicPartition(topic, partition)
        async with self._consumer() as consumer:
            consumer.assign([here])
            end = (await consumer.end_offsets([here]))[here]
            consumer.seek(here, max(0, end - _TAIL) if tail else 0)
            while await consumer.position(here) < end:
                for batch in (await consumer.getmany(timeout_ms=500, max_records=5000)).values():
                    for record in batch:
                        yield record

    def _consumer(self) -> Any:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, isolation_level="read_committed", enable_auto_commit=False
        )
