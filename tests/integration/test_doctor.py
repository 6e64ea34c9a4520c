"""`cartsync doctor` against a real Kafka and the sandboxes of providers: what works, and each thing that does not."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import OpenStage
from tests.integration.topics import Desk
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT
from worker.kafka.client import AIOKafkaConsumer, TopicPartition
from worker.kafka.examining import examination
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.tools.local_kafka import LocalKafka


def found(checks: list[dict[str, Any]], area: str, result: str) -> list[str]:
    """What was found in an area with this result."""
    return [
        f"{each['name']}: {each['text']}".removeprefix(": ")
        for each in checks
        if (each["area"], each["result"]) == (area, result)
    ]


@pytest.fixture
async def settings(kafka: LocalKafka) -> KafkaSettings:
    """Topics of this test's own."""
    own = settings_of(kafka.bootstrap)
    await create_topics(own, 1)
    return own


async def test_all_works(open_stage: OpenStage) -> None:
    """Each line is ok, but for what a laptop lacks; and the people's words name the way out."""
    stage = await open_stage(partitions=1)
    await stage.started()
    ran = await stage.command("doctor", "--json", within_s=60)
    checks = Desk.checked(ran, "doctor", 0)
    assert not [each for each in checks if each["result"] == "fail"]
    assert found(checks, "brokers", "ok")[0].startswith("1 of 1 respond")
    assert len(found(checks, "permissions", "ok")) == 6
    assert "transactions work; the broker's clock is" in found(checks, "clock", "ok")[0]
    assert "Stable, 1 members" in found(checks, "group", "ok")[0]
    assert sum("seQura accepts the credentials" in each for each in found(checks, "provider", "ok")) == 2
    assert found(checks, "topics", "warn") == [
        f"{stage.settings.state_topic}: {stage.settings.state_topic} has 1 replica: with 3 it survives the loss of a broker"
    ]
    wrong = await stage.command("doctor", within_s=60, **{f"CARTSYNC_ACCOUNTS__{ACCOUNT.upper()}__PASSWORD": "another"})
    assert wrong.code == 1
    assert f"fail  provider {ACCOUNT}: seQura rejects the credentials (401" in wrong.out
    assert f"cartsync account resume {ACCOUNT}" in wrong.out


async def test_what_fails(settings: KafkaSettings, tmp_path: Path) -> None:
    """A topic that is missing, a provider that does not answer, a name that nobody knows, no configuration."""
    desk = Desk(
        settings,
        tmp_path,
        **{
            "accounts.lost": {
                "provider": "sequra",
                "merchant_id": "m",
                "username": "u",
                "password": "p",
                "base_url": "https://nobody.invalid",
            },
        },
    )
    text = (tmp_path / "cartsync.toml").read_text()
    (tmp_path / "cartsync.toml").write_text(text.replace(settings.results_topic, "not.there"))
    checks = await desk.json("doctor", schema="doctor", code=1)
    assert any("topic not.there does not exist" in each for each in found(checks, "topics", "fail"))
    assert "nobody.invalid cannot be looked up" in found(checks, "provider", "fail")[-1]
    assert any("seQura does not answer" in each for each in found(checks, "provider", "fail"))
    assert any("nothing is encrypted" in each for each in found(checks, "provider", "warn"))
    assert found(checks, "group", "warn") == [f"{settings.group_id}: no worker is running"]
    (tmp_path / "cartsync.toml").write_text("")
    checks = await desk.json("doctor", schema="doctor", code=1)
    assert {each["area"] for each in checks} >= {"configuration"}
    (tmp_path / "cartsync.toml").write_text('[kafka]\nbootstrap_servers = "127.0.0.1:1"\nconnect_timeout = "1s"\n')
    checks = await desk.json("doctor", schema="doctor", code=1)
    assert "no Kafka broker responds at 127.0.0.1:1" in found(checks, "brokers", "fail")[0]


async def test_looking_at_the_clock_leaves_nothing_behind(settings: KafkaSettings) -> None:
    """Twice in a row; no record is in the topic, and nothing is open in it."""
    async with examination(settings) as kafka:
        for _ in range(2):
            clock = await kafka.clock()
            assert clock is not None
            assert abs(clock.ahead_ms) <= clock.within_ms + 1_000  # the same machine
    here = TopicPartition(settings.dead_letter_topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.assign([here])
        await consumer.seek_to_beginning(here)
        assert await consumer.getmany(here, timeout_ms=1_000) == {}
        high, stable = consumer.highwater(here), consumer.last_stable_offset(here)
        assert high == stable
    finally:
        await consumer.stop()
