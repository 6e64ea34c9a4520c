"""One timer for all that is under way, in virtual time: it goes off exactly when it is due."""

import asyncio

import uvloop

from worker.deadlines import Deadlines
from worker.sim.loop import run


class Item:
    """Notes when it expired."""

    def __init__(self, noted: list[tuple[str, float]], name: str) -> None:
        self._noted = noted
        self._name = name

    def expire(self) -> None:
        """Notes it."""
        self._noted.append((self._name, asyncio.get_running_loop().time()))


def test_each_expires_at_its_moment() -> None:
    """Whatever the order in which they were added, and though one timer serves all."""

    async def main() -> list[tuple[str, float]]:
        noted: list[tuple[str, float]] = []
        deadlines = Deadlines(asyncio.get_running_loop())
        for name, until in (("second", 8.0), ("third", 8.25), ("first", 0.125), ("also second", 8.0)):
            deadlines.add(Item(noted, name), until)
        await asyncio.sleep(1.0)
        deadlines.add(Item(noted, "fourth"), 9.0)
        await asyncio.sleep(20.0)
        deadlines.add(Item(noted, "last"), 22.0)
        await asyncio.sleep(20.0)
        return noted

    assert run(main()) == [
        *(("first", 0.125), ("second", 8.0), ("also second", 8.0), ("third", 8.25), ("fourth", 9.0), ("last", 22.0))
    ]


def test_what_has_ended_does_not_expire() -> None:
    """Its timer stays and finds nothing; the next one is due at its own moment all the same."""

    async def main() -> list[tuple[str, float]]:
        noted: list[tuple[str, float]] = []
        deadlines = Deadlines(asyncio.get_running_loop())
        ended, expired = Item(noted, "ended"), Item(noted, "expired")
        deadlines.add(ended, 1.0)
        deadlines.add(expired, 2.0)
        deadlines.remove(ended)
        await asyncio.sleep(5.0)
        deadlines.remove(expired)  # it says so at its end, too
        return noted

    assert run(main()) == [("expired", 2.0)]


def test_nothing_expires_after_the_end() -> None:
    """Nor is a timer left, or one made."""

    async def main() -> list[tuple[str, float]]:
        noted: list[tuple[str, float]] = []
        Deadlines(asyncio.get_running_loop()).close()
        deadlines = Deadlines(asyncio.get_running_loop())
        deadlines.add(Item(noted, "under way"), 1.0)
        deadlines.close()
        await asyncio.sleep(5.0)
        return noted

    assert run(main()) == []


def test_a_moment_that_has_passed() -> None:
    """A process that was frozen adds what is due already: it expires at once, and what comes after it, too. uvloop's
    handle of such a moment does not know when it was.
    """

    async def main() -> list[str]:
        noted: list[tuple[str, float]] = []
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        for name, late_s in (("first", 1.0), ("second", 2.0), ("third", 0.5)):
            deadlines.add(Item(noted, name), loop.time() - late_s)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [name for name, _ in noted]

    assert sorted(uvloop.run(main())) == sorted(run(main())) == ["first", "second", "third"]


def test_a_task_within_a_deadline() -> None:
    """It ends with `TimeoutError` at the moment, and is not left cancelled; what ends before does not notice."""

    async def main() -> list[tuple[str, float]]:
        noted: list[tuple[str, float]] = []
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        with deadlines.within(3.0):
            await asyncio.sleep(1.0)
        noted.append(("ended", loop.time()))
        try:
            with deadlines.within(5.0), deadlines.within(7.0):
                await asyncio.sleep(60.0)
        except TimeoutError:
            noted.append(("over", loop.time()))
        await asyncio.sleep(60.0)
        noted.append(("went on", loop.time()))
        return noted

    assert run(main()) == [("ended", 1.0), ("over", 5.0), ("went on", 65.0)]


def test_a_task_that_is_cancelled_within_its_deadline() -> None:
    """Whoever cancels it sees it cancelled, even at the moment of the deadline."""

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)

        async def wait(until: float) -> None:
            with deadlines.within(until):
                await asyncio.sleep(60.0)

        async def cancelled(at: float, until: float) -> bool:
            task = asyncio.create_task(wait(until))
            loop.call_at(at, task.cancel)
            return isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

        return [await cancelled(1.0, 2.0), await cancelled(4.0, 4.0)]

    assert run(main()) == [True, True]
