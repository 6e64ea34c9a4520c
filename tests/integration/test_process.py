"""A worker as a process of an operating system: signals, secrets that change, a reader of its log that hangs."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import OpenStage
from tests.integration.harness import PASSWORD, PROJECT, Stage
from tests.integration.process import WorkerProcess, until
from tests.shops.by_hand import ACCOUNT, MERCHANTS, OTHER_ACCOUNT, line
from worker.app.process import END_WITHIN_S, EXIT_AT_ONCE
from worker.core.policy import DeliveryPolicy
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka


@pytest.fixture
def own_kafka(kafka_jars: Path) -> Iterator[LocalKafka]:
    """A Kafka that a test may kill."""
    with LocalKafka(jars=kafka_jars) as kafka:
        yield kafka


async def shipped(stage: Stage, name: str) -> str:
    """A shipped order of the shop."""
    order = stage.order(f"{ACCOUNT}/{name}")
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    return order.subject


def rotate(stage: Stage, password: str) -> None:
    """The provider wants another password from now on."""
    merchants = stage.sandbox._orders._merchants
    for each in merchants.values():
        each.discard(MERCHANTS[ACCOUNT])
    merchants[b64encode(f"{ACCOUNT}:{password}".encode()).decode()] = {MERCHANTS[ACCOUNT]}


def put_password(stage: Stage, password: str) -> None:
    """What the worker reads."""
    (stage.folder / "secrets" / f"CARTSYNC_ACCOUNTS__{ACCOUNT.upper()}__PASSWORD").write_text(password + "\n")


async def started(stage: Stage) -> WorkerProcess:
    """A worker whose password is in a file."""
    (stage.folder / "secrets").mkdir()
    put_password(stage, PASSWORD)
    return await stage.started(CARTSYNC_SECRETS_DIR=str(stage.folder / "secrets"))


async def paused(stage: Stage, worker: WorkerProcess) -> dict[str, tuple[int, int]]:
    """What the provider is to hold of orders that wait, for their account is paused: its password has changed. It says
    403 then, which one order alone might get for another reason.
    """
    rotate(stage, "the-new-one")
    subjects = [await shipped(stage, f"waits{number}") for number in range(DeliveryPolicy().forbidden_orders)]
    await until(lambda: bool(worker.log("account_paused")), 20, stage.tails)
    return dict.fromkeys(subjects, (1000, 0))


async def test_sighup_has_secrets_read_again(open_stage: OpenStage) -> None:
    """A new password holds without a restart, and ends the pause of its account; other accounts are not touched."""
    stage = await open_stage()
    worker = await started(stage)
    orders = await paused(stage, worker)
    put_password(stage, "the-new-one")
    os.kill(worker.pid, signal.SIGHUP)
    await stage.agreed(orders, within_s=20)
    (said,) = worker.log("configuration_reread")
    assert (said["accounts"], said["after_restart"]) == ([ACCOUNT], [])
    assert "the-new-one" not in worker.tail()


async def test_a_mistake_keeps_what_held(open_stage: OpenStage) -> None:
    """Who reads a wrong configuration again is told so in one line, and goes on with the old one."""
    stage = await open_stage()
    worker = await started(stage)
    right = (stage.folder / "cartsync.toml").read_text()
    (stage.folder / "cartsync.toml").write_text(right + "\n[wrong]\nx = 1\n[worker2]\n")
    os.kill(worker.pid, signal.SIGHUP)
    await until(lambda: bool(worker.log("configuration_not_reread")), 10, stage.tails)
    (said,) = worker.log("configuration_not_reread")
    assert "[wrong]" in said["error"]
    await stage.agreed({await shipped(stage, "1"): (1000, 0)})
    changed = right.replace('commit_interval = "20ms"', 'commit_interval = "30ms"').replace(
        f"[accounts.{OTHER_ACCOUNT}]", f"[accounts.{OTHER_ACCOUNT}]\nconcurrency = 7"
    )
    assert changed.count("7") != right.count("7")
    (stage.folder / "cartsync.toml").write_text(changed)
    os.kill(worker.pid, signal.SIGHUP)
    await until(lambda: bool(worker.log("configuration_reread")), 10, stage.tails)
    (said,) = worker.log("configuration_reread")
    assert (said["accounts"], said["after_restart"]) == ([], [f"[accounts.{OTHER_ACCOUNT}]", "[worker]"])


async def test_account_resume_has_the_password_read_again(open_stage: OpenStage) -> None:
    """The advice of the line that tells of the pause works: put the new password there, then resume."""
    stage = await open_stage()
    worker = await started(stage)
    orders = await paused(stage, worker)
    put_password(stage, "the-new-one")
    ran = await stage.command("account", "resume", ACCOUNT, CARTSYNC_HTTP__PORT=worker.url.rpartition(":")[2])
    assert ran.code == 0
    await stage.agreed(orders, within_s=20)


async def test_sigterm_while_kafka_is_away(own_kafka: LocalKafka, tmp_path: Path) -> None:
    """With the times of production, in which a commit alone may take 25 s, the process ends before it is killed."""
    async with Stage(own_kafka.bootstrap, tmp_path / "stage", 2) as stage:
        stage.configure(
            kafka={"session_timeout": "30s", "heartbeat": "3s", "rebalance_timeout": "45s"},
            worker={"attempt_deadline": "8s", "lease": "20s", "settle": "30s"},
        )
        worker = await stage.started()
        await stage.agreed({await shipped(stage, "1"): (1000, 0)})
        await asyncio.to_thread(own_kafka.kill, 1)
        await asyncio.sleep(1.0)
        began = time.monotonic()
        worker.terminate()
        code = await worker.ended(within_s=30)
        assert code in (0, EXIT_AT_ONCE)
        assert time.monotonic() - began < END_WITHIN_S + 1


async def logging_to(stage: Stage, stdout: int) -> WorkerProcess:
    """A worker whose log goes there."""
    (port,) = free_ports(1)
    process = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
        [sys.executable, "-m", "worker", "run"],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        cwd=stage.folder,
        env=stage.environment(CARTSYNC_HTTP__PORT=str(port), PYTHONPATH=str(PROJECT)),
    )
    (stage.folder / "none.log").touch()
    worker = WorkerProcess("worker", process, stage.folder / "none.log", port)
    stage.workers.append(worker)
    await worker.answers()
    await worker.serving(1)
    return worker


async def test_a_reader_of_the_log_that_hangs(open_stage: OpenStage) -> None:
    """Orders are told while nobody reads stdout, and the process ends in order."""
    stage = await open_stage()
    reads, writes = os.pipe()
    try:
        worker = await logging_to(stage, writes)
        orders = [stage.order(f"{ACCOUNT}/{number}") for number in range(600)]  # with more lines than a pipe holds
        for order in orders:
            await order.confirm(line("mug", 1000))
            await order.ship("s1", mug=1)
        await stage.agreed({order.subject: (1000, 0) for order in orders}, within_s=60)
        assert (await worker.get("/livez"))[0] == 200
        worker.terminate()
        assert await worker.ended(within_s=15) == 0
    finally:
        os.close(writes)
        os.close(reads)


@pytest.mark.parametrize("how", ["the disk is full", "its reader is gone"])
async def test_a_log_that_cannot_be_written(open_stage: OpenStage, how: str) -> None:
    """Lines are lost and counted; orders are told, partitions are served, and the process ends in order."""
    stage = await open_stage()
    reads, writes = os.pipe()
    os.close(reads)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        worker = await logging_to(stage, full if how == "the disk is full" else writes)
        subjects = [await shipped(stage, str(number)) for number in range(20)]
        await stage.agreed(dict.fromkeys(subjects, (1000, 0)))
        assert [(await worker.get(f"/{probe}"))[0] for probe in ("livez", "readyz")] == [200, 200]
        dropped = re.search(
            rb"^cartsync_log_lines_dropped_total (\S+)$", (await worker.get("/metrics"))[1], re.MULTILINE
        )
        assert dropped is not None
        assert float(dropped[1]) >= len(subjects)
        worker.terminate()
        assert await worker.ended(within_s=15) == 0
    finally:
        os.close(writes)
        os.close(full)
