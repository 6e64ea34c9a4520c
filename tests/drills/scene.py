"""Where a drill is played: a stage with workers as processes, a Prometheus that watches them, and the runbook at hand.

A drill does what the section of its alert says, and nothing else: `ran` and `says` fail when the section, or the part of
the manual to which it leads, does not name that command or that event of the log.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from tests.chaos.processes import Process, spawn, toml
from tests.drills.prometheus import Prometheus
from tests.drills.rules import rules, seconds, section
from tests.integration.harness import PASSWORD, Stage
from tests.integration.process import Ran, WorkerProcess
from tests.shops.by_hand import ACCOUNT, MERCHANTS, line
from worker.tools.kafka_ports import free_ports
from worker.tools.local_kafka import LocalKafka

if TYPE_CHECKING:
    from tests.drills.drill import Drill

RECORD_SECRET = "what workers, receivers and operators share, of 32 characters"
_GRACE_S = 90.0
"""How much longer than its `for` an alert may take on a busy machine."""
_LOG_WITHIN_S = 15.0
_STARTS_WITHIN_S = 90.0
_ENDS_WITHIN_S = 45.0


class Watched(Struct):
    """What was seen in a drill."""

    fired_s: float = 0.0
    """From the moment at which something was broken; seconds."""
    resolved_s: float = 0.0
    """From there until it was over: what the section says was done meanwhile."""
    steps: list[str] = []
    """The commands, and the lines of the log, in the words of the section."""
    others: set[str] = set()
    """Further alerts that fired meanwhile."""


class Scene(Stage):
    """An asynchronous context manager, like the stage that it is."""

    def __init__(self, drill: "Drill", kafka: LocalKafka, folder: Path, program: str) -> None:
        """`program`: the path of a Prometheus."""
        super().__init__(kafka.bootstrap, folder, drill.partitions)
        self.kafka = kafka
        self.seen = Watched()
        self.others: list[Process] = []
        """Receivers and consoles."""
        self._alert = drill.alert
        self._section = section(drill.alert)
        self._rule = next(rule for rule in rules() if rule["alert"] == drill.alert)
        self._for_s = seconds(self._rule.get("for", "0s")) / drill.factor
        place = folder.with_name(f"{folder.name}-prometheus")
        self._prometheus = Prometheus(program, place, drill.factor, drill.scrape_s)
        self._broken_at = 0.0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._prometheus.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.others:
            if process.is_running():
                process.kill()
        await self._prometheus.__aexit__(kind, error, trace)
        await super().__aexit__(kind, error, trace)

    # --- the processes ---

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """As a stage does, with what operators need to act by events, and passwords in files that can be mended."""
        for account in MERCHANTS:
            if not (file := self._password_file(account)).exists():
                file.write_text(PASSWORD)
        accounts = {f"accounts.{account}": self.account(account) for account in MERCHANTS}
        super().configure(**{"callbacks": {"record_secrets": [RECORD_SECRET]}} | accounts | sections)

    def account(self, name: str, **members: Any) -> dict[str, Any]:
        """The settings of an account at the sandbox of seQura."""
        return {
            "provider": "sequra",
            "merchant_id": MERCHANTS[name],
            "base_url": self.base_url,
            "username": name,
            "password_file": str(self._password_file(name)),
        } | members

    def _password_file(self, account: str) -> Path:
        return self.folder / f"{account}.password"

    def forget_account(self, account: str) -> None:
        """Takes an account out of the configuration, until it is written again."""
        file = self.folder / "cartsync.toml"
        file.write_text(re.sub(rf"\[accounts\.{account}\]\n(?:.+\n)*?(?=\[|\Z)", "", file.read_text()))

    def set_password(self, account: str, password: str) -> None:
        """Writes it into the file that the configuration names."""
        self._password_file(account).write_text(password)

    def environment(self, **more: str) -> dict[str, str]:
        """Without passwords: they are in files."""
        found = super().environment(**more)
        return {name: value for name, value in found.items() if not name.endswith("__PASSWORD") or name in more}

    def start(self, **environment: str) -> WorkerProcess:
        """Starts one more worker, and lets Prometheus scrape it."""
        worker = super().start(**environment)
        self._prometheus.scrape(worker.name, worker.url)
        return worker

    async def started(self, **environment: str) -> WorkerProcess:
        """Starts one more worker; returns when it serves, and Prometheus has seen it: what is counted before that is not
        an increase.
        """
        worker = self.start(**environment)
        await worker.serving(self.partitions, _STARTS_WITHIN_S)
        give_up_at = time.monotonic() + _STARTS_WITHIN_S
        while not await self.value(f'cartsync_ready{{instance="{worker.name}"}}'):
            assert time.monotonic() < give_up_at, f"{worker.name} is not scraped"
            await asyncio.sleep(0.1)
        return worker

    async def stopped(self, worker: WorkerProcess, code: int = 0) -> None:
        """Ends a worker in order."""
        worker.terminate()
        assert await worker.ended(_ENDS_WITHIN_S) == code, worker.tail()

    async def restarted(self, worker: WorkerProcess, **environment: str) -> WorkerProcess:
        """Ends a worker in order, and starts one that serves in its place."""
        await self.stopped(worker)
        return await self.started(**environment)

    def start_receiver(self, public: int, accounts: Mapping[str, Mapping[str, Any]], event_topic: str = "") -> Process:
        """Starts `cartsync receive`, for the event topic of the stage or another one."""
        (private,) = free_ports(1)
        tables: dict[str, Mapping[str, Any]] = {
            "kafka": {
                "bootstrap_servers": self.settings.bootstrap_servers,
                "event_topic": event_topic or self.settings.event_topic,
                "partitioner": "murmur2",
            },
            "callbacks": {
                "host": "127.0.0.1",
                "port": public,
                "record_secrets": [RECORD_SECRET],
                "deadline": "2s",
            },
            "log": {"format": "json"},
        }
        (self.folder / "receive.toml").write_text(toml(tables | dict(accounts)))
        name = f"receiver {len(self.others) + 1}"
        receiver = spawn(name, ["receive"], self.folder, "receive.toml", private, {})
        self.others.append(receiver)
        self._prometheus.scrape(name, receiver.url)
        return receiver

    async def start_console(self, index: Path) -> Process:
        """Starts `cartsync console` over the topics of the stage; returns when everything was read, and Prometheus has
        seen it.
        """
        pages, private = free_ports(2)
        tables = {
            "kafka": {
                name: getattr(self.settings, name)
                for name in ("bootstrap_servers", "event_topic", "state_topic", "dead_letter_topic", "results_topic")
            },
            "console": {"port": pages, "index": str(index), "metrics_port": private},
            "log": {"format": "json"},
        }
        (self.folder / "console.toml").write_text(toml(tables))
        console = spawn("console", ["console"], self.folder, "console.toml", private, {})
        self.others.append(console)
        self._prometheus.scrape("console", console.url)
        give_up_at = time.monotonic() + _STARTS_WITHIN_S
        while not await self.value('cartsync_ready{instance="console"}'):
            assert time.monotonic() < give_up_at, "the console is not ready"
            await asyncio.sleep(0.1)
        return console

    # --- the shop ---

    async def shipped(self, reference: str, account: str = ACCOUNT) -> str:
        """An order that is to be told; its subject."""
        order = self.order(f"{account}/{reference}")
        await order.confirm(line("mug", 1000))
        await order.ship("s1", mug=1)
        return order.subject

    async def agrees(self, *subjects: str, within_s: float = 40) -> None:
        """The provider has all of these orders as the shop has them."""
        await self.agreed(dict.fromkeys(subjects, (1000, 0)), within_s)

    # --- the alert ---

    def broken(self) -> None:
        """From now on something is wrong."""
        self._broken_at = time.monotonic()

    async def fires(self) -> None:
        """Waits until the alert fires."""
        await self._until({"firing"}, self._for_s + _GRACE_S)
        self.seen.fired_s = time.monotonic() - self._broken_at

    async def resolves(self, within_s: float = 90) -> None:
        """Waits until the alert is over, after what its section says was done."""
        await self._until(set(), within_s)
        self.seen.resolved_s = time.monotonic() - self._broken_at - self.seen.fired_s

    async def _until(self, wanted: set[str], within_s: float) -> None:
        give_up_at = time.monotonic() + within_s
        while True:
            found = await self._prometheus.alerts()
            self.seen.others |= {name for name, states in found.items() if "firing" in states} - {self._alert}
            states = found.get(self._alert, set())
            if wanted <= states and (wanted or not states):
                return
            if time.monotonic() > give_up_at:
                raise AssertionError(
                    f"{self._alert} is {sorted(states) or 'inactive'}, not {sorted(wanted) or 'over'}, after "
                    f"{within_s:.0f} s; others: {found}; {self._rule['expr']}\n{self.tails()}"
                )
            await asyncio.sleep(0.1)

    async def value(self, query: str) -> float:
        """A number that Prometheus knows; 0: it knows none."""
        found = await self._prometheus.value(query)
        return float(found[0]["value"][1]) if found else 0.0

    # --- what the section says ---

    async def ran(
        self, words: str, *more: str, named: str = "", code: int = 0, says: str = "", **environment: str
    ) -> Ran:
        """Runs `cartsync WORDS MORE`, which the section names by WORDS, or as `named`; it must end so, and say that."""
        self.named(f"cartsync {named or words}")
        ran = await self.command(*words.split(), *more, within_s=60, **environment)
        assert ran.code == code, f"cartsync {words}: {ran.code}, not {code}\n{ran.out}{ran.err}\n{self.tails()}"
        assert says in ran.out + ran.err, f"cartsync {words} does not say {says!r}:\n{ran.out}{ran.err}"
        return ran

    def named(self, words: str) -> None:
        """The section says these words, as code."""
        flat = " ".join(self._section.split())
        assert words in flat, f"the section of {self._alert} does not name {words!r}"
        self.seen.steps.append(f"`{words}`")

    async def says(
        self, event: str, process: WorkerProcess | Process, within_s: float = _LOG_WITHIN_S, **members: object
    ) -> dict[str, Any]:
        """The newest line of an event that the section names, once a process has logged one with these members."""
        self.named(event)
        give_up_at = time.monotonic() + within_s
        while True:
            if found := [each for each in logged(process, event) if members.items() <= each.items()]:
                return found[-1]
            if time.monotonic() > give_up_at:
                raise AssertionError(f"{process.name} does not log {event} {members}\n{self.tails()}")
            await asyncio.sleep(0.1)


def logged(process: WorkerProcess | Process, event: str) -> list[dict[str, Any]]:
    """The lines of an event."""
    if isinstance(process, WorkerProcess):
        return process.log(event)
    return WorkerProcess(process.name, None, process.log_file, 0).log(event)  # type: ignore[arg-type]
