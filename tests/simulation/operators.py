"""Operators who act by events: written once or twice, early or late, of orders that are known or not, and of accounts."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.callbacks import TRUST
from tests.simulation.trace import Trace
from worker.core.commands import COMMANDS, Command
from worker.core.operator_event import operator_event
from worker.sim.loop import START_WALL_MS

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor

ORDERS = ("release", "resend", "note")
"""What they do to orders here: the others change what a provider has to hold in the end."""
GAP_S = 4.0


class Operators:
    """All of them."""

    def __init__(
        self,
        seed: int,
        append: Callable[..., int],
        auditor: "Auditor",
        trace: Trace,
        subjects: Sequence[str],
        accounts: Mapping[str, str],
    ) -> None:
        """`append`: writes key, value, headers and partition to the event topic."""
        self._random = Random(f"operators {seed}")  # of their own: the other runs of a seed stay as they are
        self._append = append
        self._auditor = auditor
        self._trace = trace
        self._subjects = subjects
        self._accounts = list(accounts)
        self._count = 0
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """For ever."""
        random = self._random
        while True:
            await asyncio.sleep(random.expovariate(1.0 / GAP_S))
            if random.random() < 0.3:
                self.write(COMMANDS[random.choice(("pause", "resume", "resume"))], random.choice(self._accounts))
            else:
                self.write(COMMANDS[random.choice(ORDERS)], random.choice(self._subjects))

    def calm(self) -> None:
        """Every account goes on."""
        for account in self._accounts:
            self.write(COMMANDS["resume"], account)

    def write(self, command: Command, target: str) -> None:
        """One event; of an account in every partition. At times it is written again later: the same, or half of it."""
        self._count += 1
        written = operator_event(
            command,
            target,
            event_id=f"o{self._count}",
            by="ana",
            why=f"because of {self._count}",
            now_ms=START_WALL_MS + int(self._loop.time() * 1000),
            trust=TRUST,
            placing=None,
        )
        if command.about == "account":
            partitions: list[int | None] = list(range(len(self._auditor.partitions)))
        else:
            partitions = [self._auditor.partition_of.get(target)]
        for partition in partitions:
            self._append(written.key, written.value, written.headers, partition)
            if self._random.random() < 0.3 and partition is not None:
                delay_s = self._random.choice((0.0, 1.0, 30.0)) * self._random.random()
                self._loop.call_later(delay_s, self._append, written.key, written.value, written.headers, partition)
