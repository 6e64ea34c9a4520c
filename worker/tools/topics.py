"""`cartsync topics check|create`: checks the topics, and creates missing ones."""

import asyncio
import json

import msgspec

from schemas.state import Deployment
from worker.backend import newest_entries
from worker.config import Config, WorkerSection
from worker.errors import TopicError
from worker.kafka.client import Connection
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import PARTITIONS_DEFAULT, Finding, check_topics, create_topics
from worker.ownership.belonging import identified, require_all
from worker.tools.patience import for_a_person


def run_check(config: Config, *, as_json: bool = False) -> int:
    """Prints findings; 0, or 72 if a worker would not start. Raises `LogError` if Kafka does not respond."""
    findings = asyncio.run(topic_findings(for_a_person(config.kafka), config.worker))
    if as_json:
        print(json.dumps(msgspec.to_builtins(findings), ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.text}")
        if not findings:
            print("the topics are as they should be")
    return TopicError.exit_code if any(finding.level == "error" for finding in findings) else 0


async def topic_findings(settings: KafkaSettings, worker: WorkerSection) -> list[Finding]:
    """Findings about the topics, and about the state in them. Raises `LogError` if Kafka does not respond."""
    findings = await check_topics(settings)
    seen = await KafkaEventLog(settings).describe_topics()
    if seen.state_partitions:
        newest = await newest_entries(Connection(settings), seen.state_partitions)
        ours = Deployment(
            event_topic=settings.event_topic, group=settings.group_id, prefix=settings.transactional_id_prefix
        )
        try:
            require_all(identified(ours, seen), newest, adopt=worker.adopt_state, topic_epoch=worker.topic_epoch)
        except TopicError as error:
            findings.append(Finding("error", settings.state_topic, str(error)))
    return sorted(findings, key=lambda finding: finding.level)


def run_create(config: Config, *, partitions: int | None = None, as_json: bool = False) -> int:
    """Creates missing topics, then checks all; 0 or 72. Raises `TopicError` if Kafka refuses."""
    settings = for_a_person(config.kafka)
    created = asyncio.run(create_topics(settings, partitions or PARTITIONS_DEFAULT))
    if not as_json:
        for name, count in created.items():
            print(f"created {name} with {count} partitions")
        if partitions is None and settings.event_topic in created:
            print(
                f"{PARTITIONS_DEFAULT} partitions are the default: at most that many workers can share the work, and "
                "another number later takes `cartsync migrate partitions` (--partitions N for another one now)"
            )
        if partitions is not None and settings.event_topic not in created:
            print(
                f"{settings.event_topic} exists and keeps its number of partitions: `cartsync migrate partitions "
                f"--to {partitions}` changes it"
            )
        if not created:
            print("no topic was missing")
    return run_check(config, as_json=as_json)
