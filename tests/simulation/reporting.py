"""Weeks of delivery reports in virtual time.

Real workers on a log in memory, which die, leave and come back, against the sandbox's model of seQura's reports, behind
a network that loses requests and answers and is late with either.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from schemas.state import ORDER_PREFIX, OrderRecord, decode_order
from tests.shops.events import EventSpec, confirmed, goods, shipped
from tests.unit.core.samples import DETAILS
from worker import logs
from worker.app import Ports, Worker
from worker.config import worker_settings_from
from worker.core.placing import Placing
from worker.core.targets import TargetChoice
from worker.core.trust import Trust
from worker.metrics import Metrics
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.providers.sequra.options import SequraAccount
from worker.sandbox.sequra.reports import Reports, amounts_of
from worker.sim.log import MemoryLog
from worker.sim.loop import VirtualClock, VirtualLoop, run
from worker.sim.producer import MemoryEventProducer, put_into

PARTITIONS = 3
PLACING = Placing("crc32", "reference")
_METRICS = Metrics()
"""Shared by all workers of all runs: nobody reads them, and a registry takes longer than a restart."""
ZONE = ZoneInfo("Europe/Madrid")
PEOPLE = {name: DETAILS[name] for name in ("customer", "delivery_method")}
DAY_S = 86_400.0
SETTLE_S, DEADLINE_S = 30.0, 8.0
SETTINGS = {"settle": f"{SETTLE_S:g}s", "attempt_deadline": f"{DEADLINE_S:g}s"}
STATUSES = {"busy": 503, "error": 500, "refused": 409, "forbidden": 403, "not_found": 404}
FAULTS = ("lost", "applied", "late", "busy", "error", "refused")


class Provider:
    """seQura and the way there."""

    def __init__(self, chance: Random, clock: VirtualClock) -> None:
        self.chance = chance
        self.clock = clock
        self.faults = 0.0
        self.script: deque[str] = deque()
        """What happens to the next requests, whatever chance says."""
        self.requests: list[tuple[float, HttpRequest]] = []
        """Those that went out, and when."""
        self.paid: dict[str, list[dict[str, Any]]] = {}
        """By path, the lines of each disbursement."""
        self.reports = Reports("m1")
        self.updates: dict[str, Any] = {}
        """The carts of the newest update of each order."""
        self.taken: list[tuple[int, list[str], bool]] = []
        """Each report that was taken: when, whom it tells of, whether it has statistics."""
        self.touched: Callable[[], None] = lambda: None
        """Called with every request: somebody may die of it."""
        self.wrong: list[str] = []

    async def send(self, request: HttpRequest, deadline_s: float, may_send: Callable[[], bool]) -> HttpResponse | Fault:
        """`ports.Sender`."""
        await asyncio.sleep(self.chance.random() * 0.2)
        if not may_send():
            return Fault(False, "the lease ran out")
        self.requests.append((self.clock.now(), request))
        fault = self.fault_of(request)
        self.touched()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[HttpResponse] = loop.create_future()
        if fault in ("", "applied", "late", "slow"):
            # What is on its way arrives, whatever becomes of its sender.
            after_s = deadline_s + self.chance.random() * SETTLE_S * 0.95 if fault == "late" else 0.05
            loop.call_later(after_s, self._arrive, request, answer, context=Context())
        if fault == "slow":
            await asyncio.sleep(3.0)
        if fault in ("", "slow"):
            return await answer
        if fault in STATUSES:
            await asyncio.sleep(0.1)
            return HttpResponse(STATUSES[fault], {}, b"")
        await asyncio.sleep(deadline_s)
        return Fault(True, "no answer in time")

    def fault_of(self, request: HttpRequest) -> str:
        """What happens to a request that goes out now; empty: nothing."""
        fault = self.chance.choice(FAULTS) if self.chance.random() < self.faults else ""
        if self.script:
            fault = self.script.popleft()
        return "busy" if fault == "refused" and request.method == "PUT" else fault

    def _arrive(self, request: HttpRequest, answer: "asyncio.Future[HttpResponse]") -> None:
        if request.method == "GET":
            answer.set_result(self._disbursed(request.url))
            return
        if request.method == "PUT":
            told = msgspec.json.decode(request.body)["order"]
            name = str(told["merchant_reference"]["order_ref_1"])
            self.updates[name] = [amounts_of(told[cart]["items"]) for cart in ("shipped_cart", "unshipped_cart")]
            status = 204
        else:
            status = self._report(request.body)
        if not answer.done():
            answer.set_result(HttpResponse(status, {}, b""))

    def _report(self, body: bytes) -> int:
        answer = self.reports.take(body)
        if answer.status != 204:
            self.wrong.append(f"refused: {answer.body!r}")
            return answer.status
        told = msgspec.json.decode(body)["delivery_report"]
        names = [str(each["merchant_reference"]["order_ref_1"]) for each in told["orders"]]
        self.wrong += [f"{name} reported after it was updated" for name in names if name in self.updates]
        self.taken.append((self.clock.wall_ms(), names, "statistics" in told))
        return 204

    def _disbursed(self, url: str) -> HttpResponse:
        path = url.removeprefix("https://x.example")
        if path in self.paid:
            return HttpResponse(200, {}, msgspec.json.encode({"disbursement": {"lines": self.paid[path]}}))
        listed = [{"disbursement": {"issue_date": "2026-03-20", "path": each}} for each in self.paid]
        return HttpResponse(200, {}, msgspec.json.encode(listed))

    async def close(self) -> None:
        """Nothing is open."""


class Life:
    """One worker process."""

    def __init__(self, name: str, worker: Worker) -> None:
        self.name = name
        self.worker = worker
        self.main: asyncio.Task[None] | None = None
        self.is_frozen = False


class _SharedProducer(MemoryEventProducer):
    """Of all workers, as the brokers are: one that ends does not close it for the others."""

    async def stop(self) -> None:
        pass


class World:
    """Brokers, provider, shop and workers."""

    def __init__(self, seed: int, begin: datetime, *, partitions: int = PARTITIONS, **members: Any) -> None:
        self.chance = Random(seed)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.begin_ms = int(begin.timestamp() * 1000)
        self.clock = VirtualClock(loop, self.begin_ms, seed)
        self.log = MemoryLog(partitions, self.clock)
        self.provider = self.make_provider()
        self.account = SequraAccount("acme", "sequra", "https://x.example", "m1", "u", "p", delivery="report")
        self.account = msgspec.structs.replace(self.account, **members)
        self.deaths = 0.0
        """How often a request is the end of some worker."""
        self.lives: dict[int, Life] = {}
        self.kills = 0
        self.failures: list[str] = []
        self.logged: list[dict[str, Any]] = []
        """Errors in the log, once it is over."""
        self.accepted: Mapping[str, TargetChoice] = {}
        self.trust = Trust(("a secret of the tests' records, long enough",))
        self.producer = _SharedProducer(put_into(self.log, PLACING), self.clock)
        self.producer.start()
        self.settings: dict[str, Any] = {}
        """Of `[worker]`, besides."""
        self.configured: dict[str, SequraAccount] | None = None
        """Other accounts than its own."""
        self._numbers = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.provider.touched = self._touched

    def make_provider(self) -> Provider:
        """The side that is told."""
        return Provider(self.chance, self.clock)

    def accounts(self) -> dict[str, SequraAccount]:
        """Those of the workers that start now."""
        return {self.account.name: self.account} if self.configured is None else self.configured

    def clock_of(self, name: str) -> VirtualClock:  # noqa: ARG002 - machines differ in other worlds
        """The clock of a process."""
        return self.clock

    def soon(self, coro: Coroutine[Any, Any, Any], process: str = "") -> "asyncio.Task[Any]":
        """Beside everything else, as part of a process if need be; a failure is kept."""
        task: asyncio.Task[Any] = self.loop.spawn(process, coro)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(repr(error))

    # --- workers

    def start(self, slot: int) -> None:
        """A worker where there is none."""
        if slot in self.lives:
            return
        self._numbers += 1
        name = f"w{slot}.{self._numbers}"
        ports = Ports(self.clock_of(name), self.log.events(name), self.log.states(name), self.provider, self.producer)
        settings = worker_settings_from(SETTINGS | self.settings)
        worker = Worker(
            settings,
            self.accounts(),
            ports,
            owner_id=name,
            metrics=_METRICS,
            poll_timeout_s=600.0,
            check_s=3600.0,
            placing=PLACING,
            trust=self.trust,
            accepted_targets=self.accepted,
        )
        life = self.lives[slot] = Life(name, worker)
        life.main = self.soon(self._live(life), name)

    async def _live(self, life: Life) -> None:
        await life.worker.start()
        error = await asyncio.shield(life.worker.failed)
        raise error

    def _touched(self) -> None:
        if self.lives and self.chance.random() < self.deaths:
            slot = self.chance.choice(list(self.lives))
            self.soon(self._end(slot, after_s=self.chance.choice((0.0, 0.06, 1.0, 9.0)) * self.chance.random()))

    async def kill(self, slot: int) -> None:
        """As kill -9; nobody comes instead."""
        life = self.lives.pop(slot)
        assert life.main is not None
        self.log.crash(life.name)
        life.main.cancel()
        await life.worker.kill()
        self.log.expel(life.name)

    async def leave(self, slot: int) -> None:
        """In order; nobody comes instead."""
        life = self.lives.pop(slot)
        assert life.main is not None
        life.main.cancel()
        await life.worker.stop()

    async def _end(self, slot: int, after_s: float) -> None:
        """Kills it, or lets it leave; another one comes some time after."""
        await asyncio.sleep(after_s)
        await self.end(slot)
        await asyncio.sleep(self.chance.choice((0.1, 5.0, 120.0)))
        self.start(slot)

    async def end(self, slot: int) -> None:
        """Kills it, or lets it leave, and nobody comes instead."""
        life = self.lives.pop(slot, None)
        if life is None:
            return
        self.kills += 1
        assert life.main is not None
        if self.chance.random() < 0.6 or life.is_frozen:
            self.log.crash(life.name)
            self.loop.thaw(life.name)
            life.main.cancel()
            await life.worker.kill()
            self.soon(self._expire(life))
        else:
            life.main.cancel()
            await life.worker.stop()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([life.main])

    async def _expire(self, life: Life) -> None:
        await asyncio.sleep(self.chance.choice((0.0, 30.0)))
        self.log.expel(life.name)

    # --- the shop

    def tell(self, name: str, number: int, spec: EventSpec) -> None:
        """An event, as of now."""
        at = datetime.fromtimestamp(self.clock.wall_ms() / 1000, UTC)
        event = {
            "specversion": "1.0",
            "id": f"{name} {number}",
            "source": "/shop",
            "type": spec.type,
            "time": at.isoformat(),
            "subject": f"acme/{name}",
            "data": spec.data,
        }
        self.log.append(PLACING.key_of(f"acme/{name}"), msgspec.json.encode(event))

    async def order(self, name: str, days: float) -> None:
        """Confirmed some time, then shipped unit by unit."""
        chance = self.chance
        articles = {chr(65 + number): chance.randint(1, 3) for number in range(chance.randint(1, 3))}
        lines = [goods(one, count, count * chance.randint(50, 5_000)) for one, count in articles.items()]
        parcels = [one for one, count in articles.items() for _ in range(count)]
        chance.shuffle(parcels)
        moments = sorted(chance.random() * days * DAY_S for _ in range(len(parcels) + 1))
        tellings = [confirmed(*lines, **PEOPLE)]
        for number, one in enumerate(parcels):
            named: dict[str, Any] = {one: 1}
            tellings.append(shipped(f"s{number}", **named))
        begun = self.clock.now()
        for number, (told, at) in enumerate(zip(tellings, moments, strict=True)):
            await asyncio.sleep(max(0.0, begun + at - self.clock.now()) + 1.0)
            self.tell(name, number, told)

    # --- what has become of it

    def records(self) -> dict[str, OrderRecord]:
        """Every order, as the state topic has it."""
        found: dict[str, bytes | None] = {}
        for partition in range(self.log.partitions):
            for entry in self.log.entries(partition):
                if entry.key.startswith(ORDER_PREFIX.encode()):
                    found[entry.key.decode().removeprefix(ORDER_PREFIX)] = entry.value
        return {subject: decode_order(value) for subject, value in found.items() if value is not None}


def play(seed: int, begin: datetime, story: Callable[[World], Any], **members: Any) -> World:
    """Plays it in virtual time; the world as it is then."""

    async def main() -> World:
        world = World(seed, begin, **members)
        await story(world)
        for life in world.lives.values():
            assert life.main is not None
            life.main.cancel()
            await life.worker.stop()
        return world

    lines: list[str] = []
    with logs.capture(lines, "error"):
        world = run(main(), seed=seed)
    world.logged = [json.loads(line) for line in lines]
    return world
