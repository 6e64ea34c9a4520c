"""A console over an in-memory broker, its port open, and a shop that fills the state topic."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp

from schemas import history, state
from schemas.console import ActionLine, Tried, WorkerLine
from schemas.facts import seal_facts
from schemas.history import HistoryEntry
from schemas.state import OrderRecord, Parking
from schemas.views import OrderView, StatusView
from tests.shops.events import EventSpec, confirmed, facts_of, goods, shipped
from worker.app.clock import SystemClock
from worker.core.commands import Command
from worker.core.policy import DeliveryPolicy
from worker.ports import DeadLetter, Place, Result, StateEntry
from worker.sim.log import MemoryLog
from worker.sim.records import MemoryRecords
from worker.tools.console.attempt import read_events
from worker.tools.console.letters import AtTheDesk
from worker.tools.demo.letters import MemoryDesk
from worker.web.console.answers import Answers, Site
from worker.web.console.auth import Auth, Loopback
from worker.web.console.follower import Follower
from worker.web.console.index import Index
from worker.web.console.operator import STOPPED, ActionProgress, Letters
from worker.web.console.server import Console

NOW_MS = 1_800_000_000_000
PROVIDERS = {"acme": "sequra", "hats": "qliro"}
RULES = DeliveryPolicy()


def record(*specs: EventSpec, **members: Any) -> OrderRecord:
    """A record at revision 2 of which nothing was acknowledged, unless said."""
    facts = facts_of(*(specs or (confirmed(goods("A", 2, 200)), shipped("s1", A=1))))
    return OrderRecord(sealed=seal_facts(facts), **{"revision": 2, "event_ms": NOW_MS - 60_000, **members})


def settled(**members: Any) -> OrderRecord:
    """A record of which everything was acknowledged."""
    return record(**{"acked": 2, **members})


def owed(since_ms: int = NOW_MS - 60_000, **members: Any) -> OrderRecord:
    """A record of which something is owed."""
    return record(owed_since_ms=since_ms, **members)


def parked(reason: str = "422: no such product", at_ms: int = NOW_MS - 3_600_000, **members: Any) -> OrderRecord:
    """A record that is parked."""
    return record(park=Parking(reason, b"d", 2, at_ms), owed_since_ms=at_ms, **members)


class Deeds:
    """`Operator` and `Workers`: does nothing, and notes what was asked of it."""

    def __init__(self) -> None:
        self.problem = ""
        self.done: list[tuple[str, tuple[str, ...], str, str]] = []
        self.says: list[tuple[WorkerLine, StatusView | None]] = []
        self.views: dict[str, OrderView] = {}
        self.refuses: set[str] = set()
        self.turns: asyncio.Semaphore | None = None
        """Each order takes one of them, where there are such."""

    def why_not(self) -> str:
        return self.problem

    async def submit(
        self, command: Command, subjects: Sequence[str], *, by: str, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        self.done.append((command.name, tuple(subjects), by, why))
        lines = []
        for subject in subjects:
            if self.turns is not None:
                await self.turns.acquire()
            can = subject not in self.refuses
            line = ActionLine(subject, can, "done" if can else "nothing to do")
            if progress.is_stopped:
                line = ActionLine(subject, False, STOPPED)
            else:
                progress.tell(line)
            lines.append(line)
        return lines

    async def statuses(self) -> list[tuple[WorkerLine, StatusView | None]]:
        return self.says

    async def show(self, subject: str) -> tuple[str, OrderView] | None:
        view = self.views.get(subject)
        return None if view is None else ("http://w1", view)


class Scene:
    """Everything around one console."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog(2, SystemClock())
        self.records = MemoryRecords(self.log, SystemClock())
        self.path = folder / "index.sqlite"
        self.deeds = Deeds()
        self.desk = MemoryDesk(self.log)
        self.letters: Letters = AtTheDesk(self.desk.open)
        self.now_ms = NOW_MS
        self.url = ""
        self.trace_url = ""
        self.tried: list[str] = []

    def put(self, subject: str, value: OrderRecord | None, partition: int = 0) -> None:
        """The state topic says so of an order."""
        encoded = None if value is None else state.encode(value)
        self.log.write_foreign(partition, f"o:{subject}".encode(), encoded)

    def refuse(
        self, value: bytes, detail: str, reason: str = "invalid_data", *headers: tuple[str, bytes], key: bytes = b"k"
    ) -> None:
        """A dead letter."""
        said = {"reason": reason, "detail": detail, "topic": "orders.events", "partition": "0", "offset": "7"}
        ours = [(f"x-dlq-{name}", text.encode()) for name, text in said.items()]
        self.log.dead_letters.append(DeadLetter(key, value, [*headers, *ours]))

    def tell(self, subject: str, sequence: int, **data: Any) -> None:
        """A result about an order's status."""
        body = {"type": "cartsync.order_changed", "subject": subject, "sequence": str(sequence), "data": data}
        self.log.results.append(Result(subject.encode(), json.dumps(body).encode()))

    def happen(self, subject: str, n: int, partition: int = 0, **members: Any) -> None:
        """An entry of an order's history."""
        entry: dict[str, Any] = {
            "schema": 1,
            "n": n,
            "at_ms": NOW_MS + n,
            "kind": "event",
            "what": "order.confirmed",
            "revision": 1,
        }
        written, value = self.log.history(partition), history.encode(HistoryEntry(**entry | members))
        written.append(StateEntry(len(written), history.key_of(subject, n), value))

    async def attempt(self, text: str) -> Tried:
        self.tried.append(text)
        return Tried([], [{"method": "PUT", "url": "https://p", "body": {"<b>": 1}}], [], [], [])

    def site(self, index: Index) -> Site:
        return Site(
            records=self.records,
            index=index,
            follower=Follower(self.records, index),
            operator=self.deeds,
            letters=self.letters,
            workers=self.deeds,
            trier=self.attempt,
            read_events=read_events,
            rules=RULES,
            providers=PROVIDERS,
            describe=nothing_known,
            now_ms=lambda: self.now_ms,
            trace_url=self.trace_url,
        )

    def index(self) -> Index:
        return Index(self.path, RULES, nothing_known, lambda: self.now_ms)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Answers]:
        """Answers, everything read."""
        index = self.index()
        site = self.site(index)
        answers = Answers(site)
        answers._statuses = await self.deeds.statuses()
        task = asyncio.create_task(site.follower.run())
        try:
            await until(lambda: site.follower.state == "following" or task.done())
            await self.read(answers)
            yield answers
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            answers.close()
            index.close()

    async def read(self, answers: Answers) -> None:
        """Until everything that was written is in the index."""

        def is_read() -> bool:
            with closing(answers.site.index.connect()) as db:  # what is committed
                at = {(t, p): n for t, p, n in db.execute("SELECT topic, partition, next_offset FROM positions")}
            ends: dict[Place, int] = {("state", partition): self.log.state_end(partition) for partition in range(2)}
            ends |= {("dead_letters", 0): len(self.log.dead_letters), ("results", 0): len(self.log.results)}
            ends |= {("history", partition): len(self.log.history(partition)) for partition in range(2)}
            return all(at.get(place, 0) >= end for place, end in ends.items())

        await until(is_read)

    @asynccontextmanager
    async def open(self, auth: Auth | None = None, port: int = 0, **options: Any) -> AsyncIterator[Answers]:
        """The console, at `url`."""
        async with AsyncExitStack() as stack:
            answers = await stack.enter_async_context(self.following())
            console = Console(answers, auth or Loopback(), **options)
            self.url = await console.start("127.0.0.1", port)
            stack.push_async_callback(console.stop)
            yield answers


def nothing_known(_account: str, _remote: bytes) -> Mapping[str, Any] | None:
    """No adapter knows anything."""
    return None


async def until(holds: Any) -> None:
    """Until something holds; fails when it never does."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def get(url: str, status: int = 200, **options: Any) -> str:
    """The page at an address."""
    options.setdefault("headers", {"Accept": "text/html"})
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False, **options) as response:
        text = await response.text()
        assert response.status == status, text
        return text


async def get_json(url: str, status: int = 200, **options: Any) -> Any:
    """The JSON at an address."""
    async with aiohttp.ClientSession() as session, session.get(url, **options) as response:
        assert response.status == status, await response.text()
        return json.loads(await response.text())


async def csrf(url: str, **options: Any) -> str:
    """The token of who asks."""
    found = await get_json(f"{url}/api/session", **options)
    return str(found["csrf"])
