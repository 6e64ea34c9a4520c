"""The topics: what the protocol requires of them, and how they are created.

Existing topics are never altered. The library's `alter_configs` replaces a topic's entire configuration: setting
`segment.ms` alone reset `cleanup.policy=compact` to `delete`, which would destroy the state (measured with Kafka
4.3.1).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import structlog
from msgspec import Struct
from msgspec.structs import replace

from worker.core.amounts import count_text
from worker.errors import LogError, TopicError
from worker.kafka.client import (
    REFUSED_ACCESS,
    AIOKafkaAdminClient,
    ConfigResource,
    ConfigResourceType,
    Connection,
    NewTopic,
    as_cartsync_error,
    kafka_errors,
)
from worker.kafka.decoding import BATCH_MAX_BYTES
from worker.kafka.metadata import GONE, describe_topics
from worker.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

MESSAGE_MAX_BYTES = 1_048_588
"""Kafka's default `max.message.bytes`."""
DEAD_LETTER_ROOM_BYTES = 64 * 1024
"""How much the headers of a dead letter may add to a record."""

PARTITIONS_DEFAULT = 12
"""For an event topic that we create: the maximum number of workers; divisible by 2, 3, 4 and 6."""

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_RETENTION_MIN_MS = _DAY_MS
_AHEAD_MAX_MS = _DAY_MS
"""How far an event's `time` may be in the future, by the contract."""
_TOMBSTONES_MIN_MS = 2 * _DAY_MS
RESULT_BYTES_MIN = 64 * 1024
"""The smallest `max.message.bytes` of a results topic: fits every result, framing included."""
HISTORY_BYTES_MIN = 16 * 1024
"""The smallest `max.message.bytes` of a history topic: fits every entry, key and framing included."""
_EXISTS_ALREADY = 36
_CHECK_AGAIN_S = 0.1

Level = Literal["error", "warning"]


class Topic(Struct, frozen=True):
    """A topic, as the cluster reports it."""

    name: str
    partitions: int
    replicas: int
    """The lowest replica count of any partition."""
    config: Mapping[str, str] | None
    """`None`: we lack permission to read it."""
    may_write: bool = True
    """False: we lack permission. Only checked where it matters."""

    @property
    def message_max_bytes(self) -> int:
        """The largest compressed batch that the topic accepts; Kafka's default if unknown."""
        return self.number("max.message.bytes") or MESSAGE_MAX_BYTES

    def number(self, name: str) -> int | None:
        """A numeric setting; `None` if it cannot be read."""
        return int(self.config[name]) if self.config and name in self.config else None

    def is_set(self, name: str, value: str) -> bool:
        """Whether the setting's comma-separated values include this one; false if it cannot be read."""
        return self.config is not None and value in self.config.get(name, "").split(",")


class Finding(Struct, frozen=True):
    """A problem with a topic."""

    level: Level
    """`error`: a worker does not start."""
    topic: str
    text: str
    """What is wrong, and how to fix it."""


def _names(settings: KafkaSettings) -> tuple[str, ...]:
    """The required topics: events, state, dead letters; results and histories if they are enabled."""
    others = filter(None, (settings.results_topic, settings.history))
    return settings.event_topic, settings.state_topic, settings.dead_letter_topic, *others


def judge(settings: KafkaSettings, topics: Mapping[str, Topic]) -> list[Finding]:
    """The problems with the topics; errors first."""
    names = _names(settings)
    found = [
        Finding(
            "error",
            name,
            f"topic {name} does not exist, or we may not describe it: create it (`cartsync topics create`), or grant "
            "Describe",
        )
        for name in names
        if name not in topics
    ]
    found += [
        Finding("error", name, f"the configuration of topic {name} cannot be read: grant DescribeConfigs")
        for name in names
        if name in topics and topics[name].config is None
    ]
    events, state, dead = (topics.get(name) for name in names[:3])
    if events:
        found += _judge_events(events)
    if state:
        found += _judge_state(state, events)
    if dead:
        found += _judge_dead_letters(dead, events)
    if results := topics.get(settings.results_topic):
        found += _judge_results(results, settings)
    if history := topics.get(settings.history):
        found += _judge_history(history, state, settings)
    return sorted(found, key=lambda finding: finding.level)


def _judge_events(events: Topic) -> Iterator[Finding]:
    if events.is_set("cleanup.policy", "compact"):
        yield Finding(
            "error",
            events.name,
            f"{events.name} is compacted, so only the last event of an order would be kept: set cleanup.policy=delete",
        )
    retention = events.number("retention.ms")
    if retention is not None and 0 <= retention < _RETENTION_MIN_MS:
        yield Finding(
            "warning",
            events.name,
            f"{events.name} keeps events for only {retention / _HOUR_MS:.3g} h: a longer outage would lose events "
            f"permanently; set retention.ms to {_RETENTION_MIN_MS} or more",
        )
    yield from _judge_limits(events)


def _judge_limits(events: Topic) -> Iterator[Finding]:
    """The brokers' limits for anyone who may write events."""
    ahead = events.number("message.timestamp.after.max.ms")
    if ahead is None:  # brokers before 3.6 have one limit for both sides
        ahead = events.number("message.timestamp.difference.max.ms")
    if ahead is not None and ahead > _AHEAD_MAX_MS and not events.is_set("message.timestamp.type", "LogAppendTime"):
        yield Finding(
            "warning",
            events.name,
            f"{events.name} accepts any timestamp from producers (CreateTime), so checking an event's time against its "
            "record's timestamp proves nothing, and an event from a clock that is ahead would win forever: set "
            f"message.timestamp.after.max.ms to {_HOUR_MS}, or message.timestamp.type to LogAppendTime",
        )
    if events.message_max_bytes > BATCH_MAX_BYTES:
        yield Finding(
            "warning",
            events.name,
            f"{events.name} accepts batches of {events.message_max_bytes} bytes, but only {BATCH_MAX_BYTES} are read "
            f"and the rest is rejected: set max.message.bytes to {BATCH_MAX_BYTES} or less",
        )
    decompressed = events.number("max.decompressed.message.bytes")
    if decompressed is not None and not 0 < decompressed <= BATCH_MAX_BYTES:
        yield Finding(
            "warning",
            events.name,
            f"{events.name} accepts batches that decompress to more than {BATCH_MAX_BYTES} bytes, and the rest is "
            f"rejected here: set max.decompressed.message.bytes to {BATCH_MAX_BYTES} or less, so that their producer "
            "gets the error",
        )


def _judge_state(state: Topic, events: Topic | None) -> Iterator[Finding]:
    name = state.name
    if events and events.partitions != state.partitions:
        yield Finding(
            "error",
            name,
            f"{name} has {state.partitions} partitions and {events.name} has {events.partitions}: they must be equal, "
            "because the state of an order is in the partition of its events. If the state topic is new, recreate it "
            f"with {events.partitions}. If partitions were added to the event topic, do not add any to the state "
            "topic: keys have moved to other partitions, and that does not move them back. Have the shop write to a "
            f"new event topic with {state.partitions}",
        )
    if state.config is None:
        return
    if not state.is_set("cleanup.policy", "compact") or state.is_set("cleanup.policy", "delete"):
        yield Finding(
            "error",
            name,
            f"{name} has cleanup.policy={state.config.get('cleanup.policy')}, which deletes orders: set it to compact. "
            "If the topic was auto-created after the state topic was deleted, delete it and restore the state",
        )
    yield from _judge_safety(state)
    tombstones = state.number("delete.retention.ms")
    if tombstones is not None and tombstones < _TOMBSTONES_MIN_MS:
        yield Finding(
            "warning",
            name,
            f"{name} drops tombstones after {tombstones / _HOUR_MS:.3g} h, so a slow restore could miss them: set "
            f"delete.retention.ms to {_TOMBSTONES_MIN_MS} or more",
        )


def _judge_dead_letters(dead: Topic, events: Topic | None) -> Iterator[Finding]:
    if dead.is_set("cleanup.policy", "compact"):
        yield Finding(
            "error",
            dead.name,
            f"{dead.name} is compacted, so it rejects records without a key: set cleanup.policy=delete",
        )
    needed = events.message_max_bytes + DEAD_LETTER_ROOM_BYTES if events and events.config else 0
    if dead.config is not None and dead.message_max_bytes < needed:
        yield Finding(
            "error",
            dead.name,
            f"{dead.name} accepts {dead.message_max_bytes} bytes, so the largest input record could not be written to "
            f"it: set max.message.bytes to {needed} or more",
        )


def _judge_results(results: Topic, settings: KafkaSettings) -> Iterator[Finding]:
    name = results.name
    if not results.may_write:
        yield Finding("error", name, _may_not_write(name, settings, 'results_topic = "" to write no results'))
    if results.config is not None and results.message_max_bytes < RESULT_BYTES_MIN:
        yield Finding(
            "error",
            name,
            f"{name} accepts {results.message_max_bytes} bytes, and the result of an order may be larger: set "
            f"max.message.bytes to {RESULT_BYTES_MIN} or more",
        )


def _judge_history(history: Topic, state: Topic | None, settings: KafkaSettings) -> Iterator[Finding]:
    name = history.name
    if not history.may_write:
        yield Finding("error", name, _may_not_write(name, settings, 'history_topic = "" to keep no histories'))
    if state and history.partitions < state.partitions:
        yield Finding(
            "error",
            name,
            f"{name} has {history.partitions} partitions and {state.name} has {state.partitions}: the history of an "
            "order is in the partition of its state; recreate it, or set another history_topic",
        )
    if history.config is None:
        return
    if not history.is_set("cleanup.policy", "compact"):
        yield Finding(
            "error",
            name,
            f"{name} has cleanup.policy={history.config.get('cleanup.policy')}, so that old entries of histories are "
            f"not replaced by new ones: set it to compact",
        )
    if history.message_max_bytes < HISTORY_BYTES_MIN:
        yield Finding(
            "error",
            name,
            f"{name} accepts {history.message_max_bytes} bytes, and entries are written together: set "
            f"max.message.bytes to {HISTORY_BYTES_MIN} or more",
        )


def _may_not_write(name: str, settings: KafkaSettings, instead: str) -> str:
    principal = f"User:{settings.sasl_username}" if settings.sasl_username else "PRINCIPAL"
    return (
        f"we may not write to topic {name}: `kafka-acls.sh --bootstrap-server {settings.bootstrap_servers} --add "
        f"--allow-principal {principal} --topic {name} --operation Write --operation DescribeConfigs`, or set "
        f"{instead}"
    )


def _judge_safety(state: Topic) -> Iterator[Finding]:
    """Warns if losing one broker could lose committed orders. Not an error: a laptop has a single broker."""
    if state.replicas < 3:
        replicas = count_text(state.replicas, "replica")
        yield Finding("warning", state.name, f"{state.name} has {replicas}: with 3 it survives the loss of a broker")
    elif (state.number("min.insync.replicas") or 2) < 2:
        yield Finding(
            "warning",
            state.name,
            f"{state.name} acknowledges a write that only one broker has: set min.insync.replicas to 2",
        )
    if state.is_set("unclean.leader.election.enable", "true"):
        yield Finding(
            "warning",
            state.name,
            f"{state.name} may lose committed orders: set unclean.leader.election.enable to false",
        )


async def check_topics(settings: KafkaSettings) -> list[Finding]:
    """The problems with the topics; empty: none. Raises `ConfigError` or `LogError` if Kafka cannot be reached."""
    async with _admin(Connection(settings)) as admin:
        return judge(settings, await _describe(admin, settings))


async def require_topics(connection: Connection, *, warn: bool = False, writes: bool = False) -> Mapping[str, Topic]:
    """The topics by name. Raises `TopicError` with all errors found. `warn`: also logs the warnings, which a process
    does once. `writes`: also requires permission to write results and histories.
    """
    settings = connection.settings
    topics = await _described(connection, writes=writes)
    findings = judge(settings, topics)
    if errors := [finding.text for finding in findings if finding.level == "error"]:
        raise TopicError("; ".join(errors))
    for finding in findings if warn else ():
        log.warning("topic_check_warning", topic=finding.topic, finding=finding.text)
    return topics


async def topics_now(connection: Connection) -> Mapping[str, Topic]:
    """The topics that exist, by name, unchecked. Raises `LogError`, `ConfigError`."""
    return await _described(connection)


async def create_topics(settings: KafkaSettings, partitions: int = PARTITIONS_DEFAULT) -> dict[str, int]:
    """Creates the missing topics with the configuration that the protocol requires; returns their partition counts by
    name.

    `partitions`: for the event topic, if it is missing. Existing topics are not changed: see `check_topics`. Raises
    `TopicError` if Kafka refuses.
    """
    async with _admin(Connection(settings)) as admin:
        topics = await _describe(admin, settings)
        brokers = len((await admin.describe_cluster())["brokers"])
        wanted = list(_missing(settings, topics, partitions, min(3, brokers)))
        await _create(admin, settings, wanted)
        return {topic.name: topic.num_partitions for topic in wanted}


async def create_like(connection: Connection, wanted: Iterable[Any]) -> list[str]:
    """Creates those of these topics that do not exist, all of them among the settings' own; their names. Raises
    `TopicError` if Kafka refuses.
    """
    settings = connection.settings
    async with _admin(connection) as admin:
        topics = await _describe(admin, settings)
        missing = [topic for topic in wanted if topic.name not in topics]
        await _create(admin, settings, missing)
        return [topic.name for topic in missing]


async def _create(admin: Any, settings: KafkaSettings, wanted: list[Any]) -> None:
    if not wanted:
        return
    answer = await admin.create_topics(wanted)
    _raise_refused(answer.topic_errors)
    # A broker learns of new topics a moment after the controller has created them.
    async with asyncio.timeout(settings.request_timeout_s):
        while not {topic.name for topic in wanted} <= set(await _describe(admin, settings)):  # noqa: ASYNC110 - Kafka has no notification
            await asyncio.sleep(_CHECK_AGAIN_S)


def _missing(settings: KafkaSettings, topics: Mapping[str, Topic], partitions: int, replicas: int) -> Iterator[Any]:
    safe = {"min.insync.replicas": str(max(1, replicas - 1)), "unclean.leader.election.enable": "false"}
    events = topics.get(settings.event_topic)
    if events is None:
        events = Topic(settings.event_topic, partitions, replicas, None)
        yield NewTopic(events.name, partitions, replicas, topic_configs={"cleanup.policy": "delete"} | safe)
    if settings.state_topic not in topics:
        yield NewTopic(settings.state_topic, events.partitions, replicas, topic_configs=_COMPACT | safe)
    if settings.dead_letter_topic not in topics:
        # More than the check requires: a record that the shop has compressed well may be larger when we write it.
        keep = {
            "cleanup.policy": "delete",
            "retention.ms": str(90 * _DAY_MS),
            "max.message.bytes": str(2 * events.message_max_bytes),
        }
        yield NewTopic(settings.dead_letter_topic, events.partitions, replicas, topic_configs=keep | safe)
    if settings.results_topic and settings.results_topic not in topics:
        month = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS)}
        yield NewTopic(settings.results_topic, events.partitions, replicas, topic_configs=month | safe)
    if settings.history and settings.history not in topics:
        state = topics.get(settings.state_topic, events)
        yield NewTopic(settings.history, state.partitions, replicas, topic_configs=_COMPACT | safe)


_COMPACT = {
    "cleanup.policy": "compact",
    "segment.ms": str(3 * _HOUR_MS),
    "min.cleanable.dirty.ratio": "0.3",
    "delete.retention.ms": str(_TOMBSTONES_MIN_MS),
    "message.timestamp.type": "CreateTime",
}


def _raise_refused(answers: Iterable[tuple[Any, ...]]) -> None:
    """Raises the errors of single topics, which the library ignores."""
    refused = [
        f"{name}: {kafka_errors.for_code(code).__name__} {' '.join(filter(None, said))}".strip()
        for name, code, *said in answers
        if code not in (0, _EXISTS_ALREADY)
    ]
    if refused:
        raise TopicError("Kafka refused to create " + "; ".join(refused))


@asynccontextmanager
async def _admin(connection: Connection) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(**connection.options(connection.settings.request_timeout_s))
    try:
        await connection.start(admin)
        yield admin
    except kafka_errors.KafkaError as error:
        raise as_cartsync_error(error, "describing the topics") from error
    except TimeoutError as error:
        raise LogError("describing the topics: no response") from error
    finally:
        await admin.close()


async def _described(connection: Connection, *, writes: bool = False) -> dict[str, Topic]:
    """Retries, because the library asks a random broker and gives up if that one is down: a retry asks another."""
    async for attempt in connection.tries():
        with attempt:
            async with _admin(connection) as admin:
                topics = await _describe(admin, connection.settings)
                names = [
                    each for each in (connection.settings.results_topic, connection.settings.history) if each in topics
                ]
                if writes and names:
                    seen = await describe_topics(admin._client, names, connection.settings.request_timeout_s)  # noqa: SLF001
                    for name in names:
                        topics[name] = replace(topics[name], may_write=seen.topics.get(name, GONE).may_write)
                return topics
    raise AssertionError  # the loop ends by returning or raising


async def _describe(admin: Any, settings: KafkaSettings) -> dict[str, Topic]:
    """The topics that exist. Describes all topics of the cluster: describing one by name may create it."""
    names = _names(settings)
    known = {entry["topic"]: entry["partitions"] for entry in await admin.describe_topics() if not entry["error_code"]}
    here = [name for name in names if name in known]
    configs: dict[str, dict[str, str] | None] = dict.fromkeys(here)
    if here:
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in here]):
            for error_code, _said, _kind, name, entries in answer.resources:
                if not error_code:
                    configs[name] = {entry[0]: entry[1] or "" for entry in entries}
                elif (error := kafka_errors.for_code(error_code)) not in REFUSED_ACCESS:
                    raise error  # a broker that does not know a new topic yet, for one
    return {
        name: Topic(name, len(known[name]), min(len(part["replicas"]) for part in known[name]), configs[name])
        for name in here
    }
