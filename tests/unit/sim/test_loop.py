"""The loop with virtual time: its order, its time, its processes, and what it does when nothing can go on."""

import asyncio
import gc
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from worker.errors import InvariantError
from worker.sim.loop import START_WALL_MS, StuckError, VirtualClock, VirtualLoop, run


def this_loop() -> VirtualLoop:
    """The loop that the test runs on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def interleaved() -> list[str]:
    """Who ran when, of tasks that give way to each other and of sets of tasks."""
    ran: list[str] = []

    async def work(name: str) -> None:
        for step in range(4):
            ran.append(f"{name}{step}")
            await asyncio.sleep(0 if step < 2 else 1)

    tasks = {asyncio.create_task(work(name)) for name in "abcd"}
    done, _ = await asyncio.wait(tasks)
    ran += [task.get_name() for task in done]
    for future in {this_loop().create_future() for _ in range(20)}:
        future.add_done_callback(lambda _: ran.append("future"))
        future.set_result(None)
    return [name for name in ran if not name.startswith("Task")]


def test_waiting_takes_no_time() -> None:
    """A month of waiting ends at its exact time and takes no real time."""

    async def main() -> float:
        await asyncio.sleep(30 * 86_400.0)
        return this_loop().time()

    began = time.monotonic()
    assert run(main()) == 30 * 86_400.0
    assert time.monotonic() - began < 5


def test_timers_run_in_order() -> None:
    """Timers go off by their times, those of one time in the order in which they were asked for."""

    async def main() -> list[tuple[str, float]]:
        loop, went_off = this_loop(), []

        def note(name: str) -> None:
            went_off.append((name, loop.time()))

        for name, delay in (("c", 2.5), ("a", 1.0), ("d", 2.5), ("b", 1.0), ("now", 0.0), ("past", -1.0)):
            loop.call_later(delay, note, name)
        await asyncio.sleep(3)
        return went_off

    assert run(main()) == [("past", 0.0), ("now", 0.0), ("a", 1.0), ("b", 1.0), ("c", 2.5), ("d", 2.5)]


def test_timer_of_the_past_does_not_wait() -> None:
    """A timer that is due goes off although other callbacks keep the loop from ever being idle."""

    async def main() -> int:
        loop, rounds, due = this_loop(), 0, asyncio.Event()
        loop.call_at(loop.time(), due.set)
        while not due.is_set():
            rounds += 1
            await asyncio.sleep(0)
        return rounds

    assert run(main()) == 2


def test_cancelled_timers() -> None:
    """Cancelled timers neither go off nor hold up time, however many they are."""

    async def main() -> tuple[float, list[int]]:
        loop = this_loop()
        went_off: list[int] = []
        timers = [loop.call_later(1 + number, went_off.append, number) for number in range(5_000)]
        for number, timer in enumerate(timers):
            if number % 1_000 != 999:
                timer.cancel()
        assert len(loop._timers) < 2_500, "they do not pile up"
        await asyncio.sleep(4_500)
        timers[4_999].cancel()
        return loop.time(), went_off

    assert run(main()) == (4_500, [999, 1_999, 2_999, 3_999])


def test_timeouts() -> None:
    """`asyncio.timeout` ends what takes longer, at its time."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7.25):
                await asyncio.sleep(8)
        async with asyncio.timeout(7.25):
            await asyncio.sleep(1)
        return this_loop().time()

    assert run(main()) == 8.25


def test_time_passes_below_rounding() -> None:
    """Whoever sleeps for the rest of a time comes to its end, also when the rest is lost to rounding."""

    async def main() -> bool:
        await asyncio.sleep(1e9)
        before = this_loop().time()
        await asyncio.sleep(1e-9)
        return this_loop().time() > before

    assert run(main())


def test_first_come_first_served_without_seed() -> None:
    """Without a seed callbacks run in the order in which they became ready."""
    steps = run(interleaved())[:16]
    assert steps == [f"{name}{step}" for step in range(4) for name in "abcd"]


def test_seed_draws_the_order() -> None:
    """A seed gives one order, others give others, and each task's own steps stay in order."""
    orders = [run(interleaved(), seed=seed) for seed in range(10)]
    assert orders == [run(interleaved(), seed=seed) for seed in range(10)]
    assert len({tuple(order) for order in orders}) == 10
    for order in orders:
        for name in "abcd":
            mine = [step for step in order if step.startswith(name)]
            assert all(earlier < later for earlier, later in pairwise(mine))


def test_sets_have_one_order() -> None:
    """Sets of tasks and of futures are walked in the order in which these were first put into one."""

    async def main() -> bool:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(50)]
        futures = [this_loop().create_future() for _ in range(50)]
        return all([*map(hash, each)] == sorted(map(hash, each)) for each in (tasks, futures))

    assert run(main(), seed=1)


@pytest.mark.parametrize("seed", [None, 1])
def test_deadlock_is_told(seed: int | None) -> None:
    """When all wait for what nothing will bring, the error names the tasks and the places where they wait."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(forever(), name="the other")
        await asyncio.sleep(5)
        await task

    with pytest.raises(StuckError, match=r"no timer runs; waiting: .*the other at locks\.py:\d+"):
        run(main(), seed=seed)


def test_deadlock_ends_tasks() -> None:
    """After a deadlock the tasks are cancelled in order, so that what they hold is let go."""
    ended = []

    async def main() -> None:
        try:
            await this_loop().create_future()
        finally:
            ended.append("main")

    with pytest.raises(StuckError):
        run(main())
    assert ended == ["main"]


def test_busy_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that gives way for ever without any time passing is found."""
    monkeypatch.setattr("worker.sim.loop.BUSY_MAX", 1_000)

    async def main(pause_s: float) -> None:
        for _ in range(10):
            for _ in range(900):
                await asyncio.sleep(0)
            await asyncio.sleep(pause_s)

    run(main(0.001))
    with pytest.raises(StuckError, match="no time passed"):
        run(main(0))


def test_left_tasks_are_cancelled() -> None:
    """Tasks that are left at the end are cancelled and may still wait; asynchronous generators are closed."""
    ended = []

    async def left(name: str) -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(1)
            ended.append(name)

    async def numbers():
        try:
            yield 1
        finally:
            ended.append("generator")

    generator = numbers()

    async def main() -> None:
        this_loop().spawn("w", left("frozen"))
        asyncio.create_task(left("task")).add_done_callback(lambda _: ended.append("done"))
        await asyncio.sleep(1)
        this_loop().freeze("w")
        await anext(generator)

    run(main())
    assert sorted(ended) == ["done", "frozen", "generator", "task"]


def test_result_and_error() -> None:
    """What the coroutine returns or raises comes out."""

    async def main(number: int) -> int:
        await asyncio.sleep(1)
        return 10 // number

    assert run(main(5)) == 2
    with pytest.raises(ZeroDivisionError):
        run(main(0))


def _fail_in_callback() -> None:
    def fail() -> None:
        raise ValueError("callback")

    asyncio.get_running_loop().call_later(1, fail)


def _fail_in_task() -> None:
    async def fail() -> None:
        raise ValueError("task")

    asyncio.create_task(fail())  # noqa: RUF006 - nobody is to keep it


def _fail_when_cancelled() -> None:
    async def fail() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            raise ValueError("cancelled")

    asyncio.get_running_loop().keep = asyncio.create_task(fail())  # type: ignore[attr-defined]


@pytest.mark.parametrize("fail", [_fail_in_callback, _fail_in_task, _fail_when_cancelled])
def test_silent_failures_are_told(fail: Callable[[], None]) -> None:
    """An error that nobody asked for is not lost: the run fails with it."""

    async def main() -> None:
        fail()
        await asyncio.sleep(2)
        gc.collect()

    with pytest.raises(InvariantError) as raised:
        run(main())
    assert isinstance(raised.value.__cause__, ValueError)


def test_no_threads() -> None:
    """A thread is refused: it would take real time."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(time.sleep, 0)

    run(main())


def test_closed_loop_refuses() -> None:
    """A loop that was closed takes nothing any more."""
    loop = VirtualLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(lambda: None)


# Processes


async def ticks(into: list[float], count: int) -> None:
    """Notes the time once a second, by a task of its own each time."""

    async def note() -> None:
        into.append(this_loop().time())

    for _ in range(count):
        await asyncio.sleep(1)
        await asyncio.create_task(note())


def test_frozen_process_stands_still() -> None:
    """Nothing of a frozen process runs, subtasks and timers included, while others go on; thawed it is late."""

    async def main() -> tuple[list[float], list[float]]:
        loop = this_loop()
        mine: list[float] = []
        others: list[float] = []
        loop.spawn("w1", ticks(mine, 4))
        loop.spawn("w2", ticks(others, 10))
        await asyncio.sleep(2.5)
        loop.freeze("w1")
        await asyncio.sleep(5)
        loop.thaw("w1")
        await asyncio.sleep(5)
        return mine, others

    mine, others = run(main())
    assert mine == [1, 2, 7.5, 8.5]
    assert others == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_deadline_passes_while_frozen() -> None:
    """A timeout that runs out during a freeze is met at the thaw."""

    async def main() -> tuple[str, float]:
        loop = this_loop()

        async def wait() -> str:
            try:
                async with asyncio.timeout(3):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "timeout"
            return "no timeout"

        task = loop.spawn("w1", wait())
        await asyncio.sleep(1)
        loop.freeze("w1")
        await asyncio.sleep(9)
        loop.thaw("w1")
        return await task, loop.time()

    assert run(main()) == ("timeout", 10)


def test_thaw_is_for_one_process() -> None:
    """A thaw lets only the process run that it names."""

    async def main() -> list[str]:
        loop, ran = this_loop(), []

        async def note(name: str) -> None:
            ran.append(name)

        for name in ("w1", "w2"):
            loop.spawn(name, note(name))
            loop.freeze(name)
        await asyncio.sleep(1)
        loop.thaw("w2")
        await asyncio.sleep(1)
        return list(ran)

    assert run(main()) == ["w2"]


def test_deadlock_names_frozen() -> None:
    """When time cannot go on because a process is frozen, the error says which."""

    async def main() -> None:
        task = this_loop().spawn("w1", asyncio.sleep(1))
        this_loop().freeze("w1")
        await task

    with pytest.raises(StuckError, match="frozen: w1"):
        run(main())


# The clock


def test_clock_goes_with_the_loop() -> None:
    """Both clocks go with virtual time, from 2026 on unless told otherwise."""

    async def main() -> list[tuple[float, int]]:
        clocks = [VirtualClock(this_loop()), VirtualClock(this_loop(), start_wall_ms=5)]
        await asyncio.sleep(1.5)
        return [(clock.now(), clock.wall_ms()) for clock in clocks]

    assert run(main()) == [(1.5, START_WALL_MS + 1_500), (1.5, 1_505)]
    assert START_WALL_MS == 1_767_225_600_000


def test_chance_is_by_seed() -> None:
    """Chance is in [0, 1), the same for one seed and others for others."""
    loop = VirtualLoop()
    drawn = []
    for seed in (1, 1, 2):
        clock = VirtualClock(loop, seed=seed)
        drawn.append([clock.chance() for _ in range(100)])
    loop.close()
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0 <= number < 1 for number in drawn[0])
