"""Whether workers are running, for tools that must not run at the same time."""

import asyncio

from worker.config import KafkaSection
from worker.kafka.group import group_members
from worker.tools.patience import for_a_person


def running_workers(kafka: KafkaSection) -> list[str]:
    """The members of the workers' group. Raises `ConfigError` or `LogError`: then it is unknown."""
    return asyncio.run(group_members(for_a_person(kafka)))
