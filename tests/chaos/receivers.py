"""The receivers of callbacks: two `cartsync receive`, behind what a load balancer would be (`provider.Balancer`)."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.processes import Ending, Process, spawn, toml
from worker.kafka.settings import KafkaSettings
from worker.tools.demo.merchants import CALLBACK_SECRET, ESCROW, HATS
from worker.tools.kafka_ports import free_ports

RECORD_SECRET = "receivers-sign-with-it-and-workers-check-it"
COUNT = 2
_CONFIG = "receive-{}.toml"
_STOP_S = 30.0
"""For a receiver to end after SIGTERM."""


class Receivers:
    """Two processes with fixed ports, started again by whoever has killed one."""

    def __init__(
        self, folder: Path, settings: KafkaSettings, sequra_accounts: tuple[str, ...], on_start: Callable[[], None]
    ) -> None:
        """`on_start` is called when the set of processes has changed."""
        self.processes: list[Process] = []
        """All that there ever were."""
        self.endings: list[Ending] = []
        self._folder = folder
        self._on_start = on_start
        self._ports = free_ports(COUNT)
        self._running: dict[int, Process] = {}
        accounts = {name: {"provider": "sequra"} for name in sequra_accounts}
        accounts[HATS.name] = {"provider": "qliro"}
        accounts[ESCROW.name] = {
            "provider": "atarapay",
            "public_key": ESCROW.public_key,
            "private_key": ESCROW.private_key,
        }
        for number, port in enumerate(self._ports):
            tables: dict[str, dict[str, object]] = {
                "kafka": {
                    "bootstrap_servers": settings.bootstrap_servers,
                    "event_topic": settings.event_topic,
                    "partitioner": settings.partitioner,
                },
                "callbacks": {"host": "127.0.0.1", "port": port, "record_secrets": [RECORD_SECRET], "deadline": "3s"},
                "log": {"format": "json"},
            }
            for name, members in accounts.items():
                tables[f"accounts.{name}"] = members | {"callback_secrets": [CALLBACK_SECRET]}
            (folder / _CONFIG.format(number)).write_text(toml(tables))

    @property
    def urls(self) -> list[str]:
        """Of their public ports."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [process.pid for process in self.processes if process.is_running()]

    def start(self, number: int) -> Process:
        """Starts one; does not wait for it."""
        name = f"receiver-{number}-{sum(one.name.startswith(f'receiver-{number}-') for one in self.processes)}"
        (private,) = free_ports(1)
        process = spawn(name, ["receive"], self._folder, _CONFIG.format(number), private, {})
        self._running[number] = process
        self.processes.append(process)
        self._on_start()
        return process

    def kill(self, number: int) -> Process:
        """SIGKILL."""
        process = self._running.pop(number)
        process.kill()
        self._on_start()
        return process

    def freeze(self, number: int) -> Process:
        """SIGSTOP."""
        process = self._running[number]
        process.send_signal(signal.SIGSTOP)
        return process

    def thaw(self, number: int) -> None:
        """SIGCONT."""
        self._running[number].send_signal(signal.SIGCONT)

    def restart_exited(self) -> list[Ending]:
        """Starts those again that have ended by themselves since the last call, and returns how."""
        found = []
        for number, process in list(self._running.items()):
            if process.code is not None:
                found.append(Ending(process.name, process.code, time.time(), wanted=False))
                self.start(number)
        self.endings += found
        return found

    async def stop(self) -> None:
        """SIGTERM; one that takes too long is killed, code −9."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        give_up_at = time.monotonic() + _STOP_S
        for process in self._running.values():
            while process.is_running() and time.monotonic() < give_up_at:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.05)
            if process.is_running():
                process.kill()
            assert process.code is not None
            self.endings.append(Ending(process.name, process.code, time.time(), wanted=True))
        self._running.clear()

    def close(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            if process.is_running():
                process.kill()
