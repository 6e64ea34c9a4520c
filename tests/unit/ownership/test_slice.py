"""The loop is given back by time, whatever one piece of work costs."""

import asyncio

from schemas.state import OrderRecord
from tests.unit.orders.test_batch import batch_of
from worker.ownership.context import Slice


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        """Seconds."""
        return self.at

    def wall_ms(self) -> int:
        """Not asked."""
        return 0

    def chance(self) -> float:
        """Not asked."""
        return 0.0


async def test_others_run_after_three_milliseconds() -> None:
    """Three pieces of 1 ms, and others get their turn; then it begins anew."""
    context = batch_of(OrderRecord())[0]._context
    context.clock = clock = Hands()
    others = asyncio.create_task(asyncio.sleep(0), name="others")
    work = Slice(context)
    pauses: list[int] = []
    for piece in range(7):
        clock.at += 0.00101
        if work.is_over():
            assert others.done() is bool(pauses)
            await work.pause()
            await asyncio.sleep(0)
            pauses.append(piece)
    assert pauses == [2, 5]
    assert others.done()


async def test_works_share_the_time_between_two_turns_of_the_loop() -> None:
    """Five partitions that are restored hold the loop together for no longer than one; what is left alone gets it all."""
    context = batch_of(OrderRecord())[0]._context
    context.clock = clock = Hands()
    piece_s = 0.0001
    turns: dict[str, list[float]] = {}

    async def restore(name: str, pieces: int) -> None:
        work = Slice(context)
        await work.pause()
        for _ in range(pieces):
            clock.at += piece_s
            if work.is_over():
                turns.setdefault(name, []).append(clock.at)
                await work.pause()

    await asyncio.gather(*(restore(name, 50) for name in "abcd"), restore("alone", 200))
    first, second, *_ = turns["a"]
    assert 0.003 <= second - first <= 0.003 + 6 * piece_s
    *_, first, second = turns["alone"]
    assert 0.003 <= second - first <= 0.003 + 2 * piece_s
    assert context.pausing == 0
