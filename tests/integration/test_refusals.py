"""When a worker does not start, or stops by itself: exit codes, and messages that say how to mend it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.process import WorkerProcess
from tests.shops.by_hand import ACCOUNT, ShopOrder, line
from worker.tools.kafka_ports import free_ports


@asynccontextmanager
async def admin_of(stage: Stage) -> AsyncIterator[Any]:
    """An admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.settings.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def group_offset(stage: Stage) -> int | None:
    """What the group has committed of partition 0."""
    settings = stage.settings
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, group_id=settings.group_id, enable_auto_commit=False
    )
    await consumer.start()
    try:
        offset: int | None = await consumer.committed(TopicPartition(settings.event_topic, 0))
    finally:
        await consumer.stop()
    return offset


async def one_order_told(stage: Stage) -> WorkerProcess:
    """A worker has told an order."""
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/1")
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 0)})
    await worker.shown(order.subject, "settled")
    return worker


async def left(worker: WorkerProcess) -> None:
    """The worker leaves in order."""
    worker.terminate()
    assert await worker.ended() == 0


@pytest.mark.parametrize(
    ("partitions", "policy", "said"),
    [(3, "compact", ("3 partitions", "must be equal")), (2, "delete", ("cleanup.policy=delete", "set it to compact"))],
    ids=["partition count", "not compacted"],
)
async def test_a_wrong_state_topic_is_refused(
    open_stage: OpenStage, partitions: int, policy: str, said: tuple[str, ...]
) -> None:
    """Exit code 72 of `run` and `topics check`, with what is wrong and how to mend it."""
    stage = await open_stage(partitions=2)
    wrong = f"{stage.name}.wrong"
    async with admin_of(stage) as admin:
        await admin.create_topics([NewTopic(wrong, partitions, 1, topic_configs={"cleanup.policy": policy})])
    stage.configure(kafka={"state_topic": wrong})
    worker = stage.start()
    assert await worker.ended() == 72
    (line_,) = worker.log("worker_start_failed")
    checked = await stage.command("topics", "check")
    assert checked.code == 72
    for words in said:
        assert words in line_["error"]
        assert words in checked.out + checked.err
    assert wrong in line_["error"]


async def test_topics_are_created_and_checked(open_stage: OpenStage) -> None:
    """`topics check` is 72 while they are missing; `topics create` makes them so that a worker starts; again: 0."""
    stage = await open_stage(partitions=2)
    new = {f"{topic}_topic": f"{stage.name}.new.{topic}" for topic in ("event", "state", "dead_letter")}
    new["results_topic"] = f"{stage.name}.new.results"
    stage.configure(kafka=new)
    missing = await stage.command("topics", "check", "--json")
    assert missing.code == 72
    assert all(name in missing.out for name in new.values())
    json.loads(missing.out)
    assert (await stage.command("topics", "create", "--partitions", "2")).code == 0
    assert (await stage.command("topics", "create")).code == 0
    assert (await stage.command("topics", "check")).code == 0
    worker = await stage.started()
    assert await worker.served() == [0, 1]
    assert [line["topic"] for line in worker.log("topic_check_warning")] == [new["state_topic"]], "a warning comes once"
    assert not [line for line in worker.log() if "logger" in line], "a first start is no reason to complain"


async def test_a_missing_results_topic_is_refused(open_stage: OpenStage) -> None:
    """Exit code 72, with the command that makes it; none is needed when nobody is to be told."""
    stage = await open_stage(partitions=2)
    stage.configure(kafka={"results_topic": f"{stage.name}.missing"})
    worker = stage.start()
    assert await worker.ended() == 72
    (said,) = worker.log("worker_start_failed")
    assert f"topic {stage.name}.missing does not exist" in said["error"]
    assert "cartsync topics create" in said["error"]
    stage.configure(kafka={"results_topic": ""})
    assert (await stage.command("topics", "check")).code == 0
    assert await (await stage.started()).served() == [0, 1]


async def test_an_unreachable_broker_is_temporary(open_stage: OpenStage) -> None:
    """Exit code 75, not long after `connect_timeout`, naming the address."""
    stage = await open_stage()
    (port,) = free_ports(1)
    stage.configure(kafka={"bootstrap_servers": f"127.0.0.1:{port}", "connect_timeout": "2s"})
    began = time.monotonic()
    worker = stage.start()
    assert await worker.ended(within_s=20) == 75
    assert 2 <= time.monotonic() - began < 12
    assert f"127.0.0.1:{port}" in worker.log("worker_start_failed")[0]["error"]


async def test_a_bad_configuration_is_refused(open_stage: OpenStage) -> None:
    """Exit code 64 of `run` and `config check`, with one line for each mistake."""
    stage = await open_stage()
    stage.configure(worker={"lease": "500ms"})
    for words in (("run",), ("config", "check")):
        ran = await stage.command(*words)
        assert ran.code == 64
        assert "lease (0.5s)" in ran.err
    stage.configure(worker={"leese": "5s", "settle": 30})
    ran = await stage.command("run")
    assert ran.code == 64
    assert "did you mean lease" in ran.err
    assert "30s" in ran.err


async def test_a_port_that_is_taken_is_refused(open_stage: OpenStage) -> None:
    """Exit code 64 before anything is touched."""
    stage = await open_stage()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = stage.start(CARTSYNC_HTTP__PORT=str(taken.getsockname()[1]))
        assert await worker.ended() == 64
    assert worker.log("private_port_unavailable")
    assert await group_offset(stage) is None


async def test_a_lost_state_is_not_begun_anew(open_stage: OpenStage) -> None:
    """A state topic that is empty while the group has read on: exit code 72 and the reason, and nothing is sent."""
    stage = await open_stage()
    worker = await one_order_told(stage)
    give_up_at = time.monotonic() + 10
    while await group_offset(stage) != 2:
        assert time.monotonic() < give_up_at, stage.tails()
        await asyncio.sleep(0.2)
    await left(worker)
    told = stage.sandbox.attempt_count
    async with admin_of(stage) as admin:
        await admin.delete_topics([stage.settings.state_topic])
        await asyncio.sleep(0.5)
    assert (await stage.command("topics", "create")).code == 0
    worker = stage.start()
    assert await worker.ended() == 72
    (refused,) = worker.log("partition_unusable")
    assert "up to offset 2" in refused["error"]
    assert "state topic is empty" in refused["error"]
    assert stage.sandbox.attempt_count == told


async def test_a_worker_that_leaves_tells_the_group(open_stage: OpenStage) -> None:
    """What lag tools see after a stop is how far the state has come, not how far it was seconds before."""
    stage = await open_stage()
    await left(await one_order_told(stage))
    assert await group_offset(stage) == 2


async def test_a_gap_in_the_input_halts_the_partition(open_stage: OpenStage) -> None:
    """Events that retention took before they were read are not skipped over: the partition says so and waits."""
    stage = await open_stage()
    await left(await one_order_told(stage))
    order = stage.order(f"{ACCOUNT}/2")
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    async with admin_of(stage) as admin:
        await admin.delete_records({TopicPartition(stage.settings.event_topic, 0): RecordsToDelete(before_offset=3)})
    worker = stage.start()
    await worker.serving(1, role="halted")
    (view,) = (await worker.status()).partitions
    assert view.next_offset == 2
    assert "partition 0 from offset 2" in view.detail
    assert stage.holds(order.subject) is None
    assert [(await worker.get(f"/{probe}"))[0] for probe in ("livez", "readyz")] == [200, 503]


async def test_one_of_two_deployments_with_one_prefix_stops(open_stage: OpenStage) -> None:
    """In shadow mode, with a group and a state topic of its own: both fence each other, so one of them ends with 71 and
    names the prefix (either, when both have just come), and nothing is lost by it.
    """
    stage = await open_stage()
    first = await stage.started()
    stage.configure(kafka={"group_id": f"{stage.name}-copy", "state_topic": f"{stage.name}.copy"})
    assert (await stage.command("topics", "create")).code == 0
    second = stage.start(CARTSYNC_WORKER__SENDING="false")
    orders: list[ShopOrder] = []
    give_up_at = time.monotonic() + 60
    while first.is_running() and second.is_running() and time.monotonic() < give_up_at:
        orders.append(order := stage.order(f"{ACCOUNT}/{len(orders)}"))
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
        await asyncio.sleep(0.3)
    stopped = second if first.is_running() else first
    assert await stopped.ended() == 71, stage.tails()
    (said,) = stopped.log("worker_failed")
    assert "has the same transactional_id_prefix" in said["error"]
    if second.is_running():
        second.terminate()
        assert await second.ended() == 0
    stage.configure()
    if not first.is_running():
        await stage.started()
    await stage.agreed({order.subject: (1000, 0) for order in orders}, within_s=30)
