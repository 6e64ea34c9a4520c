"""How the Kafka side connects: TLS and passwords, brokers that are not there, brokers that freeze."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.kafka_settings import settings_of
from worker import logs
from worker.errors import ConfigError, LogError
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import check_topics, create_topics
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka

PASSWORD = "open-sesame-42"


class Silent:
    """A listener that has nothing to do."""

    def assigned(self, partitions: set[int]) -> None:
        """ports.AssignmentListener."""

    async def revoked(self, partitions: set[int]) -> None:
        """ports.AssignmentListener."""


def make_certificate(folder: Path) -> Path:
    """Makes `broker.p12` for 127.0.0.1 with keytool, which comes with Java; returns its certificate as PEM."""
    store, pem = folder / "broker.p12", folder / "broker.pem"
    keystore = ["-keystore", str(store), "-storepass", PASSWORD, "-alias", "broker"]
    make = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=broker", "-ext", "SAN=ip:127.0.0.1", "-storetype", "PKCS12"]
    for command in (make, ["-exportcert", "-rfc", "-file", str(pem)]):
        subprocess.run(["keytool", *command, *keystore], check=True, capture_output=True)
    return pem


@pytest.fixture(scope="module")
def certificate(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The broker's certificate."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def guarded(kafka_jars: Path, certificate: Path) -> Iterator[str]:
    """The address of a listener that wants TLS and a password."""
    kafka = LocalKafka(jars=kafka_jars)
    (port,) = free_ports(1)
    plain, controller = kafka.bootstrap, kafka._controller_ports[1]
    kafka._settings |= {
        "listeners": f"CLIENTS://{plain},CONTROLLER://127.0.0.1:{controller},GUARDED://127.0.0.1:{port}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL",
        "listener.name.guarded.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.guarded.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_cartsync="{PASSWORD}";'
        ),
        "ssl.keystore.location": str(certificate.with_suffix(".p12")),
        "ssl.keystore.password": PASSWORD,
        "ssl.keystore.type": "PKCS12",
    }
    with kafka:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def secured(guarded: str, certificate: Path) -> KafkaSettings:
    """Settings that the guarded listener accepts."""
    return replace(
        settings_of(guarded, connect_timeout_s=3.0),
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="cartsync",
        sasl_password=PASSWORD,
        tls_ca_file=str(certificate),
    )


async def test_tls_and_password(secured: KafkaSettings) -> None:
    """With the right certificate and password everything works, and no log line has the password."""
    lines: list[str] = []
    with logs.capture(lines):
        await create_topics(secured, 1)
        states, events = KafkaStateLog(secured), KafkaEventLog(secured)
        await states.start()
        hold = states.partition(0)
        try:
            await events.start(Silent())
            await hold.fence()
            last = await hold.write([(b"a", b"1")])
            assert [entry.value async for entries in hold.read(0, last) for entry in entries] == [b"1"]
        finally:
            await hold.close()
            await events.stop()
    assert lines
    assert PASSWORD not in "".join(lines)


async def test_wrong_password(secured: KafkaSettings) -> None:
    """A wrong password is the operator's error at once, in words that say what to check and not what was given."""
    wrong = replace(secured, sasl_password="guess")
    lines: list[str] = []
    with logs.capture(lines), pytest.raises(ConfigError, match="sasl_username and sasl_password") as raised:
        async with asyncio.timeout(2.0):
            await KafkaStateLog(wrong).start()
    assert "guess" not in str(raised.value) + "".join(lines)


async def test_mechanism_that_is_not_offered(secured: KafkaSettings) -> None:
    """A mechanism that the broker does not offer is the operator's error too."""
    with pytest.raises(ConfigError, match="sasl_mechanism"):
        await check_topics(replace(secured, sasl_mechanism="SCRAM-SHA-512"))


async def test_untrusted_certificate(secured: KafkaSettings) -> None:
    """A broker whose certificate no known authority has signed is not talked to."""
    with pytest.raises(ConfigError, match="tls_ca_file"):
        await check_topics(replace(secured, tls_ca_file=""))


async def test_plain_text_to_a_guarded_listener(guarded: str) -> None:
    """A broker that hangs up on plain text is named, with the setting to look at."""
    with pytest.raises(LogError, match="security_protocol PLAINTEXT"):
        await check_topics(settings_of(guarded, connect_timeout_s=3.0))


async def test_nobody_there() -> None:
    """The start goes on trying for as long as it was told, then names the servers."""
    (port,) = free_ports(1)
    settings = settings_of(f"127.0.0.1:{port}", connect_timeout_s=1.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(LogError, match=str(port)):
        await KafkaEventLog(settings).start(Silent())
    assert 0.3 < loop.time() - began < 8.0


async def test_frozen_broker(kafka_jars: Path) -> None:
    """With a broker that answers nothing a write ends within its time and a close soon after, and nothing is left."""
    with LocalKafka(jars=kafka_jars) as kafka:
        settings = replace(
            settings_of(kafka.bootstrap, connect_timeout_s=3.0),
            commit_timeout_s=1.0,
            fence_timeout_s=1.0,
            transaction_timeout_s=10.0,
        )
        await create_topics(settings, 1)
        states = KafkaStateLog(settings)
        await states.start()
        written, unfenced = states.partition(0), states.partition(0)
        await written.fence()
        await written.write([(b"a", b"1")])
        before = asyncio.all_tasks()
        loop = asyncio.get_running_loop()
        kafka.freeze(1)
        try:
            began = loop.time()
            with pytest.raises(LogError, match="TimeoutError"):
                await written.write([(b"a", b"2")])
            with pytest.raises(LogError, match="TimeoutError"):
                await unfenced.fence()
            assert loop.time() - began < 4.0
            began = loop.time()
            await asyncio.gather(written.close(), unfenced.close())
            assert loop.time() - began < 10.0
        finally:
            kafka.thaw(1)
        await asyncio.sleep(0.2)
        left = asyncio.all_tasks() - before
        assert not left
        # The outcome of the write was unknown: a successor finds out.
        successor = states.partition(0)
        await successor.fence()
        try:
            last = await successor.write([(b"m:owner", b"")])
            found = [entry.value async for entries in successor.read(0, last) for entry in entries]
            assert found in ([b"1", b""], [b"1", b"2", b""])
        finally:
            await successor.close()
