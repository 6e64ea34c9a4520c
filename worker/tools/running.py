"""Whether workers are running, for tools that must not work beside them."""

import asyncio

from worker.config import KafkaSection
from worker.kafka.group import group_members
from worker.kafka.settings import KafkaSettings

_CONNECT_S = 10.0
"""A person waits for it."""


def running_workers(kafka: KafkaSection) -> list[str]:
    """The members of the workers' group. Raises `ConfigError` or `LogError`: then nobody knows."""
    settings = KafkaSettings(**kafka.members() | {"connect_timeout_s": min(kafka.connect_timeout_s, _CONNECT_S)})
    return asyncio.run(group_members(settings))
