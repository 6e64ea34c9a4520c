"""The consumer group of the workers, as Kafka knows it: for tools."""

from collections.abc import Sequence
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from msgspec import Struct

from worker.errors import LogError
from worker.kafka.client import AIOKafkaAdminClient, Connection, as_cartsync_error, kafka_errors
from worker.kafka.settings import KafkaSettings

_EMPTY_STATES = ("Empty", "Dead")


class Member(Struct, frozen=True):
    """A member of the group. A killed worker is one until its session times out."""

    client: str
    host: str
    partitions: Sequence[int]
    """Of the event topic, that are assigned to it; ascending."""

    def __str__(self) -> str:
        return f"{self.client} at {self.host}"


class Group(Struct, frozen=True):
    """The group now."""

    state: str
    """In Kafka's words: `Stable`, `PreparingRebalance`, `Empty`, …; `Dead`: there is none."""
    members: Sequence[Member] = ()


async def describe_group(settings: KafkaSettings) -> Group:
    """The group. Raises `ConfigError` if Kafka rejects us, `LogError` if it does not respond."""
    doing = f"listing the members of group {settings.group_id}"
    connection = Connection(settings)
    admin = AIOKafkaAdminClient(**connection.options(settings.request_timeout_s))
    try:
        await connection.start(admin)
        [answer] = await admin.describe_consumer_groups([settings.group_id])
    except kafka_errors.GroupCoordinatorNotAvailableError:
        return Group("Dead")  # a cluster that never had a group
    except kafka_errors.KafkaError as error:
        raise as_cartsync_error(error, doing) from error
    except TimeoutError as error:
        raise LogError(f"{doing}: no response") from error
    finally:
        await admin.close()
    [group] = answer.groups
    error_code, _name, state, _type, _protocol, members = group[:6]
    if error_code:
        raise as_cartsync_error(kafka_errors.for_code(error_code)(), doing)
    return Group(state, [_member(each, settings.event_topic) for each in members])


def _member(member: Any, topic: str) -> Member:
    _id, client, host, _metadata, assignment = member
    partitions: list[int] = []
    if assignment:  # none while the group rebalances
        found = ConsumerProtocolMemberAssignment.decode(assignment)
        partitions = sorted(place.partition for place in found.partitions() if place.topic == topic)
    return Member(client, host.lstrip("/"), partitions)


async def group_members(settings: KafkaSettings) -> list[str]:
    """The client ids and hosts of the group's members, for tools that must not run while a worker is running.

    Raises like `describe_group`, and `LogError` while the group rebalances: then it is unknown.
    """
    group = await describe_group(settings)
    if not group.members and group.state not in _EMPTY_STATES:
        raise LogError(f"listing the members of group {settings.group_id}: {group.state}; try again")
    return [str(member) for member in group.members]
