"""The workers: a slot for each, with its configuration, its way to the brokers, and the processes that lived there."""

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
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
from tests.chaos.provider import PASSWORD, ROOT, user_of
from tests.shops.stream import ACCOUNTS, HOSTILE_ACCOUNT
from worker.kafka.settings import KafkaSettings
from worker.tools.kafka_ports import free_ports
from worker.tools.reaper import Reaper

STATUS_S = 1.0
LEAVE_S = 75.0
"""For a worker to end after SIGTERM; it gives up by itself after 60 s."""
CONFLICT_ATTEMPTS = 20
"""By default 4 answers of 409 park an order, which is right and would look like a lost update here."""

_CONFIGURED = (*ACCOUNTS, HOSTILE_ACCOUNT)

_LOOKS_FOR_LAG = 5
"""Each so many looks; a worker that is killed takes with it what came after the last one."""

Harm = Literal["", "frozen", "cut off", "leaving", "down"]


class Ending(Struct, frozen=True):
    """How a process ended."""

    worker: str
    code: int
    at: float
    """Wall clock, seconds."""
    wanted: bool
    """By us."""


class Worker:
    """One process."""

    def __init__(self, name: str, log_file: Path, port: int, popen: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.log_file = log_file
        self.url = f"http://127.0.0.1:{port}"
        self._popen = popen

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code; `None` while it runs."""
        return self._popen.poll()

    def is_running(self) -> bool:
        """Is there such a process, be it frozen?"""
        return self.code is None

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal, if it runs."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._popen.kill()
        self._popen.wait()


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
        self.worker: Worker | None = None
        self.is_wanted = False
        """Started again when it ends by itself."""
        self.harm: Harm = ""
        self.rests_until = 0.0
        """Monotonic: before, nothing more befalls it."""
        self.view: StatusView | None = None
        """What it said last."""
        self.folder = folder

    def is_running(self) -> bool:
        """Is there a process, be it frozen?"""
        return self.worker is not None and self.worker.is_running()

    def is_free(self) -> bool:
        """Nobody is here, nor about to come back."""
        return not (self.is_running() or self.is_wanted or self.harm)

    def serves_all(self) -> bool:
        """It has partitions, and serves every one of them, as far as it said when it was asked last."""
        partitions = [] if self.view is None else self.view.partitions
        return bool(partitions) and all(view.role == "serving" for view in partitions)

    def is_well(self) -> bool:
        """Runs, and nothing is in its way."""
        return self.is_wanted and self.is_running() and not self.harm


class Crew:
    """All slots, and what runs in them."""

    def __init__(self, ways: list[Way], folder: Path, settings: KafkaSettings, times: Times) -> None:
        self.slots = [Slot(number, way, folder) for number, way in enumerate(ways)]
        self.workers: list[Worker] = []
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
        self._looks = 0
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

    def configure(self, slot: Slot, bootstrap: str, base_url: str) -> None:
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
            "log": {"format": "json"},
        }
        for account in _CONFIGURED:
            tables[f"accounts.{account}"] = {
                "provider": "sequra",
                "merchant_id": account,
                "base_url": base_url,
                "username": user_of(account, slot.number),
            }
        (self._folder / f"slot-{slot.number}.toml").write_text(_toml(tables))

    def start(self, slot: Slot) -> Worker:
        """Starts a worker in the slot; does not wait for it."""
        name = f"worker-{slot.number}-{sum(of.name.startswith(f'worker-{slot.number}-') for of in self.workers)}"
        (port,) = free_ports(1)
        file = self._folder / f"{name}.log"
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        ours = {
            "PYTHONPATH": str(ROOT),
            "CARTSYNC_CONFIG": str(self._folder / f"slot-{slot.number}.toml"),
            "CARTSYNC_HTTP__PORT": str(port),
        } | {f"CARTSYNC_ACCOUNTS__{account.upper()}__PASSWORD": PASSWORD for account in _CONFIGURED}
        with file.open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=kept | ours,
                process_group=0,  # Ctrl-C is for us, who end them
            )
        slot.worker = Worker(name, file, port, popen)
        slot.is_wanted, slot.view = True, None
        if slot.harm != "cut off":  # that is of the slot and not of who was here before
            slot.harm = ""
        self.workers.append(slot.worker)
        self._guard()
        return slot.worker

    def kill(self, slot: Slot) -> None:
        """SIGKILL; the slot stays empty until it is started again."""
        slot.is_wanted, slot.harm = False, "down"
        assert slot.worker is not None
        slot.worker.kill()
        self._guard()

    async def leave(self, slot: Slot) -> Ending:
        """SIGTERM; returns when the process is gone. One that takes too long is killed, code −9."""
        slot.is_wanted, slot.harm = False, "leaving"
        worker = slot.worker
        assert worker is not None
        worker.tell(signal.SIGTERM)
        give_up_at = time.monotonic() + LEAVE_S
        while worker.is_running():
            if time.monotonic() > give_up_at:
                worker.kill()
            await asyncio.sleep(0.05)
        slot.harm = ""
        return self._ended(worker, wanted=True)

    def freeze(self, slot: Slot) -> None:
        """SIGSTOP."""
        assert slot.worker is not None
        slot.harm = "frozen"
        slot.worker.tell(signal.SIGSTOP)

    def thaw(self, slot: Slot) -> None:
        """SIGCONT."""
        assert slot.worker is not None
        slot.worker.tell(signal.SIGCONT)
        slot.harm = ""

    def fallen(self) -> list[tuple[Slot, Ending]]:
        """Workers that have ended by themselves since the last call; their slots are to be started again."""
        found = []
        for slot in self.slots:
            if slot.is_wanted and slot.worker is not None and not slot.worker.is_running():
                slot.is_wanted, slot.harm = False, slot.harm or "down"
                found.append((slot, self._ended(slot.worker, wanted=False)))
        return found

    def _ended(self, worker: Worker, *, wanted: bool) -> Ending:
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

    async def look(self) -> None:
        """Asks every worker that should answer how it is."""
        self._looks += 1
        await asyncio.gather(*(self._look(slot) for slot in self.slots))
        if self._looks % _LOOKS_FOR_LAG == 0:
            await asyncio.gather(*(self._look_for_lag(slot) for slot in self.slots))

    async def loop_lag(self) -> LoopLag:
        """Of all workers together."""
        await asyncio.gather(*(self._look_for_lag(slot) for slot in self.slots))
        counts: Counter[float] = Counter()
        for lags in self._lags.values():
            counts.update(lags)
        samples = round(counts.get(math.inf, 0))
        return LoopLag(quantile(counts, 0.5), quantile(counts, 0.99), samples)

    async def _look_for_lag(self, slot: Slot) -> None:
        if slot.view is None or slot.worker is None or self._session is None:
            return
        try:
            async with self._session.get(f"{slot.worker.url}/metrics") as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return
        found = re.findall(r'^cartsync_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
        self._lags[slot.worker.name] = {float(bound): float(count) for bound, count in found}

    async def _look(self, slot: Slot) -> None:
        if slot.worker is None or not slot.worker.is_running() or slot.harm == "frozen":
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


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    return "".join(
        f"[{table}]\n" + "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in members.items())
        for table, members in tables.items()
    )
