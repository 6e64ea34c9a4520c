"""A worker or two on a log in memory, in virtual time: for stories that a test tells step by step."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from schemas import state
from worker.app import Ports, Worker
from worker.config import worker_settings_from
from worker.core.placing import Placing
from worker.core.results import Reporting
from worker.core.targets import TargetChoice
from worker.core.trust import Trust
from worker.metrics import Metrics
from worker.model.account import Account
from worker.ports import OrderTables
from worker.providers.sequra.options import SequraAccount
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, run
from worker.sim.producer import MemoryEventProducer, put_into
from worker.sim.scripted import ScriptedProvider
from worker.tracing import Tracing

DEPLOYMENT = state.Deployment(event_topic="orders.events", group="cartsync", prefix="cartsync")
ACCOUNTS = {"acme": SequraAccount("acme", "sequra", "https://provider.example", "acme", "u", "p")}
LINE = {"reference": "a", "name": "A", "quantity": 1, "unit_price_minor": 100, "total_minor": 100}


def order_event(reference: str, kind: str, data: object) -> bytes:
    """One event of an order of account acme; its id is `<reference> <kind>`."""
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": f"{reference} {kind}",
            "source": "/shop",
            "type": f"order.{kind}",
            "time": "2026-01-01T00:00:00Z",
            "subject": f"acme/{reference}",
            "data": data,
        }
    )


class Stage:
    """A log, a provider, and workers on them."""

    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.log = MemoryLog(2, self.clock)
        self.elsewhere = MemoryLog(2, self.clock)
        """Of another deployment: its own input and group."""
        self.provider = ScriptedProvider(ACCOUNTS, self.clock)

    def worker(
        self,
        name: str,
        settings: Mapping[str, Any] | None = None,
        *,
        accounts: Mapping[str, Account] = ACCOUNTS,
        elsewhere: bool = False,
        accepted_targets: Mapping[str, TargetChoice] = {},
        deployment: state.Deployment = DEPLOYMENT,
        reporting: Reporting | None = None,
        trust: Trust | None = None,
        placing: Placing | None = None,
        tables: OrderTables | None = None,
        tracing: Tracing | None = None,
    ) -> Worker:
        """A worker that has not started; `elsewhere`: it reads another input, in a group of its own."""
        events = (self.elsewhere if elsewhere else self.log).events(name)
        producer = None if trust is None else self.producer()
        ports = Ports(self.clock, events, self.log.states(name), self.provider, producer, tables)
        return Worker(
            worker_settings_from(settings or {}),
            accounts,
            ports,
            owner_id=name,
            metrics=Metrics(),
            accepted_targets=accepted_targets,
            deployment=deployment,
            reporting=reporting,
            trust=trust,
            placing=placing,
            tracing=tracing,
        )

    def producer(self) -> MemoryEventProducer:
        """Writes to the event topic; where no partition is named, by the key's CRC."""
        return MemoryEventProducer(put_into(self.log, Placing("crc32")), self.clock)

    async def serving(self, name: str, **members: Any) -> Worker:
        """A worker that serves."""
        worker = self.worker(name, **members)
        await worker.start()
        await worker.serving()
        return worker

    def tell_shipped(self, reference: str, units: int = 1) -> None:
        """An order of one unit is confirmed, and so many leave: the provider is to be told, unless they are too many."""
        shipped = {"shipment_id": "s1", "lines": [{"line_id": "a", "quantity": units}]}
        for kind, data in (("confirmed", {"currency": "EUR", "lines": [LINE]}), ("items_shipped", shipped)):
            self.log.append(b"k", order_event(reference, kind, data), partition=0)

    def next_offset(self, partition: int) -> int:
        """How far the input was taken, as `m:next` says."""
        found = {entry.key: entry.value for entry in self.log.entries(partition)}[state.NEXT_KEY]
        assert found is not None
        return state.decode_next(found).offset

    def left_in_order(self) -> list[bool]:
        """By partition, what `m:next` says."""
        found = [{entry.key: entry.value for entry in self.log.entries(number)} for number in range(2)]
        values = [each.get(state.NEXT_KEY) for each in found]
        return [value is not None and state.decode_next(value).clean for value in values]

    def roles(self, worker: Worker) -> dict[int, str]:
        """By partition."""
        return {view.partition: view.role for view in worker.status().partitions}


def play(story: Callable[[Stage], Awaitable[None]]) -> None:
    """Plays a story in virtual time."""

    async def main() -> None:
        await story(Stage())

    run(main())
