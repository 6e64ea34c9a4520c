"""Drills of the processes themselves: killed, doubled, without Kafka, without a disk."""

import asyncio
import resource
from collections.abc import Iterable
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.chaos.processes import Process
from tests.drills.drill import drill
from tests.drills.receiving import SECRET
from tests.drills.scene import Scene
from tests.integration.process import WorkerProcess
from tests.shops.by_hand import ACCOUNT
from worker.tools.kafka_ports import free_ports

_ENDS_WITHIN_S = 45.0
_UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@drill("CartsyncPartitionUnowned", "one of two workers is killed, `session_timeout = 25s`", partitions=2)
async def partition_unowned(scene: Scene) -> None:
    """The worker that is missing is started again."""
    scene.configure(kafka={"session_timeout": "25s"})
    first = await scene.started()
    second = scene.start()
    await first.serving(1)
    await second.serving(1)
    scene.broken()
    second.kill()
    await scene.fires()
    await scene.ran("status", "--url", first.url)
    scene.start()
    await scene.resolves()


@drill(
    "CartsyncDown",
    "the only worker ends, its event topic is missing at the next start; a receiver goes on",
    mended="as long as a receiver was scraped, nothing said that all workers were gone: the rule asks for a worker now",
)
async def down(scene: Scene) -> None:
    """The log names the topic, and the command that makes it."""
    worker = await scene.started()
    (public,) = free_ports(1)
    qliro = {"accounts.hats": {"provider": "qliro", "callback_secrets": [SECRET], "api_secret_file": "/nowhere"}}
    scene.start_receiver(public, qliro)
    await asyncio.sleep(3)
    scene.broken()
    await scene.stopped(worker)
    missing = f"{scene.name}.missing"
    scene.configure(kafka={"event_topic": missing, "state_topic": f"{missing}.state", "group_id": missing})
    worker = scene.start()
    assert await worker.ended(_ENDS_WITHIN_S) == 72
    await scene.fires()
    scene.named("72")
    said = await scene.says("worker_start_failed", worker)
    assert missing in said["error"], said
    await scene.ran("doctor", code=1, says=missing)
    scene.seen.steps.append("`cartsync topics create`, as both say")
    assert (await scene.command("topics", "create", "--partitions", "1")).code == 0
    await scene.started()
    await scene.resolves()


@drill("CartsyncRebalanceStorm", "a worker that ends and starts again and again", partitions=2, factor=10)
async def rebalance_storm(scene: Scene) -> None:
    """It is found by its exits, and left alone once it stays."""
    first = await scene.started()
    scene.broken()

    async def storm() -> None:
        while True:
            second = scene.start()
            await first.serving(1)
            second.terminate()
            await second.ended(_ENDS_WITHIN_S)

    storming = asyncio.create_task(storm())
    try:
        await scene.fires()
    finally:
        storming.cancel()
        await asyncio.gather(storming, return_exceptions=True)
    scene.named("find the worker that restarts")
    await scene.resolves(120)


@drill(
    "CartsyncTwoOwners",
    "a second deployment with the same `transactional_id_prefix`, and a group and a state topic of its own",
    mended="the rule counted the rebalances of the second deployment, too, so it was silent: it looks at each worker now",
)
async def two_owners(scene: Scene) -> None:
    """The second deployment is stopped, and gets a prefix of its own."""
    first = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    await asyncio.sleep(65)  # so long there that the other one gives up first; its own assignment is long past
    other = {"group_id": f"{scene.name}-copy", "state_topic": f"{scene.name}.copy"}
    scene.configure(kafka=other)
    assert (await scene.command("topics", "create")).code == 0
    scene.broken()
    second = scene.start(CARTSYNC_WORKER__SENDING="false")
    shop = asyncio.create_task(_orders(scene))
    try:
        await scene.fires()
        await scene.says("partition_taken_by_another_owner", first)
        assert await second.ended(_ENDS_WITHIN_S) == 71, scene.tails()
        scene.named("71")
    finally:
        shop.cancel()
    scene.configure()
    await scene.resolves()
    if not first.is_running():  # on a busy machine it may have had enough, too
        await scene.started()


async def _orders(scene: Scene) -> None:
    number = 0
    while True:
        number += 1
        await scene.shipped(f"stream/{number}")
        await asyncio.sleep(0.3)


@drill(
    "CartsyncStateNotCommitting",
    "one of three brokers is killed, and `min.insync.replicas` of the state topic is 3",
    mended="the words are those of the log; a partition that cannot be fenced says why, too",
    factor=12,
    nodes=3,
)
async def state_not_committing(scene: Scene) -> None:
    """The broker comes back."""
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.settings.bootstrap_servers)
    await admin.start()
    strict = {"min.insync.replicas": "3", "cleanup.policy": "compact"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, scene.settings.state_topic, configs=strict)])
    await admin.close()
    scene.configure(kafka={"commit_timeout": "4s", "fence_timeout": "4s", "request_timeout": "3s"})
    worker = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    scene.broken()
    await asyncio.to_thread(scene.kafka.kill, 3)
    subject = await scene.shipped("2")
    await scene.fires()
    said = await scene.says("partition_lost", worker)
    scene.named("in-sync replicas")
    assert "in-sync replicas" in said["error"], said
    await asyncio.to_thread(scene.kafka.restart, 3)
    await scene.resolves(120)
    await scene.agrees(subject)


@drill("CartsyncKafkaUnreachable", "the only broker is killed", factor=10, nodes=1)
async def kafka_unreachable(scene: Scene) -> None:
    """It comes back, and the worker goes on by itself."""
    worker = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    scene.broken()
    await asyncio.to_thread(scene.kafka.kill, 1)
    await scene.fires()
    await scene.ran("doctor", code=1, says="no Kafka broker responds at 127.0.0.1")
    await asyncio.to_thread(scene.kafka.restart, 1)
    await scene.resolves(120)
    await scene.agrees(await scene.shipped("2"), within_s=60)
    assert worker.is_running()


def limit_files(process: WorkerProcess | Process, size: int) -> None:
    """No file of the process grows beyond so many bytes: what a full disk comes to, for one process alone."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def unlimit_files(process: WorkerProcess | Process) -> None:
    """It has room again."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, _UNLIMITED)


def _largest(files: Iterable[Path]) -> int:
    return max(file.stat().st_size for file in files if file.is_file())


@drill("CartsyncStoreFailing", "the disk takes no more: a limit on the size of files", factor=60)
async def store_failing(scene: Scene) -> None:
    """Space is freed; orders that were kept in memory meanwhile are written."""
    folder = scene.folder / "orders"
    scene.configure(
        store={"kind": "disk", "path": str(folder), "cache": "1MiB"}, log={"format": "json", "level": "warning"}
    )
    worker = await scene.started()
    await scene.agrees(*[await scene.shipped(f"before/{number}") for number in range(20)])
    limit_files(worker, _largest(folder.rglob("*.log")))
    scene.broken()
    subjects = [await scene.shipped(f"meanwhile/{number}") for number in range(50)]
    await scene.fires()
    await scene.says("store_failed", worker)
    await scene.agrees(*subjects)
    scene.named("free space")
    unlimit_files(worker)
    await scene.resolves()
    assert worker.is_running()


@drill("CartsyncLogLinesDropped", "the disk of the log takes no more: a limit on the size of files", factor=60)
async def log_lines_dropped(scene: Scene) -> None:
    """Space is freed, and the log says how many lines are missing."""
    worker = await scene.started()
    await scene.agrees(await scene.shipped("1"))
    limit_files(worker, _largest(scene.folder.glob(f"{worker.name}.log")))
    scene.broken()
    subjects = [await scene.shipped(f"{number}") for number in range(2, 30)]
    await scene.fires()
    await scene.agrees(*subjects)
    scene.named("free space")
    unlimit_files(worker)
    await scene.agrees(await scene.shipped("afterwards"))
    assert worker.log("log_lines_dropped"), worker.tail()
    await scene.resolves()
    assert ACCOUNT in worker.tail()
