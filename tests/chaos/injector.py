"""The fault injector (Jepsen's nemesis): injects the faults of a plan into workers, brokers and providers, and repairs them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from tests.chaos.cluster import Cluster, ClusterQueries
from tests.chaos.plan import FaultKind, PlannedFault, Times, is_alone, is_broker, is_receiver
from tests.chaos.provider import Providers, Question
from tests.chaos.receivers import COUNT, Receivers
from tests.chaos.workers import Slot, Workers
from worker.kafka.settings import KafkaSettings

OnProgress = Callable[[str], None]

_FIND_S = 15.0
"""To find a worker that may be hit."""
_RESTART_S = 1.0
"""Before a worker that has ended by itself is started again."""
_POLL_S = 1.0
_SHORTEST_S = 2.0
"""Of what begins shortly before the end."""
_KEEP_S = 5.0
"""How long a worker that runs again is left alone, at least."""


class InjectedFault(Struct):
    """A fault as it was injected; wall clock, seconds."""

    kind: FaultKind
    target: str
    began_at: float
    ended_at: float = 0.0
    slot: int = -1
    """Of a worker."""


def base_faults(updates_per_s: float, times: Times) -> str:
    """What the provider does all the time. A 429 with `Retry-After` holds a whole account: about one in two seconds."""
    limited = min(0.01, 0.5 / max(updates_per_s, 1.0))
    late_s = 0.5 * times.settle_s
    return (
        f"500=0.02,502=0.004,503=0.004,500_applied=0.004,504_applied=0.003,409=0.01,429={limited:.6f}:1s,"
        f"reset_lost=0.004,reset_applied=0.004,timeout_lost=0.002,timeout_applied=0.003,late_applied=0.003:{late_s:g}s,"
        "slow=0.05:300ms"
    )


def _provider_faults(times: Times) -> dict[FaultKind, str]:
    return {
        "provider: errors": "5xx=0.5,500_applied=0.05,409=0.05",
        "provider: limits": "429=0.3:2s,503=0.1:1s",
        "provider: outage": "503=0.9,reset_lost=0.1",
        "provider: silence": f"timeout_lost=0.3,timeout_applied=0.3,late_applied=0.2:{0.6 * times.settle_s:g}s",
        "provider: slow": "slow=0.9:1s",
    }


class FaultInjector:
    """Carries out one plan."""

    def __init__(
        self,
        workers: Workers,
        cluster: Cluster,
        providers: Providers,
        receivers: Receivers,
        settings: KafkaSettings,
        times: Times,
        *,
        seed: int,
        faults: str,
        partitions: int,
        on_progress: OnProgress,
    ) -> None:
        self.injected: list[InjectedFault] = []
        self.skipped = 0
        self.down = 0
        """Brokers that do not serve now."""
        self.unexpected_exits: list[str] = []
        """Workers that ended by themselves, and how."""
        self._workers = workers
        self._cluster = cluster
        self._providers = providers
        self._receivers = receivers
        self._settings = settings
        self._times = times
        self._random = Random(f"injector {seed}")
        self._faults = faults
        self._partitions = partitions
        self._on_progress = on_progress
        self._queries = ClusterQueries(cluster.bootstrap)
        self._broker_lock = asyncio.Lock()
        self._provider_lock = asyncio.Lock()
        self._receiver_lock = asyncio.Lock()

    async def play(self, faults: Sequence[PlannedFault], seconds: float) -> None:
        """All faults, and after `seconds` until all of them are repaired."""
        began = time.monotonic()
        ends_at, put_off_s = began + seconds, 0.0
        await self._set(self._faults)
        async with asyncio.TaskGroup() as group:
            under_way: set[asyncio.Task[None]] = set()
            for planned in faults:
                due = began + planned.at_s + put_off_s
                await asyncio.sleep(max(0.0, min(due, ends_at) - time.monotonic()))
                if due >= ends_at:
                    break
                if is_alone(planned.kind):
                    await asyncio.gather(*under_way)
                    await self._calm()
                lasts_s = min(planned.lasts_s, max(_SHORTEST_S, ends_at - time.monotonic()))
                task = group.create_task(self._inject(replace(planned, lasts_s=lasts_s)), name=planned.kind)
                if is_alone(planned.kind):
                    await task
                    await self._calm()
                    put_off_s += time.monotonic() - due
                elif not planned.kind.startswith("provider"):
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
        await self._set("")

    async def _calm(self) -> None:
        """Until every partition is served again, within reason."""
        give_up_at = time.monotonic() + 2 * _FIND_S
        while not self._workers.serves(self._partitions):
            if time.monotonic() > give_up_at:
                return
            await asyncio.sleep(_POLL_S)

    async def watch(self) -> None:
        """Looks at the workers, and starts those again that end by themselves, until it is cancelled."""
        while True:
            for slot, ending in self._workers.unexpected_exits():
                self.unexpected_exits.append(f"{ending.process} ended by itself, code {ending.code}")
                self._on_progress(f"{self.unexpected_exits[-1]}; started again")
                await asyncio.sleep(_RESTART_S)
                self._workers.start(slot)
            for ending in self._receivers.restart_exited():
                self.unexpected_exits.append(f"{ending.process} ended by itself, code {ending.code}")
                self._on_progress(f"{self.unexpected_exits[-1]}; started again")
            await self._workers.poll()
            await asyncio.sleep(_POLL_S)

    async def _inject(self, planned: PlannedFault) -> None:
        if is_broker(planned.kind):
            async with self._broker_lock:
                await self._inject_into_broker(planned)
        elif planned.kind.startswith("provider"):
            async with self._provider_lock:
                await self._inject_into_provider(planned)
        elif is_receiver(planned.kind):
            async with self._receiver_lock:
                await self._inject_into_receiver(planned)
        elif planned.kind == "add worker":
            await self._add_worker(planned)
        else:
            await self._inject_into_worker(planned)

    def _record(self, planned: PlannedFault, target: str, slot: int = -1) -> InjectedFault:
        fault = InjectedFault(planned.kind, target, time.time(), slot=slot)
        self.injected.append(fault)
        self._on_progress(f"{planned.kind}: {target}, {planned.lasts_s:.1f} s")
        return fault

    def _skip(self, planned: PlannedFault, why: str) -> None:
        self.skipped += 1
        self._on_progress(f"{planned.kind}: left out, {why}")

    # --- the provider ---

    async def _set(self, plan: str) -> None:
        await self._providers.ask(Question(plan=plan))

    async def _inject_into_provider(self, planned: PlannedFault) -> None:
        fault = self._record(planned, "all accounts")
        await self._set(_provider_faults(self._times)[planned.kind])
        await asyncio.sleep(planned.lasts_s)
        await self._set(self._faults)
        fault.ended_at = time.time()

    # --- receivers: one at a time ---

    async def _inject_into_receiver(self, planned: PlannedFault) -> None:
        number = self._random.randrange(COUNT)
        if planned.kind == "kill receiver":
            process = self._receivers.kill(number)
        else:
            process = self._receivers.freeze(number)
        fault = self._record(planned, process.name)
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            if planned.kind == "kill receiver":
                self._receivers.start(number)
            else:
                self._receivers.thaw(number)
            fault.ended_at = time.time()

    # --- brokers: one at a time ---

    async def _inject_into_broker(self, planned: PlannedFault) -> None:
        try:
            node = await self._find_broker(planned.kind)
        except Exception as error:  # noqa: BLE001 - the cluster is in trouble: that is what we are here for
            self._skip(planned, f"not found ({type(error).__name__})")
            return
        fault = self._record(planned, f"broker {node}")
        self.down += 1
        try:
            if planned.kind == "freeze broker":
                self._cluster.freeze(node)
                try:
                    await asyncio.sleep(planned.lasts_s)
                finally:
                    self._cluster.thaw(node)
            else:
                await asyncio.to_thread(self._cluster.kill, node)
                await self._set_gates(node, is_up=False)
                await asyncio.sleep(planned.lasts_s)
                await self._set_gates(node, is_up=True)
                await asyncio.to_thread(self._cluster.restart, node)
        finally:
            self.down -= 1
            fault.ended_at = time.time()

    async def _set_gates(self, node: int, *, is_up: bool) -> None:
        for slot in self._workers.slots:
            await slot.way.broker(node, is_up=is_up)

    async def _find_broker(self, kind: FaultKind) -> int:
        partition = self._random.randrange(self._partitions)
        match kind:
            case "kill broker: leader of a state partition":
                return await self._queries.leader(self._settings.state_topic, partition)
            case "kill broker: group coordinator":
                return await self._queries.coordinator(self._settings.group_id, transactions=False)
            case "kill broker: transaction coordinator":
                name = self._settings.transactional_id(partition)
                return await self._queries.coordinator(name, transactions=True)
            case _:
                return self._random.choice(self._cluster.nodes)

    # --- workers ---

    async def _inject_into_worker(self, planned: PlannedFault) -> None:
        slot = await self._find_worker(needs_calm="freeze" in planned.kind or is_alone(planned.kind))
        if slot is None or slot.worker is None:
            self._skip(planned, "no worker may be hit")
            return
        fault = self._record(planned, slot.worker.name, slot.number)
        match planned.kind:
            case "kill worker" | "kill worker, nothing else wrong":
                self._workers.kill(slot)
                await asyncio.sleep(planned.lasts_s)
                self._workers.start(slot)
            case "remove worker":
                await self._leave(slot)
                slot.fault = "down"
                await asyncio.sleep(planned.lasts_s)
                self._workers.start(slot)
            case "cut worker off, silently":
                slot.fault = "cut off"
                await slot.way.hold()
                await asyncio.sleep(planned.lasts_s)
                await self._reconnect(slot)
            case "cut worker off, refused":
                slot.fault = "cut off"
                await slot.way.shut()
                await asyncio.sleep(planned.lasts_s)
                await self._reconnect(slot)
            case _:
                self._workers.freeze(slot)
                try:
                    await asyncio.sleep(planned.lasts_s)
                finally:
                    self._workers.thaw(slot)
        fault.ended_at = time.time()
        slot.protected_until = time.monotonic() + max(_KEEP_S, self._times.lease_s)

    async def _reconnect(self, slot: Slot) -> None:
        await slot.way.open()
        slot.fault = ""

    async def _find_worker(self, *, needs_calm: bool) -> Slot | None:
        """One that is well, while another one stays so.

        `needs_calm`: it serves all partitions that it has, and has some. A worker that is frozen while it is being
        missed already could be replaced before the hold covers its freeze; and a kill that is measured needs some.
        """
        give_up_at = time.monotonic() + _FIND_S
        while time.monotonic() < give_up_at:
            well = [slot for slot in self._workers.slots if slot.is_healthy()]
            free = [slot for slot in well if slot.protected_until < time.monotonic()]
            if needs_calm:
                free = [slot for slot in free if slot.serves_all()]
            if free and len(well) > 1:
                return self._random.choice(free)
            await asyncio.sleep(0.25)
        return None

    async def _leave(self, slot: Slot) -> None:
        ending = await self._workers.leave(slot)
        if ending.code != 0:
            self.unexpected_exits.append(f"{ending.process} was to leave and ended with code {ending.code}")
            self._on_progress(self.unexpected_exits[-1])

    async def _add_worker(self, planned: PlannedFault) -> None:
        slot = next((slot for slot in self._workers.slots if slot.is_free()), None)
        if slot is None:
            self._skip(planned, "there are enough")
            return
        worker = self._workers.start(slot)
        fault = self._record(planned, worker.name, slot.number)
        await asyncio.sleep(planned.lasts_s)
        give_up_at = time.monotonic() + _FIND_S
        while slot.fault and time.monotonic() < give_up_at:  # noqa: ASYNC110 - several things end a fault
            await asyncio.sleep(0.25)
        if slot.is_healthy():
            await self._leave(slot)
        fault.ended_at = time.time()
