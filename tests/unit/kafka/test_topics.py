"""What is said about topics that are not as the protocol needs them."""

import pytest
from msgspec.structs import replace

from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import Topic, judge

SETTINGS = KafkaSettings(
    bootstrap_servers="kafka:9092",
    event_topic="in",
    state_topic="state",
    dead_letter_topic="dlq",
    results_topic="results",
)
CONFIG = {"max.message.bytes": "1048588", "min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
SOUND = {
    "in": Topic("in", 12, 3, CONFIG | {"cleanup.policy": "delete", "retention.ms": "604800000"}),
    "state": Topic("state", 12, 3, CONFIG | {"cleanup.policy": "compact", "delete.retention.ms": "172800000"}),
    "dlq": Topic("dlq", 1, 3, CONFIG | {"cleanup.policy": "delete", "max.message.bytes": "1114124"}),
    "results": Topic("results", 3, 3, CONFIG | {"cleanup.policy": "delete"}),
    "state.history": Topic("state.history", 12, 3, CONFIG | {"cleanup.policy": "compact"}),
}


def test_sound_topics() -> None:
    """Topics as the protocol needs them give no finding; the dead letters need no partition of their own each."""
    assert judge(SETTINGS, SOUND) == []


def test_endless_retention_is_long() -> None:
    """A retention of −1 keeps everything."""
    config = {**(SOUND["in"].config or {}), "retention.ms": "-1"}
    assert judge(SETTINGS, SOUND | {"in": replace(SOUND["in"], config=config)}) == []


@pytest.mark.parametrize(
    ("name", "setting", "value", "level", "said"),
    [
        ("in", "cleanup.policy", "compact,delete", "error", "only the last event"),
        ("in", "retention.ms", "86399999", "warning", "only 24 h"),
        ("in", "message.timestamp.after.max.ms", "86400001", "warning", "proves nothing"),
        ("in", "message.timestamp.after.max.ms", "9223372036854775807", "warning", "proves nothing"),
        ("in", "message.timestamp.difference.max.ms", "9223372036854775807", "warning", "proves nothing"),
        ("in", "max.decompressed.message.bytes", "67108865", "warning", "max.decompressed.message.bytes to 67108864"),
        ("in", "max.decompressed.message.bytes", "-1", "warning", "gets the error"),
        ("state", "cleanup.policy", "delete", "error", "deletes orders"),
        ("state", "cleanup.policy", "compact,delete", "error", "deletes orders"),
        ("state", "min.insync.replicas", "1", "warning", "min.insync.replicas"),
        ("state", "unclean.leader.election.enable", "true", "warning", "unclean"),
        ("state", "delete.retention.ms", "172799999", "warning", "tombstones after 48 h"),
        ("dlq", "cleanup.policy", "compact", "error", "without a key"),
        ("dlq", "max.message.bytes", "1114123", "error", "1114124 or more"),
        ("results", "max.message.bytes", "65535", "error", "65536 or more"),
        ("state.history", "cleanup.policy", "delete", "error", "set it to compact"),
        ("state.history", "max.message.bytes", "16383", "error", "16384 or more"),
    ],
)
def test_setting(name: str, setting: str, value: str, level: str, said: str) -> None:
    """Each setting that the protocol needs is judged, with its level and the way to mend it."""
    topic = replace(SOUND[name], config={**(SOUND[name].config or {}), setting: value})
    (finding,) = judge(SETTINGS, SOUND | {name: topic})
    assert (finding.level, finding.topic) == (level, name)
    assert said in finding.text


def test_partition_counts_must_be_equal() -> None:
    """An order's state would lie in another partition than its events."""
    (finding,) = judge(SETTINGS, SOUND | {"state": replace(SOUND["state"], partitions=11)})
    assert finding.level == "error"
    assert "11 partitions and in has 12" in finding.text


def test_few_replicas_are_a_warning() -> None:
    """One broker is enough for a laptop, and is said to be few."""
    for replicas, said in ((1, "has 1 replica:"), (2, "has 2 replicas:")):
        (finding,) = judge(SETTINGS, SOUND | {"state": replace(SOUND["state"], replicas=replicas)})
        assert finding.level == "warning"
        assert said in finding.text


def test_missing_topics() -> None:
    """Each missing topic is an error of its own."""
    findings = judge(SETTINGS, {})
    assert all("cartsync topics create" in finding.text for finding in findings)
    assert [(finding.level, finding.topic) for finding in findings] == [
        ("error", "in"),
        ("error", "state"),
        ("error", "dlq"),
        ("error", "results"),
        ("error", "state.history"),
    ]


def test_results_that_nobody_wants() -> None:
    """Without a name for it there need be no such topic."""
    without = replace(SETTINGS, results_topic="", history_topic="")
    assert judge(without, {name: SOUND[name] for name in ("in", "state", "dlq")}) == []


@pytest.mark.parametrize("name", ["results", "state.history"])
def test_topic_that_may_not_be_written(name: str) -> None:
    """The permission that is missing is said as the command that gives it."""
    refused = SOUND | {name: replace(SOUND[name], may_write=False)}
    for settings, who in ((SETTINGS, "PRINCIPAL"), (replace(SETTINGS, sasl_username="cartsync"), "User:cartsync")):
        (finding,) = judge(settings, refused)
        assert (finding.level, finding.topic) == ("error", name)
        assert f"--allow-principal {who} --topic {name} --operation Write" in finding.text
        assert '_topic = ""' in finding.text


def test_history_lies_beside_the_state() -> None:
    """It may have more partitions, not fewer: each order's is in the one with the number of its state's."""
    (finding,) = judge(SETTINGS, SOUND | {"state.history": replace(SOUND["state.history"], partitions=11)})
    assert (finding.level, finding.topic) == ("error", "state.history")
    assert "11 partitions and state has 12" in finding.text
    assert judge(SETTINGS, SOUND | {"state.history": replace(SOUND["state.history"], partitions=13)}) == []


@pytest.mark.parametrize("name", SOUND)
def test_unreadable_configuration(name: str) -> None:
    """What cannot be checked is not taken on trust."""
    (finding,) = judge(SETTINGS, SOUND | {name: replace(SOUND[name], config=None)})
    assert finding.level == "error"
    assert "DescribeConfigs" in finding.text


def test_errors_come_first() -> None:
    """A warning does not hide an error."""
    config = {**(SOUND["in"].config or {}), "retention.ms": "1"}
    findings = judge(
        SETTINGS, SOUND | {"in": replace(SOUND["in"], config=config), "dlq": replace(SOUND["dlq"], config=None)}
    )
    assert [finding.level for finding in findings] == ["error", "warning"]


@pytest.mark.parametrize(
    "config",
    [
        {"message.timestamp.after.max.ms": "3600000", "message.timestamp.difference.max.ms": "9223372036854775807"},
        {"message.timestamp.after.max.ms": "9223372036854775807", "message.timestamp.type": "LogAppendTime"},
        {"max.decompressed.message.bytes": "67108864"},
    ],
)
def test_bounded_producers(config: dict[str, str]) -> None:
    """Brokers that hold producers to a limit give no finding."""
    events = replace(SOUND["in"], config={**(SOUND["in"].config or {}), **config})
    assert judge(SETTINGS, SOUND | {"in": events}) == []


def test_batches_that_are_never_read_whole() -> None:
    """A topic that takes more than is read is named, with what to set."""
    size = {"max.message.bytes": "100000000"}
    events = replace(SOUND["in"], config={**(SOUND["in"].config or {}), **size})
    dead = replace(SOUND["dlq"], config={**(SOUND["dlq"].config or {}), "max.message.bytes": "200000000"})
    [finding] = judge(SETTINGS, SOUND | {"in": events, "dlq": dead})
    assert (finding.level, "only 67108864 are" in finding.text) == ("warning", True)
