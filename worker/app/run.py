"""A worker as a process: connects, serves until it is told to stop, leaves in order."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import uuid
from typing import Any

import structlog
import uvloop

from schemas.state import Deployment
from worker import __version__, logs
from worker.app.clock import SystemClock
from worker.app.worker import PROVIDERS, Ports, Worker
from worker.config import Config
from worker.errors import CartsyncError, ConfigError
from worker.kafka.client import hush_leftovers
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.metrics import Metrics
from worker.publisher.sender import HttpSender
from worker.web.operations import Operations

log = structlog.get_logger(__name__)

EXIT_DONE, EXIT_WATCHDOG = 0, 70
EXIT_AT_ONCE = 143
"""A second SIGTERM: nothing is lost by it, but the next owner has to hold what was owed."""

STUCK_EXIT_S = 60.0
"""After `livez` has failed, which takes a minute of doing nothing."""
_WATCH_S = 1.0
_STOP_MARGIN_S = 60.0


def run_worker(config: Config) -> int:
    """Serves until SIGTERM or SIGINT; the process's exit code (`operations.md`)."""
    logs.configure(config.log.format, config.log.level)
    return uvloop.run(_run(config))


async def _run(config: Config) -> int:
    hush_leftovers(asyncio.get_running_loop())
    kafka = KafkaSettings(**config.kafka.members())
    accounts = config.merchant_accounts()
    metrics = Metrics(process=True)
    rules = config.rules()
    sender = HttpSender(
        deadline_s=rules.attempt_deadline_s,
        user_agent=f"cartsync/{__version__}",
        body_max_bytes=config.http.response_max_bytes,
    )
    owner_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    ports = Ports(SystemClock(), KafkaEventLog(kafka), KafkaStateLog(kafka), sender)
    worker = Worker(
        config.worker,
        accounts,
        ports,
        owner_id=owner_id,
        metrics=metrics,
        event_topic=kafka.event_topic,
        leave_s=config.leave_s(),
        deployment=Deployment(
            event_topic=kafka.event_topic, group=kafka.group_id, prefix=kafka.transactional_id_prefix
        ),
    )
    log.info("starting", version=__version__, owner=owner_id, group=kafka.group_id, topic=kafka.event_topic)
    for name, account in accounts.items():
        guarantee = PROVIDERS[account.provider].guarantee
        log.info("account_configured", account=name, provider=account.provider, guarantee=guarantee)
    operations = Operations(worker)
    stopping = _on_signals()
    try:
        address = await operations.start(config.http.host, config.http.port)
    except OSError as error:
        log.critical("no_operations_port", host=config.http.host, port=config.http.port, error=error.strerror)
        await sender.close()
        return ConfigError.exit_code
    try:
        log.info("operations", address=address)
        return await _serve(worker, stopping)
    finally:
        await operations.stop()
        await sender.close()


async def _serve(worker: Worker, stopping: asyncio.Event) -> int:
    told = asyncio.create_task(stopping.wait(), name="told to stop")
    code = await _started(worker, told)
    if code is None:
        code = await _served(worker, told)
    told.cancel()
    if code == EXIT_WATCHDOG:
        return code
    log.info("leaving")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_MARGIN_S):
            await worker.stop()
    log.info("left")
    return code


async def _started(worker: Worker, told: "asyncio.Task[Any]") -> int | None:
    """The exit code when it must not, or shall not, go on; leaving is of use all the same: we may have joined."""
    starting = asyncio.create_task(worker.start(), name="start")
    await _first(starting, told)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return EXIT_DONE
    try:
        starting.result()
    except CartsyncError as error:
        log.critical("not_started", error=str(error))
        return error.exit_code
    return None


async def _served(worker: Worker, told: "asyncio.Task[Any]") -> int:
    _calm_collector()
    watch = asyncio.create_task(_watch(worker), name="watch")
    await _first(told, worker.failed, watch)
    if watch.done():
        return EXIT_WATCHDOG
    watch.cancel()
    if worker.failed.done():
        error = worker.failed.result()
        log.critical("stopping", error=str(error))
        return error.exit_code
    return EXIT_DONE


async def _first(*waited: "asyncio.Future[Any]") -> None:
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)


def _on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""
    stopping = asyncio.Event()

    def told() -> None:
        if stopping.is_set():
            sys.stderr.write("second signal: stopping at once\n")
            os._exit(EXIT_AT_ONCE)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    return stopping


def _calm_collector() -> None:
    """A full collection is the latency tail: what start-up made is not looked at again, the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _watch(worker: Worker) -> None:
    """Measures how late the loop is; ends when the worker has been stuck for too long."""
    loop = asyncio.get_running_loop()
    stuck_since: float | None = None
    told = False
    while True:
        due = loop.time() + _WATCH_S
        await asyncio.sleep(_WATCH_S)
        worker.loop_late(loop.time() - due)
        alive, why = worker.livez()
        if alive:
            stuck_since, told = None, False
            continue
        stuck_since = stuck_since or loop.time()
        stuck_s = loop.time() - stuck_since
        if stuck_s > STUCK_EXIT_S:
            log.critical("stuck", why=why, seconds=round(stuck_s))
            return
        if not told:
            told = True
            stacks = {task.get_name(): [str(frame) for frame in task.get_stack()] for task in asyncio.all_tasks()}
            log.error("stuck", why=why, tasks=stacks)
