"""The members of the consumer group, for tools that must not run while a worker is running."""

from worker.errors import LogError
from worker.kafka.client import AIOKafkaAdminClient, Connection, as_cartsync_error, kafka_errors
from worker.kafka.settings import KafkaSettings

_EMPTY_STATES = ("Empty", "Dead")


async def group_members(settings: KafkaSettings) -> list[str]:
    """The client ids and hosts of the group's members. A killed worker counts until its session times out.

    Raises `ConfigError` if Kafka rejects us, `LogError` if it does not respond.
    """
    connection = Connection(settings)
    admin = AIOKafkaAdminClient(**connection.options(settings.request_timeout_s))
    try:
        await connection.start(admin)
        [answer] = await admin.describe_consumer_groups([settings.group_id])
    except kafka_errors.GroupCoordinatorNotAvailableError:
        return []  # a cluster that never had a group
    except kafka_errors.KafkaError as error:
        raise as_cartsync_error(error, f"listing the members of group {settings.group_id}") from error
    except TimeoutError as error:
        raise LogError(f"listing the members of group {settings.group_id}: no response") from error
    finally:
        await admin.close()
    [group] = answer.groups
    error_code, _name, state, _type, _protocol, members = group[:6]
    if error_code or (not members and state not in _EMPTY_STATES):
        said = kafka_errors.for_code(error_code).__name__ if error_code else state
        raise LogError(f"listing the members of group {settings.group_id}: {said}; try again")
    return [f"{member[1]} at {member[2].lstrip('/')}" for member in members]
