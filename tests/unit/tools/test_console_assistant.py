"""A process that helps to build an index: what it computes is what the console computes, and nothing depends on it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from schemas import state
from tests.unit.web.console.scene import RULES, Scene, owed, parked, settled, until
from worker.ports import Chunk, StoredRecord
from worker.providers.registry import describer
from worker.tools.console.assistant import assistance
from worker.web.console.follower import Assistant, Follower
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
async def test_ends(is_asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was given has no answer, and it takes nothing more."""
    pids: list[int] = []
    start = asyncio.create_subprocess_exec

    async def started(*command: str, **options: object) -> asyncio.subprocess.Process:
        process = await start(*command, **options)  # type: ignore[arg-type]
        pids.append(process.pid)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    async with assistance(RULES, PROVIDERS, lambda: NOW_MS)() as found:
        assistant = await there(found)
        os.kill(pids[0], signal.SIGSTOP)
        answer = assistant.lines(CHUNK) if is_asked else None
        os.kill(pids[0], signal.SIGKILL)
        if answer is not None:
            assert await answer is None
        await until(lambda: assistant.lines(CHUNK) is None)


async def test_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console builds alone."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with assistance(RULES, PROVIDERS, lambda: NOW_MS)() as found:
        assert found is None


async def test_index_is_the_same(tmp_path: Path) -> None:
    """Built with its help, from many slices of two partitions, and told anew meanwhile."""
    built = []
    for number, helped in enumerate((True, False)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        scene = Scene(folder)
        for order in range(3_000):
            scene.put(f"acme/{order % 2_000}", (settled, owed, parked)[order % 3](), order % 2)
        index = scene.index()
        options = (assistance(RULES, PROVIDERS, lambda: NOW_MS),) if helped else ()
        follower = Follower(scene.records, index, *options)
        following = asyncio.create_task(follower.run())
        await until(lambda index=index: index.is_complete)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        with index.connect() as db:
            columns = "subject, partition, offset, account, status, reason, shipped_minor, revision, acked"
            built.append(db.execute(f"SELECT {columns} FROM orders ORDER BY subject").fetchall())
        index.close()
    assert built[0] == built[1]
    assert len(built[0]) == 2_000
