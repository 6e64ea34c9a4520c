"""Workers as processes of their own, between a real Kafka and a sandbox provider that lives in the test.

A `Stage` has topics, a group and a provider that no other test uses; the workers on it are configured by one TOML file
and their environment, and end with it. Times are much shorter than the defaults, so that what takes minutes in
production is over in seconds.
"""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.process import Ran, WorkerProcess, until
from tests.shops.by_hand import MERCHANTS, Carts, ShopOrder, at_provider, key_of
from worker.core.policy import DeliveryPolicy
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.ports import DeadLetter, Result
from worker.sandbox.attempts import Attempt
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.tools.kafka_ports import free_ports
from worker.tools.reaper import Reaper
from worker.tools.shop import History

PROJECT = Path(__file__).resolve().parents[2]

ATTEMPT_DEADLINE_S, LEASE_S, SETTLE_S, SESSION_S = 1.0, 4.0, 2.0, 6.0
HOLD_S = DeliveryPolicy(attempt_deadline_s=ATTEMPT_DEADLINE_S, lease_s=LEASE_S, settle_s=SETTLE_S).takeover_hold_s
TAKEOVER_S = SESSION_S + HOLD_S
"""How long the orders of a killed worker are held at least: until the group misses it, and then the hold."""

PASSWORD = "a-password-of-both"

_COMMAND = (sys.executable, "-m", "worker")


class Stage:
    """Everything around the workers of one test; an asynchronous context manager."""

    def __init__(self, bootstrap: str, folder: Path, partitions: int, worker: Mapping[str, Any] | None = None) -> None:
        """`worker`: settings of `[worker]` over the short ones."""
        self.name = f"i{uuid.uuid4().hex[:10]}"
        self.folder = folder
        self.partitions = partitions
        self.settings = KafkaSettings(
            bootstrap_servers=bootstrap,
            group_id=self.name,
            transactional_id_prefix=self.name,
            event_topic=f"{self.name}.events",
            state_topic=f"{self.name}.state",
            dead_letter_topic=f"{self.name}.dlq",
            results_topic=f"{self.name}.results",
        )
        self.sandbox = SequraSandbox({merchant: (account, PASSWORD) for account, merchant in MERCHANTS.items()}, seed=7)
        self.base_url = ""
        self.workers: list[WorkerProcess] = []
        self._worker_settings = worker or {}
        self._writer = EventWriter(self.settings)
        self._reaper: Reaper | None = None
        self._shops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True)
        await create_topics(self.settings, self.partitions)
        self.base_url = await self.sandbox.start()
        self.configure()
        await self._writer.start()
        (self.folder / "reaped").mkdir()
        self._reaper = Reaper(self.folder / "reaped")  # should the test be killed itself
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shop in self._shops:
            shop.cancel()
        await asyncio.gather(*self._shops, return_exceptions=True)
        for worker in self.workers:
            if worker.is_running():
                worker.kill()
        if self._reaper is not None:
            self._reaper.watch([])
            self._reaper.close()
        await self._writer.stop()
        await self.sandbox.stop()

    # --- the workers ---

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Writes the configuration of the workers that start from now on; `sections` come over the usual ones."""
        kafka = {
            name: getattr(self.settings, name)
            for name in (
                *("bootstrap_servers", "group_id", "transactional_id_prefix"),
                *("event_topic", "state_topic", "dead_letter_topic", "results_topic"),
            )
        }
        accounts = {
            f"accounts.{account}": {
                "provider": "sequra",
                "merchant_id": merchant,
                "base_url": self.base_url,
                "username": account,
            }
            for account, merchant in MERCHANTS.items()
        }
        tables = {
            "kafka": kafka
            | {"session_timeout": f"{SESSION_S:g}s", "heartbeat": "1s", "rebalance_timeout": "10s"}
            | dict(sections.get("kafka", {})),
            "worker": {
                "attempt_deadline": f"{ATTEMPT_DEADLINE_S:g}s",
                "lease": f"{LEASE_S:g}s",
                "settle": f"{SETTLE_S:g}s",
                "retry_initial": "50ms",
                "retry_max": "1s",
                "commit_interval": "20ms",
            }
            | dict(self._worker_settings)
            | dict(sections.get("worker", {})),
            "log": {"format": "json"},
        } | accounts
        tables |= {name: dict(members) for name, members in sections.items() if name not in ("kafka", "worker")}
        text = "".join(
            f"[{table}]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in members.items())
            for table, members in tables.items()
        )
        (self.folder / "cartsync.toml").write_text(text)

    def environment(self, **more: str) -> dict[str, str]:
        """Of a worker or a command: the file, the password and what a test adds, nothing of this process's own."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        ours = {
            "PYTHONPATH": str(PROJECT),
            "CARTSYNC_CONFIG": str(self.folder / "cartsync.toml"),
        } | {f"CARTSYNC_ACCOUNTS__{account.upper()}__PASSWORD": PASSWORD for account in MERCHANTS}
        return kept | ours | more

    def start(self, **environment: str) -> WorkerProcess:
        """Starts one more worker, unless it says otherwise at any free port; does not wait for it."""
        name = f"worker {len(self.workers) + 1}"
        port = int(environment.get("CARTSYNC_HTTP__PORT") or free_ports(1)[0])
        log_file = self.folder / f"{name}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*_COMMAND, "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment(**{"CARTSYNC_HTTP__PORT": str(port)} | environment),
            )
        worker = WorkerProcess(name, process, log_file, port)
        self.workers.append(worker)
        if self._reaper is not None:
            self._reaper.watch(each.pid for each in self.workers if each.is_running())
        return worker

    async def started(self, **environment: str) -> WorkerProcess:
        """Starts one more worker and waits until it serves all partitions."""
        worker = self.start(**environment)
        await worker.serving(self.partitions, within_s=30)
        return worker

    async def command(self, *words: str, within_s: float = 30, **environment: str) -> Ran:
        """Runs `cartsync …` to its end."""
        ran = await asyncio.to_thread(
            subprocess.run,
            [*_COMMAND, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            cwd=self.folder,
            env=self.environment(**environment),
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def tails(self) -> str:
        """The ends of all logs."""
        return "\n".join(worker.tail() for worker in self.workers)

    # --- the shop ---

    def order(self, subject: str, told: int = 0) -> ShopOrder:
        """An order of the shop; `told`: of which so many events were written before."""
        return ShopOrder(self.write, subject, told)

    async def write(self, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        """One record into the event topic; returns when it is there."""
        await self._writer.write(key, value, headers)

    def play(self, history: History) -> asyncio.Task[None]:
        """Begins to write what a shop does, at its own pace; the task ends with the last event, or with the stage."""
        self._shops.append(asyncio.create_task(self._play(history)))
        return self._shops[-1]

    async def _play(self, history: History) -> None:
        began = time.monotonic()
        written = []
        for event in history.events:
            await asyncio.sleep(max(0.0, event.at_s - (time.monotonic() - began)))
            written.append(await self._writer.post(event.subject.encode(), event.value))
        await asyncio.gather(*written)

    # --- the provider ---

    def holds(self, subject: str) -> Carts | None:
        """What the provider holds of an order."""
        held = self.sandbox.held.get(at_provider(subject))
        return None if held is None else (held.shipped_minor, held.unshipped_minor)

    def attempts(self, subject: str) -> list[Attempt]:
        """The requests about an order that reached the provider, in the order of their arrival."""
        return [a for a in self.sandbox.log if (a.merchant, a.order_ref) == at_provider(subject)]

    def script(self, subjects: Iterable[str], fault: str, times: int = 100) -> None:
        """What the next requests about these orders meet."""
        for subject in subjects:
            self.sandbox.faults.script(*at_provider(subject), *[fault] * times)

    async def agreed(self, wanted: Mapping[str, Carts | None], within_s: float = 30) -> None:
        """Waits until the provider holds just this of these orders; `None`: it was never told of the order."""

        def differing() -> list[str]:
            return [subject for subject, carts in wanted.items() if self.holds(subject) != carts]

        def said() -> str:
            different = differing()
            shown = [f"{subject}: wanted {wanted[subject]}, held {self.holds(subject)}" for subject in different[:5]]
            last = [f"{different[0]}: {attempt}" for attempt in self.attempts(different[0])[-5:]]
            return "\n".join([f"{len(different)} of {len(wanted)} orders differ", *shown, *last, self.tails()])

        await until(lambda: not differing(), within_s, said)

    def assert_monotone(self) -> None:
        """No update of an order was applied after a newer one, and every request carried its key."""
        revisions: dict[str, list[tuple[datetime, int, int]]] = defaultdict(list)
        for attempt in self.sandbox.log:
            subject, revision = key_of(attempt)
            assert (attempt.merchant, attempt.order_ref) == at_provider(subject)
            if attempt.applied_at is not None:
                revisions[subject].append((attempt.applied_at, attempt.number, revision))
        for subject, applied in revisions.items():
            in_time = [revision for _, _, revision in sorted(applied)]
            assert in_time == sorted(in_time), f"{subject}: {self.attempts(subject)}\n{self.tails()}"

    async def dead_letters(self, count: int, within_s: float = 20) -> list[DeadLetter]:
        """All that is in the dead-letter topic, once there are so many (or more: it looks a little longer)."""
        found = await self._committed(self.settings.dead_letter_topic, count, within_s)
        return [DeadLetter(record.key, record.value, list(record.headers)) for record in found]

    async def results(self, count: int, within_s: float = 20) -> list[Result]:
        """The same of the results topic."""
        found = await self._committed(self.settings.results_topic, count, within_s)
        return [Result(record.key, record.value) for record in found]

    async def _committed(self, topic: str, count: int, within_s: float) -> list[Any]:
        found: list[Any] = []
        partitions = [TopicPartition(topic, p) for p in range(self.partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            give_up_at = time.monotonic() + within_s
            while True:
                batches = await consumer.getmany(timeout_ms=500)
                records = [record for batch in batches.values() for record in batch]
                found += records
                if not records and (len(found) >= count or time.monotonic() > give_up_at):
                    return found
        finally:
            await consumer.stop()


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()
