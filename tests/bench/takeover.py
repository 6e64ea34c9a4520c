"""A worker is killed in the middle of its work: how long until the provider agrees again about all of its orders."""

import asyncio
import time
from typing import Any

from tests.bench.brokers import Brokers, write_events
from tests.bench.measuring import Figure, Row, Tell
from tests.bench.processes import Line, Process, calm, until
from tests.bench.serving import serve
from tests.shops.load import ACCOUNT, PARTITIONS, history, partition_of, subject_of
from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.kafka.client import AIOKafkaProducer
from worker.kafka.events import KafkaEventLog
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.metrics import Metrics
from worker.providers.sequra.options import SequraAccount
from worker.publisher.sender import HttpSender

ROUNDS = 3
ORDERS = 2_000
RATE_PER_S = 500
SHIPMENT = 3
"""Which of an order's events it is told for; before it only the confirmation is known, which nobody is told."""
SETTINGS = {"attempt_deadline": "2s", "lease": "8s", "settle": "5s"}
SESSION = {"session_timeout_s": 6.0, "heartbeat_s": 1.0, "rebalance_timeout_s": 15.0}
"""Much shorter than the defaults, so that the row takes a minute and not five."""

_HOLD_S = worker_settings_from(SETTINGS).rules().takeover_hold_s

TAKEOVER = Row(
    "takeover",
    f"from the last event before kill -9 of one of two workers to agreement, {ORDERS:,} orders, {RATE_PER_S} events/s",
    "s",
    f"session timeout {SESSION['session_timeout_s']:g} s + hold {_HOLD_S:.1f} s",
    1.25,
    is_cost=True,
    decimals=1,
)


async def measure(brokers: Brokers, tell: Tell) -> list[Figure]:
    """The shop and the provider live here, the two workers in processes of their own."""
    figure = Figure(TAKEOVER)
    base_url = await serve()
    for number in range(ROUNDS):
        tell(f"round {number + 1} of {ROUNDS}")
        settings = await brokers.topics() | SESSION
        known = ((order, next(history(5, order))) for order in range(ORDERS))
        total = ORDERS + await write_events(settings, known)
        arguments = {"settings": settings, "base_url": base_url}
        async with Process("takeover:worker", arguments | {"partitions": PARTITIONS}) as victim:
            await victim.hear()
            # Beside the brokers, so that the one that is to take over is not slowed down by the one that is killed.
            standby_arguments = arguments | {"partitions": PARTITIONS // 2, "total": total}
            async with Process("takeover:worker", standby_arguments, measured=False) as standby:
                await standby.hear()
                last_event_at = await _ship(settings)
                victim.kill()
                standby.go()
                agreed_at = await standby.hear()
        figure.add(agreed_at - last_event_at, SESSION["session_timeout_s"] + _HOLD_S)
    return [figure]


async def _ship(settings: dict[str, Any]) -> float:
    """Writes the shipments of all orders at the rate; when the last of them was in the log."""
    producer = AIOKafkaProducer(bootstrap_servers=settings["bootstrap_servers"], acks="all")
    await producer.start()
    began = time.monotonic()
    for number in range(ORDERS):
        if (wait_s := began + number / RATE_PER_S - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        key, value = subject_of(number).encode(), list(history(5, number, SHIPMENT + 1))[SHIPMENT]
        await producer.send(settings["event_topic"], key=key, value=value, partition=partition_of(number))
    await producer.flush()
    written_at = time.monotonic()
    await producer.stop()
    return written_at


async def worker(line: Line, settings: dict[str, Any], base_url: str, partitions: int, total: int = 0) -> None:
    """Says when it serves so many partitions; told to go on, when it has taken up all events and nothing is owed."""
    kafka = KafkaSettings(**settings)
    sender = HttpSender(deadline_s=2.0, user_agent="bench")
    serving = Worker(
        worker_settings_from(SETTINGS),
        {ACCOUNT: SequraAccount(ACCOUNT, "sequra", base_url, "acme", "user", "secret")},
        Ports(SystemClock(), KafkaEventLog(kafka), KafkaStateLog(kafka), sender),
        owner_id=f"bench {partitions}",
        metrics=Metrics(),
        event_topic=kafka.event_topic,
    )
    await serving.start()
    calm()

    def served() -> list[int]:
        return [view.next_offset for view in serving.status().partitions if view.role == "serving"]

    await until(lambda: len(served()) == partitions, every_s=0.05)
    line.say("serving")
    await line.wait()
    await until(lambda: len(served()) == PARTITIONS and sum(served()) >= total and serving.is_idle(), every_s=0.02)
    line.say(time.monotonic())
    await asyncio.Event().wait()
