"""What one worker writes of what operators do."""

import asyncio
from collections.abc import Sequence
from itertools import count

import pytest

from schemas.state import Operated
from worker.app.operators import Operators
from worker.core.commands import COMMANDS
from worker.core.trust import Trust
from worker.errors import LogError
from worker.sim.loop import VirtualClock, run

ORDERS = [(f"acme/{number}", 0) for number in range(2_000)]


class Producer:
    """Acknowledges what it gets, but for one event; each takes a while."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at
        self.written: list[bytes] = []
        self.under_way = self.most = 0

    async def post(
        self, _key: bytes, value: bytes, _headers: Sequence[tuple[str, bytes]], _partition: int | None = None
    ) -> "asyncio.Future[int]":
        self.written.append(value)
        number = len(self.written)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.01)
        finally:
            self.under_way -= 1
        if number == self.fails_at:
            raise LogError("the brokers said no")
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(number)
        return acknowledged


async def nothing(_command: str, _account: str) -> None:
    """No account is acted on."""


def operators(producer: Producer) -> Operators:
    """Whose events are taken as soon as they are acknowledged, every second of them with something to do."""
    clock = VirtualClock(asyncio.get_running_loop())
    made = Operators(producer, None, lambda: Trust(["0123456789abcdef0123456789abcdef"]), clock, nothing)  # type: ignore[arg-type]
    numbers = count()

    def take() -> None:
        for uid in list(made._waiting):
            deed = Operated("release", "me", "why", 0, next(numbers) % 2 == 0, "", uid)
            made.operated("acme/1", deed)
        asyncio.get_running_loop().call_later(0.005, take)

    take()
    return made


def test_many_orders() -> None:
    """Some at a time; those count that there was something to do about."""

    async def main() -> None:
        producer = Producer()
        assert await operators(producer).write_all(COMMANDS["release"], ORDERS, "me", "why") == 1_000
        assert len(set(producer.written)) == 2_000
        assert 1 < producer.most <= 100

    run(main())


def test_ends_with_the_first_failure() -> None:
    """Whoever was told that it failed does not find it done later."""

    async def main() -> None:
        producer = Producer(fails_at=5)
        made = operators(producer)
        with pytest.raises(LogError):
            await made.write_all(COMMANDS["release"], ORDERS, "me", "why")
        written = len(producer.written)
        assert written < 250
        await asyncio.sleep(60)
        assert len(producer.written) == written
        assert not made._waiting

    run(main())
