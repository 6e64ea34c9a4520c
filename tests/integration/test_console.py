"""The console beside real workers on a real Kafka: what it shows, that it acts, and what becomes of its index."""

import asyncio
import os
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from tests.integration.conftest import OpenStage
from tests.integration.process import until
from tests.integration.topics import RECORD, State
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT, line
from worker.kafka.client import AIOKafkaAdminClient
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import create_topics
from worker.tools.local_kafka import LocalKafka

PROJECT = Path(__file__).resolve().parents[2]


class ConsoleProcess:
    """`cartsync console`, as people run it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, lines: list[dict[str, Any]]) -> None:
        self.process = process
        self.url = url
        self.lines = lines
        """Of its log."""

    async def json(self, path: str) -> Any:
        """An answer of its API."""
        return msgspec.json.decode(await self.text(path))

    async def text(self, path: str) -> str:
        """A page."""
        request = urllib.request.Request(self.url + path, headers={"Accept": "text/html"})

        def ask() -> str:
            with urllib.request.urlopen(request, timeout=20) as response:
                return str(response.read().decode())

        return await asyncio.to_thread(ask)

    async def post(self, path: str, form: dict[str, str]) -> str:
        """The page that a form leads to."""
        body = urlencode(form).encode()
        request = urllib.request.Request(self.url + path, data=body, headers={"Accept": "text/html"})

        def ask() -> str:
            with urllib.request.urlopen(request, timeout=60) as response:
                return str(response.read().decode())

        return await asyncio.to_thread(ask)

    async def subjects(self) -> list[str]:
        """All orders."""
        return [row["subject"] for row in (await self.json("/api/orders?sort=reference"))["orders"]]

    async def ready(self) -> None:
        """Until the index is complete."""
        await self.eventually(lambda: self.json("/api/index"), lambda view: view["state"] == "following")

    async def eventually(self, ask: Callable[[], Any], holds: Callable[[Any], bool], within_s: float = 60.0) -> Any:
        """What is answered once it is as wanted."""
        found = None
        try:
            async with asyncio.timeout(within_s):
                while not holds(found := await ask()):  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"still {found!r}") from None
        return found

    def said(self, event: str) -> list[dict[str, Any]]:
        """Lines of its log."""
        return [line for line in self.lines if line["event"] == event]


@asynccontextmanager
async def console(settings: KafkaSettings, folder: Path, **section: Any) -> AsyncIterator[ConsoleProcess]:
    """A running one, ended in order."""
    kafka = {
        name: getattr(settings, name)
        for name in (
            *("bootstrap_servers", "event_topic", "state_topic", "dead_letter_topic", "results_topic"),
            "transactional_id_prefix",
        )
    }
    sections = {"kafka": kafka, "console": {"port": 0, "index": str(folder / "index.sqlite"), **section}}
    lines = []
    for name, members in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in members.items()]
    lines += ["[log]", 'format = "json"', "[accounts.acme]", 'provider = "sequra"', 'password_file = "/not/there"']
    config = folder / "console.toml"
    await asyncio.to_thread(config.write_text, "\n".join(lines))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "console", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        cwd=PROJECT,
    )
    assert process.stdout is not None
    said: list[dict[str, Any]] = []

    async def read() -> None:
        assert process.stdout is not None
        async for text in process.stdout:
            said.append(msgspec.json.decode(text))  # noqa: PERF401 - each is looked at when it comes

    reading = asyncio.create_task(read())
    try:
        await until(lambda: any(line["event"] == "console_open" for line in said), 30, lambda: f"{said}")
        (opened,) = [line for line in said if line["event"] == "console_open"]
        yield ConsoleProcess(process, opened["address"], said)
        if process.returncode is None:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@pytest.fixture
async def settings(kafka: LocalKafka) -> KafkaSettings:
    """Topics of this test's own, of two partitions."""
    found = settings_of(kafka.bootstrap)
    await create_topics(found, 2)
    return found


async def test_index_goes_on_after_a_restart(settings: KafkaSettings, tmp_path: Path) -> None:
    """What came while it was down is there, what was removed is gone, and the index was not built again."""
    topic = State(settings)
    await topic.put(0, ("acme/1", RECORD), ("acme/2", RECORD))
    await topic.put(1, ("acme/3", RECORD))
    async with console(settings, tmp_path) as first:
        await first.ready()
        assert await first.subjects() == ["acme/1", "acme/2", "acme/3"]
    await topic.put(0, ("acme/1", None), ("acme/4", RECORD))
    async with console(settings, tmp_path) as second:
        await second.eventually(second.subjects, lambda found: found == ["acme/2", "acme/3", "acme/4"])
        assert second.said("console_index_rebuilt") == []
        await topic.put(1, ("acme/3", None))
        await second.eventually(second.subjects, lambda found: found == ["acme/2", "acme/4"])
        order = await second.json("/api/orders/acme%2F4")
        assert (order["order"]["status"], order["order"]["shipped_minor"]) == ("owed", 100)
        assert order["provider_has"] == "what was confirmed at checkout: nothing newer was acknowledged"


async def test_index_is_built_again_when_the_topic_was_made_again(settings: KafkaSettings, tmp_path: Path) -> None:
    """Of a topic with another id nothing of before is believed, though it has the name and more records."""
    topic = State(settings)
    await topic.put(0, ("acme/old", RECORD))
    async with console(settings, tmp_path) as first:
        await first.ready()
        assert await first.subjects() == ["acme/old"]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([settings.state_topic])
    await admin.close()
    await asyncio.sleep(1.0)  # a topic of the name is made a moment after the old one is gone
    await create_topics(settings, 2)
    await topic.put(0, *((f"acme/{number}", RECORD) for number in range(5)))
    async with console(settings, tmp_path) as second:
        await second.ready()
        assert await second.subjects() == [f"acme/{number}" for number in range(5)]
        (rebuilt,) = second.said("console_index_rebuilt")
        assert "made again" in rebuilt["why"]


async def test_killed_while_it_reads(settings: KafkaSettings, tmp_path: Path) -> None:
    """A console that was killed goes on with what was committed to its file."""
    topic = State(settings)
    await topic.put(0, *((f"acme/{number}", RECORD) for number in range(2_000)))
    async with console(settings, tmp_path) as first:
        await first.eventually(lambda: first.json("/api/index"), lambda view: view["version"] > 1)
        first.process.kill()
        await first.process.wait()
    async with console(settings, tmp_path) as second:
        await second.ready()
        page = await second.json("/api/orders?sort=reference&limit=500")
        assert page["total"] == 2_000
        assert second.said("console_index_rebuilt") == []


async def test_kafka_refuses_nothing_it_needs(settings: KafkaSettings, tmp_path: Path) -> None:
    """Without credentials of a provider, and without a worker, everything is shown, and that nobody can act is said."""
    await State(settings).put(1, ("acme/1", RECORD), ("ghost/2", RECORD))
    async with console(settings, tmp_path) as only:
        await only.ready()
        text = re.sub(r"\s+", " ", await only.text("/"))
        assert "Account ghost is not configured, and has 1 order" in text
        assert "name the private ports of all workers in [console] workers" in text
        assert "acme/1" in await only.text(f"/orders/{quote('acme/1', safe='')}")


async def test_a_parked_order_is_found_released_and_settled(open_stage: OpenStage, tmp_path: Path) -> None:
    """From the overview to what the provider holds: the reason is seen, a form releases it, and the page says so."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A14/12345")
    stage.script([order.subject], "422", times=1)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await worker.shown(order.subject, "parked")
    await stage.write(order.subject.encode(), b'{"specversion":"1.0","subject":"%b"}' % order.subject.encode())
    path = f"/orders/{quote(order.subject, safe='')}"
    async with console(stage.settings, tmp_path, workers=[worker.url]) as seen:
        await seen.ready()
        shown = await seen.eventually(
            lambda: seen.json("/api/overview"),
            lambda found: any("parked" in each["text"] for each in found["needs_person"]),
        )
        assert [each["phase"] for each in shown["partitions"]] == ["serving", "serving"]
        page = await seen.json(f"/api{path}")
        assert (page["order"]["status"], page["source"]) == ("parked", worker.url)
        assert "422" in page["order"]["reason"]
        assert [each["there_minor"] for each in page["carts"]] == [0, 1000]
        letters = await seen.eventually(lambda: seen.json("/api/dead-letters"), lambda found: bool(found["letters"]))
        assert letters["letters"][0]["subject"] == order.subject
        assert "here" in await seen.text("/dead-letters/{partition}/{offset}".format(**letters["letters"][0]))

        session = await seen.json("/api/session")
        assert (session["role"], session["can_act"]) == ("operator", True)
        form = {"csrf": session["csrf"], "command": "release", "subject": order.subject, "why": "the price was mended"}
        text = await seen.post("/act", form)
        assert "Release:" in text
        await stage.agreed({order.subject: (1000, 0)}, within_s=20)
        settled = await seen.eventually(
            lambda: seen.json(f"/api{path}"), lambda found: found["order"]["status"] == "settled"
        )
        assert settled["provider_has"] == "the newest state: it has acknowledged it"
        story = [each["status"] for each in settled["history"] if each["status"]]
        assert "parked" in story  # what came of the release may be read a moment later
        (acted,) = seen.said("console_action")
        assert (acted["by"], acted["why"], acted["done"]) == ("local", "the price was mended", 1)
        worker.kill()
        overview = await seen.eventually(
            lambda: seen.json("/api/overview"), lambda found: "does not answer" in found["needs_person"][0]["text"]
        )
        assert overview["needs_person"][0]["severity"] == "page"
        assert (await seen.json(f"/api{path}"))["source"] == "state topic"
