"""The console as a process: reads along, serves its pages until it is told to stop."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
import uvloop
from msgspec.structs import replace

from worker import __version__, is_loopback, logs
from worker.app.process import EXIT_DONE, end_in_time, first, on_signals, tune_gc
from worker.backend import open_records
from worker.config.console import ConsoleConfig
from worker.config.sections import ConsoleSection
from worker.core.policy import DeliveryPolicy
from worker.errors import ConfigError
from worker.kafka.client import silence_unretrieved_errors
from worker.kafka.settings import KafkaSettings
from worker.metrics import Metrics
from worker.ports import Records
from worker.providers.registry import describer
from worker.tools.console.assistant import assistance
from worker.tools.console.attempt import Attempts, read_events
from worker.tools.console.events import ByEvents, Places
from worker.tools.console.letters import AtTheDesk
from worker.tools.console.workers import PrivatePorts
from worker.tools.letters import desk_on
from worker.tools.operating import Acts
from worker.tools.operating_kafka import acts_on
from worker.tools.patience import for_a_person
from worker.web.console.answers import Answers, Site
from worker.web.console.auth import Auth, Basic, Loopback, Proxied
from worker.web.console.follower import Follower
from worker.web.console.index import Index
from worker.web.console.operator import Letters, Nobody, NoLetters, Operator, Workers
from worker.web.console.queries import Reader
from worker.web.console.server import Console
from worker.web.private_port import PrivatePort

log = structlog.get_logger(__name__)


_NICE = 10
_NOBODY = NoLetters()


def run_console(config: ConsoleConfig, beside: str = "") -> int:
    """Serves until SIGTERM or SIGINT; the process's exit code. `beside`: URL of the worker that has started it; it acts
    through that one unless others are named, gives way to it, and ends when standard input does. Raises `ConfigError`.
    """
    if beside:
        os.nice(_NICE)
        config = replace(config, console=_beside(config.console, beside))
    logs.configure(config.log.format, config.log.level, hash_orders=config.log.orders == "hashed")
    return uvloop.run(_run(config, ends_with_input=bool(beside)))


def _beside(section: ConsoleSection, url: str) -> ConsoleSection:
    return section.model_copy(update={"workers": section.workers or (url,)})


def _stop_at_end_of_input(stopping: asyncio.Event) -> None:
    """The pipe ends when the worker does, whatever it died of."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            stopping.set()
            end_in_time()

    loop.add_reader(0, readable)


async def _run(config: ConsoleConfig, *, ends_with_input: bool) -> int:
    silence_unretrieved_errors(asyncio.get_running_loop())
    section = config.console
    kafka = KafkaSettings(**config.kafka.members())
    ports = PrivatePorts(section.workers, config.http.token.get_secret_value()) if section.workers else Nobody()
    by_events = acts_on(kafka, config.trust) if config.trust.can_sign else None
    stopping = on_signals(lambda: None)  # users are read again by themselves
    if ends_with_input:
        _stop_at_end_of_input(stopping)
    async with AsyncExitStack() as stack:
        records = open_records(kafka)
        opened = await open_console(
            stack,
            section,
            records=records,
            operator=ports,
            acts=by_events,
            letters=AtTheDesk(
                partial(desk_on, for_a_person(config.kafka), config.trust if config.trust.can_sign else None)
            ),
            workers=ports,
            rules=config.worker.rules(),
            providers=config.providers,
            index=Path(section.index),
        )
        tune_gc()
        log.info(
            "console_open", version=__version__, address=opened.url, auth=section.auth, workers=len(section.workers)
        )
        await first(opened.following, asyncio.ensure_future(stopping.wait()))
        if opened.following.done():
            opened.following.result()  # raises: Kafka refuses us
        end_in_time()
    log.info("console_stopped")
    return EXIT_DONE


class ConsoleProcess:
    """`web.private_port.Probed`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def livez(self) -> tuple[bool, str]:
        """Always true: a process that responds is alive."""
        return True, ""

    def readyz(self) -> tuple[bool, str]:
        """Whether all that there is has been read, and is read on."""
        state = self._site.follower.state
        return state == "following", "" if state == "following" else f"the index: {state}"

    def startupz(self) -> tuple[bool, str]:
        """Always true: its pages are served from the start."""
        return True, ""

    def metrics_page(self) -> bytes:
        """The current metrics."""
        follower, metrics = self._site.follower, self._site.metrics
        metrics.show_console(state=follower.state, behind_s=follower.behind_s(), behind=follower.behind())
        metrics.log_lines_dropped(logs.dropped())
        return metrics.render()


class Opened:
    """A console that serves."""

    def __init__(self, url: str, following: "asyncio.Task[None]", index: Index) -> None:
        self.url = url
        self.index = index
        self.following = following
        """Ends only when Kafka refuses us."""


async def open_console(
    stack: AsyncExitStack,
    section: ConsoleSection,
    *,
    records: Records,
    operator: Operator,
    workers: Workers,
    rules: DeliveryPolicy,
    providers: Mapping[str, str],
    index: Path,
    acts: Acts | None = None,
    letters: Letters = _NOBODY,
    port_setting: str = "[console] host and port",
) -> Opened:
    """Opens everything; it is closed with the stack. `acts`: actions become events, and `operator` is not asked.
    `letters`: deals with dead letters.
    `port_setting`: what sets the port. Raises `ConfigError`.
    """
    if section.auth == "none" and not is_loopback(section.host):
        raise ConfigError("[console] auth = none is for loopback only")
    auth = auth_of(section)
    kept = Index(index, rules, describer(providers), wall_ms)
    stack.callback(kept.close)
    if acts is not None:
        operator = ByEvents(acts, places_in(kept, providers))
    follower = Follower(records, kept, assistance(rules, providers, wall_ms))
    site = Site(
        records=records,
        index=kept,
        follower=follower,
        operator=operator,
        letters=letters,
        workers=workers,
        trier=Attempts(providers).attempt,
        read_events=read_events,
        rules=rules,
        providers=providers,
        describe=describer(providers),
        now_ms=wall_ms,
        metrics=Metrics(process=bool(section.metrics_port)),
        trace_url=section.trace_url,
    )
    answers = Answers(site)
    stack.callback(answers.close)
    console = Console(
        answers,
        auth,
        allowed_hosts=section.allowed_hosts,
        asks_for_password=section.auth == "basic",
        connections=section.connections,
    )
    url = await _listening(console.start, section.host, section.port, port_setting)
    stack.push_async_callback(console.stop)
    if section.metrics_port:
        private = PrivatePort(ConsoleProcess(site))
        setting = "[console] host and metrics_port"
        address = await _listening(private.start, section.host, section.metrics_port, setting)
        stack.push_async_callback(private.stop)
        log.info("private_port_open", address=address)
    following = asyncio.create_task(follower.run(), name="console-follower")
    watching = asyncio.create_task(answers.watch_workers(), name="console-workers")
    stack.push_async_callback(_end, following, watching)
    return Opened(url, following, kept)


async def _listening(start: Callable[[str, int], Awaitable[str]], host: str, port: int, setting: str) -> str:
    """The base URL. Raises `ConfigError` that says which setting to change."""
    try:
        return await start(host, port)
    except OSError as error:
        raise ConfigError(f"{setting}: {host}:{port} cannot be used: {error.strerror}; set another port") from None


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def places_in(index: Index, providers: Mapping[str, str]) -> Places:
    """Where the index has orders."""

    def look(subjects: Sequence[str]) -> dict[str, list[int]]:
        reader = Reader(index.connect(), providers)
        try:
            return {subject: [partition for partition, _ in reader.places(subject)] for subject in subjects}
        finally:
            reader.close()

    async def places(subjects: Sequence[str]) -> dict[str, list[int]]:
        return await asyncio.to_thread(look, subjects)

    return places


def auth_of(section: ConsoleSection) -> Auth:
    """Who may ask. Raises `ConfigError`."""
    if section.auth == "basic":
        return Basic(Path(section.users_file), forwarded_from=section.forwarded_from)
    if section.auth == "proxy":
        return Proxied(section.proxy_header, section.proxy_from, section.proxy_operators)
    return Loopback()


def wall_ms() -> int:
    """UTC milliseconds."""
    return time.time_ns() // 1_000_000
