"""Kafka settings for one test, whose topics and group no other test shares."""

import uuid
from typing import Any

from msgspec.structs import replace

from worker.kafka.settings import KafkaSettings


def settings_of(bootstrap_servers: str, **members: Any) -> KafkaSettings:
    """Settings with names of their own; the topics are not there yet."""
    name = f"t{uuid.uuid4().hex[:10]}"
    own = KafkaSettings(
        bootstrap_servers=bootstrap_servers,
        group_id=name,
        transactional_id_prefix=name,
        event_topic=f"{name}.events",
        state_topic=f"{name}.state",
        dead_letter_topic=f"{name}.dlq",
        results_topic=f"{name}.results",
    )
    return replace(own, **members)
