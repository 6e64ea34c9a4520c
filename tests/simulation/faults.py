"""What goes wrong in one run: drawn from the seed, so that each run has troubles of its own.

Not every run has every fault: where all of them happen at once, one hides the other.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulation.disk import DiskFaults
from tests.simulation.network import Faults
from worker.core.policy import DeliveryPolicy
from worker.errors import LogError

ACTIONS = ("crash", "restart", "freeze", "expel", "silence", "stall", "outage", "compact", "hang", "operate", "shrink")
REFUSABLE = frozenset(
    ("fence", "fence:done", "write", "write:open", "write:done", "read", "commit_group", "commit_group:done")
)
"""PrivatePort of the log that may fail (`MemoryLog.gate`)."""
SILENT = frozenset(("poll", "poll:done", "commit_group", "join"))
"""What a coordinator that has fallen silent does not answer."""

_PAUSES: dict[str, Any] = {
    "account_probe_s": (5.0, 10.0, 60.0),
    "forbidden_orders": 2,
    "park_limit": 5,
    "park_within_s": 60.0,
}
_RULES = (
    DeliveryPolicy(not_found_delays_s=(3.0, 10.0, 20.0), retry_max_s=20.0, **_PAUSES),
    DeliveryPolicy(
        attempt_deadline_s=3.0,
        lease_s=9.0,
        settle_s=8.0,
        not_found_delays_s=(2.0, 5.0),
        not_found_attempts=3,
        retry_max_s=10.0,
        **_PAUSES,
    ),
)


@dataclass
class Plan:
    """The troubles of one run."""

    rules: DeliveryPolicy
    workers: int
    partitions: int
    gap_s: float
    """Between two actions, on average."""
    weights: dict[str, float]
    network: Faults
    refusals: float
    """Of the operations of the log."""
    slowness: float
    freezes_in_send_gap: bool = False
    disk: DiskFaults | None = None
    """Of the disks that orders are on; `None`: they are in memory."""
    keeps_history: bool = True
    has_names: bool = False
    """Whether the group knows a worker again that comes back after a crash."""


def draw_plan(random: Random) -> Plan:
    """A plan for the safety phase."""
    weights = {name: random.choice((0.0, 1.0, 1.0, 3.0)) for name in ACTIONS}
    weights["compact"] += 1.0
    network = Faults()
    for name in vars(network):
        setattr(network, name, random.choice((0.0, 0.0, 0.02, 0.1)))
    network.unauthorized *= random.choice((0.0, 0.1))
    return Plan(
        rules=random.choice(_RULES),
        workers=random.choice((1, 2, 2, 3)),
        partitions=random.choice((1, 2, 4)),
        gap_s=random.choice((3.0, 10.0, 30.0)),
        weights=weights,
        network=network,
        refusals=random.choice((0.0, 0.0, 0.01, 0.03)),
        slowness=random.choice((0.0, 0.01, 0.03)),
    )


@dataclass
class Gate:
    """`MemoryLog.gate`: what each step of each operation of the log goes through."""

    random: Random
    plan: Plan
    stalled_until: float = 0.0
    """A broker is gone: no transaction goes on before."""
    silent_until: dict[str, float] = field(default_factory=dict)
    """By process: its coordinator does not answer before."""
    is_calm: bool = False

    async def __call__(self, op: str, process: str, partition: int) -> None:
        """Waits, and may refuse."""
        if op == "write:open":
            await asyncio.sleep(self.random.choice((0.002, 0.01, 0.03)))
        if self.is_calm:
            return
        if self.silent_until and op in SILENT:
            await self._until(self.silent_until.get(process, 0.0))
        if self.stalled_until and op.startswith(("write", "fence")):
            await self._until(self.stalled_until)
        if self.plan.slowness and self.random.random() < self.plan.slowness:
            await asyncio.sleep(self.random.choice((0.1, 2.0, 15.0)) * self.random.random())
        if self.plan.refusals and op in REFUSABLE and self.random.random() < self.plan.refusals:
            raise LogError(f"{op} of partition {partition}: as simulated")

    async def _until(self, time: float) -> None:
        left_s = time - asyncio.get_running_loop().time()
        if left_s > 0:
            await asyncio.sleep(left_s)
