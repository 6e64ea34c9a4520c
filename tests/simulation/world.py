"""The processes of one run: workers that start, crash, freeze, leave and come back, around one log and one network."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.auditor import Auditor
from tests.simulation.callbacks import TRUST
from tests.simulation.disk import AuditedTables, FaultyDisk
from tests.simulation.faults import Gate, Plan
from tests.simulation.holds import AuditedStateLog
from tests.simulation.market import Market
from tests.simulation.network import Network, Wire
from tests.simulation.operators import Operators
from tests.simulation.trace import Trace
from worker.app import Ports, Worker
from worker.config import WorkerSection
from worker.core.commands import Command
from worker.core.results import Reporting
from worker.errors import StoreError, UsageError
from worker.metrics import Metrics
from worker.ports import EventLog, InputRecord
from worker.sim.log import MemoryLog
from worker.sim.loop import START_WALL_MS, VirtualClock, VirtualLoop

SESSION_S = 30.0
"""After so long without a sign of life the group goes on without a member."""
GAP_SHARE = 0.05
"""How many of the attempts have their process stopped right before they go out, where that is wanted at all."""
_METRICS = Metrics()
"""Shared by all workers of all runs: nobody reads them, and a registry takes longer than a restart."""


class DriftingClock(VirtualClock):
    """A clock of a machine of its own: its rate and its wall clock are a little off."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        wall_ms = START_WALL_MS + random.randint(-400, 400)
        super().__init__(loop, wall_ms, random.getrandbits(32))
        self._rate = 1.0 + random.uniform(-0.0045, 0.0045)

    def now(self) -> float:
        """Seconds, at a rate of its own."""
        return self._loop.time() * self._rate


class LateEvents:
    """`ports.EventLog` whose poll returns a moment after it has taken its records: meanwhile anything may happen."""

    def __init__(self, events: EventLog, random: Random) -> None:
        self._events = events
        self._random = random

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[int, Sequence[InputRecord]]:
        """Records, late."""
        records = await self._events.poll(timeout_s, max_records)
        if records and self._random.random() < 0.2:
            await asyncio.sleep(self._random.choice((0.0, 0.01, 1.0)) * self._random.random())
        return records


@dataclass(eq=False)
class Life:
    """One worker process, from its start to its end."""

    name: str
    slot: int
    wire: Wire
    worker: Worker | None = None
    main: asyncio.Task[None] | None = None
    is_frozen: bool = False
    is_over: bool = False


class World:
    """All processes, and what happens to them."""

    def __init__(self, random: Random, plan: Plan, trace: Trace, providers: Mapping[str, str]) -> None:
        """`providers`: by account."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.random = random
        self.plan = plan
        self.trace = trace
        self.market = Market(random, trace, providers)
        self.accounts = self.market.accounts
        self.settings = _settings(plan, random)
        self.gate = Gate(random, plan)
        self.log = MemoryLog(plan.partitions, VirtualClock(loop))
        self.log.gate = self.gate
        sides = self.market.sides
        self.network = Network(random, trace, sides, settle_s=plan.rules.settle_s, faults=plan.network)
        if plan.freezes_in_send_gap:
            self.network.stop_in_send_gap = self._stop_in_send_gap
        self.auditor = Auditor(plan.partitions, plan.rules, self.network, self.accounts, sides, trace)
        self.auditor.keeps_history = plan.keeps_history
        self.log.watch(self.auditor.committed)
        self.market.callbacks.append = self.append
        self.operators: Operators | None = None
        """They act by events; `None`: by asking workers."""
        self.disks: dict[int, FaultyDisk] = {}
        """By slot."""
        self.lives: dict[int, Life] = {}
        """By slot: the process that runs there."""
        self._numbers = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> int:
        """Writes a record into the event topic; its partition."""
        partition, _ = self.log.append(key, value, headers, partition=partition)
        self.auditor.partitions[partition].input.append(self.log.records(partition)[-1])
        return partition

    def soon(self, coro: Coroutine[Any, Any, None], process: str = "") -> "asyncio.Task[None]":
        """Runs something beside everything else; its failure breaks the run."""
        task: asyncio.Task[None] = self.loop.spawn(process, coro)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.trace.violate(f"{task.get_coro()!r} failed: {error!r}")

    # --- processes ---

    def start(self, slot: int) -> None:
        """A worker starts in a slot that has none."""
        self._numbers += 1
        name = f"w{slot}.{self._numbers}"
        life = Life(name, slot, Wire(name, self.network, self.random, self.auditor))
        self.lives[slot] = life
        self.trace.add("started", name)
        clock = DriftingClock(self.loop, self.random)
        states = AuditedStateLog(name, self.log.states(name), self.auditor)
        ports = Ports(
            clock,
            LateEvents(self.log.events(name, f"slot-{slot}" if self.plan.has_names else ""), self.random),
            states,
            life.wire,
            tables=self._tables(slot, name, clock, states),
        )
        life.main = self.soon(self._live(life, ports), name)

    def _tables(self, slot: int, name: str, clock: VirtualClock, states: AuditedStateLog) -> AuditedTables | None:
        """On the disk of its machine, if there are any."""
        if self.plan.disk is None:
            return None
        if slot not in self.disks:
            self.disks[slot] = FaultyDisk(Random(self.random.getrandbits(32)), self.plan.disk)
        return AuditedTables(self.disks[slot].begin(name), clock, states, self.trace)

    async def _live(self, life: Life, ports: Ports) -> None:
        life.worker = Worker(
            self.settings,
            self.accounts,
            ports,
            owner_id=life.name,
            metrics=_METRICS,
            reporting=Reporting("/cartsync/simulated", with_reasons=True),
            keeps_history=self.plan.keeps_history,
            trust=TRUST,
            poll_timeout_s=self.random.choice((1.0, 5.0)),
        )
        await life.worker.start()
        error = await asyncio.shield(life.worker.failed)
        self.trace.violate(f"{life.name} cannot go on: {error!r}")

    async def crash(self, life: Life) -> None:
        """kill -9: nothing that it does has any effect any more; what it sent is under way."""
        self._end(life, "crashed")
        self.log.crash(life.name)
        life.wire.is_dead = True
        if life.slot in self.disks:
            self.disks[life.slot].crash()
        self.loop.thaw(life.name)
        if life.worker is not None:
            await life.worker.kill()
        await self._buried(life)
        self.soon(self._expire(life, self.random.choice((0.0, SESSION_S)) * self.random.random()))

    async def _expire(self, life: Life, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.log.expel(life.name)

    async def leave(self, life: Life) -> None:
        """It is asked to end, and does; unless somebody kills it meanwhile."""
        if life.worker is None or life.main is None:
            await self.crash(life)
            return
        self.trace.add("leaving", life.name)
        life.main.cancel()
        drain_s = self.random.choice((None, None, 0.0, 1.0))
        stopping = self.soon(life.worker.stop(drain_s), life.name)
        life.main = stopping
        with suppress(asyncio.CancelledError):
            await asyncio.wait([stopping])
        if not life.is_over:
            self._end(life, "left")

    def _end(self, life: Life, how: str) -> None:
        self.trace.add(how, life.name)
        life.is_over = True
        life.is_frozen = False
        if self.lives.get(life.slot) is life:
            del self.lives[life.slot]

    async def _buried(self, life: Life) -> None:
        assert life.main is not None
        life.main.cancel()
        await asyncio.wait([life.main])

    async def freeze(self, life: Life, seconds: float) -> None:
        """It stands still for so long, and does not know."""
        self.trace.add("frozen", life.name, round(seconds, 3))
        life.is_frozen = True
        self.loop.freeze(life.name)
        await asyncio.sleep(min(seconds, SESSION_S))
        if seconds > SESSION_S and not life.is_over:
            self.log.expel(life.name)
            await asyncio.sleep(seconds - SESSION_S)
        if not life.is_over:
            self.thaw(life)

    def _stop_in_send_gap(self, process: str) -> None:
        life = next((life for life in self.lives.values() if life.name == process), None)
        if life is not None and not life.is_frozen and self.random.random() < GAP_SHARE:
            self.soon(self.freeze(life, self.random.uniform(2.0, 6.0) * self.plan.rules.lease_s))

    def thaw(self, life: Life) -> None:
        """It goes on."""
        self.trace.add("thawed", life.name)
        life.is_frozen = False
        self.loop.thaw(life.name)

    # --- operators ---

    async def operate(self, command: Command, target: str) -> None:
        """An operator asks whichever worker has the order."""
        self.trace.add("operator", command.step, target)
        if self.operators is not None:
            self.operators.write(command, target)
            return
        for life in list(self.lives.values()):
            if life.worker is not None and not life.is_frozen:
                with suppress(UsageError, StoreError):
                    await life.worker.operate(command, target)


def _settings(plan: Plan, random: Random) -> WorkerSection:
    rules = plan.rules
    members = {name: getattr(rules, name) for name in rules.__struct_fields__}
    members |= {"max_poll_records": random.choice((3, 2_000)), "max_batch_records": random.choice((2, 2_000))}
    members |= {"max_inbox_records": random.choice((4, 10_000))}
    return WorkerSection.model_construct(**members)
