"""A Prometheus of a drill's own: it scrapes the processes of the drill and evaluates the rules, scaled."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from tests.drills.rules import rules, scaled
from worker.tools.kafka_ports import free_ports

_READY_WITHIN_S = 30.0


class Prometheus:
    """An asynchronous context manager; its files are below `folder`."""

    def __init__(self, program: str, folder: Path, factor: float, scrape_s: float) -> None:
        """`factor`: by how much the rules are faster; `scrape_s`: seconds between two scrapes, and their time limit."""
        self._program = program
        self._folder = folder
        self._factor = factor
        self._scrape = f"{round(1000 * scrape_s)}ms"
        self._targets: dict[str, str] = {}
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True)
        groups = {"groups": [{"name": "cartsync", "rules": [scaled(rule, self._factor) for rule in rules()]}]}
        (self._folder / "rules.yaml").write_text(yaml.safe_dump(groups, width=1000))
        config = {
            "global": {
                "scrape_interval": self._scrape,
                "scrape_timeout": self._scrape,
                "evaluation_interval": "250ms",
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "cartsync", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
            ],
        }
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._write_targets()
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self._address}",
                    "--query.lookback-delta=5s",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "GOMAXPROCS": "1"},
                process_group=0,  # Ctrl-C goes to the drills, which end it themselves
            )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while not await self._is_ready():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"no Prometheus: {(self._folder / 'prometheus.log').read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def scrape(self, name: str, url: str) -> None:
        """Scrapes one more process, as this instance."""
        self._targets[name] = url.removeprefix("http://")
        self._write_targets()

    def _write_targets(self) -> None:
        targets = [{"targets": [address], "labels": {"instance": name}} for name, address in self._targets.items()]
        new = self._folder / "targets.json.new"
        new.write_text(json.dumps(targets))
        new.rename(self._folder / "targets.json")

    async def _is_ready(self) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(f"http://{self._address}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def alerts(self) -> dict[str, set[str]]:
        """The alerts that are not inactive, and of each the states (`pending`, `firing`) of its instances."""
        found: dict[str, set[str]] = {}
        for alert in (await self._asked("alerts"))["alerts"]:
            found.setdefault(alert["labels"]["alertname"], set()).add(alert["state"])
        return found

    async def value(self, query: str) -> list[Any]:
        """What a query comes to now."""
        return list((await self._asked("query", query=query))["result"])

    async def _asked(self, what: str, **parameters: str) -> Any:
        assert self._session is not None
        async with self._session.get(f"http://{self._address}/api/v1/{what}", params=parameters) as response:
            return (await response.json())["data"]
