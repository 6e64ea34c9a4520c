"""The demo's parts: a log, a worker, a receiver of callbacks, all in this process."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from msgspec import Struct

from worker.app import Ports, SystemClock, Worker
from worker.config import worker_settings_from
from worker.core.placing import Placing
from worker.core.results import Reporting
from worker.core.trust import Trust
from worker.metrics import Metrics
from worker.model.account import Account
from worker.model.callbacks import Caller
from worker.ports import EventLog, EventProducer, Records, StateLog
from worker.providers.registry import CALLBACKS
from worker.publisher.sender import HttpSender
from worker.sim.log import MemoryLog
from worker.sim.producer import MemoryEventProducer, put_into
from worker.sim.records import MemoryRecords
from worker.web.lookups import Lookup
from worker.web.receiver import Receiver

if TYPE_CHECKING:
    from worker.tools.letters import Desk

PARTITIONS = 4
SETTINGS = {
    "attempt_deadline": "1s",
    "settle": "2s",
    "lease": "5s",
    "commit_interval": "20ms",
    "retry_initial": "100ms",
    "retry_max": "2s",
    "inconsistent_after": "4s",
    "not_found_delays": ["1s", "2s"],
}
_RECORD_SECRET = "the-receiver-signs-with-it-and-workers-check"  # noqa: S105 - nobody else is on this machine's loopback
TRUST = Trust([_RECORD_SECRET])
_QUESTION_SLOTS = 20

OpenDesk = Callable[[], Awaitable["Desk"]]
Append = Callable[[str, bytes], Awaitable[None]]


class Wire(Struct, frozen=True):
    """All access to the event topic, and the state topic."""

    events: EventLog
    states: StateLog
    append: Append
    """The shop's producer."""
    open_producer: Callable[[], EventProducer]
    """For the receiver, and for the worker: one each."""
    placing: Placing
    records: Callable[[], Records]
    """For those who read along."""
    desk: Callable[[], OpenDesk]
    """For those who deal with dead letters; to be asked once."""


def memory_wire() -> Wire:
    """A log in this process."""
    clock, placing = SystemClock(), Placing("crc32")
    log = MemoryLog(PARTITIONS, clock)

    async def append(key: str, value: bytes) -> None:
        log.append(key.encode(), value, timestamp_ms=time.time_ns() // 1_000_000)

    def open_producer() -> EventProducer:
        return MemoryEventProducer(put_into(log, placing), clock)

    def desk() -> OpenDesk:
        from worker.tools.demo.letters import MemoryDesk  # noqa: PLC0415 - Kafka's client; only when asked for

        return MemoryDesk(log, TRUST, placing).open

    def records() -> Records:
        return MemoryRecords(log, clock)

    return Wire(log.events("demo"), log.states("demo"), append, open_producer, placing, records, desk)


class Stage:
    """Worker and receiver. In production they are separate processes, and only the receiver is public."""

    def __init__(self, wire: Wire, callers: Mapping[str, Caller], sender: HttpSender) -> None:
        self.metrics = Metrics()
        self.wire = wire
        self._sender = sender
        self._trust = TRUST
        self._producer = wire.open_producer()
        self._receiver = Receiver(
            callers,
            CALLBACKS,
            self._producer,
            Lookup(sender, self.metrics, _QUESTION_SLOTS),
            self._trust,
            wire.placing.key_of,
            self.metrics,
        )

    async def receive(self, stack: AsyncExitStack) -> str:
        """Starts the receiver; the base URL."""
        self._producer.start()
        stack.push_async_callback(self._producer.stop)
        url = await self._receiver.start("127.0.0.1", 0)
        stack.push_async_callback(self._receiver.stop)
        return url

    async def work(self, accounts: Mapping[str, Account], stack: AsyncExitStack) -> Worker:
        """Starts a worker."""
        worker = Worker(
            worker_settings_from(SETTINGS),
            accounts,
            Ports(SystemClock(), self.wire.events, self.wire.states, self._sender, self.wire.open_producer()),
            owner_id="demo",
            metrics=self.metrics,
            placing=self.wire.placing,
            trust=self._trust,
            reporting=Reporting("/cartsync/demo"),
            keeps_history=True,
        )
        await worker.start()
        stack.push_async_callback(worker.stop)
        await worker.serving()
        return worker
