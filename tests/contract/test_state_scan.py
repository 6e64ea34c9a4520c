"""The contract of `StateScan`, for every implementation of it."""

from collections.abc import Awaitable, Callable

import pytest

from tests.contract.world import Hold, World
from worker.ports import StateScan

Scan = Callable[..., Awaitable[StateScan]]


@pytest.fixture
async def scan(world: World) -> Scan:
    """Gives a scan that has started; of all orders, unless it is said of which accounts."""

    async def start(account: str = "") -> StateScan:
        found = world.scan(lambda subject: subject.startswith(account))
        await found.start()
        return found

    return start


async def orders(found: StateScan, partition: int = 0) -> list[tuple[str, bytes]]:
    """All orders of a partition."""
    return sorted([order async for order in found.orders(partition)])


async def test_each_order_once(hold: Hold, scan: Scan, world: World) -> None:
    """As it stands now; what was deleted, and what is no order, is left out."""
    owner = await hold()
    await owner.write([(b"o:acme/1", b"old"), (b"o:acme/2", b"2"), (b"m:next", b"x"), (b"o:acme/3", b"3")])
    await owner.write([(b"o:acme/1", b"new"), (b"o:acme/3", None), (b"j:acme:report", b"x")])
    found = await scan()
    assert found.partitions == world.partitions
    assert await orders(found) == [("acme/1", b"new"), ("acme/2", b"2")]
    assert await orders(found, 1) == []


async def test_only_those_that_are_wanted(hold: Hold, scan: Scan) -> None:
    """Other accounts' orders are not handed out, and not told as changed."""
    owner = await hold()
    await owner.write([(b"o:acme/1", b"1"), (b"o:hats/1", b"2")])
    found = await scan("hats/")
    assert await orders(found) == [("hats/1", b"2")]
    await owner.write([(b"o:acme/1", b"3")])
    assert await found.changed(0, ["acme/1", "hats/1"]) == {}


async def test_what_has_changed_since(hold: Hold, scan: Scan) -> None:
    """Of those that are asked for, the newest that was written after the scan of their partition began."""
    owner = await hold()
    await owner.write([(f"o:acme/{number}".encode(), b"1") for number in range(4)])
    found = await scan()
    assert len(await orders(found)) == 4
    assert await found.changed(0, ["acme/0"]) == {}
    await owner.write([(b"o:acme/0", b"2"), (b"o:acme/1", b"2")])
    await owner.write([(b"o:acme/0", b"3"), (b"o:acme/2", None)])
    assert await found.changed(0, ["acme/0", "acme/2", "acme/3"]) == {"acme/0": b"3", "acme/2": None}
    assert await found.changed(0, []) == {}


async def test_many(hold: Hold, scan: Scan) -> None:
    """More than are in memory at once: each once, as it stands."""
    owner = await hold()
    for count in range(3):
        await owner.write([(f"o:acme/{number}".encode(), b"%d" % count * 200) for number in range(1_200)])
    found = await orders(await scan())
    assert [subject for subject, _ in found] == sorted(f"acme/{number}" for number in range(1_200))
    assert {value for _, value in found} == {b"2" * 200}


async def test_reader_that_takes_its_time(hold: Hold, scan: Scan) -> None:
    """What is written while orders are handed out is not missed: it stands at the end, or is told as changed."""
    owner = await hold()
    await owner.write([(b"o:acme/1", b"1"), (b"o:acme/2", b"1")])
    found = await scan()
    seen = []
    async for subject, value in found.orders(0):
        seen.append((subject, value))
        if len(seen) == 1:
            await owner.write([(b"o:acme/2", b"2"), (b"o:acme/9", b"new")])
    newest = dict(seen) | await found.changed(0, ["acme/1", "acme/2"])
    assert newest == {"acme/1": b"1", "acme/2": b"2"}
