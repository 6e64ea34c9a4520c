"""Topics with what a test wants in them, and commands that read them; without a worker."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, FormatChecker

from schemas import state
from schemas.commands import PRINTED
from schemas.facts import seal_facts
from schemas.generate import FOLDER
from schemas.state import OrderRecord
from tests.integration.process import Ran
from tests.shops.events import confirmed, facts_of, goods, shipped
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog

PROJECT = Path(__file__).resolve().parents[2]
RECORD = OrderRecord(
    sealed=seal_facts(facts_of(confirmed(goods("A", 2, 200)), shipped("s1", A=1))), revision=2, owed_since_ms=1
)


class State:
    """Writes to the state topic as its owners do."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    async def put(self, partition: int, *orders: tuple[str, OrderRecord | None]) -> None:
        """A transaction of these records."""
        await self.write(
            partition,
            [(f"o:{subject}".encode(), None if value is None else state.encode(value)) for subject, value in orders],
        )

    async def raw(self, partition: int, key: bytes, value: bytes) -> None:
        """A record as it is."""
        await self.write(partition, [(key, value)])

    async def write(self, partition: int, entries: list[tuple[bytes, bytes | None]]) -> None:
        """A transaction."""
        log = KafkaStateLog(self._settings)
        await log.start()
        owner = log.partition(partition)
        await owner.fence()
        await owner.write(entries)
        await owner.close()
        await log.stop()


class Desk:
    """Where somebody runs commands, with a configuration of these topics and of an account at seQura."""

    def __init__(self, settings: KafkaSettings, folder: Path, **sections: Mapping[str, Any]) -> None:
        kafka = {
            name: getattr(settings, name)
            for name in (
                *("bootstrap_servers", "event_topic", "state_topic", "dead_letter_topic", "results_topic"),
                *("group_id", "transactional_id_prefix"),
            )
        }
        account = {"provider": "sequra", "merchant_id": "acme", "username": "acme", "base_url": "http://127.0.0.1:9"}
        tables = {"kafka": kafka, "accounts.acme": account} | sections
        text = "".join(
            f"[{table}]\n" + "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in it.items())
            for table, it in tables.items()
        )
        self.folder = folder
        folder.joinpath("cartsync.toml").write_text(text, encoding="utf-8")

    async def run(self, *words: str, within_s: float = 60, stdin: str = "") -> Ran:
        """Runs `cartsync …` to its end."""
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "worker", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_s,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "CARTSYNC_ACCOUNTS__ACME__PASSWORD": "p"},
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    async def json(self, *words: str, schema: str, code: int = 0) -> list[Any]:
        """Runs it with `--json`; the objects that it prints, one a line, each as its schema says."""
        return Desk.checked(await self.run(*words, "--json"), schema, code)

    @staticmethod
    def checked(ran: Ran, schema: str, code: int) -> list[Any]:
        """What a command has printed, each object as its schema says: `schema`, or `schema` and the object's type."""
        assert ran.code == code, ran
        found = [json.loads(line) for line in ran.out.splitlines()]
        for each in found:
            name = schema if schema in PRINTED else f"{schema}.{each['type']}"
            document = json.loads((FOLDER / f"command.{name}.json").read_text(encoding="utf-8"))
            Draft202012Validator(document, format_checker=FormatChecker()).validate(each)
        return found
