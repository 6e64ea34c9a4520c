"""`cartsync migrate partitions` on a real Kafka: the whole of it with workers, and every place where it may end early."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import state
from schemas.state import AccountRecord, Deployment, NextRecord, Operated, OrderRecord, Target, TargetsRecord
from tests.integration.conftest import OpenStage
from tests.integration.process import until
from tests.integration.topics import PROJECT, RECORD, Desk, State
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT, ShopOrder, line
from worker.config.console import console_config
from worker.core.placing import Placing
from worker.errors import LogError, TopicError
from worker.kafka.client import Connection
from worker.kafka.events import KafkaEventLog
from worker.kafka.migrating import moved, state_entries
from worker.kafka.reading import bounds
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.ownership.belonging import identified, require
from worker.tools.local_kafka import LocalKafka
from worker.tools.migrate.partitions import Moving, Wishes

pytestmark = pytest.mark.slow

PLACING = Placing("murmur2")
OWED = replace(RECORD, acked=1)


async def test_workers_go_on_where_they_were(open_stage: OpenStage) -> None:
    """A shop with two partitions gets five: no order is lost, none goes back, and who keeps the old settings is told."""
    stage = await open_stage(partitions=2)
    stage.configure(kafka={"partitioner": "murmur2"})
    worker = await stage.started()
    subjects = [f"{ACCOUNT}/A{number}" for number in range(30)]
    for subject in subjects:
        order = stage.order(subject)
        await order.confirm(line("mug", 1000, 2))
        await order.ship("s1", mug=1)
    await stage.agreed(dict.fromkeys(subjects, (1000, 1000)))
    running = await stage.command("migrate", "partitions", "--to", "5", "--dry-run")
    assert running.code == 2
    assert "the group has 1 members" in running.err

    # Two orders are still owed when the worker leaves: they must not be forgotten.
    stage.script(subjects[:2], "500")
    for subject in subjects[:2]:
        await stage.order(subject, told=2).ship("s2", mug=1)
    await until(lambda: all(len(stage.attempts(each)) > 2 for each in subjects[:2]), 20, stage.tails)
    worker.terminate()
    assert await worker.ended(30) == 0

    planned = await stage.command("migrate", "partitions", "--to", "5", "--dry-run")
    assert planned.code == 0, planned
    assert "30 orders (2 owed, 0 in doubt) would be copied; nothing was changed" in planned.out
    done = await stage.command("migrate", "partitions", "--to", "5", within_s=60)
    assert done.code == 0, done
    assert "30 orders (2 owed, 0 in doubt) were copied" in done.out

    refused = stage.start()
    assert await refused.ended(30) == 72
    (said,) = refused.log("worker_start_failed")
    assert f"the orders of this state topic go to {stage.settings.state_topic}.5" in said["error"]

    new = moved(stage.settings, f"{stage.settings.event_topic}.5", f"{stage.settings.state_topic}.5")
    stage.configure(
        kafka={"partitioner": "murmur2", "event_topic": new.event_topic, "state_topic": new.state_topic},
        worker={"topic_epoch": 1},
    )
    stage.sandbox.faults.stop()
    heir = stage.start()
    await heir.serving(5, within_s=30)
    writer = EventWriter(new)
    await writer.start()
    try:
        for subject in subjects[2:]:
            await ShopOrder(writer.write, subject, told=2).ship("s2", mug=1)
        await stage.agreed(dict.fromkeys(subjects, (2000, 0)), within_s=60)
        stage.assert_monotone()
        same = await stage.command("migrate", "partitions", "--to", "5")
        assert same.code == 2
        assert "has as many partitions already" in same.err
    finally:
        await writer.stop()


# --- without workers ---------------------------------------------------------------------------------------------------


class Shop:
    """Two old partitions with orders, as workers would have left them."""

    def __init__(self, bootstrap: str, folder: Path, orders: int = 20) -> None:
        self.settings = settings_of(bootstrap, partitioner="murmur2")
        self.new = moved(self.settings, f"{self.settings.event_topic}.3", f"{self.settings.state_topic}.3")
        self.folder = folder
        self.orders = {f"acme/{number}": replace(OWED, revision=7 + number) for number in range(orders)}
        self.topic = State(self.settings)

    async def open(self) -> None:
        """Writes the topics."""
        await create_topics(self.settings, 2)
        self.desk = Desk(self.settings, self.folder, kafka=self.kafka())
        for partition in range(2):
            await self.topic.put(partition, *self.of(partition, 2))
            await self.topic.write(
                partition,
                [
                    (state.TARGETS_KEY, state.encode(TargetsRecord(state.SCHEMA, {"acme": TARGET}))),
                    (b"a:acme", state.encode(PAUSED)),
                    (b"c:20000.0", bytes([partition]) * 8),
                    (state.NEXT_KEY, state.encode(await self.position(0))),
                ],
            )

    def kafka(self) -> dict[str, Any]:
        """Of a configuration file."""
        names = ("bootstrap_servers", "event_topic", "state_topic", "dead_letter_topic", "results_topic", "partitioner")
        return {each: getattr(self.settings, each) for each in (*names, "group_id", "transactional_id_prefix")}

    async def position(self, offset: int, **members: Any) -> NextRecord:
        """As a worker would have left it."""
        ours = identified(deployment(self.settings), await KafkaEventLog(self.settings).describe_topics())
        return replace(NextRecord(state.SCHEMA, offset, 0, True, "1", None, ours), **members)

    def of(self, partition: int, partitions: int) -> list[tuple[str, OrderRecord]]:
        """The orders of a partition."""
        return [
            (subject, record)
            for subject, record in self.orders.items()
            if PLACING.partition(subject.encode(), partitions) == partition
        ]

    def moving(self, crash_at: int = -1) -> Moving:
        """A migration that ends after so many steps."""
        steps = iter(range(1000))

        def on_step(_text: str) -> None:
            if next(steps) == crash_at:
                raise Crash

        return Moving(console_config(self.folder / "cartsync.toml", serves=False), Wishes(3), on_step)

    async def assert_moved(self) -> None:
        """The new topic has every order where it belongs, and everything else."""
        for partition in range(3):
            newest = await everything(self.new, partition)
            assert {f"o:{subject}": state.encode(record) for subject, record in self.of(partition, 3)} == {
                key: value for key, value in newest.items() if key.startswith("o:")
            }
            assert state.decode_targets(newest["m:targets"]).targets == {"acme": TARGET}
            assert state.decode_account(newest["a:acme"]).paused == PAUSED.paused
            assert sorted(newest["c:20000.0"]) == [0] * 8 + [1] * 8
            following = state.decode_next(newest["m:next"])
            assert (following.offset, following.topic_epoch, following.clean, following.migration) == (0, 1, True, None)

    async def is_refused(self, settings: KafkaSettings, partitions: int, topic_epoch: int) -> str:
        """Why a worker with these settings would not take anything; empty: it would."""
        ours = identified(deployment(settings), await KafkaEventLog(settings).describe_topics())
        try:
            for partition in range(partitions):
                last = state.decode_next((await everything(settings, partition))["m:next"])
                require(ours, last, adopt=True, topic_epoch=topic_epoch)
        except TopicError as error:
            return str(error)
        return ""


class Crash(Exception):  # noqa: N818 - not an error
    """The process is gone."""


DEED = Operated("pause", "ann", "", 5, True, "paused", b"12345678")
PAUSED = AccountRecord(state.SCHEMA, DEED, (DEED,), DEED.uid)
TARGET = Target("sequra", "http://127.0.0.1:9", "acme")


def deployment(settings: KafkaSettings) -> Deployment:
    """Whose the topics are."""
    return Deployment(
        event_topic=settings.event_topic, group=settings.group_id, prefix=settings.transactional_id_prefix
    )


async def everything(settings: KafkaSettings, partition: int) -> dict[str, bytes]:
    """The newest value of each key; nothing: there is no topic yet."""
    found: dict[str, bytes | None] = {}
    if not (await KafkaEventLog(settings).describe_topics()).state_partitions:
        return {}
    async for entries in state_entries(Connection(settings), partition):
        found |= {entry.key.decode(): entry.value for entry in entries}
    return {key: value for key, value in found.items() if value is not None}


@pytest.fixture
async def shop(kafka: LocalKafka, tmp_path: Path) -> Shop:
    """A shop that could be migrated."""
    found = Shop(kafka.bootstrap, tmp_path)
    await found.open()
    return found


@pytest.mark.timeout(300)
async def test_a_crash_after_every_step(shop: Shop) -> None:
    """Run again each time, and ended one step later: nobody can take the new state until all of it is there."""
    crashes, refusals, done = 0, [], None
    while done is None:
        try:
            done = await shop.moving(crash_at=crashes).run()
        except Crash:
            crashes += 1
            if "m:next" in await everything(shop.new, 0):
                refusals.append(await shop.is_refused(shop.new, 3, 1))
    assert (done.state, done.orders, done.owed, done.late) == ("done_before", 20, 20, [])
    # The last crash came behind the last step: it was done already.
    assert refusals.pop() == ""
    assert len(refusals) >= 8
    assert all("is being filled" in said for said in refusals)
    await shop.assert_moved()
    assert f"the orders of this state topic go to {shop.new.state_topic}" in await shop.is_refused(shop.settings, 2, 0)

    writer = EventWriter(shop.settings)
    await writer.start()
    await writer.write(b"acme/1", b"{}")
    await writer.stop()
    (said,) = await shop.desk.json("migrate", "partitions", "--to", "3", schema="migrate", code=1)
    assert [text.startswith(f"partition {PLACING.partition(b'acme/1', 2)} of ") for text in said["late"]] == [True]
    refused = await shop.desk.run("migrate", "partitions", "--to", "3", "--undo")
    assert refused.code == 2
    assert "cannot be taken back" in refused.err


async def test_taken_back(shop: Shop) -> None:
    """One that was interrupted: the old state is taken again, and a second attempt is not mixed up with the first."""
    with pytest.raises(Crash):
        await shop.moving(crash_at=8).run()
    assert "interrupted" in await shop.is_refused(shop.settings, 2, 0)
    (said,) = await shop.desk.json("migrate", "partitions", "--to", "3", "--undo", schema="migrate")
    assert said["state"] == "undone"
    assert await shop.is_refused(shop.settings, 2, 0) == ""
    gone = next(subject for subject, _ in shop.of(0, 2))
    await shop.topic.put(0, (gone, None))
    refused = await shop.desk.run("migrate", "partitions", "--to", "3")
    assert refused.code == 72
    assert "an earlier attempt" in refused.err


async def test_what_stands_in_the_way(shop: Shop) -> None:
    """All of it is named before anything is changed."""
    refused = await shop.desk.run("migrate", "partitions", "--to", "2")
    assert (refused.code, "as many partitions already" in refused.err) == (2, True)
    same = await shop.desk.run("migrate", "partitions", "--to", "3", "--event-topic", shop.settings.event_topic)
    assert (same.code, "have to be other topics" in same.err) == (2, True)

    writer = EventWriter(shop.settings)
    await writer.start()
    await writer.write(b"acme/1", b"{}")
    await writer.stop()
    wrong = next(subject for subject, _ in shop.of(1, 2))
    page = state.JobRecord(state.SCHEMA, 5, b"a page")
    await shop.topic.put(0, (wrong, OWED))
    await shop.topic.raw(0, b"j:acme:report", state.encode(page))
    await shop.topic.raw(0, b"o:acme/damaged", b"none of ours")
    await shop.topic.raw(0, state.NEXT_KEY, state.encode(await shop.position(0)))
    (refused_all,) = await shop.desk.json("migrate", "partitions", "--to", "3", schema="error", code=72)
    text = "\n".join(refused_all["problems"])
    assert f"{wrong} lies in partition 0, and murmur2 puts the key of subject into 1" in text
    assert "partition 0: a page of a report of account acme is under way" in text
    assert "the record of acme/damaged in partition 0 cannot be read" in text
    assert "events wait, from offset 0 on" in text
    assert await shop.is_refused(shop.settings, 2, 0) == ""
    assert await KafkaEventLog(shop.new).describe_topics() == replace(
        await KafkaEventLog(shop.new).describe_topics(), event_partitions=0, state_partitions=0
    )

    shop.settings = replace(shop.settings, partitioner="")
    Desk(shop.settings, shop.folder, kafka=shop.kafka())
    unset = await shop.desk.run("migrate", "partitions", "--to", "3")
    assert (unset.code, "[kafka] partitioner is not set" in unset.err) == (64, True)


async def test_a_topic_of_something_else(shop: Shop) -> None:
    """The new topics have to be new."""
    await create_topics(shop.new, 4)
    refused = await shop.desk.run("migrate", "partitions", "--to", "3")
    assert (refused.code, "has 4 partitions, and is to have 3" in refused.err) == (72, True)
    other = replace(shop.new, state_topic=f"{shop.new.state_topic}.x", event_topic=f"{shop.new.event_topic}.x")
    await create_topics(other, 3)
    await State(other).put(0, ("acme/1", RECORD))
    names = ("--event-topic", other.event_topic, "--state-topic", other.state_topic)
    refused = await shop.desk.run("migrate", "partitions", "--to", "3", *names)
    assert (refused.code, "holds the state of something else" in refused.err) == (72, True)


@pytest.mark.timeout(180)
async def test_killed(kafka: LocalKafka, tmp_path: Path) -> None:
    """A kill -9 while orders are being copied; the next run ends it."""
    shop = Shop(kafka.bootstrap, tmp_path, orders=6000)
    await shop.open()
    command = [sys.executable, "-m", "worker", "migrate", "partitions", "--to", "3"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environment)
    while not any([await orders_in(shop.new, partition) for partition in range(3)]):
        assert process.returncode is None, "it was done before it could be killed"
        await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    assert "is being filled" in await shop.is_refused(shop.new, 3, 1)
    (said,) = await shop.desk.json("migrate", "partitions", "--to", "3", schema="migrate")
    assert (said["state"], said["orders"], sum(said["orders_by_partition"])) == ("done", 6000, 6000)
    await shop.assert_moved()


async def orders_in(settings: KafkaSettings, partition: int) -> int:
    """How many offsets of a state partition were written, beyond the marks; 0: or there is no topic yet."""
    try:
        _, end = await bounds(Connection(settings), settings.state_topic, partition)
    except LogError:
        return 0
    return max(0, end - 3)
