"""The Kafka that the other tests stand on."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from worker.tools.kafka_ports import known_brokers
from worker.tools.local_kafka import LocalKafka, LocalKafkaError


async def _create_topic(bootstrap: str, topic: str, replicas: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, replicas)])
    finally:
        await admin.close()


async def _topic_config(bootstrap: str, topic: str) -> Mapping[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    ((_error, _message, _kind, _name, entries),) = answer.resources
    return {entry[0]: entry[1] for entry in entries}


async def _produce(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def _consume_one(bootstrap: str, topic: str) -> bytes | None:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(20):
            record = await consumer.getone()
    value: bytes | None = record.value
    return value


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _becomes_true(condition: Callable[[], bool], within_s: float = 20) -> bool:
    give_up_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


async def test_a_record_is_produced_and_consumed(kafka: LocalKafka) -> None:
    """A node that counts as started serves admin, producer and consumer."""
    await _create_topic(kafka.bootstrap, "local-kafka-once")
    await _produce(kafka.bootstrap, "local-kafka-once", b"here")
    assert await _consume_one(kafka.bootstrap, "local-kafka-once") == b"here"


@pytest.mark.slow
async def test_a_killed_node_keeps_its_data(kafka_jars: Path) -> None:
    """What was acknowledged before SIGKILL is there after `restart`, at the same address."""
    soon = {"broker.session.timeout.ms": 3_000, "broker.heartbeat.interval.ms": 500}
    with LocalKafka(jars=kafka_jars, settings=soon) as kafka:
        await _create_topic(kafka.bootstrap, "kept")
        await _produce(kafka.bootstrap, "kept", b"still here")
        before = kafka.pid(1)
        kafka.kill(1)
        assert not kafka.is_running(1)
        assert not _exists(before)
        # From a thread that ends: the node must outlive it.
        restarting = threading.Thread(target=kafka.restart, args=(1,))
        restarting.start()
        await asyncio.to_thread(restarting.join)
        assert kafka.pid(1) != before
        assert await _consume_one(kafka.bootstrap, "kept") == b"still here"


@pytest.mark.slow
async def test_three_nodes_replicate(kafka_jars: Path) -> None:
    """Three nodes know each other, and a write needs two of them."""
    with LocalKafka(nodes=3, jars=kafka_jars, settings={"log.retention.hours": 7}) as kafka:
        assert kafka.nodes == (1, 2, 3)
        await _create_topic(kafka.bootstrap, "replicated", replicas=3)
        config = await _topic_config(kafka.bootstrap, "replicated")
        assert config["min.insync.replicas"] == "2"
        assert config["retention.ms"] == str(7 * 3_600_000)
        await _produce(kafka.bootstrap, "replicated", b"thrice")
        assert await _consume_one(kafka.bootstrap, "replicated") == b"thrice"


@pytest.mark.slow
def test_a_frozen_node_is_silent_until_thawed(kafka_jars: Path) -> None:
    """`freeze` leaves the process and takes its answers; `stop` ends a frozen node too and leaves nothing."""
    kafka = LocalKafka(jars=kafka_jars)
    kafka.start()
    assert kafka._reaper is not None
    assert kafka._folder is not None
    port = int(kafka.bootstrap.split(":")[1])
    pids = [kafka.pid(1), kafka._reaper.pid]
    folder = kafka._folder
    kafka.freeze(1)
    assert kafka.is_running(1)
    assert known_brokers(port) == set()
    kafka.thaw(1)
    assert _becomes_true(lambda: known_brokers(port) == {1})
    kafka.freeze(1)
    kafka.stop()
    assert not any(_exists(pid) for pid in pids)
    assert not folder.exists()
    kafka.stop()


def test_a_setting_that_kafka_refuses_is_reported(kafka_jars: Path) -> None:
    """The message carries what Kafka said."""
    with pytest.raises(LocalKafkaError, match=r"log\.retention\.hours"):
        LocalKafka(jars=kafka_jars, settings={"log.retention.hours": "soon"}).start()


def test_a_taken_port_is_reported(kafka: LocalKafka, kafka_jars: Path) -> None:
    """A fixed port that somebody listens on is refused before anything starts."""
    port = int(kafka.bootstrap.split(":")[1])
    with pytest.raises(LocalKafkaError, match=f"port {port} .* in use"):
        LocalKafka(jars=kafka_jars, port=port).start()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "exit_code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 0), (signal.SIGINT, 0)],
    ids=["SIGKILL", "SIGTERM", "SIGINT"],
)
def test_nothing_outlives_the_program(kafka_jars: Path, tmp_path: Path, how: signal.Signals, exit_code: int) -> None:
    """However the owner ends, its node ends too and the temporary folder is gone."""
    command = [sys.executable, "-m", "worker.tools.local_kafka", f"--jars={kafka_jars}"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", owner.stdout.readline())
        assert found
        port = int(found[1])
        assert known_brokers(port) == {1}
        owner.send_signal(how)
        assert owner.wait(20) == exit_code
    assert _becomes_true(lambda: not any(tmp_path.glob("cartsync-kafka-*")))
    assert _becomes_true(lambda: known_brokers(port) == set())
