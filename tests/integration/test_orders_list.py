"""`cartsync orders list` over a state topic in a real Kafka."""

import csv
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas import state
from schemas.state import AccountRecord, Operated, OrderRecord, Parking
from tests.integration.topics import RECORD, Desk, State
from tests.kafka_settings import settings_of
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.tools.local_kafka import LocalKafka

PARKED = replace(RECORD, park=Parking("409: Shipment s-1 of anna@example.org is unknown", b"d", 2, 1))


@pytest.fixture
async def settings(kafka: LocalKafka) -> KafkaSettings:
    """Topics of this test's own, of two partitions."""
    found = settings_of(kafka.bootstrap)
    await create_topics(found, 2)
    return found


async def test_finds_what_matches(settings: KafkaSettings, tmp_path: Path) -> None:
    """Each order once, in its newest state, whatever was written before; filters as in the console."""
    topic = State(settings)
    await topic.put(0, ("acme/1", PARKED), ("acme/2", PARKED), ("hats/1", PARKED))
    await topic.put(1, ("acme/3", RECORD), ("acme/4", PARKED))
    await topic.put(0, ("acme/2", RECORD))
    await topic.put(1, ("acme/4", None))
    desk = Desk(settings, tmp_path)
    rows = await desk.json("orders", "list", schema="orders_list")
    assert {(row["subject"], row["status"]) for row in rows} == {
        ("acme/1", "parked"),
        ("acme/2", "owed"),
        ("acme/3", "owed"),
        ("hats/1", "parked"),
    }
    words = ("orders", "list", "--status", "parked", "--account", "acme", "--reason", "409 unknown", "--older", "1h")
    (row,) = await desk.json(*words, schema="orders_list")
    assert (row["subject"], row["partition"], row["shipped_minor"]) == ("acme/1", 0, 100)
    assert "anna" not in row["reason"]
    assert await desk.json("orders", "list", "--reference", "acme/9", schema="orders_list") == []
    ran = await desk.run("orders", "list", "--provider", "sequra", "--csv")
    assert [line[0] for line in csv.reader(ran.out.splitlines())][1:] == ["acme/1", "acme/2", "acme/3"]
    ran = await desk.run("orders", "list", "--status", "owed,settled")
    assert (ran.code, ran.err) == (0, "2 orders\n")
    assert [line.split()[:2] for line in ran.out.splitlines()] == [["acme/2", "owed"], ["acme/3", "owed"]]


async def test_says_what_it_cannot_read(settings: KafkaSettings, tmp_path: Path) -> None:
    """A record that is none is named, and the others are listed all the same; the exit code tells."""
    topic = State(settings)
    await topic.put(0, ("acme/1", RECORD))
    await topic.put(0, ("acme/2", OrderRecord(schema=99, sealed=RECORD.sealed)))
    desk = Desk(settings, tmp_path)
    ran = await desk.run("orders", "list")
    assert ran.code in (0, 72)
    (refused,) = await desk.json("orders", "list", "--older", "soon", schema="error", code=2)
    assert refused["problems"] == ["older: expected a time such as 30s, 15m, 6h or 2d, got 'soon'"]
    await topic.raw(1, b"o:acme/3", b"not a record")
    ran = await desk.run("orders", "list", "--json")
    assert ran.code == 72
    assert ran.err.startswith("acme/3: left out, because its record in partition 1 was not written by cartsync")
    assert '"acme/1"' in ran.out


async def test_accounts(settings: KafkaSettings, tmp_path: Path) -> None:
    """`account list`: the configured ones and those that the topic knows; by whom each is paused; what waits."""
    topic = State(settings)
    await topic.put(0, ("acme/1", PARKED), ("hats/1", RECORD))
    await topic.put(1, ("acme/3", RECORD))
    deed = Operated("pause", "ana", "maintenance", 1_700_000_000_000, True, "paused", b"12345678")
    for partition in (0, 1):
        await topic.raw(partition, b"a:acme", state.encode(AccountRecord(1, deed, (deed,))))
    desk = Desk(settings, tmp_path)
    acme, hats = await desk.json("account", "list", schema="account_list")
    assert (acme["name"], acme["provider"], acme["host"], acme["merchant"]) == ("acme", "sequra", "127.0.0.1:9", "acme")
    assert (acme["paused_by"], acme["paused_since_ms"], acme["not_paused_in"]) == ("ana", 1_700_000_000_000, [])
    assert [(each["owed"], each["parked"]) for each in (acme, hats)] == [(1, 1), (1, 0)]
    assert (hats["provider"], hats["host"], hats["paused_by"]) == (None, None, None)
    ran = await desk.run("account", "list", "--no-orders")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1].split()[:2] == ["acme", "sequra"]
    assert " ago: maintenance" in ran.out
    await topic.raw(0, b"a:acme", state.encode(AccountRecord(1)))
    (acme,) = await desk.json("account", "list", "--no-orders", schema="account_list")
    assert (acme["paused_by"], acme["not_paused_in"], acme["owed"]) == ("ana", [0], None)


async def test_no_kafka(tmp_path: Path, settings: KafkaSettings) -> None:
    """It says what is missing, or what does not answer."""
    desk = Desk(settings, tmp_path)
    (tmp_path / "cartsync.toml").write_text("")
    (refused,) = await desk.json("orders", "list", schema="error", code=64)
    assert refused["problems"][0].startswith("[kafka] bootstrap_servers is missing")
