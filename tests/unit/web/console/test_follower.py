"""Reading along: what was there, what comes, and what becomes of the topics meanwhile."""

import asyncio
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.unit.web.console.scene import Scene, owed, parked, settled, until
from worker.errors import ConfigError, LogError
from worker.ports import Chunk, StoredRecord, TopicFound, TopicName
from worker.sim.records import MemoryRecords
from worker.web.console import follower as follower_module
from worker.web.console.answers import Answers
from worker.web.console.follower import Follower
from worker.web.console.queries import Filter


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A broker and a file."""
    return Scene(tmp_path)


async def subjects(scene: Scene, answers: Answers) -> list[str]:
    """All orders."""
    await scene.read(answers)
    return [row.subject for row in (await answers.orders(Filter(), "reference", None, 100)).orders]


async def test_what_is_there_and_what_comes(scene: Scene) -> None:
    """Orders of all partitions, changes, and removals; dead letters and results, too."""
    scene.put("acme/1", settled(), 0)
    scene.put("acme/2", owed(), 1)
    scene.tell("acme/1", 1, status="settled")
    async with scene.following() as answers:
        assert await subjects(scene, answers) == ["acme/1", "acme/2"]
        scene.put("acme/3", parked(), 1)
        scene.put("acme/1", None, 0)
        scene.refuse(b"{}", "$: no")
        assert await subjects(scene, answers) == ["acme/2", "acme/3"]
        assert len((await answers.letters("", "", None, 10)).letters) == 1


async def test_goes_on_after_a_restart(scene: Scene) -> None:
    """The next process reads what came since, and nothing twice."""
    scene.put("acme/1", settled())
    async with scene.following():
        pass
    scene.put("acme/2", settled())
    read: list[StoredRecord] = []

    class Watched(MemoryRecords):
        async def read(self, within_s: float) -> list[Chunk]:
            chunks = await super().read(within_s)
            read.extend(record for chunk in chunks for record in chunk.records)
            return chunks

    scene.records = Watched(scene.log, scene.records._clock)
    async with scene.following() as answers:
        assert await subjects(scene, answers) == ["acme/1", "acme/2"]
    assert [record.key for record in read] == [b"o:acme/2"]


async def test_topic_is_made_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the state topic is another one, what was read of the old one goes, while the console runs."""
    monkeypatch.setattr(follower_module, "LOOK_S", 0.05)
    scene.put("acme/1", settled())
    async with scene.following() as answers:
        assert await subjects(scene, answers) == ["acme/1"]
        scene.log.remake_states()
        scene.put("acme/2", settled())
        await until(lambda: scene.log.broker.state_topic_id in index_ids(answers))
        assert await subjects(scene, answers) == ["acme/2"]


def index_ids(answers: Answers) -> str:
    """Of which topics the index says that it is."""
    with closing(answers.site.index.connect()) as db:
        return str(db.execute("SELECT value FROM meta").fetchone()[0])


class Away(MemoryRecords):
    """Kafka is away until it is back."""

    fails: Exception | None = LogError("no Kafka broker answers")

    async def topics(self) -> Mapping[TopicName, TopicFound]:
        """Fails."""
        if self.fails is not None:
            raise self.fails
        return await super().topics()


async def test_kafka_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and tries again until it is back; an order that is shown until then is what was read before."""
    monkeypatch.setattr(follower_module, "AGAIN_S", (0.01,))
    records = Away(scene.log, scene.records._clock)
    index = scene.index()
    follower = Follower(records, index)
    task = asyncio.create_task(follower.run())
    await until(lambda: follower.detail == "no Kafka broker answers")
    states = [follower.state]
    records.fails = None
    await until(lambda: follower.state == "following")
    assert states == ["away"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    index.close()


def has(waits: list[float], count: int) -> bool:
    """Whether there were so many first waits."""
    return waits.count(1.0) >= count


async def test_outages_are_counted_in_a_row(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once something was read the next outage is the first one again: it does not cost the longest wait."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay_s: float) -> None:
        if delay_s in follower_module.AGAIN_S:
            waits.append(delay_s)
            delay_s = 0
        await sleep(delay_s)

    monkeypatch.setattr(follower_module, "LAG_S", 0.0)
    monkeypatch.setattr(asyncio, "sleep", noted)
    records = Away(scene.log, scene.records._clock)
    index = scene.index()
    follower = Follower(records, index)
    task = asyncio.create_task(follower.run())
    for outages in range(1, 4):
        records.fails = LogError("no Kafka broker answers")
        await until(partial(has, waits, outages))
        records.fails = None
        await until(lambda: follower.state == "following" and not follower._failures)
    assert waits.count(1.0) == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    index.close()


async def test_kafka_refuses(scene: Scene) -> None:
    """What only an operator can mend ends the console."""
    records = Away(scene.log, scene.records._clock)
    records.fails = ConfigError("refused")
    index = scene.index()
    with pytest.raises(ConfigError, match="refused"):
        await Follower(records, index).run()
    index.close()


async def test_odd_result(scene: Scene) -> None:
    """A result that is none of ours is passed over and counted, and what follows is read."""
    scene.tell("acme/A", 1, status={"a": 1}, revision=1)
    scene.tell("acme/A", 2, status="owed", revision=2)
    async with scene.following() as answers:
        assert [line.revision for line in await answers.ask(lambda reader: reader.history("acme/A"))] == [2]
        assert answers.site.index.damaged == 1


async def test_odd_state(scene: Scene) -> None:
    """A record of the state with a number that the index cannot hold is passed over and counted, too."""
    scene.put("acme/1", settled(revision=2**63))
    scene.put("acme/2", settled())
    async with scene.following() as answers:
        assert await subjects(scene, answers) == ["acme/2"]
        assert answers.site.index.damaged == 1


async def test_index_cannot_be_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not end the console: it says so, and goes on when there is room again."""
    monkeypatch.setattr(follower_module, "AGAIN_S", (0.01,))
    index = scene.index()
    scene.put("acme/1", settled())
    follower = Follower(scene.records, index)
    with monkeypatch.context() as full:

        def fail(*_given: object, **_options: object) -> int:
            raise sqlite3.OperationalError("database or disk is full")

        full.setattr(index, "apply", fail)
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.detail == "the index cannot be written: database or disk is full" or task.done())
        states = [follower.state]
    await until(lambda: follower.state == "following" or task.done())
    assert [*states, follower.state] == ["away", "following"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    index.close()


async def test_stops_while_it_is_completed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLite does then takes seconds: it is interrupted, and the file is closed only afterwards."""
    index = scene.index()
    scene.put("acme/1", settled())
    begun = threading.Event()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def never() -> None:
        begun.set()
        index._db.execute(endless)

    monkeypatch.setattr(index, "caught_up", never)
    task = asyncio.create_task(Follower(scene.records, index).run())
    await until(begun.is_set)
    await asyncio.sleep(0.05)  # until it is within SQLite
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    index.close()


async def test_no_state_topic(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what to do."""

    class Empty(MemoryRecords):
        async def topics(self) -> Mapping[TopicName, TopicFound]:
            return {}

    index = scene.index()
    follower = Follower(Empty(scene.log, scene.records._clock), index)
    task = asyncio.create_task(follower.run())
    await until(lambda: "cartsync topics check" in follower.detail)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    index.close()


async def test_lag_is_not_needed(scene: Scene) -> None:
    """A console that may not describe the event topic shows all the rest."""

    class Blind(MemoryRecords):
        async def input_ends(self) -> Mapping[int, int]:
            raise LogError("not allowed")

    scene.records = Blind(scene.log, scene.records._clock)
    scene.put("acme/1", settled())
    async with scene.following() as answers:
        assert await subjects(scene, answers) == ["acme/1"]
        assert answers.site.follower.input_ends is None


async def test_progress(scene: Scene) -> None:
    """While it is built one sees how far it is."""
    for number in range(5):
        scene.put(f"acme/{number}", settled())
    index = scene.index()
    follower = Follower(scene.records, index)
    follower._ends = {("state", 0): (0, 10), ("state", 1): (0, 0)}
    follower._positions = {("state", 0): 4}
    follower._total = 10
    assert follower.progress() == (6, 10)
    index.close()


async def test_how_far_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """By topic, what was not read at the last look; and since when not all orders and dead letters were."""
    monkeypatch.setattr(follower_module, "LAG_S", 0.02)
    monkeypatch.setattr(follower_module, "TICK_S", 0.02)
    reads, rests = asyncio.Event(), asyncio.Event()
    reads.set()

    class Slow(MemoryRecords):
        async def read(self, within_s: float) -> list[Chunk]:
            if not reads.is_set():
                rests.set()
                await asyncio.sleep(0.01)
                return []
            return await super().read(min(within_s, 0.01))

    scene.records = Slow(scene.log, scene.records._clock)
    scene.put("acme/1", settled())
    async with scene.following() as answers:
        follower = answers.site.follower
        await until(lambda: not any(follower.behind().values()))
        await until(lambda: follower.behind_s() < 0.5)
        reads.clear()
        await rests.wait()
        read = scene.log.state_end(1)
        scene.put("acme/2", settled(), 1)
        scene.refuse(b"{}", "$: no")
        scene.tell("acme/1", 1, status="settled")
        written = scene.log.state_end(1) - read
        await until(lambda: follower.behind() == {"state": written, "dead_letters": 1, "results": 1, "history": 0})
        before = follower.behind_s()
        await until(lambda: follower.behind_s() > before + 0.2)
        reads.set()
        await until(lambda: follower.behind_s() < 0.2)
        assert not any(follower.behind().values())


async def test_away_is_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be read, what is shown becomes older."""
    monkeypatch.setattr(follower_module, "LAG_S", 0.02)
    monkeypatch.setattr(follower_module, "TICK_S", 0.02)
    is_away = False

    class Broken(MemoryRecords):
        async def read(self, within_s: float) -> list[Chunk]:
            if is_away:
                raise LogError("Kafka is away")
            return await super().read(min(within_s, 0.01))

    scene.records = Broken(scene.log, scene.records._clock)
    async with scene.following() as answers:
        follower = answers.site.follower
        await until(lambda: follower.behind_s() < 0.2)
        is_away = True
        await until(lambda: follower.state == "away" and follower.behind_s() > 0.5)
