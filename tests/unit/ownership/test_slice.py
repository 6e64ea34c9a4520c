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


async def test_others_run_after_ten_milliseconds() -> None:
    """Three pieces of 4 ms, and others get their turn; then it begins anew."""
    context = batch_of(OrderRecord())[0]._context
    context.clock = clock = Hands()
    others = asyncio.create_task(asyncio.sleep(0), name="others")
    work = Slice(context)
    pauses: list[int] = []
    for piece in range(7):
        clock.at += 0.004
        if work.is_over():
            assert others.done() is bool(pauses)
            await work.pause()
            await asyncio.sleep(0)
            pauses.append(piece)
    assert pauses == [2, 5]
    assert others.done()
