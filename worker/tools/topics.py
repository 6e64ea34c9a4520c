"""`cartsync topics check|create`: whether the three topics are as the protocol needs them, and making them so."""

import asyncio
import json

import msgspec

from worker.config import Config
from worker.errors import TopicError
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import PARTITIONS_DEFAULT, check_topics, create_topics


def run_check(config: Config, *, as_json: bool = False) -> int:
    """Prints what is wrong; 0, or 72 when a worker would not start. Raises `LogError` when Kafka does not answer."""
    findings = asyncio.run(check_topics(KafkaSettings(**config.kafka.members())))
    if as_json:
        print(json.dumps(msgspec.to_builtins(findings), ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.text}")
        if not findings:
            print("the topics are as they should be")
    return TopicError.exit_code if any(finding.level == "error" for finding in findings) else 0


def run_create(config: Config, *, partitions: int | None = None, as_json: bool = False) -> int:
    """Creates the topics that are missing, then checks all; 0 or 72. Raises `TopicError` when Kafka refuses."""
    settings = KafkaSettings(**config.kafka.members())
    created = asyncio.run(create_topics(settings, partitions or PARTITIONS_DEFAULT))
    if not as_json:
        for name, count in created.items():
            print(f"created {name} with {count} partitions")
        if partitions is None and settings.event_topic in created:
            print(
                f"{PARTITIONS_DEFAULT} partitions are the default: at most so many workers share the work, and the "
                "number cannot be changed while orders are open (--partitions N for another one)"
            )
        if not created:
            print("no topic was missing")
    return run_check(config, as_json=as_json)
