"""Kafka settings for commands: a person waits for the result."""

from worker.config import KafkaSection
from worker.kafka.settings import KafkaSettings

_CONNECT_S = 10.0


def for_a_person(kafka: KafkaSection) -> KafkaSettings:
    """The settings, with shorter timeouts for unresponsive brokers than a worker has."""
    return KafkaSettings(**kafka.members() | {"connect_timeout_s": min(kafka.connect_timeout_s, _CONNECT_S)})
