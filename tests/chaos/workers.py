"""The workers: a slot for each, with its configuration, its way to the brokers, and the processes that lived there."""

import asyncio
import math
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec
from msgspec import Struct

from schemas.views import StatusView
from tests.chaos.gates import Way
from tests.chaos.plan import Times
from tests.chaos.processes import Ending, Process, spawn, toml
from tests.chaos.provider import PASSWORD, Urls, user_of
from tests.chaos.receivers import RECORD_SECRET
from tests.shops.stream import ACCOUNTS, HOSTILE_ACCOUNT
from worker.kafka.settings import KafkaSettings
from worker.tools.demo.merchants import ESCROW, HATS
from worker.tools.kafka_ports import free_ports
from worker.tools.reaper import Reaper

STATUS_S = 1.0
LEAVE_S = 75.0
"""For a worker to end after SIGTERM; it gives up by itself after 60 s."""
CONFLICT_ATTEMPTS = 20
"""By default 4 answers of 409 park an order, which is right and would look like a lost update here."""

_CONFIGURED = (*ACCOUNTS, HOSTILE_ACCOUNT)

_POLLS_PER_LAG = 5
"""Lag is read once in so many polls; a worker that is killed takes with it what came after the last one."""

SlotFault = Literal["", "frozen", "cut off", "leaving", "down"]


class LoopLag(Struct, frozen=True):
    """How late the loops of the workers were, those that were killed as far as they could still be asked."""

    p50_s: float
    p99_s: float
    samples: int


class Slot:
    """A place for one worker."""

    def __init__(self, number: int, way: Way, folder: Path) -> None:
        self.number = number
        self.way = way
        self.worker: Process | None = None
        self.is_wanted = False
        """Started again when it ends by itself."""
        self.fault: SlotFault = ""
        self.protected_until = 0.0
        """Monotonic: before, it is not hit again."""
        self.view: StatusView | None = None
        """What it said last."""
        self.folder = folder

    def is_running(self) -> bool:
        """Is there a process, be it frozen?"""
        return self.worker is not None and self.worker.is_running()

    def is_free(self) -> bool:
        """Nobody is here, nor about to come back."""
        return not (self.is_running() or self.is_wanted or self.fault)

    def serves_all(self) -> bool:
        """It has partitions, and serves every one of them, as far as it said when it was asked last."""
        partitions = [] if self.view is None else self.view.partitions
        return bool(partitions) and all(view.role == "serving" for view in partitions)

    def is_healthy(self) -> bool:
        """Runs, and nothing is in its way."""
        return self.is_wanted and self.is_running() and not self.fault


class Workers:
    """All slots, and what runs in them."""

    def __init__(self, ways: list[Way], folder: Path, settings: KafkaSettings, times: Times) -> None:
        self.slots = [Slot(number, way, folder) for number, way in enumerate(ways)]
        self.workers: list[Process] = []
        self.endings: list[Ending] = []
        self._folder = folder
        self._settings = settings
        self._times = times
        self._others: tuple[int, ...] = ()
        self._session: aiohttp.ClientSession | None = None
        self.memory_max_mib = 0
        """The most that any worker has had, as far as it was seen."""
        self._lags: dict[str, dict[float, float]] = {}
        """By worker: how often its loop was at most so late."""
        self._polls = 0
        (folder / "reaped").mkdir(parents=True, exist_ok=True)
        self._reaper = Reaper(folder / "reaped")  # should we be killed ourselves

    def guard(self, pids: Iterable[int]) -> None:
        """These end with us too."""
        self._others = tuple(pids)
        self._guard()

    def _guard(self) -> None:
        self._reaper.watch([*self._others, *(each.pid for each in self.workers if each.is_running())])

    def log_files(self) -> list[Path]:
        """Of all processes that there were."""
        return [worker.log_file for worker in self.workers]

    def configure(self, slot: Slot, bootstrap: str, urls: Urls) -> None:
        """Writes what the worker in this slot is configured by."""
        times, kafka = self._times, self._settings
        tables: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": bootstrap,
                "group_id": kafka.group_id,
                "transactional_id_prefix": kafka.transactional_id_prefix,
                "event_topic": kafka.event_topic,
                "state_topic": kafka.state_topic,
                "dead_letter_topic": kafka.dead_letter_topic,
                "results_topic": kafka.results_topic,
                "session_timeout": f"{times.session_s:g}s",
                "heartbeat": f"{times.heartbeat_s:g}s",
                "partitioner": kafka.partitioner,
            },
            "worker": {
                "attempt_deadline": f"{times.attempt_deadline_s:g}s",
                "lease": f"{times.lease_s:g}s",
                "settle": f"{times.settle_s:g}s",
                "retry_max": "5s",
                "conflict_attempts": CONFLICT_ATTEMPTS,
            },
            "callbacks": {"record_secrets": [RECORD_SECRET]},
            "log": {"format": "json"},
        }
        for account in _CONFIGURED:
            tables[f"accounts.{account}"] = {
                "provider": "sequra",
                "merchant_id": account,
                "base_url": urls.sequra,
                "username": user_of(account, slot.number),
            }
        tables[f"accounts.{HATS.name}"] = {
            "provider": "qliro",
            "base_url": urls.qliro,
            "api_key": HATS.api_key,
            "api_secret": HATS.api_secret,
            "poll_after": ["2s", "5s", "10s", "20s", "30s"],
        }
        tables[f"accounts.{ESCROW.name}"] = {
            "provider": "atarapay",
            "base_url": urls.atarapay,
            "public_key": ESCROW.public_key,
            "private_key": ESCROW.private_key,
        }
        (self._folder / f"slot-{slot.number}.toml").write_text(toml(tables))

    def start(self, slot: Slot) -> Process:
        """Starts a worker in the slot; does not wait for it."""
        name = f"worker-{slot.number}-{sum(of.name.startswith(f'worker-{slot.number}-') for of in self.workers)}"
        (port,) = free_ports(1)
        passwords = {f"CARTSYNC_ACCOUNTS__{account.upper()}__PASSWORD": PASSWORD for account in _CONFIGURED}
        slot.worker = spawn(name, ["run"], self._folder, f"slot-{slot.number}.toml", port, passwords)
        slot.is_wanted, slot.view = True, None
        if slot.fault != "cut off":  # that is of the slot and not of who was here before
            slot.fault = ""
        self.workers.append(slot.worker)
        self._guard()
        return slot.worker

    def kill(self, slot: Slot) -> None:
        """SIGKILL; the slot stays empty until it is started again."""
        slot.is_wanted, slot.fault = False, "down"
        assert slot.worker is not None
        slot.worker.kill()
        self._guard()

    async def leave(self, slot: Slot) -> Ending:
        """SIGTERM; returns when the process is gone. One that takes too long is killed, code −9."""
        slot.is_wanted, slot.fault = False, "leaving"
        worker = slot.worker
        assert worker is not None
        worker.send_signal(signal.SIGTERM)
        give_up_at = time.monotonic() + LEAVE_S
        while worker.is_running():
            if time.monotonic() > give_up_at:
                worker.kill()
            await asyncio.sleep(0.05)
        slot.fault = ""
        return self._ended(worker, wanted=True)

    def freeze(self, slot: Slot) -> None:
        """SIGSTOP."""
        assert slot.worker is not None
        slot.fault = "frozen"
        slot.worker.send_signal(signal.SIGSTOP)

    def thaw(self, slot: Slot) -> None:
        """SIGCONT."""
        assert slot.worker is not None
        slot.worker.send_signal(signal.SIGCONT)
        slot.fault = ""

    def unexpected_exits(self) -> list[tuple[Slot, Ending]]:
        """Workers that have ended by themselves since the last call; their slots are to be started again."""
        found = []
        for slot in self.slots:
            if slot.is_wanted and slot.worker is not None and not slot.worker.is_running():
                slot.is_wanted, slot.fault = False, slot.fault or "down"
                found.append((slot, self._ended(slot.worker, wanted=False)))
        return found

    def _ended(self, worker: Process, *, wanted: bool) -> Ending:
        code = worker.code
        assert code is not None
        ending = Ending(worker.name, code, time.time(), wanted)
        self.endings.append(ending)
        self._guard()
        return ending

    def serves(self, partitions: int) -> bool:
        """Is every partition served, as far as the workers said when they were asked last?"""
        views = [view for slot in self.slots if slot.view is not None for view in slot.view.partitions]
        return len({view.partition for view in views if view.role == "serving"}) == partitions

    async def poll(self) -> None:
        """Asks every worker that should answer how it is."""
        self._polls += 1
        await asyncio.gather(*(self._poll(slot) for slot in self.slots))
        if self._polls % _POLLS_PER_LAG == 0:
            await asyncio.gather(*(self._poll_lag(slot) for slot in self.slots))

    async def loop_lag(self) -> LoopLag:
        """Of all workers together."""
        await asyncio.gather(*(self._poll_lag(slot) for slot in self.slots))
        counts: Counter[float] = Counter()
        for lags in self._lags.values():
            counts.update(lags)
        samples = round(counts.get(math.inf, 0))
        return LoopLag(quantile(counts, 0.5), quantile(counts, 0.99), samples)

    async def _poll_lag(self, slot: Slot) -> None:
        if slot.view is None or slot.worker is None or self._session is None:
            return
        try:
            async with self._session.get(f"{slot.worker.url}/metrics") as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return
        found = re.findall(r'^cartsync_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
        self._lags[slot.worker.name] = {float(bound): float(count) for bound, count in found}

    async def _poll(self, slot: Slot) -> None:
        if slot.worker is None or not slot.worker.is_running() or slot.fault == "frozen":
            slot.view = None
            return
        self.memory_max_mib = max(self.memory_max_mib, _peak_mib(slot.worker.pid))
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=STATUS_S))
        try:
            async with self._session.get(f"{slot.worker.url}/status") as response:
                slot.view = msgspec.json.decode(await response.read(), type=StatusView)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            slot.view = None

    async def close(self) -> None:
        """Ends everything."""
        for worker in self.workers:
            if worker.is_running():
                worker.kill()
        self._reaper.watch([])
        self._reaper.close()
        if self._session is not None:
            await self._session.close()


def _peak_mib(pid: int) -> int:
    """The most memory that a process has had; 0: it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        if peak := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            return int(peak[1]) // 1024
    return 0


def quantile(counts: Mapping[float, float], part: float) -> float:
    """Of a cumulative histogram, evenly spread within a bucket."""
    rank, below, floor_s = part * counts.get(math.inf, 0.0), 0.0, 0.0
    for bound in sorted(counts):
        if counts[bound] >= rank > below:
            return (
                floor_s if bound == math.inf else floor_s + (bound - floor_s) * (rank - below) / (counts[bound] - below)
            )
        below, floor_s = counts[bound], bound
    return 0.0
