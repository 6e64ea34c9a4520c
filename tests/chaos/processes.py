"""Processes of the product under test, each with a log file of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

ROOT = Path(__file__).parents[2]
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR")


class Ending(Struct, frozen=True):
    """How a process ended."""

    process: str
    code: int
    at: float
    """Wall clock, seconds."""
    wanted: bool
    """Whether the run ended it."""


class Process:
    """One process."""

    def __init__(self, name: str, log_file: Path, port: int, popen: "subprocess.Popen[bytes]") -> None:
        """`port`: its private one."""
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
        """Whether the process exists, frozen or not."""
        return self.code is None

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal, if it runs."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._popen.kill()
        self._popen.wait()


def spawn(
    name: str, command: Sequence[str], folder: Path, config: str, port: int, environment: Mapping[str, str]
) -> Process:
    """Starts `cartsync COMMAND` with a configuration file of the folder; its log is `NAME.log`, `port` its private one."""
    log_file = folder / f"{name}.log"
    kept = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
    ours = {
        "PYTHONPATH": str(ROOT),
        "CARTSYNC_CONFIG": str(folder / config),
        "CARTSYNC_HTTP__PORT": str(port),
    }
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "worker", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=kept | ours | dict(environment),
            process_group=0,  # Ctrl-C goes to the run, which ends its processes itself
        )
    return Process(name, log_file, port, popen)


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A configuration file."""
    return "".join(
        f"[{table}]\n" + "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in members.items())
        for table, members in tables.items()
    )
