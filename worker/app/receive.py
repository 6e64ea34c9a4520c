"""The receiver of callbacks as a process: listens until a signal, finishes the calls in progress, and exits.

It has no partitions, no state, and no provider credentials. It is ready while it listens, even if Kafka is down:
questions must be answered anyway, and pushes get a 503 and are retried.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import uvloop

from worker import __version__, logs
from worker.app.clock import SystemClock
from worker.app.process import EXIT_DONE, end_in_time, on_signals, private_port_unavailable, tune_gc
from worker.app.tracing import close_tracing, open_tracing
from worker.config.receiving import ReceiverConfig
from worker.config.sections import CallbacksSection
from worker.core.placing import Placing
from worker.errors import CartsyncError, ConfigError
from worker.kafka.client import silence_unretrieved_errors
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.metrics import Metrics
from worker.providers.registry import CALLBACKS
from worker.publisher.sender import HttpSender
from worker.web.lookups import Lookup
from worker.web.private_port import Access, PrivatePort
from worker.web.receiver import Limits, Receiver

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = structlog.get_logger(__name__)

ANSWER_MAX_BYTES = 262_144
"""The limit for a shop's response to a lookup."""
_LAG_S = 1.0


def run_receiver(config: ReceiverConfig, reread: Callable[[], ReceiverConfig], host: str | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code of the process (`OPERATIONS.md`).

    `reread`: reads the configuration again, raises `ConfigError`. `host`: for the private port, overrides the
    configuration.
    """
    logs.configure(config.log.format, config.log.level, hash_orders=config.log.orders == "hashed")
    return uvloop.run(_run(config, reread, host or config.http.host))


class ReceiverProcess:
    """`web.private_port.Probed`."""

    def __init__(self, receiver: Receiver, producer: KafkaEventProducer, metrics: Metrics) -> None:
        self._receiver = receiver
        self._producer = producer
        self._metrics = metrics

    def livez(self) -> tuple[bool, str]:
        """Always true: a process that responds is alive."""
        return True, ""

    def readyz(self) -> tuple[bool, str]:
        """Whether the public port is open."""
        return (True, "") if self._receiver.is_listening else (False, "not listening")

    def startupz(self) -> tuple[bool, str]:
        """The same as `readyz`."""
        return self.readyz()

    def metrics_page(self) -> bytes:
        """The current metrics."""
        self._metrics.show_receiver(
            ready=self._receiver.is_listening,
            connections=self._receiver.connections,
            in_flight_bytes=self._receiver.in_flight_bytes,
            kafka_silent_s=self._producer.silent_s(),
        )
        self._metrics.log_lines_dropped(logs.dropped())
        return self._metrics.render()


async def _run(config: ReceiverConfig, reread: Callable[[], ReceiverConfig], host: str) -> int:
    silence_unretrieved_errors(asyncio.get_running_loop())
    kafka = KafkaSettings(**config.kafka.members())
    placing = kafka.placing()
    assert placing is not None, "the configuration was checked"
    metrics = Metrics(process=True)
    producer = KafkaEventProducer(kafka, placing)
    sender = HttpSender(
        deadline_s=config.callbacks.deadline_s,
        user_agent=f"cartsync/{__version__}",
        body_max_bytes=ANSWER_MAX_BYTES,
    )
    tracing = open_tracing()
    asks = sender if tracing is None else tracing.traced(sender)
    lookup = Lookup(asks, metrics, config.callbacks.question_slots)
    receiver = _receiver(config, producer, lookup, placing, metrics, tracing)
    private_port = PrivatePort(ReceiverProcess(receiver, producer, metrics), Access())
    log.info("receiver_starting", version=__version__, topic=kafka.event_topic, accounts=list(config.callers))
    stopping = on_signals(lambda: _reread(receiver, reread))
    lag = asyncio.create_task(_measure_lag(metrics), name="lag")
    try:
        if not await _open_ports(receiver, private_port, config, host):
            return ConfigError.exit_code
        producer.start()
        tune_gc()
        await stopping.wait()
        log.info("receiver_draining")
        end_in_time()
        await receiver.stop()
        await producer.stop()
        log.info("receiver_stopped")
        return EXIT_DONE
    finally:
        lag.cancel()
        await private_port.stop()
        await sender.close()
        await close_tracing(tracing)


def _receiver(
    config: ReceiverConfig,
    producer: KafkaEventProducer,
    lookup: Lookup,
    placing: Placing,
    metrics: Metrics,
    tracing: "Tracing | None",
) -> Receiver:
    clock = SystemClock()
    return Receiver(
        config.callers,
        CALLBACKS,
        producer,
        lookup,
        config.callbacks.trust(),
        placing.key_of,
        metrics,
        limits_of(config.callbacks),
        clock.wall_ms,
        tracing,
    )


def limits_of(section: CallbacksSection) -> Limits:
    """The limits of the public port."""
    return Limits(**{name: getattr(section, name) for name in Limits.__struct_fields__})


async def _open_ports(receiver: Receiver, private_port: PrivatePort, config: ReceiverConfig, host: str) -> bool:
    try:
        log.info("private_port_open", address=await private_port.start(host, config.http.port))
    except OSError as error:
        private_port_unavailable(host, config.http.port, error)
        return False
    public = config.callbacks
    try:
        log.info("public_port_open", address=await receiver.start(public.host, public.port))
    except OSError as error:
        log.critical("public_port_unavailable", host=public.host, port=public.port, error=error.strerror)
        return False
    return True


def _reread(receiver: Receiver, read: Callable[[], ReceiverConfig]) -> None:
    """Applies accounts, with their secrets and lookups, and record secrets now, everything else at the next start.

    Never raises.
    """
    problem = ""
    try:
        fresh = read()
    except CartsyncError as error:
        problem = "; ".join(str(error).splitlines())
    else:
        receiver.reconfigure(fresh.callers, fresh.callbacks.trust())
        log.info("configuration_reread", accounts=list(fresh.callers), after_restart=[])
    if problem:
        log.error("configuration_not_reread", error=problem, holds="the old one")


async def _measure_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_S
        await asyncio.sleep(_LAG_S)
        metrics.loop_lag(loop.time() - due)
