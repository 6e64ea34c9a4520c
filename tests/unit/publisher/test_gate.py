"""The gate of a provider: who is inside, and who comes next."""

import asyncio

from worker.publisher.gate import Gate
from worker.sim.loop import run


async def enter(gate: Gate, name: str, inside: list[str]) -> None:
    """Comes in, at once or in its time."""
    if not gate.enter_now():
        await gate.enter()
    inside.append(name)


def test_order_of_arrival() -> None:
    """Who comes while others wait gets behind them, though a place has just become free."""

    async def main() -> None:
        gate, inside = Gate(1), list[str]()
        tasks = [asyncio.create_task(enter(gate, name, inside)) for name in "abc"]
        await asyncio.sleep(0)
        assert inside == ["a"]
        gate.leave()
        assert not gate.enter_now()
        tasks.append(asyncio.create_task(enter(gate, "d", inside)))
        for _ in range(3):
            await asyncio.sleep(1)
            gate.leave()
        assert inside == ["a", "b", "c", "d"]
        assert gate.enter_now()
        await asyncio.gather(*tasks)

    run(main())


def test_place_of_one_that_gives_up_is_not_lost() -> None:
    """Whether it still waits, or has been handed the place in the same moment."""

    async def main() -> None:
        gate, inside = Gate(1), list[str]()
        assert gate.enter_now()
        tasks = [asyncio.create_task(enter(gate, name, inside)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        gate.leave()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert inside == ["c"]

    run(main())


def test_all_give_up_at_once() -> None:
    """Who is inside leaves in the same moment as those give up who wait: nobody gets the place, and it is free."""

    async def main() -> None:
        gate = Gate(1)
        assert gate.enter_now()
        tasks = [asyncio.create_task(enter(gate, name, [])) for name in "ab"]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        gate.leave()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        assert gate.enter_now()

    run(main())
