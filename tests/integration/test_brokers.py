"""Topics and brokers that misbehave, as only a real Kafka does: what the adapters tell of them, and how they heal."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from msgspec.structs import replace

from schemas.state import Deployment
from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT, ShopOrder, line
from worker.errors import FencedError, LogError
from worker.kafka import client
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.ports import DeadLetter
from worker.tools.kafka_ports import HOST, free_ports
from worker.tools.local_kafka import LocalKafka

QUICK = {"broker.session.timeout.ms": 3_000, "broker.heartbeat.interval.ms": 500}
"""A broker that was killed is missed soon, and may come back soon."""
LETTER = DeadLetter(b"k", b"{", [])


@asynccontextmanager
async def admin_of(settings: KafkaSettings) -> AsyncIterator[Any]:
    """An admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def until(condition: Callable[[], Any], within_s: float = 20.0) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is the broker's
            await asyncio.sleep(0.02)


async def seen(log: KafkaEventLog, what: Callable[[Any], bool]) -> Any:
    """What `look` tells, once it tells that."""
    async with asyncio.timeout(20):
        while not what(found := await log.describe_topics()):  # noqa: ASYNC110 - what is waited for is the broker's
            await asyncio.sleep(0.05)
    return found


class Listener:
    """Reads each partition from the beginning as soon as it has it."""

    def __init__(self, log: KafkaEventLog) -> None:
        self.log = log

    def assigned(self, partitions: set[int]) -> None:
        """ports.AssignmentListener."""
        for partition in partitions:
            self.log.seek(partition, 0)
            self.log.resume(partition)

    async def revoked(self, partitions: set[int]) -> None:
        """ports.AssignmentListener."""


@asynccontextmanager
async def reading(settings: KafkaSettings) -> AsyncIterator[tuple[KafkaEventLog, list[bytes]]]:
    """A member of the group that polls all the time, and the values that it has got."""
    log, values = KafkaEventLog(settings), list[bytes]()
    await log.start(Listener(log))

    async def poll() -> None:
        while True:
            for records in (await log.poll(0.2, 100)).values():
                values.extend(record.value or b"" for record in records)

    polling = asyncio.create_task(poll())
    try:
        yield log, values
    finally:
        polling.cancel()
        await asyncio.wait({polling})
        await log.stop()


@asynccontextmanager
async def holding(settings: KafkaSettings) -> AsyncIterator[Any]:
    """A fenced hold on partition 0 of the state."""
    states = KafkaStateLog(settings)
    await states.start()
    hold = states.partition(0)
    try:
        await hold.fence()
        yield hold
    finally:
        await hold.close()


async def test_look_tells_topics_that_were_made_anew(kafka: LocalKafka) -> None:
    """Ids, partitions and the cluster, before and after `start`; a topic that is gone is told, and not made by asking."""
    settings = settings_of(kafka.bootstrap)
    await create_topics(settings, 2)
    before = await KafkaEventLog(settings).describe_topics()
    assert (before.event_partitions, before.state_partitions) == (2, 2)
    assert before.cluster
    assert before.event_topic_id != before.state_topic_id != ""
    async with reading(settings) as (log, _), admin_of(settings) as admin:
        assert await log.describe_topics() == before
        assert log.silent_s() < 5.0
        await admin.delete_topics([settings.state_topic])
        gone = await seen(log, lambda found: found.state_partitions == 0)
        assert gone == replace(before, state_partitions=0, state_topic_id="")
        await admin.create_topics([NewTopic(settings.state_topic, 2, 1)])
        again = await seen(log, lambda found: found.state_partitions == 2)
        assert again.state_topic_id not in ("", before.state_topic_id)
        assert again.event_topic_id == before.event_topic_id
        await admin.create_partitions({settings.event_topic: NewPartitions(3)})
        await seen(log, lambda found: found.event_partitions == 3)


async def test_fence_reaches_owners_under_former_ids(kafka: LocalKafka) -> None:
    """Whoever takes over on purpose, under another prefix, leaves no old owner that could still commit."""
    former = settings_of(kafka.bootstrap)
    await create_topics(former, 1)
    async with holding(former) as old:
        await old.write([(b"a", b"1")])
        states = KafkaStateLog(replace(former, transactional_id_prefix=f"{former.group_id}-new"))
        await states.start()
        hold = states.partition(0)
        await hold.fence([Deployment(event_topic=former.event_topic, prefix=former.transactional_id_prefix)])
        with pytest.raises(FencedError):
            await old.write([(b"a", b"stale")])
        await hold.write([(b"a", b"2")])
        await hold.close()


async def test_missing_dead_letter_topic_is_named(kafka: LocalKafka) -> None:
    """The state waits for it, and says for what; it does not come to be by asking."""
    settings = settings_of(kafka.bootstrap, commit_timeout_s=2.0, request_timeout_s=1.0)
    await create_topics(settings, 1)
    async with holding(settings) as hold, admin_of(settings) as admin:
        await hold.write([(b"a", b"1")])
        await admin.delete_topics([settings.dead_letter_topic])
        await asyncio.sleep(0.5)
        with pytest.raises(LogError, match=settings.dead_letter_topic):
            await hold.write([(b"a", b"2")], [LETTER])
        assert settings.dead_letter_topic not in await admin.list_topics()


class Balancer:
    """A load balancer before a broker: its address may change, and it forgets idle connections without a word."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.forgets_after_s = 3600.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, HOST, port)

    async def stop(self) -> None:
        """Refuses connections, and ends those that there are."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        behind_reader, behind_writer = await asyncio.open_connection(HOST, self.target)
        used_at = asyncio.get_running_loop().time()

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal used_at
            while data := await source.read(65_536):
                now = asyncio.get_running_loop().time()
                if now - used_at > self.forgets_after_s:
                    await asyncio.sleep(3600.0)
                used_at = now
                sink.write(data)
                await sink.drain()

        pumps = [asyncio.create_task(pump(reader, behind_writer)), asyncio.create_task(pump(behind_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            behind_writer.close()


@asynccontextmanager
async def behind_balancer(jars: Path) -> AsyncIterator[tuple[LocalKafka, Balancer, int]]:
    """A broker that tells everybody the balancer's address as its own; and that port."""
    port, behind = free_ports(2)
    kafka = LocalKafka(jars=jars)
    inside = f"CLIENTS://{kafka.bootstrap}"  # what brokers say to themselves does not pass the balancer
    kafka._settings |= {
        "listeners": f"{inside},OUTSIDE://{HOST}:{behind},CONTROLLER://{HOST}:{kafka._controller_ports[1]}",
        "advertised.listeners": f"{inside},OUTSIDE://{HOST}:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:PLAINTEXT,OUTSIDE:PLAINTEXT",
    }
    balancer = Balancer(behind)
    await balancer.start(port)
    try:
        await asyncio.to_thread(kafka.start)
        yield kafka, balancer, port
    finally:
        await asyncio.to_thread(kafka.stop)
        await balancer.stop()


async def test_balancer_that_forgets_idle_connections(kafka_jars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first order after a quiet time is written at once, for no connection is kept until it is forgotten."""
    assert client._IDLE_MS < 240_000  # the shortest that is usual among balancers
    monkeypatch.setattr(client, "_IDLE_MS", 1_000)
    async with behind_balancer(kafka_jars) as (_kafka, balancer, port):
        settings = settings_of(f"{HOST}:{port}")
        await create_topics(settings, 1)
        async with holding(settings) as hold:
            await hold.write([(b"a", b"1")])
            balancer.forgets_after_s = 2.0
            await asyncio.sleep(4.0)
            began = asyncio.get_running_loop().time()
            await hold.write([(b"a", b"2")])
            assert asyncio.get_running_loop().time() - began < 1.0


@pytest.mark.slow
async def test_brokers_that_move_are_found_again(kafka_jars: Path) -> None:
    """None of the known addresses answers any more, and `bootstrap_servers` leads to the new ones: reading and writing
    go on by themselves. Meanwhile the silence is told, and the lag is not known.
    """
    (port,) = free_ports(1)
    kafka = LocalKafka(jars=kafka_jars, settings=QUICK)
    servers = f"{kafka.bootstrap},{HOST}:{port}"
    settings = settings_of(servers, session_timeout_s=6.0, heartbeat_s=1.0, request_timeout_s=3.0)
    await asyncio.to_thread(kafka.start)
    try:
        await create_topics(settings, 1)
        writer = EventWriter(settings)
        await writer.start()
        async with reading(settings) as (log, values), holding(settings) as hold:
            await writer.write(b"k", b"before")
            await until(lambda: values == [b"before"])
            await until(lambda: log.lag(0) == 0)
            await asyncio.to_thread(kafka.kill, 1)
            file = kafka._file("1.properties")
            file.write_text(file.read_text().replace(f":{kafka._ports[1]},", f":{port},"))
            kafka._ports[1] = port
            await until(lambda: log.silent_s() > 2.0)
            await asyncio.to_thread(kafka.restart, 1)
            fresh = EventWriter(settings)
            await fresh.start()
            await fresh.write(b"k", b"after")
            await until(lambda: values == [b"before", b"after"], within_s=30.0)
            assert log.silent_s() < 5.0
            await hold.write([(b"a", b"1")])
            await writer.stop()
            await fresh.stop()
    finally:
        await asyncio.to_thread(kafka.stop)


@pytest.mark.slow
async def test_newest_entries_while_a_leader_is_missed(kafka_jars: Path) -> None:
    """A worker that starts while a broker has just died waits for the next leader, as it does for any broker: a request
    that nobody answers is not the end of it.
    """
    three = LocalKafka(3, jars=kafka_jars, heap="256m", settings=QUICK)
    await asyncio.to_thread(three.start)
    try:
        settings = settings_of(three.bootstrap, request_timeout_s=1.5)
        await create_topics(settings, 1)
        states = KafkaStateLog(settings)
        await states.start()
        async with holding(settings) as hold, admin_of(settings) as admin:
            await hold.write([(b"a", b"1")])
            async with asyncio.timeout(20):  # a commit returns before its marker is in the partition
                while not (before := (await states.newest())[0]):  # noqa: ASYNC110 - what is waited for is the broker's
                    await asyncio.sleep(0.05)
            (found,) = await admin.describe_topics([settings.state_topic])
            await asyncio.to_thread(three.kill, found["partitions"][0]["leader"])
            after = (await states.newest())[0]
        assert after == before
        assert after[-1].value == b"1"
    finally:
        await asyncio.to_thread(three.stop)


@pytest.mark.slow
async def test_too_few_replicas_in_sync(kafka_jars: Path, tmp_path: Path) -> None:
    """While a replica of the state is missing nothing is told, the log says how many there are and are needed, and it
    heals by itself.
    """
    three = LocalKafka(3, jars=kafka_jars, heap="256m", settings=QUICK)
    await asyncio.to_thread(three.start)
    try:
        stage = Stage(three.bootstrap, tmp_path / "stage", 1)
        async with admin_of(stage.settings) as admin:
            strict = {"cleanup.policy": "compact", "min.insync.replicas": "3"}
            await admin.create_topics([NewTopic(stage.settings.state_topic, 1, 3, topic_configs=strict)])
        async with stage:
            stage.configure(kafka={"commit_timeout": "8s", "request_timeout": "3s"})
            worker = await stage.started()
            await asyncio.to_thread(three.kill, 3)
            order = stage.order(f"{ACCOUNT}/1")
            await order.confirm(line("mug", 1000))
            await order.ship("s1", mug=1)
            needed = "partition 0 of .* has 2 in-sync replicas and needs 3"
            await until(lambda: any(re.search(needed, said["error"]) for said in worker.log("partition_lost")), 40.0)
            assert not stage.attempts(order.subject)
            await asyncio.to_thread(three.restart, 3)
            await stage.agreed({order.subject: (1000, 0)}, within_s=40)
    finally:
        await asyncio.to_thread(three.stop)


async def test_state_topic_has_one_deployment(open_stage: OpenStage) -> None:
    """Another one ends with 72 whatever ids it uses, the first one goes on undisturbed; on purpose, and once the first
    one has gone, the state changes hands.
    """
    stage = await open_stage(partitions=2)
    first = await stage.started()
    order = stage.order(f"{ACCOUNT}/1")
    await order.confirm(line("mug", 1000, quantity=2))
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 1000)})
    other = {"CARTSYNC_KAFKA__GROUP_ID": f"{stage.name}b", "CARTSYNC_KAFKA__TRANSACTIONAL_ID_PREFIX": f"{stage.name}b"}
    checked = await stage.command("topics", "check", within_s=30, **other)
    assert checked.code == 72
    assert "belongs to another deployment" in checked.out
    for more in ({}, {"CARTSYNC_WORKER__ADOPT_STATE": "true"}):
        later = stage.start(**other, **more)
        assert await later.ended() == 72
        said = "while group" if more else "belongs to another deployment"
        assert said in later.log("worker_start_failed")[0]["error"]
    assert not first.log("partition_lost")
    first.terminate()
    assert await first.ended() == 0
    heir = await stage.started(**other, CARTSYNC_WORKER__ADOPT_STATE="true")
    await order.ship("s2", mug=1)
    await stage.agreed({order.subject: (2000, 0)})
    assert all(said["clean"] for said in heir.log("partition_serving"))


async def test_topics_that_change_stop_the_worker(open_stage: OpenStage) -> None:
    """The state topic is made again, or the event topic gets one more partition: 72, also at the next start, and
    `topics check` says why, after the counts were made equal, too.
    """
    stage = await open_stage(partitions=1)
    worker = await stage.started()
    for number in range(3):
        await stage.order(f"{ACCOUNT}/{number}").confirm(line("mug", 1000))
    await worker.shown(f"{ACCOUNT}/2", "settled")
    async with admin_of(stage.settings) as admin:
        await admin.create_partitions({stage.settings.event_topic: NewPartitions(2)})
        assert await worker.ended(within_s=30) == 72
        assert "has 2 partitions, and the state was written with 1" in worker.log("worker_failed")[0]["error"]
        await admin.create_partitions({stage.settings.state_topic: NewPartitions(2)})
        checked = await stage.command("topics", "check")
        assert checked.code == 72
        assert "has 2 partitions, and the state was written with 1" in checked.out
        assert await stage.start().ended() == 72


async def test_foreign_record_in_the_state_topic(open_stage: OpenStage) -> None:
    """Only its partition halts, at each start, and says where it is; written over, it is served again. Its orders are
    as they were.
    """
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    subjects = [f"{ACCOUNT}/{number}" for number in range(6)]
    for order in map(stage.order, subjects):
        await order.confirm(line("mug", 1000, quantity=2))
        await order.ship("s1", mug=1)
    await stage.agreed(dict.fromkeys(subjects, (1000, 1000)))
    worker.terminate()
    assert await worker.ended() == 0
    async with AIOKafkaProducer(bootstrap_servers=stage.settings.bootstrap_servers) as producer:
        at = await producer.send_and_wait(stage.settings.state_topic, b"garbage", key=b"o:\xff", partition=0)
        worker = stage.start()
        await worker.serving(1, role="halted")
        await worker.serving(1)
        (halted,) = [view for view in (await worker.status()).partitions if view.role == "halted"]
        assert halted.partition == 0
        assert f"offset {at.offset}, of an order" in halted.detail
        assert [line["order"] for line in worker.log("partition_halted")] == ["\\xff"]
        assert (await worker.get("/readyz"))[0] == 503
        worker.terminate()
        assert await worker.ended() == 0
        await producer.send_and_wait(stage.settings.state_topic, None, key=b"o:\xff", partition=0)
    worker = await stage.started()
    for subject in subjects:
        await stage.order(subject, told=2).ship("s2", mug=1)
    await stage.agreed(dict.fromkeys(subjects, (2000, 0)))


@pytest.mark.slow
async def test_transactional_id_that_has_expired(kafka_jars: Path, tmp_path: Path) -> None:
    """Managed clusters forget quiet owners: their partition is taken anew with the next event, and nothing is lost."""
    forgetful = {
        "transactional.id.expiration.ms": 3_000,
        "transaction.remove.expired.transaction.cleanup.interval.ms": 500,
        "producer.id.expiration.ms": 2_000,
        "producer.id.expiration.check.interval.ms": 500,
    }
    kafka = LocalKafka(jars=kafka_jars, settings=forgetful)
    await asyncio.to_thread(kafka.start)
    try:
        async with Stage(kafka.bootstrap, tmp_path / "stage", 1) as stage:
            worker = await stage.started()
            for number in (1, 2):
                order = stage.order(f"{ACCOUNT}/{number}")
                await order.confirm(line("mug", 1000))
                await order.ship("s1", mug=1)
                await stage.agreed({order.subject: (1000, 0)})
                await asyncio.sleep(6.0)
            assert len(worker.log("partition_lost")) == 1, worker.tail()
            assert worker.is_running()
    finally:
        await asyncio.to_thread(kafka.stop)


async def test_way_out_of_added_partitions(open_stage: OpenStage) -> None:
    """What the worker says when it stops is enough to go on: no order is torn apart, and none is told anew."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    subjects = [f"{ACCOUNT}/{number}" for number in range(6)]
    for order in map(stage.order, subjects):
        await order.confirm(line("mug", 1000, quantity=2))
        await order.ship("s1", mug=1)
    await stage.agreed(dict.fromkeys(subjects, (1000, 1000)))
    async with admin_of(stage.settings) as admin:
        await admin.create_partitions({stage.settings.event_topic: NewPartitions(3)})
    assert await worker.ended(within_s=40) == 72
    assert "new event topic with 2 partitions" in worker.log("worker_failed")[0]["error"]
    there = replace(stage.settings, event_topic=f"{stage.name}.events2")
    await create_topics(there, 2)
    writer = EventWriter(there)
    await writer.start()
    try:
        for subject in subjects:
            await ShopOrder(writer.write, subject, told=2).ship("s2", mug=1)
    finally:
        await writer.stop()
    settings = {"CARTSYNC_KAFKA__EVENT_TOPIC": there.event_topic, "CARTSYNC_WORKER__TOPIC_EPOCH": "1"}
    heir = await stage.started(**settings, CARTSYNC_WORKER__ADOPT_STATE="true")
    await stage.agreed(dict.fromkeys(subjects, (2000, 0)))
    assert [len(stage.attempts(subject)) for subject in subjects] == [2] * len(subjects)
    assert sum(view.orders for view in (await heir.status()).partitions) == len(subjects)
    heir.terminate()
    assert await heir.ended() == 0
    assert (await stage.started(**settings)).is_running(), "to adopt it once is enough"


async def test_event_topic_that_is_made_again_is_read_from_its_start(open_stage: OpenStage) -> None:
    """No start takes its offsets for those of the former one; told so, a worker takes all of it, the first events too."""
    stage = await open_stage(partitions=1)
    worker = await stage.started()
    before = stage.order(f"{ACCOUNT}/before")
    await before.confirm(line("mug", 1000, quantity=2))
    await before.ship("s1", mug=1)
    await stage.agreed({before.subject: (1000, 1000)})
    worker.terminate()
    assert await worker.ended() == 0
    async with admin_of(stage.settings) as admin:
        await admin.delete_topics([stage.settings.event_topic])
        await asyncio.sleep(0.5)
        await admin.create_topics([NewTopic(stage.settings.event_topic, 1, 1)])
    subjects = [f"{ACCOUNT}/{number}" for number in range(4)]  # the former position lies among their events
    for order in map(stage.order, subjects):
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
    refused = stage.start()
    assert await refused.ended() == 72
    assert "set [worker] topic_epoch to 1" in refused.log("worker_start_failed")[0]["error"]
    await stage.started(CARTSYNC_WORKER__TOPIC_EPOCH="1")
    await before.ship("s2", mug=1)
    await stage.agreed(dict.fromkeys(subjects, (1000, 0)) | {before.subject: (2000, 0)})


async def test_state_topic_that_is_made_again_is_no_state(open_stage: OpenStage) -> None:
    """The running worker ends with its next commit, and no later start takes the torso for all orders."""
    stage = await open_stage(partitions=1)
    worker = await stage.started()
    for number in range(3):
        await stage.order(f"{ACCOUNT}/{number}").confirm(line("mug", 1000))
    await worker.shown(f"{ACCOUNT}/2", "settled")
    async with admin_of(stage.settings) as admin:
        await admin.delete_topics([stage.settings.state_topic])
        await asyncio.sleep(0.5)
        compact = {"cleanup.policy": "compact"}
        await admin.create_topics([NewTopic(stage.settings.state_topic, 1, 1, topic_configs=compact)])
    await stage.order(f"{ACCOUNT}/4").confirm(line("mug", 1000))
    assert await worker.ended(within_s=40) == 72
    assert "deleted and made again" in worker.log("worker_failed")[0]["error"]
    again = stage.start()
    assert await again.ended() == 72
    assert "orders are missing" in again.log("worker_start_failed")[0]["error"]
