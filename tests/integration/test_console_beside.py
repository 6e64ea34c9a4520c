"""The console that `cartsync run` serves: a process of its own, which cannot hold up the worker, and ends with it."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.process import WorkerProcess, until
from tests.shops.by_hand import ACCOUNT, line
from worker.tools.kafka_ports import free_ports

pytestmark = pytest.mark.slow


async def answer(url: str) -> Any:
    """What the console says; `None`: it does not answer."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url, headers={"Accept": "application/json"}) as response:
                return await response.json(content_type=None) if response.ok else None
    return None


async def opened(stage: Stage) -> tuple[WorkerProcess, str]:
    """A worker with a console, and the URL of that."""
    (port,) = free_ports(1)
    stage.configure(console={"with_worker": True, "port": port, "index": str(stage.folder / "index.sqlite")})
    worker = await stage.started()
    url = f"http://127.0.0.1:{port}/api/orders?sort=reference"
    await shown(url, [])
    return worker, url


async def shown(url: str, subjects: list[str], within_s: float = 40.0) -> None:
    """Waits until the console has just these orders."""
    found = None
    try:
        async with asyncio.timeout(within_s):
            while found is None or [row["subject"] for row in found["orders"]] != subjects:
                await asyncio.sleep(0.1)
                found = await answer(url)
    except TimeoutError:
        raise AssertionError(f"{found}") from None


def is_there(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_neither_stalls_nor_ends_the_worker(open_stage: OpenStage) -> None:
    """Frozen and killed, it costs the worker nothing; it comes again, and leaves with the worker."""
    stage = await open_stage(partitions=1)
    worker, url = await opened(stage)
    (started,) = worker.log("console_started")
    os.kill(started["pid"], signal.SIGSTOP)
    order = stage.order(f"{ACCOUNT}/A1")
    await order.confirm(line("mug", 1000, 2))
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 1000)})

    os.kill(started["pid"], signal.SIGKILL)
    await shown(url, [order.subject])
    assert worker.log("console_ended")[0]["exit_code"] == -signal.SIGKILL
    second = worker.log("console_started")[1]["pid"]
    assert os.getpriority(os.PRIO_PROCESS, second) > os.getpriority(os.PRIO_PROCESS, worker.pid)
    overview = await answer(url.partition("/api/")[0] + "/api/overview")
    assert [each["url"] for each in overview["workers"]] == [worker.url], overview

    worker.terminate()
    assert await worker.ended(30) == 0
    assert not is_there(second)


async def test_it_ends_with_a_worker_that_was_killed(open_stage: OpenStage) -> None:
    """Nobody could tell it: it sees that itself."""
    stage = await open_stage(partitions=1)
    worker, _ = await opened(stage)
    (started,) = worker.log("console_started")
    worker.kill()
    await until(lambda: not is_there(started["pid"]), 15, worker.tail)


async def test_its_mistakes(open_stage: OpenStage) -> None:
    """What is wrong with its settings is said before anything runs; a port in use costs the console alone."""
    stage = await open_stage(partitions=1)
    stage.configure(console={"with_worker": True, "host": "0.0.0.0"})
    refused = await stage.command("run")
    assert (refused.code, 'auth = "none" is for loopback only' in refused.err) == (64, True)
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        stage.configure(console={"with_worker": True, "port": port, "index": str(stage.folder / "index.sqlite")})
        worker = await stage.started()
        await until(lambda: bool(worker.log("console_given_up")), 20, worker.tail)
        order = stage.order(f"{ACCOUNT}/A2")
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
        await stage.agreed({order.subject: (1000, 0)})
