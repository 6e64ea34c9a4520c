"""One run: everything from one seed. A safety phase in which all goes wrong, then a liveness phase in which nothing does.

While things go wrong, nothing may happen that the protocol forbids. Once they stop, everything must be told within a
bounded time, and every provider must hold what the shop says, to the cent.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from schemas.state import OrderRecord
from tests.simulation.faults import ACTIONS, Plan, draw_plan
from tests.simulation.provider import Faults
from tests.simulation.shop import History, make_history
from tests.simulation.trace import Trace, ViolationError
from tests.simulation.world import ACCOUNTS, Life, World
from worker import logs
from worker.core.outbox import is_parked
from worker.sim.loop import START_WALL_MS, StuckError, VirtualLoop
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
    adjust: Callable[[Plan], None] = lambda plan: None,
    log_lines: list[str] | None = None,
) -> Run:
    """Raises `ViolationError` with the seed and the last lines of the trace."""
    lines: list[str] = [] if log_lines is None else log_lines
    traces: list[Trace] = []

    async def main() -> None:
        trace = Trace(asyncio.get_running_loop())
        traces.append(trace)
        random = Random(seed)
        plan = draw_plan(random)
        adjust(plan)
        began_at = datetime.fromtimestamp(START_WALL_MS / 1000, UTC)
        history = make_history(random, records=events, duration_s=duration_s, accounts=ACCOUNTS, began_at=began_at)
        world = World(random, plan, trace)
        phases = asyncio.create_task(_phases(world, history))
        await asyncio.wait((phases, trace.broken), return_when=asyncio.FIRST_COMPLETED)
        if trace.violation is None and phases.exception() is not None:
            trace.violate(f"the simulation failed: {phases.exception()!r}")

    with logs.capture(lines, "critical" if log_lines is None else "debug"):
        try:
            run_virtually(main(), seed=seed if seed % 2 else None)
        except Exception as error:
            if not traces or traces[0].violation is None:
                raise ViolationError(f"seed {seed}: {error!r}\n{_story(traces, lines)}") from error
    trace = traces[0]
    if trace.violation is not None:
        raise ViolationError(f"seed {seed}: {trace.violation}\n{_story(traces, lines)}")
    return Run(seed, trace.hash(), trace.lines[-1][0], len(trace.lines))


def _story(traces: list[Trace], lines: list[str]) -> str:
    return "\n".join([*(traces[0].tail(40) if traces else []), *lines[-5:]])


async def _phases(world: World, history: History) -> None:
    for slot in range(world.plan.workers):
        world.start(slot)
    shop = asyncio.create_task(_sell(world, history))
    chaos = asyncio.create_task(_Chaos(world, history).run())
    await shop
    chaos.cancel()
    await _heal(world)
    await _settle(world)
    for life in list(world.lives.values()):
        await world.leave(life)
    world.auditor.check_end(history.told, history.confirmed, history.poison)
    world.trace.add("over")


async def _sell(world: World, history: History) -> None:
    """Writes the shop's records at their times."""
    loop, log, auditor = world.loop, world.log, world.auditor
    for record in history.records:
        if record.at_s > loop.time():
            await asyncio.sleep(record.at_s - loop.time())
        partition, _ = log.append(record.key, record.value)
        auditor.partitions[partition].input.append(log.records(partition)[-1])
        if world.random.random() < 0.02:
            log.skip(partition, world.random.randint(1, 3))


# --- safety ---


class _Chaos:
    """Does one thing after the other, as the plan weighs them."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._subjects = sorted(history.told)

    async def run(self) -> None:
        """For ever."""
        world = self._world
        plan, random = world.plan, world.random
        weights = [plan.weights[name] for name in ACTIONS]
        while True:
            await asyncio.sleep(random.expovariate(1.0 / plan.gap_s))
            getattr(self, random.choices(ACTIONS, weights)[0])()

    def _life(self) -> Life | None:
        lives = list(self._world.lives.values())
        return self._world.random.choice(lives) if lives else None

    def crash(self) -> None:
        """A process is killed, and comes back after a while."""
        if (life := self._life()) is not None:
            self._world.soon(self._again(life, "crash"))

    def restart(self) -> None:
        """A process is asked to end, and comes back."""
        if (life := self._life()) is not None and not life.is_frozen:
            self._world.soon(self._again(life, "leave"))

    def shrink(self) -> None:
        """A process ends and comes back much later."""
        if (life := self._life()) is not None and not life.is_frozen and len(self._world.lives) > 1:
            self._world.soon(self._again(life, "leave", 60.0))

    async def _again(self, life: Life, how: str, after_s: float = 0.0) -> None:
        world = self._world
        await getattr(world, how)(life)
        await asyncio.sleep(after_s + world.random.choice((0.0, 1.0, 20.0)) * world.random.random())
        if life.slot not in world.lives:
            world.start(life.slot)

    def freeze(self) -> None:
        """Shorter and longer than a lease, than a session."""
        if (life := self._life()) is not None and not life.is_frozen:
            seconds = self._world.random.choice((0.5, 5.0, 15.0, 30.0, 60.0)) * self._world.random.uniform(0.5, 1.5)
            self._world.soon(self._world.freeze(life, seconds))

    def expel(self) -> None:
        """The group goes on without a member, which may learn of it late."""
        if (life := self._life()) is not None:
            unaware_s = self._world.random.choice((0.0, 10.0, 60.0)) * self._world.random.random()
            self._world.trace.add("expelled", life.name, round(unaware_s, 3))
            with suppress(KeyError):
                self._world.log.expel(life.name, unaware_s)

    def silence(self) -> None:
        """A worker's coordinator does not answer."""
        if (life := self._life()) is not None:
            seconds = self._world.random.choice((5.0, 40.0)) * self._world.random.random()
            self._world.trace.add("silent", life.name, round(seconds, 3))
            self._world.gate.silent_until[life.name] = self._world.loop.time() + seconds

    def stall(self) -> None:
        """A broker is gone for a while."""
        seconds = self._world.random.choice((1.0, 13.0, 30.0)) * self._world.random.random()
        self._world.trace.add("stalled", round(seconds, 3))
        self._world.gate.stalled_until = self._world.loop.time() + seconds

    def outage(self) -> None:
        """The provider is out for a while."""
        until = self._world.loop.time() + self._world.random.choice((2.0, 20.0)) * self._world.random.random()
        self._world.trace.add("outage", round(until, 3))
        self._world.network.outage = lambda: self._world.loop.time() < until

    def compact(self) -> None:
        """The state topic is compacted; the event topic forgets what was taken up."""
        partition = self._world.random.randrange(self._world.plan.partitions)
        self._world.trace.add("compacted", partition)
        self._world.log.compact(partition)
        if self._world.random.random() < 0.3:
            self._world.log.truncate(partition, self._world.auditor.partitions[partition].next)

    def hang(self) -> None:
        """Somebody else's transaction stays open for a while; a commit that failed may arrive after all."""
        partition = self._world.random.randrange(self._world.plan.partitions)
        if self._world.random.random() < 0.5:
            self._world.trace.add("late commit", partition)
            self._world.log.commit_late(partition)
        else:
            self._world.trace.add("hanging", partition)
            self._world.log.hang(partition, self._world.random.choice((1.0, 30.0)))

    def operate(self) -> None:
        """Operators release, resend, resume."""
        action = self._world.random.choice(("release", "resend", "resend", "resume_account"))
        target = self._world.random.choice(ACCOUNTS if action == "resume_account" else self._subjects)
        self._world.soon(self._world.operate(action, target))


# --- liveness ---


async def _heal(world: World) -> None:
    """Nothing goes wrong from now on."""
    world.trace.add("healed")
    world.gate.is_calm = True
    world.network.faults = Faults()
    world.network.outage = lambda: False
    world.network.stop_in_send_gap = None
    for life in list(world.lives.values()):
        if life.is_frozen:
            world.thaw(life)
    for slot in range(world.plan.workers):
        if slot not in world.lives:
            world.start(slot)


async def _settle(world: World) -> None:
    """Until everything is told and nothing is under way; operators release what is parked as it is now."""
    end = world.loop.time() + LIVENESS_MAX_S
    while not _is_told(world):
        if world.loop.time() > end:
            world.trace.violate(f"not told after {LIVENESS_MAX_S:g} s: {_left(world)}")
            return
        for name in ACCOUNTS:
            world.soon(world.operate("resume_account", name))
        for subject in sorted(world.auditor.owed):
            if is_parked(world.auditor.record(subject)):
                world.soon(world.operate("release", subject))
        await asyncio.sleep(5.0)
    await asyncio.sleep(max(0.0, world.network.settled_at() - world.loop.time()))


def _is_told(world: World) -> bool:
    auditor = world.auditor
    taken = all(here.next >= world.log.end_offset(number) or here.taken == len(here.input) for number, here in enumerate(auditor.partitions))
    return taken and not auditor.owed


def _left(world: World) -> str:
    def said(record: OrderRecord) -> str:
        return f"revision {record.revision}, acked {record.acked}, park {record.park}, {record.reason}"

    waiting = [f"{subject} ({said(world.auditor.record(subject))})" for subject in sorted(world.auditor.owed)]
    views = [life.worker.status().partitions for life in world.lives.values() if life.worker is not None]
    inputs = [(here.next, len(here.input)) for here in world.auditor.partitions]
    return f"{waiting}; inputs {inputs}; {views}"
