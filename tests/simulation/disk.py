"""The disks that workers keep their orders on, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from schemas import state
from tests.simulation.holds import AuditedStateLog
from tests.simulation.trace import Trace
from worker.errors import StoreError
from worker.ports import Clock, Files, Origin, Recalled
from worker.sim.files import Disk, DiskPartition, MemoryFiles, Step
from worker.store.tables import DiskTables

if TYPE_CHECKING:
    from tests.simulation.world import World
    from worker.app import Worker

CACHE_BYTES = 20_000
"""Some dozens of orders of each partition, so that most are read from the disk."""


@dataclass
class DiskFaults:
    """How often what goes wrong."""

    slowness_s: float
    """A step takes up to so long."""
    refusals: float
    """Of the steps."""
    damages: float
    """Of the steps: from then on the partition cannot be read."""
    full: float
    """Of the steps: from then on nothing is written, until as many steps have been tried."""
    losses: float
    """Of crashes: the end of what was written is gone."""
    older: float
    """Of crashes: somebody puts an older copy back."""


def draw_disk_faults(random: Random) -> DiskFaults:
    """For one run."""
    return DiskFaults(
        slowness_s=random.choice((0.0, 0.02, 1.0)),
        refusals=random.choice((0.0, 0.01, 0.1)),
        damages=random.choice((0.0, 0.0, 0.005)),
        full=random.choice((0.0, 0.0, 0.01)),
        losses=random.choice((0.0, 0.5, 1.0)),
        older=random.choice((0.0, 0.3)),
    )


class _FilesOfProcess(MemoryFiles):
    def __init__(self, disk: Disk, process: str, step: Step, is_alive: Callable[[], bool]) -> None:
        super().__init__(disk, process, step)
        self._is_alive = is_alive

    def lock(self) -> None:
        """What is gone locks nothing."""
        if self._is_alive():
            super().lock()


class FaultyDisk:
    """The disk of one machine."""

    def __init__(self, random: Random, faults: DiskFaults) -> None:
        self._random = random
        self._faults: DiskFaults | None = faults
        self._disk = Disk()
        self._copies: dict[int, list[DiskPartition]] = {}
        """What it was like at some moments, by partition."""
        self._process = ""

    def begin(self, process: str) -> Files:
        """A process starts on the machine."""
        self._process, self._disk.owner = process, ""  # the one before is as good as gone

        async def step(_what: str) -> None:
            await self._step(process)

        return _FilesOfProcess(self._disk, process, step, lambda: process == self._process)

    async def _step(self, process: str) -> None:
        random, faults = self._random, self._faults
        if faults is None:
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(faults.slowness_s * random.random())
        if process != self._process:
            raise StoreError("the process is gone")
        if faults is None:
            return
        if random.random() < faults.refusals:
            raise StoreError("as simulated")
        if random.random() < faults.full:
            self._disk.is_full = not self._disk.is_full
        if self._disk.partitions and random.random() < faults.damages:
            random.choice(list(self._disk.partitions.values())).is_damaged = True
        if self._disk.partitions and random.random() < 0.05:
            number = random.choice(list(self._disk.partitions))
            self._copies.setdefault(number, []).append(_copy(self._disk.partitions[number]))

    def crash(self) -> None:
        """The process is gone, and its machine with it: what was not safe is lost."""
        random, faults = self._random, self._faults
        self._process = self._disk.owner = ""
        for number, here in list(self._disk.partitions.items()):
            after = _copy(here)
            if faults is not None and random.random() < faults.losses:
                del after.batches[len(after.batches) - random.randint(0, min(5, len(after.batches))) :]
            if faults is not None and number in self._copies and random.random() < faults.older:
                after = _copy(random.choice(self._copies[number]))
            self._disk.partitions[number] = after

    def heal(self) -> None:
        """Nothing more goes wrong."""
        self._faults = None
        self._disk.is_full = False


def _copy(here: DiskPartition) -> DiskPartition:
    return DiskPartition(list(here.batches), here.is_damaged)


class AuditedTables(DiskTables):
    """`ports.OrderTables` that says what its process has from the disk."""

    def __init__(self, files: Files, clock: Clock, states: AuditedStateLog, trace: Trace) -> None:
        super().__init__(files, clock, CACHE_BYTES, lambda what: trace.add("disk failed", what))
        self._states = states
        self._trace = trace

    async def recall(self, origin: Origin) -> Recalled:
        """Passes on."""
        found = await super().recall(origin)
        if found.position:
            try:
                self._states.knows(origin.partition, found.table.items())
            except StoreError:
                self._trace.add("unreadable", origin.partition)  # its owner will find out
            self._trace.add("continued", origin.partition, found.position)
        return found


def compare(worker: Worker, world: World) -> None:
    """What a worker has on its disk is what the state topic says, but for doubts that are in memory only."""
    for owner in worker._assignment.owners.values():
        # Behind a transaction that nobody has ended the topic shows nothing.
        if not owner.is_quiet() or world.log.state_end(owner.partition) < owner._log_end:
            continue
        ours = {subject: _certain(value) for subject, value in owner.workload.orders.items()}
        topic: dict[str, bytes] = {}
        for entry in world.log.entries(owner.partition):
            if entry.key.startswith(b"o:"):
                subject = entry.key[2:].decode()
                topic.pop(subject, None)
                if entry.value is not None:
                    topic[subject] = _certain(entry.value)
        if ours != topic:
            differing = sorted(
                subject for subject in ours.keys() | topic.keys() if ours.get(subject) != topic.get(subject)
            )
            world.trace.violate(
                f"partition {owner.partition}: the disk differs from the topic: {differing}", "disk_is_topic"
            )
        if len(owner.workload.orders) != len(ours):
            world.trace.violate(
                f"partition {owner.partition}: {len(ours)} orders, counted {len(owner.workload.orders)}",
            )


def _certain(value: bytes) -> bytes:
    return state.encode(replace(state.decode_order(value), may_land_late=False, remote_unknown=False))
