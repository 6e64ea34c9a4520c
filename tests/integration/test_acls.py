"""The permissions of `deploy/ACLS.md`: with them a worker does all of its work, without one of them it says which."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from msgspec.structs import replace

from tests.integration.harness import PROJECT, Stage
from tests.integration.process import until
from tests.shops.by_hand import ACCOUNT, line
from worker.kafka.settings import KafkaSettings
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka

PASSWORD = "open-sesame-42"
RESOURCES = {"--topic": 2, "--group": 3, "--transactional-id": 5}
PATTERNS = {"literal": 3, "prefixed": 4}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
"""As Kafka's protocol numbers them."""
ALLOW = 3
READS = shlex.split(
    "--allow-principal User:cartsync --operation Describe --operation DescribeConfigs --resource-pattern-type literal"
)


@pytest.fixture
def guarded(kafka_jars: Path) -> Iterator[tuple[LocalKafka, int]]:
    """A Kafka with ACLs, and the port on which a password says who one is; who comes without one may do all."""
    kafka = LocalKafka(jars=kafka_jars)
    (port,) = free_ports(1)
    plain, controller = kafka.bootstrap, kafka._controller_ports[1]
    kafka._settings |= {
        "listeners": f"CLIENTS://{plain},CONTROLLER://127.0.0.1:{controller},GUARDED://127.0.0.1:{port}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
        "listener.name.guarded.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.guarded.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'user_cartsync="{PASSWORD}" user_operator="{PASSWORD}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with kafka:
        yield kafka, port


def printed(settings: KafkaSettings, **more: str) -> list[list[str]]:
    """The commands of the script, each as its words."""
    names = {
        "BOOTSTRAP": settings.bootstrap_servers,
        "GROUP_ID": settings.group_id,
        "TRANSACTIONAL_ID_PREFIX": settings.transactional_id_prefix,
        "EVENT_TOPIC": settings.event_topic,
        "STATE_TOPIC": settings.state_topic,
        "DEAD_LETTER_TOPIC": settings.dead_letter_topic,
        "RESULTS_TOPIC": settings.results_topic,
        "HISTORY_TOPIC": settings.history,
    }
    environment = {"PATH": os.environ["PATH"]} | names | more
    out = subprocess.check_output([PROJECT / "deploy" / "kafka-acls.sh"], text=True, env=environment)
    return [shlex.split(each) for each in out.splitlines()]


def granted(words: list[str]) -> list[tuple[Any, ...]]:
    """What one command allows, as the arguments of a request to a broker."""
    assert words[:4] == ["kafka-acls.sh", "--bootstrap-server", words[2], "--add"]
    options = list(zip(words[4::2], words[5::2], strict=True))
    given = dict(options)
    ((resource, name),) = [each for each in options if each[0] in RESOURCES]
    return [
        (
            RESOURCES[resource],
            name,
            PATTERNS[given["--resource-pattern-type"]],
            given["--allow-principal"],
            "*",
            OPERATIONS[operation],
            ALLOW,
        )
        for option, operation in options
        if option == "--operation"
    ]


async def allow(kafka: LocalKafka, commands: list[list[str]]) -> None:
    """Does what the commands would do."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        for arguments in [each for words in commands for each in granted(words)]:
            answer = await admin._client.send(1, CreateAclsRequest(*arguments))
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


@pytest.mark.slow
async def test_the_permissions_of_the_page(guarded: tuple[LocalKafka, int], tmp_path: Path) -> None:
    """A worker that may do what the script grants takes events, refuses some, tells orders and leaves in order; before
    that it says what it lacks. An operator makes the topics and reads the state, and writes nothing.
    """
    kafka, port = guarded
    async with Stage(kafka.bootstrap, tmp_path / "stage", 2) as stage:
        stage.configure(
            kafka={
                "bootstrap_servers": f"127.0.0.1:{port}",
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_username": "cartsync",
                "sasl_password": PASSWORD,
            }
        )
        refused = stage.start()
        assert await refused.ended(within_s=30) == 72
        assert "grant Describe" in refused.tail()
        granted_later = printed(stage.settings, OPERATOR="User:operator", SHOP="User:shop")
        results = stage.settings.results_topic
        await allow(kafka, [words for words in granted_later if results not in words])
        await allow(kafka, [[*printed(stage.settings, WORKER="User:cartsync")[0][:4], *READS, "--topic", results]])
        refused = stage.start()
        assert await refused.ended(within_s=30) == 72
        assert f"--allow-principal User:cartsync --topic {results} --operation Write" in refused.tail()
        await allow(kafka, [words for words in granted_later if results in words])
        worker = await stage.started()
        order = stage.order(f"{ACCOUNT}/1")
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
        await stage.write(order.subject.encode(), b"not json")
        await stage.agreed({order.subject: (1000, 0)})
        await until(lambda: bool(worker.log("event_refused")), 10, stage.tails)
        worker.terminate()
        assert await worker.ended() == 0
        assert not [each for each in worker.log() if "permission" in str(each)]
        for words, code in (("topics", "check"), 0), (("order", "show", order.subject), 0), (("run",), 72):
            ran = await stage.command(*words, CARTSYNC_KAFKA__SASL_USERNAME="operator")
            assert ran.code == code, ran


def test_words_of_the_script() -> None:
    """Names are quoted, and only who is named is granted something."""
    settings = KafkaSettings(bootstrap_servers="k:1", group_id="it's mine")
    commands = printed(settings, COMMAND_CONFIG="a b.properties", WORKER="User:x y")
    assert len(commands) == 7
    assert all(words[4:6] == ["--command-config", "a b.properties"] or "a b.properties" in words for words in commands)
    assert {words[words.index("--allow-principal") + 1] for words in commands} == {"User:x y"}
    assert [words[words.index("--group") + 1] for words in commands if "--group" in words] == ["it's mine"]
    assert len(printed(settings, SHOP="User:s", OPERATOR="User:o")) == 14
    console = [words for words in printed(settings, CONSOLE="User:c") if "User:c" in words]
    assert [words[words.index("--operation") + 1] for words in console] == ["Describe", *["Read"] * 4]
    without = printed(
        replace(settings, results_topic="", history_topic=""), SHOP="User:s", OPERATOR="User:o", READER="User:r"
    )
    assert len(without) == 10
    replayer = [words for words in printed(settings, REPLAYER="User:p") if "User:p" in words]
    assert len(replayer) == 4
    assert f"{settings.transactional_id_prefix}.{settings.event_topic}.letters." in replayer[-1]
    assert "User:r" in str(printed(settings, READER="User:r"))
