"""A process that helps to build an index: what it computes is what the console computes, and nothing depends on it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec.structs import replace

from schemas import state
from schemas.facts import Disbursement, ProviderFacts, seal_facts
from schemas.state import OrderRecord
from tests.shops.events import confirmed, facts_of, goods, shipped
from tests.unit.web.console.scene import RULES, Scene, owed, parked, settled, until
from worker.ports import Chunk, StoredRecord
from worker.providers.registry import describer
from worker.tools.console.assistant import assistance
from worker.web.console import follower as follower_module
from worker.web.console.follower import Assistance, Assistant, Follower
from worker.web.console.index import keyed
from worker.web.console.rows import StateLines, state_lines

NOW_MS = 1_800_000_000_000
PROVIDERS = {"acme": "sequra"}
RECORDS = [
    StoredRecord(1, 0, b"o:acme/1", state.encode(settled())),
    StoredRecord(2, 0, b"o:acme/2", state.encode(owed())),
    StoredRecord(3, 0, b"o:acme/2", state.encode(parked())),
    StoredRecord(4, 0, b"o:acme/3", None),
    StoredRecord(5, 0, b"o:acme/4", b"\xc1"),
    StoredRecord(6, 0, b"m:owner", b"whoever"),
    StoredRecord(7, 0, None, None),
]
CHUNK = Chunk("state", 3, RECORDS, 8)


async def there(assistant: Assistant | None) -> Assistant:
    """Once it has begun."""
    assert assistant is not None
    await until(lambda: assistant.lines(CHUNK) is not None)
    return assistant


async def test_computes_what_we_compute() -> None:
    """Of lines, of what is gone or damaged, and of records of no order."""
    async with assistance(RULES, PROVIDERS, lambda: NOW_MS)() as found:
        assistant = await there(found)
        answers = [assistant.lines(CHUNK) for _ in range(2)]
        assert [each and await each for each in answers] == [expected(), expected()]
        assert len(expected().lines) == 2
        assert expected().damaged == 1


def expected() -> StateLines:
    """By ourselves."""
    return state_lines(3, keyed(CHUNK), rules=RULES, now_ms=NOW_MS, describe=describer(PROVIDERS))


async def test_has_enough_to_do() -> None:
    """It takes some chunks and no more, and then again; a large one does not hold us up."""
    many = Chunk("state", 3, [RECORDS[0]] * 5_000, 8)
    async with assistance(RULES, PROVIDERS, lambda: NOW_MS)() as found:
        assistant = await there(found)
        given = [answer for _ in range(20) if (answer := assistant.lines(many)) is not None]
        assert 0 < len(given) < 20
        assert await given[-1] == (await given[0])
        assert assistant.lines(CHUNK) is not None


@pytest.mark.parametrize("is_asked", [False, True])
async def test_ends(is_asked: bool) -> None:
    """What it was given has no answer, and it takes nothing more."""
    pids: list[int] = []
    async with watched(assistance(RULES, PROVIDERS, lambda: NOW_MS), pids)() as found:
        assistant = await there(found)
        os.kill(pids[0], signal.SIGSTOP)
        answer = assistant.lines(CHUNK) if is_asked else None
        os.kill(pids[0], signal.SIGKILL)
        if answer is not None:
            assert await answer is None
        await until(lambda: takes_nothing(assistant))


def test_ends_unheard() -> None:
    """On the loop of `cartsync console`, a pipe that nobody reads is closed before the end is heard of."""

    async def given() -> None:
        pids: list[int] = []
        many = Chunk("state", 3, [RECORDS[0]] * 500, 8)
        async with watched(assistance(RULES, PROVIDERS, lambda: NOW_MS), pids)() as found:
            assistant = await there(found)
            os.kill(pids[0], signal.SIGKILL)
            # Waited for on the loop itself, which would otherwise hear of the end, and collect the process, before us.
            os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - see above
            for _ in range(6):
                assistant.lines(many)
                await asyncio.sleep(0)
            await until(lambda: takes_nothing(assistant))

    uvloop.run(given())


def takes_nothing(assistant: Assistant) -> bool:
    """Not because it has enough to do."""
    return assistant.lines(CHUNK) is None and not assistant._given  # type: ignore[attr-defined]


def watched(helped: Assistance, pids: list[int]) -> Assistance:
    """Notes the processes that it starts."""

    @asynccontextmanager
    async def entered() -> AsyncIterator[Assistant | None]:
        async with helped() as found:
            assert found is not None
            pids.append(found._process.pid)  # type: ignore[attr-defined]
            yield found

    return entered


async def test_hangs(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    """One that neither answers nor ends delays the index by what it was given, and no longer."""
    monkeypatch.setattr(follower_module, "_WORTH_HELP", 1)
    monkeypatch.setattr(follower_module, "_SLICE", 10)
    monkeypatch.setattr(follower_module, "_HELP_WITHIN_S", 0.01)

    class Hung:
        given = 0

        def lines(self, _chunk: Chunk) -> "asyncio.Future[StateLines | None] | None":
            self.given += 1
            return None if self.given > 6 else asyncio.get_running_loop().create_future()

    assert len(await built(scene, lambda: nullcontext(Hung()))) == 2_000


async def test_number_that_no_message_holds() -> None:
    """It says that it cannot do that one, and goes on."""
    facts = replace(
        facts_of(confirmed(goods("A", 1, 100)), shipped("s1", A=1)),
        provider=ProviderFacts(
            disbursed_before_minor=2**64 - 1, disbursed={b"12345678": Disbursement("2026-01-01", 1)}
        ),
    )
    odd = state.encode(OrderRecord(sealed=seal_facts(facts), revision=2, event_ms=1))
    async with assistance(RULES, PROVIDERS, lambda: NOW_MS)() as found:
        assistant = await there(found)
        answers = [
            assistant.lines(Chunk("state", 3, [StoredRecord(1, 0, b"o:acme/1", odd)], 2)),
            assistant.lines(CHUNK),
        ]
        assert [answer and await answer for answer in answers] == [None, expected()]


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_stopped_while_it_starts(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Whatever had been opened by then is closed, and who was to be helped is stopped."""
    opened = set(Path("/proc/self/fd").iterdir())

    async def stop() -> None:
        async def helped() -> None:
            async with assistance(RULES, PROVIDERS, lambda: NOW_MS)():
                await asyncio.Event().wait()

        for turns in range(12):
            task = asyncio.create_task(helped())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    run(stop())
    assert len(set(Path("/proc/self/fd").iterdir()) - opened) <= 1  # the one that lists them


async def test_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console builds alone."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with assistance(RULES, PROVIDERS, lambda: NOW_MS)() as found:
        assert found is None


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two thousand orders of two partitions, some told anew."""
    scene = Scene(tmp_path)
    for order in range(3_000):
        scene.put(f"acme/{order % 2_000}", (settled, owed, parked)[order % 3](), order % 2)
    return scene


async def built(scene: Scene, helped: Assistance) -> list[tuple[Any, ...]]:
    """The orders of an index that is built from nothing."""
    scene.path.unlink(missing_ok=True)
    index = scene.index()
    following = asyncio.create_task(Follower(scene.records, index, helped).run())
    await until(lambda: index.is_complete)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    columns = "subject, partition, offset, account, status, reason, shipped_minor, revision, acked"
    with closing(index.connect()) as db:
        found = db.execute(f"SELECT {columns} FROM orders ORDER BY subject").fetchall()
    index.close()
    return found


async def test_index_is_the_same(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    """Built with its help, from many slices of two partitions, and told anew meanwhile."""
    monkeypatch.setattr(follower_module, "_WORTH_HELP", 1)
    found = [await built(scene, helped) for helped in (assistance(RULES, PROVIDERS, lambda: NOW_MS), nullcontext)]
    assert found[0] == found[1]
    assert len(found[0]) == 2_000
