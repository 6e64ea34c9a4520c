"""A worker as a process: connects, serves until a signal, drains, and exits."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvloop

from schemas.state import Deployment
from worker import __version__, is_loopback, logs
from worker.app.clock import SystemClock
from worker.app.console_process import console_command, keep_console
from worker.app.process import (
    EXIT_AT_ONCE,
    EXIT_DONE,
    EXIT_WATCHDOG,
    end_in_time,
    first,
    on_signals,
    private_port_unavailable,
    tune_gc,
)
from worker.app.tracing import close_tracing, open_tracing
from worker.app.worker import Ports, Worker
from worker.backend import open_state_log
from worker.config import Config, HttpSection, StoreSection
from worker.core.results import Reporting, source_of
from worker.core.targets import TargetChoice
from worker.errors import CartsyncError, ConfigError
from worker.kafka.client import silence_unretrieved_errors
from worker.kafka.events import KafkaEventLog
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.metrics import Metrics
from worker.ports import OrderTables
from worker.providers.registry import PROVIDERS
from worker.publisher.sender import HttpSender
from worker.store.rocks import RocksFiles
from worker.store.tables import DiskTables
from worker.web.private_port import Access, PrivatePort

log = structlog.get_logger(__name__)

STUCK_EXIT_S = 60.0
"""How long `livez` must have been failing, which takes a minute of no progress, before the watchdog exits."""
_WATCH_S = 1.0
LEAVE_WITHIN_S = 20.0
"""How long draining may take: while Kafka is down it could take the time of a commit and more."""


def run_worker(
    config: Config,
    reread: Callable[[], Config],
    host: str | None = None,
    accepted_targets: Mapping[str, TargetChoice] = {},
    path: Path | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code of the process (`OPERATIONS.md`).

    `reread`: reads the configuration again, raises `ConfigError`. `host`: for the private port, overrides the
    configuration. `accepted_targets`: in addition to those of the configuration. `path`: of the configuration, for the
    console beside the worker.
    """
    logs.configure(config.log.format, config.log.level, hash_orders=config.log.orders == "hashed")
    accepted = config.accepted_targets() | dict(accepted_targets)
    return uvloop.run(_run(config, reread, host or config.http.host, accepted, path))


async def _run(
    config: Config,
    reread: Callable[[], Config],
    host: str,
    accepted_targets: Mapping[str, TargetChoice],
    path: Path | None,
) -> int:
    silence_unretrieved_errors(asyncio.get_running_loop())
    kafka = KafkaSettings(**config.kafka.members() | {"group_instance_id": config.member_name(socket.gethostname())})
    accounts = config.merchant_accounts()
    metrics = Metrics(process=True)
    rules = config.rules()
    sender = HttpSender(
        deadline_s=rules.attempt_deadline_s,
        user_agent=f"cartsync/{__version__}",
        body_max_bytes=config.http.response_max_bytes,
        accounts=accounts,
    )
    tracing = open_tracing()
    owner_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    placing = kafka.placing()
    reads_lists = any(getattr(account, "disbursements", False) for account in accounts.values())
    # Lists that jobs read become events, and so does what operators ask of the private port.
    writes = (reads_lists and placing is not None) or config.callbacks.trust().can_sign
    producer = KafkaEventProducer(kafka, placing) if writes else None
    tables = _tables(config.store, metrics)
    ports = Ports(SystemClock(), KafkaEventLog(kafka), open_state_log(kafka), sender, producer, tables)
    worker = Worker(
        config.worker,
        accounts,
        ports,
        owner_id=owner_id,
        metrics=metrics,
        event_topic=kafka.event_topic,
        leave_s=config.leave_s(),
        placing=placing,
        trust=config.callbacks.trust(),
        accepted_targets=accepted_targets,
        deployment=Deployment(
            event_topic=kafka.event_topic, group=kafka.group_id, prefix=kafka.transactional_id_prefix
        ),
        reporting=Reporting(source_of(kafka.group_id), kafka.results_with_reasons) if kafka.results_topic else None,
        keeps_history=bool(kafka.history),
        tracing=tracing,
    )
    log.info("worker_starting", version=__version__, owner=owner_id, group=kafka.group_id, topic=kafka.event_topic)
    for name, account in accounts.items():
        guarantee = PROVIDERS[account.provider].guarantee
        target = urlsplit(account.base_url).netloc
        log.info("account_configured", account=name, provider=account.provider, host=target, guarantee=guarantee)
    private_port = PrivatePort(worker, _access(config.http))
    worker.reread = Reread(config, reread, worker, private_port, sender)
    stopping = on_signals(worker.reread.begin)
    try:
        address = await private_port.start(host, config.http.port)
    except OSError as error:
        private_port_unavailable(host, config.http.port, error)
        await sender.close()
        return ConfigError.exit_code
    try:
        log.info("private_port_open", address=address)
        if not is_loopback(host) and not private_port.access.token:
            log.warning(
                "private_port_without_token",
                do="set [http] token_file; until then nobody can see orders or run commands",
            )
        async with _console(config, path, host, urlsplit(address).port or config.http.port):
            return await _serve(worker, stopping)
    finally:
        await private_port.stop()
        await sender.close()
        await close_tracing(tracing)


@asynccontextmanager
async def _console(config: Config, path: Path | None, host: str, port: int) -> AsyncIterator[None]:
    """Keeps a console beside the worker, if that is wanted."""
    if not config.console.with_worker:
        yield
        return
    keeping = asyncio.create_task(keep_console(console_command(path, host, port)), name="console")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def _tables(section: StoreSection, metrics: Metrics) -> OrderTables | None:
    if section.kind == "memory":
        return None
    return DiskTables(RocksFiles(Path(section.path)), SystemClock(), section.cache, metrics.store_failed)


async def _serve(worker: Worker, stopping: asyncio.Event) -> int:
    stop_requested = asyncio.create_task(stopping.wait(), name="stop requested")
    code = await _started(worker, stop_requested)
    if code is None:
        code = await _served(worker, stop_requested)
    stop_requested.cancel()
    if code == EXIT_WATCHDOG:
        return code
    log.info("worker_draining")
    end_in_time()
    try:
        async with asyncio.timeout(LEAVE_WITHIN_S):
            await worker.stop()
    except TimeoutError:
        log.warning("worker_stopped_late", seconds=LEAVE_WITHIN_S, because="Kafka did not respond in time")
        return code or EXIT_AT_ONCE
    log.info("worker_stopped")
    return code


async def _started(worker: Worker, stop_requested: "asyncio.Task[Any]") -> int | None:
    """The exit code if the start failed or was interrupted. The caller drains anyway: we may have joined the group."""
    starting = asyncio.create_task(worker.start(), name="start")
    await first(starting, stop_requested)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return EXIT_DONE
    try:
        starting.result()
    except CartsyncError as error:
        log.critical("worker_start_failed", error=str(error))
        return error.exit_code
    return None


async def _served(worker: Worker, stop_requested: "asyncio.Task[Any]") -> int:
    tune_gc()
    watch = asyncio.create_task(_watch(worker), name="watch")
    await first(stop_requested, worker.failed, watch)
    if watch.done():
        return EXIT_WATCHDOG
    watch.cancel()
    if worker.failed.done():
        error = worker.failed.result()
        log.critical("worker_failed", error=str(error))
        return error.exit_code
    return EXIT_DONE


# --- rereading the configuration ---


def _access(http: HttpSection) -> Access:
    return Access(http.token.get_secret_value(), http.allowed_hosts)


class Reread:
    """Rereads the configuration: applies secrets and accounts, with their certificates and proxies, immediately;
    everything else takes effect at the next start.

    A mistake changes nothing. Never raises.
    """

    def __init__(
        self, config: Config, read: Callable[[], Config], worker: Worker, private_port: PrivatePort, sender: HttpSender
    ) -> None:
        self._config = config
        """The configuration that the process was started with."""
        self._read = read
        self._worker = worker
        self._private_port = private_port
        self._sender = sender
        self._running = asyncio.Lock()
        self._begun: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Starts rereading in the background."""
        task = asyncio.create_task(self(), name="reread")
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def __call__(self) -> None:
        async with self._running:
            problem = ""
            try:
                await self._apply(await asyncio.to_thread(self._read))
            except CartsyncError as error:
                problem = "; ".join(str(error).splitlines())
            except Exception as error:  # noqa: BLE001 - the old configuration stays in effect
                problem = type(error).__name__
            if problem:
                log.error("configuration_not_reread", error=problem, holds="the old one")

    async def _apply(self, fresh: Config) -> None:
        accounts = fresh.merchant_accounts()
        await self._sender.reload(self._worker.accounts_with(accounts))
        changed, later = self._worker.reconfigure(accounts)
        self._worker.believe(fresh.callbacks.trust())
        self._private_port.access = _access(fresh.http)
        log.info("configuration_reread", accounts=changed, after_restart=[*later, *self._sections(fresh)])

    def _sections(self, fresh: Config) -> list[str]:
        """The changed sections that take effect only after a restart."""
        before, now = self._config.redacted(), fresh.redacted()
        for shown in (before, now):
            for member in ("token", "allowed_hosts"):
                shown["http"].pop(member, None)
        kafka = self._config.kafka.members() != fresh.kafka.members()
        others = [name for name in ("worker", "store", "http", "log") if before[name] != now[name]]
        return [f"[{name}]" for name in (*(["kafka"] if kafka else []), *others)]


async def _watch(worker: Worker) -> None:
    """Measures how late the loop is; returns when the worker has been stuck for too long."""
    loop = asyncio.get_running_loop()
    stuck_since: float | None = None
    is_reported = False
    while True:
        due = loop.time() + _WATCH_S
        await asyncio.sleep(_WATCH_S)
        worker.loop_late(loop.time() - due)
        alive, why = worker.livez()
        if alive:
            stuck_since, is_reported = None, False
            continue
        stuck_since = stuck_since or loop.time()
        stuck_s = loop.time() - stuck_since
        if stuck_s > STUCK_EXIT_S:
            log.critical("stuck", why=why, seconds=round(stuck_s))
            return
        if not is_reported:
            is_reported = True
            stacks = {task.get_name(): [str(frame) for frame in task.get_stack()] for task in asyncio.all_tasks()}
            log.error("stuck", why=why, tasks=stacks)
