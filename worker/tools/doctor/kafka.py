"""What `cartsync doctor` says of Kafka: brokers, topics, permissions, the group, the clock."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from schemas.commands import DoctorCheck
from worker.config import WorkerSection
from worker.errors import CartsyncError, ConfigError
from worker.kafka.examining import OPERATIONS, BrokerSeen, ClockSeen, Examination, examination
from worker.kafka.group import describe_group
from worker.kafka.metadata import TopicSeen
from worker.kafka.settings import KafkaSettings
from worker.tools.topics import topic_findings

SKEW_WARN_MS, SKEW_FAIL_MS = 2_000.0, 300_000.0
"""Ages, delays and the check of an event's time go by the clocks of their machines."""
_ACLS = "grant it: deploy/ACLS.md lists what is needed, deploy/kafka-acls.sh prints the commands"
_AGAIN = "mend what failed above, then look again: the brokers may still be starting; if it stays, their logs say more"


async def kafka_checks(settings: KafkaSettings, worker: WorkerSection) -> AsyncIterator[DoctorCheck]:
    """Each as it is made; when no broker responds, that is the last."""
    try:
        async with examination(settings) as kafka:
            for check in broker_checks(await kafka.brokers()):
                yield check
            async for check in _of_topics(settings, worker, kafka):
                yield check
            async for check in _of_group(settings, kafka):
                yield check
            yield await _of_clock(kafka)
    except CartsyncError as error:
        action = "see whether bootstrap_servers, security_protocol and credentials of [kafka] are right, and Kafka runs"
        yield DoctorCheck("brokers", "", "fail", str(error), action)


def broker_checks(brokers: Sequence[BrokerSeen]) -> Iterator[DoctorCheck]:
    """One line for all that respond, one for each that does not."""
    for broker in brokers:
        if broker.problem:
            text = f"the cluster names it, and it does not respond ({broker.problem})"
            action = "see whether it runs, and whether advertised.listeners is an address that can be reached from here"
            yield DoctorCheck("brokers", broker.address, "fail", text, action)
    if up := [broker for broker in brokers if not broker.problem]:
        slowest = max(broker.took_ms for broker in up)
        yield DoctorCheck("brokers", "", "ok", f"{len(up)} of {len(brokers)} respond, within {slowest:.0f} ms", "")


async def _of_topics(settings: KafkaSettings, worker: WorkerSection, kafka: Examination) -> AsyncIterator[DoctorCheck]:
    try:
        findings = await topic_findings(settings, worker)
    except CartsyncError as error:
        yield DoctorCheck("topics", "", "fail", str(error), _action(error))
    else:
        for finding in findings:
            yield DoctorCheck("topics", finding.topic, "fail" if finding.level == "error" else "warn", finding.text, "")
        if not findings:
            yield DoctorCheck("topics", "", "ok", "they are as they should be", "")
    try:
        seen = await kafka.topics()
    except CartsyncError as error:
        yield DoctorCheck("permissions", "", "warn", str(error), _action(error))
        return
    for check in permission_checks(settings, seen):
        yield check


def permission_checks(settings: KafkaSettings, seen: Mapping[str, TopicSeen]) -> Iterator[DoctorCheck]:
    """What a worker needs, as far as brokers say what we may."""
    needed = {
        settings.event_topic: ("Read", "DescribeConfigs"),
        settings.state_topic: ("Read", "Write", "DescribeConfigs"),
        settings.dead_letter_topic: ("Write", "DescribeConfigs"),
        settings.results_topic: ("Write", "DescribeConfigs"),
        settings.history: ("Write", "DescribeConfigs"),
    }
    for topic, names in needed.items():
        if topic in seen:
            yield operations_check(f"topic {topic}", seen[topic].operations, names)


def operations_check(name: str, operations: int | None, needed: Sequence[str]) -> DoctorCheck:
    """Whether these are among the operations that brokers report."""
    if operations is None:
        text = "the brokers do not say what we may do"
        return DoctorCheck("permissions", name, "warn", text, "deploy/ACLS.md lists what is needed")
    missing = [each for each in needed if not operations & 1 << OPERATIONS[each]]
    if missing:
        return DoctorCheck("permissions", name, "fail", f"{' and '.join(missing)} is missing", _ACLS)
    return DoctorCheck("permissions", name, "ok", f"{', '.join(needed)}", "")


async def _of_group(settings: KafkaSettings, kafka: Examination) -> AsyncIterator[DoctorCheck]:
    name = settings.group_id
    try:
        yield operations_check(f"group {name}", await kafka.group_operations(), ("Read",))
        group = await describe_group(settings)
    except CartsyncError as error:
        yield DoctorCheck("group", name, "fail", str(error), _action(error))
        return
    if group.members:
        members = ", ".join(map(str, group.members))
        yield DoctorCheck("group", name, "ok", f"{group.state}, {len(group.members)} members: {members}", "")
    else:
        yield DoctorCheck("group", name, "warn", "no worker is running", "start one, if one should")


async def _of_clock(kafka: Examination) -> DoctorCheck:
    try:
        return clock_check(await kafka.clock())
    except CartsyncError as error:
        return DoctorCheck("permissions", "transactional id", "fail", str(error), _action(error))


def _action(error: CartsyncError) -> str:
    """What to do: only what was refused can be granted."""
    return _ACLS if isinstance(error, ConfigError) else _AGAIN


def clock_check(clock: ClockSeen | None) -> DoctorCheck:
    """`None`: it cannot be seen."""
    if clock is None:
        text = "transactions work; these brokers do not tell their time (Kafka 3.0 and newer do)"
        return DoctorCheck(
            "clock", "broker", "warn", text, "compare the clocks by hand, or see that NTP runs everywhere"
        )
    way = "ahead of" if clock.ahead_ms > 0 else "behind"
    text = (
        f"transactions work; the broker's clock is {abs(clock.ahead_ms) / 1000:.2f} s {way} ours, give or take "
        f"{clock.within_ms / 1000:.2f} s"
    )
    skew_ms = max(0.0, abs(clock.ahead_ms) - clock.within_ms)
    if skew_ms <= SKEW_WARN_MS:
        return DoctorCheck("clock", "broker", "ok", text, "")
    action = "let NTP or chrony set both clocks: ages and delays of orders go by them"
    return DoctorCheck("clock", "broker", "fail" if skew_ms > SKEW_FAIL_MS else "warn", text, action)
