"""`cartsync status` over real workers and topics."""

from pathlib import Path

from schemas import state
from schemas.state import NextRecord, OwnerRecord
from tests.integration.conftest import OpenStage
from tests.integration.topics import RECORD, Desk, State
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT, line
from worker.kafka.topics import create_topics
from worker.tools.local_kafka import LocalKafka


async def test_workers_and_partitions(open_stage: OpenStage) -> None:
    """Who serves what, as the group, the topic and the worker say; a parked order needs a person."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    stage.script([order.subject], "422", times=1)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await worker.shown(order.subject, "parked")
    desk = Desk(stage.settings, stage.folder, **{f"accounts.{ACCOUNT}": {"provider": "sequra"}})
    (found,) = await desk.json("status", "--url", worker.url, schema="status")
    assert (found["group_state"], [member["partitions"] for member in found["members"]]) == ("Stable", [[0, 1]])
    assert [(each["phase"], each["served_by"], each["lag"]) for each in found["partitions"]] == [
        ("serving", worker.url, 0)
    ] * 2
    assert all(each["lease_left_s"] <= 4 and each["owner"] for each in found["partitions"])
    assert sum(each["by_status"].get("parked", 0) for each in found["partitions"]) == 1
    assert found["problems"] == ["1 order is parked: `cartsync orders list --status parked` says why"]
    stranger = stage.order("amce/A2")
    await stranger.confirm(line("mug", 1000))
    await stranger.ship("s1", mug=1)
    await stage.write(stranger.subject.encode(), b"not JSON")
    await stage.dead_letters(1)
    await worker.shown(stranger.subject, "owed")
    (found,) = await desk.json("status", "--url", worker.url, schema="status")
    assert [text.split(":")[0] for text in found["problems"][1:]] == [
        "account amce is not configured, and has 1 order",
        "1 dead letter of the last 24 hours that nobody has dealt with",
    ]
    worker.kill()
    ran = await desk.run("status", "--no-orders")
    assert ran.code == 0
    assert ran.out.startswith(f"group {stage.settings.group_id}: ")
    (found,) = await desk.json("status", "--url", worker.url, schema="status")
    assert any(f"worker {worker.url} does not answer" in each for each in found["problems"])


async def test_nobody_runs(kafka: LocalKafka, tmp_path: Path) -> None:
    """What is known without any worker, and that none runs."""
    settings = settings_of(kafka.bootstrap)
    await create_topics(settings, 2)
    topic = State(settings)
    taken = NextRecord(state.SCHEMA, 7, 0, True, "1")
    await topic.write(
        0,
        [
            (state.OWNER_KEY, state.encode(OwnerRecord(state.SCHEMA, "w-1", 5, "1"))),
            (state.NEXT_KEY, state.encode(taken)),
        ],
    )
    await topic.put(0, ("acme/1", RECORD), ("acme/2", RECORD))
    await topic.raw(1, b"o:acme/3", b"none of ours")
    desk = Desk(settings, tmp_path)
    for words in (("status",), ("status", "--no-orders")):
        (found,) = await desk.json(*words, schema="status")
        assert found["problems"][0].startswith("no worker is running (the group is Dead), and 0 events wait")
        first, second = found["partitions"]
        assert (first["owner"], first["owned_since_ms"], first["next_offset"]) == ("w-1", 5, 7)
        assert (second["owner"], second["next_offset"]) == ("", None)
    counted = (await desk.json("status", schema="status"))[0]
    assert (counted["partitions"][0]["orders"], counted["partitions"][0]["by_status"]) == (2, {"owed": 2})
    assert counted["partitions"][0]["oldest_owed_ms"] == 1
    assert "owed order has waited" in counted["problems"][1]
    ran = await desk.run("status")
    assert "a record that cartsync did not write was left out" in ran.err
    assert "! no worker is running" in ran.out
