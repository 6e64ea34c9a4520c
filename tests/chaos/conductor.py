"""Carries out the acts of a plan: befalls workers, brokers and the provider, and makes good again."""

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from tests.chaos.cluster import Asking, Cluster
from tests.chaos.crew import Crew, Slot
from tests.chaos.plan import Act, Kind, Times, is_alone, is_broker
from tests.chaos.provider import Provider, Question
from worker.kafka.settings import KafkaSettings

Tell = Callable[[str], None]

_FIND_S = 15.0
"""For a worker that may be befallen."""
_RESTART_S = 1.0
"""Before a worker that has ended by itself is started again."""
_LOOK_S = 1.0
_SHORTEST_S = 2.0
"""Of what begins shortly before the end."""
_KEEP_S = 5.0
"""How long a worker that runs again is left alone, at least."""


class Deed(Struct):
    """An act as it was carried out; wall clock, seconds."""

    kind: Kind
    whom: str
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


def _weather(times: Times) -> dict[Kind, str]:
    return {
        "provider: errors": "5xx=0.5,500_applied=0.05,409=0.05",
        "provider: limits": "429=0.3:2s,503=0.1:1s",
        "provider: outage": "503=0.9,reset_lost=0.1",
        "provider: silence": f"timeout_lost=0.3,timeout_applied=0.3,late_applied=0.2:{0.6 * times.settle_s:g}s",
        "provider: slow": "slow=0.9:1s",
    }


class Conductor:
    """Carries out one plan."""

    def __init__(
        self,
        crew: Crew,
        cluster: Cluster,
        provider: Provider,
        settings: KafkaSettings,
        times: Times,
        *,
        seed: int,
        faults: str,
        partitions: int,
        tell: Tell,
    ) -> None:
        self.deeds: list[Deed] = []
        self.skipped = 0
        self.down = 0
        """Brokers that do not serve now."""
        self.fallen: list[str] = []
        """Workers that ended by themselves, and how."""
        self._crew = crew
        self._cluster = cluster
        self._provider = provider
        self._settings = settings
        self._times = times
        self._random = Random(f"conductor {seed}")
        self._faults = faults
        self._partitions = partitions
        self._tell = tell
        self._asking = Asking(cluster.bootstrap)
        self._broker = asyncio.Lock()
        self._sky = asyncio.Lock()

    async def play(self, acts: Sequence[Act], seconds: float) -> None:
        """All acts, and after `seconds` until all is made good again."""
        began = time.monotonic()
        ends_at, put_off_s = began + seconds, 0.0
        await self._set(self._faults)
        async with asyncio.TaskGroup() as group:
            under_way: set[asyncio.Task[None]] = set()
            for act in acts:
                due = began + act.at_s + put_off_s
                await asyncio.sleep(max(0.0, min(due, ends_at) - time.monotonic()))
                if due >= ends_at:
                    break
                if is_alone(act.kind):
                    await asyncio.gather(*under_way)
                    await self._calm()
                lasts_s = min(act.lasts_s, max(_SHORTEST_S, ends_at - time.monotonic()))
                task = group.create_task(self._carry_out(replace(act, lasts_s=lasts_s)), name=act.kind)
                if is_alone(act.kind):
                    await task
                    await self._calm()
                    put_off_s += time.monotonic() - due
                elif not act.kind.startswith("provider"):
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
        await self._set("")

    async def _calm(self) -> None:
        """Until every partition is served again, within reason."""
        give_up_at = time.monotonic() + 2 * _FIND_S
        while not self._crew.serves(self._partitions):
            if time.monotonic() > give_up_at:
                return
            await asyncio.sleep(_LOOK_S)

    async def watch(self) -> None:
        """Looks at the workers, and starts those again that end by themselves, until it is cancelled."""
        while True:
            for slot, ending in self._crew.fallen():
                self.fallen.append(f"{ending.worker} ended by itself, code {ending.code}")
                self._tell(f"{self.fallen[-1]}; started again")
                await asyncio.sleep(_RESTART_S)
                self._crew.start(slot)
            await self._crew.look()
            await asyncio.sleep(_LOOK_S)

    async def _carry_out(self, act: Act) -> None:
        if is_broker(act.kind):
            async with self._broker:
                await self._befall_broker(act)
        elif act.kind.startswith("provider"):
            async with self._sky:
                await self._befall_provider(act)
        elif act.kind == "add worker":
            await self._add_worker(act)
        else:
            await self._befall_worker(act)

    def _begin(self, act: Act, whom: str, slot: int = -1) -> Deed:
        deed = Deed(act.kind, whom, time.time(), slot=slot)
        self.deeds.append(deed)
        self._tell(f"{act.kind}: {whom}, {act.lasts_s:.1f} s")
        return deed

    def _skip(self, act: Act, why: str) -> None:
        self.skipped += 1
        self._tell(f"{act.kind}: left out, {why}")

    # --- the provider ---

    async def _set(self, plan: str) -> None:
        await self._provider.ask(Question(plan=plan))

    async def _befall_provider(self, act: Act) -> None:
        deed = self._begin(act, "all accounts")
        await self._set(_weather(self._times)[act.kind])
        await asyncio.sleep(act.lasts_s)
        await self._set(self._faults)
        deed.ended_at = time.time()

    # --- brokers: one at a time ---

    async def _befall_broker(self, act: Act) -> None:
        try:
            node = await self._find_broker(act.kind)
        except Exception as error:  # noqa: BLE001 - the cluster is in trouble: that is what we are here for
            self._skip(act, f"not found ({type(error).__name__})")
            return
        deed = self._begin(act, f"broker {node}")
        self.down += 1
        try:
            if act.kind == "freeze broker":
                self._cluster.freeze(node)
                try:
                    await asyncio.sleep(act.lasts_s)
                finally:
                    self._cluster.thaw(node)
            else:
                await asyncio.to_thread(self._cluster.kill, node)
                await self._tell_gates(node, is_up=False)
                await asyncio.sleep(act.lasts_s)
                await self._tell_gates(node, is_up=True)
                await asyncio.to_thread(self._cluster.restart, node)
        finally:
            self.down -= 1
            deed.ended_at = time.time()

    async def _tell_gates(self, node: int, *, is_up: bool) -> None:
        for slot in self._crew.slots:
            await slot.way.broker(node, is_up=is_up)

    async def _find_broker(self, kind: Kind) -> int:
        partition = self._random.randrange(self._partitions)
        match kind:
            case "kill broker: leader of a state partition":
                return await self._asking.leader(self._settings.state_topic, partition)
            case "kill broker: group coordinator":
                return await self._asking.coordinator(self._settings.group_id, transactions=False)
            case "kill broker: transaction coordinator":
                name = self._settings.transactional_id(partition)
                return await self._asking.coordinator(name, transactions=True)
            case _:
                return self._random.choice(self._cluster.nodes)

    # --- workers ---

    async def _befall_worker(self, act: Act) -> None:
        slot = await self._find_worker(needs_calm="freeze" in act.kind or is_alone(act.kind))
        if slot is None or slot.worker is None:
            self._skip(act, "no worker may be befallen")
            return
        deed = self._begin(act, slot.worker.name, slot.number)
        match act.kind:
            case "kill worker" | "kill worker, nothing else wrong":
                self._crew.kill(slot)
                await asyncio.sleep(act.lasts_s)
                self._crew.start(slot)
            case "remove worker":
                await self._leave(slot)
                slot.harm = "down"
                await asyncio.sleep(act.lasts_s)
                self._crew.start(slot)
            case "cut worker off, silently":
                slot.harm = "cut off"
                await slot.way.hold()
                await asyncio.sleep(act.lasts_s)
                await self._reconnect(slot)
            case "cut worker off, refused":
                slot.harm = "cut off"
                await slot.way.shut()
                await asyncio.sleep(act.lasts_s)
                await self._reconnect(slot)
            case _:
                self._crew.freeze(slot)
                try:
                    await asyncio.sleep(act.lasts_s)
                finally:
                    self._crew.thaw(slot)
        deed.ended_at = time.time()
        slot.rests_until = time.monotonic() + max(_KEEP_S, self._times.lease_s)

    async def _reconnect(self, slot: Slot) -> None:
        await slot.way.open()
        slot.harm = ""

    async def _find_worker(self, *, needs_calm: bool) -> Slot | None:
        """One that is well, while another one stays so.

        `needs_calm`: it serves all partitions that it has, and has some. A worker that is frozen while it is being
        missed already could be replaced before the hold covers its freeze; and a kill that is measured needs some.
        """
        give_up_at = time.monotonic() + _FIND_S
        while time.monotonic() < give_up_at:
            well = [slot for slot in self._crew.slots if slot.is_well()]
            free = [slot for slot in well if slot.rests_until < time.monotonic()]
            if needs_calm:
                free = [slot for slot in free if slot.serves_all()]
            if free and len(well) > 1:
                return self._random.choice(free)
            await asyncio.sleep(0.25)
        return None

    async def _leave(self, slot: Slot) -> None:
        ending = await self._crew.leave(slot)
        if ending.code != 0:
            self.fallen.append(f"{ending.worker} was to leave and ended with code {ending.code}")
            self._tell(self.fallen[-1])

    async def _add_worker(self, act: Act) -> None:
        slot = next((slot for slot in self._crew.slots if slot.is_free()), None)
        if slot is None:
            self._skip(act, "there are enough")
            return
        worker = self._crew.start(slot)
        deed = self._begin(act, worker.name, slot.number)
        await asyncio.sleep(act.lasts_s)
        give_up_at = time.monotonic() + _FIND_S
        while slot.harm and time.monotonic() < give_up_at:  # noqa: ASYNC110 - several things end a harm
            await asyncio.sleep(0.25)
        if slot.is_well():
            await self._leave(slot)
        deed.ended_at = time.time()
