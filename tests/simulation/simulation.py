"""One run: everything from one seed. A safety phase in which all goes wrong, then a liveness phase in which nothing does.

While things go wrong, nothing may happen that the protocol forbids. Once they stop, everything must be told within a
bounded time, and every provider must hold what the shop says, to the cent.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from schemas.state import OrderRecord
from tests.shops.records import History, make_history
from tests.simulation.chaos import Chaos
from tests.simulation.disk import compare, draw_disk_faults
from tests.simulation.faults import Plan, draw_plan
from tests.simulation.market import SEQURA
from tests.simulation.network import Faults
from tests.simulation.operators import Operators
from tests.simulation.trace import Trace, ViolationError
from tests.simulation.world import World
from worker import logs
from worker.core.commands import COMMANDS
from worker.core.status import is_parked
from worker.sim.loop import START_WALL_MS
from worker.sim.loop import run as run_virtually

EVENTS = 500
DURATION_S = 240.0
"""Of the safety phase."""
LIVENESS_MAX_S = 900.0
"""Within which everything is told once nothing goes wrong any more: a rebalance that waits for the dead, a takeover
hold, a few delays."""


@dataclass(frozen=True)
class Run:
    """What a run was like."""

    seed: int
    hash: str
    seconds: float
    """Virtual."""
    lines: int


def simulate(
    seed: int,
    *,
    events: int = EVENTS,
    duration_s: float = DURATION_S,
    providers: Mapping[str, str] = SEQURA,
    adjust: Callable[[Plan], None] | None = None,
    operators: bool = False,
    tell: Callable[[str], object] | None = None,
    on_disk: bool = False,
) -> Run:
    """One run. `providers`: of each account, `market.SEQURA` or `market.ALL`. `operators`: they act by events. `adjust` may change its plan; `tell` gets every line of its trace, those of the workers' logs among
    them. Raises `ViolationError` with the seed and the last lines of the trace.
    """
    traces: list[Trace] = []
    lines = _Lines(traces)

    async def main() -> None:
        trace = Trace(asyncio.get_running_loop(), tell)
        traces.append(trace)
        random = Random(seed)
        plan = draw_plan(random)
        if on_disk:
            plan.disk = draw_disk_faults(Random(seed))
        if adjust is not None:
            adjust(plan)
        began_at = datetime.fromtimestamp(START_WALL_MS / 1000, UTC)
        history = make_history(random, records=events, duration_s=duration_s, accounts=providers, began_at=began_at)
        world = World(random, plan, trace, providers)
        if operators:
            for here in world.auditor.partitions:
                here.operated.are_alone = True
            world.operators = Operators(seed, world.append, world.auditor, trace, sorted(history.orders), providers)
        world.market.open(history)
        phases = asyncio.create_task(_phases(world, history))
        await asyncio.wait((phases, trace.broken), return_when=asyncio.FIRST_COMPLETED)
        if trace.violation is None and phases.exception() is not None:
            trace.violate(f"the simulation failed: {phases.exception()!r}")

    with logs.capture(lines, "critical" if tell is None else "debug"):
        try:
            run_virtually(main(), seed=seed if seed % 2 else None)
        except Exception as error:  # noqa: BLE001 - whatever broke, the seed has to be said
            traces[0].violate(f"the run failed: {error!r}")
    trace = traces[0]
    if trace.violation is not None:
        story = "\n".join(trace.tail(40))
        raise ViolationError(f"seed {seed}: {trace.violation}\n{story}")
    return Run(seed, trace.hash(), trace.lines[-1][0], len(trace.lines))


class _Lines(list[str]):
    """Log lines become lines of the trace; they are not part of its hash."""

    def __init__(self, traces: list[Trace]) -> None:
        super().__init__()
        self._traces = traces

    def append(self, line: str) -> None:
        self._traces[0].say(line)


async def _phases(world: World, history: History) -> None:
    for slot in range(world.plan.workers):
        world.start(slot)
    shop = asyncio.create_task(_sell(world, history))
    chaos = asyncio.create_task(Chaos(world, history).run())
    people = [world.soon(doing) for doing in world.market.people()]
    if world.operators is not None:
        people.append(world.soon(world.operators.run()))
    await shop
    chaos.cancel()
    for each in people:
        each.cancel()
    await _heal(world)
    await _settle(world)
    for life in list(world.lives.values()):
        await world.leave(life)
    world.auditor.check_end(history)
    world.trace.add("over")


async def _sell(world: World, history: History) -> None:
    """Writes the shop's records at their times."""
    loop, log = world.loop, world.log
    for record in history.records:
        if record.at_s > loop.time():
            await asyncio.sleep(record.at_s - loop.time())
        partition = world.append(record.key, record.value)
        if world.random.random() < 0.02:
            log.skip(partition, world.random.randint(1, 3))


# --- liveness ---


async def _heal(world: World) -> None:
    """Nothing goes wrong from now on."""
    world.trace.add("healed")
    world.gate.is_calm = True
    world.network.faults = Faults()
    world.market.calm()
    if world.operators is not None:
        world.operators.calm()
    world.network.outage = lambda: False
    world.network.stop_in_send_gap = None
    for disk in world.disks.values():
        disk.heal()
    for life in list(world.lives.values()):
        if life.is_frozen:
            world.thaw(life)
    for slot in range(world.plan.workers):
        if slot not in world.lives:
            world.start(slot)


async def _settle(world: World) -> None:
    """Until everything is told, or cannot be, and nothing is under way; operators release what is parked as it is now. Accounts that
    are paused find out by themselves.
    """
    end = world.loop.time() + LIVENESS_MAX_S
    while not _is_told(world):
        if world.loop.time() > end:
            world.trace.violate(f"not told after {LIVENESS_MAX_S:g} s: {_left(world)}", "told_in_the_end")
            return
        for subject in world.auditor.left():
            if is_parked(world.auditor.record(subject)):
                world.soon(world.operate(COMMANDS["release"], subject))
        await asyncio.sleep(5.0)
    await asyncio.sleep(max(0.0, world.network.settled_at() - world.loop.time()))
    for life in world.lives.values():
        if life.worker is not None and world.disks:
            compare(life.worker, world)


def _is_told(world: World) -> bool:
    auditor = world.auditor
    taken = all(
        here.next >= world.log.end_offset(number) or here.taken == len(here.input)
        for number, here in enumerate(auditor.partitions)
    )
    return taken and world.market.is_quiet() and not auditor.left()


def _left(world: World) -> str:
    def said(record: OrderRecord) -> str:
        return f"revision {record.revision}, acked {record.acked}, park {record.park}, {record.reason}"

    waiting = [f"{subject} ({said(world.auditor.record(subject))})" for subject in world.auditor.left()]
    views = [life.worker.status().partitions for life in world.lives.values() if life.worker is not None]
    inputs = [(here.next, len(here.input)) for here in world.auditor.partitions]
    return f"{waiting}; inputs {inputs}; {views}"
