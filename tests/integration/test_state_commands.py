"""`cartsync state export` and `cartsync state verify` over what a real worker has written."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from msgspec.structs import replace

from schemas import state
from schemas.facts import open_facts, seal_facts
from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.topics import RECORD, Desk, State
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT, line
from worker.kafka.state import find_orders
from worker.kafka.topics import create_topics
from worker.tools.local_kafka import LocalKafka

pytestmark = pytest.mark.slow


async def played(stage: Stage) -> None:
    """Three orders, each told to the provider, and an event that is refused; the worker has left."""
    worker = await stage.started()
    for number in range(3):
        order = stage.order(f"{ACCOUNT}/A{number}")
        await order.tell(
            "confirmed",
            currency="EUR",
            lines=[line("mug", 1000, 2, name="Anna's mug")],
            customer={"given_names": "Anna", "surnames": "Berg", "email": "anna@example.org"},
        )
        await order.ship("s1", mug=1)
        await order.ship("s2", mug=1)
    await stage.order(f"{ACCOUNT}/A0", told=9).ship("s3", mug=-1)
    await stage.dead_letters(1)
    await stage.agreed({f"{ACCOUNT}/A{number}": (2000, 0) for number in range(3)})
    worker.terminate()
    assert await worker.ended(30) == 0


async def test_verify(open_stage: OpenStage) -> None:
    """All agrees; then a fact is changed, an order removed, older input retained no more: each is named, or left."""
    stage = await open_stage(partitions=1)
    await played(stage)
    (summary,) = await stage_json(stage, "state", "verify")
    assert (summary["agrees"], summary["differs"], summary["not_checked"]) == (3, 0, 0)
    assert (summary["events"], summary["notes"]) == (10, [])

    topic, subject = State(stage.settings), f"{ACCOUNT}/A1"
    found = await find_orders(stage.settings, lambda name: name == subject, lambda _behind, _total: None)
    record = state.decode_order(found[0][2])
    facts = open_facts(record.sealed)
    facts.shipments.pop("s2")
    await topic.put(0, (subject, replace(record, sealed=seal_facts(facts))), (f"{ACCOUNT}/A2", None))
    await topic.put(0, ("acme/ghost", RECORD))
    lines = await stage_json(stage, "state", "verify", code=1)
    texts = {each["subject"]: each["text"] for each in lines[:-1]}
    assert "shipments (s2 is missing)" in texts[subject]
    assert texts[f"{ACCOUNT}/A2"] == "the state has no such order, though the input has 3 events of it"
    assert "has no event of it" in texts["acme/ghost"]
    assert (lines[-1]["agrees"], lines[-1]["differs"]) == (1, 3)
    (changed,) = [each for each in lines[:-1] if each["subject"] == subject]
    assert (changed["state_shipped_minor"], changed["input_shipped_minor"]) == (1000, 2000)
    ran = await stage.command("state", "verify")
    assert ran.code == 1
    assert "the state has 1000 shipped, 1000 to ship; the input 2000 shipped, 0 to ship" in ran.out

    admin = AIOKafkaAdminClient(bootstrap_servers=stage.settings.bootstrap_servers)
    await admin.start()
    await admin.delete_records({TopicPartition(stage.settings.event_topic, 0): RecordsToDelete(before_offset=7)})
    await admin.close()
    lines = await stage_json(stage, "state", "verify", code=1)
    assert [each["subject"] for each in lines[:-1]] == [f"{ACCOUNT}/A2"]
    assert lines[-1]["notes"] == ["partition 0: the input begins at offset 7: older events are gone"]
    (refused,) = await stage_json(stage, "state", "verify", "--partition", "4", schema="error", code=2)
    assert refused["problems"] == ["--partition 4: there are 1, the first is 0"]


async def stage_json(stage: Stage, *words: str, schema: str = "state_verify", code: int = 0) -> list[Any]:
    """As `Desk.json`, with the configuration of the workers."""
    return Desk.checked(await stage.command(*words, "--json"), schema, code)


async def test_export(open_stage: OpenStage) -> None:
    """Every order and each partition; nothing personal unless it was asked for."""
    stage = await open_stage(partitions=2)
    await played(stage)
    lines = await stage_json(stage, "state", "export", schema="state_export")
    orders = [each for each in lines if each["type"] == "order"]
    assert sorted(each["order"]["subject"] for each in orders) == [f"{ACCOUNT}/A{number}" for number in range(3)]
    assert {each["order"]["status"] for each in orders} == {"settled"}
    assert orders[0]["shipped"] == [
        {"type": "product", "reference": "mug", "name": None, "quantity": 2, "total_minor": 2000}
    ]
    assert "Anna" not in json.dumps(lines)
    parts = [each for each in lines if each["type"] == "partition"]
    assert [(each["partition"], each["left_in_order"], each["owner"] != "") for each in parts] == [
        (0, True, True),
        (1, True, True),
    ]
    assert sum(each["orders"] for each in parts) == 3
    personal = await stage_json(stage, "state", "export", "--personal", schema="state_export")
    (first, *_) = [each for each in personal if each["type"] == "order"]
    assert first["personal"]["details"]["customer"]["email"] == "anna@example.org"
    assert first["shipped"][0]["name"] == "Anna's mug"


async def test_what_cannot_be_read(kafka: LocalKafka, tmp_path: Path) -> None:
    """Records that cartsync did not write: exported without them, verified as differences."""
    settings = settings_of(kafka.bootstrap)
    await create_topics(settings, 1)
    topic = State(settings)
    await topic.put(0, ("acme/1", RECORD))
    desk = Desk(settings, tmp_path)
    (summary,) = await desk.json("state", "verify", schema="state_verify")
    assert summary["notes"] == ["partition 0: no worker has ever taken anything of it"]
    await topic.raw(0, b"o:acme/2", b"none of ours")
    lines = await desk.json("state", "export", schema="state_export", code=72)
    assert [each["type"] for each in lines] == ["order", "partition"]
    await topic.raw(0, state.NEXT_KEY, b"none of ours")
    lines = await desk.json("state", "verify", schema="state_verify", code=1)
    assert lines[0]["about"] == "record"
    taken = state.NextRecord(state.SCHEMA, 7, 0, True, "1")
    await topic.write(0, [(state.NEXT_KEY, state.encode(taken))])
    (refused,) = await desk.json("state", "verify", schema="error", code=72)
    assert "the state has taken the input up to offset 7" in refused["problems"][0]
    await topic.write(0, [(state.NEXT_KEY, state.encode(replace(taken, offset=0)))])
    lines = await desk.json("state", "verify", schema="state_verify", code=1)
    assert {each["subject"]: each["about"] for each in lines[:-1]} == {"acme/2": "record", "acme/1": "order"}
