"""Who breaks things: one action after the other, as the plan of a run weighs them."""

import asyncio
from contextlib import suppress

from tests.shops.records import History
from tests.simulation.faults import ACTIONS
from tests.simulation.world import Life, World
from worker.core.commands import COMMANDS


class Chaos:
    """Does one thing after the other, as the plan weighs them."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._subjects = sorted(history.orders)

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
        """Operators do what there is to do; a resend, which can go wrong the most, twice as often."""
        own = [command for command in COMMANDS.values() if not command.is_event_only]
        weighted = [each for command in own for each in [command] * (2 if command.name == "resend" else 1)]
        command = self._world.random.choice(weighted)
        targets = list(self._world.accounts) if command.about == "account" else self._subjects
        target = self._world.random.choice(targets)
        self._world.soon(self._world.operate(command, target))
